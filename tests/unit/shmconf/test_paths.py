from __future__ import annotations

import contextlib
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf.errors import Error, PathError
from shmconf.paths import MISSING, as_path, format_path, look_up, parse_path, resolve

TREE = {
    "db": {"pool": {"size": 10}, "a.b": {"c": 1}},
    "hosts": ["one", "two", {"name": "three"}],
    "": "empty key",
    "0": "text zero",
    7: "integer seven",
    None: "null",
    "nothing": None,
    "list of lists": [[1, 2], [3]],
}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("db", ("db",)),
        ("db.pool.size", ("db", "pool", "size")),
        (' db . "a.b"\t.c ', ("db", "a.b", "c")),
        ("'a\\b'.x", ("a\\b", "x")),
        (r'"\u00e9\U0001F600\t\"\\"', ('é😀\t"\\',)),
        ('""', ("",)),
        ("''", ("",)),
        ("hosts.0", ("hosts", "0")),
        ("a-b_c.1-2", ("a-b_c", "1-2")),
    ],
)
def test_a_path_is_a_toml_dotted_key(text: str, parts: tuple[str, ...]) -> None:
    assert parse_path(text) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column 1: expected a key, found the end"),
        ("a.", "column 3: expected a key, found the end"),
        (".a", "column 1: expected a key, found '.'"),
        ("a..b", "column 3: expected a key, found '.'"),
        ("a b", "column 3: 'b' needs quotes"),
        ("é", "column 1: expected a key, found 'é'"),
        ('"open', "column 1: expected a key"),
        ("'open", "column 1: expected a key"),
        (r'"\q"', "is not an escape"),
        (r'"\uD800"', "is not an escape"),
        (r'"\UFFFFFFFF"', "is not an escape"),
        ('"a"b', "column 4: 'b' needs quotes"),
        ("a\nb", "needs quotes"),
        ('"a\nb"', "column 1: expected a key"),
    ],
)
def test_malformed_text_says_where(text: str, said: str) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(text)
    assert said in str(caught.value)
    assert isinstance(caught.value, Error)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("path", [3, None, ["db"], b"db"])
def test_a_path_is_text_or_a_tuple(path: object) -> None:
    with pytest.raises(PathError, match="text or a tuple"):
        as_path(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("db.pool.size", 10),
        ('db."a.b".c', 1),
        ("hosts.0", "one"),
        ("hosts.2.name", "three"),
        ("list of lists.1.0".replace("list of lists", '"list of lists"'), 3),
        (("hosts", 2, "name"), "three"),
        (("hosts", "0"), MISSING),  # a tuple is taken as it is
        ("hosts.-1", MISSING),
        (("hosts", -1), MISSING),
        (("hosts", True), MISSING),
        (("hosts", 1.0), MISSING),
        ("hosts.00", MISSING),
        ("hosts.3", MISSING),
        ("hosts." + "9" * 5000, MISSING),
        ("0", "text zero"),
        ((0,), MISSING),
        ("7", MISSING),  # text matches string keys only
        ((7,), "integer seven"),
        ((None,), "null"),
        ('""', "empty key"),
        ("nothing", None),
        ("nothing.more", MISSING),
        ("db.pool.size.more", MISSING),
        ("hosts.0.0", MISSING),
        ((), TREE),
        (("db", ["unhashable"]), MISSING),
    ],
)
def test_look_up(path: str | tuple[object, ...], value: object) -> None:
    found = look_up(TREE, path)
    assert found is value if value is MISSING else found == value


def test_a_default_stands_for_what_is_missing_only() -> None:
    assert look_up(TREE, "nothing", default=5) is None
    assert look_up(TREE, "no.such", default=5) == 5


def test_format_path_writes_indices_and_other_keys_plainly() -> None:
    assert format_path(("hosts", 0, "a.b", 7, "")) == 'hosts.0."a.b".7.""'
    assert format_path(()) == "(top level)"


any_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(any_text, min_size=1).map(tuple))
def test_format_path_is_read_back(path: tuple[str, ...]) -> None:
    assert parse_path(format_path(path)) == path


@given(st.lists(any_text, min_size=1, max_size=4).map(tuple))
def test_toml_agrees_on_what_format_path_writes(path: tuple[str, ...]) -> None:
    tree = tomllib.loads(f"{format_path(path)} = 1")
    assert look_up(tree, path) == 1
    assert look_up(tree, format_path(path)) == 1


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_a_path_error(text: str) -> None:
    with contextlib.suppress(PathError):
        assert all(isinstance(part, str) for part in parse_path(text))


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("a.0.1", ("a", 0, "1")),
        ("a.1.0", ("a", 1, 0)),
        ("a.2", None),
        ("a.01", None),
        ("b", None),
        ("7", ("7",)),
        ((7,), (7,)),
        (("a", "0"), None),
        (("a", 0, "1"), ("a", 0, "1")),
        ((), ()),
        (({},), None),
    ],
)
def test_a_path_is_resolved_to_what_it_leads_to(path: Any, real: tuple[Any, ...] | None) -> None:
    tree = {"a": [{"1": "x"}, ["y"]], "7": "text", 7: "number"}
    assert resolve(tree, path) == real
    assert (real is None) == (look_up(tree, path) is MISSING)
    if real is not None:
        assert look_up(tree, real) == look_up(tree, path)
