"""Writer: the life of one segment under one agent.

It takes the lock, goes on from what a predecessor left, publishes versions, and replaces the file where it must
(another format, damage, a larger max_bytes, a file that somebody removed). Whatever happens, a reader finds the
version published before or the one published now. One thread calls these methods; `beat` may be called from another.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import codec, layout, workers_file
from .attachment import Attachment, Content, read_header
from .directories import SUFFIX, Directory, check_name
from .document import Document
from .errors import Error, SegmentCorrupt, SegmentLocked, SegmentNotFound
from .index import build_index
from .layout import Header
from .lock import WriterLock
from .reservation import Reservation
from .segment import WritableSegment
from .storage import Storage

_BELIEVABLE_VERSION = 1 << 62  # a damaged segment's `latest` beyond this is not taken for a version


@dataclass(frozen=True, slots=True)
class Settings:
    """max_bytes: the most that the file may grow to. mode and gid (None: leave as it is) of the file."""

    max_bytes: int = 256 << 20
    mode: int = 0o640
    gid: int | None = None


class Writer:
    """The one writer of the segment `name`. Also a context manager."""

    def __init__(
        self,
        directory: Directory,
        name: str,
        settings: Settings | None = None,
        *,
        state_directory: Path | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Lock the segment and take over, build or replace its file.

        state_directory: where versions are reserved; without one (or one that cannot be written) versions may go back
        after the segment was lost, which `warnings` says. Raises SegmentLocked naming the other agent, Error where
        the directory cannot be used.
        """
        self.name = check_name(name)
        self.path = directory.path / (name + SUFFIX)
        self._directory = directory
        self._settings = settings or Settings()
        self._storage = storage or Storage()
        self._aside = directory.path / f".{name}{SUFFIX}.new"
        self._workers = directory.path / (name + workers_file.SUFFIX)
        self._segment: WritableSegment | None = None
        self._damage: str | None = None
        self._status_body: bytes | None = None
        self.published_at = 0
        """When this Writer published last, in ns since 1970; 0 if it has not."""
        self._reserved = False
        self._state_lock: WriterLock | None = None
        self._state_problem: str | None = None  # why the state directory cannot be used any more
        self._beating = False  # whether a successor has a living agent from its first moment on
        self._warnings: list[str] = []
        self._uncounted: str | None = None  # why nobody can tell which workers are attached
        with contextlib.ExitStack() as unless_open:
            mode = 0o755 if directory.named else 0o700
            self._lock = WriterLock(directory.path / f"{name}.lock", f"segment {name!r}", mode)
            unless_open.callback(self._release_locks)
            self._reservation = self._open_state(state_directory)
            self._floor = self._reservation.reserved_through if self._reservation else 0
            self._open_segment()
            unless_open.pop_all()
        self._provide_workers_file()

    @property
    def version(self) -> int:
        """The version now published; 0 where there is none."""
        return self._segment.latest if self._segment else 0

    @property
    def epoch(self) -> int:
        """The segment's epoch; 0 while a damaged file waits for its successor."""
        return self._segment.header.epoch if self._segment else 0

    @property
    def size(self) -> int:
        """Bytes of the segment file; 0 while a damaged file waits for its successor."""
        return self._segment.size if self._segment else 0

    def warnings(self) -> list[str]:
        """What an operator should know though publication goes on."""
        told = list(self._warnings)
        if self._damage:
            told.append(f"the segment file is not usable ({self._damage}); the first valid configuration replaces it")
        if self._state_problem:
            told.append(f"versions may go back if the segment is lost: {self._state_problem}")
        elif self._reservation and (late := self._reservation.warning(self.version)):
            told.append(late)
        if self._uncounted:
            told.append(f"the attached workers are not counted: {self._uncounted}")
        return told

    def published(self) -> Content | None:
        """A verified copy of what is published; None where nothing is. Raises SegmentCorrupt."""
        if self._segment is None:
            return None
        return self._segment.attachment(self._directory, self.path.name).copy_latest()

    def publish(self, document: Document | bytes, metadata: Mapping[str, Any] | None = None) -> int:
        """Publish a msgpack document as the next version, and return its number. The digest is added to `metadata`.

        Raises SegmentFull or OSError, with the published version untouched; SegmentLocked when another agent took the
        segment over; ValueError for a payload of more than 256 bytes that is no msgpack document.
        """
        if isinstance(document, bytes):
            document = Document.of(document)
        self._confirm_locks()
        now = time.time_ns()
        noted = codec.pack({**(metadata or {}), "digest": document.digest})
        self._reserve()
        if self._segment is None or not self._segment.is_link_of(self.path):
            version = self._replace(document.payload, document.index, noted, now)
            self.published_at = now
            return version
        version = self._next_version(self._segment)
        self._segment.publish(version, document.payload, document.index, noted, now, self._settings.max_bytes)
        self.published_at = now
        if self._reservation:
            self._reservation.ensure(version)
        return version

    def keep_linked(self) -> bool:
        """Confirm the locks, and put the segment back where its name leads elsewhere; whether that was needed.

        To be called every now and then. Raises what `publish` raises.
        """
        self._confirm_locks()
        if self._uncounted or not workers_file.is_there(self._workers):
            self._provide_workers_file()
        segment = self._segment
        if segment is None or segment.is_link_of(self.path):
            return False
        content = self.published()
        if content is None:
            self._segment = self._build()
            self._storage.rename(self._aside, self.path)
            segment.close()
        else:
            index = _index_anew(content)
            self._reserve()
            self._replace(content.payload, index, content.metadata, content.published_at)
        return True

    def set_status(self, body: bytes) -> None:
        """Show `body` (AgentStatus.encode) to every reader."""
        self._status_body = body
        if self._segment is not None:
            self._segment.write_status(body)

    def beat(self) -> None:
        """Say that the agent lives. From any thread, until close()."""
        self._beating = True
        segment = self._segment
        if segment is not None:
            # Closed by a replacement in the other thread at this very moment: its successor gets the next beat.
            with contextlib.suppress(ValueError):
                segment.beat()

    def retry_reservation(self) -> None:
        """Ask a disk that refused the reservation, or has lost it, again, in the background."""
        if self._reservation and (self._reserved or self.version):
            self._reservation.retry(self.version)

    def close(self) -> None:
        """Stop: the segment stays for its readers, the heartbeat ends, the locks are free. Idempotent."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.stop_beating()
            segment.announce()
            segment.close()
        if self._reservation:
            self._reservation.settle()
        self._release_locks()

    def __enter__(self) -> Writer:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _open_state(self, state_directory: Path | None) -> Reservation | None:
        if state_directory is None:
            self._warnings.append("versions may go back if the segment is lost: there is no state directory")
            return None
        try:
            os.makedirs(state_directory, mode=0o700, exist_ok=True)
            if not os.access(state_directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            self._warnings.append(
                f"versions may go back if the segment is lost: cannot use {state_directory}: {error.strerror}"
            )
            return None
        lock_path = state_directory / f"{self.name}.lock"
        what = f"segment {self.name!r} with the state directory {state_directory}"
        self._state_lock = WriterLock(lock_path, what, 0o700)
        return Reservation(state_directory / f"{self.name}.versions")

    def _open_segment(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._aside)  # what a predecessor did not finish
        try:
            found = Attachment.open(self._directory, self.name)
            content = found.copy_latest()
        except SegmentNotFound:
            self._warn_of_lost_reservation()
            self._segment = self._build()
            self._storage.rename(self._aside, self.path)
            return
        except Error as error:
            self._warn_of_lost_reservation()
            self._damage = str(error)
            self._floor = max(self._floor, self._damaged_latest())
            return
        version, retired = found.latest()
        self._floor = max(version, found.header.floor, 0 if version else self._floor)
        self._segment = self._take_over(found, retired)
        if self._segment is None:
            if content is None:
                self._segment = self._build()
                self._storage.rename(self._aside, self.path)
            else:
                try:
                    index = _index_anew(content)
                except SegmentCorrupt as error:
                    self._damage = str(error)
                    return
                self._reserve()
                self._replace(content.payload, index, content.metadata, content.published_at)
        elif self._reservation and version:  # the state directory may have been lost since it was published
            self._reservation.ensure(version)

    def _provide_workers_file(self) -> None:
        """Whoever may read the segment may be counted among its workers. Never raises."""
        self._uncounted = None
        try:
            workers_file.provide(self._workers, self._settings.mode, self._settings.gid)
        except OSError as error:
            self._uncounted = f"{self._workers}: {error.strerror}; remove what has that name, and it is made anew"

    def _warn_of_lost_reservation(self) -> None:
        if self._reservation and self._reservation.damage:
            self._warnings.append(
                "versions may have gone back: the segment was lost, and so was what the state directory had reserved: "
                + self._reservation.damage
            )

    def _take_over(self, found: Attachment, retired: bool) -> WritableSegment | None:
        """The segment to go on with, or None where it has to be replaced."""
        wanted = self._settings.max_bytes // layout.PAGE * layout.PAGE
        too_low = self._floor > max(found.latest()[0], found.header.floor)  # versions reserved since it was made
        if retired or too_low or found.header.max_bytes < wanted:
            return None
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (PermissionError, FileNotFoundError):  # left by another user's agent, or removed at this very moment
            return None
        try:
            if not found.is_same_file(fd):
                os.close(fd)
                return None
            segment = WritableSegment.take_over(self._storage, fd, found.header)
        except BaseException:
            os.close(fd)
            raise
        try:
            segment.set_access(self._settings.mode, self._settings.gid)
        except PermissionError:
            segment.close()
            return None
        return segment

    def _build(self) -> WritableSegment:
        header = Header(
            epoch=secrets.randbits(64) or 1,
            max_bytes=max(layout.MIN_MAX_BYTES, self._settings.max_bytes // layout.PAGE * layout.PAGE),
            created_at=time.time_ns(),
            floor=self._floor,
        )
        segment = WritableSegment.build(
            self._storage, self._aside, header, self._settings.mode, self._settings.gid
        )
        if self._status_body is not None:
            segment.write_status(self._status_body)
        if self._beating:
            segment.beat()
        return segment

    def _replace(self, payload: bytes, index: bytes, metadata: bytes, published_at: int) -> int:
        """Build the successor with a published version, retire what was there, and only then take its name."""
        old = self._segment
        if old is not None:
            self._floor = max(self._floor, old.latest)
        successor = self._build()
        version = self._next_version(successor)
        retired = old
        try:
            successor.publish(version, payload, index, metadata, published_at, self._settings.max_bytes)
            retired = old if old is not None else self._open_to_retire()
            if retired is not None:
                retired.retire()
            self._storage.rename(self._aside, self.path)
        except (Error, OSError):
            successor.close()
            with contextlib.suppress(OSError):  # the directory may be what went missing
                os.unlink(self._aside)
            if retired is not None and retired is not old:
                retired.close()
            raise
        self._segment = successor
        self._damage = None
        if retired is not None:
            retired.announce()  # who looked between the retirement and the rename looks again
            retired.close()
        if self._reservation:
            self._reservation.ensure(version)
        return version

    def _open_to_retire(self) -> WritableSegment | None:
        """The file that stands in the way, if it is a segment of this format whose readers can be told."""
        try:
            if not stat.S_ISREG(os.lstat(self.path).st_mode):  # to open a device or a FIFO can have effects of its own
                return None
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise Error("somebody else could cut this file short under our mapping")
            header = read_header(fd)
            return WritableSegment(self._storage, fd, self._storage.map(fd, header.max_bytes), header)
        except (Error, OSError, ValueError):
            os.close(fd)
            return None

    def _damaged_latest(self) -> int:
        """The version that a damaged segment says it had, where that can be believed."""
        segment = self._open_to_retire()
        if segment is None:
            return 0
        latest = segment.latest
        segment.close()
        return latest if latest < _BELIEVABLE_VERSION else 0

    def _next_version(self, segment: WritableSegment) -> int:
        return max(segment.latest, segment.header.floor) + 1

    def _reserve(self) -> None:
        """Before the first publication, and only then: a segment that never published uses up no versions."""
        if self._reservation and not self._reserved:
            self._reservation.begin(max(self._floor, self.version))
        self._reserved = True

    def _confirm_locks(self) -> None:
        try:
            self._lock.confirm()
            if self._state_lock:
                try:
                    self._state_lock.confirm()
                    self._state_problem = None
                except SegmentLocked:
                    raise
                except (Error, OSError) as error:  # nobody else writes there either: no reason to stop publishing
                    self._state_problem = str(error)
        except SegmentLocked:
            # It is the other agent's now: no status, heartbeat or farewell of this one may be written in it.
            segment, self._segment = self._segment, None
            if segment is not None:
                segment.close()
            raise

    def _release_locks(self) -> None:
        self._lock.release()
        if self._state_lock:
            self._state_lock.release()


def _index_anew(content: Content) -> bytes:
    """The index for what another writer published, which may have had none or one of another kind."""
    try:
        return build_index(content.payload)
    except ValueError as error:
        raise SegmentCorrupt(f"version {content.version}: {error}") from None
