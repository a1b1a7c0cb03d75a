"""What differs between two trees, against a naive way to say the same, and what it does not look at."""

from __future__ import annotations

import copy
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf import codec
from shmconf.paths import MISSING
from shmconf_agent.difference import Change, Kind, Paths, changes, count_keys, difference, same

NAN = float("nan")
# Values that Python takes for equal and a configuration does not, among others.
scalars = st.sampled_from(
    (None, False, True, 0, 1, 2, 0.0, -0.0, 1.0, 2.5, NAN, math.inf, "", "a", "1", b"", b"a", 2**63, date(2001, 2, 3),
     time(1, 2), datetime(2001, 2, 3, 12), datetime(2001, 2, 3, 12, tzinfo=UTC),
     datetime(2001, 2, 3, 13, tzinfo=timezone(timedelta(hours=1))))
)  # fmt: skip
keys = st.sampled_from(("a", "b", "c", "1", "", 1, True, 1.0, 0, False, None, b"a", date(2001, 2, 3)))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
trees = st.dictionaries(keys, values, max_size=5)


@st.composite
def pairs(draw: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Two trees of which the second is the first with a few edits, so that most of it is as it was."""
    before = draw(trees)
    after = copy.deepcopy(before) if draw(st.booleans()) else codec.unpack(codec.pack(before))
    for _ in range(draw(st.integers(0, 3))):
        here = after
        while inner := [value for value in here.values() if type(value) is dict]:
            if draw(st.booleans()):
                break
            here = draw(st.sampled_from(inner))
        if here and draw(st.booleans()):
            here.pop(draw(st.sampled_from(list(here))))
        else:
            here[draw(keys)] = draw(values)
    return before, after


# --- the oracle: every path with what stands there, in an encoding that tells apart what has to be --------------------


def encoded(value: Any) -> Any:
    if type(value) is dict:
        return "map", frozenset((codec.pack(key), encoded(inner)) for key, inner in value.items())
    if type(value) is list:
        return "list", tuple(encoded(inner) for inner in value)
    return codec.pack(value)


def nodes(value: Any, path: tuple[bytes, ...] = ()) -> dict[tuple[bytes, ...], Any]:
    found = {path: value}
    if type(value) is dict:
        for key, inner in value.items():
            found |= nodes(inner, (*path, codec.pack(key)))
    return found


def is_leaf(value: Any) -> bool:
    return type(value) is not dict or not value


def naive(before: Any, after: Any) -> set[tuple[Kind, tuple[bytes, ...]]]:
    old, new = nodes(before), nodes(after)
    found = {(Kind.DELETED, path) for path, value in old.items() if path and is_leaf(value) and path not in new}
    found |= {(Kind.ADDED, path) for path, value in new.items() if path and is_leaf(value) and path not in old}
    return found | {
        (Kind.CHANGED, path)
        for path in old.keys() & new.keys()
        if (type(old[path]) is not dict or type(new[path]) is not dict) and encoded(old[path]) != encoded(new[path])
    }


def named(change: Change) -> tuple[Kind, tuple[bytes, ...]]:
    return change.kind, tuple(codec.pack(key) for key in change.path)


@given(pairs() | st.tuples(trees, trees))
def test_it_finds_what_a_naive_comparison_finds_and_each_once(pair: tuple[Any, Any]) -> None:
    found = [named(change) for change in changes(*pair)]
    assert len(found) == len(set(found))
    assert set(found) == naive(*pair)


@given(pairs())
def test_counts_and_first_paths_are_those_of_the_changes(pair: tuple[Any, Any]) -> None:
    found = list(changes(*pair))
    counted = difference(*pair, most=2)
    for kind, paths in zip(Kind, (counted.added, counted.changed, counted.deleted), strict=True):
        those = [change.path for change in found if change.kind is kind]
        assert paths.count == len(those)
        assert list(map(repr, paths.first)) == list(map(repr, those[:2]))


@given(pairs())
def test_before_and_after_are_what_stands_there(pair: tuple[Any, Any]) -> None:
    old, new = nodes(pair[0]), nodes(pair[1])
    for change in changes(*pair):
        _, path = named(change)
        assert encoded(old[path]) == encoded(change.before) if path in old else change.before is MISSING
        assert encoded(new[path]) == encoded(change.after) if path in new else change.after is MISSING


@given(pairs())
def test_what_one_way_is_added_is_the_other_way_deleted(pair: tuple[Any, Any]) -> None:
    before, after = pair
    turned = {Kind.ADDED: Kind.DELETED, Kind.DELETED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    forth = {(turned[kind], path) for kind, path in map(named, changes(before, after))}
    assert forth == set(map(named, changes(after, before)))


@given(pairs())
def test_same_is_what_has_the_same_encoding_but_for_the_order_of_keys(pair: tuple[Any, Any]) -> None:
    assert same(*pair) == (encoded(pair[0]) == encoded(pair[1]))
    if list(changes(*pair)):
        assert not same(*pair)


@given(trees)
def test_nothing_differs_from_itself_its_copy_or_its_reverse(tree: Any) -> None:
    def reversed_maps(value: Any) -> Any:
        if type(value) is dict:
            return {key: reversed_maps(value[key]) for key in reversed(value)}
        return [reversed_maps(inner) for inner in value] if type(value) is list else value

    for other in (tree, codec.unpack(codec.pack(tree)), reversed_maps(tree)):
        assert list(changes(tree, other)) == []
        assert same(tree, other)


@given(trees, st.integers(0, 12))
def test_keys_are_leaves(tree: Any, enough: int) -> None:
    leaves = [path for path, value in nodes(tree).items() if path and is_leaf(value)]
    assert count_keys(tree) == len(leaves) == len(list(changes(tree, {}))) == difference({}, tree).added.count
    assert min(enough, count_keys(tree, enough)) == min(enough, len(leaves))


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({"a": 1}, {"a": True}, ["changed a"]),
        ({"a": 1}, {"a": 1.0}, ["changed a"]),
        ({"a": [1]}, {"a": [True]}, ["changed a"]),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2, "x": 1}]}, []),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, ["changed a"]),
        ({1: 0}, {True: 0}, ["deleted 1", "added True"]),
        ({"a": {"b": 1, "c": {"d": 2}}}, {"a": None}, ["changed a", "deleted a.b", "deleted a.c.d"]),
        ({"a": None}, {"a": {"b": 1}}, ["changed a", "added a.b"]),
        ({"a": {}}, {"a": {"b": 1}}, ["added a.b"]),
        ({"a": {"b": 1}}, {"a": {}}, ["deleted a.b"]),
        ({"a": {"b": {}}}, {}, ["deleted a.b"]),
        ({"b": 1, "a": 2}, {"c": 3, "a": 2}, ["deleted b", "added c"]),
        ({"a": 0.0}, {"a": -0.0}, ["changed a"]),
        ({"a": NAN}, {"a": float("nan")}, []),
    ],
)
def test_examples(before: Any, after: Any, wanted: list[str]) -> None:
    found = [f"{change.kind} {'.'.join(map(str, change.path))}" for change in changes(before, after)]
    assert found == wanted


def test_what_is_shared_is_not_looked_into() -> None:
    class Closed(dict[str, Any]):
        def _touched(self, *_: Any) -> Any:
            pytest.fail("looked into")

        items = get = values = keys = __iter__ = __eq__ = __ne__ = _touched  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    shared = Closed(x=1)
    assert difference({"a": shared, "b": 1}, {"b": 2, "a": shared}).changed == Paths(1, (("b",),))
    with pytest.raises(pytest.fail.Exception, match="looked into"):
        list(changes({"a": shared}, {"a": Closed(x=1)}))


def test_it_is_lazy_and_does_not_recurse() -> None:
    deep: Any = 1
    for _ in range(3_000):
        deep = {"a": deep}
    [change] = changes({}, deep)
    assert (change.kind, len(change.path)) == (Kind.ADDED, 3_000)
    assert next(changes({"z": 1, **{str(each): each for each in range(10_000)}}, {})).path == ("z",)
