"""The sources of one segment: which files they name now, and the content of each that is whole.

    files = SourceFiles(segment, hints=watcher)
    judged = None                                        # fingerprint of the view last accepted or rejected
    while running:
        view = files.look()
        watcher.follow(view.directories)
        if view.fingerprint != judged and view.worth_building:
            candidate = pipeline(view)                   # may begin before view.ready; keep it by view.fingerprint
        if view.ready and view.fingerprint != judged and files.unchanged(view):
            publish(candidate); files.accept(view)       # or files.reject(view), if there are problems
            judged = view.fingerprint
        watcher.wake.wait(view.next_look - time.monotonic())

Events are hints. Each look compares what stands on the disk with what was seen before (real path, device, inode, size,
both times) and reads what changed and is whole by the rules of `settle`. What no stat shows is found by reading again:
a file that was closed after writing, a file read within 20 ms of its last change, and at each rescan some 256 KiB of
files in turn (64 small ones, or at least one), so that a small configuration is verified every second.

Directories are not recursive; names that begin with a dot are passed over; order is by the bytes of the name. A file
named by two sources is two layers. The schema's file is followed by the same rules, as `view.schema`.

A SourceFiles belongs to one thread. It never raises for what it finds on the disk: that is `view.problems`. It keeps
no descriptor open. Times are in seconds of the monotonic clock.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .config import SegmentConfig, Source
from .disk import Listing, Reading, Standing, Survey, printable, read
from .formats import DEFAULT_LIMITS, SUFFIXES, Limits
from .mounts import mounts
from .problems import Problem
from .settle import Batch, TrackedFile
from .view import Gathering, InFlux, SourceLayer, View, differing
from .watch import NO_HINTS, Hint, Hints, Kind

__all__ = ["InFlux", "SourceFiles", "SourceLayer", "View"]

PATROL_BYTES = 256 * 1024
"""How much is read again at each rescan, a file counting as a page at least."""
_PAGE = 4096
MOST_FILES = 10_000
"""The most files that one directory or glob may name."""
_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?\s*\Z")


@dataclass(slots=True)
class _Membership:
    """The files of one source as of the last look: those that it names, and those that have only just vanished."""

    source: Source
    is_schema: bool = False
    listing: Listing = field(default_factory=lambda: Listing((), "file"))
    members: dict[str, str] = field(default_factory=dict)  # absolute path: name as the user would write it
    layers: dict[str, SourceLayer] = field(default_factory=dict)  # as last built, by absolute path

    def update(self, survey: Survey, base: str) -> dict[str, str]:
        """Lists the source anew. Returns what it names now."""
        if self.is_schema:
            path = self.source.path
            self.listing = Listing(((path, os.path.join(base, path)),), "file")
        else:
            was_directory = self.listing.kind == "directory"
            self.listing = survey.listing(base, self.source.path, was_directory=was_directory)
        if len(self.listing.found) > MOST_FILES:
            count = len(self.listing.found)
            failure = f"names {count:,} files, more than the limit of {MOST_FILES:,}"
            self.listing = Listing((), self.listing.kind, failure)
        return {path: printable(shown) for shown, path in self.listing.found}

    def layer(self, file: TrackedFile, shown: str, data: bytes) -> SourceLayer:
        """The layer that this file is; the same object as long as its content is the same."""
        layer = self.layers.get(file.path)
        if layer is None or layer.data is not data:
            blank = _BLANK.match(data) is not None
            layer = SourceLayer(shown, self.source.at, data, file.digest, file.path, blank)
            self.layers[file.path] = layer
        return layer


class SourceFiles:
    """See the module.

    hints: a Watcher, or nothing to live by looking alone.
    nonblank: the names of the files that were not empty when they were last accepted, by an earlier agent
      (`SourceFiles.nonblank` then).
    now, wall_ns: the clocks; the second one is compared with the times of files.
    """

    def __init__(
        self,
        config: SegmentConfig,
        *,
        hints: Hints = NO_HINTS,
        limits: Limits = DEFAULT_LIMITS,
        nonblank: Iterable[str] = (),
        now: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.nonblank = frozenset(nonblank)
        self._base = os.path.abspath(config.base)
        self._memberships = [_Membership(source) for source in config.sources]
        if config.schema is not None:
            self._memberships.append(_Membership(Source(config.schema), is_schema=True))
        self._hints = hints
        self._limits = limits
        self._now = now
        self._wall_ns = wall_ns
        self._files: dict[str, TrackedFile] = {}
        self._batch = Batch(config.settle_ms / 1000)
        self._unheard: list[Hint] = []  # drained while reading; for the next look
        self._looks = 0
        self._complete = False  # whether everything that was there at the start has been read
        self._last: dict[str, object] = {}  # what the last look found, by name
        self._fingerprint = Gathering().fingerprint()
        self._judged: bytes | None = None
        self._accepted: dict[str, bytes] = {}
        self._rescan_at = float("-inf")
        self._patrolled = 0
        self._reals: frozenset[str] = frozenset()
        self._notes: tuple[str, ...] = ()

    def look(self, *, at_once: bool = False) -> View:
        """Compares all sources with what was seen before and reads what is to be read.

        at_once: reads everything and waits for nothing, as somebody asks for what is there now (`check`, `reload`):
          what is missing counts as missing, what is there as whole. Only what changes while it is read, three times
          in a row, is still in flux then, and the view is not ready.
        """
        view = self._look(at_once)
        for _ in range(2):
            if not (at_once and view.in_flux):
                break
            view = self._look(at_once)
        return view

    def unchanged(self, view: View) -> bool:
        """Whether this view, which was ready, may be published still: looks once more. An overdue one may, whatever
        happened since."""
        if view.overdue:
            return True
        fresh = self.look()
        in_flux_then = {flux.file for flux in view.in_flux}
        return fresh.fingerprint == view.fingerprint and all(flux.file in in_flux_then for flux in fresh.in_flux)

    def accept(self, view: View) -> None:
        """This view was published, or equals what is published."""
        layers = [*view.layers, *([view.schema] if view.schema else [])]
        self._accepted = {layer.file: layer.digest for layer in layers}
        self.nonblank = frozenset(layer.file for layer in view.layers if not layer.blank)
        self.reject(view)

    def reject(self, view: View) -> None:
        """This view is not to be published, or can't be just now. Changes found after it are a new batch."""
        for layer in [*view.layers, *([view.schema] if view.schema else [])]:
            if layer.path in self._files:
                self._files[layer.path].judged = True
        self._judged = view.fingerprint
        self._batch.judged(view.look)

    def _look(self, at_once: bool) -> View:
        self._looks += 1
        hints = [*self._unheard, *self._hints.drain()]
        self._unheard = []
        now = self._now()
        survey = Survey()
        for membership in self._memberships:
            self._update(membership, survey)
        to_read = self._observe(survey, hints, now, at_once)
        if now >= self._rescan_at or self._rescan_at > now + self._hints.rescan_s:
            to_read += self._patrol(to_read)
            self._rescan_at = now + self._hints.rescan_s
            self._note_mounts()
        self._read(to_read, now, at_once)
        return self._view(survey, now, at_once)

    def _update(self, membership: _Membership, survey: Survey) -> None:
        """Brings the members up to date; files that the source names no more stay until their absence counts."""
        named = membership.update(survey, self._base)
        for path in named:
            if path not in self._files:
                expected = membership.listing.kind == "file" or not self._complete
                self._files[path] = TrackedFile(path, expected=expected)
        for path, shown in membership.members.items():
            file = self._files.get(path)
            if path not in named and file is not None and file.was_taken:
                named[path] = shown
        membership.members = named
        for path in membership.layers.keys() - named.keys():
            del membership.layers[path]

    def _observe(self, survey: Survey, hints: Sequence[Hint], now: float, at_once: bool) -> list[TrackedFile]:
        named = {path for membership in self._memberships for path in membership.members}
        self._files = {path: file for path, file in self._files.items() if path in named}
        by_path: dict[str, list[tuple[int, Hint]]] = {}
        for order, hint in enumerate(hints):
            by_path.setdefault(hint.path, []).append((order, hint))
        wall_ns = self._wall_ns()
        to_read = []
        for file in self._files.values():
            standing = survey.resolve(file.path)
            heard = _hints_for(standing, by_path) if by_path else ()
            if file.observe(standing, heard, now, wall_ns, impatient=at_once):
                to_read.append(file)
        return to_read

    def _patrol(self, besides: Sequence[TrackedFile]) -> list[TrackedFile]:
        """Files to read again though nothing calls for it, in turn."""
        chosen = {id(file) for file in besides}
        calm = [
            file
            for file in self._files.values()
            if file.content is not None and file.flux_since is None and id(file) not in chosen
        ]
        patrol = [file for file in calm if file.racy]
        budget = PATROL_BYTES
        for step in range(len(calm)):
            file = calm[(self._patrolled + step) % len(calm)]
            if budget <= 0:
                self._patrolled = (self._patrolled + step) % len(calm)
                break
            budget -= max(len(file.content or b""), _PAGE)
            if not file.racy:
                patrol.append(file)
        return patrol

    def _read(self, files: Sequence[TrackedFile], now: float, at_once: bool) -> None:
        readings: list[tuple[TrackedFile, Reading, int]] = []
        for file in files:
            if file.stamp is not None:
                wall_ns = self._wall_ns()
                readings.append((file, read(file.stamp.real, self._limits), wall_ns))
        if not readings:
            return
        # What happened up to here was either heard before, or is in here.
        self._unheard = self._hints.drain()
        disturbed = {
            hint.path for hint in self._unheard if hint.kind not in (Kind.TOUCHED, Kind.WATCHED, Kind.MOVED_TO)
        }
        for file, reading, wall_ns in readings:
            in_between = file.entry in disturbed or "" in disturbed
            file.offer(reading, now, wall_ns, disturbed=in_between, impatient=at_once)

    def _note_mounts(self) -> None:
        reals = frozenset(file.stamp.real for file in self._files.values() if file.stamp is not None)
        if reals == self._reals:
            return
        self._reals = reals
        self._notes = tuple(
            f"{point} is mounted as a single file (subPath in Kubernetes): a new version put in its place on the "
            "host is never seen here. Mount its directory instead."
            for point in sorted(reals & {mount.point for mount in mounts()})
        )

    def _view(self, survey: Survey, now: float, at_once: bool) -> View:
        gathered = Gathering()
        for membership in self._memberships:
            self._gather(membership, gathered)
        if not gathered.waiting:
            self._complete = True
        state = gathered.state()
        if names := differing(state, self._last):
            self._batch.add(self._looks, names, now)
            self._fingerprint = gathered.fingerprint()
        self._last = state
        if self._fingerprint == self._judged:  # whatever there was to judge was taken back
            self._batch.judged(self._looks)
        due = [file.due_at for file in self._files.values() if file.due_at is not None]
        ready_at = self._batch.ready_at(max(due, default=None))
        if at_once:
            ready, overdue = not gathered.in_flux, False
        else:
            ready = ready_at is None or now >= ready_at
            overdue = ready and now >= self._batch.latest_at
        return View(
            layers=tuple(gathered.layers),
            schema=gathered.schema,
            problems=tuple(gathered.problems),
            fingerprint=self._fingerprint,
            changed=tuple(sorted(differing(gathered.contents(), self._accepted))),
            in_flux=tuple(gathered.in_flux.values()),
            waiting=gathered.waiting,
            ready=ready and not gathered.waiting,
            overdue=overdue and not gathered.waiting,
            next_look=self._next_look(ready_at, now),
            directories=survey.interests(),
            notes=self._notes,
            look=self._looks,
        )

    def _gather(self, membership: _Membership, gathered: Gathering) -> None:
        source, listing = membership.source, membership.listing
        listed = {path for _, path in listing.found}
        pending = False
        count = len(gathered.layers) + len(gathered.problems)
        for path in sorted(membership.members, key=os.fsencode):
            file = self._files[path]
            shown = membership.members[path]
            if file.flux_since is not None:
                gathered.in_flux[path] = InFlux(shown, file.flux_since, file.vanished)
            if file.content is not None:
                self._gather_layer(membership, membership.layer(file, shown, file.content), gathered)
            elif file.failure is not None:
                gathered.problems.append(Problem(file.failure, shown))
            elif file.absence is None:
                pending = True
            elif path in listed and not _is_excused(file.absence, source, listing):
                gathered.problems.append(Problem(_why_absent(file.absence, listing), shown))
        is_empty = count == len(gathered.layers) + len(gathered.problems) and not membership.is_schema
        if listing.failure is not None and not listing.missing:
            gathered.problems.append(Problem(listing.failure, printable(source.path)))
        elif is_empty and not source.optional and not pending and listing.kind != "file":
            gathered.problems.append(Problem(_why_empty(listing), printable(source.path)))
        if pending and (not self._complete or (is_empty and not source.optional) or membership.is_schema):
            gathered.waiting = True

    def _gather_layer(self, membership: _Membership, layer: SourceLayer, gathered: Gathering) -> None:
        if membership.is_schema:
            gathered.schema = layer
            return
        gathered.layers.append(layer)
        if layer.blank and layer.file in self.nonblank:
            gathered.problems.append(Problem(_doubtful(layer.file), layer.file))

    def _next_look(self, ready_at: float | None, now: float) -> float:
        if self._unheard:
            return now
        times = [self._rescan_at]
        if ready_at is not None and ready_at > now:
            times.append(ready_at)
        for file in self._files.values():
            if file.flux_since is not None and file.due_at is not None:
                times.append(min(now + _pace(now - file.flux_since), max(file.due_at, now)))
        return min(times)


def _is_excused(absence: Standing, source: Source, listing: Listing) -> bool:
    """Whether nothing need be there: for an optional file, or where it was listed a moment before it went."""
    if listing.kind == "file":
        return source.optional and absence.missing
    return absence.missing and not absence.dangling


def _why_absent(absence: Standing, listing: Listing) -> str:
    reason = absence.absent or ""
    if listing.kind == "file" and absence.missing and not absence.dangling:
        return f"{reason}; create it, or mark the source optional"
    return reason


def _why_empty(listing: Listing) -> str:
    if listing.kind == "directory":
        reason = listing.failure or f"holds no {', '.join(f'*{suffix}' for suffix in SUFFIXES)} file"
    else:
        reason = "matches no file"
    return f"{reason}; add one, or mark the source optional"


def _doubtful(shown: str) -> str:
    empty = "a comment" if shown.endswith(".toml") else "{}"
    return f"is empty, which it was not before; if it is meant to be, write {empty} into it"


def _hints_for(standing: Standing, by_path: Mapping[str, list[tuple[int, Hint]]]) -> list[Hint]:
    heard = list(by_path.get("", ()))  # OVERFLOW concerns all
    for place in (*standing.entries, standing.holder):
        heard += by_path.get(place, ())
    heard.sort(key=lambda entry: entry[0])
    return [hint for _, hint in heard]


def _pace(age_s: float) -> float:
    """How soon to look again at a file that has been in flux for so long."""
    if age_s < 1:
        return 0.025
    return 0.1 if age_s < 10 else 0.25
