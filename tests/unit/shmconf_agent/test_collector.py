"""The collector stands aside while a loop is at work, and comes back whatever happens there."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shmconf_agent import collector


@contextmanager
def collections_seen() -> Iterator[list[int]]:
    """The generations of the collections that begin meanwhile."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)


def make_much() -> list[list[int]]:
    return [[] for _ in range(100_000)]


def test_it_stands_aside_and_comes_back() -> None:
    with collections_seen() as seen:
        with collector.stands_aside():
            make_much()
            assert seen == []
            assert not gc.isenabled()
        assert gc.isenabled()
        kept = make_much()
    assert seen, f"no collection although {len(kept)} lists were made"


def test_it_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), collector.stands_aside():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_it_stays_away_until_the_last_loop_is_done() -> None:
    one_is_in, may_leave, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with collector.stands_aside():
            one_is_in.set()
            may_leave.wait(60)
        left.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert one_is_in.wait(60)
    with collections_seen() as seen, collector.stands_aside():
        may_leave.set()
        assert left.wait(60)
        assert not gc.isenabled(), "the other one was still at work"
        collector.tidy()
        assert seen == []
    thread.join()
    assert gc.isenabled()


def test_whoever_had_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with collector.stands_aside():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_made_lately_is_collected_once_nobody_is_at_work() -> None:
    class Knot:
        pass

    with collector.stands_aside():
        knot: Any = Knot()
        knot.itself = knot
        gone = threading.Event()
        knot.__dict__["told"] = Telling(gone)
        del knot
        assert not gone.is_set()
    collector.tidy()
    assert gone.is_set()


def test_a_loop_that_is_always_at_work_does_not_keep_it_away_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector.stands_aside(), collections_seen() as seen:
        collector.tidy()
        assert seen == []
        monkeypatch.setattr(collector, "_LONGEST_S", 0.0)
        collector.tidy()
        assert seen == [1]


class Telling:
    """Tells when it goes."""

    def __init__(self, gone: threading.Event) -> None:
        self._gone = gone

    def __del__(self) -> None:
        self._gone.set()
