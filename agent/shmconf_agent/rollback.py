"""Rollbacks of one segment: a kept version is judged by today's rules, published again, and held until `resume`.

The record of the hold (`hold.HoldFile`) is what was decided, and the publication follows from it: first the record is
durable, then the version is published; with `resume` first the record is gone, then the files are followed. So an agent
that starts and finds a record completes it: where the rollback is what is served, nothing is left to do but to hold;
where it is not (a kill came in between, or the runtime directory is empty after a reboot), it is published now. Until
then nothing else is.

Of one segment's reconciler, and of its thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from shmconf import Hold, codec
from shmconf.errors import Error, SegmentLocked

from .config import SegmentConfig
from .events import Said, Say, still_serving
from .history import Entry, NotKept
from .history_keeping import NO_ROOM, WritableHistory
from .hold import Damaged, HoldFile, Record, Resume, RollBack, who
from .log_kinds import Kind
from .masking import noted_paths
from .pipeline import Pipeline
from .problems import Code, Invalid, Problem
from .progress import Progress
from .publish import Publisher
from .reload import FAILED, NOT_KEPT, REJECTED, ROLLED_BACK
from .render import to_resume, when
from .view import SourceLayer

_RETRY_SECONDS = 2.0
_PUBLISH_SECONDS = 60.0  # for the disk to take the record, and the segment the version


class Rollbacks:
    """See the module."""

    def __init__(self, config: SegmentConfig, state: Path, publisher: Publisher, say: Say) -> None:
        """What was decided before is read; it is carried out by `complete`."""
        self._config = config
        self._name = config.name
        self._publisher = publisher
        self._say = say
        self._history = WritableHistory(state, config.name)
        self._file = HoldFile(self._history.path)
        self._record: Record | None = None
        self._is_complete = True
        self._retry_at = 0.0
        self.problem: str | None = None
        """What an operator should know of the hold, besides that it is there."""
        self._unwritten = False  # a hold that the disk refused, and that holds all the same
        self._load()

    @property
    def holds(self) -> bool:
        """Whether the files are not to be published."""
        return self._record is not None

    def complete(self, progress: Progress) -> None:
        """Carry out what was decided before. To be called before anything is published, and every now and then."""
        if self._record is None or time.monotonic() < self._retry_at:
            return
        if self._is_complete:
            self._write_again()
            return
        hold = self._record.hold
        if _is_that_of(hold, self._publisher.rollback):
            self._is_complete = True
            self._publisher.set_hold(hold)
            text = f"HELD: version {self._publisher.version} is a rollback of version {hold.version}, {_asked(hold)}"
            self._tell_of_hold(text)
            return
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        began = time.monotonic()
        try:
            with progress.stage("publish", _PUBLISH_SECONDS):
                entry, payload = self._kept_as(self._record)
                self._publisher.roll_back(entry.kept, payload, hold, began)
        except SegmentLocked:
            raise
        except NotKept as error:
            self._give_up(hold, str(error))
        except (Error, OSError, ValueError) as error:
            self._cannot(hold, _reason(error))
        else:
            self._is_complete, self.problem = True, None
            text = f"HELD: a rollback of version {hold.version}, {_asked(hold)}, was completed at this start"
            self._tell_of_hold(text)

    def roll_back(self, order: RollBack, progress: Progress) -> tuple[str, tuple[Problem, ...]]:
        """Do it, or leave all as it is. Returns the verdict, and what is wrong; of ROLLED_BACK, what is wrong with a
        version that was forced."""
        with progress.stage("read", _PUBLISH_SECONDS):
            self._publisher.settle_history()
            try:
                entry = self._history.find(order.version)
                payload = self._history.payload(entry)
            except (NotKept, OSError) as error:
                return NOT_KEPT, (Problem(_reason(error), code=Code.NOT_KEPT),)
        problems = self._judge(entry, payload, progress)
        if problems and not order.force:
            texts = "; ".join(str(problem) for problem in problems[:3])
            serving = still_serving(self._publisher.version)
            text = f"rollback to version {order.version} refused, {serving}: {texts}"
            self._tell(text, Kind.ROLLBACK_REFUSED)
            return REJECTED, problems
        began = time.monotonic()
        hold = Hold(order.version, entry.kept.epoch, time.time_ns(), order.uid, forced=bool(problems))
        before, record = self._record, Record(hold, entry.kept.digest)
        with progress.stage("publish", _PUBLISH_SECONDS):
            unwritten: str | None = None
            try:
                self._keep(record)
            except OSError as error:
                unwritten = f"the hold cannot be kept in {self._file.path}: {_reason(error)}"
                if not order.force:
                    return FAILED, (*problems, Problem(unwritten, code=Code.HOLD_NOT_KEPT))
            try:
                version = self._publisher.roll_back(entry.kept, payload, hold, began)
            except SegmentLocked:
                raise
            except (Error, OSError, ValueError) as error:
                self._put_back(before)
                text = f"version {order.version} cannot be published: {_reason(error)}"
                return FAILED, (*problems, Problem(text, code=Code.NOT_PUBLISHED))
        self._record, self._is_complete, self._unwritten = record, True, unwritten is not None
        self.problem = None
        if unwritten is not None:
            problems = (*problems, Problem(unwritten, code=Code.HOLD_NOT_KEPT))
            self._lasts_as_long_as_the_agent(unwritten)
        forced = "; FORCED, though: " + "; ".join(str(problem) for problem in problems[:3]) if problems else ""
        text = f"HELD: version {version} is a rollback of version {hold.version}, by {who(hold.uid)}{forced}"
        self._tell_of_hold(text)
        return ROLLED_BACK, problems

    def resume(self, order: Resume) -> tuple[Hold | None, tuple[Problem, ...]]:
        """Let go; what was held until now (None for nothing), or why it is held still."""
        if self._record is None:
            return None, ()
        hold = self._record.hold
        try:
            self._file.remove()
        except OSError as error:
            text = f"still held: {self._file.path} cannot be removed: {_reason(error)}"
            return hold, (Problem(text, code=Code.HOLD_NOT_KEPT),)
        self._forget()
        text = f"resumed by {who(order.uid)}: the rollback to version {hold.version} is held no more"
        self._tell(text, Kind.RESUMED)
        return hold, ()

    def _load(self) -> None:
        try:
            self._record = self._file.load()
        except (OSError, Damaged) as error:
            self._record = self._noted()
            told = "what was published says what is held" if self._record else "nothing says what is held: nothing is"
            self.problem = f"whether a rollback is held cannot be read: {_reason(error)}; {told}"
        self._is_complete = self._record is None

    def _noted(self) -> Record | None:
        """The hold that the version which is served, or the newest that is kept, was published with."""
        digest, rollback = self._publisher.digest, self._publisher.rollback
        if digest is None and (newest := self._history.newest()) is not None:
            digest, rollback = newest[0].digest, newest[0].metadata.get("rollback")
        if digest is None or rollback is None:
            return None
        try:
            return Record(Hold.of(rollback), digest)
        except ValueError:
            return None

    def _kept_as(self, record: Record) -> tuple[Entry, bytes]:
        """The version that is to be held, or another one with its document. Raises NotKept, OSError."""
        hold = record.hold
        found = [entry for entry in self._history.entries() if entry.kept.digest == record.digest]
        found.sort(key=lambda entry: (entry.kept.epoch, entry.kept.version) != (hold.epoch, hold.version))
        for entry in found:
            try:
                return entry, self._history.payload(entry)
            except NotKept as error:
                self.problem = str(error)
        raise NotKept(f"version {hold.version} is not kept whole in {self._history.path} any more")

    def _judge(self, entry: Entry, payload: bytes, progress: Progress) -> tuple[Problem, ...]:
        """What is wrong with a kept version by today's schema and check."""
        texts: tuple[SourceLayer, ...] = ()
        with contextlib.suppress(NotKept, OSError):  # without them there are no places
            texts = self._history.layers(entry)
        pipeline = Pipeline(self._config)
        try:
            tree = codec.unpack(payload)
            if not isinstance(tree, dict):
                raise ValueError("its top level is no map")
            pipeline.judge_again(tree, payload, noted_paths(entry.kept.metadata), texts, progress)
        except Invalid as invalid:
            return invalid.problems
        except ValueError as error:
            return (Problem(f"version {entry.kept.version} is no configuration: {error}", code=Code.NOT_KEPT),)
        finally:
            pipeline.close()
        return ()

    def _keep(self, record: Record) -> None:
        """Make it durable; on a disk without room the oldest versions give way to it. Raises OSError."""
        while True:
            try:
                self._file.keep(record)
                return
            except OSError as error:
                if error.errno not in NO_ROOM or not self._history.give_up_oldest(record.digest):
                    raise

    def _put_back(self, before: Record | None) -> None:
        """The record from before a rollback that came to nothing."""
        try:
            if before is None:
                self._file.remove()
            else:
                self._keep(before)
        except OSError as error:
            self.problem = f"{self._file.path} names a rollback that came to nothing: {_reason(error)}; remove it"

    def _write_again(self) -> None:
        if self._record is not None:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if not self._unwritten:
                if self._file.is_there():
                    return
                self._unwritten = True  # whoever removed the state directory ended no hold by it
                self._say(Said(self._name, f"{self._file.path} was removed; put back", self._publisher.version))
                with contextlib.suppress(Error):  # what is served is damaged
                    self._publisher.keep_again()
            try:
                self._keep(self._record)
            except OSError as error:
                self._lasts_as_long_as_the_agent(f"the hold cannot be kept in {self._file.path}: {_reason(error)}")
            else:
                self._unwritten, self.problem = False, None

    def _lasts_as_long_as_the_agent(self, why: str) -> None:
        self.problem = f"{why}; an agent that starts anew {self._next_start()}"

    def _next_start(self) -> str:
        """What it will do, by what the disk has."""
        try:
            record = self._file.load()
        except (OSError, Damaged):
            return "may follow the files"
        if record is None:
            return "will follow the files"
        return f"will go back to the rollback of version {record.hold.version}"

    def _give_up(self, hold: Hold, why: str) -> None:
        """There is nothing to be held any more. What is served is held on to; where nothing is, the files are better
        than nothing."""
        if self._publisher.version > 0:
            self._cannot(hold, why)
            return
        text = f"the rollback to version {hold.version} is held no more: {why}; the files are followed"
        self._tell(text, Kind.RESUMED)
        try:
            self._file.remove()
        except OSError as error:
            self.problem = f"{self._file.path} cannot be removed: {_reason(error)}"
        problem = self.problem
        self._forget()
        self.problem = problem

    def _cannot(self, hold: Hold, why: str) -> None:
        version = self._publisher.version
        self.problem = (
            f"the rollback to version {hold.version} cannot be completed: {why}; "
            f"{still_serving(version)}, and nothing new is published: roll back to another version, or resume"
        )
        self._publisher.set_hold(hold)

    def _forget(self) -> None:
        self._record, self._is_complete, self._unwritten, self.problem = None, True, False, None
        self._retry_at = 0.0
        self._publisher.set_hold(None)

    def _tell_of_hold(self, text: str) -> None:
        self._tell(f"{text}; edits wait for: {to_resume(self._name)}", Kind.ROLLED_BACK)

    def _tell(self, text: str, kind: Kind) -> None:
        self._say(Said(self._name, text, self._publisher.version, kind))


def _is_that_of(hold: Hold, rollback: dict[str, Any] | None) -> bool:
    """Whether what is served was published by this very order."""
    return rollback is not None and all(
        rollback.get(name) == getattr(hold, name) for name in ("version", "epoch", "since")
    )


def _asked(hold: Hold) -> str:
    return f"since {when(hold.since)} by {who(hold.uid)}{', FORCED' if hold.forced else ''}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        # What is opened by a name within a directory is named by the message around this already.
        where = f"{error.filename}: " if error.filename and os.path.isabs(error.filename) else ""
        return f"{where}{error.strerror or error}"
    return str(error)
