"""A loop that gets on is current, one that is stuck is not, each stage by its own time."""

from __future__ import annotations

import pytest

from shmconf_agent.progress import IDLE_SECONDS, Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_step_it_is_current_for_the_idle_time_only() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += IDLE_SECONDS
    assert progress.is_current()
    clock.now += 0.1
    assert not progress.is_current()
    progress.step()
    assert progress.is_current()


def test_a_stage_has_its_own_time_and_gives_it_back() -> None:
    clock = Clock()
    progress = Progress(clock)
    with progress.stage("parse", 60.0):
        clock.now += 59
        assert progress.is_current()
        clock.now += 2
        assert not progress.is_current()
    assert progress.is_current()
    assert progress.timings == {"parse": 61.0}
    clock.now += IDLE_SECONDS + 1
    assert not progress.is_current()


def test_a_stage_that_fails_ends_as_well() -> None:
    clock = Clock()
    progress = Progress(clock)
    with pytest.raises(ZeroDivisionError), progress.stage("parse", 60.0):
        raise ZeroDivisionError
    clock.now += IDLE_SECONDS + 1
    assert not progress.is_current()
