"""The index of a payload, as FORMAT.md (section 3) lays it down: with it a path is looked up without decoding.

Two builders give the same bytes for the same payload, and pass the same tests: the native module's, in C, and
`build_index_in_python` below, which is the reference and takes its place where mapping.py has no native module.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from .mapping import IMPLEMENTATION

__all__ = ["build_index", "build_index_in_python"]

_KIND: Final = 1
_LONGEST_WITHOUT: Final = 256  # bytes of a container, or of the payload, up to which there is no table, or no index
_SHORTEST_BEYOND: Final = 1 << 32  # a payload from here on has none: its offsets do not fit 32 bits
_HEAD: Final = struct.Struct("<II")  # kind, position of the directory
_TABLE_HEAD: Final = struct.Struct("<IIQ")  # count, bits or stride, bytes of what it is a table of
_LARGEST_STRIDE: Final = 32
_WORD: Final = 8


def build_index(payload: bytes) -> bytes:
    """The index section for `payload`; b"" where it has none, being of at most 256 bytes or of 2^32 and more.

    Time and memory grow with the payload's length, whatever is in it and however deep it nests. Other threads run
    meanwhile where the native module builds it and the payload is large. Raises ValueError for bytes that are not one
    msgpack document with scalars as map keys (a payload that has no index is not looked at), and MemoryError.
    """
    return _build_index(payload)


def build_index_in_python(payload: bytes) -> bytes:
    """What `build_index` gives, from the reference in pure Python. Raises likewise."""
    if not _LONGEST_WITHOUT < len(payload) < _SHORTEST_BEYOND:
        return b""
    try:
        return _walk(payload)
    except IndexError:  # a lead byte beyond the end
        raise _no_document() from None


def _no_document() -> ValueError:
    return ValueError("the payload is not one msgpack document with scalars as keys")


# --- msgpack ----------------------------------------------------------------------------------------------------------

# By lead byte: the whole size of a scalar of fixed size, 0 for what has a length or a count of its own.
_FIXED_SIZE: Final = [1] * 0x80 + [0] * 0x20 + list(range(1, 33)) + [0] * 0x20 + [1] * 0x20
for _lead, _size in {
    **{0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9},
    **{0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9},
    **{0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18},
}.items():
    _FIXED_SIZE[_lead] = _size
# Bytes of the length, and how many follow it beside what it counts.
_SCALAR_LENGTH: Final = {
    **{0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)},
    **{0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)},
}
# Bytes of the count, and whether it is a map.
_CONTAINER_COUNT: Final = {0xDC: (2, False), 0xDD: (4, False), 0xDE: (2, True), 0xDF: (4, True)}
_NUMBERS: Final = {
    **{0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"},
    **{0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"},
}
_FIXED_EXTENSIONS: Final = range(0xD4, 0xD9)
_HASHED_EXTENSIONS: Final = (1, 2, 3)


def _walk(payload: bytes) -> bytes:
    """One pass; what is open is on `stack`, and the offsets of its items on `offsets`, the innermost last."""
    index = bytearray(_HEAD.size)
    directory: list[tuple[int, int]] = []  # (offset in the payload, position of the table)
    stack: list[tuple[int, int, int, int, bool]] = []
    offsets: list[int] = []
    fixed_size = _FIXED_SIZE
    # Of the container that the walk is in: items to come (keys and values each), entries, where its items begin on
    # `offsets`, its own offset, whether it is a map. The document is the one element of a list without bytes.
    left, count, first, start, is_map = 1, 1, 0, 0, False
    at = 0
    while True:
        lead = payload[at]
        offsets.append(at)
        left -= 1
        if size := fixed_size[lead]:
            at += size
        elif lead in _SCALAR_LENGTH:
            width, more = _SCALAR_LENGTH[lead]
            at += 1 + width + more + int.from_bytes(payload[at + 1 : at + 1 + width], "big")
        else:
            if (is_map and left % 2) or lead == 0xC1:
                raise _no_document()  # a container as key, or the one byte that begins nothing
            inner_start = at
            if lead in _CONTAINER_COUNT:
                width, inner_is_map = _CONTAINER_COUNT[lead]
                inner_count = int.from_bytes(payload[at + 1 : at + 1 + width], "big")
                at += 1 + width
            else:
                inner_is_map, inner_count = lead < 0x90, lead & 0x0F
                at += 1
            if inner_count:
                stack.append((left, count, first, start, is_map))
                left, count, first = inner_count << inner_is_map, inner_count, len(offsets)
                start, is_map = inner_start, inner_is_map
        if left:
            continue
        if at > len(payload):
            raise _no_document()
        while not left:
            if not stack:
                if at != len(payload):
                    raise _no_document()
                _HEAD.pack_into(index, 0, _KIND, len(index) // _WORD)
                index += _hash_table(directory, len(payload))
                return bytes(index)
            if at - start > _LONGEST_WITHOUT:
                directory.append((start, len(index) // _WORD))
                items = offsets[first:]
                if is_map:
                    index += _hash_table([(_hash(payload, key), key) for key in items[::2]], at - start)
                else:
                    index += _list_table(items, at - start)
            del offsets[first:]
            left, count, first, start, is_map = stack.pop()


# --- tables -----------------------------------------------------------------------------------------------------------


def _hash_table(entries: list[tuple[int, int]], length: int) -> bytes:
    """The table of (tag, value) pairs, which come in the order of their values."""
    bits = max(0, -(-len(entries) // 4) - 1).bit_length()
    shift = 32 - bits
    buckets: list[list[int]] = [[] for _ in range(1 << bits)]
    for tag, value in entries:
        buckets[(tag * 0x9E3779B1 & 0xFFFFFFFF) >> shift].append(tag << 32 | value)
    starts = [0]
    for bucket in buckets:
        starts.append(starts[-1] + len(bucket))
    placed = [entry for bucket in buckets for entry in bucket]
    return _TABLE_HEAD.pack(len(entries), bits, length) + _halves(starts) + struct.pack(f"<{len(placed)}Q", *placed)


def _list_table(offsets: list[int], length: int) -> bytes:
    stride = 1
    while stride < _LARGEST_STRIDE and stride * length < 64 * len(offsets):
        stride *= 2
    return _TABLE_HEAD.pack(len(offsets), stride, length) + _halves(offsets[::stride])


def _halves(numbers: list[int]) -> bytes:
    """32-bit numbers, padded to whole words."""
    return struct.pack(f"<{len(numbers)}I", *numbers) + bytes(4 * (len(numbers) % 2))


# --- hashes -----------------------------------------------------------------------------------------------------------


def _hash(payload: bytes, at: int) -> int:
    """The hash of the scalar at `at`, which is whole."""
    lead = payload[at]
    if 0xA0 <= lead < 0xC0:
        return zlib.crc32(payload[at + 1 : at + 1 + (lead & 0x1F)])
    if lead < 0x80:
        return _hash_number(lead)
    if lead >= 0xE0:
        return _hash_number(lead - 0x100)
    if lead in _NUMBERS:
        return _hash_number(struct.unpack_from(_NUMBERS[lead], payload, at + 1)[0])
    if lead in (0xC2, 0xC3):
        return _hash_number(lead - 0xC2)
    if lead in _FIXED_EXTENSIONS:
        return _hash_extension(payload, at + 1, 1 << lead - 0xD4)
    if lead in _SCALAR_LENGTH:
        width, more = _SCALAR_LENGTH[lead]
        body = at + 1 + width
        length = int.from_bytes(payload[at + 1 : body], "big")
        return _hash_extension(payload, body, length) if more else zlib.crc32(payload[body : body + length])
    return 0  # nil


def _hash_extension(payload: bytes, type_at: int, length: int) -> int:
    if payload[type_at] not in _HASHED_EXTENSIONS:
        return 0
    return zlib.crc32(payload[type_at + 1 : type_at + 1 + length])


def _hash_number(number: int | float) -> int:
    if isinstance(number, float):
        if number != number:
            return 0  # it equals no key, and the bytes of NaNs differ between machines
        if not (number.is_integer() and -(2.0**63) <= number < 2.0**64):
            return zlib.crc32(struct.pack("<d", number))
    return zlib.crc32((int(number) % 2**64).to_bytes(8, "little"))


if TYPE_CHECKING or IMPLEMENTATION == "native":
    from ._native import build_index as _build_index
else:
    _build_index = build_index_in_python
