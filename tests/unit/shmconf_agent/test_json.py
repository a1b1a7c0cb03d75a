from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shmconf_agent.formats import DEFAULT_LIMITS, Limits, parse
from shmconf_agent.problems import Invalid


def read(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    return parse(text if isinstance(text, bytes) else text.encode(), file="c.json", limits=limits)


def problems_of(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(text, limits)
    return str(caught.value).splitlines()


def test_values_are_those_of_the_standard_library() -> None:
    tree = read('{"a": [1, -1.5e3, true, null, "\\ud83d\\ude00", {}, 18446744073709551615, Infinity, -Infinity]}')

    assert tree == {"a": [1, -1500.0, True, None, "😀", {}, 2**64 - 1, math.inf, -math.inf]}
    assert math.isnan(read('{"a": NaN}')["a"])


@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"{}", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf"])
def test_an_empty_document_is_an_empty_map(data: bytes) -> None:
    assert read(data) == {}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('{"a": 1,\n "b": 2, "a": 3}', ["c.json:2:10: duplicate key 'a', first set at line 1, column 2"]),
        ('{"a": 1, "\\u0061": 3}', ["c.json:1:10: duplicate key 'a', first set at line 1, column 2"]),
        ('[{"a": 1, "a": 2}]', ["c.json:1:11: duplicate key 'a', first set at line 1, column 3"]),
        (
            '{"a": 1, "a": 2, "a": 3, "b": [1e400, -1E999, Infinity, {"c": 1, "c": 99999999999999999999}]}',
            [
                "c.json:1:10: duplicate key 'a', first set at line 1, column 2",
                "c.json:1:18: duplicate key 'a', first set at line 1, column 2",
                "c.json:1:32: 1e400 is beyond what a float can hold",
                "c.json:1:39: -1E999 is beyond what a float can hold",
                "c.json:1:66: duplicate key 'c', first set at line 1, column 58",
                "c.json:1:71: an integer beyond 64 bits (it may be -2**63 to 2**64-1)",
            ],
        ),
        ('{"a":\n 18446744073709551616}', ["c.json:2:2: an integer beyond 64 bits (it may be -2**63 to 2**64-1)"]),
        ('{"a": 1, "b": ' + "9" * 5000 + "}", ["c.json:1:15: an integer beyond 64 bits (it may be -2**63 to 2**64-1)"]),
        ('{"a": ["\\ud800"]}', ["c.json:1:8: half a surrogate pair is not a character"]),
        ('{"\\udc00x": 1}', ["c.json:1:13: half a surrogate pair is not a character"]),
        ('{"a": 1,}', ["c.json:1:8: illegal trailing comma before end of object"]),
        (
            '{"a": 1, "a": 2 3',
            [
                "c.json:1:10: duplicate key 'a', first set at line 1, column 2",
                "c.json:1:17: expecting ',' delimiter",
            ],
        ),
        ("\n [1]", ["c.json:2:2: the top level is an array; it has to be an object"]),
        ("null", ["c.json:1:1: the top level is null; it has to be an object"]),
        ("1", ["c.json:1:1: the top level is a single value; it has to be an object"]),
    ],
)
def test_what_is_refused_has_its_place(text: str, problems: list[str]) -> None:
    found = problems_of(text)

    if "trailing comma" in problems[0]:  # the words and the column differ between versions of Python
        assert re.match(r"c\.json:1:[89]: (illegal trailing comma|expecting property name)", found[0])
    else:
        assert found == problems


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b'{"a":\n"\xff"}', "c.json:2:2: not UTF-8"),
        ("{}".encode("utf-16"), "c.json:1:1: the file is UTF-16: save it as UTF-8"),
        (b'{"a": "\x00"}', "c.json:1:8: invalid control character"),
        (b'{"\xc3\xa9": \x00}', "c.json:1:7: expecting value"),
    ],
)
def test_unreadable_text_is_placed(data: bytes, start: str) -> None:
    (problem,) = problems_of(data)

    assert problem.startswith(start)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "[" * 200 + "]" * 200 + "}"])
def test_deep_nesting_ends_at_the_limit(text: str) -> None:
    (problem,) = problems_of(text)

    assert re.fullmatch(r"c\.json:1:\d+: nested deeper than the limit max_depth = 128", problem)


def test_the_deepest_that_is_let_through() -> None:
    assert read('{"a": [[]]}', Limits(max_depth=3)) == {"a": [[]]}
    assert problems_of('{"a": [[[]]]}', Limits(max_depth=3)) == [
        "c.json:1:9: nested deeper than the limit max_depth = 3"
    ]


def test_nodes_are_limited() -> None:
    assert read('{"a": [1, 2]}', Limits(max_nodes=5))
    (problem,) = problems_of('{"a": [1, 2, 3]}', Limits(max_nodes=5))
    assert problem.startswith("c.json:1:14: more keys and values")
    assert problem.endswith("max_nodes = 5")


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(deadline=None)
@given(st.dictionaries(st.text(), TREES), st.integers(0, 4) | st.none(), st.booleans())
def test_dumped_trees_come_back(tree: Any, indent: int | None, ascii_only: bool) -> None:
    found = read(json.dumps(tree, indent=indent, ensure_ascii=ascii_only))

    assert found == tree
    assert json.dumps(found) == json.dumps(tree)  # types and order too


PIECES = (
    '"a"',
    '"b"',
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "1",
    "1e400",
    "-",
    "NaN",
    '"',
    "\\",
    " ",
    "\n",
    "true",
    "x",
    '"\\ud800"',
)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
@example('{"a":1,"a":')
def test_any_pieces_of_json_raise_nothing_but_invalid(text: str) -> None:
    try:
        tree = read(text)
    except Invalid as refused:
        invalid = refused
    else:
        assert not text.strip() or repr(tree) == repr(json.loads(text))
        return
    assert all(problem.line and problem.column for problem in invalid.problems)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_invalid(data: bytes) -> None:
    try:
        tree = read(data)
    except Invalid:
        return
    assert isinstance(tree, dict)
