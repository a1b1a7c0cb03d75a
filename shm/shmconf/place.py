"""The place in `NAME.workers` that this process has, and the lock there which tells its version (see `workers_file`).

`_native.Place` is the same in C, so that a look-up in C need not come to Python for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import workers_file
from .mapping import IMPLEMENTATION

__all__ = ["Place"]


class PurePlace:
    """A place in the open file `fd`, which is `inode` on `device`; nowhere until `start` is set.

    Any thread. In a forked child nothing is locked: it sets a `start` of its own.
    """

    def __init__(self, fd: int, device: int, inode: int, /) -> None:
        self._fd = fd
        self._identity = device, inode
        self._start: int | None = None
        self._length = 0
        self.version = 0
        """What was told last."""

    @property
    def start(self) -> int | None:
        """Where it begins; None while it is nowhere."""
        return self._start

    @start.setter
    def start(self, start: int | None) -> None:
        self._length = 0  # nothing is locked there yet
        self._start = start

    def tell(self, version: int, /) -> bool:
        """Lock what says `version`; False where that cannot be. Never waits, never raises.

        Not in a file that the descriptor has come to be of after somebody closed it, as daemons do to all of theirs:
        its locks are somebody else's business. Nor in one that was removed, where nobody asks for them.
        """
        self.version = version
        length = workers_file.length_for(version)
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        if (found.st_dev, found.st_ino) != self._identity or found.st_nlink == 0 or self._start is None:
            return False
        try:
            workers_file.lock(self._fd, self._start, length, self._length)
        except OSError:
            return False
        self._length = length
        return True


if TYPE_CHECKING or IMPLEMENTATION == "native":
    from ._native import Place
else:
    Place = PurePlace
