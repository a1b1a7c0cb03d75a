"""One segment's loop: no fault keeps the next attempt from starting clean, and the status follows the files."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf.directories import Directory
from shmconf_agent import reconcile, watch
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.events import Event, Published, Rejected
from shmconf_agent.pipeline import Candidate
from shmconf_agent.problems import Invalid
from shmconf_agent.progress import Progress
from shmconf_agent.reconcile import Reconciler
from shmconf_agent.reload import Reload, Verdict
from shmconf_agent.view import View


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
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
        return shmconf.attach("web", directory=self.run, wait=60)

    def write(self, text: str) -> None:
        aside = self.root / "aside"
        aside.write_text(text)
        aside.rename(self.file)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for reconciler in made.made:
        reconciler.stop(60)


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
        reconciler.stop(60)
        assert not any(thread.name in ("shmconf-web", "shmconf-inotify") for thread in threading.enumerate())
        assert reader.status().agent.state == "stopped"
    assert [type(event) for event in bench.said] == [Published, Published, Rejected]


def test_a_publication_tells_what_each_stage_took(bench: Bench) -> None:
    bench.write("a: 1\n")
    bench.make().start()
    with bench.attach() as reader:
        bench.write("a: 2\n")
        until(lambda: reader["a"] == 2 and len(bench.said) == 2, "the edit")
    for event in bench.said:
        assert isinstance(event, Published)
        stages = ["read", "parse", "merge", "validate", "encode", "publish"]
        assert [stage for stage in event.stages if stage in stages] == stages
        assert all(seconds > 0 for seconds in event.stages.values())
        assert sum(event.stages.values()) <= event.seconds + 1.0  # the look that found it began before
        assert event.fields()["stages_ms"]["parse"] == round(event.stages["parse"] * 1000, 3)


def test_no_collection_stops_a_reload_and_what_it_left_is_collected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[bool] = []
    left: list[weakref.ref[Knot]] = []
    run = reconcile.Pipeline.run

    def watched(pipeline: Any, view: View, progress: Progress) -> Candidate:
        at_work.append(gc.isenabled())
        knot = Knot()
        knot.itself = knot
        left.append(weakref.ref(knot))
        return run(pipeline, view, progress)

    monkeypatch.setattr(reconcile.Pipeline, "run", watched)
    bench.write("a: 1\n")
    bench.make().start()
    with bench.attach() as reader:
        bench.write("a: [\n")
        until(lambda: reader.status().last_error, "a rejection")
        until(lambda: left[-1]() is None, "the collection after it")
    assert at_work
    assert not any(at_work)
    until(gc.isenabled, "the end of a turn")


class Knot:
    """Something that only the collector frees."""

    itself: Knot


def test_a_fault_of_a_turn_is_told_once_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_RETRY_SECONDS", 0.01)
    bench.write("a: 1\n")
    reconciler = bench.make()
    broken = threading.Event()
    failed: list[int] = []
    look = reconciler._files.look

    def look_or_fail(**how: Any) -> Any:
        if broken.is_set():
            failed.append(1)
            raise ZeroDivisionError("by nothing")
        return look(**how)

    monkeypatch.setattr(reconciler._files, "look", look_or_fail)
    reconciler.start()
    with bench.attach() as reader:
        broken.set()
        Asking(reconciler)()
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


def test_a_question_has_the_files_judged_anew_and_publishes_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    turns: list[object] = []
    judge = reconciler._judge

    def judge_and_count(*arguments: Any) -> None:
        judge(*arguments)
        turns.append(arguments)

    monkeypatch.setattr(reconciler, "_judge", judge_and_count)
    reconciler.start()
    until(lambda: len(turns) >= 1, "the first judgement")
    Asking(reconciler)()
    until(lambda: len(turns) >= 2, "a second one")
    assert reconciler.version == 1


def test_a_loop_that_is_stuck_is_given_no_heartbeat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    now = time.monotonic
    ahead = [0.0]
    monkeypatch.setattr(reconciler._progress, "_clock", lambda: now() + ahead[0])
    stuck, go_on = threading.Event(), threading.Event()
    look = reconciler._files.look

    def look_or_hang(**how: Any) -> Any:
        if stuck.is_set():
            go_on.wait(60)
        return look(**how)

    monkeypatch.setattr(reconciler._files, "look", look_or_hang)
    reconciler.start()
    with bench.attach():
        stuck.set()
        Asking(reconciler)()
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


# --- questions --------------------------------------------------------------------------------------------------------


class Asking:
    """Questions to a reconciler, and their verdicts."""

    def __init__(self, reconciler: Reconciler) -> None:
        self.reconciler = reconciler

    def __call__(self) -> Reload:
        reload = Reload("web", lambda: None)
        [question] = reload.begin({"web": self.reconciler.version}, ())
        self.reconciler.ask(question)
        return reload

    def verdict(self, reload: Reload) -> Verdict:
        return until(lambda: [each for each in reload.verdicts() if each.verdict != "timeout"], "a verdict")[0]


def test_questions_are_answered_by_a_look_that_begins_after_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    looking, go_on = threading.Event(), threading.Event()
    looks: list[bool] = []
    look = reconciler._files.look

    def slow(**how: Any) -> Any:
        view = look(**how)
        looks.append(how.get("anew", False))
        if looks[-1]:
            looking.set()
            assert go_on.wait(60)
        return view

    monkeypatch.setattr(reconciler._files, "look", slow)
    reconciler.start()
    bench.attach().close()
    until(lambda: reconciler.version == 1, "the first version")
    ask = Asking(reconciler)
    first = ask()
    assert looking.wait(60)
    bench.write("a: 2\n")  # which the look that is over has not seen
    late = [ask() for _ in range(10)]
    assert first.verdicts()[0].verdict == "timeout"
    go_on.set()
    assert {ask.verdict(each).version for each in late} == {2}
    assert {ask.verdict(each).verdict for each in late} <= {"published", "unchanged"}
    assert ask.verdict(first).version in (1, 2)
    assert looks.count(True) == 2  # one for the first, and one for all the others


def test_a_question_waits_for_no_time_of_settling(bench: Bench) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make(settle_ms=3_600_000.0)
    reconciler.start()
    ask = Asking(reconciler)
    assert ask.verdict(ask()).verdict == "published"
    with bench.attach() as reader:
        bench.write("a: 2\n")
        verdict = ask.verdict(ask())
        assert (verdict.verdict, verdict.version, verdict.waited_for) == ("published", 2, ())
        assert reader["a"] == 2


def test_a_fault_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    reconciler.start()
    bench.attach().close()
    until(lambda: reconciler.version == 1, "the first version")

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(reconciler._pipeline, "run", fail)
    ask = Asking(reconciler)
    verdict = ask.verdict(ask())
    assert (verdict.verdict, verdict.version) == ("failed", 1)
    assert "ZeroDivisionError: by nothing" in verdict.problems[0].message
    monkeypatch.undo()
    assert ask.verdict(ask()).verdict == "unchanged"


def test_questions_that_are_left_at_the_end_can_be_had(bench: Bench) -> None:
    bench.write("a: 1\n")
    reconciler = bench.make()
    Asking(reconciler)()
    reconciler.start()
    reconciler.stop(60)
    assert reconciler.has_ended()
    reload = Asking(reconciler)()
    [question] = reconciler.unanswered()[-1:]
    question.gone()
    assert reload.verdicts()[0].verdict == "gone"


@pytest.mark.timing
def test_nobody_who_went_away_is_kept(bench: Bench) -> None:
    (bench.root / "base.yaml").write_text("a: 1\n")
    reconciler = bench.make()
    reconciler.start()
    bench.attach().close()
    ask = Asking(reconciler)
    with (bench.root / "base.yaml").open("w") as file:
        reload = ask()
        for number in range(2000):
            file.write(f"key{number}: 1\n")
            file.flush()
            if reload.verdicts()[0].waited_for:
                break
            time.sleep(0.005)
        assert reload.verdicts()[0].waited_for == ("base.yaml",)
        assert len(reconciler._questions) == 1
        reload.abandoned = True
        for number in range(2000):
            file.write(f"more{number}: 1\n")
            file.flush()
            if not reconciler._questions:
                break
            time.sleep(0.005)
        assert reconciler._questions == []


def test_an_edit_during_the_work_on_another_is_not_left_to_the_next_rescan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event was heard when it was too late to publish the other one, and there will be no further event."""
    monkeypatch.setattr(reconcile, "_LONGEST_SLEEP", 3600.0)
    monkeypatch.setattr(watch, "RESCAN_S", 3600.0)
    bench.write("a: 1\n")
    reconciler = bench.make(settle_ms=0.0)
    working, go_on = threading.Event(), threading.Event()
    run = reconciler._pipeline.run

    def slow(view: View, progress: Progress) -> Candidate:
        if view.layers[0].data == b"a: 2\n":
            working.set()
            assert go_on.wait(60)
        return run(view, progress)

    monkeypatch.setattr(reconciler._pipeline, "run", slow)
    reconciler.start()
    with bench.attach() as reader:
        bench.write("a: 2\n")
        assert working.wait(60)
        bench.write("a: 3\n")
        go_on.set()
        until(lambda: reader["a"] == 3, "the second edit")
        assert reader.version == 2
