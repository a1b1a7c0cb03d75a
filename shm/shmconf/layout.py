"""Format 1, byte for byte: the one place where Python knows the layout (FORMAT.md is its specification).

Everything is little-endian. Offsets are bytes from the start of the file; a test holds these constants and FORMAT.md
together. Words that more than one process touches are aligned and lie on cache lines of their own where they are
written at different times.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from .errors import SegmentCorrupt, SegmentIncompatible

MAGIC: Final = b"shmconf\0"
FORMAT: Final = 1
PAGE: Final = 4096
SLOTS: Final = 4

# The fixed part of the header, written once before the file becomes visible.
FIXED: Final = struct.Struct("<8sIIQQQQ12s")  # magic, format, flags, epoch, max_bytes, created_at (ns), floor, zeros
FIXED_CHECKSUM: Final = 60  # crc32 of the 60 bytes before it

LATEST: Final = 64
RETIRED: Final = 1 << 63
VERSION_MASK: Final = RETIRED - 1
WAKE: Final = 128
HEARTBEAT: Final = 192
STATUS_LATEST: Final = 256

SLOT_BASE: Final = 512
SLOT_SIZE: Final = 128
COUNTER: Final = 0
ROOM: Final = 8
# After the room word: payload, index and metadata lengths, published_at (ns), then the crc32 of each section and of
# the descriptor itself.
DESCRIPTOR: Final = struct.Struct("<QQQQIII")
DESCRIPTOR_CHECKSUM: Final = struct.Struct("<I")
DESCRIPTOR_OFFSET: Final = 16
DESCRIPTOR_SIZE: Final = DESCRIPTOR.size + DESCRIPTOR_CHECKSUM.size
_IDENTITY: Final = struct.Struct("<QQQ")  # epoch, version, room

STATUS_BASE: Final = PAGE
STATUS_COPIES: Final = 2
STATUS_SIZE: Final = PAGE
STATUS_HEAD: Final = struct.Struct("<II")  # length, crc32 of the body
STATUS_HEAD_OFFSET: Final = 8
STATUS_BODY_OFFSET: Final = 16
STATUS_BODY_SIZE: Final = STATUS_SIZE - STATUS_BODY_OFFSET

ROOMS_BASE: Final = STATUS_BASE + STATUS_COPIES * STATUS_SIZE
FIRST_ROOM_PAGE: Final = ROOMS_BASE // PAGE
MIN_MAX_BYTES: Final = ROOMS_BASE + PAGE
MAX_MAX_BYTES: Final = 1 << 44  # a room word's 32-bit page numbers reach no further

assert FIXED.size == FIXED_CHECKSUM
assert FIXED_CHECKSUM + 4 == LATEST
assert SLOT_BASE + SLOTS * SLOT_SIZE <= PAGE
assert DESCRIPTOR_OFFSET + DESCRIPTOR_SIZE <= SLOT_SIZE


def slot_offset(version: int) -> int:
    """Where the slot of `version` begins."""
    return SLOT_BASE + (version % SLOTS) * SLOT_SIZE


def status_offset(number: int) -> int:
    """Where the copy of status number `number` begins."""
    return STATUS_BASE + (number % STATUS_COPIES) * STATUS_SIZE


def aligned(length: int) -> int:
    """`length` rounded up to whole 8-byte words."""
    return (length + 7) & ~7


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed part of the header.

    epoch is random and nonzero; created_at is in ns since 1970; every version of this epoch is greater than floor.
    """

    epoch: int
    max_bytes: int
    created_at: int
    floor: int = 0

    def encode(self) -> bytes:
        """The first 64 bytes of the file."""
        fixed = FIXED.pack(MAGIC, FORMAT, 0, self.epoch, self.max_bytes, self.created_at, self.floor, bytes(12))
        return fixed + DESCRIPTOR_CHECKSUM.pack(zlib.crc32(fixed))

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header in the first 64 bytes of a file. Raises SegmentCorrupt or SegmentIncompatible."""
        if len(data) < LATEST or data[:8] != MAGIC:
            raise SegmentCorrupt("it does not begin like a shmconf segment")
        _, format_number, _, epoch, max_bytes, created_at, floor, _ = FIXED.unpack_from(data)
        if format_number != FORMAT:
            raise SegmentIncompatible(f"it has format {format_number}; this library reads format {FORMAT}")
        (checksum,) = DESCRIPTOR_CHECKSUM.unpack_from(data, FIXED_CHECKSUM)
        if checksum != zlib.crc32(data[:FIXED_CHECKSUM]):
            raise SegmentCorrupt("the header's checksum does not fit")
        in_range = MIN_MAX_BYTES <= max_bytes <= MAX_MAX_BYTES and max_bytes % PAGE == 0
        if epoch == 0 or not in_range or floor >= VERSION_MASK:
            raise SegmentCorrupt("the header's numbers are out of range")
        return cls(epoch, max_bytes, created_at, floor)


@dataclass(frozen=True, slots=True)
class Room:
    """A run of pages that one slot owns; `word` is how it stands in the slot."""

    page: int
    pages: int

    @property
    def word(self) -> int:
        """First page in the low half, number of pages in the high half."""
        return self.page | self.pages << 32

    @classmethod
    def of(cls, word: int) -> Room:
        """The room in a slot's room word."""
        return cls(word & 0xFFFFFFFF, word >> 32)

    @property
    def offset(self) -> int:
        """Bytes from the start of the file."""
        return self.page * PAGE

    @property
    def capacity(self) -> int:
        """Bytes."""
        return self.pages * PAGE

    @property
    def end(self) -> int:
        """The first page behind it."""
        return self.page + self.pages


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a slot says of its content: three sections (payload, index, metadata), each padded to whole words.

    Lengths in bytes, published_at in ns since 1970. The descriptor's own checksum covers epoch, version and room too,
    so a slot that is whole but belongs elsewhere is not taken for good.
    """

    payload_length: int
    index_length: int
    metadata_length: int
    published_at: int
    payload_checksum: int
    index_checksum: int
    metadata_checksum: int

    @property
    def index_start(self) -> int:
        """Bytes from the start of the room."""
        return aligned(self.payload_length)

    @property
    def metadata_start(self) -> int:
        """Bytes from the start of the room."""
        return self.index_start + aligned(self.index_length)

    def section(self, name: str) -> tuple[int, int, int]:
        """Of "payload", "index" or "metadata": bytes from the start of the room, length in bytes, and checksum."""
        return {
            "payload": (0, self.payload_length, self.payload_checksum),
            "index": (self.index_start, self.index_length, self.index_checksum),
            "metadata": (self.metadata_start, self.metadata_length, self.metadata_checksum),
        }[name]

    @property
    def size(self) -> int:
        """Bytes of all sections with their padding."""
        return self.metadata_start + aligned(self.metadata_length)

    def encode(self, epoch: int, version: int, room: Room) -> bytes:
        """The bytes at DESCRIPTOR_OFFSET of the slot."""
        body = DESCRIPTOR.pack(
            self.payload_length,
            self.index_length,
            self.metadata_length,
            self.published_at,
            self.payload_checksum,
            self.index_checksum,
            self.metadata_checksum,
        )
        return body + DESCRIPTOR_CHECKSUM.pack(_descriptor_checksum(body, epoch, version, room))

    @classmethod
    def decode(cls, data: bytes, epoch: int, version: int, room: Room) -> Descriptor | None:
        """The descriptor in `data`, or None where it does not fit its checksum or its room."""
        body = data[: DESCRIPTOR.size]
        (checksum,) = DESCRIPTOR_CHECKSUM.unpack_from(data, DESCRIPTOR.size)
        if checksum != _descriptor_checksum(body, epoch, version, room):
            return None
        descriptor = cls(*DESCRIPTOR.unpack(body))
        if room.page < FIRST_ROOM_PAGE or descriptor.size > room.capacity:
            return None
        return descriptor


def _descriptor_checksum(body: bytes, epoch: int, version: int, room: Room) -> int:
    return zlib.crc32(body, zlib.crc32(_IDENTITY.pack(epoch, version, room.word)))
