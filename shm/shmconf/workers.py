"""The workers that are attached to a segment, as the kernel knows them by their locks on `NAME.workers`.

For the agent and whoever looks after the host; no reader needs it. To be asked in a process that is no worker of that
segment itself: its own lock is not shown to it, and would be dropped.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from . import workers_file
from .directories import Directory
from .trust import open_trusted

MOST = 4096
"""Locks that are looked at. A worker has one; whoever may read a segment could have any number."""

MOST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that is attached. pid: None for one that the caller cannot see, as in a container beside it.

    version: what it has adopted last; it adopts a new one when it looks something up.
    """

    pid: int | None
    version: int


def attached_workers(directory: Directory, name: str, served: int) -> list[Worker]:
    """The workers of the segment `name`, at most MOST, in no order. served: the version published there.

    Takes some microseconds for each, and ends after MOST_SECONDS with those found by then: a reader can hold so many
    locks that each question takes long. Raises SegmentNotFound or SegmentUntrusted where there is no such file, OSError
    where the system refuses.
    """
    if not workers_file.OFFERED:
        return []
    opened = open_trusted(directory, name + workers_file.SUFFIX)
    try:
        return _workers(opened.fd, served)
    finally:
        os.close(opened.fd)


def _workers(fd: int, served: int) -> list[Worker]:
    found: dict[int, Worker] = {}
    unseen: list[Worker] = []
    ranges, looked_at = [(0, workers_file.END)], 0
    deadline = time.monotonic() + MOST_SECONDS
    while ranges and looked_at < MOST and time.monotonic() < deadline:
        start, end = ranges.pop()
        lock = workers_file.lock_in(fd, start, end)
        if lock is None:
            continue
        looked_at += 1
        at, until, pid = lock
        if at > start:
            ranges.append((start, at))
        if until < end:
            ranges.append((until, end))
        length = until - at
        if at % workers_file.PLACE_SIZE or length > workers_file.PLACE_SIZE:
            continue  # no worker's
        worker = Worker(pid or None, workers_file.version_of(length, served))
        if not pid:
            unseen.append(worker)
        elif pid not in found or found[pid].version < worker.version:
            found[pid] = worker
    return [*found.values(), *unseen]
