"""What differs between two trees: which keys were added, changed or deleted. Pure, and lazy.

A key is the path of a leaf: of anything that is no map, a list being one value, or of an empty map. Of a tree and the
one that takes its place,

- a key is deleted if nothing stands at its path any more, and added if nothing stood there;
- a path is changed if there was something and is something else, unless both are maps: those differ in their keys.

So a map that becomes a scalar is one change and the deletion of each key in it. Types count (1, 1.0 and true are three
values and three keys), the order of a map's keys does not. Values are those of a configuration: what msgpack and the
codec's extensions hold.

Maps that the trees share are not looked into, and equal ones are compared as a whole. Depth is whatever msgpack takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shmconf import codec
from shmconf.paths import MISSING

from .problems import Key, Path

# Types whose values are the same if they are of one of these and equal; floats and times are not: 0.0 == -0.0.
_PLAIN = frozenset({str, int, bool, bytes, type(None)})


class Kind(StrEnum):
    """How a path differs."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs. `before` is MISSING of an added one, `after` of a deleted one."""

    kind: Kind
    path: Path
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Paths:
    """How many paths there are of one kind, and the first of them."""

    count: int = 0
    first: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs, counted."""

    added: Paths
    changed: Paths
    deleted: Paths


def changes(before: Any, after: Any) -> Iterator[Change]:
    """Every path that differs, in the order of `before`; what a map has anew comes behind what it had."""
    waiting: list[tuple[Path, Any, Any]] = [((), before, after)]
    while waiting:
        path, old, new = waiting.pop()
        old_map, new_map = type(old) is dict, type(new) is dict
        if old_map and new_map:
            if old != new or codec.pack(old) != codec.pack(new):  # both at the speed of C, and 1 == True for the first
                waiting += _below(path, old, new)
        elif old is MISSING and not (new_map and new):
            yield Change(Kind.ADDED, path, MISSING, new)
        elif new is MISSING and not (old_map and old):
            yield Change(Kind.DELETED, path, old, MISSING)
        elif old is MISSING or new is MISSING or not same(old, new):
            if old is not MISSING and new is not MISSING:
                yield Change(Kind.CHANGED, path, old, new)
            waiting += _below(path, old if old_map else {}, new if new_map else {})


def difference(before: Any, after: Any, most: int = 3) -> Difference:
    """Everything that differs, counted, with at most so many paths of each kind."""
    counts = dict.fromkeys(Kind, 0)
    first: dict[Kind, list[Path]] = {kind: [] for kind in Kind}
    for change in changes(before, after):
        counts[change.kind] += 1
        if len(first[change.kind]) < most:
            first[change.kind].append(change.path)
    return Difference(*(Paths(counts[kind], tuple(first[kind])) for kind in Kind))


def count_keys(tree: Mapping[Key, Any], enough: float = math.inf) -> int:
    """How many keys a tree has; once there are `enough`, it may be fewer than all. An empty one has none."""
    count = 0
    waiting = [tree]
    while waiting and count < enough:
        here = waiting.pop()
        below = [value for value in here.values() if type(value) is dict and value]
        count += len(here) - len(below)
        waiting += below
    return count


def same(before: Any, after: Any) -> bool:
    """Whether two values are the same, types included, the order of keys not."""
    waiting = [(before, after)]
    while waiting:
        old, new = waiting.pop()
        if old is new:
            continue
        if type(old) is not type(new):
            return False
        if type(old) in _PLAIN:
            if old != new:
                return False
        elif type(old) is dict:
            if len(old) != len(new):
                return False
            others = {_identity(key): value for key, value in new.items()}
            for key, value in old.items():
                other = others.get(_identity(key), MISSING)
                if other is MISSING:
                    return False
                waiting.append((value, other))
        elif type(old) is list:
            if len(old) != len(new):
                return False
            waiting += zip(old, new, strict=True)
        elif codec.pack(old) != codec.pack(new):
            return False
    return True


def _below(path: Path, before: dict[Key, Any], after: dict[Key, Any]) -> list[tuple[Path, Any, Any]]:
    """What may differ within two maps, the last first."""
    found: list[tuple[Path, Any, Any]] = []
    equal: list[tuple[Any, Any]] = []  # maps that have the same types in them as well, most likely
    met = 0
    for key, old in before.items():
        if type(key) is not str:
            return _below_any(path, before, after)
        new = after.get(key, MISSING)
        if new is not MISSING:
            met += 1
            if new is old or (type(new) is type(old) and type(old) in _PLAIN and old == new):
                continue
            if type(old) is dict and type(new) is dict and old == new:
                equal.append((old, new))
                continue
        found.append(((*path, key), old, new))
    if equal and codec.pack([old for old, _ in equal]) != codec.pack([new for _, new in equal]):
        found = [((*path, key), old, after.get(key, MISSING)) for key, old in before.items()]
    if met != len(after):
        found += [((*path, key), MISSING, new) for key, new in after.items() if key not in before]
    found.reverse()
    return found


def _below_any(path: Path, before: dict[Key, Any], after: dict[Key, Any]) -> list[tuple[Path, Any, Any]]:
    """The same for keys of any type, of which a dict takes 1 and true for one."""
    left = {_identity(key): (key, value) for key, value in before.items()}
    right = {_identity(key): (key, value) for key, value in after.items()}
    found = [
        ((*path, key), old, right[name][1] if name in right else MISSING)
        for name, (key, old) in left.items()
        if name not in right or right[name][1] is not old
    ]
    found += [((*path, key), MISSING, new) for name, (key, new) in right.items() if name not in left]
    found.reverse()
    return found


def _identity(key: Key) -> str | bytes:
    """What two keys have in common only if they are the same: their encoding, where they are no text."""
    return key if type(key) is str else codec.pack(key)
