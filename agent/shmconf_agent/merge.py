"""Lays the trees of a segment's files over one another.

Later layers win; maps merge, lists and scalars replace. A key keeps the place in its map's order where the first layer
put it, whatever replaces its value. A layer with a mount point `at` lies under that path of string keys; maps that are
missing on the way are made, and anything else that stands there is replaced, as a map replaces a scalar.

Keys are equal as Python's dict has it: 1, 1.0 and true are one key. The key that is kept is the first layer's, with its
type; the value is the last layer's.

Trees are never changed: the result shares with its layers every map and list that no other layer touched, and is to be
read only, like them. Nothing here recurses, so depth is whatever the formats let through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .problems import Key, Path


@dataclass(frozen=True, slots=True)
class Layer:
    """One file's tree: `file` as problems name it, `at` the path of string keys under which the tree is mounted."""

    file: str
    at: Path
    tree: Mapping[Key, Any]


def merge(layers: Sequence[Layer]) -> dict[Key, Any]:
    """The layers' trees as one, the first layer at the bottom; no layers give an empty map."""
    merging = _Merging()
    for layer in layers:
        merging.lay_over(_mounted(layer))
    return merging.result


def provenance(layers: Sequence[Layer], path: Path) -> list[tuple[Layer, Path]]:
    """The layers that set `path`, the winner first, each with the path within that layer's own tree.

    For a scalar or a list the first sets the value and the others are what it shadows; for a map all take part, each
    with its entries. A layer below one that put something other than a map on the way to `path` has no part in it. A
    layer mounted at or below `path` has the path () in its tree. Empty if nothing set the path in the merged tree.
    """
    found: list[tuple[Layer, Path]] = []
    opened = 0  # how far along the path the layers so far have maps
    for layer in reversed(layers):
        depth, value = _follow(_mounted(layer), path)
        within = path[len(layer.at) :]
        if depth == len(path):
            found.append((layer, within))
        elif not isinstance(value, dict):
            # Something that is no map, a list maybe that the path leads into: it hides all below, unless a map
            # hides it.
            if depth > opened and _leads_on(value, path[depth:]):
                found.append((layer, within))
            break
        opened = max(opened, depth)
    return found


class _Merging:
    """The result as it grows. Maps of the layers are taken as they are and copied when a later layer adds to them."""

    def __init__(self) -> None:
        self.result: dict[Key, Any] = {}
        # The copies made here, by identity: only these may be written to. Held, so that no identity is used twice.
        self._own: dict[int, dict[Key, Any]] = {id(self.result): self.result}

    def lay_over(self, tree: Mapping[Key, Any]) -> None:
        waiting: list[tuple[dict[Key, Any], Mapping[Key, Any]]] = [(self.result, tree)]
        while waiting:
            target, source = waiting.pop()
            for key, value in source.items():
                below = target.get(key)
                if isinstance(value, dict) and isinstance(below, dict):
                    if value:
                        waiting.append((self._writable(target, key, below), value))
                else:
                    target[key] = value

    def _writable(self, target: dict[Key, Any], key: Key, tree: dict[Key, Any]) -> dict[Key, Any]:
        if id(tree) in self._own:
            return tree
        copy = dict(tree)
        self._own[id(copy)] = copy
        target[key] = copy
        return copy


def _mounted(layer: Layer) -> Mapping[Key, Any]:
    tree = layer.tree
    for part in reversed(layer.at):
        tree = {part: tree}
    return tree


def _follow(tree: Mapping[Key, Any], path: Path) -> tuple[int, Any]:
    """How many parts of `path` lead through maps, and the value there."""
    value: Any = tree
    for depth, part in enumerate(path):
        if not isinstance(value, dict) or not _has_key(value, part):
            return depth, value
        value = value[part]
    return len(path), value


def _leads_on(value: Any, path: Path) -> bool:
    """Whether `path` leads on through a value that is no map."""
    for part in path:
        if isinstance(value, list):
            if type(part) is not int or not 0 <= part < len(value):
                return False
        elif not isinstance(value, dict) or not _has_key(value, part):
            return False
        value = value[part]
    return True


def _has_key(tree: dict[Key, Any], part: Any) -> bool:
    try:
        return part in tree
    except TypeError:  # an unhashable part is no key
        return False
