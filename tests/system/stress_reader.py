"""A reader of the stress test, in a process of its own: reads without a pause and checks all that it gets.

argv: the runtime directory, what to do, and a file for its Progress. It ends only by a failed check or a signal.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import stress_document as documents
from stress_progress import Progress

import shmconf
from shmconf import layout

LONGEST_WINDOW = 5_000  # versions among which a value is searched for


class Checks:
    """One thread's checks of one Reader: what is read is of one version, published when it was read or later."""

    def __init__(self, reader: shmconf.Reader, progress: Progress, shared: bool = False) -> None:
        self.reader, self.progress = reader, progress
        self.floor = 0  # no version below is seen again
        self.shared, self.retries = shared, 0  # a shared Reader's retries are counted by one of its threads
        self.chance = random.Random(os.getpid() ^ threading.get_ident())
        self.size = self.file_size()
        self.epoch = reader.epoch
        self.writers: set[tuple[int, int]] = set()

    def file_size(self) -> int:
        try:
            return os.stat(self.reader.attachment().path).st_size
        except FileNotFoundError:
            return layout.ROOMS_BASE

    def version(self) -> int:
        """The version now, which no later read goes behind."""
        version = self.reader.version
        assert version >= self.floor, f"version {version} after {self.floor}"
        return version

    def look(self, path: Any) -> Any:
        if isinstance(path, str) and "." not in path and self.chance.random() < 0.3:
            try:
                return self.reader[path]
            except KeyError:
                return MISSING
        return self.reader.get(path, MISSING)

    def point(self, path: Any, expected: Callable[[int], Any], container: bool = False) -> None:
        before = self.version()
        value = self.look(path)
        after = self.version()
        fitting = next((version for version in window(before, after) if same(value, expected(version))), None)
        assert fitting is not None, f"{path!r} was {value!r:.200} between versions {before} and {after}"
        if value is not MISSING and not isinstance(value, bool):
            self.floor = max(self.floor, fitting)
        self.progress.add(verified=1, points=1, containers=container)

    def filling(self) -> None:
        """The longest value, up to megabytes of it by a point look-up."""
        before = self.version()
        value = self.look("fill")
        after = self.version()
        if value is MISSING:
            assert any(not documents.services(version) for version in window(before, after))
        else:
            self.floor = int.from_bytes(value[:8], "little")
            assert before <= self.floor <= after
            assert value == documents.fill(self.floor), f"the filling of version {self.floor} is torn"
        self.progress.add(verified=1, points=1, containers=1)

    def snapshot(self, take: Callable[[], shmconf.Snapshot | None]) -> None:
        before, attachment = self.version(), self.reader.attachment()
        retries = attachment.retries
        snapshot = take()
        if snapshot is None:
            return
        retries = attachment.retries - retries
        version = snapshot.version
        assert before <= version <= self.version(), f"version {version} was taken after {before}"
        assert snapshot.payload == documents.payload(version), f"version {version} is torn"
        assert snapshot["version"] == snapshot["last"] == snapshot.get("db.pool.size") == version
        for path, expected in self.chance.sample(EVERYTHING, 3):
            found = snapshot.get(path, MISSING)
            assert same(found, expected(version)), f"{path!r} of version {version} is {found!r:.200}"
        self.floor = max(self.floor, version)
        if len(snapshot.payload) < 100_000:
            assert sum(1 for _ in snapshot) == len(snapshot.to_dict())
        moved = snapshot.epoch != self.epoch
        grown = 0 if moved else len(snapshot.payload) > self.size
        if moved or grown:
            self.size, self.epoch = self.file_size(), snapshot.epoch
        self.writers.add((snapshot.epoch, snapshot.metadata["writer"]))
        self.progress.add(
            verified=1,
            snapshots=1,
            lapped=retries > 0 and not moved and version - before >= layout.SLOTS,
            grown=grown,
        )
        self.progress.set(
            takeovers=len(self.writers) - len({epoch for epoch, _ in self.writers}),
            epochs=len({epoch for epoch, _ in self.writers}),
        )

    def status(self) -> None:
        status = self.reader.status()
        agent = status.agent
        assert agent.problem_count == agent.rejections
        assert agent.last_error in (None, f"{agent.rejections} " * (agent.rejections % 400))
        self.progress.add(verified=1)
        if not self.shared:
            self.progress.add(retries=status.retries - self.retries)
            self.retries = status.retries
        self.progress.set(last=self.floor)

    def some(self, number: int) -> None:
        for path, expected in self.chance.choices(POINTS, k=number):
            self.point(path, expected)


MISSING = documents.MISSING
POINTS = list(documents.POINTS.items())
CONTAINERS = list(documents.CONTAINERS.items())
EVERYTHING = POINTS + CONTAINERS


def window(before: int, after: int) -> Iterable[int]:
    """The versions of which a value may be; those that a reader which was stopped for long has missed, in part."""
    if after - before <= LONGEST_WINDOW:
        return range(before, after + 1)
    return itertools.chain(range(before, before + LONGEST_WINDOW), range(after - LONGEST_WINDOW, after + 1))


def same(value: Any, wanted: Any) -> bool:
    return type(value) is type(wanted) and value == wanted


def read_points(checks: Checks) -> Iterator[None]:
    """Point look-ups, each again and again while its version lasts, some of containers, seldom a snapshot."""
    while True:
        for path, expected in checks.chance.sample(POINTS, 4):
            for _ in range(checks.chance.randrange(1, 40)):
                checks.point(path, expected)
        checks.point(*checks.chance.choice(CONTAINERS), container=True)
        checks.filling()
        if checks.chance.random() < 0.05:
            checks.snapshot(checks.reader.snapshot)
        yield


def read_snapshots(checks: Checks) -> Iterator[None]:
    """Snapshots one after the other, as waits, iterations and new attachments give them."""
    while True:
        for _ in range(5):
            checks.snapshot(checks.reader.snapshot)
            checks.some(5)
        checks.snapshot(lambda: checks.reader.wait(after=checks.floor, timeout=0.2))
        checks.snapshot(lambda: next(checks.reader.changes(timeout=0.2), None))
        yield


def read_attached_anew(checks: Checks) -> Iterator[None]:
    """A new Reader each time: it finds a whole version whatever the writer is at."""
    newest = 0
    while True:
        with shmconf.attach("web", directory=directory, wait=60) as fresh:
            once = Checks(fresh, checks.progress)
            once.floor, once.writers = newest, checks.writers
            once.snapshot(fresh.snapshot)
            once.some(10)
            once.status()
        newest = max(newest, once.floor)
        checks.some(10)  # of the Reader that stays, which may not have followed a replacement yet
        yield


WAYS = {"points": read_points, "snapshots": read_snapshots, "attach": read_attached_anew}


def read(reader: shmconf.Reader, way: str, progress: Progress, shared: bool = False) -> None:
    try:
        checks = Checks(reader, progress, shared)
        for _ in WAYS[way](checks):
            checks.status()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)  # also from a thread


if __name__ == "__main__":
    directory, ways, file = sys.argv[1:]
    shared = Progress(file)
    config = shmconf.attach("web", directory=directory, wait=60)
    first, *others = ways.split("+")
    for other in others:  # threads that share the Reader
        threading.Thread(target=read, args=(config, other, shared, True), daemon=True).start()
    read(config, first, shared)
