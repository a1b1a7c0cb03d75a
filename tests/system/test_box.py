"""The box of the tests of the service: its first process touches nothing unless every namespace is a new one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import box
import pytest

Require = Callable[[object, str], None]


@pytest.fixture(autouse=True)
def _able(require: Require) -> None:
    reason = box.missing()
    require(reason is None, f"a real systemd in a box: {reason}")


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def init(*command: str, place: Path, outside: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "bash", str(box.INIT), str(place), *outside], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    return tmp_path


def refused(done: subprocess.CompletedProcess[str], why: str, place: Path, before: list[str]) -> None:
    assert done.returncode == 1
    assert done.stderr == f"box_init.sh: refused: {why}\n"
    assert mounts() == before
    assert os.listdir(place / "root") == []


def test_it_is_refused_to_any_process_but_the_first(place: Path) -> None:
    before = mounts()
    done = init(place=place, outside=box.namespaces())
    refused(done, "this is not the first process of a PID namespace", place, before)


@pytest.mark.parametrize("kind", box.KINDS)
def test_it_is_refused_in_a_namespace_of_outside(kind: str, place: Path) -> None:
    """In namespaces that are all new, one of which it is told is that of outside."""
    before = mounts()
    script = f'exec "$@" "$(readlink /proc/self/ns/{kind})"'
    new = [*box.UNSHARE, "--propagation", "private", "bash", "-c", script, "-"]
    done = init(*new, place=place, outside=box.namespaces())
    refused(done, f"this is the {kind} namespace outside", place, before)


@pytest.mark.parametrize("kind", box.KINDS)
def test_it_is_refused_where_nobody_said_what_is_outside(kind: str, place: Path) -> None:
    before = mounts()
    outside = [name for name in box.namespaces() if not name.startswith(f"{kind}:")]
    done = init(*box.UNSHARE, "--propagation", "private", place=place, outside=outside)
    refused(done, f"nobody said which {kind} namespace is outside", place, before)


def test_what_is_done_in_a_box_stays_there_and_outlasts_a_reboot() -> None:
    before = mounts()
    made = box.Box()
    try:
        made.boot()
        assert made.run("cat", "/proc/1/comm").stdout == "systemd\n"
        assert made.run("id", "--user", "--name", User="nobody").stdout == "nobody\n"
        assert made.run("false", check=False).returncode == 1
        made.run("touch", "/etc/made-in-a-box")
        made.power_off()
        assert made.leader == 0
        made.boot()
        made.run("test", "-e", "/etc/made-in-a-box")
        place = made.place
    finally:
        made.close()
    assert not Path("/etc/made-in-a-box").exists()
    assert not place.exists()
    assert mounts() == before
