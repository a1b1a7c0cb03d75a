"""What is shown of a tree with secrets, and what is left of them in text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf import codec
from shmconf_agent.masking import MASK, Censor, masked, noted_paths, secret_paths
from shmconf_agent.merge import Layer, merge

KEYS = st.text(max_size=2) | st.integers(-2, 2) | st.booleans() | st.none() | st.dates() | st.binary(max_size=1)
TREES = st.recursive(
    st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    if isinstance(tree, dict | list):
        entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {at: leaf for key, value in entries for at, leaf in leaves(value, (*path, key)).items()}
    return {path: tree}


@given(st.dictionaries(KEYS, TREES, max_size=4), st.data())
def test_exactly_what_is_secret_is_masked_also_after_the_way_through_metadata(tree: dict[Any, Any], data: Any) -> None:
    every = leaves(tree)
    secrets = data.draw(st.lists(st.sampled_from(sorted(every, key=repr)), max_size=3)) if every else []
    noted = noted_paths(codec.unpack(codec.pack({"secret_paths": [list(path) for path in secrets]})))
    assert leaves(masked(tree, noted)) == {path: MASK if path in secrets else leaf for path, leaf in every.items()}
    for path in every:
        value: Any = tree
        for depth, part in enumerate(path):
            assert masked(value, noted, path[:depth]) == _at(masked(tree, noted), path[:depth])
            value = value[part]


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def test_what_is_beneath_a_secret_keeps_its_shape() -> None:
    tree = {"a": {"b": [1, {"c": None}]}, "d": 2}
    assert masked(tree, [("a",)]) == {"a": {"b": [MASK, {"c": MASK}]}, "d": 2}
    assert masked(tree, [()]) == {"a": {"b": [MASK, {"c": MASK}]}, "d": MASK}
    assert masked(1, [("a",)], ("a", "b")) == MASK
    assert masked(tree, [("a",), ("a", "b")]) == masked(tree, [("a", "b"), ("a",)])
    assert masked(tree, [("nowhere", 0), ("d", "x")]) == tree


def test_a_key_that_is_nan_hides_nothing() -> None:
    noted = noted_paths(codec.unpack(codec.pack({"secret_paths": [[math.nan]]})))
    [(key, value)] = masked({math.nan: "secret"}, noted).items()
    assert math.isnan(key)
    assert value == MASK


@pytest.mark.parametrize("noted", [1, "a", [1], [["a"], None], {"a": 1}, [[["a"]]]])
def test_metadata_that_cannot_be_understood_makes_all_secret(noted: object) -> None:
    assert noted_paths({"secret_paths": noted}) == ((),)


def test_no_metadata_makes_nothing_secret() -> None:
    assert noted_paths({}) == ()


def test_a_secret_that_a_later_layer_shadows_is_none_of_the_tree() -> None:
    secret = [("db", "password"), ("list", 0)]
    layers = [
        Layer("a.yaml", ("x",), {"db": {"password": "s3cret", "user": "u"}, "list": ["s3cret"]}, secrets=tuple(secret)),
        Layer("b.yaml", ("x",), {"db": {"password": "plain"}}),
    ]
    assert secret_paths(layers, merge(layers)) == (("x", "list", 0),)
    layers.append(Layer("c.yaml", (), {"x": {"list": ["other", "s3cret"]}}))
    assert secret_paths(layers, merge(layers)) == ()


def test_a_secret_over_a_plain_value_is_one() -> None:
    layers = [Layer("a.yaml", (), {"a": "plain"}), Layer("b.yaml", (), {"a": "s3cret"}, secrets=(("a",),))]
    assert secret_paths(layers, merge(layers)) == (("a",),)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("the password hunter2 is weak, hunter2!", "the password *** is weak, ***!"),
        ("KeyError: 'line \"one\"\\nline two'", "KeyError: '***'"),
        ('{"a": "line \\"one\\"\\nline two"}', '{"a": "***"}'),
        ("line two alone", "*** alone"),
        ("it ends in hunt…", "it ends in ***…"),
        ("it ends in hun…", "it ends in hun…"),
        ("abc is too short to be looked for", "abc is too short to be looked for"),
        ("gr\\xfc\\xdfe", "***"),
    ],
)
def test_secrets_are_taken_out_of_text(text: str, clean: str) -> None:
    assert Censor(["hunter2", 'line "one"\nline two', "abc", "grüße"]).clean(text) == clean


@given(st.text(min_size=4, max_size=12), st.text(max_size=8), st.text(max_size=8))
def test_no_secret_is_left_in_text(secret: str, before: str, behind: str) -> None:
    clean = Censor([secret]).clean(before + secret + behind)
    assert secret not in clean or secret in MASK * 3 or "*" in secret
