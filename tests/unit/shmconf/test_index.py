"""Both builders of the index give the same bytes for any payload, and refuse the same; FORMAT.md is their measure."""

from __future__ import annotations

import math
import random
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from documents import Encoder, documents
from hypothesis import example, given, settings
from hypothesis import strategies as st

import shmconf
from shmconf import codec
from shmconf.index import build_index, build_index_in_python

try:
    from shmconf._native import build_index as build_index_in_c
except ImportError:
    build_index_in_c = None

BUILDERS = {"python": build_index_in_python, "c": build_index_in_c}


@pytest.fixture(params=BUILDERS)
def build(request: pytest.FixtureRequest, require: Callable[[object, str], None]) -> Callable[[bytes], bytes]:
    require(BUILDERS[request.param], "the native module is not built")
    return BUILDERS[request.param]


@pytest.fixture(scope="session")
def in_c(require: Callable[[object, str], None]) -> Callable[[bytes], bytes]:
    require(build_index_in_c, "the native module is not built")
    return build_index_in_c


def test_both_builders_give_the_same_bytes_for_any_document(in_c: Callable[[bytes], bytes]) -> None:
    tables_seen: list[int] = []

    @given(documents)
    @example(codec.pack({f"{number:x}" * 9: number for number in range(3000)}))
    @example(codec.pack({number: [number] * number for number in range(-40, 300)}))
    @example(codec.pack({"around": ["x" * length for length in range(240, 270)]}))
    @example(codec.pack({"around": [["x" * length] for length in range(240, 270)]}))
    @example(codec.pack({"around": [{"x" * length: 0} for length in range(240, 270)]}))
    @example(codec.pack({"strides": [["x" * length] * 40 for length in range(80)]}))
    def check(payload: bytes) -> None:
        built = in_c(payload)
        assert built == build_index_in_python(payload)
        assert bool(built) is (len(payload) > 256)
        if built:
            tables_seen.append(len(tables(built)))

    check()
    assert len(tables_seen) >= 20, "too few documents were large enough to say anything"
    assert sum(seen >= 3 for seen in tables_seen) >= 10


def test_the_builder_in_use_is_that_of_the_mapping() -> None:
    payload = codec.pack({"a": ["x" * 300]})
    assert build_index(payload) == build_index_in_python(payload) != b""
    code = (
        "from shmconf import index; import sys; "
        "sys.exit(0 if index._build_index.__module__ == sys.argv[1] else index._build_index.__module__)"
    )
    for pure, module in (("1", "shmconf.index"), ("0", "shmconf._native" if build_index_in_c else "shmconf.index")):
        subprocess.run([sys.executable, "-c", code, module], env={"SHMCONF_PURE": pure}, check=True)


# --- what FORMAT.md says, on documents made for it --------------------------------------------------------------------


def document_of(length: int) -> bytes:
    return codec.pack({"a": "x" * (length - (5 if length <= 260 else 6))})


@pytest.mark.parametrize(("length", "has_one"), [(255, False), (256, False), (257, True), (300, True)])
def test_a_payload_of_more_than_256_bytes_has_an_index(
    build: Callable[[bytes], bytes], length: int, has_one: bool
) -> None:
    payload = document_of(length)
    assert len(payload) == length
    assert bool(build(payload)) is has_one


def tables(index: bytes) -> dict[int, int]:
    """The directory: offset of the map or list -> position of its table."""
    kind, position = struct.unpack_from("<II", index)
    assert kind == 1
    n, bits, _ = struct.unpack_from("<IIQ", index, 8 * position)
    start = 8 * position + 16 + (4 * ((1 << bits) + 1) + 7) // 8 * 8
    assert start + 8 * n == len(index)
    return {word >> 32: word & 0xFFFFFFFF for (word,) in struct.iter_unpack("<Q", index[start:])}


def test_maps_and_lists_have_tables_from_257_bytes_on(build: Callable[[bytes], bytes]) -> None:
    # A map of one pair: its head, a key of 1 byte, and a text with a head of 2 bytes or 3.
    maps = [{"": "x" * length} for length in range(245, 255)]
    encoded = [codec.pack(inner) for inner in maps]
    index = build(codec.pack({"maps": maps}))
    first = 1 + 5 + 1
    starts = [first + sum(map(len, encoded[:number])) for number in range(len(maps))]
    expected = [start for start, inner in zip(starts, encoded, strict=True) if len(inner) > 256]
    assert 0 < len(expected) < len(maps)
    assert any(len(inner) == 256 for inner in encoded)
    assert any(len(inner) == 257 for inner in encoded)
    positions = tables(index)
    assert sorted(positions) == [0, 6, *expected]
    assert sorted(positions, key=positions.__getitem__) == [*expected, 6, 0], "in the order in which they end"


def test_of_what_ends_at_the_same_byte_the_inner_table_comes_first(build: Callable[[bytes], bytes]) -> None:
    positions = tables(build(codec.pack([[["x" * 300]]])))
    assert sorted(positions, key=positions.__getitem__) == [2, 1, 0]


def hash_of(build: Callable[[bytes], bytes], key: bytes) -> int:
    """The tag of an encoded key, in a map of it and nothing else."""
    index = build(b"\x81" + key + codec.pack("x" * 300))
    return int.from_bytes(index[8 + 16 + 8 + 4 : 8 + 16 + 8 + 8], "little")


def of_number(number: int) -> int:
    return zlib.crc32((number % 2**64).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (codec.pack("a key"), zlib.crc32(b"a key")),
        (codec.pack("naïve " * 20), zlib.crc32("naïve ".encode() * 20)),
        (b"\xdb\0\0\0\1a", zlib.crc32(b"a")),
        (codec.pack(b"a key"), zlib.crc32(b"a key")),
        (codec.pack(""), 0),
        (codec.pack(date(2026, 11, 22)), zlib.crc32(b"2026-11-22")),
        (codec.pack(time(7, 32)), zlib.crc32(b"07:32:00")),
        (codec.pack(datetime(1979, 5, 27, 7, 32)), zlib.crc32(b"1979-05-27T07:32:00")),
        (codec.pack(datetime(1979, 5, 27, 7, 32, tzinfo=UTC)), 0),
        (b"\xd4\x05x", 0),
        (b"\xd4\x01x", zlib.crc32(b"x")),
        (b"\xc0", 0),
        (codec.pack(7), of_number(7)),
        (b"\xd3" + bytes(7) + b"\7", of_number(7)),
        (codec.pack(-7), of_number(-7)),
        (codec.pack(-(2**63)), of_number(2**63)),
        (codec.pack(2**64 - 1), of_number(-1)),
        (codec.pack(True), of_number(1)),
        (codec.pack(False), of_number(0)),
        (codec.pack(1.0), of_number(1)),
        (codec.pack(-1.0), of_number(-1)),
        (codec.pack(-0.0), of_number(0)),
        (codec.pack(2.0**63), of_number(2**63)),
        (b"\xca" + struct.pack(">f", 16.0), of_number(16)),
        (b"\xca" + struct.pack(">f", 0.1), zlib.crc32(struct.pack("<d", 0.10000000149011612))),
        (codec.pack(2.0**64), zlib.crc32(struct.pack("<d", 2.0**64))),
        (codec.pack(0.5), zlib.crc32(struct.pack("<d", 0.5))),
        (codec.pack(math.inf), zlib.crc32(struct.pack("<d", math.inf))),
        (codec.pack(math.nan), 0),
        (b"\xca\x7f\x80\0\1", 0),  # a signalling NaN
    ],
)
def test_the_hash_of_a_key(build: Callable[[bytes], bytes], key: bytes, expected: int) -> None:
    assert hash_of(build, key) == expected


# --- what is no document ----------------------------------------------------------------------------------------------

FILL = codec.pack("x" * 300)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1" * 300,
        b"\xc0" + bytes(300),
        FILL + b"\xc0",
        b"\x91" * 300,
        b"\x92" + FILL,
        b"\x81" + FILL,
        b"\xdf\xff\xff\xff\xff" + FILL,
        b"\xdd\xff\xff\xff\xff" + FILL,
        b"\x91" * 256 + b"\xdd",
        b"\x91" * 256 + b"\xda\0",
        b"\x91" * 256 + b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff" + bytes(300),
        b"\xc6\0\0\1\0" + bytes(255),
        b"\x82" + FILL + b"\xc0\x90\xc0",
        b"\x81\x80" + FILL,
        b"\x81\x91\xc0" + FILL,
        b"\x81\xdc\0\1\xc0" + FILL,
    ],
)
def test_what_is_no_document_is_a_value_error(build: Callable[[bytes], bytes], payload: bytes) -> None:
    assert len(payload) > 256
    with pytest.raises(ValueError, match="not one msgpack document"):
        build(payload)
    assert not is_document(payload)


def is_document(payload: bytes) -> bool:
    try:
        codec.unpack(payload)
    except ValueError:
        return False
    return True


def outcome(build: Callable[[bytes], bytes], payload: bytes) -> bytes | None:
    try:
        return build(payload)
    except ValueError:
        return None


def damaged(chance: random.Random, payload: bytes) -> Iterator[bytes]:
    yield payload[: chance.randrange(len(payload) + 1)]
    yield payload + chance.randbytes(1)
    changed = bytearray(payload)
    for _ in range(chance.randrange(1, 6)):
        changed[chance.randrange(len(changed))] = chance.choice([chance.randrange(256), *b"\x91\xc1\xdd\xdf\xdb\xc9"])
    yield bytes(changed)
    yield bytes(chance.choice([0x81, 0x91, 0x92, 0xA1, 0xC0, 0xDC, 0xDE, 0x00]) for _ in range(300))
    yield chance.randbytes(400)


@given(documents, st.integers(0, 2**32))
def test_both_builders_agree_on_damaged_payloads(in_c: Callable[[bytes], bytes], payload: bytes, seed: int) -> None:
    for hostile in damaged(random.Random(seed), payload):
        told = outcome(in_c, hostile)
        assert told == outcome(build_index_in_python, hostile)
        if told is None:
            assert not is_document(hostile)


def test_both_builders_refuse_every_truncation_of_a_document(in_c: Callable[[bytes], bytes]) -> None:
    tree = {"list": [[1, 2.5, None, True, -7, 2**40]] * 30, "map": {str(n): {n: b"b"} for n in range(40)}}
    payload = Encoder(random.Random(5), 0.3).encode(tree)
    for length in range(257, len(payload)):
        assert outcome(in_c, payload[:length]) is None
        assert outcome(build_index_in_python, payload[:length]) is None
    assert in_c(payload)


@pytest.mark.parametrize("other", [bytearray(300), memoryview(bytes(300)), "text", None])
def test_the_native_builder_takes_bytes_that_nobody_can_change(in_c: Callable[[Any], bytes], other: object) -> None:
    with pytest.raises(TypeError):
        in_c(other)


SANITIZED = ("-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Path:
    """index_harness.c with the builder in C, built so that any access outside an object ends it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    require(compiler, "a C compiler")
    here, package = Path(__file__).parent, Path(shmconf.__file__).parent
    require((package / "_index.c").exists(), "the sources of the native module")
    program = tmp_path_factory.mktemp("sanitized") / "index_harness"
    sources = [str(here / "index_harness.c"), str(package / "_index.c")]
    built = subprocess.run(
        [str(compiler), *SANITIZED, f"-I{package}", *sources, "-o", str(program)], capture_output=True, text=True
    )
    require(built.returncode == 0, f"AddressSanitizer and UBSan: {built.stderr}")
    return program


def test_the_builder_in_c_touches_nothing_beyond_a_hostile_payload(sanitized: Path) -> None:
    refused: list[bool] = []

    @settings(max_examples=25)
    @given(st.lists(documents, min_size=1, max_size=20), st.integers(0, 2**32))
    def check(payloads: list[bytes], seed: int) -> None:
        chance = random.Random(seed)
        fed = [*payloads, *(hostile for payload in payloads for hostile in damaged(chance, payload))]
        fed += [b"\x91" * 300 + payload for payload in fed]  # large enough to be looked at, whatever it is
        ran = subprocess.run(
            [str(sanitized)], input=b"".join(struct.pack("<I", len(one)) + one for one in fed), capture_output=True
        )
        assert ran.returncode == 0, ran.stderr.decode(errors="replace")
        at = 0
        for payload in fed:
            result, length = struct.unpack_from("<II", ran.stdout, at)
            built = ran.stdout[at + 8 : at + 8 + length]
            at += 8 + length
            expected = outcome(build_index_in_python, payload)
            assert (result, built) == ((1, b"") if expected is None else (0, expected))
            refused.append(expected is None)
        assert at == len(ran.stdout)

    check()
    assert 200 < sum(refused) < len(refused) - 200


# --- size and work ----------------------------------------------------------------------------------------------------


def sample(services: int = 10_000) -> dict[str, Any]:
    """10,000 services of 8 fields: 1.7 MB packed."""
    return {
        "services": {
            f"service-{number:05d}": {
                "host": f"host-{number % 97}.example.internal",
                "port": 8000 + number % 1000,
                "weight": number / 7,
                "enabled": number % 3 == 0,
                "tags": ["blue", "canary", f"zone-{number % 7}"],
                "timeout_ms": 250 + number % 50,
                "owner": f"team-{number % 31}@example.com",
                "limits": {"cpu": number % 16, "memory": f"{number % 64}Gi"},
            }
            for number in range(services)
        }
    }


def test_the_index_of_the_sample_is_at_most_a_quarter_of_it(build: Callable[[bytes], bytes]) -> None:
    payload = codec.pack(sample())
    assert 1_600_000 < len(payload) < 1_800_000
    assert 0 < len(build(payload)) <= len(payload) // 4


def test_nesting_of_any_depth_costs_no_recursion(build: Callable[[bytes], bytes]) -> None:
    depth = 100_000
    index = build(b"\x91" * depth + b"\xc0")
    assert len(tables(index)) == depth + 1 - 256
    index = build(b"\x81\xc0" * depth + b"\xc0")
    assert len(tables(index)) == (2 * depth + 1 - 256 + 1) // 2


CRC = [0] * 256
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = _crc >> 1 ^ (0xEDB88320 if _crc & 1 else 0)
    CRC[_byte] = _crc
FROM_TOP = {crc >> 24: byte for byte, crc in enumerate(CRC)}


def colliding(prefix: bytes, crc: int) -> bytes:
    """`prefix` and 4 bytes, whose CRC-32 is `crc`."""
    wanted = crc ^ 0xFFFFFFFF
    indices = []
    for _ in range(4):  # which entries of the table lead to the wanted end
        index = FROM_TOP[wanted >> 24]
        indices.append(index)
        wanted = ((wanted ^ CRC[index]) << 8 | 0) & 0xFFFFFFFF
    state = zlib.crc32(prefix) ^ 0xFFFFFFFF
    tail = bytearray()
    for index in reversed(indices):
        tail.append((state ^ index) & 0xFF)
        state = state >> 8 ^ CRC[index]
    return prefix + bytes(tail)


def test_keys_made_to_collide_cost_what_others_do(build: Callable[[bytes], bytes]) -> None:
    """200,000 keys in one bucket: 20 billion comparisons, had anything to be compared or searched."""
    made = [colliding(b"%06d" % number, 0x12345678) for number in range(200_000)]
    assert len(set(made)) == len(made)
    assert {zlib.crc32(key) for key in made} == {0x12345678}
    payload = b"\xdf" + len(made).to_bytes(4, "big") + b"".join(b"\xc4\x0a" + key + b"\xc0" for key in made)
    index = build(payload)
    n, bits, length = struct.unpack_from("<IIQ", index, 8)
    assert (n, bits, length) == (200_000, 16, len(payload))
    starts = struct.unpack_from(f"<{(1 << bits) + 1}I", index, 8 + 16)
    assert set(starts) == {0, n}
    entries = 8 + 16 + (4 * ((1 << bits) + 1) + 7) // 8 * 8
    offsets = [word & 0xFFFFFFFF for (word,) in struct.iter_unpack("<Q", index[entries : entries + 8 * n])]
    assert offsets == [5 + 13 * number for number in range(n)]


def test_many_threads_build_at_once(build: Callable[[bytes], bytes]) -> None:
    payloads = [codec.pack({"n": [number] * 2000, "fill": "x" * 70_000}) for number in range(8)]
    expected = [build_index_in_python(payload) for payload in payloads]
    got: dict[int, list[bytes]] = {}
    barrier = threading.Barrier(len(payloads))

    def work(number: int) -> None:
        barrier.wait()
        got[number] = [build(payloads[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(payloads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(got[number]) for number in range(len(payloads))] == [{index} for index in expected]
