"""multiprocessing.Manager().dict(): a dictionary in a server process, a message for each look-up."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from .rival import Rival, leaves


class ManagedDict(Rival):
    """Flat keys, so that a look-up moves one value and not a branch."""

    name = "Manager().dict"
    expression = 'store["db.pool.size"]'

    def __init__(self) -> None:
        """Nothing is started before `prepare`."""
        self._manager: SyncManager | None = None
        self._store: Any = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """The server process, given all leaves."""
        self._manager = SyncManager()
        self._manager.start()
        self._store = self._manager.dict(dict(leaves(tree)))

    def names(self) -> Mapping[str, object]:
        """The proxy."""
        return {"store": self._store}

    def close(self) -> None:
        """The proxy, then the server process."""
        self._store = None
        if self._manager is not None:
            self._manager.shutdown()
            self._manager = None
