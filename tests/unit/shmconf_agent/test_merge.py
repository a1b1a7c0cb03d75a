from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmconf_agent.merge import Layer, Setting, Settings, merge, unlike_keys
from shmconf_agent.merge import settings as settings_of


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


def map_paths_of(tree: Any) -> list[tuple[Any, ...]]:
    entries = tree.items() if isinstance(tree, dict) else ()
    return [path for part, value in entries for path in ((part,), *((part, *rest) for rest in map_paths_of(value)))]


# Keys that are equal and of different types


def unlike(pile: list[Layer]) -> list[tuple[str, tuple[Any, ...], str, tuple[Any, ...]]]:
    return [(layer.file, path, below.file, path_below) for layer, path, below, path_below in unlike_keys(pile)]


def test_equal_keys_of_different_types_are_told() -> None:
    pile = layers({1: "a", "m": {0: "x"}}, {"m": {False: "y"}}, {True: "b", "1": "c"}, {1.0: "d"}, {1: "e"})

    assert ordered([pair[1][-1] for pair in unlike(pile)]) == ordered([False, True, 1.0])
    assert unlike(pile) == [
        ("1.yaml", ("m", False), "0.yaml", ("m", 0)),
        ("2.yaml", (True,), "0.yaml", (1,)),
        ("3.yaml", (1.0,), "0.yaml", (1,)),
    ]


def test_keys_that_never_meet_are_not_told() -> None:
    assert unlike(layers({"a": {1: "x"}, "b": {True: "y"}}, {"a": 5}, {"a": {True: "z"}})) == []


def test_keys_that_meet_under_a_mount_are_told() -> None:
    pile = [Layer("base", (), {"s": {1: "a"}}), Layer("mounted", ("s",), {True: "b"})]
    assert unlike(pile) == [("mounted", (True,), "base", ("s", 1))]
    assert unlike(list(reversed(pile))) == [("base", ("s", 1), "mounted", (True,))]


@settings(deadline=None, max_examples=300)
@given(piles())
def test_what_is_told_is_the_type_that_a_key_loses(pile: list[Layer]) -> None:
    told = unlike_keys(pile)
    result = merge(pile)
    for layer, path, below, path_below in told:
        assert path_below[-1] == path[-1]
        assert type(path_below[-1]) is not type(path[-1])
        at(layer.tree, path)
        at(below.tree, path_below)
    # Where nothing is told, every key that is not hidden has the type that its layer gives it.
    if not told:
        for layer in pile:
            for path in map_paths_of(mounted(layer)):
                if any(each.layer is layer and not each.shadowed for each in settings_of(pile, path)):
                    beside = at(result, path[:-1])
                    assert type(next(key for key in beside if key == path[-1])) is type(path[-1])


# Who set a path, and what that shadows


def origins(pile: list[Layer], *path: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [(each.layer.file, each.within) for each in settings_of(pile, path) if not each.shadowed]


def shadows(pile: list[Layer], *path: Any) -> list[tuple[str, tuple[Any, ...], Any]]:
    return [(each.layer.file, each.reached, each.value) for each in settings_of(pile, path) if each.shadowed]


def test_the_winner_and_what_it_shadows() -> None:
    pile = layers({"a": 1, "m": {"x": 1}}, {"b": 2}, {"a": 3, "m": {"y": 2}}, {"a": {}}, {"a": [4]})

    assert origins(pile, "a") == [("4.yaml", ("a",))]
    assert shadows(pile, "a") == [
        ("3.yaml", ("a",), {}),
        ("2.yaml", ("a",), 3),
        ("0.yaml", ("a",), 1),
    ]
    assert (origins(pile, "b"), shadows(pile, "b")) == ([("1.yaml", ("b",))], [])
    assert (origins(pile, "m"), shadows(pile, "m")) == ([("2.yaml", ("m",)), ("0.yaml", ("m",))], [])
    assert origins(pile, "m", "x") == [("0.yaml", ("m", "x"))]
    assert (origins(pile, "absent"), shadows(pile, "absent")) == ([], [])


def test_a_layer_beneath_a_scalar_on_the_way_has_no_part() -> None:
    pile = layers({"a": {"x": 1}}, {"a": 5}, {"a": {"y": 2}})

    assert origins(pile, "a", "x") == []
    assert shadows(pile, "a", "x") == [("1.yaml", ("a",), 5), ("0.yaml", ("a", "x"), 1)]
    assert origins(pile, "a", "y") == [("2.yaml", ("a", "y"))]
    assert shadows(pile, "a", "y") == [("1.yaml", ("a",), 5)]
    assert origins(pile, "a") == [("2.yaml", ("a",))]
    assert shadows(pile, "a") == [("1.yaml", ("a",), 5), ("0.yaml", ("a",), {"x": 1})]


def test_a_layer_beneath_a_map_has_no_part_with_what_is_none() -> None:
    pile = [*layers({"a": {1: "x"}}, {"a": [1, 2]}, {"a": {"y": 2}}), Layer("m", ("a", "b"), {})]

    assert origins(pile, "a", 1) == []
    assert shadows(pile, "a", 1) == [("1.yaml", ("a", 1), 2), ("0.yaml", ("a", 1), "x")]
    assert origins(pile[1:], "a", 1) == []
    assert origins([pile[1], pile[3]], "a", 1) == []
    assert origins([pile[0], pile[3]], "a", 1) == [("0.yaml", ("a", 1))]
    assert origins(pile, "a") == [("m", ()), ("2.yaml", ("a",))]
    assert shadows(pile, "a") == [("1.yaml", ("a",), [1, 2]), ("0.yaml", ("a",), {1: "x"})]


def test_a_list_comes_from_one_layer() -> None:
    pile = layers({"l": [1, 2, {"x": 1}]}, {"l": [3]})

    assert origins(pile, "l", 0) == [("1.yaml", ("l", 0))]
    assert shadows(pile, "l", 0) == [("0.yaml", ("l", 0), 1)]
    assert origins(pile, "l", 2) == []
    assert origins(pile[:1], "l", 2, "x") == [("0.yaml", ("l", 2, "x"))]
    assert shadows(list(reversed(pile)), "l", 2) == [("1.yaml", ("l",), [3])]


def test_paths_are_relative_to_the_mounted_tree() -> None:
    pile = [Layer("base", (), {"s": {"l": {"x": 1}}}), Layer("mounted", ("s", "l"), {"x": 2})]

    assert origins(pile, "s", "l", "x") == [("mounted", ("x",))]
    assert shadows(pile, "s", "l", "x") == [("base", ("s", "l", "x"), 1)]
    assert origins(pile, "s", "l") == [("mounted", ()), ("base", ("s", "l"))]
    assert origins(pile, "s") == [("mounted", ()), ("base", ("s",))]
    assert origins(pile, "t") == []


@pytest.mark.parametrize("path", [({},), ("a", []), ("l", True), ("l", -1), ("l", "0"), ("l", 0, {})])
def test_a_path_that_nothing_can_have_has_no_origin(path: tuple[Any, ...]) -> None:
    assert origins(layers({"a": {"x": 1}, "l": [{"x": 1}]}), *path) == []


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
        found = settings_of(pile, path)
        parts = [each for each in found if not each.shadowed]
        value = at(tree, path)
        if isinstance(value, dict):
            assert all(isinstance(each.value, dict) for each in parts)
            assert {key for each in parts for key in each.value} == set(value)
        else:
            [winner] = parts
            assert winner.value is value
        for each in found:
            assert at(mounted(each.layer), each.reached) == each.value
            assert each.reached == path[: len(each.reached)]


@settings(deadline=None, max_examples=300)
@given(piles())
def test_without_what_is_shadowed_nothing_changes(pile: list[Layer]) -> None:
    tree = merge(pile)
    for path in paths_of(tree)[1:]:
        found = settings_of(pile, path)
        shadowed = [each.layer for each in found if each.shadowed]
        rest = [layer for layer in pile if not any(layer is each for each in shadowed)]
        assert ordered(at(merge(rest), path)) == ordered(at(tree, path))


@settings(deadline=None)
@given(piles(), st.lists(st.one_of(KEYS, st.integers(0, 2)), max_size=4).map(tuple))
def test_a_path_has_an_origin_exactly_if_it_is_in_the_result(pile: list[Layer], path: tuple[Any, ...]) -> None:
    tree = merge(pile)
    present = any(path == known and list(map(type, path)) == list(map(type, known)) for known in paths_of(tree))

    if present and pile:
        assert origins(pile, *path)
    if not present and path not in paths_of(tree):
        assert not origins(pile, *path)


def plain_settings(pile: list[Layer], path: tuple[Any, ...]) -> list[Setting]:
    """The rule, layer by layer from above: how far each leads along the path, and what those above it hide."""
    found: list[Setting] = []
    opened, closed = -1, False
    for layer in reversed(pile):
        value, depth = mounted(layer), 0
        while depth < len(path) and isinstance(value, dict) and path[depth] in value:
            value, depth = value[path[depth]], depth + 1
        is_map = isinstance(value, dict)
        if depth == len(path) or not is_map:
            rest, end = list(path[depth:]), value
            while rest and isinstance(end, list) and type(rest[0]) is int and rest[0] < len(end):
                end = end[rest.pop(0)]
            reached = path[:depth] if rest else path
            hidden = closed or bool(rest) or (not is_map and depth <= opened)
            found.append(Setting(layer, reached, reached[len(layer.at) :], value if rest else end, hidden))
        opened, closed = max(opened, depth if is_map else -1), closed or not is_map
    return found


@settings(deadline=None, max_examples=300)
@given(piles(), st.lists(st.lists(st.one_of(KEYS, st.integers(0, 2)), max_size=4).map(tuple), max_size=8))
def test_many_paths_in_a_row_are_answered_as_each_alone(pile: list[Layer], paths: list[tuple[Any, ...]]) -> None:
    known = Settings(pile)
    for path in [*paths, *(each for layer in pile for each in paths_of(mounted(layer)))]:
        assert list(map(repr, known.of(path))) == list(map(repr, plain_settings(pile, path)))
