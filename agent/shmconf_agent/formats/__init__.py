"""Text to trees: one module per format, chosen by the file's suffix, all held to the same contract.

`parse` gives a map whose values are dict, list, str, int (-2**63 to 2**64-1), float, bool, None, bytes, datetime,
date and time; what a file says beyond that is refused, with its place. An empty document is an empty map. Within one
tree the same object may stand at several places (YAML's aliases), so trees are read, never changed.

`locate` and `locate_many` find the line and column of a path, by reading the text once more; nothing is kept for them
while parsing. Everything here is a pure function of its arguments and may be called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from ..problems import Invalid, Key, Path, Problem
from . import json, toml, yaml
from .limits import DEFAULT_LIMITS, Limits
from .places import Position

__all__ = ["DEFAULT_LIMITS", "SUFFIXES", "Limits", "locate", "locate_many", "parse"]


class Format(Protocol):
    """What each format's module offers."""

    def parse(self, data: bytes, *, file: str, limits: Limits) -> dict[Key, Any]:
        """The tree in `data`. Raises Invalid."""

    def locate_many(self, data: bytes, paths: Sequence[Path]) -> list[Position | None]:
        """The place of each path, None where there is no such path."""


SUFFIXES: dict[str, Format] = {".yaml": yaml, ".yml": yaml, ".toml": toml, ".json": json}


def parse(data: bytes, *, file: str, limits: Limits = DEFAULT_LIMITS) -> dict[Key, Any]:
    """The tree in `data`, in the format that the suffix of `file` names.

    Raises Invalid with every problem that could be found: all duplicate keys and all values outside the format, up
    to the first syntax error. `file` is also the name that the problems carry.
    """
    reader = _format_of(file)
    if len(data) > limits.max_bytes:
        raise Invalid([Problem(limits.too_large(len(data)), file)])
    return reader.parse(data, file=file, limits=limits)


def locate(data: bytes, path: Path, *, file: str) -> Position | None:
    """Line and column of `path`: of the key for a map's entry, of the item's start for a list's item, (1, 1) for ().

    A key that comes from a merge (`<<`) is placed where it stands in the merged map; an entry whose value is an alias
    is placed at its own key, and what lies beneath it where the anchor is. A TOML table is placed where its key stands
    first, an item of an array of tables at its `[[`. None if the document has no such path. Never raises for data that
    `parse` accepts.
    """
    return locate_many(data, [path], file=file)[0]


def locate_many(data: bytes, paths: Sequence[Path], *, file: str) -> list[Position | None]:
    """`locate` for several paths at the price of one: the text is read once."""
    return _format_of(file).locate_many(data, paths)


def _format_of(file: str) -> Format:
    suffix = os.path.splitext(file)[1]
    try:
        return SUFFIXES[suffix]
    except KeyError:
        found = f"suffix {suffix!r}" if suffix else "no suffix"
        known = ", ".join(SUFFIXES)
        raise Invalid([Problem(f"a file with {found} cannot be read: the known suffixes are {known}", file)]) from None
