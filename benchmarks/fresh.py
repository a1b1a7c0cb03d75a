"""The first look-up after a new version, in a process other than the writer: against decoding, and by size.

This process publishes; a reader process (`fresh_reader`) is then told which value must be there, and times one `get`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from shmconf import codec
from shmconf.writer import Writer

from . import sample
from .fresh_reader import WORK_SERVICES
from .place import place, writer
from .process import Worker
from .row import Outcome, Row, of_medians

_SETTLING = 6  # more versions than slots: each room has been used, and every page of it that the reader touches mapped
_VERSIONS = 200
_DECODINGS = 20
_SMALL_BYTES = 50_000
_LARGE_BYTES = 50_000_000
_LARGE_MIB = 1024
_BEYOND_CACHES = 128 << 20
_PAIRS = 30
_FIRST_VALUE = 100_000


def measure_fresh() -> Outcome:
    """First `get` of one key after a new version of the sample, against msgpack.unpackb of the same payload."""
    versions = sample.Versions.of(sample.SERVICES)
    with _publisher({"web": (versions, 256)}) as (told, writers):
        payload_file = told.payload_file(versions)
        looked_up, decoded = [], []
        values = itertools.count(_FIRST_VALUE)
        for turn in range(-_SETTLING, _VERSIONS):
            seconds = told.first_get("web", writers["web"], versions, next(values))
            if turn >= 0:
                looked_up.append(seconds)
                if turn % (_VERSIONS // _DECODINGS) == 0:
                    decoded.append(told.decoding(payload_file))
    return of_medians(looked_up, decoded)


def measure_by_size() -> Outcome:
    """First `get` at 50 MB against itself at 50 KB, in turns.

    Publishing 50 MB leaves nothing else in the processor's caches, not even the page tables of the reader, and
    publishing 50 KB leaves everything. What is asked here is what a look-up costs in itself, so both meet the same
    caches: after either publication this process copies more memory than they hold.
    """
    memory = bytearray(_BEYOND_CACHES)
    large = sample.Versions.of(sample.services_for(_LARGE_BYTES))
    small = sample.Versions.of(sample.services_for(_SMALL_BYTES))
    seconds: dict[str, list[float]] = {"small": [], "large": []}
    with _publisher({"small": (small, 256), "large": (large, _LARGE_MIB)}) as (told, writers):
        values = itertools.count(_FIRST_VALUE)
        for turn in range(-_SETTLING, _PAIRS):
            for name, versions in (("small", small), ("large", large)):
                taken = told.first_get(name, writers[name], versions, next(values), lambda: bytes(memory))
                if turn >= 0:
                    seconds[name].append(taken)
    return of_medians(seconds["large"], seconds["small"])


class _Told:
    """The reader process, and what it is told."""

    def __init__(self, worker: Worker, directory: str) -> None:
        self._worker = worker
        self._directory = directory

    def first_get(
        self,
        name: str,
        writer: Writer,
        versions: sample.Versions,
        value: int,
        afterwards: Callable[[], object] = lambda: None,
    ) -> float:
        """Publish `value`, do what comes afterwards, and return the seconds of the reader's first look-up of it."""
        writer.publish(versions.payload(value))
        afterwards()
        return self._worker.ask(f"get {name} {versions.path} {value}")

    def payload_file(self, versions: sample.Versions) -> str:
        """A file with a payload, for `decoding`."""
        path = f"{self._directory}/payload"
        with open(path, "wb") as file:
            file.write(versions.payload(_FIRST_VALUE))
        return path

    def decoding(self, payload_file: str) -> float:
        """Seconds of msgpack.unpackb in the reader process."""
        return self._worker.ask(f"decode {payload_file}")


@contextmanager
def _publisher(segments: dict[str, tuple[sample.Versions, int]]) -> Iterator[tuple[_Told, dict[str, Writer]]]:
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        # A segment that never changes, on which the reader works between two versions of the others.
        stack.enter_context(writer(directory, "still")).publish(codec.pack(sample.tree(WORK_SERVICES)))
        writers = {}
        for name, (versions, max_mib) in segments.items():
            writers[name] = stack.enter_context(writer(directory, name, max_mib=max_mib))
            writers[name].publish(versions.payload(_FIRST_VALUE - 1))
        worker = stack.enter_context(Worker("fresh_reader", directory, *segments))
        yield _Told(worker, str(directory)), writers


ROWS = [
    Row("fresh", "first get after a new version of the sample", "msgpack.unpackb of it", 0.001, measure_fresh),
    Row("fresh-size", "the same at 50 MB", "itself at 50 KB", 1.5, measure_by_size),
]

assert _VERSIONS % _DECODINGS == 0
