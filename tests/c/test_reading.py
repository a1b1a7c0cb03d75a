"""Values, types, texts and snapshots through the C reader, on segments that shmconf.writer wrote."""

from __future__ import annotations

import ctypes
import math
from ctypes import byref
from typing import Any

import msgpack
import pytest
from c_reader import ALLOCATE, Fault, Kind, Library, Part, Result, Snapshot, as_parts

from shmconf import codec
from shmconf.paths import look_up

TREE: dict[Any, Any] = {
    "db": {"pool": {"size": 20, "ratio": 0.25, "on": True, "off": False, "name": "primary", "none": None}},
    "a.b": {"c d": "quoted"},
    "hosts": [f"host-{number}" for number in range(300)],
    "numbers": {
        "least": -(2**63),
        "most": 2**63 - 1,
        "unsigned": 2**64 - 1,
        "whole": 2.0,
        "small": -1,
        "inexact": 2**53 + 1,
        "exact": 2**63,
        "infinite": math.inf,
    },
    "text": {"empty": "", "long": "x" * 5000, "nul": "a\0b", "wide": "größer"},
    "bytes": b"\x00\x01",
    "0": "a text key",
    7: "an integer key",
    "many": {f"key-{number}": number for number in range(2000)},
}


@pytest.fixture
def opened(library: Library, place: Any) -> Any:
    place.published(TREE)
    with library.reader("web", place.run) as reader:
        yield reader


@pytest.mark.parametrize(
    "path",
    [
        "db",
        "db.pool.size",
        '"a.b"."c d"',
        "hosts",
        "hosts.0",
        "hosts.299",
        "'0'",
        "0",
        "many.key-1999",
        "numbers",
        "text.nul",
        " db . pool\t.\tname ",
        '"\\u0064\\x62".pool',
        "bytes",
        "db.pool.none",
        "many",
    ],
)
def test_get_gives_the_bytes_of_the_value(opened: Any, path: str) -> None:
    value = codec.pack(look_up(TREE, path))
    assert opened.get(path) == (Result.OK, value, len(value))


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "db.nothing",
        "db.pool.size.deeper",
        "hosts.300",
        "hosts.00",
        "hosts.-1",
        "hosts.x",
        "7",
        '""',
        "many.key-2000",
        "hosts.999999999999999999",
        "hosts.9999999999999999999",
        "text.long.0",
    ],
)
def test_a_miss_leaves_the_buffer_alone(opened: Any, path: str) -> None:
    assert look_up(TREE, path, None) is None
    result, buffer, length = opened.get(path, 64)
    assert (result, buffer, length) == (Result.MISSING, b"\xee" * 64, 0)
    assert str(opened.fault) == f"the configuration has nothing at {path}"


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a b", '"a', "'a", '"\\q"', '"\\ud800"', "é", "a\tb", '"\n"']
)
def test_a_bad_path(opened: Any, path: str) -> None:
    assert opened.get(path, 64) == (Result.BAD_PATH, b"\xee" * 64, 0)
    assert opened.typed("int", path)[0] is Result.BAD_PATH
    assert opened.string(path)[0] is Result.BAD_PATH
    assert opened.read(opened.cell(path))[0] is Result.BAD_PATH
    assert str(opened.fault).startswith(f"'{path}' is not a dotted path")
    with opened.snapshot() as snapshot:
        value, length = ctypes.c_void_p(), ctypes.c_size_t()
        got = opened.library.snapshot_get(byref(snapshot), path.encode(), byref(value), byref(length))
        assert got == Result.BAD_PATH


def test_a_long_path_is_as_good(opened: Any) -> None:
    assert opened.get(".".join(["db"] * 40))[0] is Result.MISSING
    assert opened.get('"' + "x" * 5000 + '"')[0] is Result.MISSING
    assert opened.get("db." * 400 + "?")[0] is Result.BAD_PATH
    assert (
        opened.value('"' + "".join(f"\\U{ord(letter):08x}" for letter in "hosts") + '"' + " " * 300 + ".3") == "host-3"
    )


@pytest.mark.parametrize("path", ["db.pool.name", "hosts", "text.long", "many"])
def test_too_small_a_buffer_tells_the_length(opened: Any, path: str) -> None:
    value = codec.pack(look_up(TREE, path))
    for capacity in (0, 1, len(value) - 1):
        assert opened.get(path, capacity) == (Result.NO_SPACE, b"\xee" * capacity, len(value))
    assert opened.get(path, len(value)) == (Result.OK, value, len(value))


INTEGERS = {"least": -(2**63), "most": 2**63 - 1, "small": -1}
UNSIGNED = {"most": 2**63 - 1, "unsigned": 2**64 - 1, "exact": 2**63}
DOUBLES = {"whole": 2.0, "small": -1.0, "least": -(2.0**63), "exact": 2.0**63, "infinite": math.inf}


def test_typed_values(opened: Any) -> None:
    numbers = TREE["numbers"]
    for kind, fitting in {"int": INTEGERS, "uint": UNSIGNED, "double": DOUBLES}.items():
        for key in numbers:
            wanted = (Result.OK, fitting[key]) if key in fitting else (Result.WRONG_TYPE, None)
            if (kind == "int" and key == "inexact") or (kind == "uint" and key == "inexact"):
                wanted = (Result.OK, numbers[key])
            assert opened.typed(kind, f"numbers.{key}") == wanted, (kind, key)
    assert opened.typed("int", "db.pool.size") == (Result.OK, 20)
    assert opened.typed("uint", "db.pool.size") == (Result.OK, 20)
    assert opened.typed("double", "db.pool.size") == (Result.OK, 20.0)
    assert opened.typed("double", "db.pool.ratio") == (Result.OK, 0.25)
    assert opened.typed("bool", "db.pool.on") == (Result.OK, True)
    assert opened.typed("bool", "db.pool.off") == (Result.OK, False)
    assert opened.string("db.pool.name") == (Result.OK, b"primary", 7)


def test_values_of_other_types_are_refused(opened: Any) -> None:
    for kind in ("int", "uint", "double", "bool"):
        for path in ("db.pool.name", "db.pool.none", "db", "hosts", "text.empty", "text.long", "bytes"):
            assert opened.typed(kind, path) == (Result.WRONG_TYPE, None), (kind, path)
            assert str(opened.fault).startswith(f"the value at {path} is not ")
        assert opened.typed(kind, "db.nothing") == (Result.MISSING, None)
    assert opened.typed("int", "db.pool.on") == opened.typed("double", "db.pool.on") == (Result.WRONG_TYPE, None)
    assert opened.typed("int", "db.pool.ratio") == (Result.WRONG_TYPE, None)
    assert opened.typed("bool", "db.pool.size") == (Result.WRONG_TYPE, None)
    for path in ("db.pool.size", "db", "bytes", "db.pool.none", "many"):
        assert opened.string(path) == (Result.WRONG_TYPE, None, 0)
    assert opened.string("db.nothing") == (Result.MISSING, None, 0)


@pytest.mark.parametrize("key", TREE["text"])
def test_texts_end_in_a_zero_that_needs_room(opened: Any, key: str) -> None:
    text = TREE["text"][key].encode()
    path = f"text.{key}"
    assert opened.string(path, len(text) + 1) == (Result.OK, text, len(text))
    for capacity in {0, len(text)}:
        assert opened.string(path, capacity) == (Result.NO_SPACE, None, len(text))
    asked = opened.library.get_string(opened.handle, path.encode(), None, 0, None)
    assert asked == Result.NO_SPACE


def test_a_snapshot_is_one_version_and_outlives_its_reader(library: Library, place: Any) -> None:
    writer = place.published(TREE)
    snapshot = Snapshot()
    with library.reader("web", place.run) as reader:
        assert library.snapshot_take(reader.handle, byref(snapshot)) == Result.OK
        content = writer.published()
        place.publish(writer, {"other": 1})
    told = (snapshot.epoch, snapshot.version, snapshot.published_at)
    assert told == (content.epoch, content.version, content.published_at)
    for section in ("payload", "index", "metadata"):
        assert snapshot.section(section) == getattr(content, section)
    value, length = ctypes.c_void_p(), ctypes.c_size_t()
    for path, wanted in {
        "db.pool.size": 20,
        "hosts.299": "host-299",
        "many.key-77": 77,
        '"a.b"."c d"': "quoted",
    }.items():
        assert library.snapshot_get(byref(snapshot), path.encode(), byref(value), byref(length)) == Result.OK
        assert snapshot.payload <= value.value < snapshot.payload + snapshot.payload_length
        assert msgpack.unpackb(ctypes.string_at(value.value, length.value)) == wanted
    assert library.snapshot_get(byref(snapshot), b"nothing", byref(value), byref(length)) == Result.MISSING
    library.snapshot_free(byref(snapshot))
    library.snapshot_free(byref(snapshot))  # as harmless as free(NULL)


def test_parts_of_any_type(library: Library, place: Any) -> None:
    tree = {1: {True: "never", 2.5: "half", None: "nil", b"b": "binary", -3: "negative"}, "l": [[1, 2], [3]]}
    place.published(tree)
    with library.segment(place.run) as segment:

        def found(*path: Any) -> Any:
            buffer, length, version = ctypes.create_string_buffer(64), ctypes.c_size_t(), ctypes.c_uint64()
            result = library.segment_get(
                segment, as_parts(path, False), len(path), buffer, 64, byref(length), byref(version), None
            )
            assert version.value == 1
            return (
                msgpack.unpackb(buffer.raw[: length.value], strict_map_key=False)
                if result == Result.OK
                else Result(result)
            )

        assert found(1.0, True) == found(True, 1) == "never"
        assert (found(1, 2.5), found(1, None), found(1, b"b"), found(1, -3)) == ("half", "nil", "binary", "negative")
        assert (found("l", 0, 1), found("l", 1, 0)) == (2, 3)
        for missed in ((1, "b"), (1, 2), ("l", True), ("l", 0.0), ("l", -1), ("l", "0"), (1, math.nan), (2**64 - 3,)):
            assert found(*missed) is Result.MISSING, missed
        assert found() == tree


def test_sections_are_copied_into_memory_of_the_caller_s(library: Library, place: Any) -> None:
    writer = place.published(TREE)
    content = writer.published()
    blocks: dict[int, Any] = {}

    @ALLOCATE
    def allocate(_context: int, section: int, length: int) -> int:
        blocks[section] = ctypes.create_string_buffer(max(length, 1))
        return ctypes.addressof(blocks[section])

    with library.segment(place.run) as segment:
        snapshot = Snapshot()
        assert library.segment_copy(segment, 4, allocate, None, byref(snapshot), None) == Result.OK
        assert list(blocks) == [4]
        assert snapshot.section("metadata") == content.metadata
        assert (snapshot.payload, snapshot.payload_length, snapshot.index, snapshot.index_length) == (None, 0, None, 0)
        assert library.segment_copy(segment, 3, allocate, None, byref(snapshot), None) == Result.OK
        assert (snapshot.section("payload"), snapshot.section("index")) == (content.payload, content.index)

        fault = Fault()
        refuse = ALLOCATE(lambda _context, _section, _length: None)
        assert library.segment_copy(segment, 7, refuse, None, byref(snapshot), byref(fault)) == Result.SYSTEM
        assert "no memory" in str(fault)
        verified = ctypes.c_uint64()
        assert library.segment_verify(segment, byref(verified), None) == Result.OK
        assert verified.value == 1


def test_damage_at_rest_is_told(library: Library, place: Any) -> None:
    writer = place.published(TREE)
    with library.segment(place.run) as segment, library.reader("web", place.run) as reader:
        payload = writer.published().payload
        at = payload.index(b"primary")
        writer._segment._mapping.write(3 * 4096 + at // 8 * 8, b"\xff" * 16)
        fault, verified, snapshot = Fault(), ctypes.c_uint64(), Snapshot()
        assert library.segment_verify(segment, byref(verified), byref(fault)) == Result.CORRUPT
        assert "checksum of version 1" in str(fault)
        assert library.snapshot_take(reader.handle, byref(snapshot)) == Result.CORRUPT
        assert (snapshot.memory, snapshot.payload) == (None, None)
        assert reader.value("hosts.7") == "host-7"  # look-ups rely on counter and bounds
        writer._segment._mapping.write(512 + 128 + 16, b"\xff" * 8)
        assert reader.get("hosts.7")[0] is Result.CORRUPT
        assert "the descriptor of version 1 is damaged" in str(reader.fault)


def test_a_published_version_that_is_gone_is_damage(library: Library, place: Any) -> None:
    writer = place.published(TREE)
    with library.reader("web", place.run) as reader:
        cell, fresh = reader.cell("db.pool.size"), reader.cell("db.pool.size")
        assert reader.read(cell) == (Result.OK, 20)
        writer._segment._mapping.store(64, 0)
        assert reader.get("db.pool.size")[0] is Result.CORRUPT
        assert "the published version is gone" in str(reader.fault)
        for _ in range(3):
            assert reader.read(cell) == reader.read(fresh) == (Result.CORRUPT, None)
        assert library.snapshot_take(reader.handle, byref(Snapshot())) == Result.CORRUPT
        writer._segment._mapping.store(64, 1)
        assert reader.read(cell) == (Result.OK, 20)


@pytest.mark.parametrize("counter", [1, 0, 9])
def test_a_slot_that_never_becomes_whole(library: Library, place: Any, counter: int) -> None:
    writer = place.published(TREE)
    with library.reader("web", place.run) as reader:
        library.test_set_patience(reader.handle, 0)
        writer._segment._mapping.store(512 + 128, counter)
        assert reader.get("db")[0] is Result.CORRUPT
        assert "version 1 is named as latest, but its slot is not whole" in str(reader.fault)
        assert reader.status().retries >= 2000
        writer._segment._mapping.store(512 + 128, 2)
        assert reader.value("db.pool.size") == 20


SCALARS = [
    0,
    127,
    128,
    -1,
    -32,
    -33,
    -129,
    2**31,
    -(2**31),
    2**63,
    2**64 - 1,
    -(2**63),
    1.5,
    -0.0,
    2.0**64,
    True,
    None,
    "t",
    b"b",
]


@pytest.mark.parametrize("value", SCALARS, ids=repr)
def test_scalars_of_msgpack(library: Library, value: Any) -> None:
    encoded = msgpack.packb(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = isinstance(value, float) or whole

    def taken(kind: str, holder: Any, data: bytes = encoded) -> Any:
        result = getattr(library, f"as_{kind}")(data, len(data), byref(holder))
        assert result in (Result.OK, Result.WRONG_TYPE)
        return holder.value if result == Result.OK else None

    def text(data: bytes) -> bytes | None:
        start, length = ctypes.c_void_p(), ctypes.c_size_t()
        buffer = ctypes.create_string_buffer(data, len(data))
        result = library.as_string(ctypes.cast(buffer, ctypes.c_char_p), len(data), byref(start), byref(length))
        return ctypes.string_at(start.value, length.value) if result == Result.OK else None

    assert taken("int", ctypes.c_int64()) == (value if whole and -(2**63) <= value < 2**63 else None)
    assert taken("uint", ctypes.c_uint64()) == (value if whole and 0 <= value < 2**64 else None)
    assert taken("double", ctypes.c_double()) == (float(value) if number and float(value) == value else None)
    assert taken("bool", ctypes.c_bool()) == (value if isinstance(value, bool) else None)
    assert text(encoded) == (value.encode() if isinstance(value, str) else None)
    for wrong in (encoded + b"\0", encoded[:-1], b"", b"\xc1"):
        for kind, holder in (
            ("int", ctypes.c_int64()),
            ("uint", ctypes.c_uint64()),
            ("double", ctypes.c_double()),
            ("bool", ctypes.c_bool()),
        ):
            assert taken(kind, holder, wrong) is None
        assert text(wrong) is None


def test_parse_stores_as_many_parts_as_fit(library: Library) -> None:
    text = b"a.\"b.c\".'d'"
    parts, scratch = (Part * 2)(), ctypes.create_string_buffer(len(text))
    assert library.path_parse(text, len(text), scratch, parts, 2) == 3
    assert [ctypes.string_at(part.bytes, part.length) for part in parts] == [b"a", b"b.c"]
    assert all(part.kind == Kind.TEXT for part in parts)
    assert library.path_parse(text, len(text), scratch, None, 0) == 3
