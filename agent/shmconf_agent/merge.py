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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .problems import Key, Path


@dataclass(frozen=True, slots=True)
class Layer:
    """One document's tree: `file` as problems name it, `at` the path of string keys under which the tree is mounted,
    `document` its index in the file, `secrets` the paths in `tree` of what must not be shown."""

    file: str
    at: Path
    tree: Mapping[Key, Any]
    document: int = 0
    secrets: tuple[Path, ...] = ()


def merge(layers: Sequence[Layer]) -> dict[Key, Any]:
    """The layers' trees as one, the first layer at the bottom; no layers give an empty map."""
    merging = _Merging()
    for layer in layers:
        merging.lay_over(_mounted(layer))
    return merging.result


@dataclass(frozen=True, slots=True)
class Setting:
    """What one layer puts at a path, or on the way to it.

    reached: the path in the merged tree as far as the layer has a say in it: the whole of it, or up to something that
      is no map and does not lead on.
    within: the same within the layer's own tree; () for a layer mounted at or below it.
    value: what it puts there.
    shadowed: whether the layers above it hide all of it. Of those that are not, there is one for a scalar or a list,
      and for a map each that has entries for it.
    """

    layer: Layer
    reached: Path
    within: Path
    value: Any
    shadowed: bool


def settings(layers: Sequence[Layer], path: Path) -> list[Setting]:
    """The layers that have a say in `path`, the uppermost first. The first that is not shadowed is the winner; none is
    not shadowed if nothing set the path in the merged tree."""
    return list(Settings(layers).of(path))


class Settings:
    """`settings` of many paths of the same layers, at little cost for each even where there are thousands of layers.

    What the layers have at the beginnings of a path is kept for the next one.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._path: Path = ()  # the last that was asked for
        self._levels = [_Level([], [])]  # of what stands at the beginnings of it, one more than its parts
        for index, layer in enumerate(layers):
            self._levels[0].put(index, _mounted(layer))

    def of(self, path: Path) -> Iterator[Setting]:
        """The layers that have a say in `path`, as `settings` gives them; to be used up before another path is asked
        for."""
        levels = self._follow(path)
        ends = [(index, len(path), value) for index, value in levels[-1].maps]
        ends += [(index, depth, value) for depth, level in enumerate(levels) for index, value in level.others]
        ends.sort(key=lambda end: end[0], reverse=True)
        closed = False  # whether a layer above put something that is no map on the way, which hides what is below it
        for index, depth, value in ends:
            is_map = isinstance(value, dict)
            leads_on, end = _lead_on(value, path[depth:])
            reached = path if leads_on else path[:depth]
            # Maps of the layers above replace what is no map, if they are that far along the path or further.
            shadowed = closed or not leads_on or (not is_map and any(level.above(index) for level in levels[depth:]))
            layer = self._layers[index]
            yield Setting(layer, reached, reached[len(layer.at) :], end if leads_on else value, shadowed)
            closed = closed or not is_map

    def _follow(self, path: Path) -> list[_Level]:
        """What the layers have at each beginning of the path, () and the whole of it too."""
        known = 0
        while known < min(len(path), len(self._path)) and path[known] == self._path[known]:
            known += 1
        del self._levels[known + 1 :]
        for part in path[known:]:
            self._levels.append(self._levels[-1].within(part))
        self._path = path
        return self._levels


@dataclass(frozen=True, slots=True)
class _Level:
    """What layers have at one path: by their indices, in order, those that have maps and those that have others."""

    maps: list[tuple[int, Any]]
    others: list[tuple[int, Any]]

    def put(self, index: int, value: Any) -> None:
        (self.maps if isinstance(value, dict) else self.others).append((index, value))

    def within(self, part: Any) -> _Level:
        """What they have at one part more."""
        level = _Level([], [])
        try:
            found = [(index, value[part]) for index, value in self.maps if part in value]
        except TypeError:  # an unhashable part is no key
            found = []
        for index, value in found:
            level.put(index, value)
        return level

    def above(self, index: int) -> bool:
        """Whether a layer above this one has a map here."""
        return bool(self.maps) and self.maps[-1][0] > index


def unlike_keys(layers: Sequence[Layer]) -> list[tuple[Layer, Path, Layer, Path]]:
    """The keys that are laid over an equal key of another type, such as true over 1.

    Each as its layer and its path in that layer's own tree, and the same of the key below, which is the one that stays.
    """
    found: list[tuple[Layer, Path, Layer, Path]] = []
    if len(layers) < 2 or not any(_has_odd_keys(layer.tree) for layer in layers):
        return found
    known: dict[Key, _Known] = {}
    for layer in layers:
        waiting: list[tuple[Mapping[Key, Any], dict[Key, _Known], Path]] = [(_mounted(layer), known, ())]
        while waiting:
            tree, beside, path = waiting.pop()
            for key, value in tree.items():
                entry = beside.setdefault(key, _Known(key, layer))
                if type(entry.key) is not type(key):
                    below = (*path, entry.key)[len(entry.layer.at) :]
                    found.append((layer, (*path, key)[len(layer.at) :], entry.layer, below))
                if isinstance(value, dict):
                    waiting.append((value, entry.children, (*path, key)))
                else:
                    entry.children = {}
    return found


def _has_odd_keys(tree: Mapping[Key, Any]) -> bool:
    """Whether a key is no text, anywhere; what stands at several places is looked at once."""
    seen: set[int] = set()
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            if any(type(key) is not str for key in value):
                return True
            waiting += [each for each in value.values() if type(each) is dict]
    return False


@dataclass(slots=True)
class _Known:
    """A key, the layer that put it there first, and the keys within its value."""

    key: Key
    layer: Layer
    children: dict[Key, _Known] = field(default_factory=dict)


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
            if target.keys().isdisjoint(source):  # as nearly all are, and then it is soon done
                target.update(source)
                continue
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


def _lead_on(value: Any, path: Path) -> tuple[bool, Any]:
    """Whether `path` leads on through a value, lists included, and what is at its end."""
    for part in path:
        if isinstance(value, list):
            if type(part) is not int or not 0 <= part < len(value):
                return False, None
        elif not isinstance(value, dict) or not _has_key(value, part):
            return False, None
        value = value[part]
    return True, value


def _has_key(tree: dict[Key, Any], part: Any) -> bool:
    try:
        return part in tree
    except TypeError:  # an unhashable part is no key
        return False
