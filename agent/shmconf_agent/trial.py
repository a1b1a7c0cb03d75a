"""One segment's files tried as they are now, without an agent: what `shmconf check` asks."""

from __future__ import annotations

from .config import SegmentConfig, resolve_group
from .pipeline import Candidate, Pipeline
from .problems import Invalid, Problem
from .progress import Progress
from .sources import SourceFiles


def try_segment(config: SegmentConfig, progress: Progress) -> Candidate | Invalid:
    """What the agent would publish, or every reason why it would not."""
    problems: list[Problem] = []
    if config.group is not None:
        try:
            resolve_group(config.group)
        except Invalid as invalid:
            problems += invalid.problems
    view = SourceFiles(config).look(at_once=True)
    problems += [Problem("it kept changing while it was read; try again", file.file) for file in view.in_flux]
    try:
        candidate = Pipeline(config).run(view, progress)
    except Invalid as invalid:
        problems += invalid.problems
    return Invalid(problems) if problems else candidate
