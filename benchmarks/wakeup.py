"""Waking eight waiting workers, until the last of them has the new version, against one futex wake-up."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, cast

from shmconf import codec
from shmconf.mapping import Mapping
from shmconf.storage import Storage

from .compiled import compile_c, run
from .place import place, writer
from .process import Program, Worker
from .row import Outcome, Row, of_medians
from .waiter import WORDS_EACH

_WORKERS = 8
_SETTLING = 5
_ROUNDS = 200
_ROUNDS_PER_PING_PONG = 20
_PING_PONGS = 10_000
_GIVE_UP_SECONDS = 30.0

_PLACES = {
    "together": "with both sides on one processor",
    "apart": "with each on its own",
    "anywhere": "where the scheduler puts them",
}
# Left alone, the scheduler takes now one of the two and now the other, which differ by a factor of five or more: not
# something to measure against. A writer's workers are on other processors than the writer, where there are any.
_REFERENCE = "apart" if len(os.sched_getaffinity(0)) > 1 else "together"
if _REFERENCE == "together":
    del _PLACES["apart"]


def measure() -> Outcome:
    """From just before the writer's wake-up call until the last worker is back from `wait_version`.

    The publication before that call is not timed: it is the row `publish`. Eight readers in C are woken likewise, to
    tell what the kernel and the segment take of it.
    """
    with place() as programs:
        ping_pong, waiter = compile_c("futex_ping_pong", programs), compile_c("waiter", programs)
        wake_ups: dict[str, list[float]] = {where: [] for where in _PLACES}

        def play() -> None:
            for where, found in wake_ups.items():
                found += _wake_ups(ping_pong, where)

        last, first = _wake(lambda *arguments: Worker("waiter", *arguments), between=play)
        in_c, _ = _wake(lambda *arguments: Program(waiter, *arguments), between=lambda: None)
    details = {f"a wake-up {name}": median(wake_ups[where]) for where, name in _PLACES.items()}
    details |= {"the first worker": median(first), "the last of eight in C": median(in_c)}
    return of_medians(last, wake_ups[_REFERENCE], "s", **details)


def _wake_ups(ping_pong: Path, where: str) -> list[float]:
    """Seconds of single wake-ups. Where the two met awake too often to say, they try once more."""
    try:
        return run(ping_pong, where, _PING_PONGS)
    except RuntimeError:
        return run(ping_pong, where, _PING_PONGS)


def _wake(start: Callable[..., Worker], between: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Seconds until the last and until the first worker was back, each round; some rounds have something between."""
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        storage = _StampingStorage()
        publisher = stack.enter_context(writer(directory, storage=storage))
        version = publisher.publish(_payload(0))
        results = _Results(directory / "results")
        workers = [stack.enter_context(start(directory, directory / "results", number)) for number in range(_WORKERS)]
        last, first = [], []
        for turn in range(-_SETTLING, _ROUNDS):
            results.until_all_wait(version, workers)
            storage.woken_at = 0
            version = publisher.publish(_payload(turn))
            time.sleep(0.005)  # the processors are the workers'
            results.until_all_wait(version, workers)
            assert storage.woken_at, "the writer's wake-up did not go through its Storage"
            if turn >= 0:
                times = results.times()
                last.append((max(times) - storage.woken_at) * 1e-9)
                first.append((min(times) - storage.woken_at) * 1e-9)
            if turn >= 0 and turn % _ROUNDS_PER_PING_PONG == 0:
                between()
    return last, first


class _Results:
    """A page in which each worker notes the version that it was woken for, and when."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("rb") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)).cast("Q")

    def times(self) -> list[int]:
        """When each was back, in ns of the monotonic clock."""
        return [self._words[number * WORDS_EACH + 1] for number in range(_WORKERS)]

    def until_all_wait(self, version: int, workers: list[Worker]) -> None:
        """Return once every worker has noted `version` and sleeps in the kernel again."""
        give_up = time.monotonic() + _GIVE_UP_SECONDS
        noted = range(0, _WORKERS * WORDS_EACH, WORDS_EACH)
        while not (all(self._words[at] == version for at in noted) and all(_sleeps(one.pid) for one in workers)):
            if time.monotonic() > give_up:
                raise TimeoutError(f"not all workers wait after version {version}")
            time.sleep(0.001)


def _sleeps(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except FileNotFoundError:
        raise RuntimeError("a waiting worker has ended") from None


def _payload(turn: int) -> bytes:
    return codec.pack({"turn": turn})


class _StampedMapping:
    """A writable mapping that notes when its wake-up is called."""

    def __init__(self, mapping: Mapping, storage: _StampingStorage) -> None:
        self._mapping = mapping
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapping, name)

    def wake(self, offset: int, /) -> int | None:
        self._storage.woken_at = time.monotonic_ns()
        return self._mapping.wake(offset)


class _StampingStorage(Storage):
    """The writer's Storage, whose mappings note their wake-ups in `woken_at`, ns of the monotonic clock."""

    woken_at = 0

    def map(self, fd: int, length: int) -> Mapping:
        return cast("Mapping", _StampedMapping(super().map(fd, length), self))


ROWS = [
    Row("wake", "wake-up of 8 waiting workers, the last one", "one futex wake-up, by ping-pong", 8, measure),
]
