"""The C reader through time: new versions, cells, waiting, replacement, the agent's status."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from ctypes import byref
from pathlib import Path
from typing import Any

import pytest
from c_reader import Library, Reader, Result, Snapshot, as_parts

RETIRED = 1 << 63


def tree(number: int) -> dict[str, Any]:
    return {"n": number, "half": number + 0.5, "even": number % 2 == 0, "text": f"{number}", "big": list(range(500))}


def replace(place: Any, content: dict[str, Any]) -> None:
    """A new agent, to whom the segment was lost: another file under the name, in another epoch."""
    place.opened.pop().close()
    place.file.unlink()
    place.published(content)


def test_each_version_is_seen_at_once(library: Library, place: Any) -> None:
    writer = place.published(tree(0))
    with library.reader("web", place.run) as reader:
        for number in range(1, 20):
            assert place.publish(writer, tree(number)) == reader.version
            assert reader.value("n") == number


# --- cells ------------------------------------------------------------------------------------------------------------


def test_cells_follow_the_version(library: Library, place: Any) -> None:
    writer = place.published(tree(0))
    with library.reader("web", place.run) as reader:
        whole, gone = reader.cell("n"), reader.cell("nothing")
        half, even = reader.cell("half", "double"), reader.cell("even", "bool")
        for number in range(1, 12):
            place.publish(writer, tree(number))
            for _ in range(3):
                assert reader.read(whole) == (Result.OK, number)
                assert reader.read(half) == (Result.OK, number + 0.5)
                assert reader.read(even) == (Result.OK, number % 2 == 0)
                assert reader.read(gone) == (Result.MISSING, None)
        place.publish(writer, {"n": "text", "nothing": 5})
        assert reader.read(whole) == (Result.WRONG_TYPE, None)
        assert "the value at n is not an integer" in str(reader.fault)
        assert reader.read(gone) == (Result.OK, 5)
        assert reader.read(half) == (Result.MISSING, None)


def test_cells_of_each_type_at_one_path(library: Library, place: Any) -> None:
    place.published({"n": 3, "half": 0.5, "on": True, "text": "t", "long": "x" * 100})
    with library.reader("web", place.run) as reader:
        for path, found in {
            "n": (3, 3.0, None),
            "half": (None, 0.5, None),
            "on": (None, None, True),
            "text": (None, None, None),
            "long": (None, None, None),
        }.items():
            for kind, value in zip(("int", "double", "bool"), found, strict=True):
                cell = reader.cell(path, kind)
                wanted = (Result.WRONG_TYPE if value is None else Result.OK, value)
                assert [reader.read(cell) for _ in range(3)] == [wanted] * 3


def test_a_current_cell_does_not_look_at_the_segment_s_slots(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        cell = reader.cell("n")
        assert reader.read(cell) == (Result.OK, 1)
        library.test_set_patience(reader.handle, 0)
        writer._segment._mapping.store(512 + 128, 1)  # as if the slot were being written for ever
        assert reader.get("n")[0] is Result.CORRUPT
        assert reader.read(cell) == (Result.OK, 1)


def test_cells_move_to_a_replacement_with_their_reader(library: Library, place: Any) -> None:
    """Both are at version 1, so nothing but the name tells them apart."""
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        cell, other, released = reader.cell("n"), reader.cell("half", "double"), reader.cell("n")
        fresh = reader.cell("n")
        assert reader.read(cell) == reader.read(released) == (Result.OK, 1)
        assert reader.read(other) == (Result.OK, 1.5)
        library.cell_release(byref(released.cell))
        replace(place, tree(7))
        assert reader.version == 1
        assert [reader.read(cell) for _ in range(3000)] == [(Result.OK, 1)] * 3000  # cells alone never look at the name
        library.follow(reader.handle)
        assert reader.read(cell) == reader.read(fresh) == (Result.OK, 7)
        assert reader.read(other) == (Result.OK, 7.5)
        assert reader.status().reopened == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_cells_are_released_in_any_order(library: Library, place: Any, order: tuple[int, ...]) -> None:
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        cells = [reader.cell("n") for _ in range(3)]
        for number, released in enumerate(order):
            library.cell_release(byref(cells[released].cell))
            library.cell_release(byref(cells[released].cell))  # as harmless as once
            ctypes.memset(byref(cells[released]), 0xEE, ctypes.sizeof(cells[released]))
            replace(place, tree(number))
            library.follow(reader.handle)  # which goes through all cells that the reader knows
            assert [reader.read(cells[left]) for left in order[number + 1 :]] == [(Result.OK, number)] * (2 - number)


def test_the_cells_of_a_closed_reader_say_so(library: Library, place: Any) -> None:
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        cells = [reader.cell("n"), reader.cell("half", "double"), reader.cell("even", "bool")]
        assert reader.read(cells[0]) == (Result.OK, 1)
    for cell in cells:
        assert [reader.read(cell) for _ in range(3)] == [(Result.NOT_FOUND, None)] * 3
        library.cell_release(byref(cell.cell))


def test_every_1024th_get_looks_at_the_name(library: Library, place: Any) -> None:
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        replace(place, tree(2))
        found = [reader.typed("int", "n")[1] for _ in range(1024)]
        assert found == [1] * 1023 + [2]


# --- replacement ------------------------------------------------------------------------------------------------------


def test_a_retired_segment_is_left_for_its_successor(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader, reader.snapshot() as before:
        cell = reader.cell("n")
        assert reader.read(cell) == (Result.OK, 1)
        first = reader.epoch
        writer.close()
        place.opened.remove(writer)
        larger = place.writer(4 << 20)  # a larger max_bytes is a replacement
        assert (larger.version, larger.epoch != first) == (2, True)
        assert reader.read(cell) == (Result.OK, 1)
        assert (reader.version, reader.epoch) == (2, larger.epoch)
        place.publish(larger, tree(2))
        assert reader.read(cell) == (Result.OK, 2)
        assert before.version == 1
        status = reader.status()
        assert (status.reopened, status.retired, status.version) == (1, False, 3)


def test_a_snapshot_comes_from_the_successor_of_a_retired_segment(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        writer.close()
        place.opened.remove(writer)
        larger = place.writer(4 << 20)
        place.publish(larger, tree(2))
        with reader.snapshot() as snapshot:
            assert (snapshot.version, snapshot.epoch) == (3, larger.epoch)


def test_without_a_successor_the_retired_segment_is_served(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        cell = reader.cell("n")
        writer._segment.retire()
        for _ in range(3000):
            assert reader.read(cell) == (Result.OK, 1)
        assert reader.value("n") == 1
        status = reader.status()
        assert (status.retired, status.reopened, reader.version) == (True, 0, 1)
        with reader.snapshot() as snapshot:
            assert snapshot.version == 1


def test_a_reader_moves_to_valid_segments_only(library: Library, place: Any) -> None:
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        first = reader.epoch
        place.opened.pop().close()
        place.file.rename(place.run / "kept")
        whole = (place.run / "kept").read_bytes()
        place.file.write_bytes(whole[:12300])
        place.file.chmod(0o640)
        assert (reader.status().reopened, reader.value("n")) == (0, 1)
        place.file.unlink()
        place.writer()  # at version 0
        assert (reader.status().reopened, reader.value("n")) == (0, 1)
        assert reader.epoch == first
        place.publish(place.opened[-1], tree(5))
        assert (reader.status().reopened, reader.value("n")) == (1, 5)


def test_damage_sends_a_reader_to_the_successor_at_once(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        place.file.rename(place.run / "old")
        writer._segment._mapping.write(512 + 128 + 16, b"\xff" * 8)  # the length of the payload
        assert reader.get("n")[0] is Result.CORRUPT
        place.opened.pop().close()
        place.published(tree(4))
        assert reader.value("n") == 4
    writer = place.opened[-1]
    with library.reader("web", place.run) as reader:
        place.file.rename(place.run / "old")
        writer._segment._mapping.store(64, 0)  # the version that was published
        assert library.snapshot_take(reader.handle, byref(Snapshot())) == Result.CORRUPT
        place.opened.pop().close()
        place.published(tree(6))
        with reader.snapshot() as snapshot:
            assert snapshot.section("payload").startswith(b"\x85\xa1n\x06")


# --- waiting ----------------------------------------------------------------------------------------------------------


def waiting(reader: Reader, after: int, timeout: float = 60.0) -> tuple[threading.Thread, list[tuple[Result, int]]]:
    """A thread that waits (ctypes lets the others run), and where its answer will be."""
    answer: list[tuple[Result, int]] = []
    thread = threading.Thread(target=lambda: answer.append(reader.wait(after, timeout)))
    thread.start()
    return thread, answer


def test_what_is_there_already_is_not_waited_for(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    place.publish(writer, tree(2))
    with library.reader("web", place.run) as reader:
        assert reader.wait(1, 0.0) == (Result.OK, 2)
        assert reader.wait(0, -1.0) == (Result.OK, 2)
        assert library.wait(reader.handle, 1, 0.0, None) == Result.OK


@pytest.mark.parametrize("timeout", [0.0, 0.15, 1.1])
def test_a_wait_ends_after_its_timeout(library: Library, place: Any, timeout: float) -> None:
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        began = time.monotonic()
        assert reader.wait(1, timeout)[0] is Result.TIMEOUT
        assert reader.wait(2**63 - 1, 0.0)[0] is Result.TIMEOUT
        assert timeout <= time.monotonic() - began < timeout + 20
        assert str(reader.fault).startswith("no version after")


def test_a_publication_wakes(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        thread, answer = waiting(reader, 1, -1.0)
        in_futex(thread)
        assert place.publish(writer, tree(2)) == 2
        thread.join(60)
        assert answer == [(Result.OK, 2)]


def test_a_wake_up_without_a_newer_version_goes_on_waiting(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        thread, answer = waiting(reader, 2)
        in_futex(thread)
        place.publish(writer, tree(2))
        in_futex(thread)
        assert not answer
        place.publish(writer, tree(3))
        thread.join(60)
        assert answer == [(Result.OK, 3)]


def test_a_signal_ends_a_wait(library: Library, place: Any) -> None:
    place.published(tree(1))
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    try:
        with library.reader("web", place.run) as reader:
            thread = threading.current_thread()
            killer = threading.Thread(target=lambda: (in_futex(thread), os.kill(os.getpid(), signal.SIGUSR1)))
            killer.start()
            assert reader.wait(1, -1.0)[0] is Result.INTERRUPTED
            killer.join()
            assert "the wait ended" in str(reader.fault)
            assert caught
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_waiting_reader_moves_to_the_successor(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        thread, answer = waiting(reader, 1)
        in_futex(thread)
        writer.close()
        place.opened.remove(writer)
        assert place.writer(4 << 20).version == 2
        thread.join(60)
        assert answer == [(Result.OK, 2)]
        assert reader.epoch == place.opened[-1].epoch


def test_a_waiting_reader_finds_a_replacement_that_woke_nobody(library: Library, place: Any) -> None:
    """The old file was unlinked without a mark; the new one has the same version, which is news all the same."""
    place.published(tree(1))
    with library.reader("web", place.run) as reader:
        thread, answer = waiting(reader, 1)
        in_futex(thread)
        replace(place, tree(2))
        thread.join(60)
        assert answer == [(Result.OK, 1)]
        assert reader.value("n") == 2


def test_after_beyond_the_version(library: Library, place: Any) -> None:
    """A number from before a replacement is not waited for; without a replacement it is."""
    writer = place.published(tree(1))
    for number in range(2, 6):
        place.publish(writer, tree(number))
    with library.reader("web", place.run) as reader:
        assert reader.wait(5, 0.0)[0] is Result.TIMEOUT
        assert reader.wait(50, 0.0)[0] is Result.TIMEOUT
        replace(place, tree(9))
        assert reader.status().reopened == 1
        assert reader.wait(5, 20.0) == (Result.OK, 1)
        assert reader.wait(1, 0.0)[0] is Result.TIMEOUT
        assert reader.wait(0, 0.0) == (Result.OK, 1)


def in_futex(thread: threading.Thread) -> None:
    """Waits until the thread sleeps in futex(2) on a word that is not private, as no lock of Python's does."""
    deadline = time.monotonic() + 60
    while True:
        with open(f"/proc/self/task/{thread.native_id}/syscall") as told:
            fields = told.read().split()
        if (
            fields[0] == str(SYS_FUTEX) and len(fields) > 2 and int(fields[2], 16) & 0xFF == 0
        ):  # FUTEX_WAIT, not private
            return
        assert time.monotonic() < deadline, fields
        time.sleep(0.002)


SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine)


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_tells_of_the_agent(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    with library.reader("web", place.run) as reader:
        status = reader.status()
        assert (status.version, status.epoch, status.retired) == (1, writer.epoch, False)
        assert (status.state, status.agent_alive, status.heartbeat_age) == (b"unknown", False, -1)
        place.say(writer, state="running", rejections=3, problem_count=7, last_error="base.yaml:1:1: größer")
        writer.beat()
        status = reader.status()
        assert (status.state, status.agent_alive) == (b"running", True)
        assert 0 <= status.heartbeat_age < 3_000_000_000
        assert (status.rejections, status.problem_count) == (3, 7)
        assert status.last_error.decode() == "base.yaml:1:1: größer"
        assert (status.serving_last_known_good, status.held) == (True, b"")
        place.say(writer, state="running", last_error="web is frozen", held="9f" * 32)
        assert reader.status().held == b"9f" * 32
        place.say(writer, state="running")
        status = reader.status()
        assert (status.last_error, status.serving_last_known_good, status.rejections) == (b"", False, 0)
        assert status.held == b""
        place.say(writer, state="running", stale=True)
        assert reader.status().serving_last_known_good
        place.say(writer, state="stopped")
        assert (reader.status().state, reader.status().agent_alive) == (b"stopped", False)
        place.opened.pop().close()
        assert reader.status().heartbeat_age == -1


@pytest.mark.parametrize(
    ("beat", "alive"), [(0, False), (2, True), (3.5, False), (-60, False)], ids=["none", "now", "late", "future"]
)
def test_a_heartbeat_counts_for_3_s(library: Library, place: Any, beat: float, alive: bool) -> None:
    writer = place.published(tree(1))
    place.say(writer, state="running")
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    writer._segment._mapping.store(192, now - int(beat * 1e9) if beat else 0)
    with library.reader("web", place.run) as reader:
        # Measured again where this process was held up for so long that 2 s became 3.
        status = reader.status()
        assert status.agent_alive is (alive and status.heartbeat_age <= 3_000_000_000)
        assert (status.heartbeat_age == -1) == (beat <= 0)


@pytest.mark.parametrize(
    "body", [b"\x80", b"\x90", b"\xc1", b"\x81\xa5state\x05", b"\x81\xa5state\xd9\x20" + b"s" * 32, b""], ids=repr
)
def test_a_status_block_that_says_nothing(library: Library, place: Any, body: bytes) -> None:
    writer = place.published(tree(1))
    writer.set_status(body)
    with library.reader("web", place.run) as reader:
        status = reader.status()
        assert (status.state, status.last_error, status.version) == (b"unknown", b"", 1)


def test_a_damaged_status_block(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    place.say(writer, state="running", last_error="why")
    with library.reader("web", place.run) as reader:
        library.test_set_patience(reader.handle, 0)
        mapping = writer._segment._mapping
        assert reader.status().last_error == b"why"
        mapping.store(8192 + 8, mapping.load(8192 + 8) ^ 1 << 40)  # the checksum
        assert reader.status().state == b"unknown"
        mapping.store(8192 + 8, 4081)  # longer than the copy
        assert reader.status().state == b"unknown"
        mapping.store(8192, 1)  # for ever being written
        assert reader.status().state == b"unknown"
        assert reader.value("n") == 1


# --- segments, threads, fork, leaks -----------------------------------------------------------------------------------


def test_words_of_a_segment(library: Library, place: Any) -> None:
    writer = place.writer()
    with library.segment(place.run) as segment:
        latest = library.segment_latest(segment)
        assert (latest[0], library.segment_epoch(segment)) == (0, writer.epoch)
        verified = ctypes.c_uint64(77)
        assert library.segment_verify(segment, byref(verified), None) == Result.NOT_FOUND
        assert verified.value == 0
        before = library.segment_wake_word(segment)
        place.publish(writer, tree(1))
        assert latest[0] == 1
        assert library.segment_wake_word(segment) == before + 1
        assert library.segment_sleep(segment, before, 20.0) == Result.OK  # the word is another already
        assert library.segment_sleep(segment, before + 1, -1.0) == Result.OK
        assert library.segment_heartbeat_age(segment) == -1
        writer.beat()
        assert library.segment_heartbeat_age(segment) >= 0
        assert library.segment_is_linked(segment)
        place.file.rename(place.run / "elsewhere")
        assert not library.segment_is_linked(segment)
        writer._segment.retire()
        assert latest[0] == 1 | RETIRED
        assert library.segment_retries(segment) == 0


def test_a_forked_child_goes_on_with_the_reader(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    told, tell = os.pipe()
    asked, ask = os.pipe()
    with library.reader("web", place.run) as reader:
        cell = reader.cell("n")
        assert reader.read(cell) == (Result.OK, 1)
        child = os.fork()
        if child == 0:
            try:
                first = reader.read(cell)
                os.write(tell, b"1" if first == (Result.OK, 1) else b"?")
                os.read(asked, 1)
                good = reader.read(cell) == (Result.OK, 2) and reader.value("text") == "2"
                library.close(reader.handle)
                os.write(tell, b"2" if good else b"?")
            finally:
                os._exit(0)
        assert os.read(told, 1) == b"1"
        place.publish(writer, tree(2))
        os.write(ask, b"x")
        assert os.read(told, 1) == b"2"
        os.waitpid(child, 0)
        place.publish(writer, tree(3))
        assert reader.read(cell) == (Result.OK, 3)
    for end in (told, tell, asked, ask):
        os.close(end)


def test_one_segment_serves_many_threads(library: Library, place: Any) -> None:
    writer = place.published(tree(1))
    wrong: list[Any] = []
    seen: set[int] = set()
    done = threading.Event()

    with library.segment(place.run) as segment:

        def read() -> None:
            parts, buffer = as_parts(("n",), True), ctypes.create_string_buffer(9)
            length, version = ctypes.c_size_t(), ctypes.c_uint64()
            while not done.is_set():
                result = library.segment_get(segment, parts, 1, buffer, 9, byref(length), byref(version), None)
                if result != Result.OK or buffer.raw[0] != version.value % 100:
                    wrong.append((result, buffer.raw, version.value))
                seen.add(version.value)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(seen) <= 20 and not wrong and time.monotonic() < deadline:
            place.publish(writer, tree((writer.version + 1) % 100))
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(seen) > 20


def resources(run: Path) -> tuple[int, int]:
    """Open files and mappings of files that are or were in the directory."""
    links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    with open("/proc/self/maps") as maps:
        return sum(str(run) in link for link in links), sum(str(run) in line for line in maps)


def test_nothing_is_left_open(library: Library, place: Any) -> None:
    place.published(tree(1))
    gc.collect()
    before = resources(place.run)
    for _ in range(20):
        with library.reader("web", place.run) as reader, reader.snapshot():
            assert resources(place.run) == (before[0] + 1, before[1] + 1)
            replace(place, tree(2))
            assert reader.status().reopened == 1
            assert resources(place.run) == (before[0] + 1, before[1] + 1)
    place.file.chmod(0o666)
    assert library.try_open("web", place.run)[1] is Result.UNTRUSTED
    place.file.chmod(0o640)
    whole = place.file.read_bytes()
    place.file.rename(place.run / "old")
    for damaged in (b"", whole[:12300]):
        place.file.write_bytes(damaged)
        place.file.chmod(0o640)
        assert library.try_open("web", place.run)[1] is Result.CORRUPT
    library.close(None)
    gc.collect()
    assert resources(place.run) == before


def test_writers_of_all_sizes(library: Library, place: Any) -> None:
    """Growth and reuse of rooms under one open reader."""
    writer = place.writer(64 << 20)
    place.publish(writer, {"n": 0, "x": ""})
    with library.reader("web", place.run) as reader:
        for number, size in enumerate([10, 100_000, 10, 3_000_000, 9_000_000, 9_000_001, 20, 9_000_002, 5], 1):
            place.publish(writer, {"n": number, "x": "x" * size, "last": number})
            assert reader.typed("int", "n") == reader.typed("int", "last") == (Result.OK, number)
            assert reader.string("x", 1)[2] == size
            with reader.snapshot() as snapshot:
                assert snapshot.section("payload") == writer.published().payload
