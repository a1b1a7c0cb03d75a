"""The bytes are codec.pack's, whatever was encoded before, and what did not change is not encoded again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmconf import codec
from shmconf_agent import encode, native
from shmconf_agent.encode import Encoder

SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 300), st.floats(allow_nan=False)),
    *(st.text(max_size=5), st.binary(max_size=5)),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(0, 3), st.booleans(), st.just(1.0), st.just(date(2026, 1, 1)))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(KEYS, inner, max_size=20)),
    max_leaves=60,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_PIECE_BYTES", 16)


@pytest.fixture(autouse=True, params=["native", "pure"])
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, require: Callable[[object, str], None]
) -> None:
    """Objects are compared in C, and in Python."""
    if request.param == "native":
        require(native.module is not None, f"there is no native module: {native.MISSING}")
    else:
        monkeypatch.setattr(native, "module", None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6), st.data())
def test_the_same_objects_are_told_from_equal_ones(left: list[int], right: list[int], data: st.DataObject) -> None:
    things = [[], [], 1.5]  # two of which are equal
    some, others = [things[each] for each in left], [things[each] for each in right]
    start, stop = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))

    assert encode._same(some, others, start, stop) is (left[start:stop] == right[start:stop])


@settings(max_examples=150, deadline=None)
@given(st.lists(TREES, min_size=1, max_size=4), st.data())
def test_the_bytes_are_those_of_pack(trees: list[Any], data: st.DataObject) -> None:
    encoder = Encoder()
    for tree in trees:
        assert encoder.encode(tree) == codec.pack(tree)
        changed = changed_somewhere(tree, data)
        assert encoder.encode(changed) == codec.pack(changed)
        assert encoder.encode(changed) == codec.pack(changed)


def changed_somewhere(tree: Any, data: st.DataObject) -> Any:
    """The tree with one change, sharing what it can with it."""
    if isinstance(tree, dict) and tree:
        key = data.draw(st.sampled_from(list(tree)))
        if data.draw(st.booleans()):
            return {**tree, key: changed_somewhere(tree[key], data)}
        return {other: value for other, value in tree.items() if other is not key}
    if isinstance(tree, list) and tree:
        at = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], changed_somewhere(tree[at], data), *tree[at + 1 :]]
    return data.draw(TREES)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65_535, 65_536])
@pytest.mark.parametrize("make", [lambda n: [7] * n, lambda n: dict.fromkeys(range(n))], ids=["list", "map"])
def test_every_kind_of_head(make: Callable[[int], Any], count: int) -> None:
    tree = {"a": make(count), "b": 1}
    assert Encoder().encode(tree) == codec.pack(tree)


def test_an_equal_key_of_another_type_is_another_key() -> None:
    encoder = Encoder()
    shared = {"x": "long enough to be a piece of its own"}
    for tree in ({1: shared, "b": shared}, {True: shared, "b": shared}, {1.0: shared, "b": shared}):
        assert encoder.encode(tree) == codec.pack(tree)


def test_what_did_not_change_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        {f"service-{number}": {"port": number, "host": f"h{number}"} for number in range(at, at + 50)}
        for at in range(0, 1000, 50)
    ]
    nested = {"files": {f"{number:02}.yaml": tree for number, tree in enumerate(files)}}
    flat = {"services": {key: value for tree in files for key, value in tree.items()}}
    for tree, change in ((nested, change_nested), (flat, change_flat)):
        encoder = Encoder()
        whole = len(encoder.encode(tree))
        changed = change(tree)
        encoded = count_encoded(monkeypatch)
        assert encoder.encode(changed) == codec.pack(changed)
        assert sum(encoded[:-1]) < whole / 10  # the last one is this test's own
        monkeypatch.undo()
        monkeypatch.setattr(encode, "_PIECE_BYTES", 16)


def change_nested(tree: Any) -> Any:
    file = {**tree["files"]["07.yaml"], "service-360": {"port": 1}}
    return {"files": {**tree["files"], "07.yaml": file}}


def change_flat(tree: Any) -> Any:
    return {"services": {**tree["services"], "service-360": {"port": 1}}}


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is packed from here on."""
    sizes: list[int] = []
    pack = codec.pack

    def counted(tree: Any) -> bytes:
        data = pack(tree)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(codec, "pack", counted)
    return sizes


def test_nothing_is_kept_of_the_tree_before_the_last() -> None:
    encoder = Encoder()

    def tree(number: int) -> dict[str, Any]:
        return {"a": [f"text {number} {each}" for each in range(100)], "b": {"c": number}}

    for number in range(50):
        encoder.encode(tree(number))
    before = sys.getallocatedblocks()
    for number in range(1000):
        encoder.encode(tree(number))
    assert sys.getallocatedblocks() - before < 200


def test_after_an_error_it_begins_anew() -> None:
    encoder = Encoder()
    tree = {"a": "x" * 40, "b": [1] * 40}
    encoder.encode(tree)
    with pytest.raises(OverflowError):
        encoder.encode({**tree, "c": 2**70})
    assert encoder.encode(tree) == codec.pack(tree)
