"""A test with the mark `timing` is run again where the machine was busy, only so often, and the run tells of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TEST = """
import os, pathlib, pytest
os.getloadavg = lambda: ({load}, 0.0, 0.0)
os.cpu_count = lambda: 4
ran = pathlib.Path(__file__).with_name("ran")

@pytest.fixture
def number():
    with ran.open("a") as file:
        file.write("x")
    return len(ran.read_text())

{mark}
def test_it(number, tmp_path):
    (tmp_path / "made").mkdir()
    assert number > {failures}, "too slow"
"""


@pytest.mark.parametrize(
    ("mark", "load", "failures", "runs", "passes"),
    [
        ("timing", 9.0, 0, 1, True),
        ("timing", 9.0, 2, 3, True),
        ("timing", 9.0, 3, 3, False),
        ("timing", 0.0, 1, 1, False),
        ("other", 9.0, 1, 1, False),
    ],
)
def test_a_failure_on_a_busy_machine_is_run_again(
    tmp_path: Path, mark: str, load: float, failures: int, runs: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    timing\n    other\n")
    (tmp_path / "test_it.py").write_text(TEST.format(mark=f"@pytest.mark.{mark}", load=load, failures=failures))
    # Where nothing is to be run again, no sleep counts as late, however busy this machine is.
    late = "1000.0" if load == 0.0 else "0.1"
    text = (tmp_path / "conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(text.replace("LATE_SECONDS = 0.1", f"LATE_SECONDS = {late}"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tmp'}", "."]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (result.returncode == 0) is passes, result.stdout
    assert len((tmp_path / "ran").read_text()) == runs
    assert result.stdout.count("run again on a busy machine") == runs - 1
    assert ("1 passed" if passes else "1 failed") in result.stdout
