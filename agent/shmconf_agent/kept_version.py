"""The bytes of what is kept in the state directory: a version in one file, each of its sources in another.

A file of a version, all integers little endian:

    "shmconf kept version 1\\n"
    u32   length of the header as stored
    u32   CRC-32 of those four bytes and the header as stored
    header: a msgpack map, compressed by zlib; see `encode`
    payload: the published msgpack document, as the header says: compressed by zlib, or as it is

A file of a source, named by the digest of its content:

    "shmconf kept source 1\\n"
    u8    1 if compressed by zlib, 0 if not
    u64   bytes of the content
    u32   CRC-32 of those nine bytes and the content as stored
    content

Every byte is under a checksum, and a file that is shorter or longer than it says is damaged, so that a torn one is
never taken for a whole one. An unknown key of the header is passed over; another number in the first line is another
format. Functions only, without state; any thread.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from shmconf import codec

from .problems import Path
from .settle import digest_of
from .view import SourceLayer

_VERSION_MAGIC = b"shmconf kept version 1\n"
_SOURCE_MAGIC = b"shmconf kept source 1\n"
_HEADER_PREFIX = struct.Struct("<II")
_SOURCE_PREFIX = struct.Struct("<BQI")
_MOST_HEADER_BYTES = 64 << 20  # of ten thousand files it has less than two million
_LEVEL = 1  # twice as fast as zlib's default, and nearly as small
_WORTH_IT = 0.9  # what compression leaves of it, at most, for it to be worth undoing


class Damaged(ValueError):
    """Bytes that are not what was written; the text says why, to go behind the name of the file."""


@dataclass(frozen=True, slots=True)
class SourceRef:
    """One layer's file as it was when the version was published: all of `SourceLayer` but the content."""

    file: str
    at: Path
    digest: bytes
    path: str
    blank: bool = False
    entry: Path = ()

    @classmethod
    def of(cls, text: SourceLayer) -> SourceRef:
        """Of a layer that is in view."""
        return cls(text.file, text.at, text.digest, text.path, text.blank, text.entry)

    def layer(self, data: bytes) -> SourceLayer:
        """The layer again, with its content."""
        return SourceLayer(self.file, self.at, data, self.digest, self.path, self.blank, self.entry)


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """A published version but for its document.

    published_at: in ns since 1970. digest: of the document, SHA-256 in hexadecimal. metadata: what was published beside
    it, without the digest. changed: the files that made it differ from the version before. keys: in all maps of the
    document, however deep; None if nobody counted. sources: its layers, lowest first; None if they are not known.
    republished: the version kept before it has the same document.
    """

    epoch: int
    version: int
    published_at: int
    digest: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    keys: int | None = None
    sources: tuple[SourceRef, ...] | None = None
    republished: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The files it was made from, in order."""
        return tuple(self.metadata.get("files", ()))

    @property
    def blank_files(self) -> tuple[str, ...]:
        """Those of them that had no content."""
        return tuple(self.metadata.get("blank_files", ()))

    @property
    def stale(self) -> bool:
        """Whether it was published as last known good, the files being invalid."""
        return bool(self.metadata.get("stale", False))


@dataclass(frozen=True, slots=True)
class Header:
    """The first part of a version's file. start: where the payload begins; stored, size: its bytes there and whole."""

    kept: KeptVersion
    start: int
    stored: int
    size: int
    checksum: int
    compressed: bool


def encode(kept: KeptVersion, payload: bytes) -> tuple[bytes, bytes]:
    """A version's file, in two parts to be written one after the other."""
    compressed, stored = _squeeze(payload)
    header = {
        "epoch": kept.epoch,
        "version": kept.version,
        "published_at": kept.published_at,
        "digest": kept.digest,
        "metadata": dict(kept.metadata),
        "changed": list(kept.changed),
        "keys": kept.keys,
        "sources": None if kept.sources is None else [_source_fields(source) for source in kept.sources],
        "republished": kept.republished,
        "payload_compressed": compressed,
        "payload_bytes": len(payload),
        "payload_stored": len(stored),
        "payload_checksum": zlib.crc32(stored),
    }
    packed = zlib.compress(codec.pack(header), _LEVEL)
    length = len(packed).to_bytes(4, "little")
    return _VERSION_MAGIC + length + zlib.crc32(length + packed).to_bytes(4, "little") + packed, stored


def read_header(file: BinaryIO, size: int) -> Header:
    """The header at the beginning of a file of `size` bytes, without reading the payload. Raises Damaged, OSError."""
    prefix = file.read(len(_VERSION_MAGIC) + _HEADER_PREFIX.size)
    if not prefix.startswith(_VERSION_MAGIC) or len(prefix) < len(_VERSION_MAGIC) + _HEADER_PREFIX.size:
        raise Damaged("it does not begin as a kept version does")
    length, checksum = _HEADER_PREFIX.unpack_from(prefix, len(_VERSION_MAGIC))
    start = len(prefix) + length
    packed = file.read(length) if start <= size else b""
    if len(packed) != length or zlib.crc32(packed, zlib.crc32(prefix[len(_VERSION_MAGIC) :][:4])) != checksum:
        raise Damaged("the checksum of its header does not fit")
    try:
        header = _header(codec.unpack(_inflate(packed, _MOST_HEADER_BYTES, exact=False)), start)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"its header is not what it should be ({error})") from None
    if start + header.stored != size:
        raise Damaged(f"it has {size} bytes and should have {start + header.stored}")
    return header


def read_payload(file: BinaryIO, header: Header) -> bytes:
    """The document, read behind the header from where `read_header` left the file. Raises Damaged, OSError."""
    stored = file.read(header.stored)
    if len(stored) != header.stored or zlib.crc32(stored) != header.checksum:
        raise Damaged("the checksum of its document does not fit")
    payload = _inflate(stored, header.size) if header.compressed else stored
    if hashlib.sha256(payload).hexdigest() != header.kept.digest:
        raise Damaged("its document is not the one that it names")
    return payload


def encode_source(data: bytes) -> tuple[bytes, bytes]:
    """A source's file, in two parts to be written one after the other."""
    compressed, stored = _squeeze(data)
    fields = struct.pack("<BQ", compressed, len(data))
    return _SOURCE_MAGIC + fields + zlib.crc32(stored, zlib.crc32(fields)).to_bytes(4, "little"), stored


def decode_source(data: bytes, digest: bytes) -> bytes:
    """The content that has this digest, of a source's file. Raises Damaged."""
    start = len(_SOURCE_MAGIC) + _SOURCE_PREFIX.size
    if not data.startswith(_SOURCE_MAGIC) or len(data) < start:
        raise Damaged("it does not begin as a kept source does")
    compressed, size, checksum = _SOURCE_PREFIX.unpack_from(data, len(_SOURCE_MAGIC))
    stored = data[start:]
    if zlib.crc32(stored, zlib.crc32(data[len(_SOURCE_MAGIC) : start - 4])) != checksum:
        raise Damaged("its checksum does not fit")
    content = _inflate(stored, size) if compressed else stored
    if digest_of(content) != digest:
        raise Damaged("its content is not the one that it is named after")
    return content


def _squeeze(data: bytes) -> tuple[bool, bytes]:
    packed = zlib.compress(data, _LEVEL)
    return (True, packed) if len(packed) <= _WORTH_IT * len(data) else (False, data)


def _inflate(packed: bytes, size: int, *, exact: bool = True) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise Damaged(f"it cannot be decompressed ({error})") from None
    if not unpacker.eof or unpacker.unused_data or len(data) > size or (exact and len(data) != size):
        raise Damaged("it decompresses to another length than it should")
    return data


def _source_fields(source: SourceRef) -> list[Any]:
    # A path is bytes: it may be no UTF-8.
    path = os.fsencode(source.path)
    return [source.file, list(source.at), source.digest, path, source.blank, list(source.entry)]


def _header(told: Any, start: int) -> Header:
    sources = told["sources"]
    kept = KeptVersion(
        epoch=_number(told["epoch"]),
        version=_number(told["version"]),
        published_at=_number(told["published_at"]),
        digest=str(told["digest"]),
        metadata=dict(told["metadata"]),
        changed=tuple(told["changed"]),
        keys=None if told["keys"] is None else _number(told["keys"]),
        sources=None if sources is None else tuple(_source(each) for each in sources),
        republished=bool(told["republished"]),
    )
    return Header(
        kept,
        start,
        _number(told["payload_stored"]),
        _number(told["payload_bytes"]),
        _number(told["payload_checksum"]),
        bool(told["payload_compressed"]),
    )


def _source(fields: Any) -> SourceRef:
    file, at, digest, path, blank, entry = fields
    return SourceRef(str(file), tuple(at), bytes(digest), os.fsdecode(path), bool(blank), tuple(entry))


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no number")
    return value
