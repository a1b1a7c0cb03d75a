"""diskcache: an SQLite file behind a dictionary's interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rival import Rival, leaves, require


class DiskCache(Rival):
    """A Cache with its defaults, on the same tmpfs as the segment."""

    name = "diskcache"
    expression = 'store["db.pool.size"]'

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._store: Any = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """Written and closed, then opened as readers do."""
        kind = require("diskcache").Cache
        path = str(directory / "diskcache")
        with kind(path) as publisher:
            for key, value in leaves(tree):
                publisher[key] = value
        self._store = kind(path)

    def names(self) -> Mapping[str, object]:
        """The reader's handle."""
        return {"store": self._store}

    def close(self) -> None:
        """The handle; its files go with their directory."""
        if self._store is not None:
            self._store.close()
