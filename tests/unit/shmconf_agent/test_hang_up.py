from __future__ import annotations

import time

import pytest

from shmconf_agent import hang_up
from shmconf_agent.hang_up import HangUps
from shmconf_agent.notify import Notifier


class Manager(Notifier):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__("")
        self.heard: list[str] = []

    def send(self, **fields: str) -> None:
        self.heard.append(next(iter(fields)))


def test_several_under_way_have_one_end() -> None:
    manager = Manager()
    reloads = HangUps(manager)
    first, second = reloads.begin(ready=True), reloads.begin(ready=True)
    [question] = first.begin({"web": 1}, [])
    reloads.look()
    question.judged(2, "d", [], invalid=False)
    reloads.look()
    assert manager.heard == ["RELOADING", "RELOADING"]
    assert second.begin({}, []) == []  # an agent without segments has nothing to judge
    reloads.look()
    reloads.look()
    assert manager.heard == ["RELOADING", "RELOADING", "READY"]
    assert not reloads.are_under_way


def test_what_has_not_begun_is_not_over() -> None:
    manager = Manager()
    reloads = HangUps(manager)
    reloads.begin(ready=True)
    reloads.look()
    assert reloads.are_under_way
    assert manager.heard == ["RELOADING"]


def test_a_file_that_never_comes_to_rest_does_not_keep_the_manager_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager()
    reloads = HangUps(manager)
    reload = reloads.begin(ready=True)
    [question] = reload.begin({"web": 1}, [])
    now = time.monotonic()
    monkeypatch.setattr(hang_up.time, "monotonic", lambda: now + hang_up.MOST_SECONDS)
    reloads.look()
    assert manager.heard == ["RELOADING", "READY"]
    assert not question.is_wanted


def test_who_is_not_ready_yet_tells_nothing() -> None:
    manager = Manager()
    reloads = HangUps(manager)
    reload = reloads.begin(ready=False)
    reload.begin({}, [])
    reloads.look()
    assert manager.heard == []
