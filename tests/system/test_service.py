"""The service under a real systemd as PID 1: the units as shipped, from the first start to a reboot and an upgrade.

All tests share one boot of one box, which each of them finds with the quickstart's files published and one worker
attached, and need not leave so. The reboots come last.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import box
import pytest
import service_host
from service_host import CONFIG, UNITS, ServiceHost, manual

import shmconf
from shmconf_agent.log_kinds import Kind

pytestmark = [pytest.mark.registry, pytest.mark.timeout(400)]

Eventually = Callable[..., Any]
OLDER, NEWER = service_host.versions()
README = (Path(__file__).parents[2] / "README.md").read_text()
SECONDS = 60.0  # a restart by the watchdog alone takes 16


@pytest.fixture(scope="module")
def eventually(eventually: Eventually) -> Eventually:
    """With more patience: a box on a busy machine is slow."""
    return partial(eventually, seconds=SECONDS)


@pytest.fixture(scope="module")
def host(require: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceHost]:
    """Installed, with files that are invalid; nothing was ever started."""
    assert shmconf.__version__ == OLDER, "systemd/README.md installs this version"
    reason = box.missing() or service_host.unsuitable_python()
    require(reason is None, f"a real systemd in a box: {reason}")
    made = ServiceHost(service_host.make_wheels(tmp_path_factory.mktemp("wheels"), NEWER))
    yield made
    made.close()


@pytest.fixture
def service(host: ServiceHost, eventually: Eventually) -> ServiceHost:
    """The agent and a worker run as shipped, on the quickstart's files."""
    restart = bool(list(host.box.path(UNITS).glob("*.service.d")))
    host.without_drop_ins()
    host.put_config()
    host.box.systemctl("reset-failed")
    host.box.systemctl("restart" if restart else "start", "shmconf", "example-worker")
    # Whatever the test before has left: not everything that it may have changed is something that the agent watches.
    eventually(
        lambda: host.box.systemctl("reload", "shmconf", check=False).returncode == 0 and host.status()[0] == 0,
        lambda: (host.status(), agent_says(host)),
    )
    eventually(lambda: worker_has(host, host.version()), lambda: host.box.journal("--unit=example-worker"))
    return host


def worker_said(host: ServiceHost, text: str) -> bool:
    """Whether the worker, as it runs now, has."""
    return text in host.box.journal("--unit=example-worker", f"_PID={host.main_pid('example-worker')}")


def worker_has(host: ServiceHost, version: int, size: int | None = None) -> bool:
    """Whether the worker has told of this version."""
    return worker_said(host, f"has version {version}: {'' if size is None else size}")


def agent_says(host: ServiceHost) -> str:
    return host.box.journal("--unit=shmconf")


def test_the_start_waits_for_valid_files_says_why_and_others_start_after_it(
    host: ServiceHost, eventually: Eventually
) -> None:
    units = host.box
    host.break_files()
    # What needs the configuration at its start, and does not wait for it itself: it fails if it is started too early.
    units.write(
        f"{UNITS}/after.service",
        "[Unit]\nAfter=shmconf.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=web\nSupplementaryGroups=shmconf\n"
        "ExecStart=/opt/shmconf/bin/shmconf get web db.pool.size\n",
    )
    units.systemctl("daemon-reload")
    units.systemctl("start", "--no-block", "shmconf", "example-worker", "after")
    eventually(
        lambda: "web: nothing to serve yet, rejected: local.yaml:2:1: " in units.show("shmconf", "StatusText"),
        lambda: (units.show("shmconf", "StatusText"), agent_says(host)),
    )
    assert units.show("shmconf", "ActiveState") == "activating"
    assert {units.show(unit, "ActiveState") for unit in ("example-worker", "after")} == {"inactive"}
    waiting = units.systemctl("list-jobs").stdout
    assert re.search(r"after\.service +start +waiting", waiting), waiting
    assert host.status()[0] == 69

    host.pool(11)
    eventually(lambda: units.show("shmconf", "ActiveState") == "active", lambda: agent_says(host))
    assert host.status()[0] == 0
    assert units.show("shmconf", "StatusText") == "web: version 1"
    eventually(lambda: units.show("after", "ActiveState") in ("active", "failed"), "the end of what comes after")
    assert units.show("after", "Result") == "success", units.journal("--unit=after")
    assert units.journal("--unit=after", "--output=cat").splitlines()[1] == "11"
    eventually(lambda: worker_has(host, 1, 11), "the worker has it")


def test_the_metrics_leave_a_unit_without_network_by_a_file_and_by_its_socket(
    service: ServiceHost, eventually: Eventually
) -> None:
    units, collected = service.box, "/var/lib/prometheus/node-exporter"
    section = service_host.MANUAL.split("\n## Metrics\n")[1].split("\n## ")[0]
    textfile, drop_in = (section.split(f"```{kind}\n")[1].split("```")[0] for kind in ("toml", "ini"))
    [link] = manual("Metrics", 0)
    toml = units.path(f"{CONFIG}/shmconf.toml").read_text()
    units.write(f"{CONFIG}/shmconf.toml", textfile + toml)
    service.sh(f"mkdir -p {collected}", link)
    units.systemctl("reload", "shmconf")
    there = units.path("/run/shmconf/shmconf.prom")
    eventually(there.exists, lambda: agent_says(service))
    version = f'shmconf_version{{segment="web"}} {service.version()}.0\n'
    assert version in units.run("/bin/cat", f"{collected}/shmconf.prom", User="stranger").stdout
    # /proc/stat, from which others would have the time of the start, is not there for the unit.
    scraped = units.run("/usr/bin/curl", "-sS", "--unix-socket", "/run/shmconf/web.sock", "http://localhost/metrics").stdout
    assert version in scraped
    # A worker of another user is counted, though /proc shows the unit no other user's processes.
    assert 'shmconf_workers{segment="web",state="current"} 1.0\n' in scraped
    [started] = re.findall(r"(?m)^process_start_time_seconds (\S+)$", scraped)
    assert time.time() - 3600 < float(started) <= time.time() + 1
    units.systemctl("stop", "shmconf")
    assert not there.exists()

    # node_exporter's own directory takes rights and a drop-in.
    textfile = textfile.replace("/run/shmconf", collected)
    service.sh(f"rm {collected}/shmconf.prom", f"chown shmconf {collected}")
    units.write(f"{CONFIG}/shmconf.toml", textfile + toml)
    units.systemctl("start", "shmconf")
    refused = f"the metrics cannot be written to {collected}/shmconf.prom: Read-only file system"
    eventually(lambda: refused in agent_says(service), lambda: agent_says(service))
    service.drop_in("shmconf.service", drop_in)
    units.systemctl("restart", "shmconf")
    eventually(units.path(f"{collected}/shmconf.prom").exists, lambda: agent_says(service))


def test_a_reload_gives_the_verdict(service: ServiceHost) -> None:
    before = service.version()
    service.pool(21)
    service.box.systemctl("reload", "shmconf")
    assert service.version() == before + 1, "published by the time that the reload has returned"
    assert service.shmconf("get", "web", "db.pool.size").stdout == "21\n"

    service.break_files()
    refused = service.box.systemctl("reload", "shmconf", check=False)
    assert refused.returncode != 0
    assert service.box.show("shmconf", "ActiveState") == "active"
    assert service.box.show("shmconf", "ReloadResult") == "exit-code"
    told = service.box.journal("--unit=shmconf", "--output=cat").splitlines()
    assert any(line.startswith("local.yaml:2:1: ") for line in told), "by the reload, with the place"
    code, status = service.status()
    assert (code, status["version"]) == (3, before + 1)

    service.pool(22)
    service.box.systemctl("reload", "shmconf")
    assert service.version() == before + 2


def entries(host: ServiceHost, kind: Kind, **fields: str) -> list[dict[str, Any]]:
    """What the journal has of the agent's events of that kind, with these fields."""
    matches = [f"{name}={value}" for name, value in {"MESSAGE_ID": kind.message_id, **fields}.items()]
    said = host.box.journal("--unit=shmconf", "--output=json", "--all", *matches)
    return [json.loads(line) for line in said.splitlines()]


def test_the_journal_has_the_events_with_their_fields(service: ServiceHost, eventually: Eventually) -> None:
    service.pool(23)
    service.box.systemctl("reload", "shmconf")
    _, status = service.status()
    version, trusted = str(status["version"]), {"_TRANSPORT": "journal", "_SYSTEMD_UNIT": "shmconf.service"}
    said = eventually(lambda: entries(service, Kind.PUBLISHED, VERSION=version), lambda: agent_says(service))
    wanted = {"SEGMENT": "web", "DIGEST": status["digest"], "PRIORITY": "6", "SYSLOG_IDENTIFIER": "shmconf", **trusted}
    assert {name: said[-1][name] for name in wanted} == wanted
    assert said[-1]["MESSAGE"].startswith(f"web: version {version} published in ")
    assert (said[-1]["CHANGED_FILE"], said[-1]["CHANGED_PATH"]) == ("local.yaml", "db.pool.size")
    assert float(said[-1]["EDIT_TO_VISIBLE_SECONDS"]) > 0

    service.break_files()
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    said = eventually(lambda: entries(service, Kind.REJECTED, VERSION=version), lambda: agent_says(service))
    wanted = {"SEGMENT": "web", "REASON": "yaml-syntax", "PRIORITY": "3", **trusted}
    assert {name: said[-1][name] for name in wanted} == wanted
    assert said[-1]["PROBLEM"].startswith("local.yaml:2:1: ")

    # An entry that is too large for a datagram goes through memory that the lock-down must allow.
    key = "k" * 1000
    service.box.write(f"{CONFIG}/local.yaml", "".join(f"{key}{number // 2}: 1\n" for number in range(1000)))
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    said = eventually(lambda: entries(service, Kind.REJECTED, PROBLEMS="500"), lambda: agent_says(service)[-5000:])
    assert len(said[-1]["PROBLEM"]) == 200
    assert sum(map(len, said[-1]["PROBLEM"])) > 213_000
    started = entries(service, Kind.STARTED, _PID=str(service.main_pid()))
    assert [entry["PRIORITY"] for entry in started] == ["5"]

    explained = service.box.journal("--unit=shmconf", "--catalog", f"MESSAGE_ID={Kind.REJECTED.message_id}")
    assert "Subject: web: the files were rejected" in explained
    typed = [line for line in README.splitlines() if line.startswith("journalctl ")]
    assert len(typed) == 4
    for line in typed:
        found = service.sh(line.split("#")[0])
        assert "-- No entries --" not in found, line
        assert "web: " in found, line
    assert "here is what it would have had" not in agent_says(service)


def test_a_journal_that_hangs_or_starts_anew_holds_up_nothing(service: ServiceHost, eventually: Eventually) -> None:
    journald, before = service.main_pid("systemd-journald"), service.version()
    service.sh(f"kill -STOP {journald}")
    try:
        for number in range(1, 4):
            service.pool(30 + number)
            eventually(lambda number=number: service.version() == before + number, "published")
    finally:
        service.sh(f"kill -CONT {journald}")
    for number in range(1, 4):
        eventually(lambda number=number: entries(service, Kind.PUBLISHED, VERSION=str(before + number)), "told later")
    service.box.systemctl("restart", "systemd-journald")
    assert service.main_pid("systemd-journald") not in (0, journald)
    service.pool(35)
    eventually(lambda: entries(service, Kind.PUBLISHED, VERSION=str(before + 4)), lambda: agent_says(service))


def test_a_rollback_is_held_over_a_restart_and_fails_reloads(service: ServiceHost, eventually: Eventually) -> None:
    service.pool(24)
    service.box.systemctl("reload", "shmconf")
    good = service.version()
    service.pool(25)
    service.box.systemctl("reload", "shmconf")
    rolled_back = service.shmconf("rollback", "web", str(good))
    assert rolled_back.returncode == 0, rolled_back.stderr
    version = service.version()
    eventually(lambda: worker_has(service, version, 24), "the worker has what was kept")
    for _ in range(2):
        assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
        assert f"HELD: a rollback of version {good} by root" in service.box.show("shmconf", "StatusText")
        overview = service.shmconf("status")
        assert overview.returncode == 0
        assert f"\nweb: HELD: a rollback of version {good}, " in overview.stdout
        assert service.version() == version
        service.box.systemctl("restart", "shmconf")
    resumed = service.shmconf("resume", "web")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    eventually(lambda: worker_has(service, version + 1, 25), "and the files after it")
    service.box.systemctl("reload", "shmconf")


def test_a_hang_up_is_a_reload_that_systemd_sees(service: ServiceHost, eventually: Eventually) -> None:
    """Of Type=notify, too: it waits with all else that is asked of the unit until the agent has judged its files."""
    # A check that takes its time, so that there is something to see.
    waits = f"    while not os.path.exists('{CONFIG}/go-on'):\n        time.sleep(0.01)\n"
    service.box.write(f"{CONFIG}/settings.py", f"import os, time\ndef check(config):\n{waits}")
    service.box.systemctl("kill", "--kill-who=main", "--signal=HUP", "shmconf")
    eventually(lambda: service.box.show("shmconf", "ActiveState") == "reloading", "reloading")
    service.box.write(f"{CONFIG}/go-on", "")
    eventually(lambda: service.box.show("shmconf", "ActiveState") == "active", "the end of it")
    service.box.path(f"{CONFIG}/go-on").unlink()


def test_a_killed_agent_comes_back_and_versions_go_on(service: ServiceHost, eventually: Eventually) -> None:
    _, before = service.status()
    killed, worker = service.main_pid(), service.main_pid("example-worker")
    service.box.systemctl("kill", "--kill-who=main", "--signal=KILL", "shmconf")
    eventually(
        lambda: service.main_pid() not in (0, killed) and service.box.show("shmconf", "ActiveState") == "active",
        lambda: agent_says(service),
    )
    eventually(lambda: service.status()[0] == 0, lambda: service.status())
    _, after = service.status()
    assert (after["version"], after["epoch"]) == (before["version"], before["epoch"])
    service.pool(31)
    eventually(lambda: worker_has(service, before["version"] + 1, 31), "the worker has the next version")
    assert service.main_pid("example-worker") == worker, "the same worker all the time"


FREEZE = """
import ctypes, os, sys
# Stops every thread of a process but its main one, as a disk that does not answer would, until the process ends.
pid = int(sys.argv[1])
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
frozen = []
for thread in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):
    if thread != pid:
        if ptrace(0x4206, thread, None, None) or ptrace(0x4207, thread, None, None):  # PTRACE_SEIZE, PTRACE_INTERRUPT
            sys.exit(os.strerror(ctypes.get_errno()))
        frozen.append(thread)
print(len(frozen), flush=True)
while frozen:
    thread, status = os.waitpid(-1, 0x40000000)  # __WALL
    if os.WIFEXITED(status) or os.WIFSIGNALED(status):
        frozen.remove(thread)
"""


def test_an_agent_that_hangs_is_killed_by_the_watchdog(service: ServiceHost, eventually: Eventually) -> None:
    before, hanging = service.version(), service.main_pid()
    process = service.pid_outside(hanging)
    with subprocess.Popen([sys.executable, "-c", FREEZE, str(process)], stdout=subprocess.PIPE, text=True) as freezer:
        try:
            assert freezer.stdout is not None
            assert int(freezer.stdout.readline() or 0) > 0, "no thread could be stopped"
            service.pool(41)
            eventually(
                lambda: service.main_pid() not in (0, hanging),
                lambda: agent_says(service),
            )
        finally:
            freezer.kill()
    assert "Watchdog timeout" in agent_says(service)
    eventually(lambda: worker_has(service, before + 1, 41), "the new agent has published what the old one did not")
    assert service.status()[0] == 0


def test_a_mistake_in_the_agents_file_fails_the_start_at_once(service: ServiceHost) -> None:
    service.box.systemctl("stop", "shmconf")
    service.box.write(f"{CONFIG}/shmconf.toml", "[segment.web]\nsource = []\n")
    assert service.box.systemctl("start", "shmconf", check=False).returncode != 0
    assert service.box.show("shmconf", "ActiveState") == "failed", "and is not tried again"
    assert service.box.show("shmconf", "ExecMainStatus") == "78"
    assert f"{CONFIG}/shmconf.toml:2:1: " in agent_says(service)


def test_an_agent_that_dies_again_and_again_is_given_up(service: ServiceHost, eventually: Eventually) -> None:
    worker = service.main_pid("example-worker")
    # As shipped, 30 and a second would take half a minute.
    service.drop_in("shmconf.service", "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=100ms\n")

    def failed() -> bool:
        state = service.box.show("shmconf", "ActiveState")
        if state == "active":
            service.box.systemctl("kill", "--kill-who=main", "--signal=KILL", "shmconf", check=False)
        return state == "failed"

    eventually(failed, lambda: agent_says(service))
    assert service.box.systemctl("start", "shmconf", check=False).returncode != 0
    assert service.shmconf("get", "web", "db.pool.size").stdout == "10\n"
    assert service.main_pid("example-worker") == worker
    service.sh("systemctl reset-failed shmconf", "systemctl start shmconf")
    assert service.status()[0] == 0


def test_a_file_that_the_agents_user_may_not_read_is_named(service: ServiceHost) -> None:
    service.box.path(f"{CONFIG}/base.yaml").chmod(0o600)
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    code, status = service.status()
    assert code == 3
    assert "base.yaml" in status["last_error"]
    assert "ermission" in status["last_error"]
    check, _ = manual("Install", 1)  # as README says, by the agent's own user: root could read it
    done = service.box.run("/bin/sh", "-c", check, check=False)
    assert done.returncode == 78
    assert "base.yaml" in done.stdout


def test_what_an_operator_types_every_day(service: ServiceHost) -> None:
    doctor, completion = manual("Every day", 0)
    findings = json.loads(service.sh(f"{doctor} --format json"))["findings"]  # by another user, in root's directory
    assert [each for each in findings if each["level"] == "failure"] == []
    [state] = [each for each in findings if each["topic"] == "state-dir"]
    assert (state["level"], state["where"]) == ("ok", "/var/lib/shmconf")
    service.sh(completion)
    typed = "COMP_WORDS=(shmconf status w) COMP_CWORD=2; _shmconf_completion shmconf; echo ${COMPREPLY[@]}"
    assert service.sh(f". /etc/bash_completion.d/shmconf; {typed}") == "web\n"
    service.break_files()
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    told = service.box.journal("--unit=shmconf", "--identifier=shmconf", "--output=cat").splitlines()
    assert any(line.startswith("local.yaml:2:1: ") for line in told), "a reload speaks by its name"


def test_workers_go_on_while_the_agent_is_stopped(service: ServiceHost, eventually: Eventually) -> None:
    before, worker = service.version(), service.main_pid("example-worker")
    service.box.systemctl("stop", "shmconf")
    assert service.box.show("shmconf", "Result") == "success"
    assert service.status()[0] == 4
    assert service.shmconf("get", "web", "db.pool.size", user="web", SupplementaryGroups="shmconf").stdout == "10\n"
    service.pool(51)
    service.box.systemctl("start", "shmconf")
    eventually(lambda: worker_has(service, before + 1, 51), "the worker has what was edited meanwhile")
    assert service.main_pid("example-worker") == worker


def test_workers_of_another_user_read_and_strangers_are_refused(service: ServiceHost) -> None:
    segment = service.box.path("/run/shmconf/web.shmconf")
    assert segment.stat().st_mode & 0o777 == 0o640
    member = {"user": "web", "SupplementaryGroups": "shmconf"}
    assert service.shmconf("get", "web", "db.pool.size", **member).stdout == "10\n"
    assert service.shmconf("status", "web", **member).returncode == 0

    for arguments in (("get", "web"), ("status", "web"), ("reload", "web")):
        refused = service.shmconf(*arguments, user="stranger")
        assert refused.returncode == 1, (arguments, refused)
        assert refused.stdout == ""
        assert re.search("[Pp]ermission", refused.stderr), (arguments, refused)
    knock = "import socket; socket.socket(socket.AF_UNIX).connect('/run/shmconf/web.sock')"
    for user, opens in (("stranger", False), ("web", False), ("shmconf", True)):
        done = service.box.run("/usr/bin/python3", "-c", knock, check=False, User=user)
        assert (done.returncode == 0) == opens, (user, done)
        assert opens or "PermissionError" in done.stderr
    for command in ("ls /var/lib/shmconf", "touch /run/shmconf/mine", "echo >>/run/shmconf/web.shmconf"):
        done = service.box.run("/bin/sh", "-c", command, check=False, User="web", SupplementaryGroups="shmconf")
        assert done.returncode != 0, command
    # A member of the group may read and not change anything: to reload takes more.
    assert service.shmconf("reload", "web", user="web", SupplementaryGroups="shmconf").returncode == 1


def test_groups_of_the_operators_own(service: ServiceHost) -> None:
    file = service.box.path(f"{CONFIG}/shmconf.toml").read_text()
    service.box.write(f"{CONFIG}/shmconf.toml", f'admin_group = "web"\n{file}group = "web"\n')
    service.drop_in("shmconf.service", "[Service]\nSupplementaryGroups=web\n")
    service.box.systemctl("restart", "shmconf")
    assert service.shmconf("get", "web", "db.pool.size", user="web").stdout == "10\n"
    assert service.shmconf("reload", "web", user="web").returncode == 0
    assert service.shmconf("get", "web", user="stranger", SupplementaryGroups="shmconf").returncode == 1


def test_credentials_reach_the_agent_and_nobody_else(service: ServiceHost, eventually: Eventually) -> None:
    service.box.write(f"{CONFIG}/credentials/db-password", "hunter2\n", mode=0o600)
    [line] = [line for line in service.box.path(f"{UNITS}/shmconf.service").read_text().splitlines()
              if line.startswith("#LoadCredential=")]
    service.drop_in("shmconf.service", f"[Service]\n{line.removeprefix('#')}\n")
    service.box.write(
        f"{CONFIG}/shmconf.toml", service.box.path(f"{CONFIG}/shmconf.toml").read_text() + "substitute = true\n"
    )
    service.box.write(f"{CONFIG}/local.yaml", "service:\n  notice: call ${credential:db-password}\n")
    service.box.systemctl("restart", "shmconf")
    eventually(lambda: worker_said(service, "/login: call hunter2 "), "a worker has the secret")
    assert "hunter2" not in service.shmconf("get", "web", "service").stdout
    assert "hunter2" not in agent_says(service)
    process = service.pid_outside(service.main_pid())
    assert b"CREDENTIALS_DIRECTORY=/run/credentials/shmconf.service" in Path(f"/proc/{process}/environ").read_bytes()
    for user in ("web", "stranger"):
        command = ("/bin/cat", "/run/credentials/shmconf.service/db-password", f"{CONFIG}/credentials/db-password")
        done = service.box.run(*command, check=False, User=user, SupplementaryGroups="shmconf")
        assert done.returncode != 0
        assert done.stdout == ""


PROBE = """
import ctypes, mmap, os, resource, socket
def check(config=None):
    found = []
    def possible(name, action):
        try:
            action()
        except (OSError, ValueError):
            return
        found.append(name)
    def write(path):
        with open(path, "w"):
            pass
    libc = ctypes.CDLL(None, use_errno=True)
    def call(function, *arguments):
        if getattr(libc, function)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), function)
    possible("internet sockets", lambda: socket.socket(socket.AF_INET).close())
    possible("netlink sockets", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())
    possible("writing code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close())
    possible("namespaces", lambda: call("unshare", 0x10000000))
    possible("personality", lambda: call("personality", 0x0008))
    possible("seeing others' processes", lambda: os.stat("/proc/1/status"))
    possible("seeing the kernel's tables", lambda: os.stat("/proc/meminfo"))
    possible("devices", lambda: os.stat("/dev/full") if os.path.exists("/dev/console") else os.stat("/dev/tty0"))
    possible("set-group-ID files", lambda: (write("/tmp/sgid"), os.chmod("/tmp/sgid", 0o2755)))
    possible("core dumps", lambda: None if resource.getrlimit(resource.RLIMIT_CORE)[1] else 1 / 0)
    return found
if __name__ == "__main__":
    print("\\n".join(check()))
"""


def test_the_hardening_bites_and_a_check_runs_under_it(service: ServiceHost) -> None:
    probe = PROBE.replace("1 / 0", "os.stat('/nowhere')")
    service.box.write(f"{CONFIG}/settings.py", probe)
    outside = service.box.run("/usr/bin/python3", f"{CONFIG}/settings.py", User="shmconf").stdout.splitlines()
    assert len(outside) >= 8, f"all of this is possible without the unit's rules: {outside}"
    reload = service.shmconf("reload", "web")
    assert reload.returncode == 0, reload.stdout


def test_an_instance_for_an_application_is_its_own(service: ServiceHost) -> None:
    service.box.write(f"{CONFIG}/shop.toml", '[segment.web]\nsources = ["shop.yaml"]\n')
    service.box.write(f"{CONFIG}/shop.yaml", "size: 1\n")
    service.break_files()  # of the other agent
    service.box.systemctl("start", "shmconf@shop")
    assert service.box.show("shmconf@shop", "StatusText") == "web: version 1"
    own = {"user": "web", "SupplementaryGroups": "shmconf", "Environment": "SHMCONF_DIR=/run/shmconf-shop"}
    assert service.shmconf("get", "web", "size", **own).stdout == "1\n"
    service.box.write(f"{CONFIG}/shop.yaml", "size: 2\n")
    service.box.systemctl("reload", "shmconf@shop")
    assert service.shmconf("get", "web", "size", **own).stdout == "2\n"
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    service.box.write(f"{CONFIG}/shop.yaml", "size: [\n")
    assert service.box.systemctl("reload", "shmconf@shop", check=False).returncode != 0
    service.box.systemctl("stop", "shmconf@shop")
    assert service.shmconf("get", "web", "size", **own).stdout == "2\n"
    assert service.box.path("/var/lib/shmconf-shop").stat().st_mode & 0o777 == 0o700


def test_an_upgrade_while_workers_read(service: ServiceHost, eventually: Eventually) -> None:
    _, before = service.status()
    worker, agent = service.main_pid("example-worker"), service.main_pid()
    assert before["agent_version"] == OLDER
    *install, switch = manual("Upgrade", 0)
    service.sh(*install)
    service.pool(61)
    eventually(lambda: worker_has(service, before["version"] + 1, 61), "the old agent is not disturbed by it")
    assert service.main_pid() == agent
    service.sh(switch)
    _, after = service.status()
    assert after["agent_version"] == NEWER
    assert (after["version"], after["epoch"]) == (before["version"] + 1, before["epoch"])
    service.pool(62)
    eventually(lambda: worker_has(service, before["version"] + 2, 62), "the worker goes on")
    assert service.main_pid("example-worker") == worker
    service.sh(switch.replace(NEWER, OLDER))  # and back
    assert service.status()[1]["agent_version"] == OLDER
    assert service.status()[1]["version"] == before["version"] + 2


def test_after_a_reboot_with_broken_files_the_last_good_version_is_served_and_called_stale(
    service: ServiceHost, eventually: Eventually, tell: Callable[[str], None]
) -> None:
    service.pool(71)
    eventually(lambda: service.shmconf("get", "web", "db.pool.size").stdout == "71\n", "published")
    before = service.version()
    check, enable = manual("Install", 1)
    service.sh(check, enable, "systemctl enable example-worker")
    service.break_files()
    eventually(lambda: service.status()[0] == 3, "rejected")
    service.box.power_off()
    seconds = service.box.boot()
    tell(f"boot {service.boot_seconds:.1f} s, with the service {seconds:.1f} s")
    assert service.box.show("shmconf", "ActiveState") == "active"
    code, status = service.status()
    assert code == 3
    assert status["stale"] is True
    assert status["version"] >= before
    assert service.shmconf("get", "web", "db.pool.size").stdout == "71\n"
    assert "local.yaml:2:1" in service.box.show("shmconf", "StatusText")
    eventually(lambda: worker_has(service, status["version"], 71), "the worker, started at boot, has it")
    service.pool(72)
    eventually(lambda: worker_has(service, status["version"] + 1, 72), "and the repaired files after it")
    assert service.status()[0] == 0


def test_a_rollback_is_held_over_a_restart_and_a_reboot(service: ServiceHost, eventually: Eventually) -> None:
    host = service
    host.pool(81)
    host.box.systemctl("reload", "shmconf")
    good = host.version()
    host.pool(82)
    host.box.systemctl("reload", "shmconf")
    back = host.shmconf("rollback", "web", str(good))
    assert back.returncode == 0, back.stdout + back.stderr
    held = host.version()
    assert held > good + 1
    eventually(lambda: worker_has(host, held, 81), "the worker has it")

    def is_held() -> bool:
        code, status = host.status()
        return code == 0 and status["hold"] is not None and status["hold"]["version"] == good

    def says_so() -> bool:
        return f"HELD: a rollback of version {good} by root" in host.box.show("shmconf", "StatusText")

    eventually(is_held, host.status)
    eventually(says_so, lambda: host.box.show("shmconf", "StatusText"))
    assert host.box.systemctl("reload", "shmconf", check=False).returncode != 0
    host.box.systemctl("restart", "shmconf")
    eventually(lambda: is_held() and says_so(), host.status)
    assert host.version() == held
    host.sh(manual("Install", 1)[1], "systemctl enable example-worker")
    host.box.power_off()
    host.box.boot()
    eventually(lambda: is_held() and says_so(), host.status)
    assert host.shmconf("get", "web", "db.pool.size").stdout == "81\n"
    assert host.box.systemctl("reload", "shmconf", check=False).returncode != 0
    resumed = host.shmconf("resume", "web")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert host.shmconf("get", "web", "db.pool.size").stdout == "82\n"
    assert host.status()[1]["hold"] is None
    host.box.systemctl("reload", "shmconf")


def test_type_notify_reload_gives_the_verdict_as_well(service: ServiceHost, eventually: Eventually) -> None:
    number = systemd_number(service)
    if number < 253:
        packages = os.environ.get("SHMCONF_NEWER_SYSTEMD")
        if not packages:
            pytest.skip(f"Type=notify-reload is of systemd 253, this is {number}; .ci/run has SHMCONF_NEWER_SYSTEMD")
        service.replace_systemd(Path(packages))
        assert systemd_number(service) >= 253
    service.sh(*manual("systemd 253 and newer", 0))
    service.box.systemctl("restart", "shmconf")
    assert service.box.show("shmconf", "Type") == "notify-reload"
    before, agent = service.version(), service.main_pid()
    service.pool(26)
    service.box.systemctl("reload", "shmconf")
    assert service.version() == before + 1
    eventually(lambda: service.box.show("shmconf", "ActiveState") == "active", "the end of the reload")
    service.break_files()
    assert service.box.systemctl("reload", "shmconf", check=False).returncode != 0
    eventually(lambda: service.box.show("shmconf", "ActiveState") == "active", "the end of the refused one")
    assert service.main_pid() == agent
    assert service.status()[0] == 3


def systemd_number(host: ServiceHost) -> int:
    return int(host.box.show("", "Version").split()[0].split(".")[0])
