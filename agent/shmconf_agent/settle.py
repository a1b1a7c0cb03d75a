"""When a file is whole, and when what changed may be published: the rules of waiting, without any I/O.

A file (`TrackedFile`) is taken when it is whole. Evidence of that is, since the last sign of writing:

- another file was moved to its place, or its path leads to another real path now: at once;
- it was closed after writing: at once;
- nothing at all happened for QUIET_S, by what was seen or by the file's own times.

Until then it is in flux and its last content stands. A change of its attributes, or a write of the same bytes, is seen
to be none by comparing and never puts it in flux. A file that vanishes is in flux for GRACE_S, so that an editor may
move it away and write it anew; then its absence counts. One that was never part of a judged view just goes.

Changes gather in a `Batch`: what one look finds together is one change, ready after the settle time of quiet; when
another file follows within it, or within BURST_S of the last change, it is a burst and ready after BURST_S of quiet.
Files in flux hold it. Nothing holds it for longer than LONGEST_S from its first change; only when all that is in flux
will be whole within another BURST_S is that waited for, so that files written together without a close that was heard
don't fall into two versions for a few milliseconds.

All times are in seconds of one monotonic clock that the caller passes in, except file times in ns since 1970.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from .disk import Reading, Stamp, Standing
from .problems import Fault
from .watch import Hint, Kind

__all__ = ["BURST_S", "GRACE_S", "LONGEST_S", "QUIET_S", "Batch", "TrackedFile", "digest_of"]

QUIET_S = 0.5
GRACE_S = 0.5
BURST_S = 0.05
LONGEST_S = 0.5
RACY_NS = 20_000_000
"""Within this time of its last change a file may change again without its times showing it: two ticks of the kernel's
clock at its coarsest."""

_SIGNS = frozenset({Kind.CREATED, Kind.MODIFIED, Kind.GONE, Kind.OVERFLOW})


def digest_of(data: bytes) -> bytes:
    """What tells contents apart: 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


class _Writing:
    """A file of which something was seen or heard since it was last taken: the evidence for its being whole."""

    __slots__ = ("active", "glimpsed", "since", "unseen", "whole_by")

    def __init__(self, now: float, active: float) -> None:
        self.since = now
        self.active = active  # time of the last sign of writing
        self.whole_by: Kind | None = None
        self.unseen = True  # something happened since its bytes were last looked at
        self.glimpsed: bytes | None = None  # digest of those bytes, when they differed from what was taken

    def stirred(self, at: float) -> None:
        """Its stamp changed; the change itself was at `at`."""
        self.active = max(self.active, at)
        self.unseen, self.glimpsed = True, None

    def heard(self, kind: Kind, at: float) -> None:
        if kind in _SIGNS:
            self.whole_by = None
            self.active = max(self.active, at)
        elif self.whole_by is not Kind.MOVED_TO:
            self.whole_by = kind
        self.unseen, self.glimpsed = True, None

    def whole(self, now: float) -> bool:
        return self.whole_by is not None or now >= self.quiet_at

    @property
    def quiet_at(self) -> float:
        return self.active + QUIET_S


class TrackedFile:
    """One file, by the absolute path that its source names, over its whole life.

    Each look calls `observe`; if that says so, the file is to be read now and the outcome given to `offer`.
    At most one of `content` and `failure` is set: what was last taken. Neither: nothing yet, or nothing any more.

    expected: the path was named before anything was known of it; that nothing is there counts at once.
    """

    def __init__(self, path: str, *, expected: bool) -> None:
        self.path = path
        self.content: bytes | None = None
        self.digest = b""
        self.failure: Fault | None = None
        self.absence: Standing | None = None
        """What is there instead of a regular file, once that counts."""
        self.judged = False
        """Whether the file was part of a view that was accepted or rejected."""
        self.racy = False
        """Whether the content may have changed since it was read without its times showing it."""
        self._expected = expected
        self._stamp: Stamp | None = None  # as last seen; None while absent
        self._taken: Stamp | None = None  # of the file that was taken
        self._real: str | None = None
        self._entries: tuple[str, ...] = ()
        self._absent_since: float | None = None
        self._writing: _Writing | None = None

    @property
    def stamp(self) -> Stamp | None:
        """As last seen; None if no regular file was there."""
        return self._stamp

    @property
    def was_taken(self) -> bool:
        """Whether there is a content or a failure to it."""
        return self._taken is not None

    @property
    def entry(self) -> str | None:
        """The real path of the file's own directory entry, as last seen."""
        return self._entries[-1] if self._entries else None

    @property
    def vanished(self) -> bool:
        """Whether it is absent and that does not count yet."""
        return self._absent_since is not None and self.absence is None

    @property
    def flux_since(self) -> float | None:
        """Since when it is in flux: changing, or vanished."""
        if self._writing is not None:
            return self._writing.since
        return self._absent_since if self.vanished else None

    @property
    def due_at(self) -> float | None:
        """When waiting ends if nothing more happens. None if it is not in flux."""
        if self._writing is not None:
            return self._writing.quiet_at
        return self._absent_since + GRACE_S if self._absent_since is not None and self.vanished else None

    def observe(
        self, standing: Standing, hints: Iterable[Hint], now: float, wall_ns: int, *, impatient: bool = False
    ) -> bool:
        """Takes note of what stands there now and of the hints for it; says whether it is to be read now.

        hints: those whose path is one of `standing.entries` or `standing.holder`, and each OVERFLOW; in order.
        impatient: nothing is waited for.
        """
        self._entries = standing.entries
        if standing.stamp is None:
            self._observe_absence(standing, now, impatient)
            return False
        self.absence = self._absent_since = None
        stirred = standing.stamp != self._stamp
        moved = self._real is not None and standing.stamp.real != self._real
        self._stamp, self._real = standing.stamp, standing.stamp.real
        if stirred:
            changed_at = now - max(wall_ns - standing.stamp.changed_ns, 0) / 1e9
            writing = self._begin_writing(now, changed_at)
            writing.stirred(changed_at)
            if moved:
                writing.heard(Kind.MOVED_TO, now)
        for hint in hints:
            self._hear(hint, standing, now, wall_ns)
        if impatient:
            return True
        if self._writing is None:
            return False
        same_size = self.content is not None and len(self.content) == standing.stamp.size
        return self._writing.whole(now) or (self._writing.unseen and same_size)

    def offer(self, reading: Reading, now: float, wall_ns: int, *, disturbed: bool, impatient: bool = False) -> None:
        """The outcome of reading it at wall_ns, after `observe` asked for that or unasked.

        disturbed: a hint of writing came in between.
        """
        stamp = reading.stamp or self._stamp
        replaced = self._writing is not None and self._writing.whole_by is Kind.MOVED_TO
        if disturbed or not reading.steady or stamp is None or not (stamp == self._stamp or replaced):
            self._begin_writing(now, now)
            return
        if reading.data == self.content and reading.failure == self.failure and self._taken is not None:
            self._settle_on(stamp, wall_ns)
            return
        writing = self._begin_writing(now, now)
        if not (impatient or writing.whole(now)):
            self._glimpse(writing, reading)
        elif writing.whole_by is None and not impatient and self._differs_from_glimpse(writing, reading):
            writing.active = now  # it changes without its times showing it: through a mapping
            self._glimpse(writing, reading)
        else:
            self.content, self.failure = reading.data, reading.failure
            self.digest = digest_of(reading.data) if reading.data is not None else b""
            self._settle_on(stamp, wall_ns)

    def _observe_absence(self, standing: Standing, now: float, impatient: bool) -> None:
        if self._absent_since is None:
            self._absent_since = now
        self._stamp = self._writing = None
        never_taken = self._taken is None
        at_once = impatient or (self._expected if never_taken else not self.judged)
        if self.absence is None and not at_once and now < self._absent_since + GRACE_S:
            return
        self.absence = standing
        self.content = self.failure = self._taken = None
        self.digest = b""
        self.judged = self.racy = False

    def _hear(self, hint: Hint, standing: Standing, now: float, wall_ns: int) -> None:
        if hint.kind is Kind.OVERFLOW:
            self._begin_writing(now, hint.at).heard(hint.kind, hint.at)
        elif hint.path == standing.entries[-1]:
            if hint.kind is not Kind.TOUCHED and hint.kind is not Kind.WATCHED:
                self._begin_writing(now, hint.at).heard(hint.kind, hint.at)
        elif (
            hint.kind is Kind.MOVED_TO
            and standing.stamp is not None
            and standing.stamp.mtime_ns <= wall_ns - (now - hint.at) * 1e9
        ):  # A link or a directory on the way was exchanged: that vouches for a file that was written before.
            self._begin_writing(now, hint.at).heard(Kind.MOVED_TO, hint.at)

    def _begin_writing(self, now: float, active: float) -> _Writing:
        if self._writing is None:
            self._writing = _Writing(now, active)
        return self._writing

    def _glimpse(self, writing: _Writing, reading: Reading) -> None:
        writing.unseen = False
        writing.glimpsed = digest_of(reading.data) if reading.data is not None else None

    def _differs_from_glimpse(self, writing: _Writing, reading: Reading) -> bool:
        return writing.glimpsed is not None and (reading.data is None or writing.glimpsed != digest_of(reading.data))

    def _settle_on(self, stamp: Stamp, wall_ns: int) -> None:
        self._stamp = self._taken = stamp
        self._writing = None
        self.racy = wall_ns - stamp.changed_ns < RACY_NS


class Batch:
    """The changes that were found and not yet judged, and when they may be."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._longest_s = max(LONGEST_S, settle_s)
        self._changes: list[tuple[int, float]] = []  # look, time
        self._last = float("-inf")
        self._names: frozenset[str] = frozenset()  # of this batch, or of the one before until it begins
        self._burst = False

    def add(self, look: int, names: frozenset[str], now: float) -> None:
        """The look with this number found these files changed, together."""
        follows = now < self._last + BURST_S
        others = bool(names - self._names)
        if self._changes:
            self._burst = self._burst or others
            self._names |= names
        else:
            self._burst = follows and others
            self._names = names
        self._changes.append((look, now))
        self._last = now

    def ready_at(self, due_at: float | None) -> float | None:
        """When it may be judged if nothing more happens. None if nothing changed.

        due_at: when the last of the files that are in flux will be whole then; None if none is in flux.
        """
        if not self._changes:
            return None
        if due_at is not None:
            return max(self.latest_at, due_at) if due_at <= self.latest_at + BURST_S else self.latest_at
        quiet_s = max(self._settle_s, BURST_S) if self._burst else self._settle_s
        return min(self._last + quiet_s, self.latest_at)

    @property
    def latest_at(self) -> float:
        """When it has waited for long enough; inf if nothing changed."""
        return self._changes[0][1] + self._longest_s if self._changes else float("inf")

    def judged(self, look: int) -> None:
        """What stood in the view of that look was accepted or rejected; later changes stay."""
        self._changes = [change for change in self._changes if change[0] > look]
