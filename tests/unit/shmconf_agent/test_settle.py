"""The rules of waiting, on a clock of the test's own: nothing here touches a disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shmconf_agent.disk import Reading, Stamp, Standing
from shmconf_agent.settle import BURST_S, GRACE_S, LONGEST_S, QUIET_S, Batch, TrackedFile
from shmconf_agent.watch import Hint, Kind

PATH = "/etc/app/base.yaml"
LONG_AGO = 1_000_000_000 * 10**9
WALL = 2_000_000_000 * 10**9


class Disk:
    """One file, the clock, and the agent's view of both."""

    def __init__(self, *, expected: bool = True) -> None:
        self.now = 100.0
        self.stamp: Stamp | None = Stamp(PATH, 1, 1, 4, LONG_AGO, LONG_AGO)
        self.data = b"a: 1"
        self.failure: str | None = None
        self.hints: list[Hint] = []
        self.file = TrackedFile(PATH, expected=expected)

    @property
    def wall_ns(self) -> int:
        return WALL + round(self.now * 1e9)

    def write(self, data: bytes, *hints: Kind, real: str = PATH, inode: int = 1, mtime_ns: int | None = None) -> None:
        stamp = self.wall_ns
        self.data = data
        self.stamp = Stamp(real, 1, inode, len(data), stamp if mtime_ns is None else mtime_ns, stamp)
        self.hint(*hints)

    def hint(self, *kinds: Kind, path: str = PATH) -> None:
        self.hints += [Hint(kind, path, self.now) for kind in kinds]

    def look(self, after: float = 0.0, *, disturbed: bool = False, steady: bool = True) -> bytes | None:
        self.now += after
        hints, self.hints = self.hints, []
        entries = (self.stamp.real if self.stamp else PATH,)
        standing = Standing(entries, self.stamp, None if self.stamp else "does not exist", self.stamp is None)
        if self.file.observe(standing, hints, self.now, self.wall_ns):
            reading = Reading(None if self.failure else self.data, self.failure, self.stamp, steady)
            self.file.offer(reading, self.now, self.wall_ns, disturbed=disturbed)
        return self.file.content

    def patrol(self) -> None:
        self.file.offer(Reading(self.data, None, self.stamp, True), self.now, self.wall_ns, disturbed=False)


@pytest.fixture
def disk() -> Disk:
    """With its file taken, and part of a judged view."""
    disk = Disk()
    assert disk.look() == b"a: 1"
    assert disk.file.flux_since is None
    disk.file.judged = True
    disk.now += 10
    return disk


def test_a_file_that_was_quiet_before_it_was_first_seen_is_taken_at_once() -> None:
    disk = Disk()
    disk.write(b"a: 2")
    disk.now += QUIET_S
    assert disk.look() == b"a: 2"


def test_a_file_first_seen_soon_after_its_last_change_is_waited_for() -> None:
    disk = Disk()
    disk.write(b"a: 2")
    assert disk.look(0.1) is None
    assert disk.file.due_at == pytest.approx(disk.now + QUIET_S - 0.1)
    assert disk.look(QUIET_S - 0.2) is None
    assert disk.look(0.1001) == b"a: 2"


def test_times_in_the_future_count_as_changed_when_first_seen() -> None:
    disk = Disk()
    disk.write(b"a: 2", mtime_ns=WALL * 2)
    assert disk.look() is None
    assert disk.look(QUIET_S - 0.001) is None
    assert disk.look(0.001) == b"a: 2"


def test_a_replacement_is_taken_at_once(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.MOVED_TO, inode=2)
    assert disk.look() == b"a: 22"


def test_another_real_path_is_a_replacement(disk: Disk) -> None:
    disk.write(b"a: 22", real="/etc/app/..2/base.yaml", inode=2)
    assert disk.look() == b"a: 22"


def test_another_real_path_that_is_being_written_is_not(disk: Disk) -> None:
    disk.write(b"a: 22", real="/etc/app/..2/base.yaml", inode=2)
    disk.hint(Kind.MODIFIED, path="/etc/app/..2/base.yaml")
    assert disk.look() == b"a: 1"
    disk.hint(Kind.CLOSED, path="/etc/app/..2/base.yaml")
    assert disk.look(0.1) == b"a: 22"


def test_an_exchanged_directory_vouches_only_for_what_was_written_before(disk: Disk) -> None:
    disk.write(b"a: 22", inode=2)
    disk.hint(Kind.MOVED_TO, path="/etc/app")
    assert disk.look() == b"a: 22"
    disk.hint(Kind.MOVED_TO, path="/etc/app")
    disk.now += 0.01
    disk.write(b"a: 333", inode=3)
    assert disk.look() == b"a: 22"
    assert disk.look(QUIET_S) == b"a: 333"


@pytest.mark.parametrize("first", [Kind.CREATED, Kind.MODIFIED])
def test_a_write_in_place_is_taken_after_its_close(disk: Disk, first: Kind) -> None:
    disk.write(b"", first)
    assert disk.look() == b"a: 1"
    assert disk.file.flux_since == disk.now
    disk.write(b"a: 22", Kind.MODIFIED)
    assert disk.look(0.3) == b"a: 1"
    disk.hint(Kind.CLOSED)
    assert disk.look(0.01) == b"a: 22"
    assert disk.file.flux_since is None


def test_a_close_before_the_last_write_is_no_evidence(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.MODIFIED, Kind.CLOSED, Kind.MODIFIED)
    assert disk.look() == b"a: 1"


def test_a_write_right_after_a_replacement_takes_the_evidence_away(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.MOVED_TO, Kind.MODIFIED, inode=2)
    assert disk.look() == b"a: 1"


def test_a_write_without_a_close_is_taken_after_quiet(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.MODIFIED)
    assert disk.look() == b"a: 1"
    disk.now += QUIET_S - 0.01
    disk.write(b"a: 333", Kind.MODIFIED)
    assert disk.look() == b"a: 1"
    assert disk.look(QUIET_S - 0.01) == b"a: 1"
    assert disk.look(0.011) == b"a: 333"


def test_a_write_without_any_hint_is_taken_after_quiet(disk: Disk) -> None:
    disk.write(b"a: 22")
    assert disk.look() == b"a: 1"
    assert disk.look(QUIET_S) == b"a: 22"


def test_hints_apply_once(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.MODIFIED, Kind.CLOSED)
    assert disk.look() == b"a: 22"
    disk.write(b"a: 333")
    assert disk.look() == b"a: 22"


def test_a_close_of_a_file_whose_stat_is_equal_has_it_read_again(disk: Disk) -> None:
    disk.data = b"a: 9"
    assert disk.look() == b"a: 1"
    disk.hint(Kind.CLOSED)
    assert disk.look() == b"a: 9"


def test_a_change_of_attributes_puts_nothing_in_flux(disk: Disk) -> None:
    disk.write(disk.data, Kind.TOUCHED)
    disk.look()
    assert disk.file.flux_since is None


def test_the_same_size_with_the_old_mtime_is_a_change(disk: Disk) -> None:
    disk.write(b"a: 9", mtime_ns=LONG_AGO)
    assert disk.look() == b"a: 1"
    assert disk.file.flux_since is not None
    assert disk.look(QUIET_S) == b"a: 9"


def test_what_only_a_patrol_finds_is_taken_after_quiet(disk: Disk) -> None:
    disk.data = b"a: 9"
    disk.patrol()
    assert disk.file.content == b"a: 1"
    assert disk.look(QUIET_S - 0.01) == b"a: 1"
    assert disk.look(0.02) == b"a: 9"


def test_what_changes_without_its_times_showing_it_is_not_taken_half_done(disk: Disk) -> None:
    disk.data = b"a: 8"
    disk.patrol()
    disk.data = b"a: 9"
    assert disk.look(QUIET_S) == b"a: 1"
    assert disk.look(QUIET_S) == b"a: 9"


@pytest.mark.parametrize(("disturbed", "steady"), [(True, True), (False, False)])
def test_a_file_that_changes_while_it_is_read_is_not_taken(disk: Disk, disturbed: bool, steady: bool) -> None:
    disk.write(b"a: 22", Kind.MODIFIED, Kind.CLOSED)
    assert disk.look(disturbed=disturbed, steady=steady) == b"a: 1"
    assert disk.file.flux_since is not None
    assert disk.look(0.025) == b"a: 22"


def test_after_lost_events_a_close_counts_no_more_and_content_is_verified(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.CLOSED)
    disk.hint(Kind.OVERFLOW, path="")
    assert disk.look() == b"a: 1"
    assert disk.look(QUIET_S) == b"a: 22"
    disk.data = b"a: 99"
    disk.hint(Kind.OVERFLOW, path="")
    disk.look()
    assert disk.look(QUIET_S) == b"a: 99"


def test_a_vanished_file_stays_in_view_for_its_grace(disk: Disk) -> None:
    disk.stamp = None
    assert disk.look() == b"a: 1"
    assert disk.file.vanished
    assert disk.file.due_at == disk.now + GRACE_S
    assert disk.look(GRACE_S - 0.01) == b"a: 1"
    assert disk.look(0.011) is None
    assert disk.file.absence is not None
    assert disk.file.flux_since is None


def test_a_vanished_file_that_is_written_anew_was_never_away(disk: Disk) -> None:
    before, disk.stamp = disk.stamp, None
    disk.hint(Kind.GONE)
    assert disk.look() == b"a: 1"
    disk.stamp = before
    disk.write(b"a: 22", Kind.CREATED, Kind.MODIFIED, Kind.CLOSED, inode=2)
    assert disk.look(0.1) == b"a: 22"
    assert disk.file.flux_since is None


def test_a_file_that_was_never_judged_just_goes() -> None:
    disk = Disk(expected=False)
    disk.look()
    disk.stamp = None
    assert disk.look(0.001) is None
    assert disk.file.absence is not None


def test_absence_counts_at_once_only_where_the_file_was_expected() -> None:
    for expected in (True, False):
        disk = Disk(expected=expected)
        disk.stamp = None
        disk.look()
        assert (disk.file.absence is not None) is expected
        disk.look(GRACE_S)
        assert disk.file.absence is not None


def test_a_failure_to_read_is_taken_like_a_content(disk: Disk) -> None:
    disk.failure = "cannot be read: permission denied"
    disk.write(disk.data, Kind.TOUCHED)
    assert disk.look() == b"a: 1"
    assert disk.look(QUIET_S) is None
    assert disk.file.failure == "cannot be read: permission denied"
    disk.failure = None
    disk.write(disk.data, Kind.TOUCHED)
    disk.look()
    assert disk.look(QUIET_S) == b"a: 1"


def test_a_file_read_soon_after_its_last_change_is_racy(disk: Disk) -> None:
    disk.write(b"a: 22", Kind.CLOSED)
    disk.look(0.005)
    assert disk.file.racy
    disk.now += 1
    disk.patrol()
    assert not disk.file.racy


def test_impatience_takes_all_there_is_but_nothing_torn(disk: Disk) -> None:
    disk.write(b"a: 22")
    standing = Standing((PATH,), disk.stamp)
    assert disk.file.observe(standing, [], disk.now, disk.wall_ns, impatient=True)
    torn = Reading(b"a: 2", None, disk.stamp, False)
    disk.file.offer(torn, disk.now, disk.wall_ns, disturbed=False, impatient=True)
    assert disk.file.content == b"a: 1"
    disk.file.offer(replace(torn, data=b"a: 22", steady=True), disk.now, disk.wall_ns, disturbed=False, impatient=True)
    assert disk.file.content == b"a: 22"
    assert disk.file.flux_since is None


def names(*files: str) -> frozenset[str]:
    return frozenset(files)


def test_a_lone_change_is_ready_after_the_settle_time() -> None:
    batch = Batch(0.002)
    assert batch.ready_at(None) is None
    batch.add(1, names("a", "b", "c"), 10.0)
    assert batch.ready_at(None) == 10.002
    batch.add(2, names("a"), 10.001)
    assert batch.ready_at(None) == 10.003


def test_another_file_within_the_settle_time_makes_a_burst() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    batch.add(2, names("b"), 10.001)
    assert batch.ready_at(None) == 10.001 + BURST_S
    batch.add(3, names("b"), 10.04)
    assert batch.ready_at(None) == 10.04 + BURST_S


def test_a_burst_ends_after_its_longest_time() -> None:
    batch = Batch(0.002)
    for number in range(100):
        batch.add(number, names(str(number)), 10.0 + number * 0.01)
    assert batch.ready_at(None) == batch.latest_at == 10.0 + LONGEST_S


def test_files_in_flux_hold_it_as_long() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    assert batch.ready_at(10.1) == 10.0 + LONGEST_S
    assert batch.ready_at(20.0) == 10.0 + LONGEST_S


def test_what_will_be_whole_moments_after_that_is_waited_for() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    assert batch.ready_at(10.0 + LONGEST_S + 0.01) == 10.0 + LONGEST_S + 0.01
    assert batch.ready_at(10.0 + LONGEST_S + 2 * BURST_S) == 10.0 + LONGEST_S


def test_another_file_soon_after_a_judged_one_belongs_to_a_burst() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    batch.judged(1)
    assert batch.ready_at(None) is None
    batch.add(2, names("b"), 10.01)
    assert batch.ready_at(None) == 10.01 + BURST_S


def test_the_same_file_soon_after_is_a_lone_change_again() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    batch.judged(1)
    batch.add(2, names("a"), 10.01)
    assert batch.ready_at(None) == 10.012


def test_what_was_found_after_the_judged_view_is_still_to_be_judged() -> None:
    batch = Batch(0.002)
    batch.add(1, names("a"), 10.0)
    batch.add(2, names("b"), 10.3)
    batch.judged(1)
    assert batch.latest_at == 10.3 + LONGEST_S
    batch.judged(2)
    assert batch.latest_at == float("inf")


def test_a_long_settle_time_is_kept() -> None:
    batch = Batch(2.0)
    batch.add(1, names("a"), 10.0)
    batch.add(2, names("b"), 10.5)
    assert batch.ready_at(None) == 12.0
