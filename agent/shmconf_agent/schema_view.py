"""What a JSON Schema sees of a configuration tree, and the way back from what it says to the real tree.

JSON Schema knows text, numbers, booleans, null, lists and maps with text keys. A tree may hold more, so it is
shown as:

- dates, times and date-times: their RFC 3339 text (a local one has no offset); bytes: base64;
- keys that are not text: the text that YAML would show (`1`, `true`, `null`);
- infinities: numbers beyond every limit that are never whole, so that `maximum` holds and `integer` refuses
  them;
- nan: null; and since no JSON value can stand for it, `STAND_INS_FOR_NAN` after that, one after the other: a
  schema takes nan only where it takes them all.

`Clash` tells of the one thing that cannot be shown: two keys of a map with the same text.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any

from .problems import Key, Path

_PLAIN = frozenset({str, int, bool, type(None)})
_INFINITY = Decimal("1" + "0" * 400 + ".5")
_MINUS_INFINITY = Decimal("-1" + "0" * 400 + ".5")  # the operator would round it, to a whole number
STAND_INS_FOR_NAN: tuple[str | Decimal, ...] = (".nan", _INFINITY, _MINUS_INFINITY)

# How the engine reads a part of a path as an index, and how many readings of a path are looked at.
_DIGITS = re.compile(r"\+?[0-9]+")
_MOST_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Clash:
    """A key with the same text as another key of its map: `path` ends in the key, `text` is what both show."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """A tree and what the schema sees of it: `seen` shares with `real` all that needed no change."""

    real: Any
    seen: Any
    clashes: tuple[Clash, ...]
    has_nan: bool


def view(tree: Any, *, nan: str | Decimal | None = None) -> View:
    """`tree` in JSON's types, in one pass; the same object where it holds nothing else. `nan` stands for nan."""
    builder = _Builder(nan)
    seen = builder.show(tree)
    return View(tree, seen, tuple(builder.clashes), builder.has_nan)


def real_path(shown: View, path: list[str | int], instance: Callable[[], Any]) -> Path:
    """The path in the real tree of what the schema engine calls `path`; `instance` gives the value that it means.

    The engine loses two things: empty keys are left out of a path, and keys of digits become numbers. Where that
    leaves a doubt, the value decides. A path that is not there is returned as it is.
    """
    first: Path | None = None
    for found, seen, doubtful in islice(_candidates(shown.real, shown.seen, path, 0, False), _MOST_CANDIDATES):
        if not doubtful or seen == instance():
            return found
        first = found if first is None else first
    return tuple(path) if first is None else first


def _candidates(
    real: Any, seen: Any, path: list[str | int], at: int, doubtful: bool
) -> Iterator[tuple[Path, Any, bool]]:
    """Every real path that the engine may have meant by `path[at:]`, with the value seen there; likely ones first."""
    if isinstance(seen, dict):
        doubtful = doubtful or "" in seen
    if at == len(path):
        yield (), seen, doubtful
    elif isinstance(seen, dict):
        part = path[at]
        for text in [part] if isinstance(part, str) else _spellings(part, seen):
            if text in seen:
                key = real_key(real, text)
                inner = _candidates(real[key], seen[text], path, at + 1, doubtful or isinstance(part, int))
                yield from (((key, *rest), value, doubt) for rest, value, doubt in inner)
    elif isinstance(seen, list):
        index = path[at]
        if isinstance(index, int) and index < len(seen):
            inner = _candidates(real[index], seen[index], path, at + 1, doubtful)
            yield from (((index, *rest), value, doubt) for rest, value, doubt in inner)
    if isinstance(seen, dict) and "" in seen:
        empty = real_key(real, "")
        inner = _candidates(real[empty], seen[""], path, at, True)
        yield from (((empty, *rest), value, doubt) for rest, value, doubt in inner)


def _spellings(number: int, seen: dict[str, Any]) -> Iterator[str]:
    plain = str(number)
    yield plain
    yield from (text for text in seen if text != plain and _DIGITS.fullmatch(text) and int(text) == number)


def real_key(real: dict[Key, Any], text: str) -> Key:
    """The key of the map `real` that the schema sees as `text`; `text` itself if there is none."""
    if text in real:
        return text
    return next((key for key in real if type(key) is not str and key_text(key) == text), text)


def key_text(key: Key) -> str:
    """The text that YAML would show for a map key."""
    if isinstance(key, str):
        return key
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, float) and not math.isfinite(key):
        return ".nan" if math.isnan(key) else ".inf" if key > 0 else "-.inf"
    if isinstance(key, bytes):
        return _base64(key)
    if isinstance(key, date | time):
        return key.isoformat()
    return str(key)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_AS_TEXT: dict[type, Callable[[Any], str]] = {
    bytes: _base64,
    date: date.isoformat,
    datetime: datetime.isoformat,
    time: time.isoformat,
}


class _Builder:
    """One pass over a tree. Plain values are passed over without a call, which keeps the pass cheap."""

    def __init__(self, nan: str | Decimal | None) -> None:
        self.clashes: list[Clash] = []
        self.has_nan = False
        self._nan = nan
        self._trail: list[Key] = []

    def show(self, node: Any) -> Any:
        kind = type(node)
        if kind is dict:
            return self._map(node)
        if kind is list:
            return self._list(node)
        if kind is float:
            return self._float(node)
        as_text = _AS_TEXT.get(kind)
        return node if as_text is None else as_text(node)

    def _map(self, node: dict[Key, Any]) -> dict[Any, Any]:
        changed: dict[Key, Any] = {}
        only_text_keys = True
        for key, item in node.items():
            if type(key) is not str:
                only_text_keys = False
            if type(item) in _PLAIN:
                continue
            self._trail.append(key)
            shown = self.show(item)
            self._trail.pop()
            if shown is not item:
                changed[key] = shown
        if not changed and only_text_keys:
            return node
        shown_map = {**node, **changed}
        return shown_map if only_text_keys else self._text_keys(shown_map)

    def _list(self, node: list[Any]) -> list[Any]:
        changed: dict[int, Any] = {}
        for index, item in enumerate(node):
            if type(item) in _PLAIN:
                continue
            self._trail.append(index)
            shown = self.show(item)
            self._trail.pop()
            if shown is not item:
                changed[index] = shown
        return [changed.get(index, item) for index, item in enumerate(node)] if changed else node

    def _float(self, value: float) -> Any:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            self.has_nan = True
            return self._nan
        return _INFINITY if value > 0 else _MINUS_INFINITY

    def _text_keys(self, node: dict[Key, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in node.items():
            text = key_text(key)
            if text in shown or (type(key) is not str and text in node):
                self.clashes.append(Clash((*self._trail, key), text))
            else:
                shown[text] = item
        return shown
