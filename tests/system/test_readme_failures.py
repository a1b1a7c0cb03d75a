"""README's table of failures: each row is backed by tests that there are, by the names that it gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = "When something fails"


def rows() -> list[list[str]]:
    """The cells of each row, without the heading."""
    section = (ROOT / "README.md").read_text("utf-8").split(f"\n## {SECTION}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named_in(row: list[str]) -> list[str]:
    return re.findall(r"`([\w/.]+::\w+)`", row[-1])


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """What pytest finds in the files that are named, without parameters."""
    files = sorted({f"tests/{test.split('::')[0]}" for row in rows() for test in named_in(row)})
    assert [file for file in files if not (ROOT / file).is_file()] == []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr
    return {line.split("[")[0] for line in found.stdout.splitlines() if "::" in line}


def test_the_table_is_complete():
    found = rows()
    assert len(found) > 30
    assert [row for row in found if len(row) != 4 or not all(row) or not named_in(row)] == []
    named = [row[0] for row in found]
    assert len(set(named)) == len(named)


def test_every_row_is_backed_by_tests_that_there_are(collected):
    named = {test for row in rows() for test in named_in(row)}
    assert {f"tests/{test}" for test in named} - collected == set()
