"""Reader: what a worker holds. `attach` gives one.

A Reader looks into shared memory and never waits for anybody: a look-up while the version is unchanged is one atomic
load and a walk through an already decoded tree; a new version is copied, verified and decoded at the first look-up
after it. It takes no lock and keeps its state in attributes that are replaced whole, so threads may share it and a
forked child may go on with it.

When the segment is replaced (its file removed, damaged, or of another format) the Reader follows its name to the
successor, once that holds a published version; until then it goes on serving what it has.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from . import waiting
from .attachment import Attachment
from .directories import check_name, reader_directories
from .errors import Error, SegmentCorrupt, SegmentNotFound
from .paths import MISSING, PathLike
from .snapshot import Snapshot
from .status import ALIVE_SECONDS, AgentStatus, Status

_REOPEN_SECONDS = 0.05  # a retired segment's successor is looked for at most this often
_SNAPSHOT_CHECK_SECONDS = 1.0
_LOOK_UPS_PER_CHECK = 1024
_ATTACH_POLL_SECONDS = 0.02


def attach(name: str, *, wait: float | None = None, directory: str | os.PathLike[str] | None = None) -> Reader:
    """Attach to the segment `name`.

    wait: seconds to wait for the segment and its first version; None or 0 does not wait. directory: the runtime
    directory; else $SHMCONF_DIR, else the first of the default places that holds the segment.

    Raises InvalidName (a ValueError) for a name outside the grammar; SegmentNotFound where there is no segment or
    nothing was published yet, quoting the agent's reason; SegmentUntrusted, SegmentCorrupt or SegmentIncompatible
    for a file that must not be used, at once.
    """
    check_name(name)
    deadline = time.monotonic() + (wait or 0.0)
    while True:
        try:
            return _attach_now(name, directory)
        except SegmentNotFound:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise
            time.sleep(min(_ATTACH_POLL_SECONDS, remaining))


def find(name: str, directory: str | os.PathLike[str] | None = None) -> Attachment:
    """The segment's attachment, published or not. Raises as `attach` does, but for a segment without a version."""
    check_name(name)
    tried = []
    for place in reader_directories(directory):
        try:
            return Attachment.open(place, name)
        except SegmentNotFound as error:
            closed = " (which this user may not enter)" if isinstance(error.__cause__, PermissionError) else ""
            tried.append(f"{place.path}{closed}")
    raise SegmentNotFound(f"no segment {name!r} in {', '.join(tried)}; is its agent running?")


def read_status(name: str, attachment: Attachment, *, retries: int = 0, reopened: int = 0) -> Status:
    """The Status of an attachment, also of one without a version. Never raises for a damaged payload or status."""
    version, retired = attachment.latest()
    digest, published_at = None, None
    try:
        content = attachment.copy_latest()
        if content is not None:
            version, published_at = content.version, content.published_at
            digest = Snapshot(content).digest
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
        agent=agent,
    )


class Reader:
    """One process's view of one segment. Made by `attach`; also a context manager.

    Two look-ups may see two versions; take a `snapshot()` for several values of one version.
    """

    def __init__(self, name: str, attachment: Attachment, first: Snapshot) -> None:
        """Use `attach`."""
        self.name = name
        self._closed = False
        self._attachment: Attachment | None = attachment
        self._cached = first
        self._look_ups = 0
        self._reopened = 0
        self._past_retries = 0
        self._may_reopen_at = 0.0
        self._may_check_at = time.monotonic() + _SNAPSHOT_CHECK_SECONDS

    @property
    def version(self) -> int:
        """The version now in shared memory: one atomic load, which alone never follows a replacement of the segment."""
        return self._attached().latest()[0]

    @property
    def epoch(self) -> int:
        """The segment's epoch; it changes only when the segment was replaced."""
        return self._attached().epoch

    def get(self, path: PathLike, default: Any = None) -> Any:
        """The value at `path` (dotted text, or a tuple of keys), or `default` where there is none.

        Containers are fresh at each call. Never blocks. Raises PathError for malformed text, SegmentCorrupt or
        SegmentBusy where the segment itself is at fault.
        """
        found = self._for_look_up().look_up(path)
        return default if found is MISSING else found

    def __getitem__(self, key: Any) -> Any:
        """One key of the top level, or a tuple as a path. Raises KeyError."""
        return self._for_look_up()[key]

    __iter__ = None  # else Python would try reader[0], reader[1], …; iterate over a snapshot()

    def __contains__(self, key: object) -> bool:
        """Whether the key (or tuple as a path) is there."""
        return key in self._for_look_up()

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
        self._closed = True
        self._attachment = None

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
        attachment = self._attached()
        version, retired = attachment.latest()
        if retired and self._reopen():
            attachment = self._attached()
            version, _ = attachment.latest()
        return attachment.epoch, version

    def sleep(self, attachment: Attachment, seen: int, seconds: float) -> None:
        """One slice of a wait; afterwards the segment's name is looked at."""
        if attachment.latest()[1]:  # nobody wakes the readers of a retired segment a second time for certain
            seconds = min(seconds, _REOPEN_SECONDS)
        attachment.wait(seen, seconds)
        self._follow_name()

    def has_moved(self) -> bool:
        """Whether this Reader has changed epoch since it was made."""
        return self._reopened > 0

    def attachment(self) -> Attachment:
        """The attachment in use. Raises Error once the Reader is closed."""
        return self._attached()

    def _attached(self) -> Attachment:
        attachment = self._attachment
        if attachment is None:
            raise Error(f"the Reader of segment {self.name!r} is closed")
        return attachment

    def _for_look_up(self) -> Snapshot:
        self._look_ups += 1
        if self._look_ups % _LOOK_UPS_PER_CHECK == 0:
            self._follow_name()
        return self._latest()

    def _latest(self) -> Snapshot:
        """The snapshot of the published version, from the cache where (epoch, version) did not change."""
        while True:
            identity = self.identity()
            cached = self._cached
            if (cached.epoch, cached.version) == identity:
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
            successor = Attachment.open(old.directory, self.name)
            content = successor.copy_latest()
        except Error:
            return False
        if content is None:
            return False
        if self._attachment is not old:  # another thread was faster, or closed this Reader
            return True
        # Others may be reading the old mapping: it goes when the last of them lets go of it.
        self._attachment = successor
        if self._closed:  # between the two lines before
            self._attachment = None
        self._cached = Snapshot(content)
        self._past_retries += old.retries
        self._reopened += 1
        return True


def _attach_now(name: str, directory: str | os.PathLike[str] | None) -> Reader:
    attachment = find(name, directory)
    content = attachment.copy_latest()
    if content is None:
        agent = _agent_status(attachment)
        reason = agent.last_error or "its agent has not published a first version"
        raise SegmentNotFound(f"segment {name!r} has nothing published yet: {reason}")
    return Reader(name, attachment, Snapshot(content))


def _agent_status(attachment: Attachment) -> AgentStatus:
    try:
        body = attachment.copy_status()
        return AgentStatus() if body is None else AgentStatus.decode(body)
    except (Error, ValueError) as error:
        return AgentStatus(state="unknown", warnings=(f"the status block is unreadable: {error}",))
