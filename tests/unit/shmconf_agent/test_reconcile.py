"""One segment's loop: no fault keeps the next attempt from starting clean, and the status follows the files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf.directories import Directory
from shmconf_agent import reconcile
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.events import Event, Published, Rejected
from shmconf_agent.problems import Invalid
from shmconf_agent.reconcile import Reconciler


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


class Bench:
    """Reconcilers of one segment with the file base.yaml, and what they said."""

    def __init__(self, root: Path) -> None:
        self.run, self.state, self.file = root / "run", root / "state", root / "base.yaml"
        self.root = root
        self.run.mkdir(mode=0o755)
        self.said: list[Event] = []
        self.made: list[Reconciler] = []

    def make(self, **settings: Any) -> Reconciler:
        config = SegmentConfig("web", self.root, (Source("base.yaml"),), **settings)
        self.made.append(Reconciler(config, Directory(self.run, named=True), self.state, self.said.append))
        return self.made[-1]

    def attach(self) -> shmconf.Reader:
        return shmconf.attach("web", directory=self.run, wait=20)

    def write(self, text: str) -> None:
        aside = self.root / "aside"
        aside.write_text(text)
        aside.rename(self.file)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for reconciler in made.made:
        reconciler.stop(10)


def test_edits_become_versions_and_stop_ends_the_thread(bench: Bench) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    assert reconciler.version == 0
    assert reconciler.summary() == "web: nothing to serve yet"
    reconciler.start()
    with bench.attach() as reader:
        bench.write("a: 2\n")
        until(lambda: reader["a"] == 2, "the edit")
        until(lambda: reconciler.version == 2, "its version")
        assert reconciler.summary() == "web: version 2"
        assert reconciler.beat()
        assert reader.status().agent_alive
        bench.write("a: [\n")
        until(lambda: reader.status().last_error, "a rejection")
        assert reconciler.summary().startswith("web: version 2, rejected: base.yaml:2:1: ")
        reconciler.stop(10)
        assert not any(thread.name in ("shmconf-web", "shmconf-inotify") for thread in threading.enumerate())
        assert reader.status().agent.state == "stopped"
    assert [type(event) for event in bench.said] == [Published, Published, Rejected]


def test_a_fault_of_a_turn_is_told_once_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_RETRY_SECONDS", 0.01)
    bench.write("a: 1\n")
    reconciler = bench.make()
    broken = threading.Event()
    failed: list[int] = []
    look = reconciler._files.look

    def look_or_fail() -> Any:
        if broken.is_set():
            failed.append(1)
            raise ZeroDivisionError("by nothing")
        return look()

    monkeypatch.setattr(reconciler._files, "look", look_or_fail)
    reconciler.start()
    with bench.attach() as reader:
        broken.set()
        reconciler.read_again()
        until(lambda: len(failed) > 5, "several attempts")
        status = reader.status()
        assert "internal error, will try again: ZeroDivisionError: by nothing (test_reconcile.py:" in status.last_error
        assert status.agent.rejections == 1
        assert reconciler.failure is None
        broken.clear()
        until(lambda: reader.status().last_error is None, "the recovery")
        bench.write("a: 2\n")
        until(lambda: reader["a"] == 2, "an edit after it")
    assert len([event for event in bench.said if isinstance(event, Rejected)]) == 1


def test_a_fault_that_cannot_even_be_told_ends_the_loop_with_a_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(reconciler._files, "look", fail)
    monkeypatch.setattr(reconciler._publisher, "reject", fail)
    reconciler.start()
    failure = until(lambda: reconciler.failure, "the end of the loop")
    assert "ZeroDivisionError: by nothing" in failure


def test_read_again_judges_anew_but_publishes_nothing_new(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    turns: list[object] = []
    judge = reconciler._judge

    def judge_and_count(*arguments: Any) -> None:
        judge(*arguments)
        turns.append(arguments)

    monkeypatch.setattr(reconciler, "_judge", judge_and_count)
    reconciler.start()
    until(lambda: len(turns) == 1, "the first judgement")
    reconciler.read_again()
    until(lambda: len(turns) == 2, "a second one")
    assert reconciler.version == 1


def test_a_loop_that_is_stuck_is_given_no_heartbeat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    now = time.monotonic
    ahead = [0.0]
    monkeypatch.setattr(reconciler._progress, "_clock", lambda: now() + ahead[0])
    stuck, go_on = threading.Event(), threading.Event()
    look = reconciler._files.look

    def look_or_hang() -> Any:
        if stuck.is_set():
            go_on.wait(20)
        return look()

    monkeypatch.setattr(reconciler._files, "look", look_or_hang)
    reconciler.start()
    with bench.attach():
        stuck.set()
        reconciler.read_again()
        assert reconciler.beat()
        ahead[0] = 3600.0
        until(lambda: not reconciler.beat(), "no more heartbeats")
        go_on.set()
        until(reconciler.beat, "heartbeats again")


def test_another_agents_take_over_ends_the_loop_with_its_name(bench: Bench) -> None:
    bench.write("a: 1\n")
    first = bench.make()
    first.start()
    bench.attach().close()
    for directory in (bench.run, bench.state):
        (directory / "web.lock").unlink()
    second = bench.make()
    second.start()
    bench.write("a: 2\n")
    failure = until(lambda: first.failure, "the first one stops")
    assert "already has an agent (process " in failure
    with bench.attach() as reader:
        until(lambda: reader["a"] == 2, "the second one publishes")
    assert second.failure is None


def test_an_unknown_group_is_invalid_and_leaves_the_segment_free(bench: Bench) -> None:
    bench.write("a: 1\n")
    with pytest.raises(Invalid):
        bench.make(group="no-such-group-here")
    bench.make()


def test_stop_without_start_closes(bench: Bench) -> None:
    bench.write("a: 1\n")
    bench.make().stop(1)
    bench.make()
