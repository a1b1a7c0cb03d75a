"""A worker among the others: which version it has adopted, for those who look after the host.

The Readers of one segment in a process share one registration, a record lock on `NAME.workers` (see `workers_file`); it
tells what one of them adopted last: with a whole snapshot, or with the second look-up at a version, as the first should
not wait for it. All of it is done in passing: whatever fails leaves the worker unlisted and nothing
else, and no thread ever waits for another. What a thread wants done while another is at it, that one does as well.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from . import workers_file
from .directories import Directory
from .errors import Error
from .place import Place
from .trust import open_trusted

_TRIES = 8  # for a place that nobody has: with a thousand workers one in 4,000 is taken

_lock = threading.Lock()
_steps: deque[Callable[[], None]] = deque()
_registrations: dict[tuple[int, int], _Registration] = {}


class Membership:
    """One Reader's part in the registration of its process. Any thread; a forked child has one of its own."""

    __slots__ = ("_adopted", "_directory", "_file_name", "_has_left", "_registration", "place")

    def __init__(self, directory: Directory, name: str, version: int) -> None:
        """directory, name: of the segment. version: that it is attached at. Never raises."""
        self._directory = directory
        self._file_name = name + workers_file.SUFFIX
        self._adopted = version
        self._has_left = False
        self._registration: _Registration | None = None
        self.place: Place | None = None
        """Where a version can be told without all this; None for nowhere."""
        _do(self._enter)

    def adopt(self, version: int) -> None:
        """The Reader has come to `version`. Never raises."""
        self._adopted = version
        _do(self._tell)

    def move(self, version: int) -> None:
        """The segment was replaced, and the file beside it may be another; the successor is at `version`."""
        self._adopted = version
        _do(self._move)

    def leave(self) -> None:
        """The Reader reads no more. Idempotent; may be called by the garbage collector, anywhere."""
        _do(self._leave)

    def _tell(self) -> None:
        registration = self._registration
        if registration is None or not registration.tell(self._adopted):
            self._move()

    def _move(self) -> None:
        self._let_go()
        if not self._has_left:
            self._enter()

    def _leave(self) -> None:
        self._has_left = True
        self._let_go()

    def _let_go(self) -> None:
        registration, self._registration, self.place = self._registration, None, None
        if registration is not None:
            registration.let_go()

    def _enter(self) -> None:
        # Looked up by name first: to close a second descriptor would drop the lock.
        found = os.lstat(os.path.join(self._directory.path, self._file_name))  # a Path would intern its parts
        registration = _registrations.get((found.st_dev, found.st_ino))
        if registration is None:
            opened = open_trusted(self._directory, self._file_name)
            registration = _registrations.get((opened.device, opened.inode))
            if registration is None:
                registration = _Registration(opened.fd, opened.device, opened.inode)
            else:  # it came to have this name a moment ago; what closing drops is taken again below
                os.close(opened.fd)
        if not registration.is_open():  # somebody closed its descriptor
            registration.forget()
            return self._enter()
        registration.readers += 1
        self._registration, self.place = registration, registration.place
        registration.tell(self._adopted)


class _Registration:
    """What the Readers of this process have on one file. Only within a step."""

    __slots__ = ("_fd", "_identity", "place", "readers")

    def __init__(self, fd: int, device: int, inode: int) -> None:
        self._fd = fd
        self._identity = device, inode
        self.place = Place(fd, device, inode)
        self.readers = 0
        _registrations[self._identity] = self

    def is_open(self) -> bool:
        """Whether the descriptor is of the file still."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def tell(self, version: int) -> bool:
        """Lock what says `version`, in a free place. False where that cannot be."""
        if self.place.tell(version):
            return True
        if self.place.start is not None or not self.is_open():
            return False
        self.place.start = _free_start(self._fd)
        return self.place.tell(version)

    def let_go(self) -> None:
        """One Reader less; with the last the lock goes."""
        self.readers -= 1
        if self.readers <= 0 and _registrations.get(self._identity) is self:
            self.close()

    def close(self) -> None:
        """The lock goes."""
        if self.is_open():
            os.close(self._fd)
        self.forget()

    def forget(self) -> None:
        """Of no use any more."""
        if _registrations.get(self._identity) is self:
            del _registrations[self._identity]

    def take_anew(self) -> None:
        """In a forked child, which has inherited the descriptor and not the lock."""
        self.place.start = None
        self.tell(self.place.version)


def _free_start(fd: int) -> int | None:
    """Where a place begins that no other process has; None if none was found."""
    if not workers_file.OFFERED:
        return None
    for _ in range(_TRIES):
        number = int.from_bytes(os.urandom(4), "little") % (1 << workers_file.PLACE_BITS)
        start = number * workers_file.PLACE_SIZE
        if workers_file.lock_in(fd, start, start + workers_file.PLACE_SIZE) is None:
            return start
    return None


def _do(step: Callable[[], None]) -> None:
    """Have it done, here or by the thread that is at such a thing just now."""
    _steps.append(step)
    while _steps:
        lock = _lock  # the one to be released, also where a step (a signal came) went on in a forked child
        if not lock.acquire(blocking=False):
            return
        try:
            while _steps:
                with contextlib.suppress(OSError, Error, ValueError):
                    _steps.popleft()()
        finally:
            lock.release()


def _forget_all() -> None:
    for registration in list(_registrations.values()):
        registration.close()


def _begin_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that had it is not here
    _steps.clear()
    for registration in list(_registrations.values()):
        _do(registration.take_anew)


os.register_at_fork(after_in_child=_begin_in_child)
atexit.register(_do, _forget_all)  # of an interpreter that ends before its process does
