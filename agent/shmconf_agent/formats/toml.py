"""TOML as tomli reads it, in UTF-8.

Refused beyond the grammar: integers beyond 64 bits (TOML leaves them to the parser) and what passes the limits. Keys
and tables that are set twice are reported with both places.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tomli

from ..problems import Invalid, Key, Path, Problem
from .limits import Limits
from .places import Place, Position, find, positions
from .text import decode_utf8
from .toml_places import Scan
from .tree import inspect

_CONFLICT = re.compile(r"Cannot (?:overwrite|declare|mutate|redefine) |Duplicate inline table key ")
_MOST_DIGITS = 400


def parse(data: bytes, *, file: str, limits: Limits) -> dict[Key, Any]:
    """The tree in `data`. Raises Invalid: with every conflict of keys and every value outside the format, or with the
    first syntax error."""
    text = decode_utf8(data, file=file)
    problems = _problems_before(text, limits)
    if not problems:
        try:
            tree: dict[Any, Any] = tomli.loads(text)
        except tomli.TOMLDecodeError as error:
            problems = _decode_problems(text, error)
        except RecursionError:
            problems = [(Scan(text, limits.max_depth).too_deep, limits.too_deep())]
        except ValueError as error:  # an integer of more digits than int() takes
            problems = _long_integers(Scan(text).root) or [(None, str(error))]
        else:
            problems = _outside(text, tree, limits)
            if not problems:
                return tree
    problems.sort(key=lambda problem: problem[0] or (0, 0))
    raise Invalid(Problem(message, file, *(at or (None, None))) for at, message in problems)


def locate_many(data: bytes, paths: Sequence[Path]) -> list[Position | None]:
    """The place of each path, None where the document has no such path."""
    return positions(Scan(decode_utf8(data, file="")).root, paths)


def _problems_before(text: str, limits: Limits) -> list[tuple[Position | None, str]]:
    """Keys of very many parts: tomli's work on them grows with the square of their number."""
    if any(line.count(".") >= limits.max_depth for line in text.split("\n")):
        too_deep = Scan(text, limits.max_depth).too_deep
        if too_deep:
            return [(too_deep, limits.too_deep())]
    return []


def _decode_problems(text: str, error: tomli.TOMLDecodeError) -> list[tuple[Position | None, str]]:
    """A conflict of keys hides the rest of the text from tomli, not from the scan; a syntax error ends both."""
    is_conflict = bool(_CONFLICT.match(error.msg))
    conflicts = Scan(text if is_conflict else text[: error.pos]).conflicts
    problems: list[tuple[Position | None, str]] = [
        (at, f"duplicate key {name!r}, first set at line {first[0]}, column {first[1]}")
        for at, name, first in conflicts
    ]
    if not (conflicts and is_conflict):
        problems.append(((error.lineno, error.colno), error.msg[:1].lower() + error.msg[1:]))
    return problems


def _outside(text: str, tree: dict[Key, Any], limits: Limits) -> list[tuple[Position | None, str]]:
    findings = inspect(tree, limits)
    if not findings.problems:
        return []
    root = Scan(text).root
    places = [(find(root, path), message) for path, message in findings.problems]
    return [(place.value if place else None, message) for place, message in places]


def _long_integers(root: Place) -> list[tuple[Position | None, str]]:
    found: list[tuple[Position | None, str]] = []
    waiting = [root]
    while waiting:
        place = waiting.pop()
        children = place.children
        if children is not None:
            waiting += children.values() if isinstance(children, dict) else children
        elif len(place.text) > _MOST_DIGITS and place.text.lstrip("+-").replace("_", "").isdecimal():
            found.append((place.value, "an integer beyond 64 bits (it may be -2**63 to 2**64-1)"))
    return found
