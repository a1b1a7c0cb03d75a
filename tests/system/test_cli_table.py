"""Tables of the verbs: whole and plain where they are piped, within the width and readable on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from terminal import on_terminal

LONG = 'base.yaml:3:4: log.level: "verbose" is not one of "debug", "info", "warning", "error"; nor is it anything else'
SCRIPT = f"""
from shmconf_agent.cli_table import Column, Styled, show
show(
    ["segment", Column("version", right=True, whole=True), "state", Column("digest", whole=True), "reason"],
    [
        ["web", "1", Styled("healthy", "green"), "0123456789ab", ""],
        ["配置", "2", Styled("healthy", "green"), "0123456789ab", "wide"],
        ["n" * 64, "123456789", Styled("serving last known good", "yellow"), "ba9876543210", {LONG!r}],
        ["hostile", "3", "a\\x1b[31mb", "0123456789ab", "c\\nd\\udcff [bold]e[/bold]"],
    ],
)
"""
COMMAND = [sys.executable, "-c", SCRIPT]


@pytest.fixture
def environment():
    own = ("COLUMNS", "NO_COLOR", "TERM", "FORCE_COLOR")
    kept = {key: value for key, value in os.environ.items() if key not in own}
    return kept | {"PYTHONUTF8": "1"}


@pytest.mark.parametrize("columns", ["", "40"])
def test_a_piped_table_is_whole_and_plain(environment, columns):
    """Each row is one line with all of its text, whatever COLUMNS says."""
    settings = environment | ({"COLUMNS": columns} if columns else {})
    result = subprocess.run(COMMAND, env=settings, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["SEGMENT", "VERSION", "STATE", "DIGEST", "REASON"]
    assert len(rows) == 4
    assert rows[0].split() == ["web", "1", "healthy", "0123456789ab"]
    assert rows[2].split("  ") == ["n" * 64, "123456789", "serving last known good", "ba9876543210", LONG]
    assert rows[3].split()[2:] == [r"a\x1b[31mb", "0123456789ab", r"c\nd\udcff", "[bold]e[/bold]"]
    assert [row.index("0123456789ab") for row in (rows[0], rows[3])] == [heading.index("DIGEST")] * 2
    assert rows[1].index("0123456789ab") == heading.index("DIGEST") - 2  # two characters that are two columns wide each
    assert result.stdout.isascii() or set(result.stdout) - set(map(chr, range(128))) == set("配置")


@pytest.mark.parametrize("columns", [80, 100])
def test_on_a_terminal_it_fits_and_nothing_is_missing(environment, tmp_path, columns):
    shown = on_terminal(COMMAND, tmp_path, environment, columns=columns)
    assert shown.code == 0
    assert max(map(len, shown.lines)) <= columns
    assert "\x1b[32mhealthy" in shown.raw
    assert "123456789  serving" in shown.words.replace(" ", "  ")
    assert "ba9876543210" in shown.words
    # What is folded is all there, in the order of its lines: the reason is the last column.
    column = next(line for line in shown.lines if "REASON" in line).index("REASON")
    reason = "".join(line[column:] for line in shown.lines if "配置" not in line)
    assert LONG.replace(" ", "") in reason.replace(" ", "")
    names = "".join(line.split("  ")[0].strip() for line in shown.lines if line.startswith("n"))
    assert names.count("n") == 64


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_is_shown_no_codes(environment, tmp_path, setting):
    shown = on_terminal(COMMAND, tmp_path, environment | setting)
    assert "\x1b" not in shown.raw
    assert max(map(len, shown.lines)) <= 80
    assert "serving last known good" in shown.words or "serving last" in shown.words


def test_columns_says_how_wide_it_may_be(environment, tmp_path):
    shown = on_terminal(COMMAND, tmp_path, environment | {"COLUMNS": "100"}, columns=200)
    assert 80 < max(map(len, shown.lines)) <= 100


def test_no_room_at_all_costs_no_text(environment, tmp_path):
    shown = on_terminal(COMMAND, tmp_path, environment, columns=20)
    assert shown.code == 0
    assert "ba9876543210" in shown.words
    assert max(map(len, shown.lines)) > 20
