"""What is counted of a segment's reloads: each once, whatever was said of it, and by a reason that is known before."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from shmconf import AgentStatus
from shmconf_agent.events import Event, Published, Rejected, Said
from shmconf_agent.problems import Code, Problem
from shmconf_agent.reasons import REASONS, ROLLBACK, reason_of
from shmconf_agent.tally import EDIT_BUCKETS, STAGE_BUCKETS, Histogram, Standing, Tally


class Bench:
    """A tally, and how its segment stands."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changes = 0
        self.standing = Standing(0, None, 4096)
        self.said: list[Event] = []
        self.tally = Tally(self._changed, lambda: self.now)
        self.tally.follow(lambda: self.standing)
        self.say = self.tally.listening(self.said.append)

    def _changed(self) -> None:
        self.changes += 1

    def publishes(self, version: int, **stages: float) -> None:
        self.standing = Standing(version, f"digest {version}", 4096, AgentStatus(state="running"))
        self.say(Published("web", version, f"digest {version}", 0.1, (), 10, stages=stages))

    def rejects(self, code: Code = Code.YAML_SYNTAX) -> list[Problem]:
        self.standing = Standing(1, "digest 1", 4096, AgentStatus(state="running", last_error="odd"))
        problems = [Problem("odd", code=code), Problem("too", code=Code.CHECK)]
        self.say(Rejected("web", 1, tuple(problems)))
        return problems


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_code_has_a_reason_and_every_reason_a_code() -> None:
    reasons = {code: reason_of(code) for code in Code}
    assert {*reasons.values(), ROLLBACK} == set(REASONS)  # what waits for the end of a hold has no problem
    assert ROLLBACK not in reasons.values()
    assert {code.value for code, reason in reasons.items() if reason == "other"} == {
        "agent-file", "agent-file-key", "group", "hold-not-kept", "not-kept", "other", "too-many-problems",
    }  # fmt: skip
    assert (reason_of(Code.NO_FILES), reason_of(Code.NOT_COMMITTED), reason_of(Code.CHECK)) == (
        "source", "commit", "check",
    )  # fmt: skip


def test_everything_begins_at_zero(bench: Bench) -> None:
    totals = bench.tally.totals()
    assert (totals.reloads, totals.succeeded_at, totals.watch_errors, totals.stages) == (0, 0.0, 0, {})
    assert totals.failed == dict.fromkeys(REASONS, 0)
    assert not totals.standing.files_are_served
    assert not totals.standing.serves_last_known_good


def test_a_publication(bench: Bench) -> None:
    bench.tally.begin(edited_at=999.98)
    bench.publishes(1, parse=0.002, publish=2e-5)
    bench.tally.end([])
    totals = bench.tally.totals()
    assert (totals.reloads, sum(totals.failed.values()), totals.succeeded_at) == (1, 0, 1000.0)
    assert (totals.standing.version, totals.standing.digest) == (1, "digest 1")
    assert totals.standing.files_are_served
    assert {stage: each.sum for stage, each in totals.stages.items()} == {"parse": 0.002, "publish": 2e-5}
    assert dict(totals.stages["publish"].buckets()) == {"1e-05": 0} | {
        text: 1 for text, _ in totals.stages["publish"].buckets()[1:]
    }
    edits = dict(totals.edit_to_visible.buckets())
    assert (edits["0.01"], edits["0.025"], edits["+Inf"]) == (0, 1, 1)
    assert totals.edit_to_visible.sum == pytest.approx(0.02)


def test_an_edit_time_is_of_one_publication_and_never_negative(bench: Bench) -> None:
    bench.tally.begin(edited_at=1000.5)  # a clock that was put back
    bench.publishes(1)
    bench.tally.end([])
    assert (bench.tally.totals().edit_to_visible.counts[0], bench.tally.totals().edit_to_visible.sum) == (1, 0.0)
    bench.publishes(2)
    bench.tally.begin()
    bench.publishes(3)
    bench.tally.end([])
    assert sum(bench.tally.totals().edit_to_visible.counts) == 1


def test_a_rejection_counts_by_its_first_problem_and_again_where_nothing_is_said_of_it(bench: Bench) -> None:
    bench.tally.begin(edited_at=1.0)
    bench.tally.end(bench.rejects(Code.GUARD_FROZEN))
    totals = bench.tally.totals()
    assert (totals.reloads, totals.failed["guard"], totals.succeeded_at) == (1, 1, 0.0)
    assert (totals.standing.files_are_served, totals.standing.serves_last_known_good) == (False, True)
    bench.tally.begin()
    bench.tally.end([Problem("odd", code=Code.GUARD_FROZEN)])  # the same: it is not said again
    totals = bench.tally.totals()
    assert (totals.reloads, totals.failed["guard"], sum(totals.failed.values())) == (2, 2, 2)


def test_files_without_a_difference_are_a_reload_and_a_success(bench: Bench) -> None:
    bench.publishes(1)
    bench.now = 1005.0
    bench.tally.begin()
    bench.tally.end([])
    assert (bench.tally.totals().reloads, bench.tally.totals().succeeded_at) == (2, 1005.0)


def test_what_is_refused_without_a_judgement_counts_where_it_is_said(bench: Bench) -> None:
    bench.rejects(Code.NOT_COMMITTED)
    assert bench.tally.totals().failed["commit"] == 1
    bench.tally.begin()
    bench.tally.end([])
    assert bench.tally.totals().reloads == 2


def test_the_last_known_good_is_no_reload(bench: Bench) -> None:
    bench.standing = Standing(7, "old", 4096, AgentStatus(state="running", last_error="odd", stale=True))
    bench.say(Published("web", 7, "old", 0.1, (), 10, stale=True))
    totals = bench.tally.totals()
    assert (totals.reloads, totals.succeeded_at, totals.standing.version) == (0, 0.0, 7)
    assert totals.standing.serves_last_known_good


def test_whoever_is_told_finds_it_counted(bench: Bench) -> None:
    found: list[tuple[int, int]] = []
    totals = bench.tally.totals
    bench.say = bench.tally.listening(lambda event: found.append((totals().standing.version, totals().reloads)))
    bench.publishes(1)
    bench.rejects()
    bench.say(Said("web", "something else"))
    assert found == [(1, 1), (1, 2), (1, 2)]


def test_watch_errors_go_on_over_another_watcher(bench: Bench) -> None:
    bench.tally.note(3)
    bench.tally.note(3)
    bench.tally.note(4)
    bench.tally.follow(lambda: bench.standing)
    bench.tally.note(0)
    bench.tally.note(5)
    assert bench.tally.totals().watch_errors == 9


def test_a_change_is_told_and_nothing_else(bench: Bench) -> None:
    bench.tally.note(0)
    assert bench.changes == 1  # how it stands
    for _ in range(3):
        bench.tally.note(0)
        bench.tally.begin()
    assert bench.changes == 1
    bench.publishes(1)
    bench.tally.note(0)
    assert bench.changes == 2
    bench.tally.note(1)
    assert bench.changes == 3


def test_values_fall_into_the_bucket_that_includes_them() -> None:
    histogram = Histogram.empty(STAGE_BUCKETS)
    for seconds in (1e-5, 1.1e-5, 10.0, 10.1, 0.0):
        histogram = histogram.with_value(seconds)
    buckets = dict(histogram.buckets())
    assert (buckets["1e-05"], buckets["3e-05"], buckets["3.0"], buckets["10.0"], buckets["+Inf"]) == (2, 3, 3, 4, 5)
    assert histogram.sum == pytest.approx(20.100021)


@pytest.mark.parametrize("bounds", [STAGE_BUCKETS, EDIT_BUCKETS])
def test_the_buckets_go_from_ten_microseconds_to_ten_seconds(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
    assert (bounds[0], bounds[-1]) == (1e-5, 10.0)


def test_a_reader_sees_one_moment_while_another_thread_counts(bench: Bench) -> None:
    done = threading.Event()
    counted: list[int] = []

    def count() -> None:
        version = 0
        while not done.is_set():
            version += 1
            bench.publishes(version, parse=0.001)
        counted.append(version)

    thread = threading.Thread(target=count)
    thread.start()
    seen: set[int] = set()
    try:
        for _ in range(1_000_000):
            totals = bench.tally.totals()
            seen.add(totals.reloads)
            stages = totals.stages.get("parse", Histogram.empty(STAGE_BUCKETS))
            assert totals.reloads == totals.standing.version == sum(stages.counts)
            if len(seen) >= 50:
                break
    finally:
        done.set()
        thread.join()
    assert len(seen) >= 50
    assert bench.tally.totals().reloads == counted[0]


def _no_op(event: Event) -> None:
    """Says nothing."""


def test_no_listener_is_needed() -> None:
    tally = Tally()
    say: Callable[[Event], None] = tally.listening(_no_op)
    say(Rejected("web", 0, (Problem("odd"),)))
    assert tally.totals().failed["other"] == 1
