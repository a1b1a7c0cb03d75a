"""shared-memory-dict: one pickle in shared memory, read whole at each look-up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rival import Rival, require


class SharedDict(Rival):
    """The tree as it is: one read gives all of it anyway."""

    name = "shared-memory-dict"
    expression = 'store["db"]["pool"]["size"]'

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._opened: list[Any] = []

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """A publisher's handle, and a reader's."""
        kind = require("shared_memory_dict").SharedMemoryDict
        name = f"shmconf-bench-{os.getpid()}"
        publisher = kind(name=name, size=1 << 16)
        self._opened.append(publisher)
        publisher.update(dict(tree))
        self._opened.append(kind(name=name, size=1 << 16))

    def names(self) -> Mapping[str, object]:
        """The reader's handle."""
        return {"store": self._opened[1]}

    def close(self) -> None:
        """Both handles, and the memory."""
        if self._opened:
            self._opened[0].shm.unlink()
        while self._opened:
            self._opened.pop().cleanup()
