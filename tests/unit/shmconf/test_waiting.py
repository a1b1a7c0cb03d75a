from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import shmconf
from shmconf import waiting


@pytest.fixture
def writer(place: Any, publish: Callable[..., int]) -> Any:
    writer = place.writer()
    publish(writer, {"n": 1})
    return writer


@pytest.fixture
def reader(place: Any, writer: Any) -> Any:
    with shmconf.attach("web", directory=place.run) as reader:
        yield reader


@pytest.fixture
def long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeps that are not cut: only a wake-up ends them before the test's own time is up."""
    monkeypatch.setattr(waiting, "_SLICE_SECONDS", 1000.0)


def test_what_is_there_already_is_returned_at_once(reader: Any) -> None:
    assert reader.wait_version(after=0) == 1
    assert reader.wait_version(after=0, timeout=0) == 1
    snapshot = reader.wait(after=0)
    assert (snapshot.version, snapshot["n"]) == (1, 1)


@pytest.mark.parametrize("timeout", [0, 0.05, -1])
def test_a_timeout_is_none(reader: Any, timeout: float) -> None:
    assert reader.wait_version(after=1, timeout=timeout) is None
    assert reader.wait_version(timeout=timeout) is None
    assert reader.wait(after=1, timeout=timeout) is None
    assert reader.wait_version(after=100, timeout=timeout) is None


def test_a_wait_until_nan_is_refused(reader: Any) -> None:
    for wait in (
        lambda: reader.wait_version(timeout=math.nan),
        lambda: reader.wait(timeout=math.nan),
        lambda: next(reader.changes(timeout=math.nan)),
    ):
        with pytest.raises(ValueError, match="number of seconds"):
            wait()


def test_a_timeout_is_kept(reader: Any, long_slices: None) -> None:
    began = time.monotonic()
    assert reader.wait_version(timeout=0.2) is None
    assert 0.2 <= time.monotonic() - began < 100


PUBLISH_WHEN_TOLD = """
import os, sys, pathlib
from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Writer
with Writer(Directory(pathlib.Path(sys.argv[1]), named=True), "web") as writer:
    print("ready", flush=True)
    for line in sys.stdin:
        print(writer.publish(codec.pack({"n": int(line)})), flush=True)
"""


@pytest.fixture
def other(place: Any, child: Any) -> Any:
    """A publishing process; `tell` it a number."""
    process = child(PUBLISH_WHEN_TOLD, place.run)
    process.expect("ready")
    process.tell("1")
    process.expect("1")
    return process


@pytest.mark.usefixtures("long_slices")
def test_another_process_wakes_a_sleeper(place: Any, other: Any, until: Callable[..., Any]) -> None:
    with shmconf.attach("web", directory=place.run) as reader:
        woken: list[Any] = []
        for number in range(2, 12):
            thread = threading.Thread(
                target=lambda after=number - 1: woken.append(reader.wait_version(after=after, timeout=200))
            )
            thread.start()
            if number % 2:  # half of the time it certainly sleeps by then, in the other half perhaps not yet
                until(lambda thread=thread: asleep(thread), "the waiting thread sleeps")
            other.tell(str(number))
            other.expect(str(number))
            thread.join(60)
            assert not thread.is_alive(), "nobody woke it; it sleeps its slice"
        assert woken == list(range(2, 12))


def asleep(thread: threading.Thread) -> bool:
    """Whether the thread is blocked in the kernel (state S, in a futex or, where there is none, a poll)."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as state:
        return state.read().rsplit(")", 1)[1].split()[0] == "S"


def test_no_wake_up_is_lost_between_look_and_sleep(
    place: Any, writer: Any, publish: Callable[..., int], long_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication right after the version was looked at, before the sleep: the sleep ends at once."""
    with shmconf.attach("web", directory=place.run) as reader:
        real = shmconf.Reader.identity
        left = [3]

        def look_then_publish(self: Any) -> tuple[int, int]:
            looked = real(self)
            if left[0]:
                left[0] -= 1
                publish(writer, {"n": looked[1] + 1})
            return looked

        monkeypatch.setattr(shmconf.Reader, "identity", look_then_publish)
        began = time.monotonic()
        assert next(reader.changes(after=3, timeout=200)).version == 4
        assert time.monotonic() - began < 100


def test_a_publication_between_look_and_sleep_ends_a_wait_beyond_it(
    place: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    """Versions follow one another while waits begin at every moment: none of them sleeps through one."""
    with shmconf.attach("web", directory=place.run) as reader:
        attachment = reader.attachment()
        ended = threading.Event()
        seen: list[int] = []

        def follow() -> None:
            while not ended.is_set():
                seen.append(attachment.wait_beyond(seen[-1] if seen else 1, 60))

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            for _ in range(500):
                version = publish(writer, {"n": 1})
                until(lambda version=version: seen and seen[-1] >= version, "the wait ended")
        finally:
            ended.set()
            publish(writer, {"n": 2})
            thread.join(100)
        assert not thread.is_alive()
        assert seen == sorted(seen)


def test_changes_begin_with_the_next_version(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    changes = reader.changes(timeout=0.05)
    publish(writer, {"n": 2})  # after the call, before the first step
    assert [snapshot["n"] for snapshot in changes] == [2]


def test_changes_after_zero_begin_with_the_current_one(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    changes = reader.changes(after=0, timeout=0.05)
    assert next(changes)["n"] == 1
    publish(writer, {"n": 2})
    publish(writer, {"n": 3})
    assert [snapshot["n"] for snapshot in changes] == [3], "what was passed meanwhile is passed over"


def test_changes_after_a_number(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    changes = reader.changes(after=2, timeout=0.05)
    publish(writer, {"n": 2})
    assert list(changes) == []
    changes = reader.changes(after=2, timeout=0.05)
    publish(writer, {"n": 3})
    assert [snapshot.version for snapshot in changes] == [3]


def test_ctrl_c_ends_a_wait(place: Any, writer: Any, child: Any) -> None:
    code = """
import sys, signal, shmconf
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
reader = shmconf.attach("web", directory=sys.argv[1])
try:
    for wait in (lambda: reader.wait_version(), lambda: next(reader.changes())):
        try:
            print("waiting", flush=True)
            wait()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
except KeyboardInterrupt:
    pass
"""
    import signal

    waiter = child(code, place.run)
    for _ in range(2):
        waiter.expect("waiting")
        waiter.process.send_signal(signal.SIGINT)
        waiter.expect("interrupted")
    waiter.finish()


def test_a_signal_handler_that_returns_does_not_end_a_wait(place: Any, other: Any, child: Any) -> None:
    code = """
import sys, signal, shmconf
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
reader = shmconf.attach("web", directory=sys.argv[1])
print("waiting", flush=True)
print(reader.wait_version(after=1, timeout=60))
"""
    import signal

    waiter = child(code, place.run)
    waiter.expect("waiting")
    waiter.process.send_signal(signal.SIGUSR1)
    waiter.expect("handled")
    other.tell("2")
    waiter.expect("2")
    waiter.finish()


# --- replaced segments --------------------------------------------------------------------------------------------


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; the result ends it."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(50)  # less than anything here waits by itself
        assert not thread.is_alive(), "it still waits"
        return results[0]

    return result


def test_a_wait_moves_to_the_replacement(
    place: Any, reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    waited = in_thread(lambda: reader.wait_version(timeout=60))
    place.file.unlink()
    publish(writer, {"n": 2})
    assert waited() == 2
    assert reader["n"] == 2


def test_changes_move_to_the_replacement_whatever_its_number(
    place: Any, writer: Any, publish: Callable[..., int], kill: Callable[..., None]
) -> None:
    for number in range(2, 6):
        publish(writer, {"n": number})
    with shmconf.attach("web", directory=place.run) as reader:
        changes = reader.changes(timeout=60)
        seen = in_thread(lambda: next(changes)["n"])
        kill(writer)
        place.file.unlink()  # nobody retires it
        other = place.writer(state=False)
        publish(other, {"n": "lower"})
        assert seen() == "lower"
        publish(other, {"n": "next"})
        assert next(changes)["n"] == "next"


@pytest.mark.parametrize("versions", [1, 5, 9])
def test_a_wait_sees_a_new_epoch_whatever_its_number(
    place: Any, writer: Any, publish: Callable[..., int], kill: Callable[..., None], versions: int
) -> None:
    """Lower than `after`, equal to it, above it: it is all new."""
    for number in range(2, 6):
        publish(writer, {"n": number})
    with shmconf.attach("web", directory=place.run) as reader:
        waited = in_thread(lambda: reader.wait(after=5, timeout=60))
        kill(writer)
        place.file.rename(place.run / "lost")
        place.run.rename(place.run.with_name("aside"))
        aside = type(place)(place.run.parent)
        other = aside.writer(state=False)
        place.opened.append(other)
        # All of it becomes visible at once, as after a mount.
        for number in range(versions):
            publish(other, {"n": f"new {number}"})
        snapshot = waited()
        assert snapshot.epoch == other.epoch
        assert snapshot["n"].startswith("new")


def test_a_too_large_after_returns_at_once_when_the_epoch_has_changed(
    place: Any, reader: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    place.file.unlink()
    publish(writer, {"n": 2})
    until(lambda: reader.status().reopened, "the reader has moved")
    assert reader.wait_version(after=1000, timeout=0) == 2
    assert reader.wait(after=1000, timeout=0)["n"] == 2
    assert reader.wait_version(after=2, timeout=0.05) is None, "what was seen is not news"


def test_waiting_on_a_retired_segment_without_a_successor_does_not_spin(
    place: Any, reader: Any, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer._segment.retire()
    looks = []
    real = shmconf.Reader.identity
    monkeypatch.setattr(shmconf.Reader, "identity", lambda self: looks.append(1) or real(self))
    assert reader.wait_version(timeout=0.5) is None
    assert len(looks) < 30
    assert reader["n"] == 1


def test_closing_ends_the_waits_of_other_threads(place: Any, writer: Any) -> None:
    reader = shmconf.attach("web", directory=place.run)
    waits = [
        in_thread(lambda: reader.wait_version(timeout=60)),
        in_thread(lambda: reader.wait(timeout=60)),
        in_thread(lambda: next(reader.changes(timeout=60))),
    ]
    reader.close()
    for wait in waits:
        assert str(wait()) == "the Reader of segment 'web' is closed"


# --- asyncio ------------------------------------------------------------------------------------------------------


def waiting_threads() -> int:
    return sum(thread.name.startswith("shmconf-changes") for thread in threading.enumerate())


def test_changes_async(reader: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]) -> None:
    async def follow() -> list[int]:
        seen = []
        changes = reader.changes_async(after=0)
        async for snapshot in changes:
            seen.append(snapshot["n"])
            if snapshot["n"] == 3:
                break
            await asyncio.to_thread(publish, writer, {"n": snapshot["n"] + 1})
        await changes.aclose()
        # While the loop goes on: the thread ends with the generator, not only with the loop.
        await asyncio.to_thread(until, lambda: not waiting_threads(), "the waiting thread ends")
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 100)) == [1, 2, 3]


def test_changes_async_begins_with_the_next_version(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    async def follow() -> int:
        changes = reader.changes_async()
        publish(writer, {"n": 2})
        found: int = (await anext(changes))["n"]
        await changes.aclose()
        return found

    assert asyncio.run(asyncio.wait_for(follow(), 100)) == 2


def test_changes_async_can_be_cancelled(reader: Any, until: Callable[..., Any]) -> None:
    async def follow() -> None:
        async def forever() -> None:
            async for _ in reader.changes_async():
                pass

        task = asyncio.create_task(forever())
        while not waiting_threads():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(follow(), 100))
    until(lambda: not waiting_threads(), "the waiting thread ends")


def test_a_slow_consumer_gets_the_latest(reader: Any, writer: Any, publish: Callable[..., int]) -> None:
    async def follow() -> list[int]:
        changes = reader.changes_async(after=0)
        first = await anext(changes)
        await asyncio.to_thread(lambda: [publish(writer, {"n": number}) for number in range(2, 50)])
        seen = [first["n"]]
        while seen[-1] != 49:
            seen.append((await anext(changes))["n"])
        await changes.aclose()
        return seen

    seen = asyncio.run(asyncio.wait_for(follow(), 100))
    assert seen == sorted(set(seen))
    assert len(seen) < 49


def test_an_error_reaches_the_consumer(place: Any, writer: Any) -> None:
    reader = shmconf.attach("web", directory=place.run)

    async def follow() -> None:
        changes = reader.changes_async()
        reader.close()
        await anext(changes)

    with pytest.raises(shmconf.Error, match="is closed"):
        asyncio.run(asyncio.wait_for(follow(), 100))


def test_an_abandoned_loop_leaves_no_thread_behind(reader: Any, until: Callable[..., Any]) -> None:
    loop = asyncio.new_event_loop()
    changes = reader.changes_async(after=0)
    assert loop.run_until_complete(anext(changes))["n"] == 1
    loop.run_until_complete(changes.aclose())
    loop.close()
    until(lambda: not waiting_threads(), "the thread sees that nobody listens")
