from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))

Require = Callable[[object, str], None]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def settings(unit: str) -> dict[str, list[str]]:
    """The unit's settings by name, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / unit).read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(unit: str, require: Require) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", SYSTEMD / unit)
    assert done.returncode == 0, done.stderr
    assert not [line for line in (done.stdout + done.stderr).splitlines() if unit in line]


def test_verification_would_find_a_mistake(tmp_path: Path, require: Require) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    broken = tmp_path / "shmconf.service"
    text = (SYSTEMD / "shmconf.service").read_text()
    broken.write_text(text.replace("RuntimeDirectoryPreserve=yes", "RuntimeDirectoryPreserved=yes"))
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", broken)
    assert "shmconf.service" in done.stderr


def test_the_agent_says_itself_when_it_is_ready_and_alive() -> None:
    unit = settings("shmconf.service")
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["TimeoutStartSec"] == ["infinity"]
    assert unit["WatchdogSec"] == ["10"]
    assert unit["Restart"] == ["on-failure"]


def test_the_segments_outlive_the_agent_where_workers_can_read_them() -> None:
    unit = settings("shmconf.service")
    assert unit["RuntimeDirectory"] == ["shmconf"]
    assert unit["RuntimeDirectoryPreserve"] == ["yes"]
    assert unit["RuntimeDirectoryMode"] == ["0755"]
    assert unit["StateDirectory"] == ["shmconf"]
    assert unit["StateDirectoryMode"] == ["0700"]
    # A dynamic user's shared memory and directory are taken away at each stop.
    assert "DynamicUser" not in unit
    assert "RemoveIPC" not in unit
    assert unit["User"] == unit["Group"] == ["shmconf"]


def test_a_worker_does_not_stop_with_the_agent() -> None:
    unit = settings("example-worker.service")
    assert unit["Wants"] == unit["After"] == ["shmconf.service"]
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & unit.keys()
    assert unit["SupplementaryGroups"] == settings("shmconf.service")["Group"]


@pytest.fixture
def installed(tmp_path: Path, require: Require) -> Path:
    """A root directory in which the user and the directories were made as the README tells."""
    for tool in ("systemd-sysusers", "systemd-tmpfiles"):
        require(shutil.which(tool), f"{tool} is not installed")
    require(os.geteuid() == 0, "making users and giving them directories takes root, if only in a directory")
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    (root / "etc").mkdir()
    for command, file in (
        (["systemd-sysusers"], "sysusers.d/shmconf.conf"),
        (["systemd-tmpfiles", "--create"], "tmpfiles.d/shmconf.conf"),
    ):
        done = run(*command, f"--root={root}", SYSTEMD / file)
        assert done.returncode == 0, done.stderr
    return root


def test_the_user_and_its_directories_are_made(installed: Path) -> None:
    [line] = [line for line in (installed / "etc/passwd").read_text().splitlines() if line.startswith("shmconf:")]
    user = pwd.struct_passwd(line.split(":"))
    assert user.pw_shell.endswith("nologin")
    assert user.pw_dir == "/var/lib/shmconf"
    modes = {
        name: (stat.S_IMODE(status.st_mode), str(status.st_uid), str(status.st_gid))
        for name in ("run/shmconf", "var/lib/shmconf", "etc/shmconf")
        for status in [(installed / name).stat()]
    }
    assert modes == {
        "run/shmconf": (0o755, str(user.pw_uid), str(user.pw_gid)),
        "var/lib/shmconf": (0o700, str(user.pw_uid), str(user.pw_gid)),
        "etc/shmconf": (0o755, "0", "0"),
    }


def test_the_units_and_the_directories_agree() -> None:
    lines = (SYSTEMD / "tmpfiles.d/shmconf.conf").read_text().splitlines()
    directories = {fields[1]: fields[2] for fields in map(str.split, lines) if fields and fields[0] == "d"}
    unit = settings("shmconf.service")
    assert directories["/run/shmconf"] == unit["RuntimeDirectoryMode"][0]
    assert directories["/var/lib/shmconf"] == unit["StateDirectoryMode"][0]
