"""The secrets in what was published before, by the text that it was made from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.merge import Layer
from shmconf_agent.secrets_then import parts_between, secrets_then


@pytest.mark.parametrize(
    ("template", "value", "parts"),
    [
        ("${file:s}", "tiger", {"tiger"}),
        ("db://me:${file:s}@host", "db://me:tiger@host", {"tiger"}),
        ("db://me:${file:s}@host", "db://me:a@host@host", {"a@host"}),
        ("${env:USER}:${credential:s}@${env:HOST:-h}", "me:tiger@h", {"me", "tiger", "h"}),
        ("${file:a}${file:b}.", "tigerlion.", {"tigerlion"}),
        ("${file:a}/${file:b}", "a/b/c", {"a", "b/c", "a/b", "c"}),
        ("$${x}${file:s}", "${x}tiger", {"tiger"}),
        ("a", "a", set()),
        ("a", "b", None),
        ("db:${file:s}@h", "db:tiger@other", None),
        ("ab${file:s}ba", "aba", None),
        ("${file:a}/${file:b}", "tiger", None),
    ],
)
def test_what_stands_where_references_stand(template, value, parts):
    assert parts_between(template, value) == parts


@given(st.text(alphabet="ab@:"), st.text(alphabet="ab@:"), st.text(alphabet="ab@:"))
def test_a_single_secret_is_found_whatever_is_around_it(before, secret, after):
    assert parts_between(f"{before}${{file:s}}{after}", before + secret + after) == {secret}


def test_each_secret_is_known_whole_and_by_itself():
    tree = {"url": "me:tiger@h", "at": {"deep": [1, "x-lion", {"y": "plain"}]}}
    layers = [
        Layer("a", (), {"url": "shadowed"}),
        Layer("b", (), {"url": "me:${file:s}@h"}),
        Layer("c", ("at",), {"deep": [1, "x-${file:s}", {"y": "plain"}]}),
    ]
    found = secrets_then(tree, [("url",), ("at", "deep"), ("not", "there")], layers)
    assert found == {"me:tiger@h", "tiger", "x-lion", "lion", "plain"}
    assert secrets_then(tree, [], ()) == set()


def test_where_the_layers_do_not_tell_nothing_is_taken_for_known():
    assert secrets_then({"url": "me:tiger@h"}, [("url",)], ()) is None
    assert secrets_then({"url": "me:tiger@h"}, [("url",)], [Layer("b", (), {"url": "me:${file:s}@other"})]) is None
