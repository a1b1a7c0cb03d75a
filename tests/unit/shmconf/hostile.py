"""Run as a process of its own by test_trust.py: whole sweeps over damaged segments, any of which might kill a reader.

Each reading must end soon, in a typed error or in a tree that was published under the version it claims.
"""

from __future__ import annotations

import faulthandler
import os
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shmconf
from shmconf import attachment, codec, layout
from shmconf.directories import Directory
from shmconf.layout import Descriptor, Header, Room
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer

VERSIONS = 6
PATIENCE = attachment.PATIENCE_SECONDS
outcomes: dict[str, int] = {}


def tree(version: int) -> dict[str, Any]:
    return {"version": version, "fields": [version] * 10, "map": {"deep": {"list": [version, "x" * 50]}}}


PUBLISHED = {version: tree(version) for version in range(1, VERSIONS + 1)}


def make(place: Path) -> bytes:
    with Writer(Directory(place, named=True), "web", Settings(1 << 20)) as writer:
        for version in PUBLISHED:
            writer.publish(codec.pack(tree(version)))
        writer.set_status(AgentStatus(state="running", last_error="first").encode())
        writer.set_status(AgentStatus(state="running", last_error="second").encode())
        writer.beat()
    return (place / "web.shmconf").read_bytes()


def read(place: Path, what: object) -> None:
    """One reader's look at everything."""
    began = time.monotonic()
    try:
        with shmconf.attach("web", directory=place) as reader:
            snapshot = reader.snapshot()
            told = snapshot.to_dict()
            assert told == PUBLISHED.get(snapshot.version), f"a wrong value after {what}: {told}"
            assert reader.get("map.deep.list.0") == reader["version"] == snapshot.version
            assert isinstance(snapshot.digest, str)
            status = reader.status()
            assert status.last_error in (None, "first", "second"), f"a wrong status after {what}"
            said, outcome = f"{place}", "read"
    except shmconf.Error as error:
        said = str(error)
        outcome = type(error).__name__
    assert str(place) in said or "'web'" in said, f"an error without a place: {said}"
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    took = time.monotonic() - began
    assert took < 3 * PATIENCE + 30, f"{took:.1f} s after {what}"


def flips(place: Path) -> None:
    """Every bit of header and slots and one bit of every other byte that means something, one at a time."""
    whole = make(place)
    attachment.PATIENCE_SECONDS = 0.0  # a slot that never becomes whole takes 2,000 tries then, and no second
    file = place / "web.shmconf"
    newest = layout.slot_offset(VERSIONS)
    room = Room.of(struct.unpack_from("<Q", whole, newest + layout.ROOM)[0])
    used = [*range(0, 264), *range(512, 1024), *range(4096, 4096 + 200), *range(8192, 8192 + 200)]
    used += range(room.offset, room.offset + 300)
    with open(file, "r+b", buffering=0) as changed:
        for offset in used:
            for bit in range(8) if offset < 1024 else (offset % 8,):
                os.pwrite(changed.fileno(), bytes([whole[offset] ^ 1 << bit]), offset)
                read(place, f"flip of bit {bit} at {offset}")
            os.pwrite(changed.fileno(), whole[offset : offset + 1], offset)
    assert file.read_bytes() == whole
    read(place, "nothing")


def lengths(place: Path) -> None:
    """Cut short at every length."""
    whole = make(place)
    file = place / "web.shmconf"
    for length in range(0, len(whole), 7):  # prime to all that the format is made of
        file.unlink()
        file.write_bytes(whole[:length])
        file.chmod(0o640)
        read(place, f"cut to {length}")
    assert 0 < outcomes.get("read", 0) < (len(whole) - 12_288) // 7


def noise(place: Path) -> None:
    """Random bytes: alone, behind a valid header, and strewn over a valid segment."""
    whole = make(place)
    attachment.PATIENCE_SECONDS = 0.0
    file = place / "web.shmconf"
    chance = random.Random(20261122)
    for number in range(500):
        kind = number % 5
        if kind == 0:
            data = bytearray(chance.randbytes(chance.randrange(30_000)))
        elif kind == 1:
            data = bytearray(whole[:8] + chance.randbytes(20_000))
        elif kind == 2:
            data = bytearray(whole[:64] + chance.randbytes(30_000))
        elif kind == 3:
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 40)):
                offset = chance.choice((chance.randrange(64, 264), chance.randrange(512, 1024)))
                data[offset] = chance.randrange(256)
        else:
            data = bytearray(whole)
            start = chance.randrange(64, len(whole))
            data[start : start + 64] = chance.randbytes(len(data[start : start + 64]))
        file.unlink()
        file.write_bytes(data)
        file.chmod(0o640)
        read(place, f"noise {number}")


def craft(
    *,
    payload: bytes | None = None,
    metadata: bytes | None = None,
    room: Room | None = None,
    version: int = 1,
    max_bytes: int = 1 << 20,
    status: bytes = b"",
    status_number: int = 1,
    descriptor: dict[str, int] | None = None,
    heartbeat: int = 0,
    latest: int | None = None,
) -> bytes:
    """A segment in which every checksum fits, whatever it says."""
    payload = codec.pack(tree(version)) if payload is None else payload
    metadata = codec.pack({"digest": "0" * 64}) if metadata is None else metadata
    place = room or Room(3, max(1, -(-(len(payload) + len(metadata) + 16) // 4096)))
    described = {
        "payload_length": len(payload),
        "index_length": 0,
        "metadata_length": len(metadata),
        "published_at": 1,
        "payload_checksum": zlib.crc32(payload),
        "index_checksum": 0,
        "metadata_checksum": zlib.crc32(metadata),
        **(descriptor or {}),
    }
    head = Descriptor(**described)
    size = 12_288 + -(-(len(payload) + len(metadata) + 16) // 4096) * 4096
    data = bytearray(size)
    data[:64] = Header(epoch=9, max_bytes=max_bytes, created_at=0).encode()
    struct.pack_into("<Q", data, 64, version if latest is None else latest)
    struct.pack_into("<Q", data, 192, heartbeat)
    slot = layout.slot_offset(version)
    struct.pack_into("<QQ", data, slot, 2 * version & (1 << 64) - 1, place.word)
    data[slot + 16 : slot + 64] = head.encode(9, version, place)
    data[12_288 : 12_288 + len(payload)] = payload
    start = 12_288 + layout.aligned(len(payload))
    data[start : start + len(metadata)] = metadata
    if status:
        copy = layout.status_offset(status_number)
        struct.pack_into("<Q", data, 256, status_number)
        struct.pack_into("<QII", data, copy, 2 * status_number & (1 << 64) - 1, len(status), zlib.crc32(status))
        data[copy + 16 : copy + 16 + len(status[:4080])] = status[:4080]
    return bytes(data)


LARGE = [2**16, 2**20, 2**32 - 1, 2**43, 2**44, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]

CRAFTED: dict[str, Callable[[], bytes]] = {
    "nothing wrong": lambda: craft(),
    "payload is a list": lambda: craft(payload=b"\x91\x01"),
    "payload is empty": lambda: craft(payload=b""),
    "payload has something behind it": lambda: craft(payload=b"\x80\x80"),
    "payload nests deep": lambda: craft(payload=b"\x81\xa1a" + b"\x91" * 1020 + b"\x01"),
    "payload nests deeper": lambda: craft(payload=b"\x81\xa1a" * 100_000 + b"\x01"),
    "payload has a list as key": lambda: craft(payload=b"\x81\x90\x01"),
    "payload announces 4 G entries": lambda: craft(payload=b"\xdf\xff\xff\xff\xff"),
    "payload announces 4 G of text": lambda: craft(payload=b"\xdb\xff\xff\xff\xff"),
    "payload has a date that is none": lambda: craft(payload=b"\x81\xa1a\xd6\x01abcd"),
    "payload has an unknown extension": lambda: craft(payload=b"\x81\xa1a\x91\xd6\x55abcd"),
    "payload has a timestamp": lambda: craft(payload=b"\x81\xa1a\x91\xd6\xff\xff\xff\xff\xff"),
    "metadata is a list": lambda: craft(metadata=b"\x90"),
    "metadata is no msgpack": lambda: craft(metadata=b"\xc1"),
    "metadata is empty": lambda: craft(metadata=b""),
    "metadata nests deep": lambda: craft(metadata=b"\x81\xa6digest" + b"\x91" * 1020 + b"\x01"),
    "digest is a number": lambda: craft(metadata=b"\x81\xa6digest\x05"),
    "room is the header": lambda: craft(room=Room(0, 4)),
    "room is the status block": lambda: craft(room=Room(1, 4)),
    "room is beyond the file": lambda: craft(room=Room(200, 4)),
    "room is beyond the mapping": lambda: craft(room=Room(2**32 - 1, 2**32 - 1)),
    "room is empty": lambda: craft(room=Room(3, 0)),
    "version is the last": lambda: craft(version=2**63 - 1),
    "latest is retired": lambda: craft(latest=1 | 1 << 63),
    "latest is zero and retired": lambda: craft(latest=1 << 63),
    "latest is beyond the slot": lambda: craft(latest=5),
    "heartbeat in the future": lambda: craft(heartbeat=2**64 - 1),
    "max_bytes is 16 TiB": lambda: craft(max_bytes=1 << 44),
    "status is a list": lambda: craft(status=b"\x90"),
    "status is no msgpack": lambda: craft(status=b"\xc1"),
    "status is empty": lambda: craft(status=b"\x80"),
    "status nests deep": lambda: craft(status=b"\x81\xa8problems\x91" + b"\x91" * 1020 + b"\x01"),
    "status nests deeper": lambda: craft(status=b"\x91" * 4079 + b"\x01"),
    "status has other types": lambda: craft(
        status=codec.pack({"state": [1], "last_error": {}, "problems": 7, "warnings": "text", "pid": "one", "stale": 9})
    ),
    "status has keys that are no text": lambda: craft(status=codec.pack({1: 2, None: 3, b"state": 4})),
    "status is longer than its copy": lambda: craft(status=b"\x80" * 5000),
    "status number is the last": lambda: craft(status=b"\x80", status_number=2**64 - 1),
    **{
        f"{name} is {large}": lambda name=name, large=large: craft(descriptor={name: large})
        for name in ("payload_length", "index_length", "metadata_length", "published_at")
        for large in LARGE
        if large < 2**64
    },
    **{
        f"room of {pages} pages and payload_length {large}": lambda pages=pages, large=large: craft(
            room=Room(3, pages), max_bytes=1 << 44, descriptor={"payload_length": large}
        )
        for pages in (2**20, 2**32 - 1)
        for large in LARGE
    },
}


def crafted(place: Path) -> None:
    """Segments with fitting checksums that lie."""
    file = place / "web.shmconf"
    PUBLISHED[2**63 - 1] = tree(2**63 - 1)
    for name, build in CRAFTED.items():
        file.unlink(missing_ok=True)
        file.write_bytes(build())
        file.chmod(0o640)
        began = time.monotonic()
        try:
            with shmconf.attach("web", directory=place) as reader:
                for key in reader.snapshot():
                    reader[key]
                reader.snapshot().to_dict()
                assert reader.status().agent_alive is False
                outcome = "read"
        except shmconf.Error as error:
            outcome = type(error).__name__
        assert time.monotonic() - began < 3 * PATIENCE + 30, name
        try:
            status = attachment.Attachment.open(Directory(place, named=True), "web")
            assert isinstance(shmconf.reader.read_status("web", status).agent.state, str), name
        except shmconf.Error:
            pass
        print(f"{name}: {outcome}")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(240, exit=True)
    {"flips": flips, "lengths": lengths, "noise": noise, "crafted": crafted}[sys.argv[1]](Path(sys.argv[2]))
    print(sorted(outcomes.items()))
