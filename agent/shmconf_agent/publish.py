"""One segment's publication: the only place that writes in it, and what the agent tells its readers.

A candidate equal to what is served publishes nothing. A rejection changes nothing but the status block. What was
published is also kept in the state directory, from which it is served again after a reboot with invalid files. One
thread, the reconciler's, calls everything here; `beat` alone belongs to the feeder.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shmconf
from shmconf.directories import Directory
from shmconf.errors import Error, SegmentLocked
from shmconf.snapshot import Snapshot
from shmconf.writer import Settings, Writer

from .config import SegmentConfig, resolve_group
from .events import Published, Rejected, Said, Say, still_serving
from .history import Kept, LastKnownGood
from .pipeline import Candidate
from .problems import Problem

_RETRY_SECONDS = 5.0  # how often a disk that refused is asked again


class Publisher:
    """Owns the writer of one segment."""

    def __init__(self, config: SegmentConfig, directory: Directory, state: Path, say: Say) -> None:
        """Lock and open the segment. Raises SegmentLocked, Error, OSError, or Invalid for an unknown group."""
        self.name = config.name
        self._say = say
        gid = None if config.group is None else resolve_group(config.group)
        settings = Settings(config.max_bytes, config.mode, gid)
        self._writer = Writer(directory, config.name, settings, state_directory=state)
        self._kept = LastKnownGood(state / f"{config.name}.lkg" if os.access(state, os.W_OK) else None)
        self._digest: str | None = None
        self._nonblank: frozenset[str] = frozenset()
        self._look_at_published()
        self._rejected: tuple[Problem, ...] = ()
        self._unpublishable: str | None = None  # digest of the candidate that is valid and only finds no room
        self._notes: tuple[str, ...] = ()
        self._lost: str | None = None  # why a removed segment file could not be put back
        self._status = shmconf.AgentStatus(
            state="starting", pid=os.getpid(), agent_version=shmconf.__version__, started_at=time.time_ns()
        )
        self._shown: shmconf.AgentStatus | None = None
        self._retry_at = 0.0
        self._show()

    @property
    def version(self) -> int:
        """The version served now; 0 for none."""
        return self._writer.version

    @property
    def rejected(self) -> tuple[Problem, ...]:
        """Why the newest files are not served; empty while they are."""
        return self._rejected

    def nonblank_files(self) -> frozenset[str]:
        """The source files that had content when what is served now was published."""
        return self._nonblank

    def publish(self, candidate: Candidate, changed: Sequence[str], began: float) -> bool:
        """Make the candidate visible, unless it is what is served; False where there is no room for it.

        changed: names of the files that made the difference. began: time.monotonic() when the work on it began.
        Raises SegmentLocked when another agent has taken over.
        """
        if candidate.digest == self._digest:
            repaired = bool(self._rejected)
            self._clear()
            if repaired:
                text = f"valid again and equal to what is served; {still_serving(self.version)}"
                self._say(Said(self.name, text, self.version))
            return True
        if candidate.digest != self._unpublishable:
            self._clear()  # before: whoever sees the new version finds the status that goes with it
        try:
            version = self._writer.publish(candidate.payload, _metadata(candidate))
        except SegmentLocked:
            raise
        except (Error, OSError) as error:
            self.reject([Problem(f"valid, but it cannot be published: {_reason(error)}")])
            self._unpublishable = candidate.digest
            return False
        self._clear()
        self._digest = candidate.digest
        seconds = time.monotonic() - began
        self._say(
            Published(self.name, version, candidate.digest, seconds, tuple(changed), len(candidate.payload))
        )
        self._kept.keep(
            Kept(
                version,
                time.time_ns(),
                candidate.digest,
                candidate.files,
                candidate.payload,
                candidate.blank_files,
            )
        )
        return True

    def reject(self, problems: Sequence[Problem]) -> None:
        """The files as they are now are not served, and why; said once however often it is found again."""
        found = tuple(problems)
        if found == self._rejected:
            return
        if self._writer.version == 0:
            self._serve_last_known_good()
        elif self._status.state == "starting":
            self._status = dataclasses.replace(self._status, stale=True)
        self._rejected = found
        self._unpublishable = None
        texts = tuple(str(problem) for problem in found)
        self._status = dataclasses.replace(
            self._status,
            state="running",
            last_error=texts[0] if len(texts) == 1 else f"{texts[0]} (and {len(texts) - 1} more)",
            last_error_at=time.time_ns(),
            problems=texts,
            problem_count=len(texts),
            rejections=self._status.rejections + 1,
        )
        self._show()
        self._say(Rejected(self.name, self.version, found))

    def note(self, notes: Sequence[str]) -> None:
        """What an operator should know of the sources though nothing failed; replaces what was noted before."""
        for note in notes:
            if note not in self._notes:
                self._say(Said(self.name, note, self.version))
        self._notes = tuple(notes)
        self._show()

    def tick(self) -> None:
        """Every now and then: put the segment back if somebody removed it, and ask a full disk again.

        Raises SegmentLocked when another agent has taken over.
        """
        try:
            if self._writer.keep_linked():
                text = f"the segment file was removed; put back as version {self.version}"
                self._say(Said(self.name, text, self.version))
        except SegmentLocked:
            raise
        except (Error, OSError) as error:
            self._lost = f"the segment file was removed and cannot be put back: {_reason(error)}"
        else:
            self._lost = None
        now = time.monotonic()
        if now >= self._retry_at:
            self._retry_at = now + _RETRY_SECONDS
            self._writer.retry_reservation()
        self._show()

    def beat(self) -> None:
        """The agent lives. From the feeder's thread."""
        self._writer.beat()

    def close(self) -> None:
        """Stop; the segment stays for its readers."""
        self._status = dataclasses.replace(self._status, state="stopped")
        self._show()
        self._kept.settle()
        self._writer.close()

    def _clear(self) -> None:
        """Nothing is wrong with the newest files, and they are what is served or about to be."""
        self._rejected = ()
        self._unpublishable = None
        self._status = dataclasses.replace(
            self._status,
            state="running",
            stale=False,
            last_error=None,
            last_error_at=None,
            problems=(),
            problem_count=0,
        )
        self._show()

    def _serve_last_known_good(self) -> None:
        """Nothing is visible and the files are invalid: what was good before the reboot is better than nothing."""
        kept = self._kept.load()
        if kept is None:
            return
        began = time.monotonic()
        try:
            version = self._writer.publish(
                kept.payload, {"files": list(kept.files), "blank_files": list(kept.blank_files), "stale": True}
            )
        except SegmentLocked:
            raise
        except (Error, OSError) as error:
            self._say(Said(self.name, f"the last known good cannot be served: {_reason(error)}"))
            return
        self._digest = kept.digest
        self._status = dataclasses.replace(self._status, stale=True)
        seconds = time.monotonic() - began
        self._say(Published(self.name, version, kept.digest, seconds, (), len(kept.payload), stale=True))

    def _look_at_published(self) -> None:
        """What a predecessor left: its digest, and which of its files had content. After a reboot the disk tells."""
        try:
            content = self._writer.published()
            if content is not None:
                noted = Snapshot(content).metadata
                self._digest = noted.get("digest")
                self._nonblank = frozenset(noted.get("files", ())) - frozenset(noted.get("blank_files", ()))
                return
        except Error:
            pass  # it is damaged: the first valid candidate takes its place
        kept = self._kept.load()
        if kept is not None:
            self._nonblank = frozenset(kept.files) - frozenset(kept.blank_files)

    def _show(self) -> None:
        """Bring the status block up to date, if anything in it is new."""
        warnings = [*self._writer.warnings(), *self._notes]
        warnings += [problem for problem in (self._kept.problem, self._lost) if problem]
        status = dataclasses.replace(self._status, warnings=tuple(warnings))
        if status != self._shown:
            self._writer.set_status(status.encode())
            self._shown = status


def _metadata(candidate: Candidate) -> dict[str, Any]:
    return {"files": list(candidate.files), "blank_files": list(candidate.blank_files)}


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

