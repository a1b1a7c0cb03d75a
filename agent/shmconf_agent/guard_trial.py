"""What the guard would say of the files as they are now, compared with the segment: for `shmconf check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import shmconf

from .config import SegmentConfig
from .guard import Guard, Served, problems
from .merge import Layer
from .pipeline import Candidate
from .problems import Problem
from .render import let_through
from .view import View


def served_now(name: str, directory: Path | None) -> Served | None:
    """What the segment serves; None for no segment, or one without a version.

    directory: the runtime directory, None for the defaults. Raises shmconf.Error where the segment cannot be read.
    """
    try:
        with shmconf.attach(name, directory=directory) as reader:
            snapshot = reader.snapshot()
    except shmconf.SegmentNotFound:
        return None
    return Served(snapshot.digest, lambda: snapshot.payload)


def would_hold(
    config: SegmentConfig, candidate: Candidate, view: View, layers: Sequence[Layer], served: Served
) -> tuple[Problem, ...]:
    """What the agent would say when it holds the candidate; empty if it would not."""
    if config.guard is None:
        return ()
    digest = candidate.document.digest
    try:
        trips = Guard(config.guard).judge(digest, candidate.tree, served)
    except ValueError:  # whoever published it was no agent of this kind: there is nothing to compare with
        return ()
    found = problems(trips, layers, view.layers)
    told = [dataclasses.replace(problem, message=f"the agent would hold it: {problem.message}") for problem in found]
    if told:
        told[-1] = dataclasses.replace(told[-1], hint=let_through(config.name, digest))
    return tuple(told)
