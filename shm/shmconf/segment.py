"""The writer's side of one segment file: filling slots, publishing, giving room up, retiring.

The contract with readers: a slot whose counter is 2·version holds exactly that version, and `latest` only ever names
such a slot. Every method may be killed before any of its stores; what is then in the file is the version published
before or the one published now, and `take_over` goes on from it with no room lost. One thread of one process, which
holds the segment's lock, calls these methods; `beat` alone may be called from another.
"""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

from . import layout, rooms
from .attachment import Attachment
from .directories import Directory
from .errors import Error, SegmentFull
from .layout import Descriptor, Header, Room
from .mapping import Mapping
from .storage import Storage


class WritableSegment:
    """One segment file, mapped for writing."""

    def __init__(self, storage: Storage, fd: int, mapping: Mapping, header: Header) -> None:
        """Use `build` or `take_over`. Owns `fd`."""
        self.header = header
        self._storage = storage
        self._fd = fd
        self._mapping = mapping

    @classmethod
    def build(cls, storage: Storage, path: Path, header: Header, mode: int, gid: int | None) -> WritableSegment:
        """A new segment at version 0 in a file that nobody knows yet.

        Raises OSError, or SegmentFull where the file system has no room for it, with nothing left behind.
        """
        fd = storage.create(path)
        try:
            try:
                storage.allocate(fd, 0, layout.ROOMS_BASE)
            except OSError as error:
                raise SegmentFull(f"no room for a segment at {path}: {error.strerror}") from None
            mapping = storage.map(fd, header.max_bytes)
            mapping.write(0, header.encode())
            storage.set_access(fd, mode, gid)
        except (SegmentFull, OSError):
            os.close(fd)
            os.unlink(path)
            raise
        return cls(storage, fd, mapping, header)

    @classmethod
    def take_over(cls, storage: Storage, fd: int, header: Header) -> WritableSegment:
        """An existing segment, left by a writer that is gone. Slots that it did not finish become empty."""
        segment = cls(storage, fd, storage.map(fd, header.max_bytes), header)
        whole = {version for version, _ in segment._whole_slots()}
        for index in range(layout.SLOTS):
            slot = layout.SLOT_BASE + index * layout.SLOT_SIZE
            counter = segment._mapping.load(slot)
            if counter // 2 not in whole or counter % 2:
                segment._give_up(slot)
        segment.announce()  # a predecessor may have died between publishing and waking
        return segment

    @property
    def latest(self) -> int:
        """The published version; 0 before the first."""
        return self._mapping.load(layout.LATEST) & layout.VERSION_MASK

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def is_link_of(self, path: Path) -> bool:
        """Whether `path` leads to this very file."""
        try:
            return os.path.samestat(os.lstat(path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def attachment(self, directory: Directory, file_name: str) -> Attachment:
        """The reader's view of this very mapping, for verified copies of what is published."""
        found = os.fstat(self._fd)
        return Attachment(directory, file_name, self._mapping, self.header, (found.st_dev, found.st_ino))

    def set_access(self, mode: int, gid: int | None) -> None:
        """Mode and group of the file. Raises OSError."""
        self._storage.set_access(self._fd, mode, gid)

    def publish(
        self, version: int, payload: bytes, index: bytes, metadata: bytes, published_at: int, max_bytes: int
    ) -> None:
        """Make `version` the latest, whole or not at all. index: index.build_index's of this very payload, or b"".

        published_at in ns since 1970.

        Raises SegmentFull, with the published version untouched, where there is no room within `max_bytes` or on the
        file system.
        """
        if version > layout.VERSION_MASK:
            raise Error("the version numbers of this epoch are used up; remove the segment file to begin a new one")
        descriptor = Descriptor(
            payload_length=len(payload),
            index_length=len(index),
            metadata_length=len(metadata),
            published_at=published_at,
            payload_checksum=zlib.crc32(payload),
            index_checksum=zlib.crc32(index),
            metadata_checksum=zlib.crc32(metadata),
        )
        mapping = self._mapping
        slot = layout.slot_offset(version)
        room = self._make_room(version, descriptor.size, min(max_bytes, self.header.max_bytes))
        mapping.store(slot + layout.COUNTER, 2 * version - 1)
        # Pairs with the reader's fence before its second look at the counter: whoever copied one of the bytes below
        # sees this odd counter, or a later one.
        mapping.fence()
        mapping.store(slot + layout.ROOM, room.word)
        mapping.write(slot + layout.DESCRIPTOR_OFFSET, descriptor.encode(self.header.epoch, version, room))
        mapping.write(room.offset, payload)
        mapping.write(room.offset + descriptor.index_start, index)
        mapping.write(room.offset + descriptor.metadata_start, metadata)
        mapping.store(slot + layout.COUNTER, 2 * version)  # release: pairs with the reader's first load of the counter
        mapping.store(layout.LATEST, version)  # release: pairs with the reader's acquire load of `latest`
        self.announce()

    def announce(self) -> None:
        """Bump the wake word, then wake whoever sleeps on it: a reader loads the word before it looks at `latest`."""
        bumped = (self._mapping.load32(layout.WAKE) + 1) & 0xFFFFFFFF
        self._mapping.store32(layout.WAKE, bumped)
        self._mapping.wake(layout.WAKE)

    def write_status(self, body: bytes) -> None:
        """Replace the status block's body (at most 4,080 bytes), by the same latch as versions, of two copies."""
        mapping = self._mapping
        number = (mapping.load(layout.STATUS_LATEST) & layout.VERSION_MASK >> 1) + 1  # whatever damage left there
        copy = layout.status_offset(number)
        head = layout.STATUS_HEAD.pack(len(body), zlib.crc32(body))
        # Release, since there are two copies only: until `number - 1` is seen, this copy is the one that is named.
        mapping.store(copy, 2 * number - 1)
        mapping.fence()  # pairs with the reader's fence before its second look at this counter
        mapping.write(copy + layout.STATUS_HEAD_OFFSET, head + body)
        mapping.store(copy, 2 * number)
        mapping.store(layout.STATUS_LATEST, number)

    def beat(self) -> None:
        """Say that the agent lives, for the next 3 s. From any thread."""
        self._mapping.store(layout.HEARTBEAT, time.clock_gettime_ns(time.CLOCK_MONOTONIC))

    def stop_beating(self) -> None:
        """Say that the agent is gone on purpose."""
        self._mapping.store(layout.HEARTBEAT, 0)

    def retire(self) -> None:
        """Tell the readers to look for a successor by name; they go on serving what is here until they find it."""
        self._mapping.store(layout.LATEST, self.latest | layout.RETIRED)
        self.announce()

    def close(self) -> None:
        """Unmap and close; the file stays for its readers."""
        self._mapping.close()
        os.close(self._fd)

    def _whole_slots(self) -> list[tuple[int, Room]]:
        """Versions that are whole and not beyond `latest`, oldest first, with their rooms."""
        latest = self.latest
        found = []
        for index in range(layout.SLOTS):
            slot = layout.SLOT_BASE + index * layout.SLOT_SIZE
            version, odd = divmod(self._mapping.load(slot), 2)
            if not odd and 0 < version <= latest and version % layout.SLOTS == index:
                found.append((version, Room.of(self._mapping.load(slot + layout.ROOM))))
        return sorted(found)

    def _make_room(self, version: int, size: int, max_bytes: int) -> Room:
        """Room for `size` bytes, allocated; older versions are given up rather than grow past the limit."""
        latest = self.latest
        others = [(kept, room) for kept, room in self._whole_slots() if kept % layout.SLOTS != version % layout.SLOTS]
        pages = rooms.pages_for(size)
        while True:
            largest = max([size, *(self._content_size(kept) for kept, _ in others)])
            limit = rooms.limit_for(largest, self.size, max_bytes)
            room = rooms.first_fit(pages, (room for _, room in others), limit)
            older = next((kept for kept, _ in others if kept != latest), None)
            if size <= rooms.TWO_ROOMS_ABOVE or older is None:
                refusal = self._allocate(room, max_bytes)
                if room is not None and refusal is None:
                    return room
                if older is None:
                    raise SegmentFull(f"no room for {size:,} bytes: {refusal}; the published version is untouched")
            others = [(kept, room) for kept, room in others if kept != older]
            assert older is not None
            self._give_up(layout.slot_offset(older))

    def _allocate(self, room: Room | None, max_bytes: int) -> str | None:
        """Why the room cannot be had, or None once the file reaches so far."""
        if room is None:
            return f"max_bytes is {max_bytes:,}, and a version needs about three times its size"
        size = self.size
        if room.end * layout.PAGE > size:
            try:
                self._storage.allocate(self._fd, size, room.end * layout.PAGE - size)
            except OSError as error:
                return f"the file system of the segment says: {error.strerror}"
        return None

    def _content_size(self, version: int) -> int:
        slot = layout.slot_offset(version)
        lengths = self._mapping.read(slot + layout.DESCRIPTOR_OFFSET, layout.DESCRIPTOR.size)
        payload, index, metadata = layout.DESCRIPTOR.unpack(lengths)[:3]
        return layout.aligned(payload) + layout.aligned(index) + layout.aligned(metadata)

    def _give_up(self, slot: int) -> None:
        """Empty a slot so that its room may be used again."""
        self._mapping.store(slot + layout.COUNTER, 0)
        # Pairs with the reader's fence before its second look at the counter: whoever sees the room's new bytes sees
        # the zero, or what came after it.
        self._mapping.fence()
        self._mapping.store(slot + layout.ROOM, 0)
