"""JSON as the standard library reads it, in UTF-8, with NaN and the infinities that it also takes.

Refused beyond the grammar: duplicate keys, integers beyond 64 bits, numbers that no float can hold (`1e400`, which the
library would silently turn into infinity) and half surrogate pairs.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from ..problems import MOST_PROBLEMS, Code, Fault, Invalid, Key, Path, in_order
from .limits import Limits
from .places import START, Lines, Place, Position, find
from .plain import hint as hint  # of the Format that this module is
from .plain import surprises as surprises
from .text import LINE_FEED, decode_utf8
from .tree import inspect

LINE_BREAK = LINE_FEED
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:"]|[^\s"\[\]{},:]+', re.DOTALL)
_NODE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{"]|[^\s"\[\]{},:]+', re.DOTALL)
_BLANK = " \t\r\n"
_FAR_OUT = 2**70  # stands for an integer of more digits than int() takes; refused like every one beyond 64 bits


class _Scan:
    """The places in a JSON text, read as far as it makes sense; `too_deep` is where it passed `max_depth`."""

    def __init__(self, text: str, max_depth: int | None = None) -> None:
        self.root = Place(START, START, {})
        self.duplicates: list[tuple[str, Position, Position]] = []  # key, its place, the first one's
        self.too_deep: Position | None = None
        self._read(text, max_depth)

    def _read(self, text: str, max_depth: int | None) -> None:
        lines = Lines(text)
        container = outer = Place(START, START, [])
        stack: list[Place] = []
        replaced: list[Place] = []
        firsts: dict[tuple[int, str], Position] = {}  # of the keys set more than once, by map and key
        key: str | None = None
        key_at = START
        for match in _TOKEN.finditer(text):
            token = match.group()
            at = lines.position(match.start())
            if token in ",:":
                continue
            if token in "]}":
                if not stack:
                    break
                container = stack.pop()
                continue
            if token == '"':  # a string that does not end
                break
            children = container.children
            if isinstance(children, dict) and key is None:
                key = _string(token)
                if key is None:
                    break
                key_at = at
                continue
            place = Place(at, at, {} if token == "{" else [] if token == "[" else None, token)
            if isinstance(children, dict) and key is not None:
                place.at = key_at
                if key in children:
                    replaced.append(children[key])  # held, so that no identity below is used twice
                    first = firsts.setdefault((id(children), key), children[key].at)
                    if len(self.duplicates) <= MOST_PROBLEMS:
                        self.duplicates.append((key, key_at, first))
                children[key] = place  # the last one, whose value the parser keeps
                key = None
            elif isinstance(children, list):
                children.append(place)
            if place.children is not None:
                stack.append(container)
                container = place
                if max_depth is not None and len(stack) > max_depth:
                    self.too_deep = at
                    break
        if isinstance(outer.children, list) and outer.children:
            self.root = outer.children[0]
            self.root.at = START


def _problems_before(text: str, limits: Limits) -> list[tuple[Position | None, Fault]]:
    """More nodes than the limit, which the library would build before it could be asked."""
    if sum(text.count(mark) for mark in ",:[{") < limits.max_nodes:  # each node but the first needs one
        return []
    found = next(islice(_NODE.finditer(text), limits.max_nodes, None), None)
    return [] if found is None else [(Lines(text).position(found.start()), limits.too_many_nodes())]


def parse(data: bytes, *, file: str, limits: Limits) -> dict[Key, Any]:
    """The tree in `data`. Raises Invalid with every problem up to the first syntax error."""
    text = decode_utf8(data, file=file)
    if not text.strip(_BLANK):
        return {}
    problems = _problems_before(text, limits)
    tree, has_duplicates = (None, False) if problems else _load(text, problems, limits)
    scan: _Scan | None = None
    if has_duplicates:
        scan = _Scan(text)
        problems += [(at, _duplicate(key, first)) for key, at, first in scan.duplicates]
    if isinstance(tree, dict):
        findings = inspect(tree, limits)
        if findings.problems or findings.infinities:
            scan = scan or _Scan(text)
            problems += [(_value_at(scan.root, path), fault) for path, fault in findings.problems]
            problems += _overflows(scan.root, findings.infinities)
        if not problems:
            return tree
    elif not problems:
        at = _Scan(text).root.value
        problems.append((at, Fault(Code.TOP_LEVEL, f"the top level is {_kind(tree)}; it has to be an object")))
    raise Invalid(in_order(problems, file))


def documents(data: bytes, *, file: str, limits: Limits) -> list[dict[Key, Any]]:
    """The one tree in `data`: a file of this format is one document. Raises Invalid, as `parse`."""
    return [parse(data, file=file, limits=limits)]


def place_trees(data: bytes) -> list[Place]:
    """The place tree of the one document in `data`."""
    return [_Scan(decode_utf8(data, file="")).root]


def _load(text: str, problems: list[tuple[Position | None, Fault]], limits: Limits) -> tuple[Any, bool]:
    """The tree (None if there is none, with the reason added to `problems`) and whether keys were lost in it."""
    lost = False

    def to_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal lost
        tree = dict(pairs)
        lost = lost or len(tree) != len(pairs)
        return tree

    try:
        try:
            return json.loads(text, object_pairs_hook=to_map), lost
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer of more digits than int() takes
            return json.loads(text, object_pairs_hook=to_map, parse_int=_integer), lost
    except json.JSONDecodeError as error:
        scan = _Scan(text[: error.pos])
        problems += [(at, _duplicate(key, first)) for key, at, first in scan.duplicates]
        message = error.msg[:1].lower() + error.msg[1:]
        problems.append(((error.lineno, error.colno), Fault(Code.JSON_SYNTAX, message)))
    except RecursionError:
        problems.append((_Scan(text, limits.max_depth).too_deep, limits.too_deep()))
    return None, False


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 400 else _FAR_OUT


def _string(token: str) -> str | None:
    """A string token's value, or None if the token is none."""
    if not token.startswith('"'):
        return None
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(json.loads(token, strict=False))
    except json.JSONDecodeError:
        return None


def _value_at(root: Place, path: Path) -> Position | None:
    place = find(root, path)
    return place.value if place else None


def _overflows(root: Place, infinities: list[Path]) -> list[tuple[Position | None, Fault]]:
    """Those of the infinite floats that were written as numbers."""
    places = [place for path in infinities if (place := find(root, path))]
    return [
        (place.value, Fault(Code.NUMBER_RANGE, f"{_shorten(place.text)} is beyond what a float can hold"))
        for place in places
        if not place.text.endswith("Infinity")
    ]


def _shorten(number: str) -> str:
    return number if len(number) <= 60 else f"{number[:40]}…{number[-10:]}"


def _duplicate(key: str, first: Position) -> Fault:
    return Fault(Code.DUPLICATE_KEY, f"duplicate key {key!r}, first set at line {first[0]}, column {first[1]}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "an array" if isinstance(value, list) else "a single value"
