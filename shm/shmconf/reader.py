"""Reader: what a worker holds. `attach` gives one.

A Reader looks into shared memory and never waits for anybody. With the native module a look-up takes its value out of
the segment by the index, and a scalar that was looked up at the same version before is answered from a cache, for one
atomic load; a new version costs nothing until something is looked up. In pure Python a new version is copied, verified
and decoded at the first look-up after it. A Reader takes no lock and keeps its state in attributes that are replaced
whole, so threads may share it and a forked child may go on with it.

When the segment is replaced (its file removed, damaged, or of another format) the Reader follows its name to the
successor, once that holds a published version; until then it goes on serving what it has.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import AsyncGenerator, Iterator
from typing import NoReturn

from . import waiting
from .attachment import Content
from .directories import check_name, reader_directories
from .errors import Error, SegmentCorrupt, SegmentNotFound
from .look_ups import LookUps
from .opening import Attached, open_attachment
from .registration import Membership
from .snapshot import Snapshot, decode_metadata, digest_in, rollback_in
from .status import ALIVE_SECONDS, AgentStatus, Status

_REOPEN_SECONDS = 0.05  # a retired segment's successor is looked for at most this often
_SNAPSHOT_CHECK_SECONDS = 1.0
_ATTACH_POLL_SECONDS = 0.02


def attach(name: str, *, wait: float | None = None, directory: str | os.PathLike[str] | None = None) -> Reader:
    """Attach to the segment `name`.

    wait: seconds to wait for the segment and its first version; None or 0 does not wait. directory: the runtime
    directory; else $SHMCONF_DIR, else the first of the default places that holds the segment.

    Raises ValueError for a `wait` of nan; InvalidName (a ValueError) for a name outside the grammar; SegmentNotFound
    where there is no segment or nothing was published yet, quoting the agent's reason; SegmentUntrusted, SegmentCorrupt
    or SegmentIncompatible for a file that must not be used, at once.
    """
    check_name(name)
    if wait is not None and math.isnan(wait):  # no time is beyond a deadline of nan
        raise ValueError("wait is a number of seconds, not nan")
    deadline = time.monotonic() + (wait or 0.0)
    while True:
        try:
            return _attach_now(name, directory)
        except SegmentNotFound:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise
            time.sleep(min(_ATTACH_POLL_SECONDS, remaining))


def find(name: str, directory: str | os.PathLike[str] | None = None) -> Attached:
    """The segment's attachment, published or not. Raises as `attach` does, but for a segment without a version."""
    check_name(name)
    tried = []
    for place in reader_directories(directory):
        try:
            return open_attachment(place, name)
        except SegmentNotFound as error:
            closed = " (which this user may not enter)" if isinstance(error.__cause__, PermissionError) else ""
            tried.append(f"{place.path}{closed}")
    raise SegmentNotFound(f"no segment {name!r} in {', '.join(tried)}; is its agent running?")


def read_status(name: str, attachment: Attached, *, retries: int = 0, reopened: int = 0) -> Status:
    """The Status of an attachment, also of one without a version. Never raises for a damaged payload or status."""
    version, retired = attachment.latest()
    digest, published_at, rollback_of = None, None, None
    try:
        note = attachment.copy_note()
        if note is not None:
            version, published_at = note.version, note.published_at
            metadata = decode_metadata(note.version, note.metadata)
            digest, rollback_of = digest_in(metadata), rollback_in(metadata)
    except Error:
        pass  # the version stays as `latest` names it; its digest is unknown
    agent = _agent_status(attachment)
    age = attachment.heartbeat_age()
    return Status(
        name=name,
        path=attachment.path,
        version=version,
        epoch=attachment.epoch,
        digest=digest,
        published_at=published_at,
        agent_alive=age is not None and age <= ALIVE_SECONDS and agent.state != "stopped",
        heartbeat_age=age,
        retired=retired,
        retries=retries + attachment.retries,
        reopened=reopened,
        rollback_of=rollback_of,
        agent=agent,
    )


class Reader(LookUps):
    """One process's view of one segment. Made by `attach`; also a context manager.

    `get(path, default=None)` is the value at a path (dotted text, or a tuple of keys), `reader[key]` that of one key of
    the top level or of a tuple, with KeyError where there is none; `in` asks whether it is there. `version` is the
    version now in shared memory, by one atomic load. Containers are fresh at each call. Two look-ups may see two
    versions; take a `snapshot()` for several values of one version.
    """

    __slots__ = (
        "__weakref__",
        "_cached",
        "_has_closed",
        "_may_check_at",
        "_may_reopen_at",
        "_past_retries",
        "_reopened",
        "name",
    )

    def __init__(self, name: str, attachment: Attached, first: Content | None) -> None:
        """Use `attach`."""
        super().__init__()
        self.name = name
        self._has_closed = False
        self._attachment = attachment
        self._cached = None if first is None else Snapshot(first)
        self._reopened = 0
        self._past_retries = 0
        self._may_reopen_at = 0.0
        self._may_check_at = time.monotonic() + _SNAPSHOT_CHECK_SECONDS
        self._membership = Membership(attachment.directory, name, attachment.latest()[0])
        weakref.finalize(self, self._membership.leave).atexit = False  # at the end the kernel sees to it

    @property
    def epoch(self) -> int:
        """The segment's epoch; it changes only when the segment was replaced."""
        return self._attached().epoch

    __iter__ = None  # else Python would try reader[0], reader[1], …; iterate over a snapshot()

    def snapshot(self) -> Snapshot:
        """The latest version, whole; it stays as it is for as long as it is kept."""
        now = time.monotonic()
        if now >= self._may_check_at:
            self._may_check_at = now + _SNAPSHOT_CHECK_SECONDS
            self._follow_name()
        return self._latest()

    def wait_version(self, after: int | None = None, timeout: float | None = None) -> int | None:
        """Sleep until the version is greater than `after` (default: the one now), and return it; None on timeout.

        timeout in seconds; None waits for ever. Copies nothing. Once this Reader has moved to a replacement of the
        segment, an `after` beyond its version returns at once, as such numbers belong to the segment before.
        """
        threshold = self.version if after is None else after
        return waiting.wait_version(self, threshold, timeout)

    def wait(self, after: int | None = None, timeout: float | None = None) -> Snapshot | None:
        """As `wait_version`, but returns the Snapshot."""
        return None if self.wait_version(after, timeout) is None else self._latest()

    def changes(self, after: int | None = None, timeout: float | None = None) -> Iterator[Snapshot]:
        """Yield a Snapshot for each new version from the next one on; after=0 begins with the current one.

        Versions published faster than they are consumed are passed over: each Snapshot is the latest at its time.
        timeout: seconds without a new version after which the iteration ends; None goes on for ever.
        """
        return waiting.changes(self, after, timeout)

    def changes_async(self, after: int | None = None) -> AsyncGenerator[Snapshot]:
        """As `changes`, for `async for`; waits in a thread of its own, which ends with the generator."""
        from .asynchronous import changes_async  # see there why not above

        return changes_async(self, after)

    def status(self) -> Status:
        """How the segment and its agent are; never raises for a damaged payload or a dead agent."""
        self._follow_name()
        return read_status(self.name, self._attached(), retries=self._past_retries, reopened=self._reopened)

    def close(self) -> None:
        """Let go of the segment. Waits in other threads end with an Error within a second; Snapshots stay usable.

        The mapping goes when the last call in flight lets go of it, so closing under a reading thread is safe.
        Idempotent.
        """
        self._has_closed = True
        self._attachment = None
        self._membership.leave()

    def __enter__(self) -> Reader:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Name and version; never values."""
        attachment = self._attachment
        return f"<Reader {self.name!r} {'closed' if attachment is None else f'version {attachment.latest()[0]}'}>"

    # What waiting.py builds on.

    def identity(self) -> tuple[int, int]:
        """(epoch, version) as published now; follows a retired segment to its successor."""
        attachment = self._in_use()
        return attachment.epoch, attachment.latest()[0]

    def sleep(self, attachment: Attached, seen: int, seconds: float) -> None:
        """One slice of a wait; where it brought no news, the segment's name is looked at."""
        before, retired = attachment.latest()
        if retired:  # nobody wakes the readers of a retired segment a second time for certain
            seconds = min(seconds, _REOPEN_SECONDS)
        attachment.wait(seen, seconds)
        if attachment.latest() == (before, retired):
            self._follow_name()

    def look_at_name(self) -> None:
        """Move to what the segment's name leads to, if that is another file by now."""
        self._follow_name()

    def has_moved(self) -> bool:
        """Whether this Reader has changed epoch since it was made."""
        return self._reopened > 0

    def attachment(self) -> Attached:
        """The attachment in use. Raises Error once the Reader is closed."""
        return self._attached()

    def _attached(self) -> Attached:
        attachment: Attached | None = self._attachment
        if attachment is None:
            self._closed()
        return attachment

    def _closed(self) -> NoReturn:
        raise Error(f"the Reader of segment {self.name!r} is closed")

    def _in_use(self) -> Attached:
        """The attachment in use, after a retired segment was left for its successor."""
        attachment = self._attached()
        if attachment.latest()[1] and self._reopen():
            return self._attached()
        return attachment

    def _latest(self) -> Snapshot:
        """The snapshot of the published version, from the cache where (epoch, version) did not change."""
        while True:
            identity = self.identity()
            cached = self._cached
            if cached is not None and (cached.epoch, cached.version) == identity:
                return cached
            attachment = self._attached()
            try:
                content = attachment.copy_latest()
            except SegmentCorrupt:
                if self._reopen(at_once=True):
                    continue
                raise
            if content is None:  # the name leads to a published version only; a zero here is damage
                raise SegmentCorrupt(f"{attachment.path}: the published version is gone")
            self._cached = cached = Snapshot(content)
            self._adopt(cached.version)
            return cached

    def _follow_name(self) -> None:
        """Move to what the segment's name leads to, if that is another file by now."""
        attachment = self._attached()
        if not attachment.is_linked() or attachment.latest()[1]:
            self._reopen(at_once=True)

    def _reopen(self, at_once: bool = False) -> bool:
        """Move to a valid successor with a published version; False where there is none, and all stays as it is."""
        now = time.monotonic()
        if not at_once and now < self._may_reopen_at:
            return False
        self._may_reopen_at = now + _REOPEN_SECONDS
        old = self._attached()
        if old.is_linked():
            return False
        try:
            successor = open_attachment(old.directory, self.name)
            version, content = successor.verify()
        except Error:
            return False
        if version == 0:
            return False
        if self._attachment is not old:  # another thread was faster, or closed this Reader
            return True
        # Others may be reading the old mapping: it goes when the last of them lets go of it.
        self._attachment = successor
        if self._has_closed:  # between the two lines before
            self._attachment = None
        self._cached = None if content is None else Snapshot(content)
        self._membership.move(version)
        self._past_retries += old.retries
        self._reopened += 1
        return True


def _attach_now(name: str, directory: str | os.PathLike[str] | None) -> Reader:
    attachment = find(name, directory)
    version, content = attachment.verify()
    if version == 0:
        agent = _agent_status(attachment)
        reason = agent.last_error or "its agent has not published a first version"
        raise SegmentNotFound(f"segment {name!r} has nothing published yet: {reason}")
    return Reader(name, attachment, content)


def _agent_status(attachment: Attached) -> AgentStatus:
    try:
        body = attachment.copy_status()
        return AgentStatus() if body is None else AgentStatus.decode(body)
    except (Error, ValueError) as error:
        return AgentStatus(state="unknown", warnings=(f"the status block is unreadable: {error}",))
