"""The agent as a process: one reconciler for each segment, signals, the heartbeat and what systemd hears.

The main thread does nothing that can get stuck: it waits for signals and, twice a second, asks each reconciler whether
it still gets on. Only then do heartbeat and watchdog hear of it, so a loop that hangs is seen from outside.
SIGTERM and SIGINT stop; SIGHUP reads shmconf.toml and all sources again, and keeps the old agent's file on error.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shmconf.directories import Directory
from shmconf.errors import Error

from .config import AgentConfig, SegmentConfig
from .events import Said, Say
from .exits import DONE, FAILED
from .notify import Notifier
from .problems import Invalid
from .reconcile import Reconciler

_PULSE_SECONDS = 0.5
_STOP_SECONDS = 10.0


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
        self._ready = False
        self._told = ""
        self._reconcilers: dict[str, Reconciler] = {}
        try:
            for segment in config.segments:
                self._reconcilers[segment.name] = self._make(segment)
        except BaseException:
            self._stop()
            raise

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code."""
        with _signals() as wakeup:
            for reconciler in self._reconcilers.values():
                reconciler.start()
            try:
                return self._serve(wakeup)
            finally:
                self._notifier.send(STOPPING="1")
                self._stop()

    def _serve(self, wakeup: int) -> int:
        while True:
            self._pulse()
            for reconciler in self._reconcilers.values():
                if reconciler.failure is not None:
                    self._say(Said(reconciler.name, f"stopped: {reconciler.failure}"))
                    return FAILED
            received = _wait_for_signals(wakeup, _PULSE_SECONDS)
            if received & {signal.SIGTERM, signal.SIGINT}:
                return DONE
            if signal.SIGHUP in received:
                self._read_again()

    def _pulse(self) -> None:
        """Heartbeats for the segments whose reconciler gets on, and for systemd if all of them do."""
        stuck = [reconciler for reconciler in self._reconcilers.values() if not reconciler.beat()]
        if not stuck:
            self._notifier.send(WATCHDOG="1")
        status = "; ".join(reconciler.summary() for reconciler in self._reconcilers.values())
        if status != self._told:
            self._told = status
            self._notifier.send(STATUS=status)
        if not self._ready and all(reconciler.version for reconciler in self._reconcilers.values()):
            self._ready = True
            self._notifier.send(READY="1", MAINPID=str(os.getpid()))

    def _read_again(self) -> None:
        if self._reload is not None:
            try:
                self._apply(self._reload())
            except (Invalid, Error, OSError) as error:
                text = f"the agent's file was not taken, the one from before is in force: {_first_line(error)}"
                self._say(Said(None, text))
        for reconciler in self._reconcilers.values():
            reconciler.read_again()

    def _apply(self, config: AgentConfig) -> None:
        """Go on with another agent's file; segments whose own part did not change are left alone."""
        if (config.runtime_dir, config.state_dir) != self._directories:
            self._say(Said(None, "another runtime_dir or state_dir is taken only when the agent is started again"))
        wanted = {segment.name: segment for segment in config.segments}
        for name in [name for name in self._reconcilers if name not in wanted]:
            self._reconcilers.pop(name).stop(_STOP_SECONDS)
            self._say(Said(name, "no longer in the agent's file; the segment stays as it is"))
        for name, segment in wanted.items():
            current = self._reconcilers.get(name)
            if current is not None and current.config == segment:
                continue
            if current is not None:
                self._reconcilers.pop(name).stop(_STOP_SECONDS)
            try:
                self._reconcilers[name] = self._make(segment)
            except (Error, OSError, Invalid) as error:
                self._say(Said(name, f"not taken from the agent's file: {_first_line(error)}"))
                if current is None:
                    continue
                self._reconcilers[name] = self._make(current.config)
            self._reconcilers[name].start()

    def _make(self, segment: SegmentConfig) -> Reconciler:
        return Reconciler(segment, self._directory, self._state, self._say)

    def _stop(self) -> None:
        for reconciler in self._reconcilers.values():
            reconciler.ask_to_stop()
        for reconciler in self._reconcilers.values():
            reconciler.stop(_STOP_SECONDS)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable when one of our signals came, one byte (its number) for each."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    previous_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    ours = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: None) for number in ours}
    try:
        yield reading
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(reading)
        os.close(writing)


def _wait_for_signals(wakeup: int, seconds: float) -> set[int]:
    ready, _, _ = select.select([wakeup], [], [], seconds)
    return set(os.read(wakeup, 256)) if ready else set()
