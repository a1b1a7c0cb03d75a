"""The grammar of references, and what a tree is once they are replaced."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent import substitution
from shmconf_agent.problems import Code, Fault
from shmconf_agent.substitution import Found, Reference, bounded, escape, find_sites, replace, split, typed

TEXTS = st.text(st.sampled_from("${}:-/a envfilcrdt\n\0é") | st.characters(exclude_categories=["Cs"]), max_size=40)
PIECES = ["$", "${", "}", "$${", "env:", "A", ":-", "file:", "/x", "credential:", "${env:A}", "x"]
FRAGMENTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def resolve(reference: Reference) -> Found | Fault:
    if reference.name == "missing":
        return Fault(Code.REFERENCE_MISSING, f"{reference} is not there")
    return Found(f"<{reference.name}>", secret=reference.kind != "env", typed=reference.kind == "env")


def replaced(tree: dict) -> substitution.Replaced:
    return replace(find_sites(tree), resolve)


@given(TEXTS | FRAGMENTS)
def test_every_text_is_read(text: str) -> None:
    parts, faults = split(text)
    assert parts or faults or not text
    for part in parts:
        assert isinstance(part, Reference) or part
    for fault in faults:
        assert fault.code is Code.REFERENCE_SYNTAX
        assert str(fault).isprintable()
    if "${" not in text:
        assert parts == ((text,) if text else ())
        assert not faults


@given(TEXTS | FRAGMENTS)
def test_an_escaped_text_is_that_text(text: str) -> None:
    assert split(escape(text)) == ((text,) if text else (), ())


@given(TEXTS | FRAGMENTS, TEXTS | FRAGMENTS)
def test_what_is_written_before_and_behind_a_reference_is_kept(before: str, behind: str) -> None:
    if before.endswith("$"):
        before += " "  # `$${` is a literal
    parts, faults = split(escape(before) + "${env:A}" + escape(behind))
    assert not faults
    assert parts == tuple(part for part in (before, Reference("env", "A"), behind) if part)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("${env:PORT}", [Reference("env", "PORT")]),
        ("${env:PORT:-8080}", [Reference("env", "PORT", "8080")]),
        ("${env:PORT:-}", [Reference("env", "PORT", "")]),
        ("${env:A:-b:-c}", [Reference("env", "A", "b:-c")]),
        ("${file:/run/a:b}", [Reference("file", "/run/a:b")]),
        ("${file:rel/x y:-z}}", [Reference("file", "rel/x y", "z"), "}"]),
        ("${credential:db.pw}", [Reference("credential", "db.pw")]),
        ("$", ["$"]),
        ("$$", ["$$"]),
        ("a $b {c} }", ["a $b {c} }"]),
        ("$${env:A}", ["${env:A}"]),
        ("$$${env:A}", ["$${env:A}"]),
        ("${env:A}${env:B}", [Reference("env", "A"), Reference("env", "B")]),
    ],
)
def test_what_is_a_reference(text: str, parts: list[object]) -> None:
    assert split(text) == (tuple(parts), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${env:A", "${env:A has no closing }"),
        ("${}", "${} is not a reference that is known"),
        ("${PORT}", "write ${env:PORT}, or $${PORT} for the text as it is"),
        ("${evn:PORT}", "did you mean"),
        ("${foo:x}", "a reference is ${env:NAME}, ${file:/path} or ${credential:name}, and $${ is a literal ${"),
        ("${env:}", "${env:} names nothing"),
        ("${env::-x}", "${env:} names nothing"),
        ("${env:A B}", "the name of a variable is letters, digits and _"),
        ("${env:1A}", "the name of a variable is"),
        ("${file:a\0b}", "${file:a\\x00b}: a name cannot hold a null character"),
        ("${credential:a/b}", "without slashes"),
        ("${credential:..}", "without slashes"),
        ("${env:A:-${env:B}}", "a reference cannot hold another"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    _, [fault] = split(text)
    assert said in str(fault)


def test_each_fault_of_a_text_is_told() -> None:
    assert len(split("${a} ${env:B} ${c} ${d")[1]) == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080),
        ("-1", -1),
        ("0", 0),
        ("2.5", 2.5),
        ("1.0", 1.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_scalars_that_json_writes_just_so_have_their_type(text: str, value: object) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("0123", "1e3", "1.10", "+1", "-0", "1_000", "0x10", "NO", "yes", "True", "~", "", " 1", "1 ", "1\n", "12:34"),
        *(".5", "nan", "Infinity", "18446744073709551616", "9" * 5000, "0.1000000000000000055", "١"),
    ],
)
def test_whatever_would_be_written_otherwise_stays_text(text: str) -> None:
    assert typed(text) == text
    assert type(typed(text)) is str


@given(st.text(st.sampled_from("0123456789.-+eE_ truefalsn"), max_size=24) | st.text(max_size=8))
def test_nothing_is_lost_by_a_type(text: str) -> None:
    value = typed(text)
    assert (value if isinstance(value, str) else json.dumps(value)) == text


def test_a_whole_value_keeps_its_type_and_a_part_is_text() -> None:
    def numbers(reference: Reference) -> Found:
        return Found("80", secret=reference.kind == "file", typed=reference.kind == "env")

    tree = {"whole": "${env:A}", "part": "${env:A}0", "both": "${env:A}${env:A}", "file": "${file:x}"}
    assert replace(find_sites(tree), numbers).tree == {"whole": 80, "part": "800", "both": "8080", "file": "80"}


def test_what_is_put_in_is_not_looked_at_again() -> None:
    result = replace(find_sites({"a": "${env:A}"}), lambda _: Found("${env:B} $${ ${"))
    assert result.tree == {"a": "${env:B} $${ ${"}


def test_keys_are_left_alone() -> None:
    tree = {"${env:A}": "${env:A}", 3: {None: ["${file:f}"]}}
    result = replaced(tree)
    assert result.tree == {"${env:A}": "<A>", 3: {None: ["<f>"]}}
    assert result.secrets == ((3, None, 0),)
    assert result.texts == {"<f>"}


def test_what_has_no_reference_is_shared_and_what_was_parsed_is_not_changed() -> None:
    tree = {"plain": {"a": [1]}, "deep": {"x": {"y": "${env:A}"}, "beside": {"b": 1}}}
    result = replaced(tree)
    assert result.tree["plain"] is tree["plain"]
    assert result.tree["deep"]["beside"] is tree["deep"]["beside"]
    assert tree["deep"]["x"] == {"y": "${env:A}"}
    assert replaced({"a": 1}).tree == {"a": 1}


def test_the_order_of_keys_stays() -> None:
    assert list(replaced({"b": "${env:A}", "a": 1, "c": "${env:A}"}).tree) == ["b", "a", "c"]


def test_what_an_alias_repeats_is_replaced_once_and_secret_everywhere() -> None:
    shared = {"password": "${file:f}"}
    result = replaced({"a": shared, "b": [shared, shared]})
    assert result.tree["a"] is result.tree["b"][0] is result.tree["b"][1]
    assert set(result.secrets) == {("a", "password"), ("b", 0, "password"), ("b", 1, "password")}


def test_faults_are_told_with_the_path_of_the_value() -> None:
    result = replaced({"a": ["x", "${env:missing} ${bad}"], "b": "${env:A}"})
    assert [(path, fault.code) for path, fault in result.faults] == [
        (("a", 1), Code.REFERENCE_SYNTAX),
        (("a", 1), Code.REFERENCE_MISSING),
    ]


def test_an_alias_bomb_of_references_costs_little() -> None:
    level: object = ["${file:f}"] * 5
    for _ in range(12):
        level = [level] * 5
    result = replaced({"bomb": level})
    assert result.secrets
    assert len(result.secrets) <= substitution.MOST_SECRETS
    assert [fault.code for _, fault in result.faults] == [Code.REFERENCE_LIMIT]


def test_a_text_that_names_a_large_file_often_is_never_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(substitution, "MOST_TEXT", 1000)
    result = replace(find_sites({"a": "${env:A}" * 101}), lambda _: Found("x" * 10))
    assert result.size == 1010
    assert [fault.code for _, fault in result.faults] == [Code.REFERENCE_LIMIT]
    assert result.tree == {"a": ""}


@given(st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=40), st.integers(1, 6))
def test_of_too_many_paths_shorter_ones_cover_all(paths: list[tuple[int, ...]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substitution, "MOST_SECRETS", most)
        kept = bounded(paths)
    assert len(kept) <= most
    for path in paths:
        assert any(path[: len(each)] == each for each in kept)
    if len(set(paths)) <= most:
        assert set(kept) == set(paths)
