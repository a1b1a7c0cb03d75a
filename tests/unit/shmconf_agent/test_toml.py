from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import pytest
import tomli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shmconf_agent.formats import DEFAULT_LIMITS, Limits, parse
from shmconf_agent.problems import Invalid


def read(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    return parse(text if isinstance(text, bytes) else text.encode(), file="c.toml", limits=limits)


def problems_of(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(text, limits)
    return str(caught.value).splitlines()


def test_values_are_those_of_tomli() -> None:
    text = """
    int = 18446744073709551615
    float = [1.5, inf, -inf, 1e400]
    dates = [1979-05-27, 07:32:00, 1979-05-27 07:32:00.5, 1979-05-27T07:32:00-07:00]
    [[tables]]
    a.b = 'x'
    [[tables]]
    """
    assert read(text) == {
        "int": 2**64 - 1,
        "float": [1.5, math.inf, -math.inf, math.inf],
        "dates": [
            date(1979, 5, 27),
            time(7, 32),
            datetime(1979, 5, 27, 7, 32, 0, 500000),
            datetime(1979, 5, 27, 7, 32, tzinfo=timezone(-timedelta(hours=7))),
        ],
        "tables": [{"a": {"b": "x"}}, {}],
    }


@pytest.mark.parametrize("data", [b"", b"# nothing\r\n", b"\xef\xbb\xbf", b" \n"])
def test_an_empty_document_is_an_empty_map(data: bytes) -> None:
    assert read(data) == {}


def test_a_byte_order_mark_and_crlf_are_taken() -> None:
    assert read("\ufeffgröße = 1\r\n[b]\r\nx = '''\r\ny'''\r\n".replace("größe", '"größe"').encode()) == {
        "größe": 1,
        "b": {"x": "y"},
    }


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a = 1\nb = 2\na = 3", ["c.toml:3:1: duplicate key 'a', first set at line 1, column 1"]),
        ("[a]\nx = 1\n[b]\n[a]", ["c.toml:4:2: duplicate key 'a', first set at line 1, column 2"]),
        ("a = 1\n[a.b]", ["c.toml:2:2: duplicate key 'a', first set at line 1, column 1"]),
        ("a = {x = 1}\n[a]", ["c.toml:2:2: duplicate key 'a', first set at line 1, column 1"]),
        ("a = [1]\n[[a]]", ["c.toml:2:3: duplicate key 'a', first set at line 1, column 1"]),
        ("[[a]]\n[a]", ["c.toml:2:2: duplicate key 'a', first set at line 1, column 3"]),
        ("a = {x = 1}\na.y = 2", ["c.toml:2:1: duplicate key 'a', first set at line 1, column 1"]),
        ("a = [{x = 1, y = {x = 1, x = 2}}]", ["c.toml:1:26: duplicate key 'x', first set at line 1, column 19"]),
        ("[a.b]\n[a]\nb.c = 1", ["c.toml:3:1: duplicate key 'b', first set at line 1, column 4"]),
        (
            'a = 1\n"a" = 2\n"\\u0061" = 3',
            [
                "c.toml:2:1: duplicate key 'a', first set at line 1, column 1",
                "c.toml:3:1: duplicate key 'a', first set at line 1, column 1",
            ],
        ),
        ("a = 1\na = 2\nb = ]", ["c.toml:2:1: duplicate key 'a', first set at line 1, column 1"]),
        ("a = ", ["c.toml:1:5: invalid value"]),
        ("a = 1\nb = 2020-02-30", ["c.toml:2:5: invalid date or datetime"]),
        (
            "x = 1\na = [1, 18446744073709551616]",
            ["c.toml:2:9: an integer beyond 64 bits (it may be -2**63 to 2**64-1)"],
        ),
        ("a = 0x" + "f" * 20, ["c.toml:1:5: an integer beyond 64 bits (it may be -2**63 to 2**64-1)"]),
        ("a.b = -" + "9" * 5000, ["c.toml:1:7: an integer beyond 64 bits (it may be -2**63 to 2**64-1)"]),
    ],
)
def test_what_is_refused_has_its_place(text: str, problems: list[str]) -> None:
    assert problems_of(text) == problems


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"a = 1\nb = '\xff'", "c.toml:2:6: not UTF-8"),
        ("é = 1".encode("utf-16"), "c.toml:1:1: the file is UTF-16: save it as UTF-8"),
        (b"a = '\x00'", "c.toml:1:6: "),
    ],
)
def test_unreadable_text_is_placed(data: bytes, start: str) -> None:
    (problem,) = problems_of(data)

    assert problem.startswith(start)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 60_000,
        "a = " + "{a = " * 60_000,
        "a = " + "[" * 200 + "]" * 200,
        ".".join("a" * 200) + " = 1",
        "[" + ".".join("a" * 60_000) + "]",
        "\n".join(".".join("a" * 900) + f".k{n} = 1" for n in range(2000)),
    ],
)
def test_deep_nesting_ends_at_the_limit(text: str) -> None:
    (problem,) = problems_of(text)

    assert re.fullmatch(r"c\.toml:1:\d+: nested deeper than the limit max_depth = 128", problem)


def test_the_deepest_that_is_let_through() -> None:
    assert read("a = [[]]\n[b.c]", Limits(max_depth=3))
    for text, place in (("a = [[[]]]", "1:7"), ("[b.c.d]", "1:6"), ("[[b.c]]", "1:1"), ("[b.c]\nd.e = 1", "2:1")):
        assert problems_of(text, Limits(max_depth=3)) == [f"c.toml:{place}: nested deeper than the limit max_depth = 3"]


def test_nodes_are_limited() -> None:
    assert read("a = [1, 2]", Limits(max_nodes=5))
    (problem,) = problems_of("b = 1\na = [1, 2, 3]", Limits(max_nodes=5))
    assert problem.startswith("c.toml:2:5: more keys and values")
    assert problem.endswith("max_nodes = 5")


STATEMENTS = (
    "[a]", "[a.b]", "[a.b.c]", "[[c]]", "[[c.d]]", "[c.d]", "[c]", "[b]", "[[a.b]]", "a = 1", "a.b = 1", "a.b.c = 2",
    "b.c = 1",
    "c = []", "d = {a = 1, b.c = [1, {d = 2}]}", "d.a = 1", "[d.b]", "x = {y = 1, y.z = 2}", "x = {y = {}, y.z = 2}",
    "c = 'x' # c", 's = """\n a = 1\n \\"""" """', "t = '''[a]'''", "b = [\n 1, # one\n]", "e = 1979-05-27 07:32:00",
    "'a' = 1",
)  # fmt: skip


@settings(deadline=None, max_examples=600)
@given(st.lists(st.sampled_from(STATEMENTS), max_size=8).map("\n".join))
@example("[a.b.c]\n[a]\nb.x = 1")
def test_statements_equal_tomli_and_every_conflict_has_both_places(text: str) -> None:
    try:
        expected = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = error.msg
    else:
        assert read(text) == expected
        return
    problems = problems_of(text)
    if re.match(r"Cannot (overwrite|declare|mutate|redefine)|Duplicate inline", message):
        assert all("first set at line" in problem for problem in problems), (message, problems)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_arbitrary_bytes_raise_nothing_but_invalid(data: bytes) -> None:
    try:
        tree = read(data)
    except Invalid:
        return
    assert isinstance(tree, dict)


PIECES = (
    "a",
    "b",
    ".",
    " = ",
    "=",
    "\n",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "'''",
    '"""',
    "\\",
    "#",
    "1",
    "_",
    " ",
)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_pieces_of_toml_equal_tomli(text: str) -> None:
    try:
        expected = tomli.loads(text)
    except tomli.TOMLDecodeError:
        assert problems_of(text)
    else:
        assert read(text) == expected
