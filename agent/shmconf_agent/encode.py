"""A tree to msgpack, in which what did not change since the last time is not encoded again.

Trees of files that did not change are the same objects as before, and merging shares every map and list that no other
layer touched. So an Encoder remembers the pieces that the last payload was made of, some kilobytes each: a piece whose
keys and values are the same objects, at the same place, has the same bytes. What it remembers holds on to those
objects, and is forgotten with the next encoding: it is of one tree at a time.

The bytes are those of `codec.pack`. An Encoder belongs to one thread.
"""

from __future__ import annotations

from operator import is_
from typing import Any

from shmconf import codec

from . import native

__all__ = ["Encoder"]

_PIECE_BYTES = 8192  # of a piece, about: what is smaller is sooner encoded than looked up


class Encoder:
    """Encodes one tree after another."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._last: _Part | None = None

    def encode(self, tree: Any) -> bytes:
        """`codec.pack(tree)`. Raises what that raises; what was known is then forgotten."""
        last, self._last = self._last, None
        self._last = _part_of(tree, last)
        pieces: list[bytes] = []
        self._last.add_to(pieces)
        return b"".join(pieces)


class _Part:
    """A value and its bytes: in one piece, or by pieces of `step` entries; a single big entry is a part again."""

    __slots__ = ("head", "keys", "pieces", "step", "value", "values")

    def __init__(self, value: Any, head: bytes, step: int = 0) -> None:
        self.value = value
        self.head = head
        self.step = step  # 0: all of it is in `head`
        self.keys: list[Any] = []  # of a map; `values` are of a list, too
        self.values: list[Any] = []
        self.pieces: list[bytes | tuple[bytes, _Part]] = []  # a tuple: a key, and the value under it

    def add_to(self, pieces: list[bytes]) -> None:
        pieces.append(self.head)
        for piece in self.pieces:
            if isinstance(piece, bytes):
                pieces.append(piece)
            else:
                pieces.append(piece[0])
                piece[1].add_to(pieces)


def _part_of(value: Any, last: _Part | None) -> _Part:
    """The part that a value is; `last`: what stood in its place before."""
    if last is not None and last.value is value:
        return last
    if last is None or not last.step or type(last.value) is not type(value):
        last = None
        data = codec.pack(value)
        if len(data) <= _PIECE_BYTES or type(value) not in (dict, list):
            return _Part(value, data)
        step = max(1, _PIECE_BYTES * len(value) // len(data))
    else:
        step = last.step
    is_map = type(value) is dict
    part = _Part(value, _head(len(value), is_map), step)
    keys, values = (list(value), list(value.values())) if is_map else ([], value)
    part.keys, part.values = keys, values
    for number, at in enumerate(range(0, len(value), step)):
        before = last.pieces[number] if last is not None and number < len(last.pieces) else None
        if (
            before is not None
            and last is not None
            and _same(values, last.values, at, at + step)
            and _same(keys, last.keys, at, at + step)
        ):
            part.pieces.append(before)
            continue
        some_keys, some = keys[at : at + step], values[at : at + step]
        if step == 1:
            key = codec.pack(some_keys[0]) if is_map else b""
            part.pieces.append((key, _part_of(some[0], before[1] if isinstance(before, tuple) else None)))
        else:
            count = len(some)
            data = codec.pack(dict(zip(some_keys, some, strict=True)) if is_map else some)
            part.pieces.append(data[len(_head(count, is_map)) :])
    return part


def _same(left: list[Any], right: list[Any], start: int, stop: int) -> bool:
    """Whether the same objects stand there in both lists."""
    if native.module is not None:
        return native.module.same(left, right, start, stop)
    some, others = left[start:stop], right[start:stop]
    return len(some) == len(others) and all(map(is_, some, others))


def _head(count: int, is_map: bool) -> bytes:
    """What a map or list of so many entries begins with."""
    if count < 16:
        return bytes([(0x80 if is_map else 0x90) | count])
    if count < 1 << 16:
        return (b"\xde" if is_map else b"\xdc") + count.to_bytes(2, "big")
    return (b"\xdf" if is_map else b"\xdd") + count.to_bytes(4, "big")
