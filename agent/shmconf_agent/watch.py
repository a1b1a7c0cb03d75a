"""Hints that something changed on the disk, and nothing more: what did change is for `sources` to find out.

    watch = Watcher()
    while running:
        view = files.look()                # SourceFiles(config, hints=watch) drains the hints itself
        watch.follow(view.directories)
        ...
        watch.wake.wait(timeout)           # until a hint, or until view.next_look
    watch.close()

The contract with `sources`: what `drain` returns is in the order in which it happened, and holds every event that
happened before the call in a directory that was being watched, as far as the kernel tells at all (and unless the
thread gets no turn for 20 ms).
Events that were lost are one OVERFLOW. A directory newly watched is a WATCHED hint, for what happened there before
went unheard: so `follow` makes the caller look again by itself. Hints carry real paths.

One inotify instance and one thread per Watcher (see `inotify` for what of watchdog is used, and why). Callbacks only
record a hint and set `wake`; opening, reading and closing without writing raise no hint, so looking causes no looking.
`follow` is also the supervisor: it watches anew a directory that was replaced, unmounted or made again, and begins
anew when the thread has ended or events were lost. Where events cannot be had (not Linux, a limit reached, no
permission, a network file system, a self-test that was not heard) `rescan_s` is shorter, `notes` says why and what to
do, and each 5 s it tries again. No trouble with events is ever raised: the caller goes on by looking.

`follow`, `notes`, `rescan_s` and `close` belong to one thread; `wake` may be set by any.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .disk import Interest
from .mounts import is_blind, mounts
from .self_test import PREFIX, Outcome, Result, SelfTests, holders
from .watch_notes import POLL_S, RESCAN_S, cannot_be_watched, is_deaf, is_on, no_events, not_watched

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import CallbackId, InotifyEvent, WatchDescriptor

    from .inotify import Inotify

__all__ = ["NO_HINTS", "POLL_S", "RESCAN_S", "Hint", "Hints", "Kind", "Watcher"]

_RETRY_S = 5.0
_MOST_HINTS = 50_000
_CATCH_UP_S = 0.02

# From inotify(7). Named here because watchdog's module can only be imported where there is inotify.
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT = 0x400, 0x800, 0x2000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x1000000, 0x2000000, 0x4000000

_PLACES = (
    _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
    | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK
)  # fmt: skip
_WRITES = _PLACES | _MODIFY | _ATTRIB | _CLOSE_WRITE


class Kind(enum.Enum):
    """What a hint says happened at its path."""

    CREATED = "created"
    MODIFIED = "modified"
    CLOSED = "closed after writing"
    MOVED_TO = "another moved here"
    GONE = "deleted or moved away"
    TOUCHED = "attributes changed"
    WATCHED = "directory newly watched"
    OVERFLOW = "events were lost"


_KINDS = (
    (_MOVED_TO, Kind.MOVED_TO),
    (_CREATE, Kind.CREATED),
    (_MODIFY, Kind.MODIFIED),
    (_CLOSE_WRITE, Kind.CLOSED),
    (_MOVED_FROM | _DELETE | _DELETE_SELF | _MOVE_SELF | _UNMOUNT, Kind.GONE),
    (_ATTRIB, Kind.TOUCHED),
)


@dataclass(frozen=True, slots=True)
class Hint:
    """`path` is real (a directory's own for what happened to itself), `at` in seconds of the monotonic clock."""

    kind: Kind
    path: str
    at: float


class Hints(Protocol):
    """What `sources` needs of a watcher."""

    def drain(self) -> list[Hint]:
        """The hints since the last call, in order."""

    @property
    def rescan_s(self) -> float:
        """How long to go at most without looking, in seconds."""


class _NoHints:
    """For a single look, or to live by looking alone."""

    rescan_s = POLL_S

    def drain(self) -> list[Hint]:
        return []


NO_HINTS: Hints = _NoHints()


class _Watched:
    """A directory that is being watched: what the thread calls back. Records and wakes; never raises."""

    def __init__(
        self,
        path: str,
        interest: Interest,
        identity: tuple[int, int],
        record: Callable[[Kind, str], None],
        heard: Callable[[str], None],
    ) -> None:
        self.path = path
        self.interest = interest  # replaced as a whole by the other thread
        self.identity = identity
        self.alive = True
        self.token: tuple[WatchDescriptor, CallbackId] | None = None
        self._record = record
        self._heard = heard

    def on_event(self, event: InotifyEvent) -> None:
        kind = next((kind for bits, kind in _KINDS if event.mask & bits), None)
        if kind is None:
            return
        if not event.name:
            self._record(kind, self.path)
            return
        name = os.fsdecode(event.name)
        if name.startswith(PREFIX):  # of a self-test, ours or another agent's: no reason to look
            self._heard(name)
        elif self.interest.covers(name):
            self._record(kind, os.path.join(self.path, name))

    def on_watch_deleted(self, wd: int) -> None:
        self.alive = False
        self._record(Kind.GONE, self.path)

    def on_queue_overflow(self) -> None:
        self._record(Kind.OVERFLOW, "")


class Watcher:
    """See the module. With `events=False` there are no hints, only notes and the shorter `rescan_s`.

    self_test: prove of each directory with sources that changes in it are heard (see `self_test`).
    wake: an event to share with other reasons to wake up. `drain` clears it, so whoever else sets it must leave its
      reason where the waiting thread looks after each wake-up.
    """

    def __init__(
        self,
        wake: threading.Event | None = None,
        *,
        events: bool = True,
        self_test: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wake = wake or threading.Event()
        self.errors = 0
        """How often watching failed, a thread ended, events were lost or a self-test was not heard."""
        self._wanted = events
        self._now = now
        self._lock = threading.Lock()
        self._hints: list[Hint] = []
        self._lost = False
        self._inotify: Inotify | None = None
        self._watched: dict[str, _Watched] = {}
        self._refused: dict[str, str] = {}  # directory: why it is not watched
        self._trouble: str | None = None  # why nothing is
        self._types_of: dict[str, str] = {}  # directory: type of its file system
        self._holders: frozenset[str] = frozenset()  # of the directories that are followed
        self._followed: frozenset[str] = frozenset()
        self._news = False  # whether anything was newly watched
        self._self_test = self_test
        self._tests = SelfTests()
        self._types: dict[int, str] = {}
        self._retry_at = 0.0
        self._ids = itertools.count(1)

    def drain(self) -> list[Hint]:
        """All hints since the last call. Clears `wake`. Waits up to 20 ms for the thread to hand on what is queued."""
        self._catch_up()
        with self._lock:
            hints, self._hints = self._hints, []
            self.wake.clear()
        return hints

    def follow(self, directories: Mapping[str, Interest]) -> None:
        """Watches exactly these real directories from now on, each anew if what stands there is another one than
        before. Cheap if nothing changed. Sets `wake` if anything is newly watched."""
        if not self._wanted:
            return
        self._supervise()
        for path in self._watched.keys() - directories.keys():
            self._forget(path)
        self._refused = {path: why for path, why in self._refused.items() if path in directories}
        self._types_of = {path: kind for path, kind in self._types_of.items() if path in directories}
        retry = self._now() >= self._retry_at
        for path, interest in directories.items():
            if retry or path not in self._refused:
                self._keep(path, interest)
        if retry and self._refused:
            self._retry_at = self._now() + _RETRY_S
        if self._news or directories.keys() != self._followed:
            self._news = False
            self._followed, self._holders = frozenset(directories), holders(directories)
            self._test_new()
        self.errors += self._tests.settle(caught_up=self._inotify is None or self._inotify.caught_up())

    @property
    def rescan_s(self) -> float:
        """How long to go at most without looking: 1 s, or 0.25 s where events are missing."""
        missing = self._trouble or self._refused or self.deaf or any(map(is_blind, self._types_of.values()))
        return POLL_S if missing or not self._wanted else RESCAN_S

    @property
    def trouble(self) -> str | None:
        """Why there are no events at all, in a sentence for the operator; None where there are."""
        return self._trouble

    @property
    def refused(self) -> Mapping[str, str]:
        """The directories that cannot be watched, and why and what to do."""
        return dict(self._refused)

    @property
    def self_tests(self) -> tuple[Outcome, ...]:
        """What the self-tests of the watched directories have come to so far."""
        return self._tests.outcomes()

    @property
    def deaf(self) -> tuple[str, ...]:
        """The directories in which a change was made and not heard."""
        return tuple(test.directory for test in self._tests.outcomes() if test.result is Result.DEAF)

    @property
    def notes(self) -> tuple[str, ...]:
        """What stops events, in sentences for the operator; empty if nothing does."""
        if not self._wanted:
            return (f"File events are switched off; changes are found by looking every {POLL_S} s.",)
        notes = [self._trouble] if self._trouble else []
        notes += cannot_be_watched(self._refused)
        if deaf := self.deaf:
            notes.append(is_deaf(deaf))
        notes += is_on({path: kind for path, kind in self._types_of.items() if path in self._holders})
        return tuple(notes)

    def close(self) -> None:
        """Ends the thread and closes every descriptor. May be called again."""
        self._wanted = False
        self._tests.close()
        self._drop_inotify()

    def _test_new(self) -> None:
        """Begins the self-tests that are due; those of directories that hold no sources are left out."""
        if self._self_test:
            self._tests.keep_only(self._holders)
            for path in sorted(self._holders & self._watched.keys(), key=os.fsencode):
                self._tests.begin(path, self._watched[path].identity)

    def _catch_up(self) -> None:
        inotify = self._inotify
        if inotify is None or inotify.caught_up():
            return
        give_up = time.monotonic() + _CATCH_UP_S
        while not inotify.caught_up() and time.monotonic() < give_up:
            time.sleep(0.0002)

    def _record(self, kind: Kind, path: str) -> None:
        hint = Hint(kind, path, self._now())
        with self._lock:
            if kind is Kind.OVERFLOW:
                self._lost = True
            if self._hints and self._hints[-1].kind is kind and self._hints[-1].path == path:
                self._hints[-1] = hint  # a long write is one MODIFIED, however many there were
            elif len(self._hints) < _MOST_HINTS:
                self._hints.append(hint)
            else:
                self._hints = [Hint(Kind.OVERFLOW, "", hint.at)]
            self.wake.set()

    def _supervise(self) -> None:
        """Leaves `_inotify` running with nothing stale in it, or None."""
        if self._inotify is not None and self._inotify.finished:
            self.errors += 1
            self._drop_inotify()
            self._record(Kind.OVERFLOW, "")
        with self._lock:
            lost, self._lost = self._lost, False
        if lost and self._inotify is not None:  # what was lost may have been the end of a watch
            self.errors += 1
            for path in list(self._watched):
                self._forget(path)
        if self._inotify is None and self._now() >= self._retry_at:
            self._begin()

    def _begin(self) -> None:
        try:
            from .inotify import Inotify

            self._inotify = Inotify(self.wake.set)
            self._trouble = None
        except Exception as error:  # whatever it is, configuration goes on without events
            self.errors += 1
            self._trouble = no_events(error)
            self._retry_at = self._now() + _RETRY_S

    def _drop_inotify(self) -> None:
        inotify, self._inotify = self._inotify, None
        self._watched.clear()
        self._refused.clear()
        if inotify is not None:
            inotify.release()

    def _keep(self, path: str, interest: Interest) -> None:
        """Watches this directory, or goes on doing so."""
        watched = self._watched.get(path)
        try:
            status = os.lstat(path)
        except OSError:
            self._forget(path)  # the next look will say what is to be watched instead
            self._types = {}
            return
        identity = (status.st_dev, status.st_ino)
        if watched is not None and watched.identity != identity:
            self._types = {}  # it may be another mount, and the number of a device that went is given to another
        self._note_type(path, status.st_dev)
        if (
            watched is not None
            and watched.alive
            and watched.identity == identity
            and watched.interest.writes == interest.writes
        ):
            watched.interest = interest
            return
        self._forget(path)
        if self._inotify is not None:
            self._watch(self._inotify, path, interest, identity)

    def _watch(self, inotify: Inotify, path: str, interest: Interest, identity: tuple[int, int]) -> None:
        from .inotify import CallbackId, Mask

        watched = _Watched(path, interest, identity, self._record, self._tests.heard)
        callback = CallbackId(next(self._ids))
        mask = Mask(_WRITES if interest.writes else _PLACES)
        try:
            wd = inotify.add_callback(os.fsencode(path), mask, watched, callback)
            if wd == -1:  # watchdog passes over EACCES, and has noted a watch that is none
                inotify.remove_callbacks([(wd, callback)])
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._refuse(path, interest, error)
            return
        watched.token = (wd, callback)
        self._watched[path] = watched
        self._refused.pop(path, None)
        self._news = True
        self._tests.again(path)
        self._record(Kind.WATCHED, path)

    def _refuse(self, path: str, interest: Interest, error: OSError) -> None:
        if error.errno == errno.EACCES and not interest.writes:
            return  # only its replacement would be heard there, which looking finds as well
        if path not in self._refused:
            self.errors += 1
        self._refused[path] = not_watched(error)

    def _forget(self, path: str) -> None:
        watched = self._watched.pop(path, None)
        if watched is not None and watched.token is not None and watched.alive and self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.remove_callbacks([watched.token])

    def _note_type(self, path: str, dev: int) -> None:
        if dev not in self._types:
            self._types = {dev: "", **{mount.dev: mount.type for mount in mounts()}}
        self._types_of[path] = self._types.get(dev, "")

