from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yaml_oracle import Oracle, PureOracle, same

from shmconf_agent.formats import DEFAULT_LIMITS, Limits, parse, parse_documents, surprises, yaml_native
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.formats.yaml_scalars import hint_of_plain
from shmconf_agent.problems import Invalid


def read(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    return parse(text if isinstance(text, bytes) else text.encode(), file="c.yaml", limits=limits)


def problems_of(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(text, limits)
    return str(caught.value).splitlines()


# Values


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain text", "plain text"),
        ("''", ""),
        ("", None),
        ("~", None),
        ("yes", True),
        ("NO", False),
        ("'NO'", "NO"),
        ("y", "y"),
        ("010", 8),
        ("0x_ff", 255),
        ("0b101", 5),
        ("1_000", 1000),
        ("12:34:56", 45296),
        ("1e3", "1e3"),
        ("1.0e+400", math.inf),
        ("-.inf", -math.inf),
        ("-0.0", -0.0),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("2001-12-14", date(2001, 12, 14)),
        ("2001-12-14 21:59:43.1", datetime(2001, 12, 14, 21, 59, 43, 100000)),
        ("2001-12-14t21:59:43-05:30", datetime(2001, 12, 14, 21, 59, 43, 0, timezone(-timedelta(hours=5, minutes=30)))),
        ("!!binary aGVsbG8=", b"hello"),
        ("!!str 12", "12"),
        ("!!int '0x10'", 16),
        ("! 12", 12),
        ("!!str {=: text, more: 1}", "text"),
        ("[1, [], {}, {a: [b]}]", [1, [], {}, {"a": ["b"]}]),
        (
            "{1: a, 1.5: b, null: c, 2001-01-01: d, !!binary aA==: e}",
            {1: "a", 1.5: "b", None: "c", date(2001, 1, 1): "d", b"h": "e"},
        ),
        ('"\\u263a\\x41\\U0001F600"', "☺A😀"),
        ("{=: 1}", {"=": 1}),
        ("{'<<': 1}", {"<<": 1}),
    ],
)
def test_values_are_those_of_the_safe_loader(text: str, value: Any) -> None:
    tree = read(f"key: {text}")

    assert same(tree, {"key": value})
    assert same(tree, yaml.load(f"key: {text}", yaml.SafeLoader))


@pytest.mark.parametrize("text", ["k: ! ", "k: ! &x # nothing", "k: &x ! \nl: *x", "? ! \n: k", "k: [! , ! 1]"])
def test_the_tag_of_plain_text_before_nothing_is_what_the_parser_makes_of_it(text: str, parser: str) -> None:
    """An empty text for libyaml, and null for PyYAML's own parser."""
    assert same(read(text), yaml.load(text, PureOracle if parser == "pure" else Oracle))


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text", ["", " \n\n", "# only a comment\n", "---\n", "{}", "--- {}\n...\n", "\ufeff", "---\n# x\n"]
)
def test_an_empty_document_is_an_empty_map(text: str) -> None:
    assert read(text) == {}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_and_line_ends(encoding: str) -> None:
    assert read("größe: 1\r\nb: |\r\n  x\r\n  y\r\n".encode(encoding)) == {"größe": 1, "b": "x\ny\n"}


@pytest.mark.usefixtures("parser")
def test_an_alias_gives_the_value_of_its_anchor() -> None:
    assert read("a: &x {k: [1]}\nb: *x\nc: [*x, &s text, *s]\n? &key name\n: *key\n") == {
        "a": {"k": [1]},
        "b": {"k": [1]},
        "c": [{"k": [1]}, "text", "text"],
        "name": "name",
    }


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text",
    [
        "base: &b {x: 1, y: 2}\nuse: {z: 3, <<: *b, y: 4}",
        "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nuse: {<<: [*a, *b], z: 9, q: 0}",
        "a: &a {one: 1, two: 1}\nb: &b {two: 2, three: 2}\nuse: {<<: [*a, *b], three: 9, more: 0}",
        "list: &l [{x: 1}, {x: 2, y: 2}]\nuse: {<<: *l}",
        "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, x: 3}",
        "use: {<<: {a: 1}, <<: {b: 2, a: 3}, c: 4}",
        "use: {!!merge whatever: {a: 1}, b: 2}",
        "use: {&m <<: {a: 1}, k: {*m : {b: 2}}}",
        "a: &a {1: x}\nuse: {<<: *a, true: y}",
        "use: {<<: {}}",
        "use: {<<: []}",
    ],
)
def test_merge_keys_are_flattened_as_specified(text: str) -> None:
    assert same(read(text), yaml.load(text, PureOracle))


BASES = "a: &a {k: 1, timeout: 1, only a: 1}\nb: &b {k: 2, timeout: 2, only b: 2}\nc: &c {k: 3, timeout: 3}\n"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("merge", "tree"),
    [
        ("{<<: [*a, *b, *c]}", {"k": 1, "timeout": 1, "only b": 2, "only a": 1}),
        ("{<<: [*c, *b]}", {"k": 3, "timeout": 3, "only b": 2}),
        ("{timeout: 0, <<: [*b, *a], k: 0}", {"k": 0, "timeout": 0, "only a": 1, "only b": 2}),
        ("{<<: [{<<: [*b, *c]}, *a]}", {"k": 2, "timeout": 2, "only a": 1, "only b": 2}),
        ("{<<: {1: int, '1': str, 10: int, '10': str}}", {1: "int", "1": "str", 10: "int", "10": "str"}),
    ],
)
def test_the_first_listed_wins_whichever_pyyaml_is_installed(
    merge: str, tree: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("PyYAML was asked to merge")

    monkeypatch.setattr(yaml.constructor.SafeConstructor, "flatten_mapping", forbidden)

    found = read(f"{BASES}use: {merge}")["use"]

    assert same(dict(sorted(found.items(), key=repr)), dict(sorted(tree.items(), key=repr)))
    with pytest.raises(AssertionError, match="asked to merge"):
        yaml.safe_load("<<: {}")  # what a reader that leans on PyYAML for its merges would meet


# What is refused


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\n'a': 3", "c.yaml:3:1: duplicate key 'a', first set at line 1, column 1"),
        ("x: {k: 1, j: {k: 2}, k: 3}", "c.yaml:1:22: duplicate key 'k', first set at line 1, column 5"),
        ("1: a\ntrue: b", "c.yaml:2:1: duplicate key true, equal to 1, first set at line 1, column 1"),
        ("~: a\nnull: b", "c.yaml:2:1: duplicate key null, first set at line 1, column 1"),
        ("=: a\n=: b", "c.yaml:2:1: duplicate key '=', first set at line 1, column 1"),
        (
            "a: 18446744073709551616",
            "c.yaml:1:4: '18446744073709551616' is beyond 64 bits (an integer is -2**63 to 2**64-1)",
        ),
        (
            "a: -9223372036854775809",
            "c.yaml:1:4: '-9223372036854775809' is beyond 64 bits (an integer is -2**63 to 2**64-1)",
        ),
        ("a: !!set {x}", "c.yaml:1:4: a set (!!set) cannot be a configuration value: write a list"),
        (
            "a: !!omap [x: 1]",
            "c.yaml:1:4: an ordered map (!!omap) cannot be a configuration value: plain maps keep their order",
        ),
        (
            "a: !!pairs [x: 1]",
            "c.yaml:1:4: a list of pairs (!!pairs) cannot be a configuration value: write a list of lists",
        ),
        ("a: !!python/tuple [x]", "c.yaml:1:4: unknown tag !!python/tuple: only YAML's own types are read"),
        ("a: !vault x", "c.yaml:1:4: unknown tag !vault: only YAML's own types are read"),
        ("a: !!str [x]", "c.yaml:1:4: !!str does not fit a list"),
        ("a: !!str {x: y}", "c.yaml:1:4: !!str does not fit a map without the key '='"),
        ("a: !!map x", "c.yaml:1:4: !!map does not fit a single value"),
        ("a: !!int x", "c.yaml:1:4: 'x' is not a valid !!int: invalid literal for int() with base 10: 'x'"),
        ("a: !!bool x", "c.yaml:1:4: 'x' is not a valid !!bool"),
        ("a: 0b_", "c.yaml:1:4: '0b_' is not a valid !!int: invalid literal for int() with base 2: ''"),
        ("a: 2001-13-01", "c.yaml:1:4: '2001-13-01' is not a valid !!timestamp: month must be in 1..12"),
        ("a: =", "c.yaml:1:4: '<<' and '=' have a meaning of their own in YAML: quote them where they are values"),
        ("a: [<<]", "c.yaml:1:5: '<<' and '=' have a meaning of their own in YAML: quote them where they are values"),
        ("? [a]\n: b", "c.yaml:1:3: a list cannot be a key"),
        ("? {a: b}\n: b", "c.yaml:1:3: a map cannot be a key"),
        ("<<: 1", "c.yaml:1:5: '<<' merges a map or a list of maps; this is neither"),
        ("<<: [{}, 1]", "c.yaml:1:10: '<<' merges maps; this item is none"),
        ("a: &a [*a]", "c.yaml:1:8: alias '*a' stands inside the value that it names, which would have no end"),
        ("a: &a {<<: *a}", "c.yaml:1:12: alias '*a' stands inside the value that it names, which would have no end"),
        ("a: *b", "c.yaml:1:4: alias '*b' has no anchor '&b' before it"),
        ("a: &x 1\nb: &x 2", "c.yaml:2:4: anchor '&x' is set twice, first at line 1, column 4"),
        ("- a", "c.yaml:1:1: the top level is a list; it has to be a map"),
        ("# x\ntext", "c.yaml:2:1: the top level is a single value; it has to be a map"),
        ("null", "c.yaml:1:1: the top level is null; it has to be a map"),
        ("a: 1\n--- # next\nb: 1", "c.yaml:2:1: a second document begins here, in a file that has to be one"),
    ],
)
def test_what_the_format_does_not_hold_is_refused_with_its_place(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    text = "a: 1\na: 2\nb: !x 1\nc: {d: 1, d: 99999999999999999999}\n1: *nope\n"

    assert [problem.split(": ")[0] for problem in problems_of(text)] == [
        "c.yaml:2:1",
        "c.yaml:3:4",
        "c.yaml:4:11",
        "c.yaml:4:14",
        "c.yaml:5:4",
    ]


def test_what_stands_before_a_syntax_error_is_reported_too() -> None:
    assert problems_of("a: 1\na: 2\nb: [1\nc: 1\n") == [
        "c.yaml:2:1: duplicate key 'a', first set at line 1, column 1",
        "c.yaml:4:2: did not find expected ',' or ']' (while parsing a flow sequence that begins at line 3, column 4)",
    ]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"a: 1\nb: \xff", "2:4", "not UTF-8"),
        ("é: 1\nü: x".encode() + b"\xc3", "2:5", "not UTF-8"),
        (b"\xef\xbb\xbfa: \x00", "1:4", "U+0000 is not allowed"),
        ("größe: \x07".encode(), "1:8", "U+0007 is not allowed"),
        ("a: 1\n".encode("utf-16") + b"\x00", "2:1", "not UTF-16"),
        (b"\xef\xbb\xbfa: b\n  c: d", "2:4", "mapping values are not allowed"),
    ],
)
def test_unreadable_text_is_placed(data: bytes, place: str, words: str) -> None:
    (problem,) = problems_of(data)

    assert problem.startswith(f"c.yaml:{place}: ")
    assert words in problem


@pytest.mark.usefixtures("parser")
def test_half_a_surrogate_pair_is_refused() -> None:
    (problem,) = problems_of('a: "\\ud800"')

    assert problem.startswith("c.yaml:1:")


# Limits


TOO_DEEP = "nested deeper than the limit max_depth = 128"
DEEP = [
    pytest.param(text, place, id=f"{text[:12]!r}")
    for text, place in [
        ("[" * 60_000, "1:129"),
        ("a: " + "[" * 60_000 + "]" * 60_000, "1:131"),
        ("b: " + "[" * 60_000 + "\nc: {]\n", "1:131"),
        ("{a: " * 60_000, "1:513"),
        ("{" * 60_000, "1:129"),
        ("[{" * 30_000, "1:129"),
        ("- " * 60_000, "1:257"),
        ("? " * 60_000, "1:257"),
        ("[? " * 30_000, "1:193"),  # each is a list and, within it, a map of one pair
        ("- " * 100 + "[" * 60_000, "1:229"),
        ("[\n" * 60_000, "129:1"),
        ("größe: 1\r\nü: [é, &a " + "[" * 60_000, "2:137"),
        ("\n".join(" " * level + "a:" for level in range(1_200)), "129:129"),
        ("\n".join(" " * level + "-" for level in range(1_200)), "129:129"),
        ("a: &a [[[]]]\nb: " + "[" * 125 + "*a, " + "[" * 2_000, "2:129"),
    ]
]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "place"), DEEP)
def test_deep_nesting_ends_at_the_limit(text: str, place: str) -> None:
    assert problems_of(text) == [f"c.yaml:{place}: {TOO_DEEP}"]


def test_deep_nesting_ends_before_bytes_that_are_not_text() -> None:
    if not yaml_format.HAS_LIBYAML:
        pytest.skip("PyYAML was built without libyaml")  # whose own reader decodes the whole file first

    assert problems_of(b"a: " + b"[" * 60_000 + b"\xff") == [f"c.yaml:1:131: {TOO_DEEP}"]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_deep_nesting_is_placed_in_every_encoding(encoding: str) -> None:
    assert problems_of(("größe: 1\na: " + "[" * 60_000).encode(encoding)) == [f"c.yaml:2:131: {TOO_DEEP}"]


@pytest.mark.usefixtures("parser")
def test_problems_before_deep_nesting_are_told_with_it() -> None:
    assert problems_of("a: 1\na: 2\nb: " + "[" * 60_000) == [
        "c.yaml:2:1: duplicate key 'a', first set at line 1, column 1",
        f"c.yaml:3:131: {TOO_DEEP}",
    ]


@pytest.mark.usefixtures("parser")
def test_deep_nesting_where_only_a_key_may_stand() -> None:
    (problem,) = problems_of("a: 1\n" + "[" * 60_000)

    assert problem.startswith("c.yaml:2:1026: ")
    assert "could not find expected ':' (while scanning a simple key that begins at line 2, column 1)" in problem


@pytest.mark.parametrize(
    ("kind", "context", "words"),
    [
        ("ScannerError", "while increasing flow level", "exceeded maximum nesting depth"),  # libyaml 0.2.6
        ("ScannerError", "while increasing block level", "exceeded maximum nesting depth"),
        ("ScannerError", "while increasing flow level", "exceeded max depth of 300"),  # its port to Go
        ("ParserError", "while parsing", "Maximum nesting level reached, set with yaml_set_max_nest_level())"),
    ],
)
def test_our_limit_is_told_where_the_parser_has_one_of_its_own(
    kind: str, context: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not yaml_format.HAS_LIBYAML:
        pytest.skip("PyYAML was built without libyaml")
    real, raised = yaml_format.CParser, []

    class Limited:
        """libyaml with a limit of 300 levels, whichever version is installed, that is passed before any event."""

        def __init__(self, data: bytes) -> None:
            self._data, self._inner = data, real(data)

        def get_event(self) -> Any:
            at = self._data.find(b"[" * 301) + 300
            if at >= 300:
                mark = yaml.Mark("", at, 0, at, None, None)
                raised.append(getattr(getattr(yaml, kind[:-5].lower()), kind)(context, mark, words, mark))
                raise raised[-1]
            return self._inner.get_event()

    monkeypatch.setattr(yaml_format, "CParser", Limited)
    monkeypatch.setattr(yaml_native, "is_there", lambda: False)  # that asks libyaml itself

    assert problems_of("a: " + "[" * 60_000) == [f"c.yaml:1:131: {TOO_DEEP}"]
    assert len(raised) == 2  # in the plain reading and in the careful one, and not where our limit is looked for
    assert problems_of("a: " + "[" * 60_000, Limits(max_depth=299)) == [f"c.yaml:1:302: {TOO_DEEP[:-3]}299"]
    assert problems_of("a: " + "[" * 60_000, Limits(max_depth=400)) == [f"c.yaml:1:304: {words} ({context})"]


@pytest.mark.usefixtures("parser")
def test_the_deepest_that_is_let_through() -> None:
    assert read("a: [[]]", Limits(max_depth=3)) == {"a": [[]]}
    assert problems_of("a: [[[]]]", Limits(max_depth=3)) == ["c.yaml:1:6: nested deeper than the limit max_depth = 3"]


def test_depth_counts_through_aliases_but_not_through_merges() -> None:
    limits = Limits(max_depth=4)
    assert read("a: &a {x: {}}\nb: {<<: *a}", limits) == {"a": {"x": {}}, "b": {"x": {}}}
    assert problems_of("a: &a [[]]\nb: &b [*a]\nc: [*b]", limits) == [
        "c.yaml:3:5: nested deeper than the limit max_depth = 4"
    ]
    chain = "\n".join(f"k{n}: &k{n} {{<<: *k{n - 1}}}" for n in range(1, 100))
    assert read(f"k0: &k0 {{x: 1}}\n{chain}", limits)["k99"] == {"x": 1}


@pytest.mark.parametrize("merge", ["[{}]", "{{<<: [{}]}}"], ids=["aliases", "merge keys"])
def test_a_bomb_of_references_ends_at_the_limit(merge: str) -> None:
    rows = ["a0: &a0 {x: 1, y: 2}"]
    rows += [f"a{n}: &a{n} " + merge.format(",".join([f"*a{n - 1}"] * 10)) for n in range(1, 12)]

    (problem,) = problems_of("\n".join(rows))

    assert "max_nodes = 2,000,000" in problem
    assert re.match(r"c\.yaml:\d+:\d+: ", problem)


def test_nodes_of_plain_text_are_counted_while_reading() -> None:
    assert read("a: [1, 2]", Limits(max_nodes=5))
    (problem,) = problems_of("a: [1, 2, 3]", Limits(max_nodes=5))
    assert problem == "c.yaml:1:11: more keys and values, aliases and merges expanded, than the limit max_nodes = 5"


def test_a_file_of_too_many_bytes_is_not_read() -> None:
    assert problems_of("a: " + "x" * 98, Limits(max_file_bytes=100)) == [
        "c.yaml: the file has 101 bytes, more than the limit max_file_bytes = 100"
    ]


@pytest.mark.parametrize(
    "number", ["9" * 100_000, "1" + ":59" * 100_000, "0x" + "f" * 100_000, "1" + "_" * 100_000 + "0" * 30]
)
def test_a_number_of_any_length_is_refused_soon(number: str) -> None:
    (problem,) = problems_of(f"a: {number}")

    assert problem.startswith("c.yaml:1:4: ")
    assert "beyond 64 bits" in problem
    assert len(problem) < 200


SURPRISING = st.one_of(
    st.sampled_from(["NO", "yes", "On", "OFF", "true", "010", "0_7", "08", "1e3", "-.5e3", "12:34", "1:30.5", "plain"]),
    st.from_regex(r"[0-9][0-9:_]{0,5}", fullmatch=True).filter(lambda text: not text.endswith((":", "_"))),
)
KEYS_OF_SURPRISES = st.sampled_from(["NO", "on", "010", "1e3", "12:34", "a"])

# Hints


@pytest.mark.usefixtures("parser")
def test_tabs_and_stray_colons_are_hinted_at() -> None:
    (tab,) = problems_of("a:\n\tb: 1\n")
    assert tab.endswith("; YAML is indented with spaces, not with tabs")
    (colon,) = problems_of("a: b: c\n")
    assert colon.endswith("; a value that holds ': ' has to be quoted")
    (other,) = problems_of("a: @b\n")
    assert ";" not in other


@given(st.from_regex(r"[-+]?([0-9]{1,3}\.?[0-9]{0,2}|\.[0-9]{1,2})([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_a_number_that_is_text_is_given_its_spelling(text: str) -> None:
    hint = hint_of_plain(text, {"number"})
    if not isinstance(yaml.safe_load(text), str):
        assert hint is None
        return
    assert hint is not None
    number = yaml.safe_load(hint.split("write ")[1].split(" for")[0])
    assert not isinstance(number, str)
    assert number == float(text)


# Surprises


def surprises_in(text: str) -> list[str]:
    return [f"{line}:{column} {fault}" for (line, column), fault in surprises(text.encode(), file="c.yaml")]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: NO", ["1:4 NO is false in YAML 1.1; write false, or quote it"]),
        ("a: [Yes, off]", ["1:5 Yes is true in YAML 1.1; write true, or quote it",
                           "1:10 off is false in YAML 1.1; write false, or quote it"]),
        ("é:\n- {on: 1}", ["2:4 on is true in YAML 1.1; write true, or quote it"]),
        ("a: 010", ["1:4 010 is 8 in YAML 1.1, octal; write 8, or quote it"]),
        ("a: -0_17", ["1:4 -0_17 is -15 in YAML 1.1, octal; write -15, or quote it"]),
        ("a: 09", ["1:4 09 is text in YAML 1.1; write 9 for the number, or quote it"]),
        ("a: 12:34", ["1:4 12:34 is 754 in YAML 1.1, a number to the base 60; write 754, or quote it"]),
        ("a: 1:30.5", ["1:4 1:30.5 is 90.5 in YAML 1.1, a number to the base 60; write 90.5, or quote it"]),
        ("a: 1e3", ["1:4 1e3 is text in YAML 1.1; write 1.0e+3 for the number, or quote it"]),
        ("a: 1.5E3", ["1:4 1.5E3 is text in YAML 1.1; write 1.5e+3 for the number, or quote it"]),
        ("\ufeffa: &x\n  NO", ["2:3 NO is false in YAML 1.1; write false, or quote it"]),
        ("a: 1\n---\nb: &x no\nc: *x", ["3:7 no is false in YAML 1.1; write false, or quote it"]),
    ],
)  # fmt: skip
def test_what_reads_otherwise_than_it_looks_is_found(text: str, found: list[str]) -> None:
    assert surprises_in(text) == found


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text",
    [
        "a: 'NO'",
        'a: "010"',
        "'on': {\"1e3\": '12:34'}",
        "a: !!str NO",
        "a: !!str 010",
        "a: !!bool no",
        "a: !!int 12:34",
        "a: ! 1e3",
        "a: &x ! 1e3",
        "a: ! &x NO",
        "a: |\n  NO\n",
        "a: >-\n  010\n",
        "true: [True, FALSE, ~, null, y, n, none]",
        "a: [0, 00, 007, 10, 0x10, 0b1, 1_000, 1.5, 1.5e+3, .5, .inf, -.nan]",
        "a: [12:34:56 h, 12-34, 1.2.3, 192.168.0.1, 1e, e3, 0x1e3g, 10:60, 2024-02-29, 'a: 1e3']",
        "a: NO way",
        "a: " + "1" * 100 + "e3",
        "# NO 010 12:34 1e3",
    ],
)
def test_there_are_no_false_alarms(text: str) -> None:
    assert surprises_in(text) == []


@settings(deadline=None)
@given(st.dictionaries(KEYS_OF_SURPRISES, st.lists(SURPRISING, max_size=3), max_size=3), st.sampled_from("'\""))
def test_what_is_quoted_surprises_nobody(tree: dict[str, list[str]], style: str) -> None:
    text = yaml.safe_dump(tree, default_style=style, allow_unicode=True)
    assert surprises_in(text) == []
    assert read(text) == tree


@settings(deadline=None, max_examples=300)
@given(st.lists(SURPRISING, max_size=6))
def test_a_surprise_stands_where_it_is_and_names_the_value(scalars: list[str]) -> None:
    text = "".join(f"k{number}: {scalar}\n" for number, scalar in enumerate(scalars))
    tree = read(text)
    for (line, column), fault in surprises(text.encode(), file="c.yaml"):
        scalar = scalars[line - 1]
        assert text.splitlines()[line - 1][column - 1 :] == scalar
        value = tree[f"k{line - 1}"]
        if isinstance(value, str):
            assert fault.message == f"{scalar} is text in YAML 1.1"
        else:
            assert fault.message.split(", ")[0] == f"{scalar} is {str(value).lower()} in YAML 1.1"
            assert read(f"a: {str(value).lower()}") == {"a": value}  # the spelling that is advised


# Several documents


def documents_of(text: str, limits: Limits = DEFAULT_LIMITS) -> list[Any]:
    return parse_documents(text.encode(), file="c.yaml", limits=limits)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "trees"),
    [
        ("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}]),
        ("---\na: 1\n...\n---\nb: 2\n...\n", [{"a": 1}, {"b": 2}]),
        ("a: 1\n---\n---\n# nothing\n---\nb: 2\n", [{"a": 1}, {}, {}, {"b": 2}]),
        ("a: 1\n---\n", [{"a": 1}, {}]),
        ("---\n---\n", [{}, {}]),
        ("--- {a: 1}\n--- {a: 2}\n", [{"a": 1}, {"a": 2}]),
        ("%YAML 1.1\n---\na: 1\n...\n%TAG !e! tag:yaml.org,2002:\n---\nb: !e!str 2\n", [{"a": 1}, {"b": "2"}]),
        ("", [{}]),
        ("# only a comment\n", [{}]),
    ],
)
def test_each_document_is_a_tree(text: str, trees: list[Any]) -> None:
    assert documents_of(text) == trees


@pytest.mark.usefixtures("parser")
def test_every_problem_of_every_document_is_told_at_its_line() -> None:
    with pytest.raises(Invalid) as caught:
        documents_of("a: 1\na: 2\n---\n- list\n---\nb: !foo x\n---\nc: [\n")
    assert [str(problem).split(": ")[:2] for problem in caught.value.problems] == [
        ["c.yaml:2:1", "duplicate key 'a', first set at line 1, column 1"],
        ["c.yaml:4:1", "the top level is a list; it has to be a map"],
        ["c.yaml:6:4", "unknown tag !foo"],
        ["c.yaml:9:1", str(caught.value.problems[3]).split(": ")[1]],
    ]


@pytest.mark.usefixtures("parser")
def test_anchors_end_with_their_document() -> None:
    assert documents_of("a: &x 1\n---\na: &x 2\nb: *x\n") == [{"a": 1}, {"a": 2, "b": 2}]
    with pytest.raises(Invalid, match=r"c\.yaml:3:4: alias '\*x' has no anchor '&x' before it"):
        documents_of("a: &x 1\n---\nb: *x\n")


def test_limits_are_for_all_documents_of_a_file_together() -> None:
    text = "a: 1\n---\nb: 2\n"
    assert len(documents_of(text, Limits(max_nodes=6, max_documents=2))) == 2
    with pytest.raises(Invalid, match=r"c\.yaml:3:4: more keys and values.*max_nodes = 5"):
        documents_of(text, Limits(max_nodes=5))
    with pytest.raises(Invalid, match=r"c\.yaml:2:1: more documents than the limit max_documents = 1"):
        documents_of(text, Limits(max_documents=1))
    with pytest.raises(Invalid, match="more documents than the limit max_documents = 10,000"):
        documents_of("---\n" * 10_001)


# Against PyYAML

REFUSALS = re.compile(
    r"duplicate key|a set \(|an ordered map|a list of pairs|beyond 64 bits|would have no end|the top level is|"
    r"second document|a (map|list) cannot be a key|unknown tag|'<<' merges|half a surrogate|the key '='"
)
# An alias to an anchored `=` that is a key: whether PyYAML takes it hangs on the order in which it fills its maps. And
# a merged map under a tag that does not fit, which PyYAML does not look at.
EXCEPTIONS = re.compile(r"&\w+ +=|<<.*(!!seq|!!str) *\{")


def check_against_pyyaml(text: str) -> None:
    """Both in C and in Python, where there is C."""
    check_one_way(text)
    if yaml_native.is_there():
        with mock.patch.object(yaml_native, "is_there", return_value=False):
            check_one_way(text)


def check_one_way(text: str) -> None:
    try:
        expected = yaml.load(text, Oracle)
    except Exception:
        with pytest.raises(Invalid):
            read(text)
        return
    try:
        found = read(text)
    except Invalid as refused:
        invalid = refused
    else:
        assert same(found, expected if expected is not None else {})
        return
    # PyYAML takes it and the format does not: for one of the documented reasons, each with a place.
    assert all(problem.line and problem.column for problem in invalid.problems)
    assert REFUSALS.search(str(invalid)) or EXCEPTIONS.search(text), str(invalid)


SCALARS = (
    "", "~", "null", "yes", "No", "ON", "off", "y", "010", "0x1F", "-0b11", "0o7", "1_000", "+12", "12:34:56", "1:30.5",
    "1e3", "1.5e+3", "1.", ".5", "-.5", ".inf", "-.INF", ".nan", ".NaN", "-0.0", "0.0", "1", "1.0", "true",
    "2001-12-14",
    "2001-1-1", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1234567 Z", "2001-12-14 21:59:43", "2001-02-30",
    "=", "<<", "'12'", '"a\\u00e9\\n"', "'it''s'", "plain text", "é☺", "!!str 12", "!!int '7'", "!!float 3",
    "!!bool yes",
    "!!binary aGVsbG8=", "!!null x", "!!timestamp 2001-01-01", "! 12", "!foo bar", "!!set {a, b}", "!!str {=: x}",
    "99999999999999999999", "18446744073709551615", "{}", "[]", "a", "b", "c", "a",
)  # fmt: skip


@st.composite
def flow_documents(draw: st.DrawFn) -> str:
    """Flow-style documents with anchors, aliases, merge keys and tags at random."""
    names: list[str] = []

    def node(depth: int) -> str:
        kind = draw(st.integers(0, 11))
        anchor = ""
        if kind in (0, 1) and names:
            return f"*{draw(st.sampled_from(names))} "
        if draw(st.integers(0, 3)) == 0:
            name = f"n{len(names)}"
            anchor = f"&{name} "
        if depth == 0 or kind < 6:
            text = draw(st.sampled_from(SCALARS))
        elif kind < 8:
            text = "[" + ", ".join(node(depth - 1) for _ in range(draw(st.integers(0, 3)))) + "]"
        else:
            tag = draw(st.sampled_from(["", "", "", "!!map ", "!!seq "]))
            text = tag + "{" + ", ".join(entry(depth - 1) for _ in range(draw(st.integers(0, 4)))) + "}"
        if anchor:
            names.append(anchor[1:].strip())
        return anchor + text

    def entry(depth: int) -> str:
        if draw(st.integers(0, 4)) == 0:
            merged = node(depth) if draw(st.booleans()) else "[" + node(depth) + ", " + node(depth) + "]"
            return f"<<: {merged}"
        key = node(0) if draw(st.booleans()) else draw(st.sampled_from("abcdefgh"))
        return f"{key} : {node(depth)}"

    return "\n".join(f"k{number}: {node(3)}" for number in range(draw(st.integers(1, 5))))


@settings(deadline=None, max_examples=400)
@given(flow_documents())
@example("k0: {&n0 = : *n0 }")
@example("k0: {<<: &n0 !!seq {}}")
@example("a: &a {x: 1}\nb: {<<: [*a, {x: 2, y: 3}], y: 4}")
@example("a: &a {long: 1}\nb: {<<: [*a, {long: 2, more: 3}], more: 4}")
def test_flow_documents_equal_pyyaml(text: str) -> None:
    check_against_pyyaml(text)


@st.composite
def merging_documents(draw: st.DrawFn) -> str:
    """Maps that merge one another, with few keys, so that they meet; of one letter and of several."""
    keys = st.sampled_from(["k", "q", "timeout", "retries", "1", "'1'", "10", "'10'"])
    lines = []
    for number in range(draw(st.integers(2, 6))):

        def source(number: int = number) -> str:
            if number and draw(st.booleans()):
                return f"*m{draw(st.integers(0, number - 1))}"
            own = [f"{key}: {draw(st.integers(0, 99))}" for key in draw(st.lists(keys, unique=True, max_size=4))]
            return "{" + ", ".join(own) + "}"

        entries = [f"{key}: {number}" for key in draw(st.lists(keys, unique=True, max_size=3))]
        for _ in range(draw(st.integers(0, 2))):
            merged = source() if draw(st.booleans()) else "[" + ", ".join([source() for _ in range(3)]) + "]"
            entries.insert(draw(st.integers(0, len(entries))), f"<<: {merged}")
        lines.append(f"m{number}: &m{number} {{{', '.join(entries)}}}")
    return "\n".join(lines)


@settings(deadline=None, max_examples=400)
@given(merging_documents())
def test_merges_equal_the_specified(text: str) -> None:
    assert same(read(text), yaml.load(text, Oracle)), text


PIECES = (
    "a", "b", ": ", ":", "\n", "\n  ", "\n- ", "- ", " ", "[", "]", "{", "}", ", ", "'", '"', "|\n", ">-\n", "#",
    "&x ", "*x",
    "!!str ", "!", "<<", "? ", "---\n", "...\n", "%YAML 1.1\n", "\t", "\r\n", "1", "true", "~", "é", "\ufeff", "\u2028",
    "\x85", "\x00", "\\",
)  # fmt: skip


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(["", "k: ", "k:\n  "]), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
@example("", "a: &x\n  b: *x")
@example("", "? a\n? b\n")
def test_any_pieces_of_yaml_equal_pyyaml(start: str, text: str) -> None:
    check_against_pyyaml(start + text)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary(), st.dates(),
    st.datetimes(), st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))])),
    st.sampled_from([scalar for scalar in SCALARS if scalar]),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=5), st.integers(-5, 300), st.booleans(), st.none(), st.dates(), st.binary(max_size=3))
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


@settings(deadline=None, max_examples=200)
@given(
    tree=st.dictionaries(KEYS, TREES, max_size=5),
    style=st.sampled_from([None, "'", '"', "|", ">"]),
    flow=st.sampled_from([None, True, False]),
    indent=st.integers(2, 6),
    unicode=st.booleans(),
)
def test_dumped_trees_come_back(tree: Any, style: str | None, flow: bool | None, indent: int, unicode: bool) -> None:
    text = yaml.safe_dump(
        tree, default_style=style, default_flow_style=flow, indent=indent, allow_unicode=unicode, sort_keys=False
    )
    check_against_pyyaml(text)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(KEYS, TREES, max_size=3), min_size=1, max_size=4), st.booleans())
def test_dumped_documents_come_back(trees: list[Any], flow: bool) -> None:
    text = yaml.safe_dump_all(trees, default_flow_style=flow, sort_keys=False)
    expected = list(yaml.load_all(text, Oracle))
    try:
        found = documents_of(text)
    except Invalid as refused:
        reason = str(refused)
    else:
        assert same(found, expected)
        return
    assert REFUSALS.search(reason), reason


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"\xff\xfe\x00")
@example(b"\xfe\xff\xd8\x00")
def test_arbitrary_bytes_raise_nothing_but_invalid(data: bytes) -> None:
    try:
        tree = read(data)
    except Invalid:
        return
    assert isinstance(tree, dict)
