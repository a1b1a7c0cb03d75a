"""Where versions are put: never over one another, within the bounds, through any sequence of sizes and crashes."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shmconf import layout
from shmconf.errors import SegmentFull
from shmconf.layout import FIRST_ROOM_PAGE, PAGE, Header, Room
from shmconf.mapping import Mapping
from shmconf.rooms import first_fit, limit_for, pages_for
from shmconf.segment import WritableSegment
from shmconf.storage import Storage

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(("size", "pages"), [(0, 1), (1, 1), (4096, 1), (4097, 2), (20 * MIB, 5120)])
def test_pages_for(size: int, pages: int) -> None:
    assert pages_for(size) == pages


def test_first_fit_takes_the_lowest_gap_that_is_wide_enough() -> None:
    owned = [Room(20, 5), Room(3, 2), Room(6, 4)]
    assert first_fit(1, owned, 100) == Room(5, 1)
    assert first_fit(2, owned, 100) == Room(10, 2)
    assert first_fit(11, owned, 100) == Room(25, 11)
    assert first_fit(11, owned, 35) is None
    assert first_fit(1, [], 100) == Room(FIRST_ROOM_PAGE, 1)


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=4),
    st.integers(1, 6000),
    st.integers(4, 2**32),
)
def test_first_fit_never_overlaps_whatever_stands_in_the_room_words(
    owned: list[tuple[int, int]], pages: int, limit: int
) -> None:
    rooms = [Room(*pair) for pair in owned]
    found = first_fit(pages, rooms, limit)
    if found is not None:
        assert found.pages == pages
        assert found.page >= FIRST_ROOM_PAGE
        assert found.end <= limit
        assert all(room.end <= found.page or found.end <= room.page or not room.pages for room in rooms)


def test_the_limit_is_six_times_the_largest_and_64_kib_within_max_bytes() -> None:
    assert limit_for(100_000, 0, 1 << 30) == (600_000 + 65_536) // PAGE
    assert limit_for(100, 5 * MIB, 1 << 30) == 5 * MIB // PAGE
    assert limit_for(10 * MIB, 0, MIB) == MIB // PAGE


class Crash(BaseException):
    """The writer is gone."""


class HeaderOnly:
    """A mapping that keeps words, status and slots, and of a room's bytes only remembers where they were stored."""

    def __init__(self, real: Mapping, world: World) -> None:
        self._real, self._world = real, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def store(self, offset: int, value: int) -> None:
        self._world.step()
        self._real.store(offset, value)

    def store32(self, offset: int, value: int) -> None:
        self._world.step()
        self._real.store32(offset, value)

    def write(self, offset: int, data: bytes) -> None:
        if offset < layout.ROOMS_BASE:
            self._world.step()
            self._real.write(offset, data)
        else:
            self._world.check_write(offset, len(data))


class World(Storage):
    """Sparse files, and a crash before any step that is asked for."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.real: Mapping | None = None
        self.fd = -1

    def step(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Crash
            self.left -= 1

    def allocate(self, fd: int, offset: int, length: int) -> None:
        self.step()
        os.ftruncate(fd, offset + length)

    def map(self, fd: int, length: int) -> Any:
        self.fd = fd
        self.real = super().map(fd, length)
        return HeaderOnly(self.real, self)

    def check_write(self, offset: int, length: int) -> None:
        """Bytes of a room may be stored only where no whole slot lives, and where the file has room."""
        assert offset + length <= os.fstat(self.fd).st_size
        for version, room in self.whole():
            apart = offset + length <= room.offset or room.offset + room.capacity <= offset
            assert apart, f"version {version}, which readers may be copying, is overwritten"

    def whole(self) -> list[tuple[int, Room]]:
        assert self.real is not None
        found = []
        for index in range(4):
            slot = layout.SLOT_BASE + index * layout.SLOT_SIZE
            counter = self.real.load(slot)
            if counter and counter % 2 == 0:
                found.append((counter // 2, Room.of(self.real.load(slot + layout.ROOM))))
        return found

    def latest(self) -> int:
        assert self.real is not None
        return self.real.load(layout.LATEST)


def content(size: int) -> int:
    return layout.aligned(size) + layout.aligned(len(index_of(size))) + 16


def index_of(size: int) -> memoryview:
    return ZEROS[: size // 17]


METADATA = bytes(16)
sizes = st.one_of(
    st.integers(100, 20 * KIB),
    st.integers(20 * KIB, MIB),
    st.integers(MIB, 20 * MIB),
    st.sampled_from([100, 4080, 4096, 8 * MIB - 16, 8 * MIB, 8 * MIB + 1, 20 * MIB]),
)
# A size is drawn often, its bytes are needed only for their length: zeros of the largest are sliced.
ZEROS = memoryview(bytes(20 * MIB))


class Rooms(RuleBasedStateMachine):
    """A writer that publishes any sizes, dies anywhere and is taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World()

    @initialize(max_bytes=st.sampled_from([MIB, 16 * MIB, 60 * MIB, 256 * MIB]))
    def begin(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.header = Header(epoch=1, max_bytes=max_bytes, created_at=0)
        self.path = Path(self.folder.name) / "web"
        self.segment = WritableSegment.build(self.world, self.path, self.header, 0o600, None)
        self.largest = 0

    @rule(size=sizes)
    def publish(self, size: int) -> None:
        before = self.world.latest()
        contents = [content(size), *(self.segment._content_size(version) for version, _ in self.world.whole())]
        try:
            self.segment.publish(before + 1, ZEROS[:size], index_of(size), METADATA, 0, self.max_bytes)
        except SegmentFull:
            assert self.world.latest() == before
            assert any(version == before for version, _ in self.world.whole()) or before == 0
            third = (self.max_bytes // PAGE - FIRST_ROOM_PAGE) // 3
            assert max(map(pages_for, contents)) > third, "refused though two versions and a gap between them fit"
            return
        self.largest = max(self.largest, content(size))
        assert self.world.latest() == before + 1

    @rule(size=sizes, steps=st.integers(0, 30))
    def crash_and_take_over(self, size: int, steps: int) -> None:
        before = self.world.latest()
        self.world.left = steps
        with contextlib.suppress(Crash, SegmentFull):
            self.segment.publish(before + 1, ZEROS[:size], index_of(size), METADATA, 0, self.max_bytes)
        self.world.left = None
        self.largest = max(self.largest, content(size))  # the file may have grown for it
        assert self.world.latest() in (before, before + 1)
        self.segment.close()
        self.segment = WritableSegment.take_over(self.world, os.open(self.path, os.O_RDWR), self.header)

    @rule(steps=st.integers(0, 20))
    def crash_while_taking_over(self, steps: int) -> None:
        self.segment.close()
        self.world.left = steps
        fd = os.open(self.path, os.O_RDWR)
        try:
            self.segment = WritableSegment.take_over(self.world, fd, self.header)
        except Crash:
            self.world.left = None
            self.segment = WritableSegment.take_over(self.world, fd, self.header)
        self.world.left = None

    @invariant()
    def rooms_are_apart_and_in_the_file(self) -> None:
        if not hasattr(self, "segment"):
            return
        size = os.fstat(self.world.fd).st_size
        rooms = sorted((room.page, room.end) for _, room in self.world.whole())
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(rooms))
        assert all(page >= FIRST_ROOM_PAGE and end * PAGE <= size for page, end in rooms)

    @invariant()
    def the_file_keeps_its_bounds(self) -> None:
        if hasattr(self, "segment"):
            size = os.fstat(self.world.fd).st_size
            assert size <= self.max_bytes
            assert size <= max(6 * self.largest + 64 * KIB, layout.ROOMS_BASE)

    @invariant()
    def the_published_version_is_whole(self) -> None:
        if hasattr(self, "segment") and (latest := self.world.latest()):
            assert latest in [version for version, _ in self.world.whole()]

    def teardown(self) -> None:
        if hasattr(self, "segment"):
            self.segment.close()
        self.folder.cleanup()


TestRooms = Rooms.TestCase
TestRooms.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_small_versions_keep_their_rooms_and_the_file_does_not_grow(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    for number in range(8):
        publish(writer, {"n": number, "fill": "x" * 5000})
    size = writer.size
    for number in range(100):
        publish(writer, {"n": number, "fill": "x" * 5000})
    assert writer.size == size <= 12_288 + 4 * 8192


def test_max_bytes_gives_up_older_versions_and_then_says_what_is_needed(
    place: Any, publish: Callable[..., int]
) -> None:
    writer = place.writer(max_bytes=100 * KIB)
    for number in range(6):
        publish(writer, {"n": number, "fill": "x" * 25_000})
        assert writer.size <= 100 * KIB
    with pytest.raises(SegmentFull, match=r"max_bytes is 102,400, and a version needs about three times its size"):
        publish(writer, {"fill": "x" * 90_000})
    assert writer.version == 6
    assert publish(writer, {"n": 7}) == 7
