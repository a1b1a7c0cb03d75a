"""The line of a problem, with a caret below its place."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.excerpt import Excerpts, lay_out
from shmconf_agent.problems import Code, Problem


def columns(text: str) -> int:
    """How many columns a terminal gives to a text, by the same tables and another way."""
    return sum(
        0 if unicodedata.category(each) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


@pytest.mark.parametrize(
    ("line", "column", "shown", "caret"),
    [
        ("port: 2", 1, "port: 2", 0),
        ("  port: 2", 9, "  port: 2", 8),
        ("port", 5, "port", 4),
        ("port", 99, "port", 4),
        ("", 1, "", 0),
        ("\tport: 2", 2, "    port: 2", 4),
        ("a:\tport", 4, "a:  port", 4),
        ("日本: x", 5, "日本: x", 6),
        ("e\u0301a: x", 3, "e\u0301a: x", 1),
        ("a\x1b[31mb", 7, "a·[31mb", 6),
        ("a\u202eb", 3, "a·b", 2),
    ],
)
def test_a_line_is_laid_out_as_a_terminal_does(line: str, column: int, shown: str, caret: int) -> None:
    assert lay_out(line, column, 80) == (shown, caret)


@pytest.mark.parametrize("column", [1, 2, 50, 1000, 29_999])
def test_a_long_line_is_shown_around_the_place(column: int) -> None:
    line = "0123456789abcdefghijABCDEFGHIJ" * 1000
    found, at = lay_out(line, column, 20)
    assert columns(found) <= 20
    assert found[at] == line[column - 1]
    assert found.endswith("…") == (column < 29_999)
    assert found.startswith("…") == (column > 2)


def test_a_line_of_megabytes_costs_no_more_than_what_is_shown() -> None:
    line = "x" * 5_000_000 + "!" + "y" * 5_000_000
    shown, at = lay_out(line, 5_000_001, 80)
    assert (shown[at], columns(shown) <= 80) == ("!", True)


CHARACTERS = st.text(st.one_of(st.sampled_from("ab\t日é\u0301😀\x1b"), st.characters(codec="utf-8")), max_size=300)


@given(CHARACTERS, st.integers(1, 310), st.integers(20, 120))
def test_the_caret_is_below_its_character(line: str, column: int, width: int) -> None:
    shown, at = lay_out(line, column, width)
    assert columns(shown) <= width
    assert at < width
    assert all(each.isprintable() for each in shown)
    before = ""
    while columns(before) < at:
        before = shown[: len(before) + 1]
    assert columns(before) == at
    if column > len(line):
        assert columns(shown) == at
        return
    character = line[column - 1]
    below = shown[len(before) :]
    if unicodedata.category(character) in ("Mn", "Me"):
        return  # it shares the column of what it is written over
    below = below.lstrip("".join(each for each in below if unicodedata.category(each) in ("Mn", "Me")))
    expected = " " if character == "\t" else character if character.isprintable() else "·"
    assert below.startswith(expected)


def test_what_is_printed_below_a_problem(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{\n  "type": "none"\n}\n')
    contents = {
        "a.yaml": "a: 1\r\nb: 2\rc: 3\x85d: 4\u2028e: 5\n".encode(),
        "b.toml": "a = 1\r\nb = '\u2028' # c\n".encode(),
        "c.yaml": "é: 1\nü: 2\n".encode("utf-16"),
        "d.json": b'{"a": "\xff"}',
    }
    excerpts = Excerpts(contents, tmp_path)

    def below(file: str | None, line: int | None, column: int | None, code: Code = Code.DUPLICATE_KEY) -> list[str]:
        return excerpts.of(Problem("x", file, line, column, code))

    assert below("a.yaml", 5, 1) == ["    5 | e: 5", "      | ^ [duplicate-key]"]
    assert below("a.yaml", 3, 4) == ["    3 | c: 3", "      |    ^ [duplicate-key]"]
    assert below("b.toml", 2, 9) == ["    2 | b = '·' # c", "      |         ^ [duplicate-key]"]
    assert below("c.yaml", 2, 4) == ["    2 | ü: 2", "      |    ^ [duplicate-key]"]
    assert below("d.json", 1, 8) == ['    1 | {"a": "\ufffd"}', "      |        ^ [duplicate-key]"]
    assert below("s.json", 2, 3, Code.BAD_SCHEMA) == ['    2 |   "type": "none"', "      |   ^ [bad-schema]"]
    assert below("a.yaml", None, None, Code.FILE_MISSING) == ["        [file-missing]"]
    assert below(None, None, None, Code.INTERNAL) == ["        [internal]"]
    assert below("gone.yaml", 3, 1) == ["        [duplicate-key]"]
    assert below("a.yaml", 99, 1) == ["        [duplicate-key]"]
