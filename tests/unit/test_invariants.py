"""docs/invariants.md names tests that there are, and some for each invariant."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "invariants.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+(?:::\w+)?)`")
INVARIANTS = {"The segment": 15, "The agent": 11}


def collected(root: Path, files: list[str]) -> set[str]:
    """`file::test` of each test that pytest finds in these files under tests/, without parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=root / "tests", capture_output=True, text=True, timeout=250)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    lines = [line for line in found.stdout.splitlines() if "::" in line]
    return {line.partition("[")[0].removeprefix("tests/") for line in lines}


def test_every_test_that_is_named_is_collected() -> None:
    named = {"::".join(pair) for pair in NAMED.findall(PAGE)}
    assert len(named) > 100
    found = collected(ROOT, sorted({name.partition("::")[0] for name in named}))
    assert sorted(named - found) == []


@pytest.mark.parametrize("part", INVARIANTS)
def test_each_invariant_has_tests(part: str) -> None:
    text = re.search(rf"^## {part}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert text is not None
    sections = re.findall(r"^### (\d+)\. [^\n]+\n(.*?)(?=^### |\Z)", text[1], re.M | re.S)
    assert [int(number) for number, _ in sections] == list(range(1, INVARIANTS[part] + 1))
    for number, section in sections:
        rows = [line for line in section.splitlines() if line.startswith("| ") and line != "| what | tests |"]
        assert rows, number
        for row in rows:
            what, tests = row.strip("| ").split(" | ")
            assert what
            assert NAMED.findall(tests), row
            assert NAMED.sub("", tests).strip() == "", row


def test_a_test_that_there_is_not_would_be_missed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('a', [1, 2])\ndef test_there(a): pass\n"
    )
    assert collected(tmp_path, ["test_it.py"]) == {"test_it.py::test_there"}
