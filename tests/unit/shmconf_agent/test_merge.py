from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmconf_agent.merge import Layer, merge, provenance


def layers(*trees: Any) -> list[Layer]:
    return [Layer(f"{number}.yaml", (), tree) for number, tree in enumerate(trees)]


def merged(*trees: Any) -> Any:
    return merge(layers(*trees))


def ordered(tree: Any) -> Any:
    """A form of `tree` that is equal only where the order of maps is too, and the types of their keys and values."""
    if isinstance(tree, dict):
        return [(type(key), key, ordered(value)) for key, value in tree.items()]
    if isinstance(tree, list):
        return list, [ordered(item) for item in tree]
    return type(tree), tree


@pytest.mark.parametrize(
    ("trees", "result"),
    [
        ([], {}),
        ([{}], {}),
        ([{"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": {"x": 1, "y": {"z": 1}}}, {"a": {"y": {"w": 2}}}], {"a": {"x": 1, "y": {"z": 1, "w": 2}}}),
        ([{"a": [1, 2]}, {"a": [3]}], {"a": [3]}),
        ([{"a": [{"x": 1}]}, {"a": [{"y": 1}]}], {"a": [{"y": 1}]}),
        ([{"a": {"x": 1}}, {"a": None}], {"a": None}),
        ([{"a": {"x": 1}}, {"a": {}}], {"a": {"x": 1}}),
        ([{"a": 1}, {"a": {}}], {"a": {}}),
        ([{"a": {"x": 1}}, {"a": 5}, {"a": {"y": 2}}], {"a": {"y": 2}}),
        ([{"a": {"x": 1}}, {"a": []}, {"a": {"y": 2}}], {"a": {"y": 2}}),
    ],
)
def test_later_layers_win_and_maps_merge(trees: list[Any], result: Any) -> None:
    assert merged(*trees) == result


def test_an_overridden_key_keeps_its_place_and_new_ones_follow() -> None:
    tree = merged({"a": 1, "b": {"x": 1, "y": 2}, "c": 3}, {"d": 4, "c": 0, "b": {"z": 3, "x": 0}, "a": 0})

    assert ordered(tree) == ordered({"a": 0, "b": {"x": 0, "y": 2, "z": 3}, "c": 0, "d": 4})


def test_a_key_replaced_by_a_scalar_and_back_keeps_its_place() -> None:
    assert list(merged({"a": {"x": 1}, "b": 2}, {"a": 5}, {"c": 1, "a": {"y": 2}})) == ["a", "b", "c"]


def test_of_keys_that_are_equal_the_first_stays_and_the_last_value_wins() -> None:
    assert ordered(merged({1: "int"}, {True: "bool"}, {1.0: "float"})) == ordered({1: "float"})


def test_a_layer_is_mounted_under_its_path() -> None:
    tree = merge(
        [
            Layer("base.yaml", (), {"service": {"name": "web", "limits": {"rate": 1}}, "z": 0}),
            Layer("limits.toml", ("service", "limits"), {"rate": 2, "burst": 3}),
            Layer("new.toml", ("new", "place"), {"x": 1}),
            Layer("empty.toml", ("none",), {}),
            Layer("over.toml", ("z",), {"y": 1}),
        ]
    )

    assert ordered(tree) == ordered(
        {
            "service": {"name": "web", "limits": {"rate": 2, "burst": 3}},
            "z": {"y": 1},
            "new": {"place": {"x": 1}},
            "none": {},
        }
    )


def test_values_shared_within_a_layer_are_merged_apart() -> None:
    shared = {"x": {"n": 1}}
    base = {"a": shared, "b": shared}

    assert merged(base, {"a": {"x": {"n": 2}}}, {"b": {"x": {"m": 3}}}) == {
        "a": {"x": {"n": 2}},
        "b": {"x": {"n": 1, "m": 3}},
    }
    assert shared == {"x": {"n": 1}}


def test_one_tree_in_several_layers_is_not_changed_by_either() -> None:
    tree: Any = {"k": {"x": 1}}
    result = merge([Layer("a", ("m",), tree), Layer("b", ("n",), tree), Layer("c", ("n", "k"), {"y": 2})])

    assert result == {"m": {"k": {"x": 1}}, "n": {"k": {"x": 1, "y": 2}}}
    assert tree == {"k": {"x": 1}}


def test_any_depth_is_merged() -> None:
    low: dict[str, Any] = {"low": 1}
    high: dict[str, Any] = {"high": 1}
    for _ in range(5000):
        low, high = {"k": low}, {"k": high}
    tree = merged(low, high)

    for _ in range(5000):
        tree = tree["k"]
    assert tree == {"low": 1, "high": 1}


KEYS = st.sampled_from(["a", "b", "c", "d", 1, True, None])
LEAVES = st.one_of(
    st.integers(0, 3), st.none(), st.booleans(), st.text(max_size=1), st.lists(st.integers(0, 2), max_size=2)
)
MAPS = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda inner: st.dictionaries(KEYS, LEAVES | inner, max_size=4),
    max_leaves=12,
)


@st.composite
def piles(draw: st.DrawFn) -> list[Layer]:
    """Layers, some mounted, some of which share a tree."""
    trees = draw(st.lists(MAPS, min_size=1, max_size=4))
    mounts = st.sampled_from([(), (), ("a",), ("b", "c"), ("a", "b")])
    return [Layer(f"{number}", draw(mounts), draw(st.sampled_from(trees))) for number in range(draw(st.integers(0, 5)))]


def plainly(low: Any, high: Any) -> Any:
    """The rule in its shortest form."""
    if not (isinstance(low, dict) and isinstance(high, dict)):
        return high
    return {
        **{key: plainly(value, high[key]) if key in high else value for key, value in low.items()},
        **{key: value for key, value in high.items() if key not in low},
    }


def mounted(layer: Layer) -> Any:
    tree: Any = layer.tree
    for part in reversed(layer.at):
        tree = {part: tree}
    return tree


@settings(deadline=None, max_examples=300)
@given(piles())
def test_merging_is_the_rule_applied_layer_by_layer(pile: list[Layer]) -> None:
    expected: Any = {}
    for layer in pile:
        expected = plainly(expected, mounted(layer))

    assert ordered(merge(pile)) == ordered(expected)


@settings(deadline=None, max_examples=300)
@given(piles())
def test_inputs_stay_as_they_are(pile: list[Layer]) -> None:
    before = copy.deepcopy([layer.tree for layer in pile])
    first = merge(pile)
    again = merge(pile)

    assert ordered([layer.tree for layer in pile]) == ordered(before)
    assert ordered(first) == ordered(again)


@settings(deadline=None, max_examples=300)
@given(piles(), st.integers(0, 5))
def test_lower_layers_can_be_merged_ahead(pile: list[Layer], split: int) -> None:
    lower = Layer("lower", (), merge(pile[:split]))

    assert ordered(merge([lower, *pile[split:]])) == ordered(merge(pile))


@settings(deadline=None)
@given(piles())
def test_an_empty_layer_changes_nothing(pile: list[Layer]) -> None:
    empty = Layer("empty", (), {})

    assert ordered(merge([empty, *pile, empty])) == ordered(merge(pile))


# Provenance


def origins(pile: list[Layer], *path: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [(layer.file, within) for layer, within in provenance(pile, path)]


def test_the_winner_comes_first_and_then_what_it_shadows() -> None:
    pile = layers({"a": 1, "m": {"x": 1}}, {"b": 2}, {"a": 3, "m": {"y": 2}})

    assert origins(pile, "a") == [("2.yaml", ("a",)), ("0.yaml", ("a",))]
    assert origins(pile, "b") == [("1.yaml", ("b",))]
    assert origins(pile, "m") == [("2.yaml", ("m",)), ("0.yaml", ("m",))]
    assert origins(pile, "m", "x") == [("0.yaml", ("m", "x"))]
    assert origins(pile, "absent") == []


def test_a_layer_beneath_a_scalar_on_the_way_has_no_part() -> None:
    pile = layers({"a": {"x": 1}}, {"a": 5}, {"a": {"y": 2}})

    assert origins(pile, "a", "x") == []
    assert origins(pile, "a", "y") == [("2.yaml", ("a", "y"))]
    assert origins(pile, "a") == [("2.yaml", ("a",)), ("1.yaml", ("a",)), ("0.yaml", ("a",))]


def test_a_layer_beneath_a_map_has_no_part_with_what_is_none() -> None:
    pile = [*layers({"a": {1: "x"}}, {"a": [1, 2]}, {"a": {"y": 2}}), Layer("m", ("a", "b"), {})]

    assert origins(pile, "a", 1) == []
    assert origins(pile[1:], "a", 1) == []
    assert origins([pile[1], pile[3]], "a", 1) == []
    assert origins([pile[0], pile[3]], "a", 1) == [("0.yaml", ("a", 1))]
    assert origins(pile, "a") == [("m", ()), ("2.yaml", ("a",)), ("1.yaml", ("a",)), ("0.yaml", ("a",))]


def test_a_list_comes_from_one_layer() -> None:
    pile = layers({"l": [1, 2, {"x": 1}]}, {"l": [3]})

    assert origins(pile, "l", 0) == [("1.yaml", ("l", 0))]
    assert origins(pile, "l", 2) == []
    assert origins(pile[:1], "l", 2, "x") == [("0.yaml", ("l", 2, "x"))]


def test_paths_are_relative_to_the_mounted_tree() -> None:
    pile = [Layer("base", (), {"s": {"l": {"x": 1}}}), Layer("mounted", ("s", "l"), {"x": 2})]

    assert origins(pile, "s", "l", "x") == [("mounted", ("x",)), ("base", ("s", "l", "x"))]
    assert origins(pile, "s", "l") == [("mounted", ()), ("base", ("s", "l"))]
    assert origins(pile, "s") == [("mounted", ()), ("base", ("s",))]
    assert origins(pile, "t") == []


@pytest.mark.parametrize("path", [({},), ("a", []), ("l", True), ("l", -1), ("l", "0"), ("l", 0, {})])
def test_a_path_that_nothing_can_have_has_no_origin(path: tuple[Any, ...]) -> None:
    assert provenance(layers({"a": {"x": 1}, "l": [{"x": 1}]}), path) == []


def paths_of(tree: Any) -> list[tuple[Any, ...]]:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(), *((part, *rest) for part, value in entries for rest in paths_of(value))]


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


@settings(deadline=None, max_examples=300)
@given(piles())
def test_every_path_of_the_result_has_a_winner_that_holds_its_value(pile: list[Layer]) -> None:
    tree = merge(pile)
    for path in paths_of(tree)[1:]:
        found = provenance(pile, path)
        winner, within = found[0]
        value = at(tree, path)
        if not isinstance(value, dict):
            assert at(winner.tree, within) is value
        for layer, _ in found:
            at(mounted(layer), path)  # each of them has the path: no KeyError, no IndexError


@settings(deadline=None)
@given(piles(), st.lists(st.one_of(KEYS, st.integers(0, 2)), max_size=4).map(tuple))
def test_a_path_has_an_origin_exactly_if_it_is_in_the_result(pile: list[Layer], path: tuple[Any, ...]) -> None:
    tree = merge(pile)
    present = any(path == known and list(map(type, path)) == list(map(type, known)) for known in paths_of(tree))

    if present and pile:
        assert provenance(pile, path)
    if not present and path not in paths_of(tree):
        assert not provenance(pile, path)
