"""From the edit of a file to its value in worker processes: an agent and eight workers, each a process of its own.

An edit puts another file in place with one rename. Time runs from just before the rename until the last worker has
read the new value out of the segment, by the same monotonic clock; the workers wait in `wait_version`.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from . import sample
from .agent import Running, agent, until
from .place import place
from .process import Worker
from .row import Outcome, of_medians

WORDS_EACH = 8  # a cache line for each worker: the value that it has read, and when

_WORKERS = 8
_SETTLING = 5
_PAUSE_SECONDS = 0.1  # longer than changes count as a burst
_FILES = 40
_ONE_FILE_SERVICES = 41  # 10 KB
_FIRST_VALUE = 10_000


class OfOne:
    """A 10 KB file, edited in turns before the eyes of an agent, and of a process that has but inotify and CSafeLoader.

    Both rows are of the same edits.
    """

    def __init__(self, edits: int) -> None:
        self._edits = edits

    def median(self) -> Outcome:
        """The median edit."""
        visible, bare, stages = self._samples
        details = {"ours, 99th percentile": percentile(visible), "bare, 99th percentile": percentile(bare)}
        return of_medians(visible, bare, "s", **details, **stages)

    def percentile(self) -> Outcome:
        """The 99th percentile, against the same figure as the median."""
        visible, bare, _ = self._samples
        details = {"the slowest": max(visible), "bare, 99th percentile": percentile(bare)}
        return Outcome(percentile(visible), median(bare), "s", details, note=f"of {len(visible)} edits")

    @cached_property
    def _samples(self) -> tuple[list[float], list[float], dict[str, float]]:
        tree = sample.tree(_ONE_FILE_SERVICES)
        changed = _Change(tree, _ONE_FILE_SERVICES // 2)
        visible, bare = [], []
        with ExitStack() as stack:
            directory = stack.enter_context(place())
            running = stack.enter_context(agent(directory, {"web.yaml": sample.yaml_text(tree)}))
            alone = directory / "alone"
            alone.mkdir()
            readers = stack.enter_context(_readers(running, changed.path))
            loader = stack.enter_context(_Notes(directory / "loaded", 1))
            process = stack.enter_context(Worker("inotify_worker", alone, directory / "loaded", changed.path))
            process.answer()
            for number in range(-_SETTLING, self._edits):
                ours = changed.put(directory, running.sources / "web.yaml", readers, number)
                theirs = changed.put(directory, alone / "web.yaml", loader, number)
                if number >= 0:
                    visible.append(ours)
                    bare.append(theirs)
            return visible, bare, _medians(running.stages(self._edits))


def of_forty(edits: int, parsings: int) -> Outcome:
    """One of 40 files changes, which are the sample together; against what one worker takes to parse all of them."""
    whole = sample.tree()
    each = sample.SERVICES // _FILES
    services = list(whole["services"].items())
    trees = [{"services": dict(services[at : at + each])} for at in range(0, len(services), each)]
    files = {f"{number:02}.yaml": sample.yaml_text(tree) for number, tree in enumerate(trees)}
    middle = _FILES // 2
    changed = _Change(trees[middle], sample.SERVICES // 2 + each // 2)
    visible = []
    with place() as directory, agent(directory, files) as running:
        with _readers(running, changed.path) as readers:
            for number in range(-_SETTLING, edits):
                taken = changed.put(directory, running.sources / f"{middle:02}.yaml", readers, number)
                if number >= 0:
                    visible.append(taken)
        with Worker("parse_worker", *sorted(running.sources.iterdir())) as parser:
            parsed = [parser.ask("csafe") for _ in range(parsings)]
        stages = _medians(running.stages(edits))
    return of_medians(visible, parsed, "s", **{"ours, 99th percentile": percentile(visible)}, **stages)


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """The smallest of the values that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]


def _medians(stages: dict[str, list[float]]) -> dict[str, float]:
    return {f"stage {stage}": median(seconds) for stage, seconds in stages.items()}


class _Change:
    """One field of one service that is another at each edit."""

    def __init__(self, tree: dict[str, Any], service: int) -> None:
        self._tree = tree
        self._fields = tree["services"][sample.service_name(service)]
        self.path = sample.service_path(service, "port")

    def put(self, aside: Path, file: Path, notes: _Notes, number: int) -> float:
        """Put the next value in place; seconds until all who note have it."""
        value = self._fields["port"] = _FIRST_VALUE + _SETTLING + number
        new = aside / "new.yaml"
        new.write_text(sample.yaml_text(self._tree))
        time.sleep(_PAUSE_SECONDS)
        began = time.monotonic_ns()
        new.rename(file)
        until(lambda: notes.all_have(value), f"{self.path} = {value}")
        return (max(notes.times()) - began) * 1e-9


class _Notes:
    """A page in which each worker notes the value that it has read, and when."""

    def __init__(self, path: Path, workers: int) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("rb") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._words = memoryview(self._page).cast("Q")
        self._places = range(0, workers * WORDS_EACH, WORDS_EACH)

    def all_have(self, value: int) -> bool:
        return all(self._words[at] == value for at in self._places)

    def times(self) -> list[int]:
        """When each had it, in ns of the monotonic clock."""
        return [self._words[at + 1] for at in self._places]

    def __enter__(self) -> _Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self._words.release()
        self._page.close()


@contextmanager
def _readers(running: Running, path: str) -> Iterator[_Notes]:
    """Eight workers that follow the value at `path`, all of them ready."""
    results = running.runtime_dir.parent / "results"
    with _Notes(results, _WORKERS) as notes, ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("edit_worker", running.runtime_dir, results, number, path))
            for number in range(_WORKERS)
        ]
        for worker in workers:
            worker.answer()
        yield notes
