"""TOML as tomli reads it, in UTF-8.

Refused beyond the grammar: integers beyond 64 bits (TOML leaves them to the parser) and what passes the limits. Keys
and tables that are set twice are reported with both places.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import tomli

from ..problems import Code, Fault, Invalid, Key, in_order
from .limits import Limits
from .places import Lines, Place, Position, find
from .plain import hint as hint  # of the Format that this module is
from .plain import surprises as surprises
from .text import LINE_FEED, decode_utf8
from .toml_places import Scan
from .tree import BEYOND_64_BITS, inspect

LINE_BREAK = LINE_FEED
_CONFLICT = re.compile(r"Cannot (?:overwrite|declare|mutate|redefine) |Duplicate inline table key ")
_MOST_DIGITS = 400
# Keys, values, comments, and what opens a list or a table: three for a date and time at most, one for the rest or two.
_TOKEN = re.compile(
    r'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+"""|'
    r"'''[^']*+(?:'(?!'')[^']*+)*+'''|"
    r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|'
    r"'[^'\n]*+'|#[^\n]*+|[\[{]|[^\s\[\]{},.=#\"']++",
    re.DOTALL,
)
_TOKENS_OF_A_NODE = 3


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
            problems = _long_integers(Scan(text).root) or [(None, Fault(Code.TOML_SYNTAX, str(error)))]
        else:
            problems = _outside(text, tree, limits)
            if not problems:
                return tree
    raise Invalid(in_order(problems, file))


def documents(data: bytes, *, file: str, limits: Limits) -> list[dict[Key, Any]]:
    """The one tree in `data`: a file of this format is one document. Raises Invalid, as `parse`."""
    return [parse(data, file=file, limits=limits)]


def place_trees(data: bytes) -> list[Place]:
    """The place tree of the one document in `data`."""
    return [Scan(decode_utf8(data, file="")).root]


def _problems_before(text: str, limits: Limits) -> list[tuple[Position | None, Fault]]:
    """Keys of very many parts, as tomli's work on them grows with the square of their number; and several times as many
    nodes as the limit, which tomli would build before it could be asked."""
    if any(line.count(".") >= limits.max_depth for line in text.split("\n")):
        too_deep = Scan(text, limits.max_depth).too_deep
        if too_deep:
            return [(too_deep, limits.too_deep())]
    most = _TOKENS_OF_A_NODE * limits.max_nodes
    if len(text) > most:
        tokens = (token for token in _TOKEN.finditer(text) if not token.group().startswith("#"))
        if (found := next(islice(tokens, most, None), None)) is not None:
            return [(Lines(text).position(found.start()), limits.too_many_nodes())]
    return []


def _decode_problems(text: str, error: tomli.TOMLDecodeError) -> list[tuple[Position | None, Fault]]:
    """A conflict of keys hides the rest of the text from tomli, not from the scan; a syntax error ends both."""
    is_conflict = bool(_CONFLICT.match(error.msg))
    conflicts = Scan(text if is_conflict else text[: error.pos]).conflicts
    problems: list[tuple[Position | None, Fault]] = [
        (at, Fault(Code.DUPLICATE_KEY, f"duplicate key {name!r}, first set at line {first[0]}, column {first[1]}"))
        for at, name, first in conflicts
    ]
    if not (conflicts and is_conflict):
        message = error.msg[:1].lower() + error.msg[1:]
        problems.append(((error.lineno, error.colno), Fault(Code.TOML_SYNTAX, message)))
    return problems


def _outside(text: str, tree: dict[Key, Any], limits: Limits) -> list[tuple[Position | None, Fault]]:
    findings = inspect(tree, limits)
    if not findings.problems:
        return []
    root = Scan(text).root
    places = [(find(root, path), fault) for path, fault in findings.problems]
    return [(place.value if place else None, fault) for place, fault in places]


def _long_integers(root: Place) -> list[tuple[Position | None, Fault]]:
    found: list[tuple[Position | None, Fault]] = []
    waiting = [root]
    while waiting:
        place = waiting.pop()
        children = place.children
        if children is not None:
            waiting += children.values() if isinstance(children, dict) else children
        elif len(place.text) > _MOST_DIGITS and place.text.lstrip("+-").replace("_", "").isdecimal():
            found.append((place.value, BEYOND_64_BITS))
    return found
