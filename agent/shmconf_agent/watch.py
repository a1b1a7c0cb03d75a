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
permission, a network file system) `rescan_s` is shorter, `notes` says why and what to do, and each 5 s it tries again.
No trouble with events is ever raised: the caller goes on by looking.

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
from .mounts import blind_type, mounts

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import CallbackId, InotifyEvent, WatchDescriptor

    from .inotify import Inotify

__all__ = ["NO_HINTS", "Hint", "Hints", "Kind", "Watcher"]

RESCAN_S = 1.0
"""How often the disk is looked at where events tell of changes."""
POLL_S = 0.25
"""How often where they do not."""
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
        self, path: str, interest: Interest, identity: tuple[int, int], record: Callable[[Kind, str], None]
    ) -> None:
        self.path = path
        self.interest = interest  # replaced as a whole by the other thread
        self.identity = identity
        self.alive = True
        self.token: tuple[WatchDescriptor, CallbackId] | None = None
        self._record = record

    def on_event(self, event: InotifyEvent) -> None:
        kind = next((kind for bits, kind in _KINDS if event.mask & bits), None)
        if kind is None:
            return
        if not event.name:
            self._record(kind, self.path)
            return
        name = os.fsdecode(event.name)
        if self.interest.covers(name):
            self._record(kind, os.path.join(self.path, name))

    def on_watch_deleted(self, wd: int) -> None:
        self.alive = False
        self._record(Kind.GONE, self.path)

    def on_queue_overflow(self) -> None:
        self._record(Kind.OVERFLOW, "")


class Watcher:
    """See the module. With `events=False` there are no hints, only notes and the shorter `rescan_s`.

    wake: an event to share with other reasons to wake up. `drain` clears it, so whoever else sets it must leave its
      reason where the waiting thread looks after each wake-up.
    """

    def __init__(
        self,
        wake: threading.Event | None = None,
        *,
        events: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wake = wake or threading.Event()
        self.errors = 0
        """How often watching failed, a thread ended or events were lost."""
        self._wanted = events
        self._now = now
        self._lock = threading.Lock()
        self._hints: list[Hint] = []
        self._lost = False
        self._inotify: Inotify | None = None
        self._watched: dict[str, _Watched] = {}
        self._refused: dict[str, str] = {}  # directory: why it is not watched
        self._trouble: str | None = None  # why nothing is
        self._blind: dict[str, str] = {}  # directory: type of its file system
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
        self._blind = {path: kind for path, kind in self._blind.items() if path in directories}
        retry = self._now() >= self._retry_at
        for path, interest in directories.items():
            if retry or path not in self._refused:
                self._keep(path, interest)
        if retry and self._refused:
            self._retry_at = self._now() + _RETRY_S

    @property
    def rescan_s(self) -> float:
        """How long to go at most without looking: 1 s, or 0.25 s where events are missing."""
        complete = self._wanted and not (self._trouble or self._refused or self._blind)
        return RESCAN_S if complete else POLL_S

    @property
    def notes(self) -> tuple[str, ...]:
        """What stops events, in sentences for the operator; empty if nothing does."""
        if not self._wanted:
            return (f"File events are switched off; changes are found by looking every {POLL_S} s.",)
        notes = [self._trouble] if self._trouble else []
        reasons = dict.fromkeys(self._refused.values())
        for reason in reasons:
            paths = sorted(path for path, why in self._refused.items() if why == reason)
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            notes.append(f"{paths[0]}{more} cannot be watched: {reason}")
        notes += [
            f"{path} is on {kind}, where changes made elsewhere raise no events; it is looked at every {POLL_S} s."
            for path, kind in sorted(self._blind.items())
        ]
        return tuple(notes)

    def close(self) -> None:
        """Ends the thread and closes every descriptor. May be called again."""
        self._wanted = False
        self._drop_inotify()

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
            self._trouble = _no_events(error)
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
            return
        identity = (status.st_dev, status.st_ino)
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

        watched = _Watched(path, interest, identity, self._record)
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
        self._record(Kind.WATCHED, path)

    def _refuse(self, path: str, interest: Interest, error: OSError) -> None:
        if error.errno == errno.EACCES and not interest.writes:
            return  # only its replacement would be heard there, which looking finds as well
        if path not in self._refused:
            self.errors += 1
        self._refused[path] = _not_watched(error)

    def _forget(self, path: str) -> None:
        watched = self._watched.pop(path, None)
        if watched is not None and watched.token is not None and watched.alive and self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.remove_callbacks([watched.token])

    def _note_type(self, path: str, dev: int) -> None:
        if dev not in self._types:
            self._types = {dev: "", **{mount.dev: mount.type for mount in mounts()}}
        kind = blind_type(dev, self._types)
        if kind is not None:
            self._blind[path] = kind


def _no_events(error: Exception) -> str:
    polling = f"changes are found by looking every {POLL_S} s"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return (
            f"No more inotify instances or open files are to be had; {polling}. "
            "Raise fs.inotify.max_user_instances (sysctl) or the limit of open files."
        )
    if isinstance(error, ImportError):
        return f"File events need Linux and the package watchdog ({error}); {polling}."
    return f"File events cannot be had ({error}); {polling}."


def _not_watched(error: OSError) -> str:
    polling = f"it is looked at every {POLL_S} s"
    if error.errno == errno.ENOSPC:
        return f"no more inotify watches are to be had; {polling}. Raise fs.inotify.max_user_watches (sysctl)."
    if error.errno == errno.EACCES:
        return f"that needs permission to read the directory; {polling}."
    return f"{error.strerror}; {polling}."
