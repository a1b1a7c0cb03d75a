"""What the doctor makes of limits, mounts, directories and segments, each given as it should not be."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from shmconf import codec
from shmconf.directories import Directory
from shmconf.document import Document
from shmconf.writer import Writer
from shmconf_agent import cli_doctor, trial
from shmconf_agent.config import AgentConfig, SegmentConfig, Source, Substitution
from shmconf_agent.doctor import examine
from shmconf_agent.doctor_finding import Finding, Level, Topic, unique
from shmconf_agent.doctor_limits import Need, Usage, examine_limits, inotify_usage
from shmconf_agent.doctor_places import examine_places, runtime_directory
from shmconf_agent.doctor_segment import examine_segment
from shmconf_agent.doctor_sources import examine_sources
from shmconf_agent.mounts import Mount
from shmconf_agent.problems import Code
from shmconf_agent.progress import Progress
from shmconf_agent.watch import Watcher

ROOT = Path(__file__).parents[3]
NOTHING = Usage(0, 0)


def segment(base: Path, *sources: str, name: str = "web") -> SegmentConfig:
    return SegmentConfig(name, base, tuple(map(Source, sources)))


def about(findings: list[Finding], topic: Topic) -> list[Finding]:
    return [finding for finding in findings if finding.topic is topic]


def test_every_topic_is_documented_once_and_used() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/doctor.md").read_text("utf-8"), re.MULTILINE)
    levels = [level.word for level in Level]
    assert sorted(set(documented) - set(levels)) == sorted(documented[len(levels) :]) == sorted(map(str, Topic))
    rooms = [*(ROOT / "agent/shmconf_agent").glob("doctor*.py"), ROOT / "agent/shmconf_agent/cli_doctor.py"]
    text = "\n".join(room.read_text("utf-8") for room in rooms)
    assert {topic.name for topic in Topic} == set(re.findall(r"Topic\.([A-Z_]+)", text))


def test_what_segments_share_is_told_once_and_at_its_worst() -> None:
    good, bad = (Finding(level, Topic.SELF_TEST, "/a", level.word) for level in (Level.OK, Level.FAILURE))
    other = Finding(Level.OK, Topic.SELF_TEST, "/b", "heard")
    first, second = (Finding(Level.WARNING, Topic.AGENT_WARNING, "segment web", text) for text in ("one", "two"))
    assert unique([good, other, bad, first, second, first]) == [bad, other, first, second]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Callable[..., Path]:
    def write(**limits: int) -> Path:
        for name, limit in limits.items():
            folder = tmp_path / ("fs/inotify" if name.startswith("max_user") else "user")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{limit}\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("limit", "used", "need", "running", "level"),
    [
        (100, 0, 100, False, Level.OK),
        (100, 1, 100, False, Level.WARNING),
        (100, 100, 100, True, Level.OK),  # it is the agent who has them
        (99, 99, 100, True, Level.WARNING),
    ],
)
def test_watches_against_what_is_needed(
    system: Callable[..., Path], limit: int, used: int, need: int, running: bool, level: Level
) -> None:
    table = system(max_user_watches=limit, max_user_instances=8)
    found = examine_limits(Need(1, need, running), table, Usage(0, used))
    [watches], [instances] = about(found, Topic.INOTIFY_WATCHES), about(found, Topic.INOTIFY_INSTANCES)
    assert (watches.level, instances.level) == (level, Level.OK)
    assert (watches.advice is not None) == (level is Level.WARNING)
    if watches.advice:
        assert int(re.findall(r"max_user_watches=(\d+)", watches.advice)[0]) >= need + used


def test_the_limit_of_a_containers_own_namespace_counts(system: Callable[..., Path]) -> None:
    table = system(max_user_watches=8192, max_user_instances=128, max_inotify_instances=2)
    [instances] = about(examine_limits(Need(3, 9, False), table, NOTHING), Topic.INOTIFY_INSTANCES)
    assert instances.level is Level.WARNING
    assert instances.message.startswith("2 for this user")


def test_where_the_system_has_no_inotify_nothing_is_said_of_its_limits(tmp_path: Path) -> None:
    assert [finding.topic for finding in examine_limits(Need(1, 1, False), tmp_path, NOTHING)] == [Topic.OPEN_FILES]


def test_open_files_of_this_process_or_of_the_agent(system: Callable[..., Path]) -> None:
    for agents in ((), (os.getpid(),)):
        [found] = about(examine_limits(Need(1, 1, False, agents), system(), NOTHING), Topic.OPEN_FILES)
        assert found.level is Level.OK
        assert ("the agent" in found.message) == bool(agents)
    [found] = about(examine_limits(Need(10**9, 1, False), system(), NOTHING), Topic.OPEN_FILES)
    assert found.level is Level.WARNING
    assert "LimitNOFILE=" in str(found.advice)


def test_what_this_user_has_of_inotify_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1")
    mine = Path("/proc/self")

    def used() -> Usage:  # of this process alone, as others come and go
        (tmp_path / "proc").mkdir(exist_ok=True)
        link = tmp_path / "proc" / "1"
        if not link.is_symlink():
            link.symlink_to(mine)
        return inotify_usage(os.geteuid(), tmp_path / "proc")

    before = used()
    with contextlib.closing(Watcher()) as watcher:
        watcher.follow(trial.look_now(segment(tmp_path, "a.yaml")).directories)
        after = used()
    assert (after.instances - before.instances, after.watches > before.watches) == (1, True)
    assert inotify_usage(os.geteuid() + 1, tmp_path / "proc") == NOTHING


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("a: 1\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.yaml").write_text("b: 1\n")
    return tmp_path.resolve()


def test_a_good_place_is_proved_and_left_as_it_was(site: Path) -> None:
    watching = examine_sources([segment(site, "base.yaml", "conf.d/")], [Mount(1, "/", "ext4")])
    assert {finding.level for finding in watching.findings} == {Level.OK}
    proved = about(watching.findings, Topic.SELF_TEST)
    assert [finding.where for finding in proved] == [str(site), str(site / "conf.d")]
    assert all("was heard after" in finding.message for finding in proved)
    assert watching.watches >= 2
    assert sorted(os.listdir(site)) == ["base.yaml", "conf.d"]
    assert os.listdir(site / "conf.d") == ["b.yaml"]


@pytest.mark.parametrize(
    ("kind", "level"),
    [("nfs4", Level.WARNING), ("cifs", Level.WARNING), ("fuse.sshfs", Level.WARNING), ("fuseblk", Level.OK),
     ("overlay", Level.WARNING), ("tmpfs", Level.OK)],
)  # fmt: skip
def test_the_file_system_of_each_directory_is_named(site: Path, kind: str, level: Level) -> None:
    table = [Mount(1, "/", "ext4"), Mount(2, str(site / "conf.d"), kind)]
    found = about(examine_sources([segment(site, "base.yaml", "conf.d/")], table).findings, Topic.FILE_SYSTEM)
    assert [(finding.where, finding.level) for finding in found] == [
        (str(site), Level.OK),
        (str(site / "conf.d"), level),
    ]
    assert f"is on {kind}" in found[1].message
    assert (found[1].advice is not None) == (level is Level.WARNING)


def test_a_file_mounted_on_its_own_is_a_failure_and_a_warning_of_check(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "link.yaml").symlink_to("base.yaml")
    table = [Mount(1, "/", "ext4"), Mount(2, str(site / "base.yaml"), "ext4")]
    config = segment(site, "link.yaml", "conf.d/")
    [found] = about(examine_sources([config], table).findings, Topic.FILE_MOUNTED)
    assert (found.level, found.where) == (Level.FAILURE, str(site / "base.yaml"))
    monkeypatch.setattr(trial, "mounts", lambda: table)
    tried = trial.try_segment(config, Progress())
    assert tried.problems == ()
    [warning] = tried.warnings
    assert (warning.code, warning.file, warning.line) == (Code.FILE_MOUNTED, "link.yaml", None)
    assert "never seen" in str(warning)


def test_what_sources_refer_to_and_what_is_not_there(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (site / "secrets").mkdir()
    (site / "secrets" / "there").write_text("hunter2")
    (site / "base.yaml").write_text(
        "a: ${file:secrets/there}\nb: ${file:secrets/gone}\nc: ${file:secrets/gone:-none}\nd: ${credential:key}\n"
        "e: ${env:SHMCONF_TEST_GONE}\nf: ${file:/etc/hostname}\n"
    )
    substitution = Substitution(("SHMCONF_TEST_GONE",), ("secrets",))
    config = dataclasses.replace(segment(site, "base.yaml"), substitution=substitution)
    findings = examine_sources([config], [Mount(1, "/", "ext4")]).findings
    found = {each.where: each for each in about(findings, Topic.SOURCE) if each.level}
    assert {where: each.level for where, each in found.items()} == {
        "base.yaml:2:4": Level.FAILURE, "base.yaml:4:4": Level.NOTE, "base.yaml:5:4": Level.NOTE,
        "base.yaml:6:4": Level.FAILURE,
    }  # fmt: skip
    assert "${file:secrets/gone} does not exist" in found["base.yaml:2:4"].message
    assert "hunter2" not in str(findings)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site))  # now it is the file that is not there
    findings = examine_sources([config], [Mount(1, "/", "ext4")]).findings
    assert {each.where: each.level for each in findings}["base.yaml:4:4"] is Level.FAILURE


def test_the_agents_file_mounted_on_its_own_is_a_warning(site: Path) -> None:
    file = site / "shmconf.toml"
    file.write_text("")
    config = AgentConfig(file, None, None, (segment(site, "base.yaml"),))
    table = [Mount(1, "/", "ext4"), Mount(2, str(file), "ext4")]
    found = examine(config, [Directory(site / "run", named=True)], site / "state", table)
    assert [(each.level, each.where) for each in about(found, Topic.FILE_MOUNTED)] == [(Level.WARNING, str(file))]


def test_sources_that_cannot_be_read_are_failures(site: Path) -> None:
    os.mkfifo(site / "pipe.yaml")
    found = about(examine_sources([segment(site, "none.yaml", "pipe.yaml", "*.toml")], []).findings, Topic.SOURCE)
    assert [(finding.level, finding.where) for finding in found] == [
        (Level.FAILURE, "none.yaml"), (Level.FAILURE, "pipe.yaml"), (Level.FAILURE, "*.toml"),
    ]  # fmt: skip


def test_a_file_system_that_hangs_is_a_failure(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmconf_agent.doctor_sources._HANGING_S", 0.2)
    monkeypatch.setattr("shmconf_agent.self_test.SelfTests._make_all", lambda self: None)
    found = about(examine_sources([segment(site, "base.yaml")], []).findings, Topic.SELF_TEST)
    assert [finding.level for finding in found] == [Level.FAILURE]
    assert "hangs" in found[0].message


# --- the runtime and the state directory ------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A directory of a user who is not root, and their rights for as long as the test lasts."""
    with tempfile.TemporaryDirectory() as name:
        user = os.geteuid()
        os.chmod(name, 0o755)
        if user == 0:
            os.chown(name, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


def levels(runtime: Path, state: Path, topic: Topic, *, named: bool = True) -> list[Level]:
    return [finding.level for finding in about(examine_places(Directory(runtime, named), state), topic)]


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o755, Level.OK), (0o775, Level.FAILURE), (0o555, Level.FAILURE), (0o700, Level.WARNING)]
)
def test_the_runtime_directory(nobody: Path, mode: int, expected: Level) -> None:
    run = nobody / "run"
    run.mkdir()
    run.chmod(mode)
    assert levels(run, nobody / "state", Topic.RUNTIME_DIR) == [expected]


@pytest.mark.parametrize(("mode", "expected"), [(0o700, Level.OK), (0o770, Level.WARNING), (0o500, Level.WARNING)])
def test_the_state_directory(nobody: Path, mode: int, expected: Level) -> None:
    state = nobody / "state"
    state.mkdir()
    state.chmod(mode)
    assert levels(nobody / "run", state, Topic.STATE_DIR) == [expected]


def test_directories_that_are_not_there(nobody: Path) -> None:
    deep = nobody / "not" / "there"
    assert levels(nobody / "run", deep, Topic.RUNTIME_DIR) == [Level.NOTE]
    assert levels(deep, deep, Topic.RUNTIME_DIR) == [Level.FAILURE]  # an agent makes no parents of it
    assert levels(nobody / "run", deep, Topic.STATE_DIR) == [Level.NOTE]
    assert levels(nobody / "run", Path("/proc/none/state"), Topic.STATE_DIR) == [Level.WARNING]
    assert not deep.parent.exists()


def test_a_file_in_place_of_a_directory_and_one_directory_for_both(nobody: Path) -> None:
    file = nobody / "file"
    file.touch()
    assert levels(file, file, Topic.RUNTIME_DIR) == [Level.FAILURE]
    assert levels(nobody, file, Topic.STATE_DIR) == [Level.WARNING]
    assert Level.FAILURE in levels(nobody, nobody, Topic.STATE_DIR)


def test_the_first_place_that_can_be_used_is_taken(nobody: Path) -> None:
    own = nobody / "own"
    own.mkdir(mode=0o700)
    open_ = nobody / "open"
    open_.mkdir(mode=0o755)
    places = [Directory(Path("/proc/none"), named=True), Directory(open_, named=False), Directory(own, named=False)]
    assert runtime_directory(places) == places[2]
    assert runtime_directory(places[:2]) == places[0]
    assert levels(open_, nobody / "state", Topic.RUNTIME_DIR, named=False) == [Level.FAILURE]


# --- segments ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    (tmp_path / "run").mkdir(mode=0o755)
    return Directory(tmp_path / "run", named=True)


def test_a_segment_is_verified_and_damage_is_found(place: Directory, tmp_path: Path) -> None:
    def found() -> list[Finding]:
        return about(examine_segment("web", [place], tmp_path / "state"), Topic.SEGMENT)

    assert [finding.level for finding in examine_segment("web", [place], tmp_path / "state")] == [Level.NOTE]
    payload = codec.pack({"key": "a value that is easily found " * 20})
    with contextlib.closing(Writer(place, "web", state_directory=tmp_path / "state")) as writer:
        assert [finding.level for finding in found()] == [Level.NOTE]
        writer.publish(payload)
        assert [finding.level for finding in found()] == [Level.OK]
        path = place.path / "web.shmconf"
        where = path.read_bytes().index(payload)
        with path.open("r+b") as file:
            file.seek(where + 100)
            file.write(b"X")
        [damaged] = found()
        assert (damaged.level, damaged.where) == (Level.FAILURE, str(path))
        assert "is damaged" in damaged.message
        path.chmod(0o666)
        [untrusted] = examine_segment("web", [place], tmp_path / "state")
        assert untrusted.level is Level.FAILURE
        assert "writable" in untrusted.message


def test_a_digest_that_is_not_the_payloads_is_damage(place: Directory, tmp_path: Path) -> None:
    with contextlib.closing(Writer(place, "web", state_directory=tmp_path / "state")) as writer:
        document = Document.of(codec.pack({"a": 1}))
        writer.publish(Document(document.payload, "0" * 64, document.index))
        [found] = about(examine_segment("web", [place], tmp_path / "state"), Topic.SEGMENT)
    assert found.level is Level.FAILURE
    assert "digest" in found.message


# --- how it is shown --------------------------------------------------------------------------------------------------

SHOWN = [
    Finding(Level.OK, Topic.LIBYAML, "PyYAML", "has libyaml"),
    Finding(Level.WARNING, Topic.FILE_SYSTEM, f"/srv/{'x' * 90}", "is on nfs4: " + "words " * 30, "do this"),
    Finding(Level.FAILURE, Topic.SOURCE, "base.yaml", "does not exist", "create it"),
]


def test_a_table_fits_80_columns_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(cli_doctor, "console", lambda: Console(file=shown, width=80, force_terminal=True))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli_doctor.report(SHOWN, "text") == 1
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    told = "".join(line[8:].strip() for line in lines)
    for finding in SHOWN:
        assert finding.where in told
    assert [line.split()[0] for line in lines if not line.startswith("   ")] == ["ok", "warning", "failure"]


def test_a_directory_in_which_all_is_well_has_one_line(capsys: pytest.CaptureFixture[str], site: Path) -> None:
    table = [Mount(1, "/", "ext4"), Mount(2, str(site / "conf.d"), "nfs4")]
    findings = examine_sources([segment(site, "base.yaml", "conf.d/")], table).findings
    cli_doctor.report(findings, "text")
    lines = [line for line in capsys.readouterr().out.splitlines() if f": {site}" in line]
    assert [line.split(": ")[:2] for line in lines] == [
        ["warning", str(site / "conf.d")], ["ok", str(site)], ["ok", str(site / "conf.d")]
    ]  # fmt: skip
    assert lines[1].endswith("; it is on ext4")
    cli_doctor.report(findings, "json")
    told = json.loads(capsys.readouterr().out)["findings"]
    assert [each["topic"] for each in told if each["where"] == str(site)] == ["file-system", "self-test"]


def test_plain_lines_are_one_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_doctor.report(SHOWN[:2], "text") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "ok: PyYAML: has libyaml"
    assert len(shown.out.splitlines()) == 2
    assert shown.err == "shmconf: 0 failures, 1 warning\n"
