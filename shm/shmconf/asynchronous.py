"""Waiting for versions in asyncio; imported only by who asks for it, as asyncio costs every worker its import.

A daemon thread waits and hands each Snapshot to the event loop; what the consumer was too slow for is passed over.
The thread ends within a second of the generator's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from .snapshot import Snapshot
from .waiting import Followed, changes_since, starting_point

_SLICE_SECONDS = 1.0


def changes_async(reader: Followed, after: int | None) -> AsyncGenerator[Snapshot]:
    """As `Reader.changes`; what counts as new is decided now, not at the first step."""
    return _changes(reader, starting_point(reader, after))


async def _changes(reader: Followed, seen: tuple[int, int]) -> AsyncGenerator[Snapshot]:
    loop = asyncio.get_running_loop()
    latest: asyncio.Queue[Snapshot | Exception] = asyncio.Queue(maxsize=1)
    ended = threading.Event()

    def replace(item: Snapshot | Exception) -> None:
        if latest.full():
            latest.get_nowait()
        latest.put_nowait(item)

    def hand_over(item: Snapshot | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens any more
            loop.call_soon_threadsafe(replace, item)

    def wait() -> None:
        since = seen
        try:
            while not (ended.is_set() or loop.is_closed()):
                for snapshot in changes_since(reader, since, _SLICE_SECONDS):
                    since = (snapshot.epoch, snapshot.version)
                    hand_over(snapshot)
                    if ended.is_set():
                        return
        except Exception as error:  # raised where the consumer is
            hand_over(error)

    threading.Thread(target=wait, name=f"shmconf-changes-{reader.name}", daemon=True).start()
    try:
        while True:
            item = await latest.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        ended.set()
