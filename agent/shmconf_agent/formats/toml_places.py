"""The places in a TOML text: a reader that keeps where each key and each item stands, and nothing of the values.

It takes every document that tomli takes, and reads others as far as they make sense. It notices keys and tables that
are set twice, so that both places can be told.
"""

from __future__ import annotations

import re
from contextlib import suppress

import tomli

from ..problems import MOST_PROBLEMS
from .places import START, Lines, Place, Position

# What is repeated is never given back (`*+`): a way back for each repetition would take more memory than the text.
_SPACE = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG_BASIC = re.compile(r'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''[^']*+(?:'(?!'')[^']*+)*+'''(?:'{0,2})")
_ATOM = re.compile(r"[^,\]}#\r\n]+")

# How a table came to be, which decides what may still be added to it.
_HEADER = "header"  # [a.b]: declared
_PREFIX = "prefix"  # the a of [a.b]: may be declared yet
_DOTTED = "dotted"  # the a of a.b = 1
_ARRAY = "array"  # [[a]]
_CLOSED = "closed"  # a value, an inline table or an array in brackets


class _Node(Place):
    __slots__ = ("made",)

    def __init__(self, at: Position, made: str, children: dict[str, Place] | list[Place] | None = None) -> None:
        super().__init__(at, at, children)
        self.made = made


class _Unreadable(Exception):
    """The text is not TOML from here on."""


class Scan:
    """The places in `text`.

    root: the place tree; conflicts: (place, key, first place) of what is set twice; too_deep: where the text passed
    `max_depth`, where the scan then ended.
    """

    def __init__(self, text: str, max_depth: int | None = None) -> None:
        self.root: Place = _Node(START, _HEADER, {})
        self.conflicts: list[tuple[Position, str, Position]] = []
        self.too_deep: Position | None = None
        self._text = text
        self._lines = Lines(text)
        self._max_depth = max_depth
        self._table: dict[str, Place] = {}
        self._depth = 1  # of the current table
        with suppress(_Unreadable):
            self._read()

    def _read(self) -> None:
        self._table = _entries(self.root)
        at = self._skip(_BETWEEN, 0)
        while at < len(self._text):
            at = self._header(at) if self._text.startswith("[", at) else self._key_value(at, self._table)
            at = self._skip(_BETWEEN, at)

    # Headers

    def _header(self, start: int) -> int:
        closing = "]]" if self._text.startswith("[[", start) else "]"
        keys, at = self._key(start + len(closing))
        if not self._text.startswith(closing, at):
            raise _Unreadable
        table = _entries(self.root)
        self._depth = len(keys) + 1
        for name, key_at in keys[:-1]:
            table = self._enter(table, name, key_at, _PREFIX)
        name, key_at = keys[-1]
        if closing == "]]":
            self._depth += 1
            self._table = self._append(table, name, key_at, self._position(start))
        else:
            self._table = self._declare(table, name, key_at)
        return at + len(closing)

    def _enter(self, table: dict[str, Place], name: str, at: Position, made: str) -> dict[str, Place]:
        """The table under `name`, made if it is not there; an array of tables stands for its last one."""
        node = table.get(name)
        if node is None:
            node = table[name] = _Node(at, made, {})
        barred = (_CLOSED, _ARRAY, _HEADER) if made == _DOTTED else (_CLOSED,)
        if not isinstance(node, _Node) or node.made in barred:
            return self._conflict(at, name, node)
        if isinstance(node.children, list):
            return _entries(node.children[-1])
        return _entries(node)

    def _declare(self, table: dict[str, Place], name: str, at: Position) -> dict[str, Place]:
        node = table.get(name)
        if node is None:
            node = table[name] = _Node(at, _HEADER, {})
        elif isinstance(node, _Node) and node.made == _PREFIX:
            node.made = _HEADER
        else:
            return self._conflict(at, name, node)
        return _entries(node)

    def _append(self, table: dict[str, Place], name: str, at: Position, item_at: Position) -> dict[str, Place]:
        node = table.get(name)
        if node is None:
            node = table[name] = _Node(at, _ARRAY, [])
        if not isinstance(node, _Node) or node.made != _ARRAY or not isinstance(node.children, list):
            return self._conflict(at, name, node)
        item = _Node(item_at, _HEADER, {})
        node.children.append(item)
        return _entries(item)

    # Keys and values

    def _key_value(self, at: int, table: dict[str, Place]) -> int:
        table, name, key_at, at = self._assignment(at, table, self._depth)
        holder = _Node(key_at, _CLOSED, [])
        at = self._value(at, holder)
        if isinstance(holder.children, list):
            self._set(table, name, key_at, holder.children[0])
        return at

    def _assignment(self, at: int, table: dict[str, Place], depth: int) -> tuple[dict[str, Place], str, Position, int]:
        """Reads `a.b =`: the table that gets the value, its key there, that key's place, and where the value begins."""
        keys, at = self._key(at)
        if not self._text.startswith("=", at):
            raise _Unreadable
        for name, key_at in keys[:-1]:
            table = self._enter(table, name, key_at, _DOTTED)
        name, key_at = keys[-1]
        self._check_depth(depth + len(keys) - 1, key_at)
        return table, name, key_at, self._skip(_SPACE, at + 1)

    def _set(self, table: dict[str, Place], name: str, at: Position, value: Place) -> None:
        value.at = at
        if name in table:
            self._conflict(at, name, table[name])
        else:
            table[name] = value

    def _value(self, at: int, holder: Place) -> int:
        """Reads one value into the list `holder`, with a stack of its own for what is nested."""
        stack: list[Place] = []
        container: Place = holder
        entries: dict[str, Place] = {}
        while True:
            if stack:
                at = self._skip(_BETWEEN, at)
                opened = self._text[at : at + 1]
                if opened == ",":
                    at += 1
                    continue
                if opened == ("}" if isinstance(container.children, dict) else "]"):
                    container = stack.pop()
                    at += 1
                    if not stack:
                        return at
                    continue
            key: tuple[str, Position] | None = None
            if isinstance(container.children, dict):
                entries, name, key_at, at = self._assignment(at, _entries(container), self._depth + len(stack))
                key = name, key_at
            value, at = self._single(at)
            if key is not None:
                self._set(entries, *key, value)
            elif isinstance(container.children, list):
                container.children.append(value)
            if value.children is not None:
                stack.append(container)
                container = value
                self._check_depth(self._depth + len(stack), value.value)
            elif not stack:
                return at

    def _single(self, at: int) -> tuple[Place, int]:
        """A scalar, or an inline table or array that has just been opened."""
        text, start = self._text, self._position(at)
        first = text[at : at + 1]
        if first in ("[", "{"):
            return _Node(start, _CLOSED, [] if first == "[" else {}), at + 1
        if first in ('"', "'"):
            long, short = (_LONG_BASIC, _BASIC) if first == '"' else (_LONG_LITERAL, _LITERAL)
            matched = (long if text.startswith(first * 3, at) else short).match(text, at)
        else:
            matched = _ATOM.match(text, at)
        if matched is None:
            raise _Unreadable
        value = _Node(start, _CLOSED)
        value.text = matched.group().rstrip()
        return value, matched.end()

    def _key(self, at: int) -> tuple[list[tuple[str, Position]], int]:
        """The parts of a dotted key with their places, and where it ends, white space included."""
        parts: list[tuple[str, Position]] = []
        while True:
            at = self._skip(_SPACE, at)
            position = self._position(at)
            for pattern in (_BARE, _BASIC, _LITERAL):
                matched = pattern.match(self._text, at)
                if matched:
                    break
            else:
                raise _Unreadable
            parts.append((_name(matched.group()), position))
            self._check_depth(len(parts), position)
            at = self._skip(_SPACE, matched.end())
            if not self._text.startswith(".", at):
                return parts, at
            at += 1

    # Small things

    def _conflict(self, at: Position, name: str, first: Place) -> dict[str, Place]:
        """Records it; what belongs to the second one is read into a table of its own."""
        if len(self.conflicts) <= MOST_PROBLEMS:
            self.conflicts.append((at, name, first.at))
        return {}

    def _check_depth(self, depth: int, at: Position) -> None:
        if self._max_depth is not None and depth > self._max_depth:
            self.too_deep = at
            raise _Unreadable

    def _skip(self, pattern: re.Pattern[str], at: int) -> int:
        matched = pattern.match(self._text, at)
        return matched.end() if matched else at

    def _position(self, at: int) -> Position:
        return self._lines.position(at)


def _entries(place: Place) -> dict[str, Place]:
    return place.children if isinstance(place.children, dict) else {}


def _name(spelled: str) -> str:
    """A key part's name."""
    if spelled[0] not in "\"'":
        return spelled
    if spelled[0] == "'" or "\\" not in spelled:
        return spelled[1:-1]
    try:
        return str(tomli.loads(f"key = {spelled}")["key"])
    except tomli.TOMLDecodeError:
        raise _Unreadable from None
