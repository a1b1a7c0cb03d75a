"""layout.py, the writer and FORMAT.md held together: by the page's tables, and by a reader written from it alone."""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from second_reader import SecondReader, decode

import shmconf
from shmconf import codec, layout
from shmconf.errors import SegmentCorrupt, SegmentIncompatible
from shmconf.index import build_index
from shmconf.layout import Descriptor, Header, Room
from shmconf.status import AgentStatus, Hold

FORMAT_MD = Path(shmconf.__file__).parents[1] / "FORMAT.md"


@pytest.fixture(scope="module")
def tables() -> list[list[list[str]]]:
    """Every table of FORMAT.md as rows of cells, the heading first."""
    if not FORMAT_MD.exists():
        pytest.skip("shmconf is installed without its specification")
    found: list[list[list[str]]] = []
    inside = False
    for line in FORMAT_MD.read_text().splitlines():
        line = line.strip()
        if line.startswith("|"):
            if not inside:
                found.append([])
            if not set(line) <= set("|- "):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = line.startswith("|")
    return found


def fields(table: list[list[str]]) -> dict[str, tuple[int, int]]:
    """The table's fields by their first words: (offset, size), size 0 where it is '–'."""
    told = {}
    for offset, size, field, *_ in table[1:]:
        name = re.split(r"[:;,]| \(", field.strip("`"))[0].strip("` ")
        factors = [int(number) for number in re.findall(r"\d+", size.replace(",", ""))]
        length = factors[0] * factors[1] if len(factors) == 2 else (factors or [0])[0]
        told[name] = (int(offset.replace(",", "")), length)
    return told


def at(data: bytes, place: tuple[int, int]) -> int:
    offset, size = place
    return int.from_bytes(data[offset : offset + size], "little")


def test_the_header_is_where_the_page_says(tables: list[list[list[str]]]) -> None:
    told = fields(tables[0])
    encoded = Header(epoch=0x1122334455667788, max_bytes=1 << 30, created_at=987654321, floor=41).encode()
    assert len(encoded) == 64
    assert encoded[slice(told["magic"][0], sum(told["magic"]))] == bytes.fromhex("73686d636f6e6600")
    assert at(encoded, told["format"]) == 1
    assert at(encoded, told["flags"]) == 0
    assert at(encoded, told["epoch"]) == 0x1122334455667788
    assert at(encoded, told["max_bytes"]) == 1 << 30
    assert at(encoded, told["created_at"]) == 987654321
    assert at(encoded, told["floor"]) == 41
    assert at(encoded, told["CRC-32 of the 60 bytes before it"]) == zlib.crc32(encoded[:60])


def test_words_slots_copies_and_rooms_are_where_the_page_says(tables: list[list[list[str]]]) -> None:
    told = fields(tables[0])
    assert told["latest"] == (layout.LATEST, 8)
    assert told["wake word"] == (layout.WAKE, 4)
    assert told["heartbeat"] == (layout.HEARTBEAT, 8)
    assert told["status number"] == (layout.STATUS_LATEST, 8)
    assert told["the slots"] == (layout.SLOT_BASE, layout.SLOTS * layout.SLOT_SIZE)
    assert told["the copies of the status block"] == (layout.STATUS_BASE, layout.STATUS_COPIES * layout.STATUS_SIZE)
    assert told["rooms"][0] == layout.ROOMS_BASE == layout.FIRST_ROOM_PAGE * layout.PAGE
    assert layout.STATUS_BASE + layout.STATUS_COPIES * layout.STATUS_SIZE == layout.ROOMS_BASE


def test_the_tables_leave_no_overlap_and_hot_words_have_their_own_cache_lines(tables: list[list[list[str]]]) -> None:
    for table in (tables[0], tables[1], tables[5]):
        places = sorted(fields(table).values())
        assert all(first[0] + first[1] <= second[0] for first, second in itertools.pairwise(places))
    told = fields(tables[0])
    lines = [told[name][0] // 64 for name in ("magic", "latest", "wake word", "heartbeat", "status number")]
    assert len(set(lines)) == len(lines)


def test_a_slot_is_as_the_page_says(tables: list[list[list[str]]]) -> None:
    told = fields(tables[1])
    assert told["counter"] == (layout.COUNTER, 8)
    assert told["room"] == (layout.ROOM, 8)
    room = Room(page=3, pages=70_000)
    assert room.word == 3 | 70_000 << 32
    assert Room.of(room.word) == room
    descriptor = Descriptor(100, 200, 300, 1_700_000_000_000_000_000, 11, 22, 33)
    slot = bytes(layout.DESCRIPTOR_OFFSET) + descriptor.encode(5, 6, room)
    assert [at(slot, told[name]) for name in ("payload length", "index length", "metadata length")] == [100, 200, 300]
    assert at(slot, told["published_at"]) == 1_700_000_000_000_000_000
    checksums = ("CRC-32 of the payload", "CRC-32 of the index", "CRC-32 of the metadata")
    assert [at(slot, told[name]) for name in checksums] == [11, 22, 33]
    covered = struct.pack("<QQQ", 5, 6, room.word) + slot[16:60]
    assert len(covered) == 68
    assert at(slot, told["CRC-32 of these 68 bytes"]) == zlib.crc32(covered)


def test_the_status_copy_is_as_the_page_says(tables: list[list[list[str]]]) -> None:
    told = fields(tables[5])
    assert told["counter"] == (0, 8)
    assert told["length of the body"] == (layout.STATUS_HEAD_OFFSET, 4)
    assert told["CRC-32 of the body"] == (layout.STATUS_HEAD_OFFSET + 4, 4)
    assert told["body"][0] == layout.STATUS_BODY_OFFSET
    assert layout.STATUS_BODY_SIZE == 4_080
    text = FORMAT_MD.read_text()
    keys = set(re.findall(r"`(\w+)`", text.split("Keys of the body:")[1].split("Unknown")[0]))
    hold = Hold(version=1, epoch=2, since=3, uid=4, candidate="00")
    body = msgpack.unpackb(AgentStatus(held="00", hold=hold).encode())
    assert {*body, "rollback", "candidate"} == keys - {"starting", "running", "stopped"}
    of_rollback = FORMAT_MD.read_text().split("`rollback`, where")[1].split("`secret_paths`")[0]
    assert set(body["hold"]) == set(re.findall(r"`(\w+)`", of_rollback)) | {"candidate"}


def test_the_index_s_tables_are_as_the_page_says(tables: list[list[list[str]]]) -> None:
    payload = msgpack.packb({"list": [0] * 1000, "fill": "x" * 50})
    built = build_index(payload)
    assert int.from_bytes(built[4:8], "little") * 8 + 16 + 8 + 8 * 2 == len(built), "the directory ends the index"
    of_list = [(int(offset), size) for offset, size, _ in tables[4][1:]]
    of_map = [(int(offset), size) for offset, size, _ in tables[3][1:-1]]
    assert [place for place, _ in of_list] == [place for place, _ in of_map] == [0, 4, 8, 16]
    n, stride, length, *offsets = struct.unpack_from("<IIQ32I", built, 8)
    assert (n, stride, length) == (1000, 32, 1003)
    assert offsets == [6 + 3 + 32 * index for index in range(32)]
    table = 8 + 16 + 4 * 32
    n, bits, length, start, end, low, high = struct.unpack_from("<IIQIIQQ", built, table)
    assert (n, bits, length, start, end) == (2, 0, len(payload), 0, 2)
    assert [low & 0xFFFFFFFF, high & 0xFFFFFFFF] == [1, 1009]
    assert [low >> 32, high >> 32] == [zlib.crc32(b"list"), zlib.crc32(b"fill")]


def test_the_extension_types_are_as_the_page_says(tables: list[list[list[str]]]) -> None:
    for number, _, example in tables[2][1:]:
        value = codec.unpack(msgpack.packb(msgpack.ExtType(int(number), example.strip("`").encode())))
        assert msgpack.unpackb(codec.pack(value)) == msgpack.ExtType(int(number), example.strip("`").encode())


def test_slots_and_status_copies_take_turns() -> None:
    assert [layout.slot_offset(version) for version in (4, 5, 6, 7, 8)] == [512, 640, 768, 896, 512]
    assert [layout.status_offset(number) for number in (1, 2, 3)] == [8192, 4096, 8192]


@pytest.mark.parametrize(
    ("room", "payload_length", "fits"),
    [
        (Room(3, 1), 4096, True),
        (Room(3, 1), 4097, False),  # it would reach into another version's room, which may be written anew
        (Room(3, 0), 1, False),
        (Room(2, 1), 100, False),  # the status block
        (Room(0, 9), 100, False),
    ],
)
def test_a_descriptor_must_fit_its_room_and_that_lie_behind_the_header(
    room: Room, payload_length: int, fits: bool
) -> None:
    encoded = Descriptor(payload_length, 0, 0, 1, 2, 3, 4).encode(5, 6, room)
    assert (Descriptor.decode(encoded, 5, 6, room) is not None) is fits
    assert Descriptor.decode(encoded, 5, 10, room) is None, "it is another version's"
    assert Descriptor.decode(encoded, 4, 6, room) is None, "it is of another epoch"


@pytest.mark.parametrize(
    "header",
    [
        Header(0, 1 << 20, 0),
        Header(1, layout.MIN_MAX_BYTES - 4096, 0),
        Header(1, layout.MAX_MAX_BYTES + 4096, 0),
        Header(1, (1 << 20) + 8, 0),
        Header(1, 1 << 20, 0, floor=2**63 - 1),
    ],
)
def test_a_header_out_of_range_is_damage(header: Header) -> None:
    with pytest.raises(SegmentCorrupt, match="out of range"):
        Header.decode(header.encode())


def test_another_format_is_incompatible_whatever_else_it_changed() -> None:
    data = bytearray(Header(1, 1 << 20, 0).encode())
    data[8] = 2
    with pytest.raises(SegmentIncompatible, match="format 2; this library reads format 1"):
        Header.decode(bytes(data))


@given(st.integers(0, 63), st.integers(0, 7))
def test_no_flipped_bit_of_the_header_passes(offset: int, bit: int) -> None:
    data = bytearray(Header(7, 1 << 20, 8, floor=9).encode())
    data[offset] ^= 1 << bit
    with pytest.raises((SegmentCorrupt, SegmentIncompatible)):
        Header.decode(bytes(data))


@pytest.mark.parametrize("length", [0, 7, 8, 63])
def test_a_short_header_is_damage(length: int) -> None:
    with pytest.raises(SegmentCorrupt, match="does not begin like"):
        Header.decode(Header(1, 1 << 20, 0).encode()[:length])


# --- a reader written from FORMAT.md alone (tests/segment/second_reader.py) ---------------------------------------


keys = st.text(max_size=5) | st.integers(-5, 5) | st.none()
scalars = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.none()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=10
)
trees = st.dictionaries(keys, values, max_size=6)


@settings(max_examples=25, deadline=None)
@given(st.lists(trees, min_size=1, max_size=7), st.integers(0, 40_000))
def test_a_reader_written_from_the_page_alone_agrees(
    tmp_path_factory: pytest.TempPathFactory, configurations: list[dict[Any, Any]], fill: int
) -> None:
    from shmconf.directories import Directory
    from shmconf.writer import Settings, Writer

    place = tmp_path_factory.mktemp("format")
    with Writer(Directory(place, named=True), "web", Settings(1 << 20), state_directory=place / "state") as writer:
        writer.set_status(AgentStatus(state="running", last_error="line 3").encode())
        for index, tree in enumerate(configurations):
            writer.publish(codec.pack({**tree, "fill": "x" * (fill if index % 2 else 1)}), {"files": ["a.yaml"]})
    second = SecondReader(place / "web.shmconf")
    with shmconf.attach("web", directory=place) as reader:
        snapshot = reader.snapshot()
        latest = second.latest()
        assert latest is not None
        tree = decode(latest.payload)
        assert (second.epoch, second.version) == (snapshot.epoch, snapshot.version)
        assert second.version == len(configurations)
        assert tree == snapshot.to_dict()
        assert list(tree) == list(snapshot)
        assert latest.published_at == snapshot.published_at
        assert latest.index == build_index(latest.payload)
        assert latest.metadata == snapshot.metadata
        assert latest.metadata["digest"] == snapshot.digest
        assert latest.metadata["files"] == ["a.yaml"]
        assert not second.retired
        status = second.status()
        assert status is not None
        assert status["state"] == reader.status().agent.state
        assert status["last_error"] == reader.status().last_error == "line 3"
        for older in range(max(1, second.version - 3), second.version):
            if second.number(512 + 128 * (older % 4)) == 2 * older:
                second.slot(older)


def test_every_word_of_the_life_of_a_segment_is_as_the_page_says(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    empty = SecondReader(place.file)
    assert (empty.version, empty.retired, empty.status()) == (0, False, None)
    wake = empty.number(128, 4)
    writer.beat()
    assert publish(writer, {"n": 1}) == empty.floor + 1
    first = SecondReader(place.file)
    assert first.number(128, 4) == wake + 1
    assert 0 < first.number(192) < 2**63
    assert first.epoch == empty.epoch
    place.file.unlink()
    old = open(f"/proc/self/fd/{writer._segment._fd}", "rb")  # noqa: SIM115  # closed below
    assert writer.keep_linked()
    with old:
        word = int.from_bytes(old.read()[64:72], "little")
    assert word == 1 | 1 << 63
    successor = SecondReader(place.file)
    assert successor.epoch != first.epoch
    assert (successor.floor, successor.version) == (1, 2)
    writer.close()
    assert SecondReader(place.file).number(192) == 0
