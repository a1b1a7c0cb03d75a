"""The agent's lines on stdout, stderr or in the journal, which may be slow, full or gone: nothing ever waits for them.

Events are queued, and written by a thread of their own. Where nobody takes them they are dropped, and once somebody
does again a line says how many; a closed pipe ends the writing and nothing else.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
import time
from typing import TextIO

from .events import Event, Published, Said
from .log_format import LogFormat, goes_to_journal
from .log_kinds import Kind
from .log_record import Record, record_of

_MOST_EVENTS = 1000
_MOST_COMPARED = 10  # publications that wait for their turn
_SETTLE_SECONDS = 3.0
_JOURNAL_SECONDS = 0.5  # how long it may be busy before a line takes the other way
_OF_THE_MACHINE = frozenset({Kind.STARTED, Kind.STOPPED})  # as text, the shell and the first version tell as much


class Output:
    """Where an agent's events go. `say` may be called from any thread."""

    def __init__(self, form: LogFormat, journal_path: str | None = None) -> None:
        """form: JSON goes to stdout; of text, publications and rejections alone. AUTO is the journal for a stream that
        leads there, and text for one that does not. journal_path: another socket than systemd's.
        """
        self._form = form
        self._events: queue.Queue[tuple[Event, float] | None] = queue.Queue(_MOST_EVENTS)
        self._dropped = 0
        self._counting = threading.Lock()
        # By number: a thread that hangs in a file object's lock would hang the interpreter's end as well.
        self._out, self._err = _descriptor(sys.stdout), _descriptor(sys.stderr)
        self._out_is_journal, self._err_is_journal = (
            form is LogFormat.JOURNAL or (form is LogFormat.AUTO and goes_to_journal(each, self._err))
            for each in (self._out, self._err)
        )
        used = self._out_is_journal or self._err_is_journal
        self._journal = _JournalWriter(journal_path, self._err) if used else None
        self._thread = threading.Thread(target=self._write_all, name="shmconf-output", daemon=True)
        self._thread.start()

    def say(self, event: Event) -> None:
        """Write the event as one line, soon. Never waits and never raises."""
        if isinstance(event, Published) and event.comparison and self._events.qsize() >= _MOST_COMPARED:
            event.comparison.forget()  # two trees are a lot to keep for somebody who does not read
        try:
            self._events.put_nowait((event, time.time()))
        except queue.Full:
            self._count_dropped(1)

    def close(self) -> None:
        """Give what is queued some seconds to be written."""
        try:
            self._events.put(None, timeout=_SETTLE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_SETTLE_SECONDS)

    def _write_all(self) -> None:
        while (said := self._events.get()) is not None:
            if not self._write(_record_of(*said)):
                self._count_dropped(1)
            if self._events.empty():
                self._tell_of_dropped()
        self._tell_of_dropped()
        if self._journal is not None:
            self._journal.close()

    def _write(self, record: Record) -> bool:
        """False for what may be worth to be told of later: a pipe that was closed is no such thing."""
        if self._form is LogFormat.JSON:
            _write(self._out, record.json_line())
        elif self._journal is not None and (self._out_is_journal if record.is_verdict else self._err_is_journal):
            return self._journal.write(record)
        elif record.kind not in _OF_THE_MACHINE:
            _write(self._out if record.is_verdict else self._err, record.text)
        return True

    def _count_dropped(self, lines: int) -> None:
        with self._counting:
            self._dropped += lines

    def _tell_of_dropped(self) -> None:
        if dropped := self._dropped:
            what = "line was" if dropped == 1 else "lines were"
            text = f"{dropped} {what} dropped here, as nobody read {'it' if dropped == 1 else 'them'}"
            if self._write(record_of(Said(None, text, kind=Kind.LINES_DROPPED), time.time())):
                self._count_dropped(-dropped)


class _JournalWriter:
    """Records for the journal, and for stderr where it does not take them."""

    def __init__(self, path: str | None, error_descriptor: int) -> None:
        from .journal import JOURNAL, Journal  # of Linux alone

        self._journal = Journal(path or JOURNAL)
        self._err = error_descriptor
        self._failure: str | None = None

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def write(self, record: Record) -> bool:
        """Whether it was taken, here or there."""
        try:
            self._journal.send(record.journal_fields(), _JOURNAL_SECONDS)
            self._failure = None
            return True
        except OSError as error:
            failure = error.strerror or str(error)
        if failure != self._failure:
            self._failure = failure
            _write(self._err, f"shmconf: the journal takes no entries ({failure}); here is what it would have had")
        return _write(self._err, record.text)


def _record_of(event: Event, at: float) -> Record:
    """Whatever happens: the lines that follow are wanted as well."""
    try:
        return record_of(event, at)
    except Exception as error:
        text = f"internal error: a line about {event.kind.label} could not be made: {type(error).__name__}: {error}"
        return record_of(Said(event.segment, text), at)


def _descriptor(stream: TextIO | None) -> int:
    """The number of a standard stream; -1 where it was closed before the start."""
    return -1 if stream is None else stream.fileno()


def _write(descriptor: int, text: str) -> bool:
    """Whether somebody was there to be told."""
    data = memoryview(f"{text}\n".encode("utf-8", "backslashreplace"))
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
        return True
    except (OSError, ValueError):
        return False
