"""SQLite: a table of paths and values, a prepared SELECT for each look-up."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from .rival import Rival, leaves


class Sqlite(Rival):
    """In WAL mode, so that a writer holds no reader up; the statement stays in the connection's cache."""

    name = "SQLite"
    expression = 'connection.execute("SELECT value FROM leaf WHERE path = ?", ("db.pool.size",)).fetchone()[0]'

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._connection: sqlite3.Connection | None = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """Written and closed, then opened as readers do."""
        path = directory / "leaves.sqlite"
        with closing(sqlite3.connect(path)) as publisher:
            publisher.execute("PRAGMA journal_mode = WAL")
            publisher.execute("CREATE TABLE leaf (path TEXT PRIMARY KEY, value) WITHOUT ROWID")
            rows = [(key, value if isinstance(value, int | float | str) else str(value)) for key, value in leaves(tree)]
            publisher.executemany("INSERT INTO leaf VALUES (?, ?)", rows)
            publisher.commit()
        self._connection = sqlite3.connect(path, isolation_level=None)

    def names(self) -> Mapping[str, object]:
        """The reader's connection."""
        return {"connection": self._connection}

    def close(self) -> None:
        """The connection; its files go with their directory."""
        if self._connection is not None:
            self._connection.close()
