"""Waiting for versions: in the kernel, as an iterator, and for asyncio.

The order that makes a lost wake-up impossible: load the wake word, then look at the version, then sleep on the wake
word as loaded. The writer publishes first and bumps the word after, so a publication between the two loads ends the
sleep at once. Sleeps are cut into slices of at most a second, after each of which the segment's name is looked at:
a segment that somebody unlinked never wakes anybody.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from .status import ALIVE_SECONDS as ALIVE_SECONDS

if TYPE_CHECKING:
    from .reader import Reader
    from .snapshot import Snapshot

_SLICE_SECONDS = 1.0


def wait_version(reader: Reader, after: int, timeout: float | None) -> int | None:
    """The version once it is greater than `after`; None after `timeout` seconds."""
    found = _wait(reader, timeout, partial(_is_news, reader, after))
    return None if found is None else found[1]


def changes(reader: Reader, after: int | None, timeout: float | None) -> Iterator[Snapshot]:
    """Snapshots of new versions; `seen` compares epochs too, so a replaced segment's first version is news."""
    seen = _starting_point(reader, after)
    return _changes(reader, seen, timeout)


def _changes(reader: Reader, seen: tuple[int, int], timeout: float | None) -> Iterator[Snapshot]:
    while _wait(reader, timeout, partial(_differs, seen)) is not None:
        snapshot = reader.snapshot()
        if _differs(seen, (snapshot.epoch, snapshot.version)):
            seen = (snapshot.epoch, snapshot.version)
            yield snapshot


def changes_async(reader: Reader, after: int | None) -> AsyncGenerator[Snapshot]:
    """As `changes`. A daemon thread waits and hands over; what the consumer was too slow for is passed over."""
    return _changes_async(reader, _starting_point(reader, after))


async def _changes_async(reader: Reader, seen: tuple[int, int]) -> AsyncGenerator[Snapshot]:
    loop = asyncio.get_running_loop()
    latest: asyncio.Queue[Snapshot | BaseException] = asyncio.Queue(maxsize=1)
    ended = threading.Event()

    def hand_over(item: Snapshot | BaseException) -> None:
        if latest.full():
            latest.get_nowait()
        latest.put_nowait(item)

    def wait_in_thread() -> None:
        nonlocal seen
        try:
            while not ended.is_set():
                for snapshot in _changes(reader, seen, _SLICE_SECONDS):
                    seen = (snapshot.epoch, snapshot.version)
                    loop.call_soon_threadsafe(hand_over, snapshot)
                    if ended.is_set():
                        return
        except RuntimeError:
            return  # the loop was closed: nobody listens any more
        except Exception as error:
            if not ended.is_set() and not loop.is_closed():
                loop.call_soon_threadsafe(hand_over, error)

    threading.Thread(target=wait_in_thread, name=f"shmconf-changes-{reader.name}", daemon=True).start()
    try:
        while True:
            item = await latest.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()


def _starting_point(reader: Reader, after: int | None) -> tuple[int, int]:
    epoch, version = reader.identity()
    return epoch, version if after is None else after


def _is_news(reader: Reader, after: int, identity: tuple[int, int]) -> bool:
    _, version = identity
    return version > after or (reader.has_moved() and 1 <= version < after)


def _differs(seen: tuple[int, int], identity: tuple[int, int]) -> bool:
    epoch, version = identity
    return version > 0 and (epoch != seen[0] or version > seen[1])


def _wait(
    reader: Reader, timeout: float | None, is_news: Callable[[tuple[int, int]], bool]
) -> tuple[int, int] | None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        attachment = reader.attachment()
        seen = attachment.wake_word()  # before the version: see the module's first lines
        identity = reader.identity()
        if is_news(identity):
            return identity
        remaining = _SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        if remaining <= 0:
            return None
        if reader.attachment() is attachment:  # else the wake word belongs to a segment that was left
            reader.sleep(attachment, seen, min(remaining, _SLICE_SECONDS))
