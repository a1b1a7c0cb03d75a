"""What the reloads of one segment have come to since the agent's start, in plain numbers: what `metrics` shows.

A reload is one judgement of the segment's files, whatever came of it: a new version, no difference, or a refusal. The
segment's reconciler counts, in its own thread, and notes as well how things stand; whoever reads gets a copy of all
that, of one moment. A Tally outlives the reconciler that counts in it: other settings of a segment reset no counter.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from shmconf import AgentStatus

from .events import Event, Published, Rejected, Say
from .problems import Problem
from .reasons import REASONS, ROLLBACK, reason_of

__all__ = ["EDIT_BUCKETS", "STAGE_BUCKETS", "Histogram", "Standing", "Tally", "Totals"]

STAGE_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds in seconds, of each stage of a reload."""
EDIT_BUCKETS = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The same, of the time from an edit to its version."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts: how many values are in each bucket alone, the last one for what is above all bounds. sum: in seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        """Without a value."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def with_value(self, seconds: float) -> Histogram:
        """The same with one value more; a bucket includes its upper bound."""
        at = bisect.bisect_left(self.bounds, seconds)
        counts = (*self.counts[:at], self.counts[at] + 1, *self.counts[at + 1 :])
        return replace(self, counts=counts, sum=self.sum + seconds)

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many values up to it), as Prometheus wants them."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return found


@dataclass(frozen=True, slots=True)
class Standing:
    """How the segment stands. version 0: nothing is served. size: of the segment's file, in bytes. status: in full,
    where the segment itself has room for 4 KiB of it."""

    version: int = 0
    digest: str | None = None
    size: int = 0
    status: AgentStatus = field(default_factory=AgentStatus)

    @property
    def files_are_served(self) -> bool:
        """Whether what is served is what the files said when they were last judged."""
        waits = self.status.hold is not None and self.status.hold.candidate is not None
        return self.version > 0 and self.status.state == "running" and self.status.last_error is None and not waits

    @property
    def is_held(self) -> bool:
        """Whether a rollback is held, so that no edit is published."""
        return self.status.hold is not None

    @property
    def serves_last_known_good(self) -> bool:
        """As of shmconf.Status."""
        return self.version > 0 and (self.status.last_error is not None or self.status.stale)


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything at one moment. failed: by reason, all of them. succeeded_at: of the last reload after which the files
    were served, in seconds since 1970; 0 before the first. stages: of publications, by stage."""

    standing: Standing = field(default_factory=Standing)
    reloads: int = 0
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    succeeded_at: float = 0.0
    watch_errors: int = 0
    stages: dict[str, Histogram] = field(default_factory=dict)
    edit_to_visible: Histogram = field(default_factory=lambda: Histogram.empty(EDIT_BUCKETS))


class Tally:
    """Of one segment. One thread at a time counts; `totals` may be called from any."""

    def __init__(self, changed: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.time) -> None:
        """changed: called when something was counted, or stands otherwise. clock: in seconds since 1970."""
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = Totals()
        self._standing: Callable[[], Standing] = Standing
        self._errors_seen = 0
        self._edited_at: float | None = None
        self._counted = False  # whether the reload at hand is, by what was said of it

    def totals(self) -> Totals:
        """A copy. From any thread."""
        with self._lock:
            return replace(
                self._totals, failed=dict(self._totals.failed), stages=dict(self._totals.stages)
            )

    def follow(self, standing: Callable[[], Standing]) -> None:
        """A new reconciler counts from here on, with a watcher of its own."""
        self._standing, self._errors_seen, self._edited_at = standing, 0, None

    def listening(self, say: Say) -> Say:
        """What is to be said with it is counted first: whoever is told of an event finds it in the numbers. Of a
        publication, the time since its edit is told."""

        def count_and_say(event: Event) -> None:
            if isinstance(event, Published) and not event.stale and self._edited_at is not None:
                event = replace(event, edit_to_visible=max(0.0, self._clock() - self._edited_at))
            if isinstance(event, Published | Rejected):
                self._hear(event)
            say(event)

        return count_and_say

    def note(self, watch_errors: int) -> None:
        """How the segment stands now. watch_errors: of the reconciler's watcher so far."""
        standing, more = self._standing(), watch_errors - self._errors_seen
        self._errors_seen = watch_errors
        with self._lock:
            if standing == self._totals.standing and not more:
                return
            errors = self._totals.watch_errors + more
            self._totals = replace(self._totals, standing=standing, watch_errors=errors)
        self._changed()

    def begin(self, edited_at: float | None = None) -> None:
        """A reload is about to be judged. edited_at: when the last of the changed files changed, in seconds since 1970;
        None where nobody can tell."""
        self._counted, self._edited_at = False, edited_at

    def end(self, problems: Sequence[Problem]) -> None:
        """It was judged. problems: why its files are not served; empty if they are, or are held back by a rollback."""
        if not self._counted:
            standing = self._standing()
            waits = standing.is_held and not standing.files_are_served
            self._count(reason_of(problems[0].code) if problems else ROLLBACK if waits else None)
        self._edited_at = None

    def _hear(self, event: Published | Rejected) -> None:
        if isinstance(event, Rejected):
            self._count(reason_of(event.problems[0].code))
        elif event.stale or event.rollback_of is not None:  # nobody's files were judged
            self._count(None, reloads=0)
        else:
            self._count(None, event)
        self._counted = True

    def _count(self, reason: str | None, published: Published | None = None, *, reloads: int = 1) -> None:
        now = self._clock()
        with self._lock:
            totals = replace(self._totals, standing=self._standing(), reloads=self._totals.reloads + reloads)
            if reason is not None:
                totals = replace(totals, failed={**totals.failed, reason: totals.failed[reason] + 1})
            elif reloads:
                totals = replace(totals, succeeded_at=now)
            if published is not None:
                stages = dict(totals.stages)
                for stage, seconds in published.stages.items():
                    stages[stage] = stages.get(stage, Histogram.empty(STAGE_BUCKETS)).with_value(seconds)
                totals = replace(totals, stages=stages)
                if (waited := published.edit_to_visible) is not None:
                    totals = replace(totals, edit_to_visible=totals.edit_to_visible.with_value(waited))
            self._totals = totals
        self._changed()
