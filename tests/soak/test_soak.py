"""A hundred files under random edits of every kind while everything that may fail fails: no version is ever published
that the files never were, and at the end all readers have what independent parsers read.

SOAK_SECONDS (15; 60 under .ci/run) is how long it lasts; `make soak` runs it for ten minutes. SOAK_SEED repeats a run.
It fails unless it met each kind of edit, each kind of fault that it could, publications and rejections.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", "60" if os.environ.get("SHMCONF_CI") else "15"))
HERE = Path(__file__).parent


@pytest.mark.timeout(SECONDS + 900)
def test_soak(tell: Callable[[str], None], require: Callable[[object, str], None]) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.randrange(10**6)))
    print(f"SOAK_SEED={seed}")
    root = HERE.parents[1]
    path = os.pathsep.join(map(str, (HERE, root, root / "agent", root / "shm")))
    with tempfile.TemporaryDirectory(prefix="shmconf-soak-") as home:
        Path(home).chmod(0o755)
        result = subprocess.run(
            [sys.executable, str(HERE / "soak_driver.py"), home, str(SECONDS), str(seed)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS + 800,
        )
    assert result.returncode == 0, f"SOAK_SEED={seed}\n{result.stdout}\n{result.stderr}"
    met = json.loads(result.stdout)
    tell(f"soak: {json.dumps(met)}")
    assert min(met["published"], met["rejected"], *met["edits"].values(), *met["faults"].values()) > 0
    assert min(met["seen"]) > 1
    if met["skipped"]:
        require(False, f"not done without root and user namespaces ({met['because']}): {', '.join(met['skipped'])}")
