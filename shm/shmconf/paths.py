"""Paths into a configuration tree: the one grammar that every part of shmconf shares.

A path text is a TOML dotted key: `db.pool.size`, `"a.b".c`, `'literal'.x`. Bare parts are letters, digits, `_` and
`-`; anything else is quoted. A tuple is a path already and is taken as it is, types included. Text addresses string
keys only; where the value is a list, a part made of digits is an index (`hosts.0`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .errors import PathError

PathLike = str | tuple[Any, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\x00-\x08\x0a-\x1f\x7f]*)'")
_SPACE = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(?:([btnfre\"\\])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")  # longer ones no list has, and int() may refuse them

MISSING: Any = object()


@lru_cache(maxsize=4096)
def parse_path(text: str) -> tuple[str, ...]:
    """The parts of a dotted key.

    Raises PathError (a ValueError) that names the column and what was expected there.
    """
    parts: list[str] = []
    at = 0
    while True:
        at = _skip_space(text, at)
        part, at = _part(text, at)
        parts.append(part)
        at = _skip_space(text, at)
        if at == len(text):
            return tuple(parts)
        if text[at] != ".":
            raise PathError(f"path {text!r}, column {at + 1}: {text[at]!r} needs quotes, as in \"a b\".c")
        at += 1


def as_path(path: PathLike) -> tuple[Any, ...]:
    """`path` as a tuple: text is parsed, a tuple is taken as it is. Raises PathError."""
    if isinstance(path, tuple):
        return path
    if isinstance(path, str):
        return parse_path(path)
    raise PathError(f"a path is text or a tuple, not {type(path).__name__}")


def format_path(path: Sequence[Any]) -> str:
    """The text of a path, such that `parse_path` gives the same parts where they are all strings.

    Parts that are not strings (indices, non-string keys) are written plainly; the empty path is '(top level)'.
    """
    if not path:
        return "(top level)"
    return ".".join(_format_part(part) for part in path)


def look_up(tree: Any, path: PathLike, default: Any = MISSING) -> Any:
    """The value at `path` in a decoded tree, or `default`. Raises PathError for a malformed text."""
    textual = isinstance(path, str)
    value = tree
    for part in as_path(path):
        value = _step(value, part, textual)
        if value is MISSING:
            return default
    return value


def resolve(tree: Any, path: PathLike) -> tuple[Any, ...] | None:
    """`path` as a tuple that leads to the same in `tree`, an index where text has digits; None if it leads nowhere.

    Raises PathError for a malformed text.
    """
    textual = isinstance(path, str)
    value, found = tree, []
    for part in as_path(path):
        if textual and isinstance(value, list) and _INDEX.fullmatch(part):
            part = int(part)
        value = _step(value, part, False)
        if value is MISSING:
            return None
        found.append(part)
    return tuple(found)


def _step(value: Any, part: Any, textual: bool) -> Any:
    if isinstance(value, Mapping):
        try:
            return value.get(part, MISSING)
        except TypeError:  # an unhashable part cannot be a key
            return MISSING
    if isinstance(value, list):
        if textual and _INDEX.fullmatch(part):
            part = int(part)
        if isinstance(part, int) and not isinstance(part, bool) and 0 <= part < len(value):
            return value[part]
    return MISSING


def _skip_space(text: str, at: int) -> int:
    matched = _SPACE.match(text, at)
    return matched.end() if matched else at


def _part(text: str, at: int) -> tuple[str, int]:
    if matched := _BARE.match(text, at):
        return matched.group(), matched.end()
    if matched := _LITERAL.match(text, at):
        return matched.group(1), matched.end()
    if matched := _BASIC.match(text, at):
        return _ESCAPE.sub(lambda escape: _unescape(text, escape), matched.group(1)), matched.end()
    found = f"{text[at]!r}" if at < len(text) else "the end"
    raise PathError(f"path {text!r}, column {at + 1}: expected a key, found {found}")


def _unescape(text: str, escape: re.Match[str]) -> str:
    short, four, eight, two, unknown = escape.groups()
    if short:
        return _ESCAPED[short]
    if unknown is None:
        code = int(four or eight or two, 16)
        if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code)
    raise PathError(f"path {text!r}: {escape.group()!r} is not an escape")


def _format_part(part: Any) -> str:
    if not isinstance(part, str):
        return str(part)
    if _BARE.fullmatch(part):
        return part
    quoted = "".join(_quote_character(character) for character in part)
    return f'"{quoted}"'


def _quote_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "\t" or (character.isprintable() and character != "\x7f"):
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
