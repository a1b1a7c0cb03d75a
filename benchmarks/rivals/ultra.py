"""UltraDict: a dictionary in every process, kept the same by a stream of changes in shared memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rival import Rival, leaves, require


class Ultra(Rival):
    """Flat keys: nested ones would be an UltraDict, and a check for changes, per level."""

    name = "UltraDict"
    expression = 'store["db.pool.size"]'

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._opened: list[Any] = []

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """A publisher's handle, and a reader's."""
        kind = require("UltraDict").UltraDict
        name = f"shmconf-bench-{os.getpid()}"
        self._opened.append(kind(name=name, create=True, buffer_size=1 << 20, auto_unlink=True))
        self._opened[0].update(dict(leaves(tree)))
        self._opened.append(kind(name=name, create=False, auto_unlink=False))

    def names(self) -> Mapping[str, object]:
        """The reader's handle."""
        return {"store": self._opened[1]}

    def close(self) -> None:
        """The reader's handle first: the publisher's takes the memory with it."""
        while self._opened:
            self._opened.pop().close()
