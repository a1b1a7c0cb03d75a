"""A second reader of segments at rest, written from FORMAT.md alone: it imports nothing of shmconf.

It reads a file's bytes, checks what the page says must be so, and looks paths up through the index. Where it and the
library differ, one of them or the page is wrong.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import msgpack

MISS = object()


class Damaged(Exception):
    """The bytes are not what the page allows."""


def demand(condition: object, what: str) -> None:
    if not condition:
        raise Damaged(what)


# --- sections 1, 2 and 4 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """The sections of one version."""

    payload: bytes
    index: bytes
    metadata: dict[str, Any]
    published_at: int

    def find(self, path: tuple[Any, ...], *, through_index: bool = True) -> bytes | object:
        """The encoding of the value at `path`, or MISS."""
        return LookUp(self.payload, self.index if through_index else b"").find(path)


class SecondReader:
    """The file at `path`, as it was when this was made. Raises Damaged."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        demand(len(self.data) >= 12_288, "it is cut short")
        demand(self.data[:8] == bytes.fromhex("73 68 6d 63 6f 6e 66 00"), "magic")
        demand(self.number(8, 4) == 1, "format")
        demand(self.number(60, 4) == zlib.crc32(self.data[:60]), "the header's CRC")
        demand(self.number(12, 4) == 0, "flags")
        self.epoch, self.max_bytes, self.created_at, self.floor = (self.number(offset) for offset in (16, 24, 32, 40))
        demand(self.epoch != 0, "epoch")
        demand(self.max_bytes % 4096 == 0, "max_bytes")
        demand(16_384 <= self.max_bytes <= 2**44, "max_bytes")
        demand(len(self.data) <= self.max_bytes, "the file is larger than max_bytes")
        demand(self.floor < 2**63 - 1, "floor")
        demand(not any(self.data[48:60]), "zeros in the header")
        demand(not any(self.data[1024:4096]), "zeros behind the slots")
        word = self.number(64)
        self.version, self.retired = word & (2**63 - 1), bool(word >> 63)
        demand(self.version == 0 or self.version > self.floor, "a version that is not above the floor")

    def number(self, offset: int, size: int = 8) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def latest(self) -> Version | None:
        """The published version; None where there is none."""
        return self.slot(self.version) if self.version else None

    def slot(self, version: int) -> Version:
        """A version that is whole."""
        slot = 512 + 128 * (version % 4)
        demand(self.number(slot) == 2 * version, "the slot's counter")
        room = self.number(slot + 8)
        identity = struct.pack("<QQQ", self.epoch, version, room)
        demand(self.number(slot + 60, 4) == zlib.crc32(identity + self.data[slot + 16 : slot + 60]), "descriptor")
        demand(not any(self.data[slot + 64 : slot + 128]), "zeros in the slot")
        page, pages = room & 0xFFFFFFFF, room >> 32
        demand(page >= 3, "a room in the header")
        demand((page + pages) * 4096 <= len(self.data), "a room beyond the file")
        sections = []
        start = page * 4096
        for length_at, crc_at in ((16, 48), (24, 52), (32, 56)):
            length = self.number(slot + length_at)
            padded = (length + 7) // 8 * 8
            demand(start + padded <= (page + pages) * 4096, "a section beyond its room")
            section = self.data[start : start + length]
            demand(zlib.crc32(section) == self.number(slot + crc_at, 4), "a section's CRC")
            demand(not any(self.data[start + length : start + padded]), "a section's padding")
            sections.append(section)
            start += padded
        payload, index, noted = sections
        metadata = msgpack.unpackb(noted)
        demand(isinstance(metadata, dict), "metadata is no map")
        return Version(payload, index, metadata, self.number(slot + 40))

    def status(self) -> dict[str, Any] | None:
        """The status block's body; None where there is none yet."""
        number = self.number(256)
        if number == 0:
            return None
        copy = 4096 + 4096 * (number % 2)
        demand(self.number(copy) == 2 * number, "the status copy's counter")
        length = self.number(copy + 8, 4)
        demand(length <= 4080, "the status body's length")
        body = self.data[copy + 16 : copy + 16 + length]
        demand(zlib.crc32(body) == self.number(copy + 12, 4), "the status body's CRC")
        told = msgpack.unpackb(body)
        demand(isinstance(told, dict), "the status body is no map")
        return dict(told)


# --- section 3: values ------------------------------------------------------------------------------------------------

EXTENSIONS = {1: date.fromisoformat, 2: time.fromisoformat, 3: datetime.fromisoformat, 4: datetime.fromisoformat}


def decode(data: bytes) -> Any:
    """A value, as Python has it. Raises Damaged."""

    def extension(code: int, text: bytes) -> Any:
        return EXTENSIONS[code](text.decode("ascii")) if code in EXTENSIONS else msgpack.ExtType(code, text)

    try:
        return msgpack.unpackb(data, ext_hook=extension, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Damaged(f"a value that is no msgpack: {error}") from None


def hash_of(key: Any) -> int:
    """The hash of a key as the page defines it."""
    if isinstance(key, str):
        return zlib.crc32(key.encode())
    if isinstance(key, bytes):
        return zlib.crc32(key)
    if isinstance(key, datetime):
        return 0 if key.tzinfo else zlib.crc32(key.isoformat().encode())
    if isinstance(key, (date, time)):
        return zlib.crc32(key.isoformat().encode())
    if isinstance(key, float) and key != key:
        return 0
    if isinstance(key, int) and not -(2**63) <= key <= 2**64 - 1:
        return hash_of(float(key)) if abs(key) < 2**1000 else 0  # only a float may be equal to it
    if isinstance(key, float) and not (key.is_integer() and -(2**63) <= key <= 2**64 - 1):
        return zlib.crc32(struct.pack("<d", key))
    if isinstance(key, (int, float)):
        return zlib.crc32((int(key) % 2**64).to_bytes(8, "little"))
    return 0


# --- section 3: the index, and section 5: looking up ------------------------------------------------------------------


class LookUp:
    """Looks paths up in a payload, through its index where there is one of the kind that this reader knows.

    `looked_at` counts the items and entries that it had to look at.
    """

    def __init__(self, payload: bytes, index: bytes) -> None:
        self.payload, self.index = payload, index
        self.looked_at = 0
        self.directory: int | None = None
        if index and self.index_number(0, 4) == 1:
            self.directory = self.index_number(4, 4)

    def find(self, path: tuple[Any, ...]) -> bytes | object:
        """The encoding of the value at `path`, or MISS. Raises Damaged."""
        at = 0
        for part in path:
            kind, count, head = self.item(at)
            table = self.table_of(at) if kind else None
            if kind == "map":
                found = self.in_map(part, at + head, count) if table is None else self.in_map_table(table, part)
            elif kind == "list" and isinstance(part, int) and not isinstance(part, bool) and 0 <= part < count:
                found = self.pass_over(at + head, part) if table is None else self.in_list_table(table, part)
            else:
                return MISS
            if found is None:
                return MISS
            at = found
        return self.payload[at : self.pass_over(at, 1)]

    def in_map(self, part: Any, at: int, count: int) -> int | None:
        """Where the value of the key `part` begins, in a map without a table whose first key is at `at`."""
        for _ in range(count):
            value = self.pass_over(at, 1)
            if decode(self.payload[at:value]) == part:
                return value
            at = self.pass_over(value, 1)
        return None

    def in_map_table(self, table: int, part: Any) -> int | None:
        for value in self.entries(table, hash_of(part)):
            end = self.pass_over(value, 1)
            if decode(self.payload[value:end]) == part:
                return end
        return None

    def in_list_table(self, table: int, number: int) -> int:
        count, stride = self.index_number(8 * table, 4), self.index_number(8 * table + 4, 4)
        demand(number < count, "a list's table knows fewer elements")
        demand(stride in (1, 2, 4, 8, 16, 32), "stride")
        start = self.index_number(8 * table + 16 + 4 * (number // stride), 4)
        return self.pass_over(start, number % stride)

    def table_of(self, offset: int) -> int | None:
        """The position of the table of the map or list at `offset`."""
        if self.directory is None:
            return None
        return next(self.entries(self.directory, offset), None)

    def entries(self, table: int, tag: int) -> Any:
        """The values of the entries with that tag in the hash table at a position."""
        count, bits = self.index_number(8 * table, 4), self.index_number(8 * table + 4, 4)
        demand(bits <= 32, "buckets")
        bucket = (tag * 0x9E3779B1 % 2**32) >> (32 - bits) if bits else 0
        starts = 8 * table + 16
        entries = starts + (4 * (2**bits + 1) + 7) // 8 * 8
        first, beyond = self.index_number(starts + 4 * bucket, 4), self.index_number(starts + 4 * bucket + 4, 4)
        demand(first <= beyond <= count, "a bucket's bounds")
        for number in range(first, beyond):
            self.looked_at += 1
            if self.index_number(entries + 8 * number + 4, 4) == tag:
                yield self.index_number(entries + 8 * number, 4)

    def index_number(self, offset: int, size: int) -> int:
        demand(offset + size <= len(self.index), "an offset beyond the index")
        return int.from_bytes(self.index[offset : offset + size], "little")

    def item(self, at: int) -> tuple[str, int, int]:
        """What begins at `at`: ("map" or "list", its count, bytes of its head), or ("", 0, bytes of the scalar)."""
        self.looked_at += 1
        demand(at < len(self.payload), "an offset beyond the payload")
        lead = self.payload[at]

        def number(width: int) -> int:
            demand(at + 1 + width <= len(self.payload), "a length beyond the payload")
            return int.from_bytes(self.payload[at + 1 : at + 1 + width], "big")

        match lead:
            case _ if lead < 0x80 or lead >= 0xE0:
                return "", 0, 1
            case _ if lead < 0x90:
                return "map", lead - 0x80, 1
            case _ if lead < 0xA0:
                return "list", lead - 0x90, 1
            case _ if lead < 0xC0:
                return "", 0, 1 + lead - 0xA0
            case 0xC0 | 0xC2 | 0xC3:
                return "", 0, 1
            case 0xC4 | 0xD9:
                return "", 0, 2 + number(1)
            case 0xC5 | 0xDA:
                return "", 0, 3 + number(2)
            case 0xC6 | 0xDB:
                return "", 0, 5 + number(4)
            case 0xC7 | 0xC8 | 0xC9:
                width = 1 << lead - 0xC7
                return "", 0, 1 + width + 1 + number(width)
            case 0xCA | 0xCB:
                return "", 0, 1 + (4 << lead - 0xCA)
            case 0xCC | 0xCD | 0xCE | 0xCF:
                return "", 0, 1 + (1 << lead - 0xCC)
            case 0xD0 | 0xD1 | 0xD2 | 0xD3:
                return "", 0, 1 + (1 << lead - 0xD0)
            case 0xD4 | 0xD5 | 0xD6 | 0xD7 | 0xD8:
                return "", 0, 2 + (1 << lead - 0xD4)
            case 0xDC | 0xDD:
                width = 2 << lead - 0xDC
                return "list", number(width), 1 + width
            case 0xDE | 0xDF:
                width = 2 << lead - 0xDE
                return "map", number(width), 1 + width
            case _:
                raise Damaged("a byte that begins nothing")

    def pass_over(self, at: int, many: int) -> int:
        """The offset behind `many` items that follow one another."""
        while many:
            kind, count, size = self.item(at)
            many += (count * 2 if kind == "map" else count) - 1
            at += size
        demand(at <= len(self.payload), "an item beyond the payload")
        return at
