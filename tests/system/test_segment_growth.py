"""A segment that grows to 20 MB and goes back under readers, and one on a full file system (acceptance 6)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmconf
from shmconf import codec
from shmconf.directories import Directory
from shmconf.errors import SegmentFull
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer

KIB, MIB = 1 << 10, 1 << 20

READER = """
import os, sys, shmconf
last = seen = 0
sizes = set()
with shmconf.attach("web", directory=sys.argv[1]) as reader:
    print("reading", flush=True)
    while True:
        snapshot = reader.snapshot()
        tree = snapshot.to_dict()
        number, fill = tree["n"], tree["fill"]
        assert tree["size"] == len(fill) and fill == (f"{number:010d}" * (len(fill) // 10 + 1))[: len(fill)], "torn"
        assert snapshot.version >= last, "a version went back"
        assert reader.get("end") is not None
        seen += snapshot.version > last
        last = snapshot.version
        sizes.add(len(fill))
        if tree["end"]:
            break
        if sys.argv[2] == "wait":
            reader.wait_version(after=last, timeout=60)
print(seen, len(sizes), flush=True)
"""


def tree(number: int, size: int, end: bool = False) -> bytes:
    fill = (f"{number:010d}" * (size // 10 + 1))[:size]
    return codec.pack({"n": number, "size": size, "fill": fill, "end": end})


def start_reader(place: Path, way: str, pure: bool) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", READER, str(place), way],
        env={**os.environ, "SHMCONF_PURE": "1" if pure else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n", process.communicate()
    return process


def test_a_segment_grows_to_20_mb_and_goes_back_under_readers(tmp_path: Path) -> None:
    sizes = [10 * KIB, 50 * KIB, 300 * KIB, MIB, 3 * MIB, 7 * MIB, 9 * MIB, 14 * MIB, 20 * MIB]
    course = [size for size in [*sizes, *reversed(sizes)] for _ in range(6)]
    with Writer(Directory(tmp_path, named=True), "web", Settings(256 * MIB), state_directory=tmp_path / "s") as writer:
        number = writer.publish(tree(1, 10 * KIB))
        ways = (("look", False), ("wait", False), ("look", True))
        readers = [start_reader(tmp_path, way, pure) for way, pure in ways]
        try:
            largest = 0
            for size in course:
                number += 1
                content = tree(number, size)
                largest = max(largest, len(content) + 200)
                assert writer.publish(content) == number
                assert writer.size <= 6 * largest + 64 * KIB
                assert all(reader.poll() is None for reader in readers), [reader.communicate() for reader in readers]
            grown = writer.size
            for _ in range(30):  # small again: the room that is there is used, none is added
                number += 1
                writer.publish(tree(number, 10 * KIB))
            assert writer.size == grown <= 6 * largest + 64 * KIB
            writer.publish(tree(number + 1, 10 * KIB, end=True))
            for reader in readers:
                out, err = reader.communicate(timeout=120)
                assert reader.returncode == 0, err
                seen, distinct_sizes = map(int, out.split())
                assert seen >= 5, "there was no overlap"
                assert distinct_sizes >= 3
        finally:
            for reader in readers:
                reader.kill()
                reader.communicate()


# --- a full file system -------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, require: Callable[[object, str], None]) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    require(os.geteuid() == 0, "mounting a file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(place)], capture_output=True, text=True
    )
    require(mounted.returncode == 0, f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill_up(place: Path) -> Path:
    filler = place / "filler"
    with open(filler, "ab", buffering=0) as file:
        for size in (64 * KIB, 4 * KIB, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    assert os.statvfs(place).f_bavail == 0
    return filler


def open_writer(place: Path, tmp_path: Path) -> Writer:
    return Writer(Directory(place, named=True), "web", Settings(64 * MIB), state_directory=tmp_path / "state")


def as_seen_by_a_fresh_process(place: Path) -> tuple[int, int]:
    code = 'import sys, shmconf; r = shmconf.attach("web", directory=sys.argv[1]); print(r.version, r["n"]); r.close()'
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    version, number = map(int, done.stdout.split())
    return version, number


def test_a_full_file_system_refuses_the_publication_and_nothing_else(small: Path, tmp_path: Path) -> None:
    with open_writer(small, tmp_path) as writer:
        writer.publish(tree(1, 10 * KIB))
        with shmconf.attach("web", directory=small) as reader:
            before = writer.size
            for _ in range(3):
                with pytest.raises(SegmentFull, match="No space left on device; the published version is untouched"):
                    writer.publish(tree(2, 2 * MIB))
            assert writer.size == before, "a refused publication made the file longer"
            assert (reader["n"], as_seen_by_a_fresh_process(small)) == (1, (1, 1))
            writer.set_status(AgentStatus(state="running", last_error="no room").encode())
            writer.beat()
            assert reader.status().last_error == "no room"
            assert writer.publish(tree(2, 20 * KIB)) == 2
            assert (reader["n"], as_seen_by_a_fresh_process(small)) == (2, (2, 2))
            # Now nothing at all is left; what the segment has already is used over and over.
            for number in range(3, 8):
                writer.publish(tree(number, 20 * KIB))
            filler = fill_up(small)
            for number in range(8, 40):
                assert writer.publish(tree(number, 20 * KIB)) == number
                assert reader["n"] == number
            with pytest.raises(SegmentFull):
                writer.publish(tree(40, 200 * KIB))
            assert reader.snapshot().version == 39
            filler.unlink()
            assert writer.publish(tree(40, 200 * KIB)) == 40
            assert (reader["n"], as_seen_by_a_fresh_process(small)) == (40, (40, 40))


def test_an_agent_starts_again_on_a_full_file_system(small: Path, tmp_path: Path) -> None:
    with open_writer(small, tmp_path) as writer:
        for number in range(1, 8):
            writer.publish(tree(number, 20 * KIB))
    fill_up(small)
    (small / "web.lock").write_bytes(b"")
    fill_up(small)
    with open_writer(small, tmp_path) as writer:
        assert writer.version == 7
        writer.set_status(AgentStatus(state="running").encode())
        assert writer.publish(tree(8, 20 * KIB)) == 8
        assert as_seen_by_a_fresh_process(small) == (8, 8)


def test_a_new_segment_on_a_full_file_system_is_refused_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    filler = fill_up(small)
    for _ in range(2):
        with pytest.raises(SegmentFull, match="No space left on device"):
            open_writer(small, tmp_path)
    assert {entry.name for entry in small.iterdir()} <= {"filler", "web.lock"}
    filler.unlink()
    with open_writer(small, tmp_path) as writer:
        assert writer.publish(tree(1, KIB)) == 1


def test_a_removed_segment_comes_back_when_there_is_room_again(small: Path, tmp_path: Path) -> None:
    with open_writer(small, tmp_path) as writer:
        writer.publish(tree(1, 100 * KIB))
        with shmconf.attach("web", directory=small) as reader:
            (small / "web.shmconf").unlink()
            filler = fill_up(small)  # what was removed is still there for its readers, and takes its room
            for _ in range(3):
                with pytest.raises(SegmentFull):
                    writer.keep_linked()
                assert reader["n"] == 1
                assert not reader.status().retired, "retired, though there is no successor"
            assert not list(small.glob(".*"))
            filler.unlink()
            assert writer.keep_linked()
            assert reader.wait_version(after=1, timeout=60) == 2
            assert reader["n"] == 1


def test_readers_on_a_full_file_system_are_not_harmed(small: Path, tmp_path: Path) -> None:
    """No store and no load may end in a SIGBUS, which would kill the process."""
    with open_writer(small, tmp_path) as writer:
        number = 1
        writer.publish(tree(1, 5 * KIB))
        readers = [start_reader(small, way, pure=pure) for way, pure in (("look", False), ("wait", True))]
        refused = 0
        ends = time.monotonic() + 2
        try:
            while time.monotonic() < ends:
                for size in (5 * KIB, 120 * KIB, 900 * KIB, 40 * KIB, 300 * KIB):
                    try:
                        writer.publish(tree(number + 1, size))
                        number += 1
                    except SegmentFull:
                        refused += 1
                assert all(reader.poll() is None for reader in readers), [reader.communicate() for reader in readers]
            writer.publish(tree(number + 1, KIB, end=True))
            for reader in readers:
                _, err = reader.communicate(timeout=120)
                assert reader.returncode == 0, err
        finally:
            for reader in readers:
                reader.kill()
                reader.communicate()
        assert refused > 10
        assert number > 10

