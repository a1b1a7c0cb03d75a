"""Makes seeds for fuzz_segment.c of valid segments, the golden ones and those that lie: inputs, not expectations.

    python tests/fuzz/make_corpus.py DIRECTORY

An input is what fuzz_segment.c says. What is in corpus/ came of these and of long runs, by libFuzzer's -merge=1:
a change of the input's form, or of the reader, calls for a new one (see the README beside this file).
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from shmconf import codec
from shmconf.directories import Directory
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "segment/golden"
FIX_HEADER, FIX_CRC, FIX_SLOT, FIX_ROOM, FIX_CONTENT, FIX_STATUS = 1, 2, 4, 8, 16, 32
ALL = FIX_HEADER | FIX_SLOT | FIX_ROOM | FIX_CONTENT | FIX_STATUS
LARGEST = 8192

TREES: dict[str, dict[Any, Any]] = {
    "small": {"a": 1, "b": [1, 2, {"c": None}]},
    "scalars": {"a": -1, "b": 2**63, "c": -(2**40), "d": 1.5, "e": True, "f": b"\0", "g": "x" * 40, "h": None},
    "keys": {1: "a", -1: "b", 2.5: "c", False: "zero", None: "nil", b"b": "bytes", date(2026, 1, 1): "day"},
    "instants": {
        datetime(2026, 1, 1, tzinfo=UTC): "instant",
        datetime(1979, 5, 27, 0, 32, 0, 999999, tzinfo=timezone(timedelta(hours=-7, seconds=-5))): "another",
        datetime(2000, 2, 29, 23, 59, 59, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))): "x" * 300,
    },
    "nested": {"db": {"pool": {"size": 20, "hosts": [f"host-{n}" for n in range(40)]}}, "version": 1},
    "maps": {f"key-{n}": {"n": n, "text": "x" * (n % 9)} for n in range(60)},
    "lists": {"a": [[n, [n] * (n % 7)] for n in range(90)], "fields": list(range(300))},
    "deep": {"a": {"a": {"a": {"a": {"a": {"a": ["x" * 300]}}}}}},
}  # fmt: skip


def compact(whole: bytes, flags: int, shape: int = 0) -> bytes:
    """The input for a segment file: its latest version's room comes first."""
    (latest,) = struct.unpack_from("<Q", whole, 64)
    slots = [bytearray(whole[512 + 128 * number : 576 + 128 * number]) for number in range(4)]
    slot = slots[latest % 4]
    room, *lengths = struct.unpack_from("<QQQQ", slot, 8)
    start = (room & 0xFFFFFFFF) * 4096
    content = whole[start : start + sum(-(-length // 8) * 8 for length in lengths)] if latest else b""
    struct.pack_into("<Q", slot, 8, 3 | room >> 32 << 32)
    words = b"".join(whole[offset : offset + 8] for offset in (64, 128, 192, 256))
    copies = whole[4096:4224] + whole[8192:8320]
    return bytes([flags, shape]) + whole[:64] + words + b"".join(slots) + copies + content


def written(tree: dict[Any, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        with Writer(Directory(Path(place), named=True), "web", Settings(1 << 20)) as writer:
            writer.publish(codec.pack(tree))
            writer.set_status(AgentStatus(state="running", last_error="a tab").encode()[:112])
        return (Path(place) / "web.shmconf").read_bytes()


def seeds() -> Iterator[bytes]:
    yield b""
    yield b'a."b.c".\'d\'.0."\\u0061\\x62\\U00000063\\n"'
    for tree in TREES.values():
        whole = written(tree)
        yield compact(whole, ALL)
        yield compact(whole, FIX_HEADER | FIX_SLOT)
        yield compact(whole, 0)
    for shape in (0x01, 0x0F, 0x30):
        yield compact(written(TREES["nested"]), ALL, shape)
    for path in sorted(GOLDEN.glob("*.shmconf.gz")):
        yield compact(gzip.decompress(path.read_bytes()), ALL)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        if len(seed) <= LARGEST:
            (directory / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
