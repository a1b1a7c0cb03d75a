"""Warnings of libraries become lines of the agent's log."""

from __future__ import annotations

import logging

from shmconf_agent.events import Event
from shmconf_agent.log_kinds import Kind
from shmconf_agent.log_relay import relayed


def lines(said: list[Event]) -> list[str]:
    return [event.line() for event in said]


def test_warnings_are_said_and_chatter_is_not() -> None:
    said: list[Event] = []
    library = logging.getLogger("somebody.inotify")
    with relayed(said.append):
        library.warning("queue of %r overflowed", "/etc/app")
        library.info("moved")
        try:
            raise OSError("gone")
        except OSError:
            library.exception("cannot go on")
    library.warning("after the end")
    assert lines(said) == [
        "shmconf: somebody.inotify: queue of '/etc/app' overflowed",
        "shmconf: somebody.inotify: cannot go on: OSError: gone",
    ]
    assert {event.kind for event in said} == {Kind.WARNING}


def test_the_same_warning_is_said_once_a_minute() -> None:
    said: list[Event] = []
    now = 0.0
    library = logging.getLogger("somebody.inotify")
    with relayed(said.append, lambda: now):
        for now in (0.0, 1.0, 59.0, 60.0, 61.0):  # noqa: B007
            library.warning("overflow")
    assert len(said) == 2


def test_a_mistake_in_a_librarys_message_is_no_mistake_here() -> None:
    said: list[Event] = []
    with relayed(said.append):  # pytest's own handlers would make it one, so this one is asked alone
        record = logging.LogRecord("somebody", logging.WARNING, "file.py", 1, "%d", ("no number",), None)
        logging.getLogger().handlers[-1].handle(record)
    [line] = lines(said)
    assert line.startswith("shmconf: somebody: '%d': TypeError: ")
