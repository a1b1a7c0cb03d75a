"""Properties: the C reader finds what Python's look_up finds, with and without the index, and takes the same paths."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import subprocess
import sys
from ctypes import byref
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgpack
import pytest
from c_reader import Kind, Library, Part, Result, as_parts
from documents import Encoder, encoded, others, scalars, texts, trees
from hypothesis import example, given
from hypothesis import strategies as st

from shmconf import codec
from shmconf.directories import Directory
from shmconf.errors import PathError
from shmconf.index import build_index
from shmconf.paths import MISSING, format_path, look_up, parse_path
from shmconf.writer import Settings, Writer

# --- paths ------------------------------------------------------------------------------------------------------------

quotes = st.sampled_from(
    ['"', "'", "\\", ".", " ", "\t", "\n", "\r", "\x00", "\x7f", "\x1f", "é", "\U0001f600", "\u2028", "\x85"]
)
escapes = st.sampled_from(
    ["\\u00e9", "\\U0001F600", "\\x41", "\\ud800", "\\U00110000", "\\n", "\\e", "\\q", "\\u12", "\\x", "\\\\", '\\"']
)
pieces = quotes | escapes | st.text("abzAZ019_-", min_size=1, max_size=4) | st.text(max_size=2)
written = st.lists(texts | st.text(), min_size=1, max_size=5).map(format_path)
paths = (
    st.lists(pieces, max_size=12).map("".join)
    | st.lists(pieces, max_size=8).map(lambda inner: f'a."{"".join(inner)}"')
    | st.lists(pieces, max_size=8).map(lambda inner: f"'{''.join(inner)}' . b")
    | written
)


def is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def parsed_by_c(library: Library, text: str) -> tuple[str, ...] | None:
    data = text.encode()
    given_bytes = ctypes.create_string_buffer(data, len(data) or 1)  # of exactly its length, for the sanitizers
    scratch = ctypes.create_string_buffer(len(data) or 1)
    parts = (Part * (len(data) + 1))()
    count = library.path_parse(ctypes.cast(given_bytes, ctypes.c_char_p), len(data), scratch, parts, len(parts))
    if count < 0:
        return None
    assert all(part.kind == Kind.TEXT for part in parts[:count])
    return tuple(ctypes.string_at(part.bytes, part.length).decode() for part in parts[:count])


@given(text=paths.filter(is_utf8))
@example(text="")
@example(text="a.\"\\u0041\".'\\'.0")
@example(text='"a\\')
@example(text='"\\')
@example(text=" a\t. b ")
def test_the_same_texts_are_paths(library: Library, text: str) -> None:
    try:
        wanted: tuple[str, ...] | None = parse_path(text)
    except PathError:
        wanted = None
    assert parsed_by_c(library, text) == wanted


@given(parts=st.lists(texts | st.text(), min_size=1, max_size=20).filter(lambda parts: all(map(is_utf8, parts))))
def test_every_written_path_is_read_back(library: Library, parts: list[str]) -> None:
    assert parsed_by_c(library, format_path(parts)) == tuple(parts)


# --- look-ups ---------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> Any:
    """A document with its extensions as they are: dates and times as the text that they were encoded as."""
    return msgpack.unpackb(data, strict_map_key=False)


def plain(value: Any) -> Any:
    return decode(Encoder(random.Random(0), 1.0).encode(value))


def is_key(value: Any) -> bool:
    """Not an instant: those are equal though their texts differ."""
    return not isinstance(value, msgpack.ExtType) or value.code != 4


keys = scalars.map(plain).filter(is_key)


@st.composite
def asked(draw: st.DrawFn) -> tuple[bytes, list[tuple[Any, ...]]]:
    """A payload, and paths that lead somewhere in it, nearly somewhere, or nowhere."""
    payload = draw(encoded(trees))
    chance = random.Random(draw(st.integers(0, 2**32)))
    tree = decode(payload)
    found: list[tuple[Any, ...]] = [()]
    for _ in range(6):
        value, path = tree, []
        while isinstance(value, (dict, list)) and value and chance.random() < 0.85:
            part = (
                chance.choice([*filter(is_key, value)] or [None])
                if isinstance(value, dict)
                else chance.randrange(len(value))
            )
            path.append(part)
            value = look_up(value, (part,), None)
        found.append(tuple(path))
    for path in [*found]:
        stranger = draw(keys | others | st.integers(-3, 40))
        found += [(*path, stranger), (*path[:-1], stranger)]
        found.append(tuple(float(part) if isinstance(part, int) and abs(part) < 2**53 else part for part in path))
    return payload, found


def same(one: Any, other: Any) -> bool:
    return msgpack.packb(one) == msgpack.packb(other)


@given(asked=asked())
def test_c_finds_what_python_finds(library: Library, asked: tuple[bytes, list[tuple[Any, ...]]]) -> None:
    payload, wanted_paths = asked
    tree, index = decode(payload), build_index(payload)
    for path in wanted_paths:
        wanted = look_up(tree, path)
        for with_index in {index, b""}:
            found = library.value_in(payload, with_index, path, False)
            if wanted is MISSING:
                assert found is None, path
            else:
                assert found is not None, path
                assert same(decode(found), wanted)


@given(
    tree=st.recursive(
        keys,
        lambda inner: (
            st.lists(inner, max_size=40) | st.dictionaries(texts | st.integers(0, 5).map(str), inner, max_size=12)
        ),
        max_leaves=60,
    ).filter(lambda tree: isinstance(tree, dict)),
    seed=st.integers(0, 2**32),
)
def test_c_finds_what_python_finds_by_text(library: Library, tree: dict[Any, Any], seed: int) -> None:
    chance = random.Random(seed)
    payload = Encoder(chance, 0.9).encode(tree)
    index = build_index(payload)
    for _ in range(8):
        value, parts = tree, []
        while isinstance(value, (dict, list)) and value and chance.random() < 0.9:
            key = chance.choice([*value]) if isinstance(value, dict) else str(chance.randrange(len(value) + 1))
            parts.append(chance.choice([key, key, key, f"0{key}", "0", f"{key}0"]))
            value = look_up(value, (int(key) if isinstance(value, list) else key,), None)
        if not parts:
            continue
        wanted = look_up(tree, format_path(parts))
        found = library.value_in(payload, chance.choice([index, b""]), tuple(parts), True)
        if wanted is MISSING:
            assert found is None, parts
        else:
            assert found is not None, parts
            assert same(decode(found), wanted)


@given(tree=st.dictionaries(texts, keys | st.lists(keys, max_size=90), min_size=1, max_size=30))
def test_a_published_tree_is_read_through_the_segment(
    library: Library, tmp_path_factory: Any, tree: dict[str, Any]
) -> None:
    place = tmp_path_factory.mktemp("segment")
    payload = Encoder(random.Random(0), 0.9).encode(tree)
    with Writer(Directory(place, named=True), "web", Settings(1 << 20)) as writer:
        writer.publish(payload)
        with library.reader("web", place) as reader:
            for key, value in tree.items():
                text = format_path((key,))
                if "\0" in text:
                    continue
                result, encoded_value, _ = reader.get(text)
                assert result is Result.OK
                assert same(decode(encoded_value), value)
                if isinstance(value, list):
                    assert all(
                        same(reader.value(f"{text}.{number}"), inner)
                        for number, inner in enumerate(value)
                        if not isinstance(inner, msgpack.ExtType)
                    )


offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
instants = st.datetimes(timezones=offsets.map(timezone)) | st.datetimes(
    datetime(1999, 12, 30), datetime(2000, 3, 2), timezones=offsets.map(lambda by: timezone(timedelta(hours=by.days)))
)


@given(many=st.lists(instants, min_size=1, max_size=8), hours=st.integers(-20, 20), fill=st.booleans(), asked=instants)
def test_keys_that_are_instants_are_equal_whatever_their_offset(
    library: Library, many: list[datetime], hours: int, fill: bool, asked: datetime
) -> None:
    tree: dict[Any, Any] = {moment: str(moment) for moment in many} | ({"filler": "x" * 300} if fill else {})
    payload = codec.pack(tree)
    index = build_index(payload)
    assert bool(index) is (len(payload) > 256)
    elsewhere = timezone(timedelta(hours=hours))
    for moment in [*many, asked]:
        same_moments = [moment]
        with contextlib.suppress(OverflowError):
            same_moments += [moment.astimezone(elsewhere), moment + timedelta(microseconds=1)]
        for asked_for in same_moments:
            found = library.value_in(payload, index, (plain(asked_for),), False)
            assert (None if found is None else decode(found)) == tree.get(asked_for)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1979-05-27T07:32:00",
        "1979-05-27T07:32:00+",
        "1979-05-27T07:32:00+0",
        "1979-05-27T07:32:00+00:0x",
        "1979-05-27T07:32:00+00:00 ",
        "1979-05-27 07:32:00+00:00",
        "1979-13-27T07:32:00+00:00",
        "19790527T073200+00:00Z",
        "1979-05-27T07:32:00.+00:00",
        "1979-05-27T07:32:00.12+00:00",
        "1979-05-27T07:32:00+00:00\0",
        "9" * 48,
        "Z" * 300,
    ],
)
def test_a_text_that_is_no_instant_equals_none(library: Library, text: str) -> None:
    key = msgpack.ExtType(4, text.encode())
    payload = msgpack.packb({key: 1})
    assert library.value_in(payload, b"", (key,), False) is None
    assert library.value_in(payload, b"", (plain(datetime(1979, 5, 27, 7, 32, tzinfo=UTC)),), False) is None


# --- damage and malice ------------------------------------------------------------------------------------------------


def find(library: Library, payload: bytes, index: bytes, *path: str) -> tuple[Result, bytes]:
    offset, length = ctypes.c_size_t(), ctypes.c_size_t()
    result = library.find(
        payload, len(payload), index, len(index), as_parts(path, True), len(path), byref(offset), byref(length)
    )
    return Result(result), payload[offset.value : offset.value + length.value]


LARGE = msgpack.packb(
    {"map": {f"key-{number}": number for number in range(100)}, "list": [[number] * 9 for number in range(200)]}
)


@pytest.mark.parametrize("path", [("map", "key-50"), ("list", "100", "3"), ("list", "199")])
def test_an_index_that_lies_is_damage_or_another_value_but_no_crash(library: Library, path: tuple[str, ...]) -> None:
    index = build_index(LARGE)
    whole, value = find(library, LARGE, index, *path)
    assert whole is Result.OK
    results = set()
    for offset in range(len(index)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(index)
            changed[offset] ^= flip
            result, found = find(library, LARGE, bytes(changed), *path)
            results.add(result)
            assert result is not Result.OK or len(found) <= len(LARGE)
    assert results == {Result.OK, Result.MISSING, Result.CORRUPT}
    for length in range(1, len(index)):
        assert find(library, LARGE, index[:length], *path)[0] in (Result.OK, Result.CORRUPT), length
    unknown = (2).to_bytes(4, "little") + index[4:]
    assert find(library, LARGE, unknown, *path) == (Result.OK, value)
    for damaged in (index[:4], index[:4] + b"\xff" * 4 + index[8:]):  # nowhere to look for the directory
        assert find(library, LARGE, damaged, *path)[0] is Result.CORRUPT


def test_a_stride_that_no_writer_makes_is_damage(library: Library) -> None:
    payload = msgpack.packb({"list": [7] * 3000})
    index = bytearray(build_index(payload))
    stride = index.index((3000).to_bytes(4, "little") + (32).to_bytes(4, "little")) + 4
    assert find(library, payload, bytes(index), "list", "2999") == (Result.OK, b"\x07")
    for wrong in (0, 33, 64, 2**32 - 1):
        index[stride : stride + 4] = wrong.to_bytes(4, "little")
        assert find(library, payload, bytes(index), "list", "2999")[0] is Result.CORRUPT


def hash_table(entries: int, length: int) -> bytes:
    """A directory that has all its entries, which name nothing that anybody asks for, in every bucket."""
    head = (1).to_bytes(4, "little") + (1).to_bytes(4, "little")
    table = entries.to_bytes(4, "little") + (0).to_bytes(4, "little") + length.to_bytes(8, "little")
    return head + table + (0).to_bytes(4, "little") + entries.to_bytes(4, "little") + b"\xff" * 8 * entries


# A payload in which each of many small maps might be asked for in a directory that answers slowly.
MANY = 1_000_000
SLOW = """
import sys
from pathlib import Path
from c_reader import Library, Result
from test_values import MANY, find, hash_table

library = Library(Path(sys.argv[1]))
item = b"\\x80"
payload = {"map": b"\\xdf" + MANY.to_bytes(4, "big") + (b"\\xa1a" + item) * MANY + b"",
           "list": b"\\xdd" + MANY.to_bytes(4, "big") + item * MANY}[sys.argv[2]]
path = {"map": "b", "list": str(MANY - 1)}[sys.argv[2]]
result, value = find(library, payload, hash_table(MANY, len(payload)), path)
print(result.name)
"""


@pytest.mark.parametrize(("kind", "answer"), [("map", "MISSING"), ("list", "OK")])
def test_no_index_makes_a_look_up_take_for_ever(library: Library, kind: str, answer: str) -> None:
    """10^12 steps if each item were looked for in the directory; in a child, as nothing else could end it."""
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", SLOW, str(library.path), kind],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent / 'segment'}"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ran.stdout.split() == [answer], ran.stderr
