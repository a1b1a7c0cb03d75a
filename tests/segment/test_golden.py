"""Stored segments: every reader finds the same in them, and today's writer gives the same bytes again.

A file here is never made anew to let a test pass: readers and writers of other releases and languages are held to it.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from make_golden import GOLDEN, GOLDEN_DIRECTORY, as_json, from_json
from readers import READERS, Parts
from second_reader import SecondReader

from shmconf import codec
from shmconf.attachment import Attachment
from shmconf.directories import Directory
from shmconf.errors import Error
from shmconf.index import build_index
from shmconf.writer import Settings, Writer

STORED = sorted(path.name.removesuffix(".shmconf.gz") for path in GOLDEN_DIRECTORY.glob("*.shmconf.gz"))


def stored(name: str) -> bytes:
    return gzip.decompress((GOLDEN_DIRECTORY / f"{name}.shmconf.gz").read_bytes())


def expected(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN_DIRECTORY / f"{name}.json").read_text(encoding="utf-8")))


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str], Path]:
    """`unpacked(name)` is the stored segment as a file that readers trust."""

    def unpack(name: str) -> Path:
        path = tmp_path / "golden.shmconf"
        path.write_bytes(stored(name))
        path.chmod(0o640)
        return path

    return unpack


def some_of(many: list[Any]) -> list[Any]:
    """All of few; of many the ends and some between."""
    return many if len(many) <= 60 else [*many[:40], *many[40:-8:97], *many[-8:]]


def queries(tree: Any, path: Parts = ()) -> Iterator[tuple[Parts, bytes | None]]:
    """Paths and what is there: the value as msgpack, None for a miss."""
    if path:
        yield path, codec.pack(tree)
    if isinstance(tree, dict):
        for key in some_of(list(tree)):
            yield from queries(tree[key], (*path, key))
        for stranger in ("no such key", 10**9, -0.25, b"no such key", *(str(key).encode() for key in list(tree)[:9])):
            if stranger not in tree:
                yield (*path, stranger), None
    elif isinstance(tree, list):
        for number in some_of(list(range(len(tree)))):
            yield from queries(tree[number], (*path, number))
        yield from (((*path, stranger), None) for stranger in (len(tree), -1, "0", True, None, len(tree) + 10**6))
    else:
        yield from (((*path, stranger), None) for stranger in ("a", 0))


def test_all_golden_segments_are_stored_and_small() -> None:
    assert sorted(GOLDEN) == STORED
    for path in GOLDEN_DIRECTORY.iterdir():
        assert path.stat().st_size < 120_000, path


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_finds_the_same(
    reader: str, name: str, unpacked: Callable[[str], Path], require: Callable[[object, str], None]
) -> None:
    if reader == "library, native":
        require(importlib.util.find_spec("shmconf._native"), "the native module is not built")
    if reader == "C":
        require(shutil.which("gcc"), "gcc is needed for the C reader")
    told = expected(name)
    tree = from_json(told.pop("tree"))
    asked = list(queries(tree)) if tree else [(("a",), None)]
    assert tree is None or sum(value is None for _, value in asked) >= 5
    read = READERS[reader](unpacked(name), [path for path, _ in asked])
    assert {field: getattr(read, field) for field in told} == told
    for (path, value), found in zip(asked, read.values, strict=True):
        assert found == value, path


@pytest.mark.parametrize("name", STORED)
def test_today_s_writer_gives_the_stored_bytes(name: str, tmp_path: Path) -> None:
    GOLDEN[name].make(tmp_path / "made")
    made, kept = (tmp_path / "made").read_bytes(), stored(name)
    assert len(made) == len(kept)
    different = [offset for offset in range(0, len(made), 8) if made[offset : offset + 8] != kept[offset : offset + 8]]
    assert not different, f"the words at {different[:20]} and so on"
    assert GOLDEN[name].expected() == expected(name)
    tree = GOLDEN[name].tree
    assert codec.pack(from_json(as_json(tree))) == codec.pack(tree)


def test_the_stored_segments_are_what_they_are_here_for() -> None:
    """Else a mistake in their making would leave a case untested, and nobody would see it."""

    def words(name: str) -> Callable[[int], int]:
        data = stored(name)
        return lambda offset: int.from_bytes(data[offset : offset + 8], "little")

    def slot(version: int) -> int:
        return 512 + 128 * (version % 4)

    index_length = 24
    assert words("plain")(slot(1) + index_length) == 0
    assert words("indexed")(slot(6) + index_length) > 1000
    assert words("without-index")(slot(2) + 16) > 10_000
    assert words("without-index")(slot(2) + index_length) == 0
    assert words("retired")(64) == 2 | 1 << 63
    assert words("half-written")(64) == 4
    assert words("half-written")(slot(5)) == 9
    assert words("empty")(64) == words("empty")(slot(1)) == 0
    assert words("last-versions")(64) == 2**63 - 1
    assert words("last-versions")(slot(2**63 - 1)) == 2**64 - 2
    assert len(stored("grown")) > 4 * len(stored("plain"))
    assert words("status")(256) == 2


def test_no_version_follows_the_last(unpacked: Callable[[str], Path]) -> None:
    path = unpacked("last-versions")
    before = path.read_bytes()
    with Writer(Directory(path.parent, named=True), "golden", Settings(1 << 20)) as writer:
        with pytest.raises(Error, match="used up"):
            writer.publish(codec.pack({"next": 1}))
        assert writer.version == 2**63 - 1
    assert path.read_bytes()[512:] == before[512:]


@pytest.mark.parametrize("name", [name for name in STORED if name != "last-versions"])
def test_today_s_writer_takes_them_over(name: str, unpacked: Callable[[str], Path]) -> None:
    path = unpacked(name)
    before = SecondReader(path)
    directory = Directory(path.parent, named=True)
    with Writer(directory, "golden", Settings(1 << 20)) as writer:
        replaced = before.retired  # a retired segment's successor has the same content under the next number
        assert (writer.version, writer.epoch == before.epoch) == (before.version + replaced, not replaced)
        taken = Attachment.open(directory, "golden").copy_latest()
        if (latest := before.latest()) is not None:
            assert taken is not None
            assert taken.payload == latest.payload
            assert taken.index == (build_index(latest.payload) if replaced else latest.index)
        assert writer.publish(codec.pack({"next": ["x"] * 300})) == before.version + replaced + 1
    found = SecondReader(path).latest()
    assert found is not None
    assert found.find(("next", 299)) == b"\xa1x"
