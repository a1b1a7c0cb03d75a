"""Reading one file: whole or not at all, whatever happens to it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmconf_agent.disk import Reading
from shmconf_agent.formats import Limits
from shmconf_agent.reading import read
from shmconf_agent.survey import Survey


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "base.yaml"
    path.write_bytes(b"a: 1\n")
    os.utime(path, ns=(10**18, 10**18))
    return path


def read_while(monkeypatch: pytest.MonkeyPatch, name: str, path: Path, meanwhile: Callable[[], object]) -> Reading:
    """Reads it, and has something happen just before the first call of that function of os."""
    really = getattr(os, name)

    def interrupted(*arguments: object) -> object:
        monkeypatch.setattr(os, name, really)
        meanwhile()
        return really(*arguments)

    monkeypatch.setattr(os, name, interrupted)
    return read(str(path))


def replace(path: Path) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(b"b: 2\n")
    aside.replace(path)


def test_a_file_that_stands_still(file: Path) -> None:
    reading = read(str(file))
    assert (reading.data, reading.failure, reading.steady) == (b"a: 1\n", None, True)
    assert reading.stamp == Survey().resolve(str(file)).stamp


@pytest.mark.parametrize("call", ["fstat", "read"])
def test_a_file_written_while_it_is_read_is_not_steady(file: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    reading = read_while(monkeypatch, call, file, lambda: file.write_bytes(b"b: 2\n"))
    assert reading.steady is (call == "fstat")  # before the first fstat it is just another file


def test_a_file_replaced_while_it_is_read_was_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read_while(monkeypatch, "read", file, lambda: replace(file))
    assert (reading.data, reading.steady) == (b"a: 1\n", True)
    assert reading.stamp != Survey().resolve(str(file)).stamp


def test_a_file_written_and_then_replaced_while_it_is_read_is_not_steady(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both() -> None:
        file.write_bytes(b"torn")
        replace(file)

    assert not read_while(monkeypatch, "read", file, both).steady


@pytest.mark.parametrize("vanish", [os.unlink, lambda path: (os.unlink(path), os.symlink("elsewhere", path))])
def test_a_file_that_vanishes_before_it_is_opened_is_no_failure(
    file: Path, monkeypatch: pytest.MonkeyPatch, vanish: Callable[[str], object]
) -> None:
    reading = read_while(monkeypatch, "open", file, lambda: vanish(str(file)))
    assert reading == Reading(None, None, None, False)


def test_a_pipe_put_in_its_place_does_not_block(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe() -> None:
        file.unlink()
        os.mkfifo(file)

    reading = read_while(monkeypatch, "open", file, pipe)
    assert (reading.data, reading.steady) == (None, False)
    assert str(read(str(file)).failure).startswith("is a named pipe, not a regular file; ")


def test_a_file_that_outgrows_the_limit_while_it_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.read

    def interrupted(descriptor: int, size: int) -> bytes:
        monkeypatch.setattr(os, "read", really)
        with open(file, "ab") as opened:
            opened.write(b"x" * 100_000)
        return really(descriptor, size)

    monkeypatch.setattr(os, "read", interrupted)
    reading = read(str(file), Limits(max_file_bytes=10))
    assert reading.data is None
    assert reading.failure is not None


def test_a_large_file_is_read_whole(file: Path) -> None:
    data = os.urandom(3_000_000)
    file.write_bytes(data)
    assert read(str(file)).data == data


def test_paths_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.yaml").write_bytes(b"")
    (root / "up").symlink_to("a/b/../b/.")
    (root / "a" / "abs").symlink_to(root / "up")
    for way in (
        "a/b/x.yaml",
        "up/x.yaml",
        "a/abs/x.yaml",
        "a/../up/../b/x.yaml",
        "a//b/./x.yaml",
        "up/../../a/abs/x.yaml",
    ):
        path = f"{root}/{way}"
        standing = Survey().resolve(path)
        assert standing.stamp is not None
        assert standing.stamp.real == os.path.realpath(path)
        assert standing.entries[-1] == standing.stamp.real
    assert Survey().resolve("/").is_directory
    assert Survey().resolve(f"{root}/a/b/x.yaml/more").missing
