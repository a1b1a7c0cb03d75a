"""`shmconf doctor` through the real command: on a good place, beside a running agent, and on real obstacles."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import Any

import pytest


class Diagnosis:
    """What one run of the doctor told."""

    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in result.stderr, result.stderr
        self.code = result.returncode
        self.told: dict[str, Any] = json.loads(result.stdout)

    def levels(self, topic: str) -> list[str]:
        return [each["level"] for each in self.all(topic)]

    def all(self, topic: str) -> list[dict[str, Any]]:
        return [each for each in self.told["findings"] if each["topic"] == topic]

    def one(self, topic: str) -> dict[str, Any]:
        [found] = self.all(topic)
        return found

    def worst(self) -> set[str]:
        """The topics that are warnings or failures, but for what the machine of the tests may lack."""
        bad = {each["topic"] for each in self.told["findings"] if each["level"] in ("warning", "failure")}
        return bad - {"libyaml", "native", "file-system"}


def doctor(home, *arguments: str, **settings: Any) -> Diagnosis:
    return Diagnosis(home.run("doctor", "--format", "json", *arguments, **settings))


def mounted(home, mount: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a mount namespace of its own, after `mount`, which is typed into a shell."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{mount}\nexec {shlex.join(home.command(*arguments))}"],
        cwd=home.root,
        env=home.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def web(home):
    home.write("base.yaml", "a: 1\n")
    home.write("conf.d/b.yaml", "b: 1\n")
    home.segment("base.yaml", "conf.d/")
    return home


def test_a_good_place_without_an_agent(web):
    diagnosis = doctor(web)
    assert (diagnosis.code, diagnosis.told["healthy"]) == (0, True), diagnosis.told
    assert diagnosis.worst() == set()
    assert diagnosis.levels("self-test") == ["ok", "ok"]
    assert diagnosis.levels("agent") == ["note"]
    assert not web.runtime.exists()
    assert not web.state.exists()
    assert sorted(os.listdir(web.root / "conf.d")) == ["b.yaml"]


def test_lines_where_it_is_no_terminal_and_sources_on_the_command_line(web):
    result = web.run("doctor", "--segment", "web", "base.yaml", "conf.d/")
    assert result.returncode == 0
    assert f"ok: {web.root}/conf.d: a change was heard after " in result.stdout
    assert "shmconf: 0 failures, " in result.stderr
    assert web.run("doctor", "base.yaml").returncode == 2


def test_beside_a_running_agent_which_is_not_disturbed(web):
    web.segment("conf.d/*", name="all")
    agent = web.start()
    readers = [web.attach(), web.attach("all")]
    diagnosis = doctor(web)
    assert diagnosis.code == 0, diagnosis.told
    assert diagnosis.worst() <= {"agent-warning"}, diagnosis.told
    assert diagnosis.levels("agent") == diagnosis.levels("segment") == ["ok", "ok"]
    assert all(f"process {agent.pid}," in each["message"] for each in diagnosis.all("agent"))
    for reader in readers:  # what the doctor's files might have caused would have come before the answer
        assert web.run("reload", reader.status().name).returncode == 0
        assert reader.version == 1
    agent.says("all: version 1 published")
    agent.says("web: version 1 published")
    assert agent.text().count("published") == 2


def test_what_a_running_agent_says_and_a_dead_one(web, eventually):
    agent = web.start()
    web.attach()
    web.write("base.yaml", "a: [\n")
    eventually(lambda: web.status()[1]["last_error"], "a rejection")
    diagnosis = doctor(web)
    assert (diagnosis.code, diagnosis.levels("rejected")) == (0, ["warning"])
    agent.kill()
    eventually(lambda: not web.status()[1]["agent_alive"], "the heartbeat is missed")
    diagnosis = doctor(web)
    assert (diagnosis.code, diagnosis.levels("agent")) == (0, ["warning"])


def test_a_candidate_that_the_guard_holds(home, eventually):
    home.write("base.yaml", "a: 1\n")
    home.segment("base.yaml")
    with (home.root / "shmconf.toml").open("a") as file:
        file.write('[segment.web.guard]\nfrozen = ["a"]\n')
    home.start()
    home.attach()
    home.write("base.yaml", "a: 2\n")
    held = eventually(lambda: home.status()[1]["held"], "the guard holds it")
    diagnosis = doctor(home)
    found = diagnosis.one("rejected")
    assert (diagnosis.code, found["level"]) == (0, "warning")
    assert f"--accept {held[:8]}" in found["advice"]


def test_names_that_are_no_text_or_hold_a_line_end(home):
    directory = os.fsencode(home.root) + b"/od\nd\xff"
    os.mkdir(directory)
    with open(directory + b"/a.yaml", "wb") as file:
        file.write(b"a: 1\n")
    home.segment("od*/a.yaml")
    told = home.run("doctor", "--format", "json").stdout  # decoded as UTF-8, strictly
    assert f"{home.root}/od\nd\\xff" in {finding["where"] for finding in json.loads(told)["findings"]}
    lines = home.run("doctor").stdout.splitlines()
    assert all(line.startswith(("ok: ", "note: ", "warning: ", "failure: ")) for line in lines), lines
    assert any(line.startswith(f"ok: {home.root}/od\\nd\\xff: a change was heard") for line in lines), lines


def test_a_commit_file_that_is_not_there(home):
    home.write("base.yaml", "a: 1\n")
    home.segment("base.yaml")
    with (home.root / "shmconf.toml").open("a") as file:
        file.write('commit = "stamp"\n')
    diagnosis = doctor(home)
    [found] = [each for each in diagnosis.all("source") if each["where"] == "stamp"]
    assert (diagnosis.code, found["level"]) == (0, "warning")
    assert found["message"].startswith("does not exist, and nothing is published until")
    home.write("stamp", "")
    assert doctor(home).levels("source") == ["ok"]


def test_valid_files_that_find_no_room(home, eventually):
    home.write("base.yaml", f"a: {'x' * 700_000}\n")
    home.segment("base.yaml")
    with (home.root / "shmconf.toml").open("a") as file:
        file.write('max_bytes = "1MiB"\n')
    home.start()
    home.attach()
    home.write("base.yaml", f"a: {'y' * 700_000}\n")
    eventually(lambda: home.status()[1]["last_error"], "there is no room for it")
    diagnosis = doctor(home)
    found = diagnosis.one("rejected")
    assert (diagnosis.code, found["level"]) == (0, "warning")
    assert "cannot be published: no room" in found["message"]
    assert "max_bytes" in found["advice"]
    assert "check" not in found["advice"]


def test_a_version_that_is_not_kept_is_not_said_to_be(web, eventually):
    agent = web.start()
    web.attach()
    history = web.state / "web.history"
    eventually(lambda: list(history.glob("*.version")), "version 1 is kept")
    first = {file: file.read_bytes() for file in history.iterdir()}
    web.write("base.yaml", "a: 2\n")
    eventually(lambda: len(list(history.glob("*.version"))) == 2, "version 2 is kept")
    assert doctor(web).levels("last-known-good") == ["ok"]
    agent.kill()
    for file in set(history.iterdir()) - set(first):
        file.unlink()
    found = doctor(web).one("last-known-good")
    assert found["level"] == "note"
    assert "version 1 is kept whole" in found["message"]
    assert "version 2, which is served, is not kept" in found["message"]


def test_an_invalid_agents_file(web):
    web.segment("base.yaml", name="other", sourcs=["x"])
    diagnosis = doctor(web)
    assert (diagnosis.code, diagnosis.told["healthy"]) == (78, False)
    found = diagnosis.one("agent-file")
    assert found["where"].startswith("shmconf.toml:")
    assert "did you mean 'sources'?" in found["advice"]
    assert web.run("doctor").returncode == 78


def test_files_mounted_on_their_own(web, require):
    require(os.geteuid() == 0 and mounted(web, "true", "--version").returncode == 0, "mount namespaces")
    other = web.root / "other.yaml"
    other.write_text("a: 1\n")
    bind = f"mount --bind {other} {web.root}/base.yaml"
    diagnosis = Diagnosis(mounted(web, bind, "doctor", "--format", "json"))
    found = diagnosis.one("file-mounted")
    assert (diagnosis.code, found["level"], found["where"]) == (1, "failure", str(web.root / "base.yaml"))
    assert "never seen" in found["message"]
    assert "mount its directory" in found["advice"]
    checked = mounted(web, bind, "check")
    assert checked.returncode == 0, checked.stderr
    [line] = checked.stdout.splitlines()
    assert line.startswith("base.yaml: warning: is mounted as a single file")
    bound = mounted(web, f"mount --bind {web.root}/conf.d {web.root}/conf.d", "doctor", "--format", "json")
    assert Diagnosis(bound).code == 0  # a directory's mount is as it should be


def test_sources_on_overlay(home, require):
    home.write("lower/a.yaml", "a: 1\n")
    for name in ("upper", "work", "conf.d"):
        (home.root / name).mkdir()
    home.segment("conf.d/")
    # On a tmpfs, as an overlay has to lie on something that is no overlay itself.
    mount = f"""
        mount -t tmpfs none {home.root}/work
        mkdir {home.root}/work/u {home.root}/work/w
        mount -t overlay overlay -o lowerdir={home.root}/lower,upperdir={home.root}/work/u,workdir={home.root}/work/w \
            {home.root}/conf.d"""
    possible = os.geteuid() == 0 and mounted(home, mount, "--version").returncode == 0
    require(possible, "root, and overlay in the kernel")
    diagnosis = Diagnosis(mounted(home, mount, "doctor", "--format", "json"))
    found = diagnosis.one("file-system")
    assert (diagnosis.code, found["level"], found["where"]) == (0, "warning", str(home.root / "conf.d"))
    assert found["message"].startswith("is on overlay: changes made below it")
    assert diagnosis.levels("self-test") == ["ok"]


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_limits_that_are_really_met(web, limited, limit):
    diagnosis = doctor(web, before=limited(limit, 0))
    assert diagnosis.code == 1
    assert diagnosis.levels("events") == ["failure"]
    assert f"no more inotify {limit}" in diagnosis.one("events")["message"]
    assert f"fs.inotify.max_user_{limit}" in diagnosis.one("events")["advice"]
    assert diagnosis.levels(f"inotify-{limit}") == ["warning"]


FEW_FILES = """
import importlib, resource
for name in ('cli_doctor', 'doctor', 'inotify'):  # imports open files, too
    importlib.import_module('shmconf_agent.' + name)
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))  # two beside the standard streams, and inotify needs three
"""


def test_a_limit_of_open_files_that_is_really_met(web):
    diagnosis = doctor(web, before=FEW_FILES)
    assert (diagnosis.code, diagnosis.levels("events"), diagnosis.levels("open-files")) == (1, ["failure"], ["warning"])
    assert "open files" in diagnosis.one("events")["advice"]
    assert "LimitNOFILE=" in diagnosis.one("open-files")["advice"]


def test_limits_that_a_running_agent_does_not_meet_are_a_warning(web, limited):
    web.start()
    web.attach()
    diagnosis = doctor(web, before=limited("instances", 0))
    assert (diagnosis.code, diagnosis.levels("events")) == (0, ["warning"])


def test_a_running_agent_that_meets_them_is_a_failure(web, limited, eventually):
    web.start(before=limited("instances", 0))
    web.attach()
    eventually(lambda: web.status()[1]["warnings"], "the agent's warning")
    diagnosis = doctor(web, before=limited("instances", 0))
    assert (diagnosis.code, diagnosis.levels("events")) == (1, ["failure"])
    assert "inotify instances" in diagnosis.one("agent-warning")["message"]


def test_directories_that_are_deaf(web, deaf):
    diagnosis = doctor(web, before=deaf)
    assert diagnosis.code == 1
    assert diagnosis.levels("self-test") == ["failure", "failure"]
    assert sorted(os.listdir(web.root / "conf.d")) == ["b.yaml"]


def test_as_a_user_who_may_not_write_or_read(open_home, as_nobody):
    for name in ("base.yaml", "conf.d/b.yaml"):
        open_home.write(name, "a: 1\n").parent.chmod(0o755)
    open_home.segment("base.yaml", "conf.d/")
    diagnosis = doctor(open_home, before=as_nobody)
    assert diagnosis.code == 0, diagnosis.told
    assert diagnosis.levels("self-test") == ["note", "note"]
    assert all("(permission denied)" in each["message"] for each in diagnosis.all("self-test"))
    (open_home.root / "base.yaml").chmod(0o600)
    diagnosis = doctor(open_home, before=as_nobody)
    assert (diagnosis.code, diagnosis.levels("source")) == (1, ["failure"])
    assert diagnosis.one("source")["where"] == "base.yaml"
    (open_home.root / "conf.d").chmod(0o700)
    diagnosis = doctor(open_home, before=as_nobody)
    assert (diagnosis.code, diagnosis.levels("source")) == (1, ["failure", "failure"])


def test_asked_by_another_user_than_the_agents(open_home, as_nobody):
    open_home.write("base.yaml", "a: 1\n")
    open_home.segment("base.yaml")
    open_home.start(before=as_nobody)
    open_home.attach()
    found = doctor(open_home).one("user")
    assert found["level"] == "warning"
    assert "nobody" in found["advice"]


def test_damage_of_what_is_published_and_kept(web, eventually):
    agent = web.start()
    reader = web.attach()
    [kept] = eventually(lambda: list((web.state / "web.history").glob("*.version")), "the last known good is kept")
    assert doctor(web).levels("last-known-good") == ["ok"]
    payload = reader.snapshot().payload
    agent.stop()
    path = web.runtime / "web.shmconf"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.index(payload))
        file.write(bytes(len(payload)))
    kept.write_bytes(kept.read_bytes()[:-1])
    diagnosis = doctor(web)
    assert diagnosis.code == 1
    assert diagnosis.levels("segment") == ["failure"]
    assert diagnosis.levels("last-known-good") == ["warning"]


def test_what_the_installation_lacks(web):
    without = doctor(web, before="import sys; sys.modules['yaml._yaml'] = None", SHMCONF_PURE="1")
    assert (without.code, without.levels("libyaml"), without.levels("native")) == (0, ["warning"], ["warning"])
    assert "SHMCONF_PURE" in without.one("native")["message"]


def test_a_table_on_a_terminal(web):
    script = f"stty cols 80; {shlex.join(web.command('doctor'))}"
    output = web.root / "typescript"
    code = f"import pty, sys; sys.exit(pty.spawn(['sh', '-c', {script!r}], lambda fd: __import__('os').read(fd, 4096)))"
    with output.open("wb") as sink:
        subprocess.run(
            [sys.executable, "-c", code], cwd=web.root, env=web.environment(TERM="xterm"), stdin=subprocess.DEVNULL,
            stdout=sink, timeout=120, check=True,
        )  # fmt: skip
    shown = output.read_text()
    assert "\x1b[32mok" in shown
    assert "a change was heard after" in " ".join(shown.split())
