"""Where things stand in a text: positions, and the tree of places that a locator builds and follows.

A place tree has the shape of the parsed tree, with a `Place` instead of each value. It lives only while a place is
asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..problems import Path

Position = tuple[int, int]
"""Line and column, both from 1; columns in characters."""

START: Position = (1, 1)


class Lines:
    """Turns offsets into a text into positions. Lines end with LF (a CR before it is the line's last character)."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def position(self, offset: int) -> Position:
        """The position of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


class Place:
    """One node of a place tree.

    at: where the node is found by a reader: its key in a map, its start in a list.
    value: where its value begins.
    children: the places within a map (by key) or a list (by index); None for a scalar.
    text: the spelling of a number, where the format's locator keeps it.
    """

    __slots__ = ("at", "children", "text", "value")

    def __init__(
        self,
        at: Position,
        value: Position,
        children: dict[Any, Place] | list[Place] | None = None,
        text: str = "",
    ) -> None:
        self.at = at
        self.value = value
        self.children = children
        self.text = text


def find(root: Place, path: Path) -> Place | None:
    """The node at `path` beneath `root`, or None."""
    place = root
    for part in path:
        children = place.children
        if isinstance(children, dict):
            try:
                found = children.get(part)
            except TypeError:  # an unhashable part is no key
                return None
            if found is None:
                return None
            place = found
        elif isinstance(children, list) and type(part) is int and 0 <= part < len(children):
            place = children[part]
        else:
            return None
    return place


def positions(root: Place, paths: Sequence[Path]) -> list[Position | None]:
    """The place of each path, None where the tree has no such path; the empty path is the document's start."""
    answers: list[Position | None] = []
    for path in paths:
        place = find(root, path)
        answers.append(START if not path else place.at if place else None)
    return answers
