"""stat() plus cached parse: what a worker writes for itself, a file parsed again whenever stat() differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .rival import Rival


class StatAndParse(Rival):
    """A JSON file, replaced whole by its publisher; identity, size and time of change decide."""

    name = "stat() plus cached parse"
    expression = 'load()["db"]["pool"]["size"]'

    def __init__(self) -> None:
        """Nothing is written before `prepare`."""
        self._load: Callable[[], Any] | None = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """The file."""
        path = directory / "tree.json"
        path.write_text(json.dumps(tree))
        self._load = _loader(path)

    def names(self) -> Mapping[str, object]:
        """The loader."""
        return {"load": self._load}

    def close(self) -> None:
        """The file goes with its directory."""
        self._load = None


def _loader(path: Path) -> Callable[[], Any]:
    name = os.fspath(path)
    seen: tuple[int, int, int] | None = None
    parsed: Any = None

    def load(stat: Callable[[str], os.stat_result] = os.stat) -> Any:
        nonlocal seen, parsed
        now = stat(name)
        identity = now.st_mtime_ns, now.st_ino, now.st_size
        if identity != seen:
            with open(name, "rb") as file:
                parsed = json.load(file)
            seen = identity
        return parsed

    return load
