"""One segment's files tried as they are now, without an agent: what `shmconf check` and `explain` ask."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import formats
from .config import AgentConfig, SegmentConfig, resolve_group
from .guard import Served
from .guard_trial import would_hold
from .merge import Layer, unlike_keys
from .mounts import MOUNT_DIRECTORY, NEVER_CHANGES, Mount, mounted_files, mounts
from .origins import Locator
from .pipeline import Candidate, Pipeline
from .problems import Code, Fault, Invalid, Problem
from .progress import Progress
from .schema_view import key_text
from .sources import SourceFiles, SourceLayer, View


def try_agent(config: AgentConfig) -> None:
    """Whether the agent's own settings can be used on this machine. Raises Invalid."""
    if config.admin_group is not None:
        resolve_group(config.admin_group, config.admin_group_place, "admin_group")


@dataclass(frozen=True, slots=True)
class Trial:
    """What the agent would publish, or every reason why it would not.

    warnings: what is read otherwise than it looks, or never changes, which stops nothing, of files that can be read;
      and what the guard would hold.
    contents: the files that were judged, by name. base: what paths of the segment are relative to.
    """

    verdict: Candidate | Invalid
    warnings: tuple[Problem, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    base: Path = Path()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The reasons; none for a candidate."""
        return self.verdict.problems if isinstance(self.verdict, Invalid) else ()


def try_segment(config: SegmentConfig, progress: Progress, served: Served | None = None) -> Trial:
    """The whole pipeline on the files as they are now. Never raises for what is in them.

    served: what the guard is to compare with; None to leave it out.
    """
    problems: list[Problem] = []
    if config.group is not None:
        try:
            resolve_group(config.group, config.group_place)
        except Invalid as invalid:
            problems += invalid.problems
    pipeline = Pipeline(config)
    view = look_now(config, pipeline)
    verdict: Candidate | Invalid
    try:
        verdict = pipeline.run(view, progress)
    except Invalid as invalid:
        verdict = invalid
        problems += invalid.problems
    texts = [*view.layers, *([view.schema] if view.schema is not None else [])]
    contents = {text.file: text.data for text in texts}
    layers = pipeline.parse(view.layers)[0]
    warnings = (*_mounted(texts), *_warnings(layers, view.layers))
    if served is not None and isinstance(verdict, Candidate):
        warnings += would_hold(config, verdict, view, layers, served)
    return Trial(Invalid(problems) if problems else verdict, warnings, contents, config.base)


def look_now(config: SegmentConfig, pipeline: Pipeline | None = None) -> View:
    """The sources as they are now; a file that does not hold still is among the problems.

    pipeline: the one that is to judge them, so that nothing is parsed twice.
    """
    parsing, progress = pipeline or Pipeline(config), Progress()
    view = SourceFiles(config, references=lambda texts: parsing.references(texts, progress)).look(at_once=True)
    fault = Fault(Code.FILE_CHANGING, "it kept changing while it was read; try again")
    restless = [fault.at(file.file) for file in view.in_flux]
    return dataclasses.replace(view, problems=(*view.problems, *restless))


def _mounted(texts: Sequence[SourceLayer]) -> list[Problem]:
    """The files that are mounted on their own, which look right and will never change."""
    table = mounts()
    fault = Fault(Code.FILE_MOUNTED, NEVER_CHANGES, MOUNT_DIRECTORY)
    return [fault.at(file) for file in {text.file: None for text in texts if _is_mounted(text, table)}]


def _is_mounted(text: SourceLayer, table: Sequence[Mount]) -> bool:
    return bool(mounted_files([os.path.realpath(text.path)], table))


def _warnings(layers: Sequence[Layer], texts: Sequence[SourceLayer]) -> tuple[Problem, ...]:
    """The surprises in the files that the layers are from, in the order of the files."""
    readable = {layer.file for layer in layers}
    found: list[Problem] = []
    for file, data in {text.file: text.data for text in texts if text.file in readable}.items():
        found += [fault.at(file, at) for at, fault in formats.surprises(data, file=file)]
    locator = Locator(texts)
    for layer, path, below, path_below in unlike_keys(layers):
        here, there = locator.trace(layer, path), locator.trace(below, path_below)
        place = f"{below.file}:{there.at[0]}:{there.at[1]}" if there else below.file
        message = f"the key {key_text(path[-1])} is equal to the key {key_text(path_below[-1])} of {place}"
        fault = Fault(Code.YAML_EQUAL_KEYS, f"{message}, and they are one entry", "quote them to keep them apart")
        found.append(fault.at(layer.file, here.at if here else None, (*layer.at, *path)))
    order = {text.file: index for index, text in reversed(list(enumerate(texts)))}
    found.sort(key=lambda problem: (order.get(problem.file or "", 0), problem.line or 0, problem.column or 0))
    return tuple(dict.fromkeys(found))
