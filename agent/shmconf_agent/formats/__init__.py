"""Text to trees: one module per format, chosen by the file's suffix, all held to the same contract.

A file is one document, or several in YAML; `parse_documents` gives the tree of each. A tree is a map whose values are
dict, list, str, int (-2**63 to 2**64-1), float, bool, None, bytes, datetime, date and time; what a file says beyond
that is refused, with its place. An empty document is an empty map. Within one tree the same object may stand at several
places (YAML's aliases), so trees are read, never changed.

`locate`, `locate_many` and `place_trees` find lines and columns, by reading the text once more; nothing is kept for
them while parsing. Everything here is a pure function of its arguments and may be called from any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from ..problems import MOST_PROBLEMS, TOO_MANY, Code, Fault, Invalid, Key, Path
from . import json, toml, yaml
from .limits import DEFAULT_LIMITS, Limits
from .places import Place, Position, positions
from .text import encoding_of

__all__ = [
    "DEFAULT_LIMITS",
    "SUFFIXES",
    "Limits",
    "hint",
    "lines",
    "locate",
    "locate_many",
    "parse",
    "parse_documents",
    "place_trees",
    "surprises",
]


class Format(Protocol):
    """What each format's module offers. LINE_BREAK: what ends a line, by which its places are counted."""

    LINE_BREAK: re.Pattern[str]

    def documents(self, data: bytes, *, file: str, limits: Limits) -> list[dict[Key, Any]]:
        """The tree of each document in `data`, at least one. Raises Invalid."""

    def place_trees(self, data: bytes) -> list[Place]:
        """The place tree of each document in `data`, which `documents` accepts."""

    def surprises(self, data: bytes) -> list[tuple[Position, Fault]]:
        """See below."""

    def hint(self, place: Place, wanted: AbstractSet[str]) -> str | None:
        """See below."""


SUFFIXES: dict[str, Format] = {".yaml": yaml, ".yml": yaml, ".toml": toml, ".json": json}


def parse(data: bytes, *, file: str, limits: Limits = DEFAULT_LIMITS) -> dict[Key, Any]:
    """The tree in `data`, which has to be one document: `parse_documents` without the list."""
    trees = parse_documents(data, file=file, limits=limits)
    if len(trees) > 1:
        at = place_trees(data, file=file)[1].at
        fault = Fault(Code.SECOND_DOCUMENT, "a second document begins here, in a file that has to be one")
        raise Invalid([fault.at(file, at)])
    return trees[0]


def parse_documents(data: bytes, *, file: str, limits: Limits = DEFAULT_LIMITS) -> list[dict[Key, Any]]:
    """The tree of each document in `data`, in the format that the suffix of `file` names; an empty file is one tree.

    Raises Invalid with every problem that could be found: all duplicate keys and all values outside the format, up
    to the first syntax error. `file` is also the name that the problems carry.
    """
    reader = _format_of(file)
    if len(data) > limits.max_file_bytes:
        raise Invalid([limits.too_large(len(data)).at(file)])
    return reader.documents(data, file=file, limits=limits)


def locate(data: bytes, path: Path, *, file: str, document: int = 0) -> Position | None:
    """Line and column of `path` in the document of that index: of the key for a map's entry, of the item's start for a
    list's item. For () it is (1, 1), or where the marker of a later document stands.

    A key that comes from a merge (`<<`) is placed where it stands in the merged map; an entry whose value is an alias
    is placed at its own key, and what lies beneath it where the anchor is. A TOML table is placed where its key stands
    first, an item of an array of tables at its `[[`. None if the document has no such path. Never raises for data that
    `parse` accepts.
    """
    return locate_many(data, [path], file=file, document=document)[0]


def locate_many(data: bytes, paths: Sequence[Path], *, file: str, document: int = 0) -> list[Position | None]:
    """`locate` for several paths at the price of one: the text is read once."""
    return positions(place_trees(data, file=file)[document], paths)


def place_trees(data: bytes, *, file: str) -> list[Place]:
    """The place tree of each document, to be followed with `places.find` and `places.trace`."""
    return _format_of(file).place_trees(data)


def surprises(data: bytes, *, file: str) -> list[tuple[Position, Fault]]:
    """What is read otherwise than it looks, in the order of the text, of data that `parse_documents` accepts; no more
    than are told of problems."""
    found = _format_of(file).surprises(data)
    if len(found) > MOST_PROBLEMS:
        found[MOST_PROBLEMS:] = [(found[MOST_PROBLEMS - 1][0], TOO_MANY)]
    return found


def hint(place: Place, wanted: AbstractSet[str], *, file: str) -> str | None:
    """What to write for a value of one of the JSON types `wanted` (`string`, `number`, ...) at this place of a place
    tree, if its spelling makes it another in this format; None if the spelling is not to blame."""
    return _format_of(file).hint(place, wanted)


def lines(data: bytes, *, file: str) -> list[str]:
    """The text of `data` by the lines that places in it count, without their ends; what is no text is replaced."""
    reader = SUFFIXES.get(os.path.splitext(file)[1], toml)  # the agent's own file may have any name
    return reader.LINE_BREAK.split(data.decode(encoding_of(data), "replace"))


def _format_of(file: str) -> Format:
    suffix = os.path.splitext(file)[1]
    try:
        return SUFFIXES[suffix]
    except KeyError:
        found = f"suffix {suffix!r}" if suffix else "no suffix"
        known = ", ".join(SUFFIXES)
        message = f"a file with {found} cannot be read: the known suffixes are {known}"
        raise Invalid([Fault(Code.FILE_SUFFIX, message).at(file)]) from None
