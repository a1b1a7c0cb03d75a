from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shmconf_agent import exits

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))

Require = Callable[[object, str], None]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def settings(unit: str) -> dict[str, list[str]]:
    """The unit's settings by name, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / unit).read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def systemd_number() -> int:
    return int(run("systemd-analyze", "--version").stdout.split()[1].split(".")[0])


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of it. Without these options it keeps silent about keys that it does not know."""
    return run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(unit: str, require: Require) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    done = verify(SYSTEMD / unit)
    assert done.returncode == 0, done.stderr
    assert not [line for line in (done.stdout + done.stderr).splitlines() if unit.partition("@")[0] in line]


@pytest.mark.parametrize("unit", ["shmconf.service", "shmconf@.service"])
def test_verification_would_find_a_mistake(unit: str, tmp_path: Path, require: Require) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    broken = tmp_path / unit
    text = (SYSTEMD / unit).read_text()
    broken.write_text(text.replace("RuntimeDirectoryPreserve=yes", "RuntimeDirectoryPreserved=yes"))
    assert "RuntimeDirectoryPreserved" in verify(broken).stderr


def test_the_drop_in_for_newer_systemd_changes_the_type_alone(tmp_path: Path, require: Require) -> None:
    assert settings("drop-ins/notify-reload.conf") == {"Type": ["notify-reload"]}
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    shutil.copy(SYSTEMD / "shmconf.service", tmp_path)
    shutil.copytree(SYSTEMD / "drop-ins", tmp_path / "shmconf.service.d")
    complaints = [line for line in verify(tmp_path / "shmconf.service").stderr.splitlines() if "shmconf" in line]
    if systemd_number() >= 253:
        assert complaints == []
    else:  # it says so, and goes on with the unit's own type
        assert complaints
        assert all("notify-reload" in line for line in complaints)


@pytest.mark.parametrize("unit", ["shmconf.service", "shmconf@.service"])
def test_the_exposure_is_what_the_manual_says(unit: str, require: Require) -> None:
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=10", SYSTEMD / unit)
    assert done.returncode == 0, done.stdout + done.stderr
    [exposure] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert 0.0 < float(exposure) <= 1.0
    if systemd_number() == 252:  # others may weigh otherwise
        assert f"gives {exposure} with systemd 252" in (SYSTEMD / "README.md").read_text()


def test_each_line_that_costs_exposure_is_explained(require: Require) -> None:
    """What systemd finds fault with is named in a comment, or is a setting with a comment of its own."""
    require(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=10",
               SYSTEMD / "shmconf.service")
    faults = {line.split()[1].partition("=")[0] for line in done.stdout.splitlines() if line.startswith("\N{BALLOT X}")}
    assert faults
    text = (SYSTEMD / "shmconf.service").read_text()
    explained = set(re.findall(r"(?m)^# - (\w+)=", text)) | set(re.findall(r"(?m)^# Relaxed.*\n(?:#.*\n)*(\w+)=", text))
    assert faults <= explained


def test_the_template_differs_from_the_unit_only_in_what_is_the_applications_own() -> None:
    one, template = settings("shmconf.service"), settings("shmconf@.service")
    assert template.pop("Environment") == [*one.pop("Environment"), "SHMCONF_DIR=/run/shmconf-%i"]
    own = {name for name in one.keys() | template.keys() if one.get(name) != template.get(name)}
    assert own == {"Description", "ExecStart", "ExecReload", "RuntimeDirectory", "StateDirectory"}
    assert template["RuntimeDirectory"] == template["StateDirectory"] == ["shmconf-%i"]
    for name in ("ExecStart", "ExecReload"):
        assert template[name] == [one[name][0].replace("/shmconf.toml", "/%i.toml")]


def test_the_agent_says_itself_when_it_is_ready_and_alive() -> None:
    unit = settings("shmconf.service")
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["TimeoutStartSec"] == ["infinity"]
    assert unit["WatchdogSec"] == ["10"]
    assert unit["Restart"] == ["on-failure"]
    # As often as it may be started, it could be within the interval: the limit is one that can be reached.
    burst, interval = int(unit["StartLimitBurst"][0]), int(unit["StartLimitIntervalSec"][0])
    assert 2 * burst * int(unit["RestartSec"][0]) <= interval
    assert unit["RestartPreventExitStatus"] == [f"{exits.USAGE} {exits.INVALID}"]


def test_a_reload_waits_for_the_outcome_with_the_agents_own_file() -> None:
    unit = settings("shmconf.service")
    [start], [again] = unit["ExecStart"], unit["ExecReload"]
    assert start.endswith(" run")
    assert again == start.removesuffix("run") + "reload"


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
    for directory in ("run/shmconf", "var/lib/shmconf"):  # root has tried the agent by hand
        (root / directory).mkdir(parents=True)
        (root / directory / "web.lock").touch(0o600)
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
    for directory in ("run/shmconf", "var/lib/shmconf"):
        assert (installed / directory / "web.lock").stat().st_uid == int(user.pw_uid), "the service can open it"


def test_the_units_and_the_directories_agree() -> None:
    lines = (SYSTEMD / "tmpfiles.d/shmconf.conf").read_text().splitlines()
    directories = {fields[1]: fields[2] for fields in map(str.split, lines) if fields and fields[0] == "d"}
    unit = settings("shmconf.service")
    assert directories["/run/shmconf"] == unit["RuntimeDirectoryMode"][0]
    assert directories["/var/lib/shmconf"] == unit["StateDirectoryMode"][0]
