"""LMDB: a B+tree in a mapped file, a read transaction for each look-up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rival import Rival, leaves, require


class Lightning(Rival):
    """Values as text, the shortest way to an int; the transaction ends with its last reference."""

    name = "LMDB"
    expression = 'int(environment.begin().get(b"db.pool.size"))'

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._environment: Any = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """Written and closed, then opened as readers do."""
        lmdb = require("lmdb")
        path = str(directory / "lmdb")
        with lmdb.open(path, map_size=64 << 20) as environment, environment.begin(write=True) as transaction:
            for key, value in leaves(tree):
                transaction.put(key.encode(), json.dumps(value).encode())
        self._environment = lmdb.open(path, readonly=True)

    def names(self) -> Mapping[str, object]:
        """The readers' environment."""
        return {"environment": self._environment}

    def close(self) -> None:
        """The environment; its files go with their directory."""
        if self._environment is not None:
            self._environment.close()
