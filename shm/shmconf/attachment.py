"""One mapped segment and the reader's side of its protocol.

The contract with the writer is: load `latest`, demand exactly 2·version in that version's slot, copy, fence, look at
the counter again; whatever was copied in between counts only if the counter did not change. Nothing here writes,
locks or waits for anybody. An Attachment may be shared by threads and inherited through fork.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from . import layout
from .directories import SUFFIX, Directory
from .errors import SegmentBusy, SegmentCorrupt, SegmentIncompatible
from .layout import Descriptor, Header, Room
from .mapping import Mapping, open_mapping
from .trust import is_link_to, open_trusted

_PATIENT_TRIES = 1000  # after so many the reader yields between tries
_LAST_TRIES = 2 * _PATIENT_TRIES
PATIENCE_SECONDS = 1.0

Got = TypeVar("Got")


@dataclass(frozen=True, slots=True)
class Content:
    """One version's bytes, copied out of the segment and verified against their checksums.

    published_at in ns since 1970. index is b"" where the version has none.
    """

    epoch: int
    version: int
    published_at: int
    payload: bytes
    index: bytes
    metadata: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """What one version says of itself beside its payload, verified. published_at in ns since 1970."""

    epoch: int
    version: int
    published_at: int
    metadata: bytes


class Attachment:
    """A trusted segment file, mapped; unmapped when the last user lets go of it. See `opening.Attached`."""

    def __init__(self, directory: Directory, file_name: str, mapping: Mapping, header: Header, link: tuple[int, int]):
        self.directory = directory
        self.file_name = file_name
        self.mapping = mapping
        self.header = header
        self.epoch = header.epoch
        self.retries = 0  # tries that a concurrent publication made worthless
        self._link = link

    @classmethod
    def open(cls, directory: Directory, name: str) -> Attachment:
        """Open the segment `name`. Raises SegmentNotFound, SegmentUntrusted, SegmentIncompatible or SegmentCorrupt."""
        file_name = name + SUFFIX
        opened = open_trusted(directory, file_name)
        try:
            header = read_header(opened.fd)
            mapping = open_mapping(opened.fd, header.max_bytes)
        except (SegmentCorrupt, SegmentIncompatible) as error:
            raise type(error)(f"{directory.path / file_name}: {error}") from None
        except (OSError, ValueError, OverflowError) as error:
            raise SegmentCorrupt(f"{directory.path / file_name}: cannot be mapped: {error}") from None
        finally:
            os.close(opened.fd)
        return cls(directory, file_name, mapping, header, (opened.device, opened.inode))

    @property
    def path(self) -> str:
        """The file's path, for messages."""
        return str(self.directory.path / self.file_name)

    def latest(self) -> tuple[int, bool]:
        """The published version (0: none yet) and whether the segment was retired; one acquire load."""
        word = self.mapping.load(layout.LATEST)
        return word & layout.VERSION_MASK, bool(word & layout.RETIRED)

    def is_linked(self) -> bool:
        """Whether the segment's name still leads to this file."""
        return is_link_to(self.directory, self.file_name, *self._link)

    def is_same_file(self, fd: int) -> bool:
        """Whether an open descriptor is of this very file."""
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == self._link

    def copy_latest(self) -> Content | None:
        """The latest version, copied and verified; None where nothing was published yet.

        Raises SegmentCorrupt where the bytes at rest are damaged or `latest` names a slot that never becomes whole,
        SegmentBusy where the writer laps this reader for 2,000 tries and a second.
        """
        return self._insist(layout.LATEST, layout.VERSION_MASK, self._try_version)

    def verify(self) -> tuple[int, Content | None]:
        """The latest version if it is whole (0: none yet), and the copy that verifying it took. Raises likewise."""
        content = self.copy_latest()
        return (0, None) if content is None else (content.version, content)

    def copy_note(self) -> Note | None:
        """What the latest version says of itself, verified; None where there is none. Raises likewise."""
        return self._insist(layout.LATEST, layout.VERSION_MASK, self._try_note)

    def copy_status(self) -> bytes | None:
        """The body of the agent's status block, copied and verified; None where there is none yet. Raises likewise."""
        return self._insist(layout.STATUS_LATEST, (1 << 64) - 1, self._try_status)

    def heartbeat_age(self) -> float | None:
        """Seconds since the agent's last heartbeat; None where there is none, it stopped, or the clock began anew."""
        beat = self.mapping.load(layout.HEARTBEAT)
        age = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - beat
        return age / 1e9 if beat and age >= 0 else None

    def wake_word(self) -> int:
        """What wait() takes as `seen`; to be loaded before `latest`, or a publication in between is slept through."""
        return self.mapping.load32(layout.WAKE)

    def wait(self, seen: int, seconds: float) -> None:
        """Sleep in the kernel until the wake word is not `seen`, a signal, or `seconds` have passed."""
        self.mapping.wait(layout.WAKE, seen, seconds)

    def wait_beyond(self, after: int, seconds: float) -> int:
        """Sleep until the version is beyond `after` or the segment retired, a signal, or `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while True:
            seen = self.wake_word()  # before `latest`, or a bump in between is slept through
            version, retired = self.latest()
            remaining = deadline - time.monotonic()
            if version > after or retired or remaining <= 0:
                return version
            self.wait(seen, remaining)

    def _insist(self, word_offset: int, mask: int, attempt: Callable[[int], Got | None]) -> Got | None:
        tries = 0
        patience_began = 0.0
        seen = 0
        while True:
            current = self.mapping.load(word_offset) & mask
            if current == 0:
                return None
            got = attempt(current)
            if got is not None:
                return got
            tries += 1
            self.retries += 1
            if tries <= _PATIENT_TRIES:
                continue
            if tries == _PATIENT_TRIES + 1:
                patience_began, seen = time.monotonic(), current
            os.sched_yield()
            if tries >= _LAST_TRIES and time.monotonic() - patience_began >= PATIENCE_SECONDS:
                if self.mapping.load(word_offset) & mask == seen:
                    raise SegmentCorrupt(f"{self.path}: version {seen} is named as latest, but its slot is not whole")
                raise SegmentBusy(f"{self.path}: no consistent read in {tries} tries; it is published without a pause")

    def _try_version(self, version: int) -> Content | None:
        """The version's content, or None if its slot changed meanwhile."""
        sections = self._try_sections(version, ("payload", "index", "metadata"))
        return None if sections is None else Content(self.epoch, version, *sections)

    def _try_note(self, version: int) -> Note | None:
        """The version's metadata alone, or None if its slot changed meanwhile."""
        sections = self._try_sections(version, ("metadata",))
        return None if sections is None else Note(self.epoch, version, *sections)

    def _try_sections(self, version: int, names: tuple[str, ...]) -> tuple[Any, ...] | None:
        """published_at, then verified copies of these sections; None if the slot changed meanwhile."""
        mapping = self.mapping
        slot = layout.slot_offset(version)
        stable = 2 * version
        if mapping.load(slot) != stable:
            return None
        room = Room.of(mapping.load(slot + layout.ROOM))
        descriptor_bytes = mapping.read(slot + layout.DESCRIPTOR_OFFSET, layout.DESCRIPTOR_SIZE)
        descriptor = Descriptor.decode(descriptor_bytes, self.epoch, version, room)
        if descriptor is None:
            self._blame(slot, stable, f"the descriptor of version {version}")
            return None
        sections = [descriptor.section(name) for name in names]
        try:
            copies = [mapping.read(room.offset + start, length) for start, length, _ in sections]
        except (IndexError, ValueError):  # beyond the file or the mapping
            self._blame(slot, stable, f"the room of version {version}")
            return None
        if not self._unchanged(slot, stable):
            return None
        for copy, (_, _, checksum) in zip(copies, sections, strict=True):
            if zlib.crc32(copy) != checksum:
                raise SegmentCorrupt(f"{self.path}: the checksum of version {version} does not fit its bytes")
        return descriptor.published_at, *copies

    def _try_status(self, number: int) -> bytes | None:
        mapping = self.mapping
        copy = layout.status_offset(number)
        stable = 2 * number % (1 << 64)
        if mapping.load(copy) != stable:
            return None
        length, checksum = layout.STATUS_HEAD.unpack(mapping.read(copy + layout.STATUS_HEAD_OFFSET, 8))
        if length > layout.STATUS_BODY_SIZE:
            self._blame(copy, stable, "the status block's length")
            return None
        body = mapping.read(copy + layout.STATUS_BODY_OFFSET, length)
        if not self._unchanged(copy, stable):
            return None
        if zlib.crc32(body) != checksum:
            raise SegmentCorrupt(f"{self.path}: the status block's checksum does not fit")
        return body

    def _unchanged(self, counter_offset: int, stable: int) -> bool:
        # Pairs with the writer's fence after its odd counter: if any byte copied above came from a later writing of
        # this slot, this load sees that counter or a later one.
        self.mapping.fence()
        return self.mapping.load(counter_offset) == stable

    def _blame(self, counter_offset: int, stable: int, what: str) -> None:
        """Raise SegmentCorrupt, unless the slot was being written anew: what was seen then says nothing."""
        if self._unchanged(counter_offset, stable):
            raise SegmentCorrupt(f"{self.path}: {what} is damaged")


def read_header(fd: int) -> Header:
    """The checked header of an open segment file. Raises SegmentCorrupt or SegmentIncompatible."""
    data = os.pread(fd, layout.LATEST, 0)
    header = Header.decode(data)
    size = os.fstat(fd).st_size
    if size < layout.ROOMS_BASE:
        raise SegmentCorrupt(f"it is cut short: {size} bytes, where its header area alone has {layout.ROOMS_BASE}")
    return header
