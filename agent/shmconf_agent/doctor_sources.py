"""The sources: whether they can be read, on what file systems they lie, and whether changes there are really heard.

All segments are watched at once, as an agent would, with an inotify instance for each; nothing but the self-tests of
`self_test` touches the disk, and nothing stays behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from .config import SegmentConfig
from .doctor_finding import Finding, Level, Topic
from .mounts import MOUNT_DIRECTORY, NEVER_CHANGES, Mount, is_blind, is_layered, mount_of, mounted_files
from .pipeline import Pipeline
from .problems import Code, Invalid, Problem
from .progress import Progress
from .references import OWN_LACKS
from .render import duration
from .self_test import DEADLINE_S, Outcome, Result, holders
from .trial import look_now
from .view import View
from .watch import Watcher
from .watch_notes import POLL_S, RESCAN_S, cannot_be_watched

__all__ = ["Watching", "examine_sources"]

_HANGING_S = DEADLINE_S + 3.0  # how long a file system may take to make a file
_PACE_S = 0.005
_UNSEEN = (Code.FILE_MISSING, Code.FILE_UNREADABLE, Code.NO_FILES, Code.TOO_MANY_FILES, Code.FILE_CHANGING)
_NOT_THERE = (Code.REFERENCE_MISSING, Code.REFERENCE_UNREADABLE, Code.REFERENCE_NOT_ALLOWED)
_SPARE = "the agent, which is alive, has what it wants"


@dataclass(frozen=True, slots=True)
class Watching:
    """What was found; watches: how many directories all segments watch."""

    findings: list[Finding]
    watches: int


def examine_sources(
    segments: Sequence[SegmentConfig],
    table: Sequence[Mount],
    content: Callable[[str], bool] = lambda name: False,
) -> Watching:
    """All of it. table: what is mounted. content: whether a segment, by name, has an agent that is alive and does not
    complain. Takes up to some seconds, where changes are not heard."""
    findings: list[Finding] = []
    watches = 0
    with ExitStack() as stack:
        watched: list[tuple[SegmentConfig, View, Watcher]] = []
        for segment in segments:
            pipeline = stack.enter_context(closing(Pipeline(segment)))
            view = look_now(segment, pipeline)
            findings += _references(segment.name, view, pipeline)
            watched.append((segment, view, stack.enter_context(closing(Watcher(self_test=True)))))
        _wait_for([(view, watcher) for _, view, watcher in watched])
        for segment, view, watcher in watched:
            watches += len(view.directories)
            findings += _sources(segment, view, table)
            findings += _events(segment.name, watcher, content(segment.name))
            findings += _file_systems(view, table)
            findings += [_self_test(outcome, table) for outcome in watcher.self_tests]
    return Watching(findings, watches)


def _wait_for(watched: Sequence[tuple[View, Watcher]]) -> None:
    give_up = time.monotonic() + _HANGING_S
    while True:
        for view, watcher in watched:
            watcher.follow(view.directories)
        pending = any(test.result is Result.PENDING for _, watcher in watched for test in watcher.self_tests)
        if not pending or time.monotonic() >= give_up:
            return
        time.sleep(_PACE_S)


def _sources(config: SegmentConfig, view: View, table: Sequence[Mount]) -> list[Finding]:
    segment = config.name
    found = []
    for problem in view.problems:
        if problem.code in _UNSEEN:
            where = problem.file or segment
            level = Level.WARNING if problem.code is Code.FILE_CHANGING else Level.FAILURE
            found.append(Finding(level, Topic.SOURCE, where, problem.message, problem.hint, segment))
    files = [*view.layers, *([view.schema] if view.schema is not None else [])]
    paths = [file.path for file in files]
    if config.commit is not None:
        paths.append(os.path.join(config.base, config.commit))
    for point in mounted_files(map(os.path.realpath, paths), table):
        found.append(Finding(Level.FAILURE, Topic.FILE_MOUNTED, point, NEVER_CHANGES, MOUNT_DIRECTORY, segment))
    if not found:
        many = f"{len(files)} file{'s' if len(files) != 1 else ''} can be read"
        found.append(Finding(Level.OK, Topic.SOURCE, f"segment {segment}", many, segment=segment))
    if config.commit is not None and view.commit.mark is None and not view.commit.changing:
        message = f"{view.commit.failure or 'does not exist'}, and nothing is published until it changes"
        advice = "have the deployment write it once its files are there"
        found.append(Finding(Level.WARNING, Topic.SOURCE, config.commit, message, advice, segment))
    return found


def _references(segment: str, view: View, pipeline: Pipeline) -> list[Finding]:
    """The files and credentials that the sources name and that cannot be had, without a default for that."""
    try:
        pipeline.assemble(view, Progress())
    except Invalid as invalid:
        return [_reference(segment, problem) for problem in invalid.problems if problem.code in _NOT_THERE]
    return []


def _reference(segment: str, problem: Problem) -> Finding:
    if any(lack in problem.message for lack in OWN_LACKS):
        advice = "nothing, if the agent has it: ask where the environment is the same"
        return Finding(Level.NOTE, Topic.SOURCE, _place(problem), problem.message, advice, segment)
    return Finding(Level.FAILURE, Topic.SOURCE, _place(problem), problem.message, problem.hint, segment)


def _place(problem: Problem) -> str:
    return ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)


def _events(segment: str, watcher: Watcher, content: bool) -> list[Finding]:
    """What the system refused when it was really asked."""
    sentences = [watcher.trouble] if watcher.trouble else []
    sentences += cannot_be_watched(watcher.refused)
    found = []
    for sentence in sentences:
        message, _, advice = sentence.partition(". ")
        if content:
            message = f"{message} ({_SPARE})"
        level = Level.WARNING if content else Level.FAILURE
        where = f"segment {segment}"
        found.append(Finding(level, Topic.EVENTS, where, _sentence(message), _sentence(advice) or None, segment))
    return found


def _file_systems(view: View, table: Sequence[Mount]) -> list[Finding]:
    found = []
    for directory in sorted(holders(view.directories), key=os.fsencode):
        mount = mount_of(directory, table)
        if mount is None:
            continue
        if is_blind(mount.type):
            message = f"is on {mount.type}: changes made elsewhere raise no events here"
            advice = f"nothing, if looking every {POLL_S} s is soon enough; else put the files on a local file system"
            found.append(Finding(Level.WARNING, Topic.FILE_SYSTEM, directory, message, advice))
        elif is_layered(mount.type):
            message = f"is on {mount.type}: changes made below it (on the host, in a lower layer) raise no events here"
            advice = f"nothing, if that never happens or {RESCAN_S:.0f} s is soon enough; else mount the directory"
            found.append(Finding(Level.WARNING, Topic.FILE_SYSTEM, directory, message, advice))
        else:
            found.append(Finding(Level.OK, Topic.FILE_SYSTEM, directory, f"is on {mount.type}"))
    return found


def _self_test(outcome: Outcome, table: Sequence[Mount]) -> Finding:
    where = outcome.directory
    if outcome.result is Result.PROVED:
        mount = mount_of(where, table)
        elsewhere = " (made here; one made elsewhere would not be)" if mount and is_blind(mount.type) else ""
        message = f"a change was heard after {duration(outcome.seconds or 0.0)}{elsewhere}"
        return Finding(Level.OK, Topic.SELF_TEST, where, message)
    if outcome.result is Result.UNPROVED:
        message = f"no test can be made ({outcome.why}), so that changes are heard is not proved"
        return Finding(Level.NOTE, Topic.SELF_TEST, where, message)
    if outcome.result is Result.DEAF:
        message = f"a change that was made to test it was not heard within {DEADLINE_S:.0f} s"
    else:
        message = f"no file could be made within {_HANGING_S:.0f} s: the file system hangs"
    advice = f"put the sources on a local file system; until then they are looked at every {POLL_S} s"
    return Finding(Level.FAILURE, Topic.SELF_TEST, where, message, advice)


def _sentence(text: str) -> str:
    """As a part of another one."""
    return text[:1].lower() + text[1:].rstrip(".") if text else ""
