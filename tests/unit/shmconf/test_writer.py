from __future__ import annotations

import grp
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf import codec, layout
from shmconf.attachment import Attachment
from shmconf.directories import Directory
from shmconf.errors import Error, SegmentFull, SegmentLocked, SegmentNotFound
from shmconf.index import build_index
from shmconf.layout import Header
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer


def reader_of(place: Any) -> shmconf.Reader:
    return shmconf.attach("web", directory=place.run)


def inode(fd: str) -> int | None:
    try:
        return os.fstat(int(fd)).st_ino
    except OSError:  # that of the listing itself
        return None


def words(place: Any) -> bytes:
    return bytes(place.file.read_bytes()[: layout.ROOMS_BASE])


def store(path: Path, offset: int, value: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(8, "little"))


# --- publishing ---------------------------------------------------------------------------------------------------


def test_a_publication_is_what_readers_get(place: Any) -> None:
    writer = place.writer()
    assert (writer.version, writer.published()) == (0, None)
    payload = codec.pack({"n": 1})
    before = time.time_ns()
    assert writer.publish(payload, {"files": ["a.yaml", "b.yaml"], "digest": "is not taken from here"}) == 1
    with reader_of(place) as reader:
        snapshot = reader.snapshot()
        assert snapshot.payload == payload
        assert snapshot.digest == hashlib.sha256(payload).hexdigest()
        assert snapshot.metadata["files"] == ["a.yaml", "b.yaml"]
        assert before <= snapshot.published_at <= time.time_ns()
        assert (snapshot.version, snapshot.epoch) == (writer.version, writer.epoch)
    content = writer.published()
    assert content is not None
    assert content.payload == payload
    assert writer.size == place.file.stat().st_size


def test_versions_go_on_when_the_clock_goes_back(
    place: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    assert publish(writer, {"n": 2}) == 2
    with reader_of(place) as reader:
        assert (reader["n"], reader.snapshot().published_at) == (2, 5)


def test_the_last_versions_of_an_epoch(place: Any, publish: Callable[..., int], kill: Callable[..., None]) -> None:
    kill(place.writer())
    header = Header(epoch=7, max_bytes=1 << 20, created_at=0, floor=2**63 - 4)
    with open(place.file, "r+b") as file:
        file.write(header.encode())
    writer = place.writer()
    with pytest.raises(SegmentNotFound):
        reader_of(place)
    assert [publish(writer, {"n": number}) for number in (1, 2, 3)] == [2**63 - 3, 2**63 - 2, 2**63 - 1]
    with reader_of(place) as reader:
        with pytest.raises(Error, match="used up"):
            publish(writer, {"n": 4})
        assert (reader["n"], reader.version) == (3, 2**63 - 1)
        assert not reader.status().retired
    kill(writer)
    successor = place.writer()
    assert successor.version == 2**63 - 1
    place.file.unlink()
    with pytest.raises(Error, match="used up"):
        successor.keep_linked()
    assert not list(place.run.glob(".*"))


def test_a_failed_publication_leaves_everything_as_it_was(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer(max_bytes=64 << 10)
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        for _ in range(3):
            with pytest.raises(SegmentFull, match="the published version is untouched"):
                publish(writer, {"fill": "x" * 70_000})
        assert (reader["n"], reader.version, writer.version) == (1, 1, 1)
        assert publish(writer, {"n": 2}) == 2
        assert reader["n"] == 2


# --- taking over --------------------------------------------------------------------------------------------------


def test_a_successor_goes_on_in_the_same_epoch(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    epoch = writer.epoch
    with reader_of(place) as reader:
        for version in range(2, 7):
            kill(writer)
            writer = place.writer()
            assert (writer.version, writer.epoch) == (version - 1, epoch)
            assert writer.published() is not None
            assert publish(writer, {"n": version}) == version
            assert reader["n"] == version
        assert reader.status().reopened == 0


def test_a_successor_empties_what_was_not_finished(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    for number in range(1, 6):
        publish(writer, {"n": number})  # slots: 4, 5, 2, 3
    kill(writer)
    store(place.file, layout.slot_offset(6), 2 * 6 - 1)  # was being written
    store(place.file, layout.slot_offset(7), 2 * 7)  # was whole, but never became the latest
    writer = place.writer()
    data = words(place)
    counters = [int.from_bytes(data[layout.slot_offset(slot) :][:8], "little") for slot in range(4)]
    rooms = [int.from_bytes(data[layout.slot_offset(slot) + 8 :][:8], "little") for slot in range(4)]
    assert counters == [8, 10, 0, 0]
    assert [bool(room) for room in rooms] == [True, True, False, False]
    assert publish(writer, {"n": 6}) == 6


def test_a_successor_wakes_who_sleeps(place: Any, publish: Callable[..., int], kill: Callable[..., None]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        attachment = reader.attachment()
        seen = attachment.wake_word()
        kill(writer)
        done = threading.Event()
        threading.Thread(target=lambda: (attachment.wait(seen, 60), done.set()), daemon=True).start()
        place.writer()
        assert done.wait(60)
        assert attachment.wake_word() != seen


def test_what_a_predecessor_built_aside_is_removed(place: Any, kill: Callable[..., None]) -> None:
    kill(place.writer())
    aside = place.run / ".web.shmconf.new"
    aside.write_bytes(b"half a successor")
    place.writer()
    assert not aside.exists()


def test_a_retired_segment_is_replaced_by_the_next_writer(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    """Its writer died between the retirement and the rename."""
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        writer._segment.retire()
        kill(writer)
        assert reader["n"] == 1
        with reader_of(place) as late:
            assert late["n"] == 1, "attach may serve a retired segment"
        successor = place.writer()
        assert (successor.version, successor.epoch == writer.epoch) == (2, False)
        assert reader.wait_version(after=1, timeout=60) == 2
        assert reader["n"] == 1
        assert not reader.status().retired


def test_a_retired_segment_with_nothing_in_it_is_made_anew(place: Any, kill: Callable[..., None], publish: Any) -> None:
    writer = place.writer()
    writer._segment.retire()
    kill(writer)
    successor = place.writer()
    assert successor.epoch != writer.epoch
    assert publish(successor, {"n": 1}) == 1


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_file_that_goes_while_it_is_taken_over_is_made_anew(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What was in it was read before, and is published in its successor."""
    writer = place.writer()
    publish(writer, {"n": 1})
    copy = place.file.read_bytes()
    with reader_of(place) as reader:
        kill(writer)
        real = Attachment.copy_latest
        replaced: list[int] = []

        def copy_and_lose(found: Attachment) -> Any:
            content = real(found)
            place.file.unlink(missing_ok=True)
            if what == "replaced":
                place.file.write_bytes(copy)
                replaced.append(place.file.stat().st_ino)
            return content

        with monkeypatch.context() as patched:
            patched.setattr(Attachment, "copy_latest", copy_and_lose)
            successor = place.writer()
        assert (successor.version, successor.epoch == writer.epoch) == (2, False)
        assert reader.wait_version(after=1, timeout=60) == 2
        assert reader["n"] == 1
        with reader_of(place) as other:
            assert other["n"] == 1
        assert not [fd for fd in os.listdir("/proc/self/fd") if inode(fd) in replaced], "its descriptor was forgotten"


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(place: Any, publish: Callable[..., int], kill: Callable[..., None]) -> Any:
    """Five versions, the last of them damaged; the writer is gone."""
    writer = place.writer(state=False)
    for number in range(1, 6):
        publish(writer, {"n": number})
    kill(writer)
    place.epoch = writer.epoch
    store(place.file, layout.slot_offset(5) + 16, 3)
    return place


def test_with_nothing_to_publish_a_damaged_segment_stays(damaged: Any) -> None:
    before = damaged.file.read_bytes()
    with damaged.writer(state=False) as writer:
        assert (writer.version, writer.epoch, writer.size, writer.published()) == (0, 0, 0, None)
        writer.set_status(AgentStatus(state="running", last_error="x").encode())
        writer.beat()
        assert not writer.keep_linked()
        assert any("the first valid configuration replaces it" in warning for warning in writer.warnings())
    assert damaged.file.read_bytes() == before


def test_the_first_publication_replaces_a_damaged_segment(damaged: Any, publish: Callable[..., int]) -> None:
    old = Attachment.open(damaged.directory, "web")
    writer = damaged.writer(state=False)
    status = AgentStatus(state="running", last_error="x")
    writer.set_status(status.encode())
    assert publish(writer, {"n": "new"}) == 6, "above what the damaged one had"
    assert writer.epoch not in (0, damaged.epoch)
    assert old.latest() == (5, True), "its readers are told"
    assert not any("not usable" in warning for warning in writer.warnings())
    with reader_of(damaged) as reader:
        assert reader["n"] == "new"
        assert reader.status().agent == status


def test_readers_of_a_damaged_segment_go_on_and_move(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        kill(writer)
        store(place.file, 16, 5)  # the header: nobody can tell its readers, they see it by the name
        assert reader["n"] == 1
        writer = place.writer()
        assert publish(writer, {"n": 2}) == 1001
        assert reader.wait_version(after=1, timeout=60) == 1001
        assert reader["n"] == 2


@pytest.mark.parametrize(("latest", "next_version"), [(9, 10), (2**62 - 1, 2**62), (2**62, 1), (2**63 - 1, 1)])
def test_an_unbelievable_version_is_not_gone_on_from(
    damaged: Any, publish: Callable[..., int], latest: int, next_version: int
) -> None:
    store(damaged.file, layout.LATEST, latest)
    assert publish(damaged.writer(state=False), {"n": "new"}) == next_version


def test_a_successor_that_does_not_fit_leaves_the_old_one_in_service(damaged: Any, publish: Callable[..., int]) -> None:
    writer = damaged.writer(state=False, max_bytes=64 << 10)
    before = damaged.file.read_bytes()
    held = sorted(damaged.open_files())
    for _ in range(3):
        with pytest.raises(SegmentFull):
            publish(writer, {"fill": "x" * 100_000})
    assert damaged.file.read_bytes() == before
    assert not list(damaged.run.glob(".*"))
    assert sorted(damaged.open_files()) == held
    assert publish(writer, {"n": "small"}) == 6


def test_another_format_is_replaced(place: Any, publish: Callable[..., int], kill: Callable[..., None]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    kill(writer)
    with open(place.file, "r+b") as file:
        file.seek(8)
        file.write((2).to_bytes(4, "little"))
    writer = place.writer()
    assert any("format 2" in warning for warning in writer.warnings())
    assert publish(writer, {"n": 2}) == 1001
    with reader_of(place) as reader:
        assert reader["n"] == 2


# --- max_bytes ----------------------------------------------------------------------------------------------------


def test_a_larger_max_bytes_replaces_the_segment_with_what_it_held(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer(max_bytes=64 << 10)
    for number in range(1, 4):
        publish(writer, {"n": number})
    with reader_of(place) as reader:
        before = reader.snapshot()
        kill(writer)
        writer = place.writer(max_bytes=4 << 20)
        assert writer.version == 4
        assert writer.epoch != before.epoch
        assert reader.wait_version(after=3, timeout=60) == 4
        after = reader.snapshot()
        assert (after.payload, after.metadata, after.published_at) == (
            before.payload,
            before.metadata,
            before.published_at,
        )
        publish(writer, {"fill": "x" * 500_000})
        assert len(reader["fill"]) == 500_000


def test_a_smaller_max_bytes_keeps_the_segment_and_is_kept_to(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer(max_bytes=4 << 20)
    publish(writer, {"n": 1})
    epoch = writer.epoch
    kill(writer)
    writer = place.writer(max_bytes=64 << 10)
    assert writer.epoch == epoch
    with pytest.raises(SegmentFull, match="max_bytes is 65,536"):
        publish(writer, {"fill": "x" * 70_000})
    assert publish(writer, {"n": 2}) == 2


@pytest.mark.parametrize("max_bytes", [0, 1, 16_384, 16_385, 100_000, 1 << 44])
def test_any_max_bytes_makes_a_valid_segment(place: Any, publish: Callable[..., int], max_bytes: int) -> None:
    writer = place.writer(max_bytes=max_bytes)
    with open(place.file, "rb") as file:
        header = Header.decode(file.read(64))
    assert header.max_bytes == max(16_384, max_bytes // 4096 * 4096)
    if max_bytes >= 100_000:
        publish(writer, {"n": 1})
        with reader_of(place) as reader:
            assert reader["n"] == 1
        assert place.file.stat().st_size < 100_000


# --- the file goes missing ----------------------------------------------------------------------------------------


def test_a_segment_deleted_under_a_live_agent_comes_back(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    writer.set_status(AgentStatus(state="running").encode())
    publish(writer, {"n": 1})
    assert not writer.keep_linked()
    with reader_of(place) as reader:
        before = reader.snapshot()
        place.file.unlink()
        assert writer.keep_linked()
        assert not writer.keep_linked()
        assert writer.version == 2
        assert reader.wait_version(after=1, timeout=60) == 2
        after = reader.snapshot()
        assert after.epoch != before.epoch
        assert (after.payload, after.metadata, after.published_at) == (
            before.payload,
            before.metadata,
            before.published_at,
        )
        writer.beat()
        assert reader.status().agent_alive
        assert reader.status().agent.state == "running"
        assert publish(writer, {"n": 3}) == 3
        assert reader["n"] == 3


def test_a_publication_puts_a_deleted_segment_back_too(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        place.file.unlink()
        assert publish(writer, {"n": 2}) == 2
        assert reader.wait_version(after=1, timeout=60) == 2
        assert reader["n"] == 2
        with reader_of(place) as other:
            assert other["n"] == 2


def test_a_segment_without_a_version_comes_back_too(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    writer.set_status(AgentStatus(state="running", last_error="line 3").encode())
    place.file.unlink()
    assert writer.keep_linked()
    with pytest.raises(SegmentNotFound, match="line 3"):
        reader_of(place)
    assert publish(writer, {"n": 1}) == 1


def test_another_file_put_in_its_place_is_replaced(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    shutil.copy(place.file, place.run / "copy")
    os.rename(place.run / "copy", place.file)
    assert writer.keep_linked()
    with reader_of(place) as reader:
        assert (reader["n"], reader.epoch) == (1, writer.epoch)


def test_a_wiped_runtime_directory_is_made_anew_under_a_live_agent(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        shutil.rmtree(place.run)
        assert reader["n"] == 1
        assert writer.keep_linked()
        assert stat.S_IMODE((place.run / "web.lock").stat().st_mode) == 0o600
        assert reader.wait_version(after=1, timeout=60) == 2
        with pytest.raises(SegmentLocked):
            place.writer()


def test_a_directory_wiped_between_two_agents_is_followed(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with reader_of(place) as reader:
        kill(writer)
        shutil.rmtree(place.run)
        assert reader["n"] == 1
        assert reader.status().version == 1
        place.run.mkdir()
        writer = place.writer()
        version = publish(writer, {"n": 2})
        assert reader.wait_version(after=1, timeout=60) == version
        assert reader["n"] == 2


def test_a_damaged_published_version_is_not_put_back_as_if_it_were_good(
    place: Any, publish: Callable[..., int]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    writer._segment._mapping.store(layout.slot_offset(1) + 16, 3)
    place.file.unlink()
    with pytest.raises(shmconf.SegmentCorrupt):
        writer.keep_linked()
    assert not place.file.exists()
    assert publish(writer, {"n": 2}) == 2


# --- access -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_the_file_has_the_mode_that_was_asked_for_from_the_start(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], mode: int
) -> None:
    old = os.umask(0)
    try:
        writer = place.writer(mode=mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.file.stat().st_mode) == mode
    publish(writer, {"n": 1})
    kill(writer)
    writer = place.writer(mode=0o600)
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    assert writer.version == 1


def test_the_group(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], require: Callable[[object, str], None]
) -> None:
    groups = [entry.gr_gid for entry in grp.getgrall() if os.geteuid() == 0 or entry.gr_gid in os.getgroups()]
    others = [gid for gid in groups if gid != os.getegid()]
    require(others, "a second group is needed")
    writer = place.writer(gid=others[0])
    assert place.file.stat().st_gid == others[0]
    publish(writer, {"n": 1})
    epoch = writer.epoch
    kill(writer)
    writer = place.writer(gid=os.getegid())
    assert (place.file.stat().st_gid, writer.epoch) == (os.getegid(), epoch)
    place.file.unlink()
    writer.keep_linked()
    assert place.file.stat().st_gid == os.getegid()


def test_a_new_segment_becomes_visible_only_complete(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if str(target) == str(place.file):
            seen.append(stat.S_IMODE(os.stat(source).st_mode))
            with open(source, "rb") as file:
                Header.decode(file.read(64))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    place.writer(mode=0o644)
    assert seen == [0o644]


# --- one writer ---------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_changes_nothing(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    before = place.file.read_bytes()
    with pytest.raises(SegmentLocked, match=f"segment 'web' already has an agent .process {os.getpid()}"):
        place.writer()
    assert place.file.read_bytes() == before
    assert publish(writer, {"n": 2}) == 2


def test_a_second_writer_with_the_same_state_directory_is_refused(place: Any, tmp_path: Path) -> None:
    place.writer()
    (tmp_path / "other").mkdir()
    with pytest.raises(SegmentLocked, match="with the state directory"):
        Writer(Directory(tmp_path / "other", named=True), "web", Settings(), state_directory=place.state)
    with Writer(Directory(tmp_path / "other", named=True), "api", Settings(), state_directory=place.state):
        pass


def test_a_writer_whose_lock_was_taken_stops_before_it_writes(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    (place.run / "web.lock").unlink()
    other = place.writer(state=False)
    before = place.file.read_bytes()
    with pytest.raises(SegmentLocked):
        publish(writer, {"n": "mine"})
    assert place.file.read_bytes() == before
    assert publish(other, {"n": "theirs"}) == 2


def test_close_frees_the_locks_and_leaves_the_segment(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    writer.beat()
    assert len(place.open_files()) >= 3, "segment and two locks"
    with reader_of(place) as reader:
        assert reader.status().agent_alive
        writer.close()
        writer.close()
        assert not reader.status().agent_alive
        assert reader["n"] == 1
    assert not place.open_files()
    writer.beat()
    with place.writer() as successor:
        assert successor.version == 1


def test_beats_go_on_through_replacements(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    stop = threading.Event()
    failures: list[BaseException] = []

    def beat() -> None:
        try:
            while not stop.is_set():
                writer.beat()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=beat)
    thread.start()
    for _ in range(30):
        place.file.unlink()
        writer.keep_linked()
    stop.set()
    thread.join()
    assert not failures
    writer.beat()
    with reader_of(place) as reader:
        assert reader.status().agent_alive


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_bad_name_is_refused(place: Any, name: str) -> None:
    with pytest.raises(shmconf.InvalidName):
        Writer(place.directory, name)


def test_a_missing_directory_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(Error, match="cannot open the lock"):
        Writer(Directory(tmp_path / "none", named=True), "web")


def test_a_successor_has_a_living_agent_from_its_first_moment(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    directory = Directory(tmp_path / "run", named=True)
    with Writer(directory, "web") as writer:
        writer.publish(codec.pack({"a": 1}))
        writer.beat()
        writer.path.unlink()
        assert writer.keep_linked()
        assert Attachment.open(directory, "web").heartbeat_age() is not None


# --- the index ----------------------------------------------------------------------------------------------------

LARGE = {"list": ["x" * 10] * 100, "map": {str(number): number for number in range(100)}}


def test_each_version_has_the_index_of_its_payload(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    for tree in ({"small": 1}, LARGE, {"small": 2}, {**LARGE, "more": 1}, LARGE, LARGE):
        publish(writer, tree)
        content = writer.published()
        assert content is not None
        assert content.payload == codec.pack(tree)
        assert content.index == build_index(content.payload)
        assert bool(content.index) is ("list" in tree)


def test_what_is_no_document_is_refused_and_nothing_changes(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    before = place.file.read_bytes()
    with pytest.raises(ValueError, match="not one msgpack document"):
        writer.publish(codec.pack(LARGE)[:-1])
    assert place.file.read_bytes() == before
    assert publish(writer, {"n": 2}) == 2


def as_published_by_the_first_writer(place: Any, payload: bytes, kill: Callable[..., None]) -> Attachment:
    """A segment at version 1 whose payload has no index, left by a writer that is gone."""
    writer = place.writer(state=False, max_bytes=1 << 20)
    segment = writer._segment
    assert segment is not None
    segment.publish(1, payload, b"", codec.pack({"digest": ""}), 5, 1 << 20)
    kill(writer)
    return Attachment.open(place.directory, "web")


@pytest.mark.parametrize("way", ["larger max_bytes", "removed"])
def test_a_replacement_gives_an_index_to_what_had_none(place: Any, kill: Callable[..., None], way: str) -> None:
    old = as_published_by_the_first_writer(place, codec.pack(LARGE), kill)
    before = old.copy_latest()
    assert before is not None
    assert before.index == b""
    writer = place.writer(state=False, max_bytes=2 << 20 if way == "larger max_bytes" else 1 << 20)
    if way == "removed":
        assert writer.published() == before, "a segment that is taken over stays as it is"
        place.file.unlink()
        assert writer.keep_linked()
    content = writer.published()
    assert content is not None
    assert (content.version, content.payload, content.published_at) == (2, before.payload, 5)
    assert content.index == build_index(content.payload) != b""


def test_a_published_version_that_is_no_document_counts_as_damage(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    old = as_published_by_the_first_writer(place, b"\xc1" * 1000, kill)
    writer = place.writer(state=False, max_bytes=2 << 20)
    assert any("version 1: the payload is not one msgpack document" in warning for warning in writer.warnings())
    assert old.latest() == (1, False), "with nothing to publish it stays"
    assert publish(writer, LARGE) == 2
    assert old.latest() == (1, True)
    assert not any("not one msgpack document" in warning for warning in writer.warnings())
    with reader_of(place) as reader:
        assert reader.snapshot().to_dict() == LARGE


def test_a_removed_segment_that_held_no_document_is_not_put_back(
    place: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    as_published_by_the_first_writer(place, b"\xc1" * 1000, kill)
    writer = place.writer(state=False)
    place.file.unlink()
    with pytest.raises(shmconf.SegmentCorrupt, match="not one msgpack document"):
        writer.keep_linked()
    assert publish(writer, LARGE) == 2


def test_a_copy_with_a_damaged_index_is_damage(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, LARGE)
    found = Attachment.open(place.directory, "web")
    room = layout.Room.of(found.mapping.load(layout.slot_offset(1) + layout.ROOM))
    content = found.copy_latest()
    assert content is not None
    start = room.offset + layout.aligned(len(content.payload))
    for offset in (start, start + len(content.index) - 8):
        word = found.mapping.load(offset)
        store(place.file, offset, word ^ 1 << 40)
        with pytest.raises(shmconf.SegmentCorrupt, match="checksum of version 1"):
            found.copy_latest()
        store(place.file, offset, word)
    assert found.copy_latest() == content
