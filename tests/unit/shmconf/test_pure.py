"""The same tests on the pure Python path, where this process has the native one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shmconf.mapping import IMPLEMENTATION

HERE = Path(__file__).parent
TESTS = ["test_layout.py", "test_look_ups.py", "test_reader.py", "test_status.py", "test_waiting.py", "test_writer.py"]


@pytest.mark.timeout(300)
@pytest.mark.skipif(IMPLEMENTATION == "pure", reason="this process is the pure one already")
def test_the_pure_path_passes_the_same_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in TESTS)],
        env={**os.environ, "SHMCONF_PURE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
