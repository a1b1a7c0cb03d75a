"""What every rival offers: the same tree published its own way, and one expression that reads a value from it."""

from __future__ import annotations

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from ..row import Unavailable
from ..timing import Timed


class Rival(ABC):
    """One way to share configuration between processes, read at its best.

    `expression` reads db.pool.size as an int, over `names()`; it is put into the timing loop as it stands, so that no
    call of ours is timed with it. Every rival reads as another process than the publisher would: through a handle of
    its own, and so that the next published value would be seen.
    """

    name: ClassVar[str]
    expression: ClassVar[str]
    counts: ClassVar[bool] = True  # whether it takes part in 'the nearest rival'

    @abstractmethod
    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """Publish `tree` with all files in `directory`. Raises Unavailable where the machine lacks what it needs."""

    @abstractmethod
    def names(self) -> Mapping[str, object]:
        """What `expression` refers to, once prepared."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all that `prepare` made, also after it failed. Idempotent."""

    def timed(self) -> Timed:
        """The expression to time."""
        return Timed(self.expression, self.names())

    def read(self) -> object:
        """The value of db.pool.size, read once."""
        return self.timed().value()


def require(module: str) -> ModuleType:
    """The rival's own module. Raises Unavailable where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed here: {error}") from error


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a map, with its dotted path: how a flat store holds a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
