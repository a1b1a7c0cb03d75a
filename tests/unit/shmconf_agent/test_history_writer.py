"""Keeping in the background: the newest first, whatever the disk does, and memory bounded."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf_agent import history_writer
from shmconf_agent.history_keeping import WritableHistory
from shmconf_agent.history_writer import HistoryWriter, Publication, count_keys
from shmconf_agent.kept_version import KeptVersion
from shmconf_agent.settle import digest_of
from shmconf_agent.view import SourceLayer

SECONDS = 60.0


def publication(version: int, size: int = 0, text: str | None = None, epoch: int = 9) -> Publication:
    tree = {"value": version, "fill": "x" * size}
    payload = codec.pack(tree)
    kept = KeptVersion(epoch, version, version, hashlib.sha256(payload).hexdigest())
    data = (text or f"v: {version}\n").encode()
    return Publication(kept, payload).made_from(
        [SourceLayer("a.yaml", (), data, digest_of(data), "/etc/a.yaml", False)], tree
    )


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kept(state: Path) -> list[int]:
    return [entry.kept.version for entry in WritableHistory(state, "web").entries()]


class Disk:
    """Stands still at each version until it is told to go on; notes the order in which they come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: list[int] = []
        self.goes = threading.Semaphore(0)
        self.failure: OSError | None = None
        real = WritableHistory.keep

        def slow(history: WritableHistory, version: KeptVersion, *arguments: Any) -> None:
            self.began.append(version.version)
            assert self.goes.acquire(timeout=SECONDS)
            if self.failure is not None:
                raise self.failure
            real(history, version, *arguments)

        monkeypatch.setattr(WritableHistory, "keep", slow)

    def go(self, times: int = 1000) -> None:
        self.goes.release(times)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.go()


def test_the_newest_goes_first_and_what_came_meanwhile_follows(tmp_path: Path, disk: Disk) -> None:
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    until(lambda: disk.began == [1])
    for version in (2, 3, 4):  # the disk is busy: none of this waits for it
        writer.keep(publication(version))
    assert not writer.has_kept
    disk.go(1)
    until(lambda: disk.began == [1, 4])
    assert writer.has_kept
    disk.go()
    writer.settle(SECONDS)
    assert disk.began == [1, 4, 3, 2]
    assert kept(tmp_path) == [4, 3, 2, 1]  # in the order in which they were published


def test_of_too_many_the_oldest_are_left_out_never_the_newest(tmp_path: Path, disk: Disk) -> None:
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    until(lambda: disk.began == [1])
    for version in range(2, 100):
        writer.keep(publication(version))
    disk.go()
    writer.settle(SECONDS)
    assert kept(tmp_path) == [*range(99, 99 - history_writer.MOST_WAITING, -1), 1]


@pytest.mark.parametrize("big", ["document", "source"])
def test_what_waits_is_bounded_in_bytes(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, big: str
) -> None:
    monkeypatch.setattr(history_writer, "MOST_WAITING_BYTES", 25_000)
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    until(lambda: disk.began == [1])
    for version in range(2, 9):
        writer.keep(publication(version, 10_000) if big == "document" else publication(version, 0, f"{version:10000}"))
    writer.keep(publication(9, 500_000))
    disk.go()
    writer.settle(SECONDS)
    assert kept(tmp_path) == [9, 8, 7, 1]


def test_sources_that_the_newest_shares_take_no_room(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_writer, "MOST_WAITING_BYTES", 25_000)
    shared = "x" * 20_000
    texts = [SourceLayer("a.yaml", (), shared.encode(), digest_of(shared.encode()), "/etc/a.yaml", False)]
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    until(lambda: disk.began == [1])
    for version in range(2, 7):
        writer.keep(publication(version).made_from(texts, {}))
    disk.go()
    writer.settle(SECONDS)
    assert kept(tmp_path) == [6, 5, 4, 3, 2, 1]


def test_a_disk_that_refuses_is_a_problem_that_passes(tmp_path: Path) -> None:
    state = tmp_path / "gone"
    writer = HistoryWriter(WritableHistory(state, "web"))
    for version in (1, 2):
        writer.keep(publication(version))
        writer.settle()
    assert "version 2 cannot be kept: No such file or directory" in (writer.problem or "")
    assert str(state) in (writer.problem or "")
    writer.retry()
    writer.settle()
    assert writer.problem is not None
    state.mkdir()
    writer.retry()
    writer.settle()
    assert (writer.problem, kept(state)) == (None, [2, 1])  # the one before was not lost either
    before = os.stat(state / "web.history").st_mtime_ns
    writer.retry()  # nothing was refused since: nothing is to be done
    writer.settle()
    assert os.stat(state / "web.history").st_mtime_ns == before


def test_an_older_version_that_is_refused_holds_up_nothing(tmp_path: Path, disk: Disk) -> None:
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    until(lambda: disk.began == [1])
    disk.failure = OSError(errno.EFBIG, "File too large")
    writer.keep(publication(2))
    disk.go(1)
    until(lambda: disk.began == [1, 2])
    disk.failure = None
    disk.go()
    writer.settle(SECONDS)
    assert (writer.problem, kept(tmp_path), disk.began) == (None, [2, 1], [1, 2, 1])
    assert writer.has_kept


def test_a_fault_of_its_own_is_told_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    with monkeypatch.context() as patched:
        patched.setattr(WritableHistory, "next_sequence", lambda history: 1 // 0)
        writer.keep(publication(1))
        writer.settle()
    assert "internal error: ZeroDivisionError" in (writer.problem or "")
    writer.keep(publication(2))
    writer.settle()
    assert (writer.problem, kept(tmp_path)) == (None, [2, 1])


def test_a_successor_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    for start in (1, 4):
        writer = HistoryWriter(WritableHistory(tmp_path, "web"))
        for version in range(start, start + 3):
            writer.keep(publication(version))
            writer.settle()
    assert kept(tmp_path) == [6, 5, 4, 3, 2, 1]


def test_a_state_directory_that_is_lost_or_exchanged_begins_anew(tmp_path: Path) -> None:
    other = HistoryWriter(WritableHistory(tmp_path / "other", "web"))
    (tmp_path / "other").mkdir()
    for version in range(11, 31):
        other.keep(publication(version, epoch=8))
        other.settle()
    state = tmp_path / "state"
    state.mkdir()
    writer = HistoryWriter(WritableHistory(state, "web"))
    writer.keep(publication(1))
    writer.settle()
    os.rename(state / "web.history", tmp_path / "lost")
    os.rename(tmp_path / "other" / "web.history", state / "web.history")  # a backup was put back, say
    writer.keep(publication(2))
    writer.settle()
    assert kept(state)[:2] == [2, 30]


def test_keys_are_counted_wherever_they_are() -> None:
    assert count_keys({"a": {"b": 1, "c": [{"d": {}}, [[{"e": 1}]]]}, 2: None}) == 6
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": [deep]}
    assert count_keys(deep) == 100_000


def test_keys_are_kept_whoever_counts_them(tmp_path: Path) -> None:
    writer = HistoryWriter(WritableHistory(tmp_path, "web"))
    writer.keep(publication(1))
    bare = publication(2)
    writer.settle()
    writer.keep(Publication(bare.kept, bare.payload))
    writer.settle()
    assert [entry.kept.keys for entry in WritableHistory(tmp_path, "web").entries()] == [2, 2]
