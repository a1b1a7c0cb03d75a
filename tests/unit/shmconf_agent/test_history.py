"""Last known good on disk: whole or not at all, in the background, for its owner only."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.history import Kept, LastKnownGood

KEPT = Kept(42, 1_700_000_000_000_000_000, "ab" * 32, ("base.yaml", "empty.yaml"), b"\x81\xa1a\x01", ("empty.yaml",))


def kept_in(path: Path) -> LastKnownGood:
    history = LastKnownGood(path)
    history.keep(KEPT)
    history.settle()
    return history


def test_what_is_kept_is_loaded_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "web.lkg"
    assert LastKnownGood(path).load() is None
    kept_in(path)
    assert LastKnownGood(path).load() == KEPT
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["web.lkg"]


@given(st.data())
def test_a_damaged_file_is_passed_over(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("kept") / "web.lkg"
    kept_in(path)
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path.write_bytes(damaged)
    history = LastKnownGood(path)
    assert history.load() is None
    assert "damaged" in (history.problem or "")


def test_a_disk_that_refuses_is_a_problem_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "web.lkg"
    history = kept_in(path)
    assert "cannot be kept" in (history.problem or "")
    path.parent.mkdir()
    history.keep(KEPT)
    history.settle()
    assert history.problem is None
    assert LastKnownGood(path).load() == KEPT


def test_a_slow_disk_delays_nothing_and_the_newest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()
    fsync = os.fsync
    written: list[int] = []

    def slow(descriptor: int) -> None:
        writing.set()
        assert go_on.wait(20)
        written.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    path = tmp_path / "web.lkg"
    history = LastKnownGood(path)
    for version in range(1, 6):
        history.keep(Kept(version, 0, "", (), b""))
        assert writing.wait(20)
    go_on.set()
    history.settle()
    kept = LastKnownGood(path).load()
    assert kept is not None
    assert kept.version == 5
    assert len(written) == 2


def test_without_a_state_directory_nothing_is_kept() -> None:
    history = LastKnownGood(None)
    history.keep(KEPT)
    history.settle()
    assert history.load() is None
    assert history.problem is None


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "web.lkg.new").symlink_to(victim)
    history = kept_in(tmp_path / "web.lkg")
    assert victim.read_text() == "precious"
    assert history.problem is not None
