"""YAML to trees: the agent's parser against PyYAML's CSafeLoader, and against libyaml's bare events.

Everything runs in a fresh process (`parse_worker`) with little else in it: how much the garbage collector takes of
CSafeLoader's time depends on what else lives there. It is on for CSafeLoader, as it is wherever that is called, and
stands aside for the agent's parser, as it does in the agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from . import sample
from .place import place
from .process import Worker
from .row import Outcome, of_medians

_SMALL_SERVICES = 96  # 23 KB


def large(rounds: int) -> Outcome:
    """The sample, against CSafeLoader."""
    return _against_csafe(sample.SERVICES, rounds)


def small(rounds: int) -> Outcome:
    """23 KB, against CSafeLoader."""
    return _against_csafe(_SMALL_SERVICES, rounds)


def events(rounds: int) -> Outcome:
    """The sample, against a loop of get_event."""
    with _parser(sample.SERVICES) as ask:
        ours, bare = [], []
        for _ in range(3 * rounds):
            ours.append(ask("agent"))
            bare.append(ask("events"))
    return of_medians(ours, bare)


def _against_csafe(services: int, rounds: int) -> Outcome:
    with _parser(services) as ask:
        ours, theirs, uncollected, collected = [], [], [], []
        for _ in range(rounds):
            ours.append(ask("agent"))
            theirs.append(ask("csafe"))
            uncollected.append(ask("csafe-without-collector"))
            collected.append(ask("agent-with-collector"))
    details = {
        "CSafeLoader without the garbage collector": median(uncollected),
        "ours with it": median(collected),
    }
    return of_medians(ours, theirs, "s", **details)


class _Asking:
    """The process that parses one file in one way or another; the results are compared once, at its start."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, how: str) -> float:
        return self._worker.ask(how)


@contextmanager
def _parser(services: int) -> Iterator[_Asking]:
    with place() as directory:
        file = directory / "sample.yaml"
        file.write_text(sample.yaml_text(sample.tree(services)))
        with Worker("parse_worker", file) as worker:
            yield _Asking(worker)
