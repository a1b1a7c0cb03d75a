from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shmconf_agent.formats import locate, locate_many, parse, parse_documents
from shmconf_agent.problems import Invalid

Part = Any


def paths_of(tree: Any) -> Iterator[tuple[Part, ...]]:
    yield ()
    for part, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        for rest in paths_of(value):
            yield (part, *rest)


def value_at(tree: Any, path: tuple[Part, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def offset_of(text: str, position: tuple[int, int]) -> int:
    line, column = position
    return sum(len(before) + 1 for before in text.split("\n")[: line - 1]) + column - 1


# Generated documents: every key and every scalar begins with a word that is nowhere else in the text.

TAILS = st.sampled_from(["", "", "-x", " and more", ".é", "☺", ": #", "'", '"', "\\", "\t", "\nline", "[", "a" * 130])


@st.composite
def trees(draw: st.DrawFn, *, keys: st.SearchStrategy[str] = TAILS, depth: int = 4) -> dict[str, Any]:
    count = 0

    def word(letter: str, tail: str) -> str:
        nonlocal count
        count += 1
        return f"{letter}{count:04d}{tail}"

    def value(level: int) -> Any:
        kind = draw(st.integers(0, 5)) if level else 0
        if kind <= 2:
            return word("v", draw(TAILS))
        if kind == 3:
            return [value(level - 1) for _ in range(draw(st.integers(0, 3)))]
        return mapping(level - 1)

    def mapping(level: int) -> dict[str, Any]:
        return {word("k", draw(keys)): value(level) for _ in range(draw(st.integers(0, 4)))}

    return mapping(depth)


def check_places(text: str, tree: Any, file: str, openers: str) -> None:
    """For each path, what stands at its place is the key, the scalar, or one of `openers` where a collection begins."""
    data = text.encode()
    assert parse(data, file=file) == tree
    paths = list(paths_of(tree))
    for path, place in zip(paths, locate_many(data, paths, file=file), strict=True):
        assert place is not None, (path, text)
        if not path:
            assert place == (1, 1)
            continue
        here = text[offset_of(text, place) :]
        value = value_at(tree, path)
        if isinstance(path[-1], str):
            check_word(here, path[-1], text)
        elif isinstance(value, str):
            check_word(here, value, text)
        else:
            assert here[0] in openers or (isinstance(value, dict) and check_word(here, next(iter(value)), text))


def check_word(here: str, word: str, text: str) -> bool:
    start = here.find(word[:5])
    assert here[:start] in ("", "'", '"', "'''", '"""', "|-\n", "|\n"), (here[:40], word)
    assert text.find(word[:5]) == len(text) - len(here) + start  # the first time that it is there
    return True


@settings(deadline=None, max_examples=150)
@given(
    tree=trees(),
    style=st.sampled_from([None, None, "'", '"']),
    flow=st.sampled_from([None, True, False]),
    indent=st.integers(2, 5),
    width=st.sampled_from([10, 80]),
    unicode=st.booleans(),
)
def test_yaml_places(tree: Any, style: str | None, flow: bool | None, indent: int, width: int, unicode: bool) -> None:
    text = yaml.safe_dump(
        tree,
        default_style=style,
        default_flow_style=flow,
        indent=indent,
        width=width,
        allow_unicode=unicode,
        sort_keys=False,
    )
    check_places(text, tree, "c.yaml", "[{-?")


@settings(deadline=None, max_examples=100)
@given(pile=st.lists(trees(), min_size=1, max_size=4), flow=st.sampled_from([None, True, False]))
def test_places_in_several_documents(pile: list[Any], flow: bool | None) -> None:
    """Each is placed as it would be if it stood alone, only further down."""
    parts = [yaml.safe_dump(tree, default_flow_style=flow, sort_keys=False) for tree in pile]
    data = "---\n".join(parts).encode()
    assert parse_documents(data, file="c.yaml") == pile
    above = 0
    for document, (tree, part) in enumerate(zip(pile, parts, strict=True)):
        paths = list(paths_of(tree))[1:]
        alone = locate_many(part.encode(), paths, file="c.yaml")
        shifted = [place and (place[0] + above, place[1]) for place in alone]
        assert locate_many(data, paths, file="c.yaml", document=document) == shifted
        assert locate(data, (), file="c.yaml", document=document) == ((above, 1) if document else (1, 1))
        above += part.count("\n") + 1


@settings(deadline=None, max_examples=150)
@given(tree=trees(), indent=st.none() | st.integers(0, 3), ascii_only=st.booleans(), close=st.booleans())
def test_json_places(tree: Any, indent: int | None, ascii_only: bool, close: bool) -> None:
    separators = (",", ":") if close else (" , ", " :\n ")
    check_places(json.dumps(tree, indent=indent, ensure_ascii=ascii_only, separators=separators), tree, "c.json", "[{")


def toml_string(text: str, choice: int) -> str:
    if choice == 0 and not set(text) & set("'\n\\") and "\t" not in text:
        return f"'{text}'"
    if choice == 1 and "'" not in text:
        return f"'''{text}'''"
    if choice == 2 and '"' not in text and "\\" not in text:
        return f'"""{text}"""'
    return json.dumps(text, ensure_ascii=choice % 2 == 0)


@st.composite
def toml_documents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A tree written as TOML, with each way of writing a table chosen at random."""
    tree = draw(trees(keys=st.sampled_from(["", "", "-x", " é", ".b", "'", '"'])))
    lines: list[str] = []

    def key(name: str) -> str:
        if name.replace("-", "").isalnum() and name.isascii() and draw(st.booleans()):
            return name
        return toml_string(name, draw(st.sampled_from([0, 4, 5])))

    def inline(value: Any) -> str:
        if isinstance(value, str):
            return toml_string(value, draw(st.integers(0, 5)))
        if isinstance(value, list):
            gap = draw(st.sampled_from(["", " ", "\n  ", " # a ] comment\n"]))
            return "[" + gap + f",{gap}".join(inline(item) for item in value) + gap + "]"
        return "{" + ", ".join(f"{key(name)} = {inline(item)}" for name, item in value.items()) + "}"

    def pairs(table: dict[str, Any], prefix: str) -> list[tuple[list[str], Any]]:
        """Writes what is written as key and value; gives back what is to get headers, which have to follow."""
        later: list[tuple[list[str], Any]] = []
        for name, value in table.items():
            kind = draw(st.integers(0, 2))
            tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
            if not prefix and kind and (isinstance(value, dict) or tables):
                later.append(([name], value))
            elif isinstance(value, dict) and value and kind:
                pairs(value, f"{prefix}{key(name)}{draw(st.sampled_from(['.', ' . ']))}")
            else:
                lines.append(f"{draw(st.sampled_from(['', '  ']))}{prefix}{key(name)} = {inline(value)}")
        return later

    def header(path: list[str], value: Any) -> None:
        dotted = ".".join(key(name) for name in path)
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"[[ {dotted} ]] # x" if isinstance(value, list) else f"[{dotted}]")
            for inner, below in pairs(table, ""):
                header(path + inner, below)
            lines.append("")

    for path, value in pairs(tree, ""):
        header(path, value)
    return "\n".join(lines) + "\n", tree


@settings(deadline=None, max_examples=300)
@given(toml_documents())
def test_toml_places(document: tuple[str, dict[str, Any]]) -> None:
    text, tree = document
    check_places(text, tree, "c.toml", "[{")


# What generated documents do not have


YAML = """\
# a comment
base: &base
  host: a
  ports: [80, 443]
  "deep key": {x: 1}
use:
  <<: *base
  host: b
again: *base
list:
- *base
- - inner
-
- &item {k: v}
1: int key
? long key
: value
many:
  <<: [{only: 1, both: 2}, {both: 3, last: 4}]
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (1, 1)),
        (("base",), (2, 1)),
        (("base", "ports", 1), (4, 15)),
        (("base", "deep key"), (5, 3)),
        (("base", "deep key", "x"), (5, 16)),
        (("use", "host"), (8, 3)),
        (("use", "ports"), (4, 3)),
        (("use", "ports", 0), (4, 11)),
        (("again",), (9, 1)),
        (("again", "host"), (3, 3)),
        (("list", 0), (11, 3)),
        (("list", 0, "host"), (3, 3)),
        (("list", 1), (12, 3)),
        (("list", 1, 0), (12, 5)),
        (("list", 2), (13, 2)),
        (("list", 3), (14, 3)),
        (("list", 3, "k"), (14, 10)),
        ((1,), (15, 1)),
        (("long key",), (16, 3)),
        (("many", "only"), (19, 9)),
        (("many", "both"), (19, 18)),
        (("many", "last"), (19, 38)),
        (("many", "<<"), None),
        (("absent",), None),
        (("list", 9), None),
        (("list", True), None),
        (("list", "0"), None),
        (("base", "host", "x"), None),
        (({},), None),
    ],
)
def test_yaml_aliases_merges_and_odd_keys(path: tuple[Part, ...], place: tuple[int, int] | None) -> None:
    assert locate(YAML.encode(), path, file="c.yaml") == place


TOML = r'''
top = 1 # comment [x]
"quoted key" = {a.b = 1, c = [1, {d = 2}]}
[one.two]
three.four = 1979-05-27 07:32:00
text = """
[not.a.table]
\""" """"
five = 5
[one]
six = ""
[[rows]]
n = 1
  [[ rows.cells ]]
  m = 1
[[rows]]
[rows.sub]
k = [ # ]
  2,
]
'''.lstrip()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("top",), (1, 1)),
        (("quoted key",), (2, 1)),
        (("quoted key", "a"), (2, 17)),
        (("quoted key", "a", "b"), (2, 19)),
        (("quoted key", "c", 1), (2, 34)),
        (("quoted key", "c", 1, "d"), (2, 35)),
        (("one",), (3, 2)),
        (("one", "two"), (3, 6)),
        (("one", "two", "three"), (4, 1)),
        (("one", "two", "three", "four"), (4, 7)),
        (("one", "two", "five"), (8, 1)),
        (("one", "six"), (10, 1)),
        (("rows",), (11, 3)),
        (("rows", 0), (11, 1)),
        (("rows", 0, "n"), (12, 1)),
        (("rows", 0, "cells"), (13, 11)),
        (("rows", 0, "cells", 0), (13, 3)),
        (("rows", 0, "cells", 0, "m"), (14, 3)),
        (("rows", 1), (15, 1)),
        (("rows", 1, "sub"), (16, 7)),
        (("rows", 1, "sub", "k", 0), (18, 3)),
        (("not",), None),
        (("rows", 2), None),
        (("one", "two", "three", "four", "x"), None),
    ],
)
def test_toml_headers_and_inline_tables(path: tuple[Part, ...], place: tuple[int, int] | None) -> None:
    assert parse(TOML.encode(), file="c.toml")
    assert locate(TOML.encode(), path, file="c.toml") == place


@pytest.mark.parametrize("file", ["c.yaml", "c.yml", "c.toml", "c.json"])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n"])
def test_an_empty_document_has_its_start_and_nothing_else(file: str, data: bytes) -> None:
    assert locate(data, (), file=file) == (1, 1)
    assert locate(data, ("a",), file=file) is None


@pytest.mark.parametrize(
    ("data", "file", "place"),
    [
        (b"\xef\xbb\xbfa: 1", "c.yaml", (1, 1)),
        ("\r\né: {a: 1}".encode("utf-16"), "c.yaml", None),
        (b"\xef\xbb\xbfa = 1", "c.toml", (1, 1)),
        (b"\r\n\r\na = 1", "c.toml", (3, 1)),
        (b'\xef\xbb\xbf{"a": 1}', "c.json", (1, 2)),
        ('{"é": 1,\r\n "a": 2}'.encode(), "c.json", (2, 2)),
        ("é: {é: 1}\r\na: 2".encode(), "c.yaml", (2, 1)),
    ],
)
def test_byte_order_marks_and_carriage_returns_do_not_count(
    data: bytes, file: str, place: tuple[int, int] | None
) -> None:
    assert locate(data, ("a",), file=file) == place


def test_columns_count_characters() -> None:
    assert locate("é😀: {ü: 1, a: 2}".encode(), ("é😀", "a"), file="c.yaml") == (1, 12)
    assert locate('"é😀" = {"ü" = 1, a = 2}'.encode(), ("é😀", "a"), file="c.toml") == (1, 18)
    assert locate('{"é😀": {"ü": 1, "a": 2}}'.encode(), ("é😀", "a"), file="c.json") == (1, 17)


# Whatever parses has a place for each of its paths

YAML_PIECES = (
    "a", "b: ", ": ", "\n", "\n  ", "\n- ", "- ", "[", "]", "{", "}", ", ", "|\n", "&x ", "*x", "!!str ", "<<: ", "? ",
    "---\n", "1", "k: {<<: *x}", "k: *x", "a: &x {c: [1]}", "\n",
)  # fmt: skip
TOML_PIECES = (
    "[a]", "[a.b]", "[[c]]", "[[c.d]]", "[c.d]", "b = 1", "a.b = 1", "d = {a = 1, b.c = [1, {d = 2}]}", "'' = 1",
    's = """\n a = 1\n \\"""" """', "t = '''[a]'''''", "e = [\n 1, # one\n [],\n]", "f = 1979-05-27 07:32:00", "\n",
    "\r\n",
    '"\\u0061x".y = \'\'', "g = []", "h = {}", "i = {\n}", "j = \"\"\"\"\"\"", "k = \"\"\"\\\n  x\"\"\"",
)  # fmt: skip
JSON_PIECES = (
    '"a"',
    '"b"',
    ":",
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "1",
    "-1.5e3",
    "NaN",
    "-Infinity",
    " ",
    "\n",
    "true",
    '"\\u0061"',
)


@settings(deadline=None, max_examples=800)
@given(
    st.one_of(
        st.tuples(st.lists(st.sampled_from(YAML_PIECES), max_size=20).map("".join), st.just("c.yaml")),
        st.tuples(st.lists(st.sampled_from(TOML_PIECES), max_size=10).map("\n".join), st.just("c.toml")),
        st.tuples(st.lists(st.sampled_from(JSON_PIECES), max_size=12).map("".join), st.just("c.json")),
    )
)
def test_every_path_of_what_parses_has_a_place(case: tuple[str, str]) -> None:
    text, file = case
    with contextlib.suppress(Invalid):
        tree = parse(text.encode(), file=file)
        paths = list(paths_of(tree))
        places = locate_many(text.encode(), paths, file=file)
        assert None not in places, (text, paths[places.index(None)])
