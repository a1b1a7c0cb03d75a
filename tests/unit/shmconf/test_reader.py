from __future__ import annotations

import copy
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf import PathError, SegmentCorrupt, SegmentNotFound, Snapshot
from shmconf.opening import Attached

TREE: dict[Any, Any] = {
    "db": {"pool": {"size": 10}, "hosts": ["one", {"name": "two"}]},
    "a.b": {"c": 1},
    "zero": 0,
    "false": False,
    "null": None,
    "empty": {},
    "big": 2**64 - 1,
    "bytes": b"\0\xff",
    "day": date(2026, 11, 22),
    "when": datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC),
    "nan": math.nan,
    5: "five",
    None: "none",
}


@pytest.fixture
def writer(place: Any, publish: Callable[..., int]) -> Any:
    writer = place.writer()
    publish(writer, TREE)
    return writer


@pytest.fixture
def reader(place: Any, writer: Any) -> Any:
    with shmconf.attach("web", directory=place.run) as reader:
        yield reader


# --- looking up ---------------------------------------------------------------------------------------------------


def test_get(reader: Any) -> None:
    assert reader.get("db.pool.size") == 10
    assert reader.get("db.pool.size", default=5) == 10
    assert reader.get("db.hosts.1.name") == "two"
    assert reader.get('"a.b".c') == 1
    assert reader.get(("a.b", "c")) == 1
    assert reader.get((5,)) == "five"
    assert reader.get((None,)) == "none"
    assert reader.get("day") == date(2026, 11, 22)
    assert reader.get("when").tzinfo == UTC
    assert math.isnan(reader.get("nan"))


def test_a_missing_path_is_the_default_and_a_null_is_none(reader: Any) -> None:
    assert reader.get("db.missing") is None
    assert reader.get("db.missing", 7) == 7
    assert reader.get("db.pool.size.deeper", 7) == 7
    assert reader.get("db.hosts.9", 7) == 7
    assert reader.get("null", 7) is None
    assert reader.get("zero", 7) == 0
    assert reader.get("false", 7) is False
    assert reader.get("a.b.c", 7) == 7
    assert reader.get("5", 7) == 7, "text matches string keys only"
    assert reader.get((["unhashable"],), 7) == 7


@pytest.mark.parametrize("path", ["", "a.", "a b", '"open', 5, None])
def test_a_malformed_path_is_a_path_error(reader: Any, path: Any) -> None:
    with pytest.raises(PathError):
        reader.get(path)
    with pytest.raises(PathError):
        reader.snapshot().get(path)


def test_an_integer_of_more_than_64_bits_may_equal_a_float(place: Any, publish: Callable[..., int]) -> None:
    publish(place.writer(), {2.0**64: "float", 2**64 - 1: "integer", "list": [1]})
    with shmconf.attach("web", directory=place.run) as reader:
        assert reader.get((2**64,)) == reader.snapshot()[2**64] == "float"
        assert reader.get((2**64 - 1,)) == "integer"
        assert reader.get((2**64 + 1,)) is None
        assert reader.get(("list", 2**64)) is None


def test_brackets(reader: Any) -> None:
    assert reader["db"] == TREE["db"]
    assert reader["a.b"] == {"c": 1}, "one key, never split"
    assert reader["a.b", "c"] == 1
    assert reader["db", "hosts", 0] == "one"
    assert reader[5] == "five"
    assert reader[None] == "none"
    for missing in ("db.pool", "5", ("db", "hosts", 2), ("db", "hosts", "0"), ("zero", "x")):
        with pytest.raises(KeyError) as caught:
            reader[missing]
        assert caught.value.args == (missing,)


def test_contains(reader: Any) -> None:
    assert "db" in reader
    assert ("db", "pool") in reader
    assert "null" in reader
    assert "db.pool" not in reader
    assert ["unhashable"] not in reader


def test_containers_are_fresh_and_scalars_the_same_at_each_call(reader: Any) -> None:
    for take in (lambda: reader["db"], lambda: reader.get("db"), lambda: reader.snapshot()["db"]):
        taken = take()
        taken["pool"]["size"] = 99
        taken["hosts"].clear()
        assert take() == TREE["db"]
    assert reader["bytes"] is reader["bytes"]


def test_look_ups_follow_the_version(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    kept = reader.snapshot()
    assert publish(writer, {"n": 2}) == 2
    assert reader.version == 2
    assert reader.get("n") == 2
    assert reader["n"] == 2
    assert "db" not in reader
    assert reader.snapshot().version == 2
    assert kept.version == 1
    assert kept["db"] == TREE["db"]


def test_an_unchanged_version_is_copied_once(
    reader: Any, writer: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    reader.snapshot()
    attachment = type(reader.attachment())
    real = attachment.copy_latest
    monkeypatch.setattr(attachment, "copy_latest", lambda self: copies.append(1) or real(self))
    for _ in range(50):
        reader.get("db.pool.size")
        reader.snapshot()
    assert not copies
    publish(writer, TREE)
    for _ in range(50):
        reader["zero"]
        reader.snapshot()
    assert len(copies) == 1


# --- snapshots ----------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_mapping_in_the_files_order(reader: Any) -> None:
    snapshot = reader.snapshot()
    assert isinstance(snapshot, Mapping)
    assert list(snapshot) == list(snapshot.keys()) == list(TREE)
    assert len(snapshot) == len(TREE)
    assert dict(snapshot.items())["db"] == TREE["db"]
    assert "db" in snapshot
    assert "no" not in snapshot
    assert snapshot == snapshot
    assert next(iter(snapshot.values())) == TREE["db"]
    assert list(snapshot.to_dict()) == list(TREE)
    assert snapshot.get("db.pool.size") == 10
    assert snapshot.get("no", 3) == 3


def test_a_snapshot_can_not_be_changed(reader: Any) -> None:
    snapshot = reader.snapshot()
    digest = snapshot.digest
    with pytest.raises(TypeError):
        snapshot["db"] = 1
    with pytest.raises(AttributeError):
        snapshot.version = 2
    with pytest.raises(AttributeError):
        snapshot.other = 2
    snapshot.to_dict().clear()
    snapshot.metadata["digest"] = "another"
    snapshot.metadata["files"].append("another")
    assert snapshot["db"] == TREE["db"]
    assert (snapshot.digest, snapshot.metadata["files"]) == (digest, ["base.yaml"])


def test_a_snapshot_says_what_it_is(reader: Any, writer: Any) -> None:
    snapshot = reader.snapshot()
    assert (snapshot.version, snapshot.epoch) == (1, writer.epoch)
    assert len(snapshot.digest) == 64
    assert snapshot.published_at > 1_600_000_000 * 10**9
    assert "db" not in repr(snapshot)
    assert "version 1" in repr(snapshot)
    assert "db" not in repr(reader)


def test_a_snapshot_outlives_everything(place: Any, writer: Any, publish: Callable[..., int]) -> None:
    with shmconf.attach("web", directory=place.run) as reader:
        snapshot = reader.snapshot()
    writer.close()
    place.file.unlink()
    assert snapshot["db"] == TREE["db"]
    assert copy.deepcopy(snapshot.to_dict())["zero"] == 0


def test_equal_content_has_an_equal_digest(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    first = reader.snapshot()
    publish(writer, TREE)
    assert reader.snapshot().digest == first.digest
    publish(writer, dict(reversed(TREE.items())))
    assert reader.snapshot().digest != first.digest, "a change of order is a change"


# --- attach and close ---------------------------------------------------------------------------------------------


def test_attach_waits_for_a_segment(place: Any, publish: Callable[..., int], child: Any) -> None:
    code = """
import sys, shmconf
print("waiting", flush=True)
with shmconf.attach("web", directory=sys.argv[1], wait=60) as reader:
    print(reader["n"])
"""
    waiting = child(code, place.run)
    waiting.expect("waiting")
    writer = place.writer()  # a segment without a version is waited for, too
    publish(writer, {"n": 4})
    waiting.expect("4")
    waiting.finish()


def test_attach_stops_waiting(place: Any) -> None:
    with pytest.raises(SegmentNotFound):
        shmconf.attach("web", directory=place.run, wait=0.05)


@pytest.mark.parametrize("there", [False, True])
def test_attach_refuses_to_wait_until_nan(place: Any, publish: Callable[..., int], there: bool) -> None:
    """No clock ever passes it."""
    if there:
        publish(place.writer(), {"n": 1})
    with pytest.raises(ValueError, match="nan"):
        shmconf.attach("web", directory=place.run, wait=math.nan)


def test_attach_does_not_wait_for_what_will_never_be_good(place: Any) -> None:
    place.file.write_bytes(b"random")
    with pytest.raises(SegmentCorrupt):
        shmconf.attach("web", directory=place.run, wait=60)


def test_close(place: Any, writer: Any) -> None:
    reader = shmconf.attach("web", directory=place.run)
    snapshot = reader.snapshot()
    with reader as same:
        assert same is reader
    reader.close()
    for use in (
        lambda: reader.get("db"),
        lambda: reader["db"],
        lambda: reader.version,
        reader.snapshot,
        reader.status,
        lambda: reader.wait_version(0, 0.1),
        lambda: next(iter(reader.changes(after=0))),
    ):
        with pytest.raises(shmconf.Error, match="the Reader of segment 'web' is closed"):
            use()
    assert snapshot["zero"] == 0
    assert "closed" in repr(reader)


def test_readers_leave_no_descriptors_behind(place: Any, writer: Any) -> None:
    before = sorted(place.open_files())
    for _ in range(20):
        with shmconf.attach("web", directory=place.run) as reader:
            reader.snapshot()
    assert sorted(place.open_files()) == before


def test_a_reader_neither_writes_nor_locks(place: Any, writer: Any, reader: Any) -> None:
    """The one lock that it has, to be counted by, is on a file that nothing else is done with."""
    writer.close()
    before = place.file.read_bytes()
    if sys.platform == "linux":
        inodes = {path.stat().st_ino: path.name for path in place.run.iterdir()}
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        locked = [lock[5].split(":")[2] for lock in locks if "->" not in lock and lock[4] == str(os.getpid())]
        assert {inodes[int(inode)] for inode in locked if int(inode) in inodes} == {"web.workers"}
    reader.snapshot()
    reader.status()
    reader.wait_version(timeout=0.01)
    reader.close()
    assert place.file.read_bytes() == before
    assert sorted(path.name for path in place.run.iterdir()) == ["web.lock", "web.shmconf", "web.workers"]
    assert (place.run / "web.workers").read_bytes() == b""


# --- the segment is replaced --------------------------------------------------------------------------------------


def test_a_removed_segment_goes_on_being_served_and_its_successor_is_found(
    place: Any, writer: Any, reader: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    epoch = reader.epoch
    place.file.unlink()
    assert reader["db"] == TREE["db"]
    publish(writer, {"n": 2})
    until(lambda: reader.get("n") == 2, "look-ups follow a retired segment")
    assert reader.epoch != epoch
    assert reader.snapshot().version == 2
    assert reader.status().reopened == 1


@pytest.mark.parametrize("look", ["get", "brackets", "snapshot"])
def test_look_ups_follow_a_segment_that_nobody_retired(
    place: Any, writer: Any, reader: Any, publish: Callable[..., int], kill: Callable[..., None],
    until: Callable[..., Any], look: str
) -> None:  # fmt: skip
    """Both the file and its agent went without a word; another agent began anew."""
    kill(writer)
    place.file.unlink()
    publish(place.writer(), {"n": "anew"})
    take = {
        "get": lambda: reader.get("n"),
        "brackets": lambda: "n" in reader and reader["n"],
        "snapshot": lambda: reader.snapshot().get("n"),
    }[look]
    if look == "snapshot":
        until(lambda: take() == "anew", "a snapshot looks at the name once a second")
    else:
        assert any(take() == "anew" for _ in range(1025)), "every 1,024th look-up looks at the name"


@pytest.mark.parametrize("bad", ["untrusted", "damaged", "without a version", "another format"])
def test_a_bad_successor_is_not_moved_to(
    place: Any, writer: Any, reader: Any, publish: Callable[..., int], kill: Callable[..., None], bad: str
) -> None:
    kill(writer)
    whole = bytearray(place.file.read_bytes())
    place.file.unlink()
    if bad == "without a version":
        place.writer()
    else:
        if bad == "damaged":
            whole[512 + 128 + 16] ^= 1  # the descriptor of version 1
        if bad == "another format":
            whole[8] = 2
        place.file.write_bytes(whole)
        place.file.chmod(0o666 if bad == "untrusted" else 0o640)
    status = reader.status()
    assert (status.version, status.reopened) == (1, 0)
    for _ in range(2100):
        assert reader.get("db.pool.size") == 10
    assert reader.snapshot().version == 1
    assert reader.wait_version(timeout=0.1) is None


def test_a_reader_moves_to_a_lower_version_of_a_new_epoch(
    place: Any, writer: Any, reader: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    for number in range(5):
        publish(writer, {"n": number})
    assert reader["n"] == 4
    kill(writer)
    place.file.unlink()
    other = place.writer(state=False)
    assert publish(other, {"n": "lower"}) == 1
    assert reader.status().version == 1
    assert reader["n"] == "lower"


def test_damage_at_rest_is_served_from_the_cache_and_told_to_who_must_copy(
    place: Any, writer: Any, publish: Callable[..., int]
) -> None:
    reader = shmconf.attach("web", directory=place.run)
    assert reader["zero"] == reader["zero"] == 0
    writer._segment._mapping.store(512 + 128 + 16, 7)  # scribbled over: version 1's descriptor
    assert reader["zero"] == 0
    with pytest.raises(SegmentCorrupt, match="the descriptor of version 1 is damaged"):
        shmconf.attach("web", directory=place.run)
    assert reader.status().version == 1
    publish(writer, {"n": 2})
    assert reader["n"] == 2
    reader.close()


# --- threads ------------------------------------------------------------------------------------------------------


def test_threads_share_a_reader_while_versions_pass_and_segments_are_replaced(
    place: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    publish(writer, {"n": 0, "same": [0] * 500})
    reader = shmconf.attach("web", directory=place.run)
    failures: list[BaseException] = []
    seen: list[set[int]] = [set() for _ in range(4)]
    stop = threading.Event()

    def look(mine: set[int]) -> None:
        last = -1
        try:
            while not stop.is_set():
                snapshot = reader.snapshot()
                tree = snapshot.to_dict()
                assert tree["same"] == [tree["n"]] * 500
                assert tree["n"] >= last, "a version went back"
                last = tree["n"]
                mine.add(last)
                assert reader.get("same.0") is not None
                reader.status()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    number = 0
    deadline = time.monotonic() + 60
    while (number < 400 or min(map(len, seen)) <= 10) and not failures and time.monotonic() < deadline:
        number += 1
        if number % 50 == 0:
            place.file.unlink()
        publish(writer, {"n": number, "same": [number] * 500})
    until(lambda: failures or all(number in mine for mine in seen), "every thread sees the last version")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert reader.status().reopened >= 1
    assert min(map(len, seen)) > 10, "there was no overlap"
    reader.close()


def test_closing_under_reading_threads_ends_them_with_the_right_error(
    place: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    for round_number in range(15):
        reader = shmconf.attach("web", directory=place.run)
        ended: list[BaseException] = []
        begun = threading.Barrier(4)

        def look(reader: Any = reader, begun: Any = begun, ended: Any = ended) -> None:
            begun.wait()
            try:
                while True:
                    reader.get("n")
                    reader.status()
                    reader.snapshot().to_dict()
            except BaseException as met:
                ended.append(met)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        if round_number % 3 == 0:
            place.file.unlink()  # they are about to reopen when it is closed
        publish(writer, {"n": round_number})
        reader.close()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert [str(error) for error in ended] == ["the Reader of segment 'web' is closed"] * 3


def test_a_reader_closed_while_it_reopens_stays_closed(
    place: Any, writer: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = shmconf.attach("web", directory=place.run)
    place.file.unlink()
    publish(writer, {"n": 2})
    real = shmconf.reader.open_attachment

    def open_and_close(directory: Any, name: str) -> Attached:
        opened = real(directory, name)
        reader.close()  # as another thread would, at the worst moment
        return opened

    monkeypatch.setattr(shmconf.reader, "open_attachment", open_and_close)
    with pytest.raises(shmconf.Error, match="is closed"):
        reader.status()
    with pytest.raises(shmconf.Error, match="is closed"):
        reader.get("n")


def test_a_thread_that_reopens_late_does_not_undo_what_a_faster_one_did(
    place: Any, writer: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shmconf.reader.open_attachment
    with shmconf.attach("web", directory=place.run) as reader:
        place.file.unlink()
        publish(writer, {"n": 2})

        def open_late(directory: Any, name: str) -> Attached:
            opened = real(directory, name)
            monkeypatch.setattr(shmconf.reader, "open_attachment", real)
            place.file.unlink()
            publish(writer, {"n": 3})
            assert reader.status().version == 3  # as another thread would, while this one has version 2 in its hands
            return opened

        monkeypatch.setattr(shmconf.reader, "open_attachment", open_late)
        assert reader.status().version == 3
        assert (reader.version, reader["n"], reader.epoch) == (3, 3, writer.epoch)


# --- fork ---------------------------------------------------------------------------------------------------------

FORKS = """
import os, sys, shmconf
reader = shmconf.attach("web", directory=sys.argv[1])
first = reader.snapshot()
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert reader.wait_version(after=1, timeout=60) == 2
            assert reader["n"] == 2 and reader.get("n") == 2
            assert reader.snapshot().version == 2 and first.version == 1 and first["n"] == 1
            assert reader.status().agent_alive
            code = 0
        finally:
            os._exit(code)
    pids.append(pid)
print("forked", flush=True)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
assert reader["n"] == 2
"""


def test_forked_children_go_on_with_the_reader(place: Any, publish: Callable[..., int], child: Any) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    parent = child(FORKS, place.run)
    parent.expect("forked")
    writer.beat()
    publish(writer, {"n": 2})
    parent.finish()


FORKED_WRITER = """
import os, sys, pathlib, traceback, shmconf
from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Writer
writer = Writer(Directory(pathlib.Path(sys.argv[1]), named=True), "web")
writer.publish(codec.pack({"n": 1}))
address = writer._segment._mapping
pid = os.fork()
if pid == 0:
    code = 1
    try:
        for use in (writer.beat, lambda: address.load(64), lambda: writer.publish(codec.pack({"n": 9}))):
            try:
                use()
            except (ValueError, shmconf.Error) as error:
                continue
            if use != writer.beat:
                os._exit(3)
        held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [path for path in held if path.endswith(".lock")], held
        with open("/proc/self/maps") as maps:
            mapped = [line for line in maps if line.rstrip().endswith("web.shmconf")]
        assert not mapped, mapped
        with shmconf.attach("web", directory=sys.argv[1]) as reader:  # a reader of one's own works
            assert reader["n"] in (1, 2)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(1, f"child {code}\\n".encode())
        sys.stdin.readline()  # lives on, until it is told that its parent's lock was taken
        os._exit(code)
os.write(1, f"parent {writer.publish(codec.pack({'n': 2}))}\\n".encode())
os._exit(0)  # without close(): what the kernel frees is what counts
"""


@pytest.mark.parametrize("pure", ["", "1"])
def test_a_forked_child_has_neither_the_writer_s_lock_nor_its_mapping(
    place: Any, publish: Callable[..., int], child: Any, pure: str
) -> None:
    parent = child(FORKED_WRITER, place.run, SHMCONF_PURE=pure)
    said = {parent.line(), parent.line()}
    assert said == {"child 0", "parent 2"}, parent.finish(check=False)
    parent.process.wait(60)
    assert publish(place.writer(), {"n": 3}) == 3, "the child, which lives, kept the lock"
    parent.tell("end")
    parent.finish()


def test_a_snapshot_is_made_of_content_alone(writer: Any) -> None:
    content = writer.published()
    assert Snapshot(content)["zero"] == 0
