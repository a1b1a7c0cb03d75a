"""The agent as a process: one reconciler for each segment, signals, the heartbeat and what systemd hears.

The main thread does nothing that can get stuck: it waits for signals and, twice a second, asks each reconciler whether
it still gets on. Only then do heartbeat and watchdog hear of it, so a loop that hangs is seen from outside.
SIGTERM and SIGINT stop; SIGHUP reads shmconf.toml and all sources again, and keeps the old agent's file on error.
So does whoever asks for a `Reload` at an admin socket, and is told what became of it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import shmconf
from shmconf.directories import Directory
from shmconf.errors import Error
from shmconf.workers import Worker, attached_workers

from . import collector
from .admin import AdminServer
from .admin_socket import AdminSocket
from .config import AgentConfig, SegmentConfig, resolve_group
from .events import Said, Say
from .exits import DONE, FAILED
from .hang_up import HangUps
from .hold import RollBack
from .log_kinds import Kind
from .notify import Notifier
from .problems import Code, Invalid, Problem
from .progress import IDLE_SECONDS
from .reconcile import Reconciler
from .reload import Question, Reload
from .tally import Tally, Totals
from .textfile import MetricsTextfile

_PULSE_SECONDS = 0.5
_CHANGE_SECONDS = 0.02  # how soon a segment goes on with other settings once its reconciler has ended
_RETRY_SECONDS = 2.0
_STOP_SECONDS = 10.0
_ASKED = b"\0"  # in the pipe of signals: no signal has this number


@dataclass(slots=True)
class _Change:
    """What is to become of a segment that the agent's file has other settings for, or (None) no longer knows.

    before: what it had, and goes on with where `wanted` cannot be used; None for a new segment.
    questions: what the next reconciler of the segment is to answer.
    """

    wanted: SegmentConfig | None
    before: SegmentConfig | None
    told: set[str] = field(default_factory=set)
    retry_at: float = 0.0
    questions: list[Question] = field(default_factory=list)


class Agent:
    """All segments of one agent's file. `run` belongs in the main thread, because of the signals."""

    def __init__(
        self,
        config: AgentConfig,
        directory: Directory,
        state: Path,
        say: Say,
        reload: Callable[[], AgentConfig] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """Open every segment, or none. Raises Error (SegmentLocked among them), OSError or Invalid.

        reload: reads the agent's file again, for SIGHUP.
        """
        self._directory = directory
        self._state = state
        self._say = say
        self._reload = reload
        self._directories = (config.runtime_dir, config.state_dir)
        self._notifier = notifier or Notifier()
        self._hang_ups = HangUps(self._notifier)
        self._ready = False
        self._told = ""
        self._tallies: dict[str, Tally] = {}
        self._textfile = MetricsTextfile(self._metrics_text, say)
        self._reconcilers: dict[str, Reconciler] = {}
        self._changes: dict[str, _Change] = {}
        self._reloads: deque[Reload] = deque()
        self._turned_at = time.monotonic()
        admin_gid = _admin_gid(config)  # before anything is opened: it may be Invalid
        self._wakeup_writer = -1
        self._wakeup_lock = threading.Lock()  # so that nobody writes to a number that has become another file's
        self._admin = AdminServer(self, say)
        self._admin.admin_gid = admin_gid
        try:
            for segment in config.segments:
                self._reconcilers[segment.name] = self._make(segment)
            self._textfile.write_to(config.metrics_textfile)
        except BaseException:
            self._stop()
            raise

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code."""
        with _wakeup_pipe() as (wakeup, writer), _signals(writer):
            self._wakeup_writer = writer
            self._say_started()
            for reconciler in self._reconcilers.values():
                reconciler.start()
            try:
                return self._serve(wakeup)
            finally:
                self._notifier.send(STOPPING="1")
                self._stop()
                self._say(Said(None, "stopped; readers go on with what is published", kind=Kind.STOPPED))
                with self._wakeup_lock:
                    self._wakeup_writer = -1

    def _say_started(self) -> None:
        serving = self.serving().items()
        found = [f"{name} at version {version}" if version else f"{name}, new" for name, version in serving]
        text = f"release {shmconf.__version__} started as process {os.getpid()}: {'; '.join(found) or 'no segment'}"
        self._say(Said(None, text, kind=Kind.STARTED))

    def ask(self, reload: Reload) -> None:
        """Read the agent's file and the sources again, as soon as may be. From any thread."""
        self._reloads.append(reload)
        with self._wakeup_lock, suppress(OSError):  # a full pipe wakes up as well
            if self._wakeup_writer >= 0:
                os.write(self._wakeup_writer, _ASKED)

    def health(self) -> dict[str, bool]:
        """Whether each segment's loop gets on, and this one. From any thread."""
        turns = time.monotonic() - self._turned_at < IDLE_SECONDS
        return {name: turns and reconciler.gets_on() for name, reconciler in self._reconcilers.copy().items()}

    def serving(self) -> dict[str, int]:
        """The version that each segment serves, 0 for none. From any thread."""
        return {name: reconciler.version for name, reconciler in self._reconcilers.copy().items()}

    def totals(self) -> dict[str, Totals]:
        """What the reloads of each segment have come to. From any thread."""
        return {name: tally.totals() for name, tally in self._tallies.copy().items()}

    def workers(self, segment: str, served: int) -> list[Worker]:
        """Those that are attached to one segment, which serves this version; none where that cannot be told."""
        try:
            return attached_workers(self._directory, segment, served)
        except (Error, OSError):  # the segment's warnings say why
            return []

    def directory(self) -> Directory:
        """Where the segments are. From any thread."""
        return self._directory

    def _serve(self, wakeup: int) -> int:
        while True:
            self._turned_at = time.monotonic()
            self._go_on_with_changes()
            self._pulse()
            for reconciler in self._reconcilers.values():
                if reconciler.failure is not None:
                    self._say(Said(reconciler.name, f"stopped: {reconciler.failure}", kind=Kind.FAILED))
                    return FAILED
            self._hang_ups.look()
            soon = self._changes or self._hang_ups.are_under_way
            received = _wait_for_signals(wakeup, _CHANGE_SECONDS if soon else _PULSE_SECONDS)
            if received & {signal.SIGTERM, signal.SIGINT}:
                return DONE
            if signal.SIGHUP in received:
                self._reloads.append(self._hang_ups.begin(ready=self._ready))
            self._begin_reloads()

    def _pulse(self) -> None:
        """Heartbeats for the segments whose reconciler gets on, and for systemd if all of them do."""
        stuck = [reconciler for reconciler in self._reconcilers.values() if not reconciler.beat()]
        if not stuck:
            self._notifier.send(WATCHDOG="1")
        status = "; ".join(reconciler.summary() for reconciler in self._reconcilers.values())
        if status != self._told:
            self._told = status
            self._notifier.send(STATUS=status)
        if self._ready or self._changes:  # a segment that is being changed may have no reconciler just now
            return
        if all(reconciler.version for reconciler in self._reconcilers.values()):
            self._ready = True
            self._notifier.send(READY="1", MAINPID=str(os.getpid()))
            collector.settle()

    def _read_agent_file(self) -> tuple[Problem, ...]:
        """Go on with the agent's file as it is now; why it was not taken, if so."""
        if self._reload is None:
            return ()
        try:
            self._apply(self._reload())
            return ()
        except (Invalid, Error, OSError) as error:
            text = f"the agent's file was not taken, the one from before is in force: {_first_line(error)}"
            self._say(Said(None, text, kind=Kind.SETTINGS_REFUSED))
            return _problems(error)

    def _begin_reloads(self) -> None:
        """Whoever asked up to here is told of the files as they are from here on."""
        reloads = []
        while self._reloads:
            reloads.append(self._reloads.popleft())
        if not reloads:
            return
        # A rollback goes by the settings that are in force: it is for when things go wrong.
        looks = any(not isinstance(reload.order, RollBack) for reload in reloads)
        problems = self._read_agent_file() if looks else ()
        versions = self.serving()
        for reload in reloads:
            names = [reload.segment] if reload.segment is not None else list({**self._reconcilers, **self._changes})
            for question in reload.begin({name: versions.get(name, 0) for name in names}, problems):
                if (change := self._changes.get(question.segment)) is not None:
                    change.questions.append(question)
                elif (reconciler := self._reconcilers.get(question.segment)) is not None:
                    reconciler.ask(question)
                else:
                    question.gone()

    def _apply(self, config: AgentConfig) -> None:
        """Go on with another agent's file; segments whose own part did not change are left alone.

        Nothing is waited for here: who has to end first may be busy for seconds, and the others' heartbeats go on.
        """
        admin_gid = _admin_gid(config)
        if (config.runtime_dir, config.state_dir) != self._directories:
            self._say(Said(None, "another runtime_dir or state_dir is taken only when the agent is started again"))
        self._admin.admin_gid = admin_gid
        self._textfile.write_to(config.metrics_textfile)
        wanted = {segment.name: segment for segment in config.segments}
        for name in {**self._reconcilers, **self._changes, **wanted}:
            current, change, segment = self._reconcilers.get(name), self._changes.get(name), wanted.get(name)
            if current is not None and (change is not None or current.config != segment):
                current.ask_to_stop()
                self._changes[name] = _Change(segment, current.config)
            elif current is None:
                self._changes[name] = _Change(segment, change.before if change is not None else None)
            if change is not None:
                self._changes[name].questions = change.questions

    def _go_on_with_changes(self) -> None:
        for name, change in list(self._changes.items()):
            current = self._reconcilers.get(name)
            if (current is None or current.has_ended()) and time.monotonic() >= change.retry_at:
                if self._reconcilers.pop(name, None) is not None and current is not None:
                    change.questions += current.unanswered()
                self._change(name, change)

    def _change(self, name: str, change: _Change) -> None:
        """Begin with what is wanted, or else with what was before: a segment is not left to itself by a mistake."""
        if change.wanted is None:
            del self._changes[name]
            self._tallies.pop(name, None)
            self._say(Said(name, "no longer in the agent's file; the segment stays as it is", kind=Kind.LEFT_OUT))
            for question in change.questions:
                question.gone()
            return
        refused: tuple[Problem, ...] = ()
        for segment in (change.wanted, change.before):
            try:
                if segment is not None:
                    made = self._reconcilers[name] = self._make(segment)
                    made.start()
                    del self._changes[name]
                    for question in change.questions:
                        question.settings_refused(refused)
                        made.ask(question)
                    return
            except (Error, OSError, Invalid) as error:
                refused = refused or _problems(error)
                text = f"not taken from the agent's file: {_first_line(error)}"
                if text not in change.told:
                    change.told.add(text)
                    self._say(Said(name, text, kind=Kind.SETTINGS_REFUSED))
        change.retry_at = time.monotonic() + _RETRY_SECONDS
        if change.before is None:  # it never was: the agent's file has to be mended, and read again
            del self._changes[name]
            for question in change.questions:
                question.settings_refused(refused)
                question.not_taken()

    def _make(self, segment: SegmentConfig) -> Reconciler:
        tally = self._tallies.setdefault(segment.name, Tally(self._textfile.changed))
        return Reconciler(segment, self._directory, self._state, self._say, self._make_socket, tally)

    def _make_socket(self, name: str) -> AdminSocket:
        return AdminSocket(self._directory.path, name, self._admin.socket_gid, partial(self._admin.listen, name))

    def _metrics_text(self) -> bytes:
        from .metrics import Metrics  # an agent that nobody asks does without it

        return Metrics(self.totals, self.workers).of_segments()

    def _stop(self) -> None:
        self._admin.close()
        self._textfile.close()
        for reconciler in self._reconcilers.values():
            reconciler.ask_to_stop()
        for reconciler in self._reconcilers.values():
            reconciler.stop(_STOP_SECONDS)


def _admin_gid(config: AgentConfig) -> int | None:
    """Raises Invalid for no group."""
    if config.admin_group is None:
        return None
    return resolve_group(config.admin_group, config.admin_group_place, "admin_group")


def _problems(error: Exception) -> tuple[Problem, ...]:
    return error.problems if isinstance(error, Invalid) else (Problem(_first_line(error), code=Code.NOT_PUBLISHED),)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


@contextmanager
def _wakeup_pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _signals(wakeup: int) -> Iterator[None]:
    """Meanwhile each of our signals is written to this descriptor, as one byte (its number)."""
    previous_fd = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    ours = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: None) for number in ours}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)


def _wait_for_signals(wakeup: int, seconds: float) -> set[int]:
    ready, _, _ = select.select([wakeup], [], [], seconds)
    return set(os.read(wakeup, 256)) if ready else set()
