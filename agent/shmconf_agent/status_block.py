"""The status block of one segment: what its readers, and the log with them, are told of the agent and the newest files.

It is written where anything in it is new. Why the newest files are not served is told once, and counted where it is
found again (`repeats`). Whoever publishes calls this first, so that whoever sees a new version finds the status that
goes with it. One thread, but for `hold`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import shmconf
from shmconf import Hold
from shmconf.writer import Writer

from .events import Said, Say, still_serving
from .keeping import Keeping
from .log_kinds import Kind
from .problems import Problem
from .repeats import Repeats

__all__ = ["StatusBlock"]


class StatusBlock:
    """See the module."""

    def __init__(self, name: str, writer: Writer, keeping: Keeping, say: Say) -> None:
        """name: of the segment. The agent is starting; `show` tells it to readers."""
        self._name = name
        self._writer = writer
        self._keeping = keeping
        self._say = say
        self.rejected: tuple[Problem, ...] = ()
        """Why the newest files are not served; empty while they are."""
        self.held: str | None = None
        """Digest of the candidate that the guard holds; `rejected` says why."""
        self.unpublishable: str | None = None
        """Digest of the candidate that is valid and only finds no room: until it does, `rejected` stands."""
        self.lost: str | None = None
        """Why a removed segment file could not be put back."""
        self.notes: tuple[str, ...] = ()
        """What an operator should know of the sources though nothing failed."""
        self._history_problems: tuple[str, ...] = ()  # as they were said
        self._repeats = Repeats()
        self._status = shmconf.AgentStatus(
            state="starting", pid=os.getpid(), agent_version=shmconf.__version__, started_at=time.time_ns()
        )
        self._shown: shmconf.AgentStatus | None = None

    @property
    def shown(self) -> shmconf.AgentStatus:
        """As every reader may see it, in full."""
        return self._shown or self._status

    @property
    def is_starting(self) -> bool:
        """Whether the files were not judged yet since the agent's start."""
        return self._status.state == "starting"

    @property
    def hold(self) -> Hold | None:
        """The rollback that is held. From any thread."""
        return self._status.hold

    def set_hold(self, hold: Hold | None) -> None:
        """Tell readers of it, or (None) that the files are followed."""
        state = self._status.state if hold is None else "running"  # what is held is no last known good of a start
        self._status = dataclasses.replace(self._status, hold=hold, state=state)
        self.show()

    def roll_back(self, hold: Hold) -> shmconf.AgentStatus:
        """A rollback is about to be published. Returns what is to be given to `take_back` if that fails."""
        before = self._status
        self._status = dataclasses.replace(before, state="running", stale=False, hold=hold)
        self.show()
        return before

    def take_back(self, before: shmconf.AgentStatus) -> None:
        """The rollback was not published: the status is as it was before `roll_back`."""
        self._status = before
        self.show()

    def clear(self) -> None:
        """Nothing is wrong with the newest files, and they are what is served or about to be."""
        self._say_of_repeats(self._repeats.end())
        self.rejected, self.held = (), None
        self.unpublishable = None
        self._status = dataclasses.replace(
            self._status,
            state="running",
            stale=False,
            last_error=None,
            last_error_at=None,
            problems=(),
            problem_count=0,
            held=None,
            hold=self._hold_without_candidate(),
        )
        self.show()

    def is_told(self, found: tuple[Problem, ...], held: str | None, *, asked: bool) -> bool:
        """Whether readers and the log know of this rejection; then it is counted, unless somebody `asked`. found, held:
        as of `reject`."""
        if (found, held) != (self.rejected, self.held):
            return False
        if not asked and (again := self._repeats.again()):
            what = "rejected" if held is None else "held"
            self._say_of_repeats(f"{what} again, {still_serving(self._writer.version)}: {again}")
        return True

    def begin_to_tell(self, found: tuple[Problem, ...]) -> None:
        """A rejection other than the one before is found: that one is over, and how often it was found is said."""
        self._say_of_repeats(self._repeats.begin(len(found)))

    def reject(self, found: tuple[Problem, ...], held: str | None, *, stale: bool) -> None:
        """The files as they are now are not served. held: the digest of the candidate that they make, if it is the
        guard that holds it. stale: what is served, or about to be, is from before the agent's start."""
        self.rejected, self.held = found, held
        self.unpublishable = None
        texts = tuple(str(problem) for problem in found)
        self._status = dataclasses.replace(
            self._status,
            state="running",
            stale=self._status.stale or stale,
            last_error=texts[0] if len(texts) == 1 else f"{texts[0]} (and {len(texts) - 1} more)",
            last_error_at=time.time_ns(),
            problems=texts,
            problem_count=len(texts),
            rejections=self._status.rejections + 1,
            held=held,
            hold=self._hold_without_candidate(),
        )
        self.show()

    def not_stale(self) -> None:
        """The last known good could not be served after all."""
        self._status = dataclasses.replace(self._status, stale=False)
        self.show()

    def note(self, notes: Sequence[str]) -> None:
        """What is known of the sources now; replaces what was noted before."""
        for note in notes:
            if note not in self.notes:
                self._say(Said(self._name, note, self._writer.version))
        self.notes = tuple(notes)
        self.show()

    def stop(self) -> None:
        """The agent's last word."""
        self._say_of_repeats(self._repeats.end())
        self._status = dataclasses.replace(self._status, state="stopped")
        self.show()

    def show(self) -> None:
        """Bring the status block up to date, if anything in it is new."""
        warnings = [*self._writer.warnings(), *self.notes]
        problems = self._keeping.problems()
        for problem in problems:
            if problem not in self._history_problems:
                self._say(Said(self._name, problem, self._writer.version))
        self._history_problems = problems
        warnings += [*problems, *([self.lost] if self.lost else [])]
        status = dataclasses.replace(self._status, warnings=tuple(warnings))
        if status != self._shown:
            self._writer.set_status(status.encode())
            self._shown = status

    def _hold_without_candidate(self) -> Hold | None:
        return None if self.hold is None else dataclasses.replace(self.hold, candidate=None)

    def _say_of_repeats(self, text: str | None) -> None:
        if text is not None:
            self._say(Said(self._name, text, self._writer.version, Kind.REPEATED))
