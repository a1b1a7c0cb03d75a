"""With a commit path nothing but its change publishes, whatever happens to the files, also across a restart."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf.directories import Directory
from shmconf_agent import commit as commit_module
from shmconf_agent.commit import CommittedFiles, RecordFile
from shmconf_agent.commit_mark import Record
from shmconf_agent.config import SegmentConfig, Source, Substitution
from shmconf_agent.events import Event, Published, Rejected, Said
from shmconf_agent.guard_settings import GuardSettings
from shmconf_agent.progress import Progress
from shmconf_agent.reconcile import Reconciler
from shmconf_agent.reload import Reload, Verdict
from shmconf_agent.settle import QUIET_S
from shmconf_agent.sources import SourceFiles
from shmconf_agent.trial import try_segment
from shmconf_agent.view import View
from shmconf_agent.watch import Hint, Kind, Watcher


def until(condition: Callable[[], Any], what: object) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


class Site:
    """Agents, one after the other, for the files a.yaml and b.yaml, and the path `stamp` that commits them."""

    def __init__(self, root: Path) -> None:
        self.root, self.run, self.state = root, root / "run", root / "state"
        self.run.mkdir(mode=0o755)
        self.stamp = root / "stamp"
        self.said: list[Event] = []
        self.made: list[Reconciler] = []
        self.settings: dict[str, Any] = {"commit": "stamp"}

    @property
    def config(self) -> SegmentConfig:
        return SegmentConfig("web", self.root, (Source("a.yaml"), Source("b.yaml")), **self.settings)

    def start(self) -> Reconciler:
        agent = Reconciler(self.config, Directory(self.run, named=True), self.state, self.said.append)
        self.made.append(agent)
        agent.start()
        return agent

    def stop(self) -> None:
        self.made[-1].stop(60)
        assert self.made[-1].has_ended()

    def write(self, name: str, text: str) -> None:
        aside = self.root / ".aside"
        aside.write_text(text)
        aside.rename(self.root / name)

    def reload(self, accept: str | None = None) -> Verdict:
        done = threading.Event()
        asked = Reload("web", done.set, accept=accept)
        for question in asked.begin({"web": self.made[-1].version}, ()):
            self.made[-1].ask(question)
        assert done.wait(60)
        [verdict] = asked.verdicts()
        return verdict

    def attach(self) -> shmconf.Reader:
        return shmconf.attach("web", directory=self.run, wait=60)

    def published(self) -> int:
        return sum(isinstance(event, Published) for event in self.said)

    def rejections(self) -> list[str]:
        return [str(event.problems[0]) for event in self.said if isinstance(event, Rejected)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.write("a.yaml", "a: 1\n")
    made.write("b.yaml", "b: 1\n")
    yield made
    for agent in made.made:
        agent.stop(60)


@pytest.fixture
def served(site: Site) -> Iterator[tuple[Site, shmconf.Reader]]:
    """An agent that serves version 1 of them, and a reader."""
    site.write("stamp", "1")
    site.start()
    with site.attach() as reader:
        until(lambda: site.made[-1].version == 1, "version 1")
        yield site, reader


def test_edits_wait_for_the_commit_and_are_served_together(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: 2\n")
    verdict = site.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 1, "stamp")
    site.write("b.yaml", "b: [\n")  # invalid, and nobody's concern yet
    assert site.reload().verdict == "unchanged"
    assert site.rejections() == []
    [warning] = until(lambda: reader.status().agent.warnings, "a word on what waits")
    assert warning == "the files changed since the last commit; they wait for stamp to change"
    site.write("b.yaml", "b: 2\n")
    site.write("stamp", "2")
    until(lambda: site.made[-1].version == 2, "the commit")
    assert reader.snapshot().to_dict() == {"a": 2, "b": 2}
    verdict = site.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 2, None)
    assert reader.status().agent.warnings == ()
    assert site.published() == 2
    assert [event.text for event in site.said if isinstance(event, Said)] == [warning]


def test_nothing_is_published_before_the_first_commit(site: Site) -> None:
    agent = site.start()
    verdict = site.reload()
    assert (verdict.verdict, verdict.version) == ("failed", 0)
    assert str(verdict.problems[0]) == "stamp: does not exist; nothing is published before it does"
    with pytest.raises(shmconf.SegmentNotFound, match="nothing is published before it does"):
        shmconf.attach("web", directory=site.run)
    assert site.published() == 0
    site.write("stamp", "")
    until(lambda: agent.version == 1, "the first version")
    with site.attach() as reader:
        assert reader.status().last_error is None


def touch(site: Site) -> None:
    os.utime(site.stamp, (1, 1))


def replace_by_the_same(site: Site) -> None:
    site.write("stamp", site.stamp.read_text())


def write_in_place(site: Site) -> None:
    site.stamp.write_text("2")


def make_again(site: Site) -> None:
    """With the very times and, most likely, the inode that it had."""
    status = site.stamp.stat()
    text = site.stamp.read_text()
    site.stamp.unlink()
    noted = "nothing new is published until stamp exists"
    until(lambda: noted in site.made[-1]._publisher._status.notes, "its absence")
    site.stamp.write_text(text)
    os.utime(site.stamp, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [touch, replace_by_the_same, write_in_place, make_again])
def test_each_change_of_the_file_commits(
    served: tuple[Site, shmconf.Reader], change: Callable[[Site], None]
) -> None:
    site, reader = served
    site.write("a.yaml", "a: 2\n")
    assert site.reload().awaits_commit == "stamp"
    change(site)
    until(lambda: reader.version == 2, change.__name__)
    assert reader["a"] == 2
    assert site.reload().awaits_commit is None


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_exchange_of_a_link_commits(site: Site, kind: str) -> None:
    for name in ("release-1", "release-2"):
        if kind == "directory":
            (site.root / name).mkdir()
        else:
            (site.root / name).write_text("the same")
    (site.root / "current").symlink_to("release-1")
    site.stamp.symlink_to("current")  # a chain, whose middle is exchanged
    agent = site.start()
    until(lambda: agent.version == 1, "what stands there at the start")
    site.write("a.yaml", "a: 2\n")
    if kind == "directory":
        (site.root / "release-1" / "more").write_text("a change in the directory is none of the link")
    assert site.reload().awaits_commit == "stamp"
    (site.root / "aside").symlink_to("release-2")
    (site.root / "aside").rename(site.root / "current")
    until(lambda: agent.version == 2, "the exchange")
    with site.attach() as reader:
        assert reader["a"] == 2
    assert site.published() == 2


def test_what_is_no_change_of_it_commits_nothing(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: 2\n")
    site.stamp.chmod(0o600)
    assert site.reload().awaits_commit == "stamp"
    site.stamp.unlink()
    until(lambda: "nothing new is published until stamp exists" in reader.status().agent.warnings, "that it is gone")
    assert site.reload().verdict == "unchanged"
    os.mkfifo(site.stamp)
    until(
        lambda: any("is a named pipe" in warning for warning in reader.status().agent.warnings), "that it is no file"
    )
    verdict = site.reload()
    assert (verdict.verdict, verdict.version) == ("unchanged", 1)
    assert site.published() == 1
    assert reader["a"] == 1


def test_a_refused_commit_is_repaired_by_another(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: [\n")
    site.write("stamp", "2")
    until(lambda: reader.status().last_error, "the refusal")
    site.write("a.yaml", "a: 3\n")
    verdict = site.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("rejected", 1, "stamp")
    assert verdict.problems[0].file == "a.yaml"
    site.write("stamp", "3")
    until(lambda: reader.version == 2, "the repair")
    assert reader["a"] == 3
    assert reader.status().last_error is None
    assert len(site.rejections()) == 1


def test_a_refusal_is_said_again_when_the_same_is_committed_again(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.settings["schema"] = "schema.json"
    site.stop()
    (site.root / "schema.json").write_text('{"properties": {"a": {"$ref": "type.json"}}}')
    (site.root / "type.json").write_text('{"type": "integer"}')
    site.start()
    site.write("stamp", "2")
    assert site.reload().verdict == "unchanged"
    (site.root / "type.json").write_text('{"type": "string"}')
    verdict = site.reload()
    assert (verdict.verdict, site.rejections()) == ("unchanged", [])  # not committed
    site.write("stamp", "3")
    until(site.rejections, "the refusal by the schema")
    assert reader.version == 1


def test_a_restart_serves_on_and_publishes_nothing_that_was_not_committed(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: 2\n")
    site.stop()
    site.write("b.yaml", "b: 2\n")
    agent = site.start()
    verdict = site.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 1, "stamp")
    status = reader.status()
    assert (status.agent.state, status.last_error, status.serving_last_known_good) == ("running", None, False)
    assert site.published() == 1
    site.write("stamp", "2")
    until(lambda: agent.version == 2, "the commit")
    assert reader.snapshot().to_dict() == {"a": 2, "b": 2}


@pytest.mark.parametrize("lost", ["nothing", "the record", "the state"])
def test_what_a_restart_knows_of_the_commit_is_kept_twice(site: Site, lost: str) -> None:
    site.write("stamp", "1")
    agent = site.start()
    until(lambda: agent.version == 1, "version 1")
    with site.attach() as reader:
        noted = reader.snapshot().metadata
    site.stop()
    kept = json.loads((site.state / "web.commit").read_bytes())
    assert Record.of(noted["commit"]) == Record.of(kept)
    if lost != "nothing":
        (site.state / "web.commit").write_text('{"mark": ')
    if lost == "the state":
        shutil.rmtree(site.state / "web.history")
    site.write("a.yaml", "a: 2\n")
    site.start()
    assert site.reload().awaits_commit == "stamp"
    assert site.published() == 1


def test_a_commit_that_made_no_version_counts_after_a_restart_too(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    mark = (site.state / "web.commit").read_bytes()
    site.write("stamp", "2")
    until(lambda: (site.state / "web.commit").read_bytes() != mark, "the record of it")
    assert reader.version == 1
    site.stop()
    site.write("a.yaml", "a: 2\n")
    site.start()
    assert site.reload().awaits_commit == "stamp"
    assert reader["a"] == 1


def test_a_commit_while_no_agent_runs_is_taken_at_the_start(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.stop()
    site.write("a.yaml", "a: 2\n")
    site.write("stamp", "2")
    site.start()
    until(lambda: reader.version == 2, "the commit")
    assert reader["a"] == 2


@pytest.mark.parametrize("lost", ["nothing", "the record"])
def test_after_a_reboot_what_was_committed_is_served_from_the_state_directory(site: Site, lost: str) -> None:
    site.write("stamp", "1")
    agent = site.start()
    until(lambda: agent.version == 1, "version 1")
    site.stop()
    if lost == "the record":
        (site.state / "web.commit").unlink()
    for file in site.run.iterdir():
        file.unlink()
    site.write("a.yaml", "a: 2\n")
    site.start()
    with site.attach() as reader:
        assert reader["a"] == 1
        until(lambda: reader.status().agent.state == "running", "its status")
        assert not reader.status().serving_last_known_good
        assert site.reload().awaits_commit == "stamp"


def test_a_refusal_is_known_after_a_restart(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: [\n")
    site.write("stamp", "2")
    until(lambda: reader.status().last_error, "the refusal")
    site.stop()
    site.start()
    until(lambda: len(site.rejections()) == 2, "the same refusal")
    site.stop()
    site.write("a.yaml", "a: 3\n")
    site.start()
    verdict = site.reload()
    assert (verdict.verdict, verdict.version) == ("rejected", 1)
    assert verdict.problems[0].code == "not-committed"
    site.write("stamp", "3")
    until(lambda: reader.version == 2, "the repair")
    assert reader.status().last_error is None


def test_a_candidate_without_room_is_tried_again_as_it_was_committed(
    served: tuple[Site, shmconf.Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, reader = served
    monkeypatch.setattr("shmconf_agent.reconcile._RETRY_SECONDS", 0.01)
    publish = site.made[-1]._publisher._writer.publish
    full = threading.Event()
    full.set()
    attempts: list[float] = []

    def refuse(*arguments: Any) -> int:
        attempts.append(time.monotonic())
        if full.is_set():
            raise OSError(28, "No space left on device")
        return publish(*arguments)

    monkeypatch.setattr(site.made[-1]._publisher._writer, "publish", refuse)
    site.write("a.yaml", "a: 2\n")
    site.write("stamp", "2")
    until(lambda: reader.status().last_error, "that there is no room")
    site.write("a.yaml", "a: 3\n")
    until(lambda: site.made[-1]._watcher.errors == 0 and site.reload().awaits_commit == "stamp", "the edit")
    until(lambda: attempts[-1] - attempts[0] > 0.5, "more attempts")
    full.clear()
    until(lambda: site.published() == 2, "the last attempt")
    assert reader["a"] == 2
    # What it told of took no longer than since the attempt before: the time without room is not of this publication.
    published = next(event for event in reversed(site.said) if isinstance(event, Published))
    assert published.seconds < time.monotonic() - attempts[-2]
    assert "parse" not in published.stages


@pytest.fixture
def guarded(served: tuple[Site, shmconf.Reader]) -> tuple[Site, shmconf.Reader, str]:
    """An agent that holds what was committed: its digest."""
    site, reader = served
    site.stop()
    site.settings["guard"] = GuardSettings(frozen=("a",))
    site.start()
    site.write("a.yaml", "a: 2\n")
    site.write("stamp", "2")
    return site, reader, until(lambda: reader.status().held, "a candidate is held")


def test_the_time_for_which_a_candidate_was_held_is_not_told_as_its_own(
    guarded: tuple[Site, shmconf.Reader, str],
) -> None:
    site, reader, digest = guarded
    held = time.monotonic()
    until(lambda: site.reload().verdict == "held" and time.monotonic() - held > 0.5, "half a second of it")
    asked = time.monotonic()
    assert site.reload(accept=digest).verdict == "published"
    until(lambda: site.published() == 2, "what is said of it")
    published = next(event for event in reversed(site.said) if isinstance(event, Published))
    assert published.seconds < time.monotonic() - asked
    assert (reader["a"], published.version) == (2, 2)


def test_a_kill_between_a_publication_and_the_record_of_its_commit_makes_no_refusal_of_it(
    guarded: tuple[Site, shmconf.Reader, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, reader, digest = guarded
    record = site.state / "web.commit"
    until(lambda: b'"accepted": false' in record.read_bytes(), "the record of the refusal")
    refused = record.read_bytes()
    monkeypatch.setattr("shmconf_agent.commit.RecordFile.keep", lambda self, record: None)  # it was killed before
    assert site.reload(accept=digest).verdict == "published"
    monkeypatch.undo()
    site.stop()
    assert record.read_bytes() == refused
    site.write("a.yaml", "a: 3\n")
    site.start()
    verdict = site.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 2, "stamp")
    assert (reader["a"], reader.status().last_error) == (2, None)


def test_an_older_commit_that_is_served_for_a_damaged_one_is_no_health(served: tuple[Site, shmconf.Reader]) -> None:
    site, reader = served
    site.write("a.yaml", "a: 2\n")
    site.write("stamp", "2")
    until(lambda: reader.version == 2, "version 2")
    site.stop()
    for file in site.run.iterdir():
        file.unlink()
    *_, newest = sorted((site.state / "web.history").glob("*.version"))
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    site.write("a.yaml", "a: 3\n")  # which nobody has committed
    for _ in range(2):  # and so it is for an agent that finds the segment
        site.start()
        verdict = site.reload()
        assert (verdict.verdict, verdict.awaits_commit) == ("failed", "stamp")
        assert "what it last committed is damaged" in str(verdict.problems[0])
        with site.attach() as now:
            status = now.status()
            assert (now["a"], status.serving_last_known_good) == (1, True)
            assert "an older version is served" in status.last_error
        site.stop()
    for file in site.run.iterdir():  # a second reboot: what was served is what was kept last
        file.unlink()
    site.start()
    assert site.reload().verdict == "failed"
    site.write("stamp", "3")
    with site.attach() as now:
        until(lambda: now["a"] == 3, "another commit")
        assert not now.status().serving_last_known_good
    site.stop()
    site.start()
    assert site.reload().verdict == "unchanged"


@pytest.fixture
def secretive(site: Site) -> Site:
    """A site whose a.yaml names a secret and a variable."""
    site.settings["substitution"] = Substitution(("SHMCONF_TEST",), ("secrets",))
    (site.root / "secrets").mkdir()
    site.write("secrets/db", "tiger1")
    site.write("a.yaml", "a: ${file:secrets/db}\ne: ${env:SHMCONF_TEST:-none}\n")
    site.write("stamp", "1")
    return site


def test_a_secret_is_part_of_what_was_committed(secretive: Site) -> None:
    agent = secretive.start()
    until(lambda: agent.version == 1, "version 1")
    secretive.write("secrets/db", "lion22")
    verdict = secretive.reload()
    assert (verdict.verdict, verdict.awaits_commit) == ("unchanged", "stamp")
    with secretive.attach() as reader:
        assert reader["a"] == "tiger1"
        for _ in range(2):
            secretive.stop()
            secretive.start()
            verdict = secretive.reload()
            assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 1, "stamp")
            assert reader["a"] == "tiger1"
        secretive.write("stamp", "2")
        until(lambda: secretive.made[-1].version == 2, "the commit")
        assert reader["a"] == "lion22"
    assert secretive.published() == 2


def test_a_secret_that_is_gone_after_a_reboot_waits_as_well(secretive: Site) -> None:
    agent = secretive.start()
    until(lambda: agent.version == 1, "version 1")
    secretive.stop()
    shutil.rmtree(secretive.run)
    secretive.run.mkdir(mode=0o755)
    (secretive.root / "secrets/db").unlink()
    secretive.start()
    with secretive.attach() as reader:
        assert reader.snapshot()["a"] == "tiger1"
        assert reader.snapshot().metadata["secret_paths"] == [["a"]]
    assert secretive.reload().awaits_commit == "stamp"
    assert secretive.rejections() == []


def test_another_environment_waits_for_the_commit(secretive: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = secretive.start()
    until(lambda: agent.version == 1, "version 1")
    secretive.stop()
    monkeypatch.setenv("SHMCONF_TEST", "other")
    secretive.start()
    verdict = secretive.reload()
    assert (verdict.verdict, verdict.version, verdict.awaits_commit) == ("unchanged", 1, "stamp")
    with secretive.attach() as reader:
        assert reader["e"] == "none"
        secretive.write("stamp", "2")
        until(lambda: secretive.made[-1].version == 2, "the commit")
        assert reader["e"] == "other"


def test_edits_that_wait_are_not_kept(secretive: Site) -> None:
    agent = secretive.start()
    until(lambda: agent.version == 1, "version 1")
    for number in range(5):
        secretive.write("a.yaml", f"a: ${{file:secrets/db}}\nn: {number}\n")
        assert secretive.reload().awaits_commit == "stamp"
    pipeline = agent._pipeline
    assert pipeline._replacement is not None
    assert len(pipeline._parsed) == len(pipeline._replacement._sites) == 2


def test_check_tries_the_files_without_a_commit(site: Site) -> None:
    assert try_segment(site.config, Progress()).problems == ()
    site.write("a.yaml", "a: [\n")
    [problem] = try_segment(site.config, Progress()).problems
    assert problem.file == "a.yaml"


class Clock:
    """The files of a segment with a commit, on a clock of the test's own, without events."""

    rescan_s = 1.0

    def __init__(self, base: Path) -> None:
        self.now = 1000.0
        self.hints: list[Hint] = []
        config = SegmentConfig("web", base, (Source("a.yaml"), Source("b.yaml")), commit="stamp")
        self.sources = SourceFiles(config, hints=self, now=lambda: self.now, wall_ns=lambda: 0)
        self.files = CommittedFiles(self.sources, "stamp", RecordFile(base / "record"), now=lambda: self.now)

    def drain(self) -> list[Hint]:
        hints, self.hints = self.hints, []
        return hints

    def rest(self, seconds: float = QUIET_S) -> View:
        self.files.look()
        self.now += seconds
        return self.files.look()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    for name, text in (("a.yaml", "a: 1"), ("b.yaml", "b: 1"), ("stamp", "1")):
        (tmp_path / name).write_text(text)
    return Clock(tmp_path)


def texts(view: View) -> list[bytes]:
    return [layer.data for layer in view.layers]


def test_a_file_that_is_being_written_holds_the_commit(clock: Clock, tmp_path: Path) -> None:
    view = clock.rest()
    clock.files.accept(view)
    (tmp_path / "a.yaml").write_text("a: 2")
    (tmp_path / "b.yaml").write_text("b: 2")
    clock.rest()
    clock.hints.append(Hint(Kind.MOVED_TO, str(tmp_path / "stamp"), clock.now))
    (tmp_path / "stamp").write_text("22")
    (tmp_path / "a.yaml").write_text("a: 20")
    view = clock.files.look()
    assert (view.held, view.whole, [flux.file for flux in view.in_flux]) == (True, False, ["a.yaml"])
    clock.now += QUIET_S
    view = clock.files.look()
    assert (view.held, view.ready, texts(view)) == (False, True, [b"a: 20", b"b: 2"])
    assert view.committed is not None


def test_a_file_that_is_never_whole_holds_it_for_so_long(clock: Clock, tmp_path: Path) -> None:
    clock.files.accept(clock.rest())
    (tmp_path / "b.yaml").write_text("b: 2")
    clock.rest()
    clock.hints.append(Hint(Kind.MOVED_TO, str(tmp_path / "stamp"), clock.now))
    (tmp_path / "stamp").write_text("22")
    began, length = clock.now, 10
    while True:
        (tmp_path / "a.yaml").write_text("a: 2".ljust(length))
        length += 1
        view = clock.files.look()
        if not view.held:
            break
        assert clock.now < began + 2 * commit_module.LONGEST_S
        clock.now += QUIET_S / 2
    assert clock.now == began + commit_module.LONGEST_S
    assert texts(view) == [b"a: 1", b"b: 2"]
    assert "a.yaml was still being written 10 s after the commit; it counts with its content before" in view.notes


def test_every_file_is_read_again_at_the_commit(clock: Clock, tmp_path: Path) -> None:
    """Also one whose change the disk does not show."""
    clock.files.accept(clock.rest())
    file = tmp_path / "a.yaml"
    before = file.stat()
    stamp = clock.sources._files[str(file)]._stamp
    assert stamp is not None
    file.write_text("a: 2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.sources._files[str(file)]._stamp = clock.sources._files[str(file)]._taken = stamp._replace(
        ctime_ns=file.stat().st_ctime_ns
    )
    clock.sources._rescan_at = clock.now + 0.5  # no patrol meanwhile
    clock.hints.append(Hint(Kind.MOVED_TO, str(tmp_path / "stamp"), clock.now))
    (tmp_path / "stamp").write_text("22")
    clock.files.look()
    clock.now += QUIET_S
    assert texts(clock.files.look()) == [b"a: 2", b"b: 1"]


def test_the_commit_path_is_watched_with_each_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1")
    (tmp_path / "far" / "farther").mkdir(parents=True)
    (tmp_path / "far" / "farther" / "stamp").write_text("1")
    (tmp_path / "far" / "link").symlink_to("farther/stamp")
    (tmp_path / "stamp").symlink_to("far/link")
    config = SegmentConfig("web", tmp_path, (Source("a.yaml"),), commit="stamp")
    followed = SourceFiles(config, hints=Watcher(events=False)).look().directories
    assert followed[str(tmp_path)].covers("stamp")
    assert followed[str(tmp_path / "far")].covers("link")
    assert followed[str(tmp_path / "far" / "farther")].covers("stamp")
