"""A crash before every single store and file operation of the writer (acceptance 5; segment invariants 2, 7, 8, 12).

A store-recording storage counts each step that changes the world (a word stored, a piece of a copy, an allocation, a
rename) and stops the writer before the N-th, as SIGKILL would. For every N, a fresh reader must find the version
before or the version after, whole, and a fresh writer must go on from there with no room lost.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmconf import codec, layout
from shmconf.attachment import Attachment
from shmconf.directories import Directory
from shmconf.errors import SegmentNotFound
from shmconf.index import build_index
from shmconf.reader import read_status
from shmconf.status import AgentStatus
from shmconf.storage import Storage
from shmconf.writer import Settings, Writer

SMALL, LARGE = 600, 30_000
STEPS_AT_LEAST = {
    "publication": 30,
    "growth": 30,
    "status": 8,
    "replacement": 40,
    "larger max_bytes": 40,
    "takeover": 2,
}


class Crash(BaseException):
    """The writer's process ends here."""


class CrashingMapping:
    """A real mapping whose every store is a step; copies are stored in pieces, so that a crash can fall inside."""

    def __init__(self, real, step: Callable[[], None], written: Callable[[int, int], None]) -> None:
        self._real, self._step, self._written = real, step, written

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def store(self, offset: int, value: int) -> None:
        self._step()
        self._real.store(offset, value)

    def store32(self, offset: int, value: int) -> None:
        self._step()
        self._real.store32(offset, value)

    def wake(self, offset: int):
        self._step()
        return self._real.wake(offset)

    def write(self, offset: int, data: bytes) -> None:
        # Single words where they are few; large copies in about 16 pieces, each of whole words.
        piece = max(8, len(data) // 16 // 8 * 8) if len(data) > 256 else 8
        for start in range(0, len(data), piece):
            self._step()
            self._written(offset + start, len(data[start : start + piece]))
            self._real.write(offset + start, data[start : start + piece])


class CrashingStorage(Storage):
    """Counts steps; raises Crash instead of step number `crash_at`."""

    def __init__(self, crash_at: int | None) -> None:
        self.steps, self.crash_at, self.armed = 0, crash_at, False
        self.written: list[tuple[int, int]] = []  # offset and length of each piece of a copy, while armed

    def step(self) -> None:
        if self.armed:
            if self.steps == self.crash_at:
                raise Crash
            self.steps += 1

    def create(self, path):
        self.step()
        return super().create(path)

    def set_access(self, fd, mode, gid):
        self.step()
        super().set_access(fd, mode, gid)

    def allocate(self, fd, offset, length):
        self.step()
        super().allocate(fd, offset, length)

    def rename(self, source, target):
        self.step()
        super().rename(source, target)

    def map(self, fd, length):
        return CrashingMapping(super().map(fd, length), self.step, self.note)

    def note(self, offset: int, length: int) -> None:
        if self.armed:
            self.written.append((offset, length))

    def pieces_of_index(self, place: Path) -> int:
        """How many of the pieces were of the index of what is now published."""
        attachment = Attachment.open(Directory(place / "run", named=True), "web")
        version, _ = attachment.latest()
        slot = layout.slot_offset(version)
        room = layout.Room.of(attachment.mapping.load(slot + layout.ROOM))
        told = attachment.mapping.read(slot + layout.DESCRIPTOR_OFFSET, layout.DESCRIPTOR_SIZE)
        descriptor = layout.Descriptor.decode(told, attachment.epoch, version, room)
        assert descriptor is not None
        start, end = room.offset + descriptor.index_start, room.offset + descriptor.metadata_start
        return sum(start <= offset < offset + length <= end for offset, length in self.written)


def payload(version: int, size: int = SMALL) -> bytes:
    """A self-consistent document: every field derives from the version."""
    return codec.pack({"version": version, "fields": [version] * 20, "fill": "x" * size})


def open_writer(place: Path, storage: Storage | None = None, max_bytes: int = 1 << 20) -> Writer:
    directory = Directory(place / "run", named=True)
    return Writer(directory, "web", Settings(max_bytes), state_directory=place / "state", storage=storage)


def die(writer: Writer) -> None:
    """What the kernel does for a killed process: its locks are free, nothing else is tidied."""
    writer._release_locks()
    if writer._reservation:
        writer._reservation.settle()


def publish_next(writer: Writer, size: int = SMALL) -> int:
    return writer.publish(payload(writer._next_version(writer._segment) if writer._segment else 1, size))


def prepare(place: Path, versions: int = 6) -> None:
    (place / "run").mkdir()
    with open_writer(place) as writer:
        for _ in range(versions):
            publish_next(writer)
        writer.set_status(AgentStatus(state="running", last_error="first").encode())


def published(place: Path) -> tuple[int, dict]:
    """What a fresh reader finds."""
    content = Attachment.open(Directory(place / "run", named=True), "web").copy_latest()
    assert content is not None
    assert content.index == build_index(content.payload) != b""
    return content.version, codec.unpack(content.payload)


def do_publication(writer: Writer) -> None:
    publish_next(writer)


def do_growth(writer: Writer) -> None:
    publish_next(writer, LARGE)


def do_status(writer: Writer) -> None:
    writer.set_status(AgentStatus(state="running", last_error="second").encode())


def do_replacement(writer: Writer) -> None:
    writer.path.unlink()
    assert writer.keep_linked()


SCENARIOS = {
    "publication": (do_publication, 1 << 20),
    "growth": (do_growth, 1 << 20),
    "status": (do_status, 1 << 20),
    "replacement": (do_replacement, 1 << 20),
    "larger max_bytes": (lambda writer: None, 2 << 20),  # all of it happens while the writer is made
    "takeover": (lambda writer: None, 1 << 20),
}


@contextlib.contextmanager
def crashed(place: Path, scenario: str, crash_at: int | None) -> Iterator[CrashingStorage]:
    act, max_bytes = SCENARIOS[scenario]
    storage = CrashingStorage(crash_at)
    storage.armed = scenario in ("larger max_bytes", "takeover")
    try:
        writer = open_writer(place, storage, max_bytes)
    except Crash:
        yield storage
        return
    storage.armed = True
    with contextlib.suppress(Crash):
        act(writer)
    storage.armed = False
    die(writer)
    yield storage


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_before_any_store_leaves_a_whole_version_and_no_lost_room(scenario: str, tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    prepare(tmp_path / "count")
    with crashed(tmp_path / "count", scenario, None) as counted:
        steps = counted.steps
        if scenario not in ("status", "takeover"):
            assert counted.pieces_of_index(tmp_path / "count") >= 5, "no crash would fall between the index's stores"
    assert steps >= STEPS_AT_LEAST[scenario], "the recording storage saw too little of the writer"
    limit = 6 * (LARGE + 400) + 65_536
    for crash_at in range(steps):
        place = tmp_path / f"{crash_at}"
        place.mkdir()
        prepare(place)
        before = published(place)
        onlooker = Attachment.open(Directory(place / "run", named=True), "web")
        with crashed(place, scenario, crash_at) as storage:
            assert storage.steps == crash_at
        check_after_crash(place, scenario, before[0], onlooker)
        with open_writer(place) as successor:
            versions = [publish_next(successor, LARGE if index % 2 else SMALL) for index in range(12)]
            assert versions == list(range(versions[0], versions[0] + 12))
            assert versions[0] > before[0]
            assert published(place)[0] == versions[-1]
            assert successor.path.stat().st_size <= limit
            assert not list((place / "run").glob(".*")), "something was left aside"
            check_rooms(successor)


def check_after_crash(place: Path, scenario: str, before: int, onlooker: Attachment) -> None:
    try:
        version, tree = published(place)
    except SegmentNotFound:
        # The one moment without a name is the one that somebody else made by removing the file.
        assert scenario == "replacement"
    else:
        assert version in (before, before + 1)
        # A replacement publishes the old version's content under the next number.
        assert tree["version"] in (before, before + 1)
        assert tree["fields"] == [tree["version"]] * 20
    told = read_status("web", onlooker)
    assert told.agent.last_error in ("first", "second")
    content = onlooker.copy_latest()
    assert content is not None
    assert content.version in (before, before + 1), "an attached reader lost what it had"


def check_rooms(writer: Writer) -> None:
    """No two slots own a page in common, and all lies within the file."""
    assert writer._segment is not None
    slots = sorted((room.page, room.end) for _, room in writer._segment._whole_slots())
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(slots))
    assert slots[-1][1] * 4096 <= writer.size


def test_a_version_zero_segment_survives_a_crash_at_every_step_of_its_making(tmp_path: Path) -> None:
    for crash_at in range(100):
        place = tmp_path / f"{crash_at}"
        (place / "run").mkdir(parents=True)
        storage = CrashingStorage(crash_at)
        storage.armed = True
        try:
            die(open_writer(place, storage))
        except Crash:
            with pytest.raises(SegmentNotFound):
                Attachment.open(Directory(place / "run", named=True), "web")
            with open_writer(place) as successor:
                assert publish_next(successor) == 1
            continue
        assert crash_at >= 5
        return
    raise AssertionError("the making of a segment never ended")
