"""Where things stand in a text: positions, and the tree of places that a locator builds and follows.

A place tree has the shape of the parsed tree, with a `Place` instead of each value. It lives only while a place is
asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

    at: where the node is found by a reader: its key in a map, its start in a list; of a root, the document's start.
    value: where its value begins.
    children: the places within a map (by key) or a list (by index); None for a scalar.
    text: the spelling of a scalar, where the format's locator keeps it.
    plain: whether it is a scalar whose type follows from that spelling alone, by YAML's rules.
    alias_of: where the anchored value stands, if the value here is an alias to it (YAML).
    merged_at: where the `<<` stands that brought the entry into its map, if one did (YAML).
    """

    __slots__ = ("alias_of", "at", "children", "merged_at", "plain", "text", "value")

    def __init__(
        self,
        at: Position,
        value: Position,
        children: dict[Any, Place] | list[Place] | None = None,
        text: str = "",
        alias_of: Position | None = None,
        merged_at: Position | None = None,
        plain: bool = False,
    ) -> None:
        self.at = at
        self.value = value
        self.children = children
        self.text = text
        self.alias_of = alias_of
        self.merged_at = merged_at
        self.plain = plain

    def at_key(self, at: Position | None) -> Place:
        """The same value as an entry whose key stands `at`."""
        at = at or self.at
        return Place(at, self.value, self.children, self.text, self.alias_of, plain=self.plain)

    def merged(self, at: Position | None) -> Place:
        """The same entry as the `<<` that stands `at` brings it into another map."""
        return Place(self.at, self.value, self.children, self.text, self.alias_of, at, self.plain)


@dataclass(frozen=True, slots=True)
class Use:
    """A place that uses what stands elsewhere in the same text."""

    kind: Literal["alias", "merge"]
    at: Position


@dataclass(frozen=True, slots=True)
class Trace:
    """How a text comes to have something at a path.

    at: where it stands, as `locate` gives it.
    uses: the aliases and merges by which it is used on the path, the outermost first; empty if it stands there itself.
    anchor: where the value stands, if what stands `at` is an alias.
    """

    at: Position
    uses: tuple[Use, ...] = ()
    anchor: Position | None = None


def find(root: Place, path: Path) -> Place | None:
    """The node at `path` beneath `root`, or None."""
    nodes = _walk(root, path)
    return nodes[-1] if nodes else None


def trace(root: Place, path: Path) -> Trace | None:
    """How `path` comes to be beneath `root`, or None if it is not there."""
    nodes = _walk(root, path)
    if not nodes:
        return None
    uses: list[Use] = []
    for node in nodes:
        if node.merged_at is not None:
            uses.append(Use("merge", node.merged_at))
        if node.alias_of is not None and node is not nodes[-1]:
            uses.append(Use("alias", node.at))
    return Trace(nodes[-1].at, tuple(uses), nodes[-1].alias_of)


def _walk(root: Place, path: Path) -> list[Place]:
    """The nodes along `path` from `root` on; none if it is not there."""
    place = root
    nodes = [root]
    for part in path:
        children = place.children
        if isinstance(children, dict):
            try:
                found = children.get(part)
            except TypeError:  # an unhashable part is no key
                return []
            if found is None:
                return []
            place = found
        elif isinstance(children, list) and type(part) is int and 0 <= part < len(children):
            place = children[part]
        else:
            return []
        nodes.append(place)
    return nodes


def positions(root: Place, paths: Sequence[Path]) -> list[Position | None]:
    """The place of each path, None where the tree has no such path."""
    places = [find(root, path) for path in paths]
    return [place.at if place else None for place in places]
