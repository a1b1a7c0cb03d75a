from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf.errors import SegmentLocked
from shmconf.lock import WriterLock
from shmconf.reservation import AHEAD, RENEW_AT, Reservation


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "reserved").mkdir()
    return tmp_path / "reserved" / "web.versions"


def on_disk(path: Path) -> int:
    return Reservation(path).reserved_through


def test_a_reservation_is_durable_and_a_thousand_ahead(path: Path) -> None:
    reservation = Reservation(path)
    assert reservation.reserved_through == 0
    reservation.begin(0)
    assert on_disk(path) == reservation.reserved_through == 1000 == AHEAD
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_it_is_on_the_disk_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, then the rename, then fsync of the directory."""
    steps: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_sync(fd)

    def rename(*names: Any) -> None:
        steps.append("rename")
        real_rename(*names)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    Reservation(path).begin(0)
    assert steps == ["file", "rename", "directory"]


def test_it_is_renewed_in_the_background_when_500_are_left(path: Path) -> None:
    reservation = Reservation(path)
    reservation.begin(0)
    reservation.ensure(1000 - RENEW_AT)
    reservation.settle()
    assert on_disk(path) == 1000
    reservation.ensure(1001 - RENEW_AT)
    reservation.settle()
    assert on_disk(path) == reservation.reserved_through == 501 + AHEAD


def test_a_new_writer_begins_with_what_is_left(path: Path) -> None:
    Reservation(path).begin(0)
    reservation = Reservation(path)
    reservation.begin(400)
    assert on_disk(path) == 1000
    reservation.begin(600)
    assert on_disk(path) == 1600


def test_a_stalled_disk_does_not_stop_publication(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reservation = Reservation(path)
    reservation.begin(0)
    disk = threading.Event()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (disk.wait(60), real(fd))[1])
    for version in range(600, 1100):
        reservation.ensure(version)
    assert reservation.warning(1000) is None
    assert "the reservation is late" in str(reservation.warning(1001))
    disk.set()
    reservation.settle()
    assert reservation.reserved_through == 1600
    assert reservation.warning(1001) is None


def test_a_disk_that_refuses_is_a_warning_and_is_asked_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reservation = Reservation(path)
    asked = []

    def full(fd: int) -> None:
        asked.append(fd)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        reservation.begin(0)
        assert reservation.warning(0) is None
        warning = str(reservation.warning(1))
        assert "versions may go back if the segment is lost" in warning
        assert str(path) in warning
        assert "No space left on device" in warning
        for version in range(1, 301):
            reservation.ensure(version)
            reservation.settle()
        assert 2 <= len(asked) <= 6, "once in a hundred versions, not at each"
    reservation.retry(300)
    reservation.settle()
    assert reservation.warning(300) is None
    assert on_disk(path) == 300 + AHEAD


DAMAGED = {
    "empty": b"",
    "cut": b'{"reserved_through": 1000}\n',
    "random": bytes(range(256)),
    "another checksum": b'{"reserved_through": 1000}\n00000000\n',
    **{
        name: body + b"\n" + f"{zlib.crc32(body):08x}\n".encode()
        for name, body in {
            "no number": b"{}",
            "a list": b"[1]",
            "text": b'{"reserved_through": "1000"}',
            "below zero": b'{"reserved_through": -5}',
            "infinite": b'{"reserved_through": Infinity}',
            "too large": b'{"reserved_through": 9223372036854775807}',
            "a fraction": b'{"reserved_through": 1.5}',
        }.items()
    },
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_reserves_nothing_and_says_so(path: Path, damage: str) -> None:
    path.write_bytes(DAMAGED[damage])
    reservation = Reservation(path)
    assert reservation.reserved_through == 0
    assert reservation.damage is not None
    assert "damaged" in str(reservation.warning(1))
    reservation.begin(7)
    assert on_disk(path) == 1007
    assert reservation.warning(7) is None


def test_a_file_that_never_was_is_no_damage(path: Path) -> None:
    assert Reservation(path).damage is None


def test_an_unreadable_file_is_one(path: Path) -> None:
    path.mkdir()
    assert Reservation(path).damage == "Is a directory"


# --- with a writer ------------------------------------------------------------------------------------------------


def test_after_an_unclean_loss_versions_begin_beyond_anything_published(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    published = 0
    for _ in range(4):
        writer = place.writer()
        first = publish(writer, {"n": 0})
        assert first > published, "a version was given out twice"
        for number in range(1, 700):
            published = publish(writer, {"n": number})
        assert published == first + 699
        assert not writer.warnings()
        kill(writer)
        for entry in place.run.iterdir():
            entry.unlink()
        place.run.rmdir()
        place.run.mkdir()


def test_replacements_renew_it_too(place: Any, publish: Callable[..., int]) -> None:
    """A runtime directory that something wipes again and again uses versions up as well."""
    writer = place.writer()
    publish(writer, {"n": 1})
    for _ in range(510):
        place.file.unlink()
        writer.keep_linked()
    writer._reservation.settle()
    assert on_disk(place.state / "web.versions") > 1000
    assert not writer.warnings()


def test_a_segment_without_a_version_uses_none_up(place: Any, kill: Callable[..., None]) -> None:
    for _ in range(3):
        kill(place.writer())
        place.file.unlink()
    assert not (place.state / "web.versions").exists()


def test_a_segment_without_a_version_is_made_anew_where_more_was_reserved(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    """Its maker did not have the state directory; the one who publishes in it has."""
    writer = place.writer()
    assert publish(writer, {"n": 1}) == 1
    kill(writer)
    place.file.unlink()
    kill(place.writer(state=False))
    assert publish(place.writer(), {"n": 2}) == 1001


@pytest.mark.parametrize("obstacle", ["none", "a file", "read only"])
def test_without_a_state_directory_publication_goes_on_with_a_warning(
    place: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    if obstacle == "a file":
        place.state.touch()
    elif obstacle == "read only":
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    writer = place.writer(state=obstacle != "none")
    assert publish(writer, {"n": 1}) == 1
    assert any("versions may go back if the segment is lost" in warning for warning in writer.warnings())


def test_a_damaged_reservation_with_the_segment_lost_too_is_told(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    kill(writer)
    (place.state / "web.versions").write_text(json.dumps({"reserved_through": 5}) + "\nbad\n")
    kept = place.writer()
    publish(kept, {"n": 2})
    assert not kept.warnings(), "the segment itself knows its version"
    kill(kept)
    (place.state / "web.versions").write_text("bad")
    place.file.unlink()
    writer = place.writer()
    publish(writer, {"n": 3})
    assert any("versions may have gone back" in warning for warning in writer.warnings())


def test_readers_follow_over_the_gap(place: Any, publish: Callable[..., int], kill: Callable[..., None]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with shmconf.attach("web", directory=place.run) as reader:
        kill(writer)
        place.file.unlink()
        writer = place.writer()
        assert publish(writer, {"n": 2}) == 1001
        assert reader.wait_version(after=1, timeout=60) == 1001
        assert reader["n"] == 2


def test_a_lost_reservation_is_made_anew(path: Path) -> None:
    reservation = Reservation(path)
    reservation.begin(0)
    path.unlink()
    reservation.retry(7)
    reservation.settle()
    assert on_disk(path) == 7 + AHEAD
    assert reservation.warning(7) is None
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    reservation.retry(8)
    reservation.settle()
    assert "Not a directory" in str(reservation.warning(8)), "what was reserved is lost, and cannot be had again"


def test_who_takes_a_published_segment_over_reserves_anew(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    """The state directory was lost and the segment was not; then the segment is, before anything is published."""
    writer = place.writer()
    for number in range(1, 4):
        published = publish(writer, {"n": number})
    kill(writer)
    shutil.rmtree(place.state)
    successor = place.writer()
    successor._reservation.settle()
    assert on_disk(place.state / "web.versions") == published + AHEAD
    kill(successor)
    place.file.unlink()
    assert publish(place.writer(), {"n": 4}) == published + AHEAD + 1


def test_a_disk_that_refused_who_took_over_is_asked_again(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    kill(writer)
    (place.state / "web.versions").unlink()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        successor = place.writer()
        successor._reservation.settle()
    assert any("No space left on device" in warning for warning in successor.warnings())
    successor.retry_reservation()
    successor._reservation.settle()
    assert on_disk(place.state / "web.versions") == 1 + AHEAD
    assert not successor.warnings()


def test_the_first_publication_after_a_take_over_waits_for_the_disk(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    kill(writer)
    (place.state / "web.versions").unlink()
    disk, begun, real = threading.Event(), threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (begun.set(), disk.wait(60), real(fd))[2])
    successor = place.writer()
    published: list[int] = []
    publishing = threading.Thread(target=lambda: published.append(publish(successor, {"n": 2})))
    publishing.start()
    assert begun.wait(60)
    publishing.join(0.1)
    assert not published
    disk.set()
    publishing.join(60)
    assert published == [2]
    assert on_disk(place.state / "web.versions") >= 2


# --- the state directory is lost under a writer -------------------------------------------------------------------


def test_a_state_directory_replaced_by_a_file_stops_no_publication(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    shutil.rmtree(place.state)
    place.state.touch()
    assert publish(writer, {"n": 2}) == 2
    assert not writer.keep_linked()
    (warning,) = writer.warnings()
    assert "versions may go back if the segment is lost" in warning
    assert "Not a directory" in warning
    place.state.unlink()
    assert publish(writer, {"n": 3}) == 3
    writer.retry_reservation()
    writer._reservation.settle()
    assert not writer.warnings()
    assert on_disk(place.state / "web.versions") == 3 + AHEAD


def test_a_state_directory_that_another_agent_has_taken_stops_publication(
    place: Any, publish: Callable[..., int]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    shutil.rmtree(place.state)
    place.state.mkdir()
    other = WriterLock(place.state / "web.lock", "another agent's", 0o700)
    for write in (lambda: publish(writer, {"n": 2}), writer.keep_linked):
        with pytest.raises(SegmentLocked):
            write()
    with shmconf.attach("web", directory=place.run) as reader:
        assert (reader.version, reader["n"]) == (1, 1)
    other.release()
