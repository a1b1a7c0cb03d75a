"""What `pip install .` gives to a worker: the library and msgpack, with the native module or without."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.registry, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("agent", "shm", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
SHOW_MAPPING = "import shmconf.mapping as m; print(m.IMPLEMENTATION, m.__file__)"
SHOW_AGENT = "import shmconf_agent.native as n; print(n.MISSING, n.__file__)"


def clean_environment(**settings):
    """Nothing of the test's own set-up: neither its paths nor its choice of compiler or implementation."""
    ours = ("PYTHONPATH", "CC", "CFLAGS", "VIRTUAL_ENV", "MAKEFLAGS")
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("SHMCONF_")}
    return kept | settings


def run(*command, cwd, check=True, **settings):
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean_environment(**settings), capture_output=True, text=True
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, since a build leaves files in the directory that it builds from."""
    copy = tmp_path_factory.mktemp("checkout")
    made = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=made)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, copy)
    return copy


@pytest.fixture(scope="module")
def worker(checkout, tmp_path_factory):
    """The bin directory of a fresh environment after `pip install .`."""
    place = tmp_path_factory.mktemp("worker")
    run(sys.executable, "-m", "venv", "env", cwd=place)
    run(place / "env/bin/python", "-m", "pip", "install", "-q", checkout, cwd=place)
    return place / "env/bin"


def test_a_worker_gets_the_library_with_msgpack_as_its_only_dependency(worker, tmp_path):
    listed = json.loads(run(worker / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path).stdout)
    assert {package["name"] for package in listed} - {"pip", "setuptools"} == {"shmconf", "msgpack"}
    run(worker / "python", "-W", "error", "-c", "import shmconf; shmconf.attach", cwd=tmp_path)
    implementation, file = run(worker / "python", "-c", SHOW_MAPPING, cwd=tmp_path).stdout.split()
    assert {"py.typed", "_native.pyi"} <= {entry.name for entry in Path(file).parent.iterdir()}
    if importlib.util.find_spec("shmconf._native"):  # then there is a compiler here
        assert implementation == "native"
        missing, file = run(worker / "python", "-c", SHOW_AGENT, cwd=tmp_path).stdout.split()
        assert missing == "None"
        assert "_native.pyi" in {entry.name for entry in Path(file).parent.iterdir()}


def test_without_the_agent_s_extra_the_command_says_what_to_install(worker, tmp_path):
    for arguments in ((), ("run",), ("status", "web")):
        result = run(worker / "shmconf", *arguments, cwd=tmp_path, check=False)
        assert result.returncode == 1
        assert result.stdout == ""
        [line] = result.stderr.splitlines()
        assert "pip install 'shmconf[agent]'" in line


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra(worker, tmp_path):
    script = "import sys; sys.modules['shmconf_agent.cli'] = None; from shmconf_agent.__main__ import main; main()"
    result = run(worker / "python", "-c", script, cwd=tmp_path, check=False)
    assert "ModuleNotFoundError" in result.stderr
    assert "pip install" not in result.stderr


def test_without_a_compiler_it_installs_says_so_and_works_in_pure_python(worker, checkout, tmp_path):
    # From a directory where a native module was built before: what is left of it must not be installed.
    note = tmp_path / "note"
    install = (worker / "python", "-m", "pip", "install", "-q", "--no-deps", "--target", "site", checkout)
    run(*install, cwd=tmp_path, CC="/bin/false", SHMCONF_BUILD_NOTE=str(note))
    [line] = note.read_text().splitlines()
    assert line.startswith("shmconf: the native module was not built, pure Python will be used: ")
    assert "/bin/false" in line
    shown = run(worker / "python", "-W", "error", "-c", SHOW_MAPPING, cwd=tmp_path, PYTHONPATH="site").stdout.split()
    assert shown == ["pure", str(tmp_path / "site/shmconf/mapping.py")]
    of_agent = run(worker / "python", "-W", "error", "-c", SHOW_AGENT, cwd=tmp_path, PYTHONPATH="site").stdout
    assert "cannot import name '_native'" in of_agent
    assert str(tmp_path / "site/shmconf_agent/native.py") in of_agent
