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
files in turn (16 small ones, or at least one), so that a small configuration is verified every second.

Directories are not recursive; names that begin with a dot are passed over; order is by the bytes of the name. A file
named by two sources is two layers. The schema's file is followed by the same rules, as `view.schema`; and the commit
path, as `view.commit`, which `commit` acts on.

A SourceFiles belongs to one thread. It never raises for what it finds on the disk: that is `view.problems`. It keeps
no descriptor open. Times are in seconds of the monotonic clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from .config import SegmentConfig, Source
from .disk import Reading, Stamp, Standing
from .membership import Membership
from .mounts import mounted_files, mounts, never_changes
from .problems import Code
from .reading import holds, read
from .references import MOST_BYTES, MOST_NAMED, FileKey, Places, environment_digest, referenced
from .settle import Batch, TrackedFile
from .stillness import Stillness
from .survey import Survey
from .view import Gathering, InFlux, SourceLayer, View, differing
from .watch import NO_HINTS, Hint, Hints, Kind

__all__ = ["InFlux", "SourceFiles", "SourceLayer", "View"]

PATROL_BYTES = 256 * 1024
"""How much is read again at each rescan, a file counting as _OPENING at least."""
_OPENING = 16 * 1024  # bytes that are read in about the time that it takes to open a file


class SourceFiles:
    """See the module.

    hints: a Watcher, or nothing to live by looking alone.
    nonblank: the names of the files that were not empty when they were last accepted, by an earlier agent
      (`SourceFiles.nonblank` then).
    references: the files that references in the layers name, where there is substitution. They are followed likewise.
    now, wall_ns: the clocks; the second one is compared with the times of files.
    """

    def __init__(
        self,
        config: SegmentConfig,
        *,
        hints: Hints = NO_HINTS,
        nonblank: Iterable[str] = (),
        references: Callable[[Sequence[SourceLayer]], Iterable[FileKey]] | None = None,
        now: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.nonblank = frozenset(nonblank)
        self._base = os.path.abspath(config.base)
        # The commit path comes first: it is looked at before any file that it is about.
        self._memberships = [] if config.commit is None else [Membership(Source(config.commit), is_commit=True)]
        self._memberships += [Membership(source) for source in config.sources]
        if config.schema is not None:
            self._memberships.append(Membership(Source(config.schema), is_schema=True))
        self._hints = hints
        self._limits = config.limits
        self._now = now
        self._wall_ns = wall_ns
        self._references = references
        self._places = None if config.substitution is None else Places(config.substitution, self._base)
        self._named: dict[FileKey, str] = {}  # by the references that the last look found: absolute path
        self._refused: frozenset[str] = frozenset()  # of these paths, those that may not be read
        self._files: dict[str, TrackedFile] = {}
        self._batch = Batch(config.settle_ms / 1000)
        self._unheard: list[Hint] = []  # drained while reading; for the next look
        self._looks = 0
        self._complete = False  # whether everything that was there at the start has been read
        self._last: dict[str, object] = {}  # what the last look found, by name
        # It stays as it is while the process lives, but what was committed is the same in the next one only with this.
        self._environment = b"" if config.substitution is None else environment_digest(config.substitution)
        self._fingerprint = Gathering(environment=self._environment).fingerprint()
        self._judged: bytes | None = None
        self._accepted: dict[str, bytes] = {}
        self._last_view: View | None = None
        self._stillness: Stillness | None = None
        self._calm: list[TrackedFile] = []
        self._rescan_at = float("-inf")
        self._patrolled = 0
        self._looked_up: frozenset[tuple[str, int, int]] = frozenset()  # of which files' mounts the notes are
        self._notes: tuple[str, ...] = ()

    def look(self, *, at_once: bool = False, anew: bool = False) -> View:
        """Compares all sources with what was seen before and reads what is to be read.

        at_once: reads everything and waits for nothing, as somebody asks for what is there now (`check`):
          what is missing counts as missing, what is there as whole. Only what changes while it is read, three times
          in a row, is still in flux then, and the view is not ready.
        anew: takes no file for known: each is read again, however it looks, or in flux until it is whole (`reload`).
        """
        view = self._look(at_once, anew)
        for _ in range(2):
            if not (at_once and view.in_flux):
                break
            view = self._look(at_once, anew)
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
        self._last_view = None  # another look sees what changed since, and what may be empty, with other eyes
        self._accepted = view.contents()
        self.nonblank = frozenset(layer.file for layer in view.layers if not layer.blank)
        self.reject(view)

    def reject(self, view: View) -> None:
        """This view is not to be published, or can't be just now. Changes found after it are a new batch."""
        for path in view.paths():
            if path in self._files:
                self._files[path].judged = True
        self._judged = view.fingerprint
        self._batch.judged(view.look)

    def withhold(self, view: View) -> None:
        """This view is valid, and a rollback that is held keeps it from being published."""
        self.reject(view)

    def pass_over(self, view: View) -> None:
        """What changed up to this view is not to be judged."""
        self._batch.judged(view.look)

    def _look(self, at_once: bool, anew: bool) -> View:
        self._looks += 1
        hints = [*self._unheard, *self._hints.drain()]
        self._unheard = []
        now = self._now()
        if not (hints or at_once or anew) and (view := self._look_again(now)) is not None:
            return view
        survey = Survey()
        named = 0
        for membership in self._memberships:
            self._update(membership, survey, named)
            named += 0 if membership.is_schema or membership.is_commit else len(membership.listing.found)
        to_read = self._observe(survey, hints, now, at_once)
        if anew:
            to_read += self._rest(to_read)
        if self._rescan_is_due(now):
            chosen = {id(file) for file in to_read}
            taken = [file for file in self._files.values() if file.was_taken and id(file) not in chosen]
            to_read += self._patrol([file for file in taken if file.flux_since is None])
            self._rescan_at = now + self._hints.rescan_s
            self._note_mounts()
        self._read(to_read, now, at_once)
        self._read(self._crowded_out(to_read), now, True)  # as whole as they were when they found no room
        view = self._view(survey, now, at_once)
        self._remember(view, survey)
        return view

    def _look_again(self, now: float) -> View | None:
        """The view of the last look, if the disk is as it was and no file whose turn it is reads otherwise; else None,
        and a whole look has to find out."""
        if self._last_view is None or self._stillness is None or not self._stillness.holds():
            return None
        if self._rescan_is_due(now):
            next_turn = self._patrolled
            if not all(map(_reads_the_same, self._patrol(self._calm))):
                self._patrolled = next_turn  # for the whole look, which says what they read as
                return None
            self._rescan_at = now + self._hints.rescan_s
        ready_at = self._batch.ready_at(None)
        ready = ready_at is None or now >= ready_at
        return replace(
            self._last_view,
            ready=ready,
            overdue=ready and now >= self._batch.latest_at,
            next_look=self._rescan_at if ready else min(self._rescan_at, ready_at or now),
            look=self._looks,
        )

    def _remember(self, view: View, survey: Survey) -> None:
        """For `_look_again`. Where anything is waited for, or went wrong, each look is a whole one."""
        is_calm = view.whole and not self._refused and all(file.failure is None for file in self._files.values())
        self._last_view = view if is_calm else None
        self._stillness = survey.stillness() if is_calm else None
        self._calm = [file for file in self._files.values() if file.content is not None] if is_calm else []

    def _rescan_is_due(self, now: float) -> bool:
        return now >= self._rescan_at or self._rescan_at > now + self._hints.rescan_s

    def _update(self, membership: Membership, survey: Survey, besides: int) -> None:
        """Brings the members up to date; files that the source names no more stay until their absence counts.
        besides: how many files the sources before it name."""
        besides = 0 if membership.is_schema or membership.is_commit else besides
        named = membership.update(survey, self._base, self._limits, besides)
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
        named = {path for membership in self._memberships for path in membership.members} | {*self._named.values()}
        self._files = {path: file for path, file in self._files.items() if path in named}
        by_path: dict[str, list[tuple[int, Hint]]] = {}
        for order, hint in enumerate(hints):
            by_path.setdefault(hint.path, []).append((order, hint))
        wall_ns = self._wall_ns()
        to_read = []
        unwatched = Survey()
        for file in self._files.values():
            standing = (unwatched if file.path in self._refused else survey).resolve(file.path)
            heard = _hints_for(standing, by_path) if by_path else ()
            if file.observe(standing, heard, now, wall_ns, impatient=at_once):
                to_read.append(file)
        return to_read

    def _crowded_out(self, besides: Sequence[TrackedFile]) -> list[TrackedFile]:
        """Files that found no room beside the others, and do now."""
        code = Code.LIMIT_TOTAL_BYTES
        crowded = [file for file in self._files.values() if file.failure is not None and file.failure.code is code]
        if not crowded:
            return []
        chosen = {id(file) for file in besides}
        room = self._limits.max_total_bytes - self._held()
        return [
            file
            for file in crowded
            if file.flux_since is None and id(file) not in chosen and file.stamp is not None and file.stamp.size <= room
        ]

    def _held(self) -> int:
        """Bytes of content in memory."""
        return sum([len(file.content) for file in self._files.values() if file.content is not None])

    def _rest(self, besides: Sequence[TrackedFile]) -> list[TrackedFile]:
        """All files that seem to be as they were taken, also those that could not be read then."""
        chosen = {id(file) for file in besides}
        return [file for file in self._files.values() if file.flux_since is None and id(file) not in chosen]

    def _patrol(self, calm: Sequence[TrackedFile]) -> list[TrackedFile]:
        """Those of the files, which were taken and are not in flux, that are read again though nothing calls for it, in
        turn."""
        # What could not be read may be readable again without any change of the file: of a limit, or of the disk.
        patrol = [file for file in calm if file.racy or file.failure is not None]
        budget = PATROL_BYTES
        for step in range(len(calm)):
            file = calm[(self._patrolled + step) % len(calm)]
            if budget <= 0:
                self._patrolled = (self._patrolled + step) % len(calm)
                break
            budget -= max(len(file.content or b""), _OPENING)
            if not (file.racy or file.failure is not None):
                patrol.append(file)
        return patrol

    def _read(self, files: Sequence[TrackedFile], now: float, at_once: bool) -> None:
        readings: list[tuple[TrackedFile, Reading, int]] = []
        held = self._held() if files else 0
        for file in files:
            if file.stamp is not None:
                wall_ns = self._wall_ns()
                held -= len(file.content or b"")
                reading = self._reading(file, file.stamp, held)
                held += len(reading.data or b"")
                readings.append((file, reading, wall_ns))
        if not readings:
            return
        # What happened up to here was either heard before, or is in here.
        heard = self._hints.drain()
        self._unheard += heard
        disturbed = {hint.path for hint in heard if hint.kind not in (Kind.TOUCHED, Kind.WATCHED, Kind.MOVED_TO)}
        for file, reading, wall_ns in readings:
            in_between = file.entry in disturbed or "" in disturbed
            file.offer(reading, now, wall_ns, disturbed=in_between, impatient=at_once)

    def _reading(self, file: TrackedFile, stamp: Stamp, besides: int) -> Reading:
        """What is in the file, beside so many bytes in others; one that only references name is held to their rules."""
        if self._places is None or any(file.path in membership.members for membership in self._memberships):
            return read(stamp.real, self._limits, besides=besides)
        refusals = [self._places.refusal(key, stamp.real) for key, path in self._named.items() if path == file.path]
        if refusals and all(refusals):
            return Reading(None, refusals[0], stamp, True)
        limits = replace(self._limits, max_file_bytes=MOST_BYTES)
        return read(stamp.real, limits, besides=besides, follow_links=False)

    def _refer(self, gathered: Gathering, survey: Survey, now: float, at_once: bool) -> None:
        """Adds the files that references in the layers name; what is newly named is looked at and read here.

        What may not be read is looked at alone: text must not choose which directories are watched, or tested by a file
        that is made there.
        """
        if self._references is None or self._places is None:
            return
        keys = dict.fromkeys(self._references(gathered.layers))
        paths = {key: self._places.path(key) for key in islice(keys, MOST_NAMED)}
        self._named = {key: path for key, path in paths.items() if path is not None}
        for root in self._places.roots if self._named else ():
            survey.resolve(root)  # a link on the way to one is followed like those on the way to a file
        to_read = []
        unwatched = Survey()
        for key, path in self._named.items():
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = TrackedFile(path, expected=True)
                if file.observe(unwatched.resolve(path), (), now, self._wall_ns(), impatient=at_once):
                    to_read.append(file)
            elif _was_refused(file) and file.stamp is not None and not self._places.refusal(key, file.stamp.real):
                to_read.append(file)  # the roots lead elsewhere now
        self._read(to_read, now, at_once)
        refused: set[str] = set()
        for key, maybe in paths.items():
            followed = None if maybe is None else self._files[maybe]
            found = gathered.references[key] = referenced(key, followed, self._places)
            if followed is None:
                continue
            if found.fault is not None and found.fault.code is Code.REFERENCE_NOT_ALLOWED:
                refused.add(followed.path)
            else:
                survey.resolve(followed.path)
            if followed.flux_since is not None:
                gathered.in_flux[followed.path] = InFlux(found.file, followed.flux_since, followed.vanished)
            if found.data is None and found.fault is None:
                gathered.waiting = True
        self._refused = frozenset(refused - {path for each in self._memberships for path in each.members})

    def _note_mounts(self) -> None:
        # With device and inode, as a file may be mounted over one that was read before.
        found = frozenset(file.stamp[:3] for file in self._files.values() if file.stamp is not None)
        if found == self._looked_up:
            return
        self._looked_up = found
        self._notes = tuple(map(never_changes, mounted_files((real for real, _, _ in found), mounts())))

    def _view(self, survey: Survey, now: float, at_once: bool) -> View:
        gathered = Gathering(environment=self._environment)
        for membership in self._memberships:
            if membership.is_commit:
                membership.gather_commit(gathered, self._files, survey)
            else:
                membership.gather(gathered, self._files, self.nonblank, complete=self._complete)
        self._refer(gathered, survey, now, at_once)
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
            order=tuple(gathered.order),
            commit=gathered.commit,
            references=gathered.references,
        )

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


def _reads_the_same(file: TrackedFile) -> bool:
    """Whether a file that looks as it did when it was taken holds the same bytes. One that may be reads as another."""
    return not file.racy and file.stamp is not None and holds(file.stamp.real, file.content or b"")


def _was_refused(file: TrackedFile) -> bool:
    return file.failure is not None and file.failure.code is Code.REFERENCE_NOT_ALLOWED


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
