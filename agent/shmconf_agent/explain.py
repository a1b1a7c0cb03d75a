"""Where a published value comes from: the version in the segment on one side, the files that made it on the other.

The segment does not say which line made a value. Files that make, as they are now, what is published say it for
certain. Where they were changed since, the files as they were then say it, which the history keeps in the state
directory; only where that has nothing of the version, or may not be read, the files as they are now are told, and that
they are others. Nothing is watched, locked or changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from shmconf import codec
from shmconf.document import Document
from shmconf.paths import MISSING, look_up, resolve
from shmconf.snapshot import Snapshot

from .agents_file import place_in
from .config import AgentConfig, Place, SegmentConfig
from .history import History, NotKept
from .masking import masked, noted_paths, secret_paths
from .merge import Layer
from .origins import Origin, origins
from .pipeline import Pipeline
from .problems import Invalid, Path, Problem
from .progress import Progress
from .trial import look_now
from .view import SourceLayer


@dataclass(frozen=True, slots=True)
class Explanation:
    """What can be said of the value at one path.

    path: in the published tree, with indices where text had digits. value: what is published there.
    digest: of what the files make as they are now; None if they are invalid, for the reasons in `problems`.
    value_now: what the files as they are now have there, or paths.MISSING.
    origins: who sets it, the winner first: in the files as they were when it was published, if `kept`, else as they are
      now.
    mounts: where the agent's file mounts each of `origins`, () for what is not mounted.
    same: whether `value_now` is `value`, types included; the values themselves may be masked.
    kept_problem: why the history cannot tell, where that is not only because it has nothing of the version.
    """

    path: Path
    value: Any
    digest: str | None
    value_now: Any
    origins: tuple[Origin, ...]
    mounts: tuple[Place, ...]
    problems: tuple[Problem, ...]
    kept: bool = False
    kept_problem: str | None = None
    same: bool = False


def explain(
    snapshot: Snapshot,
    path: Path,
    text: str,
    agent: AgentConfig,
    segment: SegmentConfig,
    state: FilePath,
    *,
    reveal: bool = False,
) -> Explanation:
    """Explain `path`, which `text` means in the snapshot, by the segment's files. Never raises for what is in them.

    state: the state directory. A version that the files do not make is judged anew, the user's check included, to tell
    apart files that are only newer from files that are invalid. reveal: whether secrets are told.
    """
    value = look_up(snapshot.to_dict(), path)
    pipeline = Pipeline(segment)
    view = look_now(segment, pipeline)
    same = False
    digest, value_now = None, MISSING
    problems: tuple[Problem, ...] = ()
    layers: list[Layer] = []
    path_now: Path | None = None
    try:
        layers, tree = pipeline.assemble(view, Progress())
        digest = Document.of(codec.pack(tree)).digest
        if digest != snapshot.digest:
            pipeline.run(view, Progress())
        path_now = resolve(tree, text)
        value_now = MISSING if path_now is None else look_up(tree, path_now)
        same = value_now is not MISSING and codec.pack(value_now) == codec.pack(value)
        if path_now is not None and not reveal:
            value_now = masked(value_now, secret_paths(layers, tree), path_now)
    except Invalid as invalid:
        digest, problems = None, invalid.problems
    finally:
        pipeline.close()
    if not reveal:
        value = masked(value, noted_paths(snapshot.metadata), path)
    kept_problem = None
    if digest != snapshot.digest:
        try:
            then = _layers_then(snapshot, segment.name, state)
            layers_then, unreadable = pipeline.parse(then)
            if unreadable:
                raise NotKept(f"what version {snapshot.version} was made from cannot be read: {unreadable[0]}")
            found = tuple(origins(path, layers_then, then))
            mounts = tuple(_mount(origin, agent, segment) for origin in found)
            return Explanation(path, value, digest, value_now, found, mounts, problems, kept=True, same=same)
        except (NotKept, OSError) as error:
            kept_problem = _told(error)
    found = () if digest is None or path_now is None else tuple(origins(path_now, layers, view.layers))
    mounts = tuple(_mount(origin, agent, segment) for origin in found)
    if not reveal:
        found = tuple(_without_secrets(origin) for origin in found)
    return Explanation(path, value, digest, value_now, found, mounts, problems, kept_problem=kept_problem, same=same)


def _without_secrets(origin: Origin) -> Origin:
    setting = origin.setting
    secrets = [(*setting.layer.at, *path) for path in setting.layer.secrets]
    return replace(origin, setting=replace(setting, value=masked(setting.value, secrets, setting.reached)))


def _layers_then(snapshot: Snapshot, name: str, state: FilePath) -> tuple[SourceLayer, ...]:
    """What the published version was made from. Raises NotKept, OSError."""
    history = History(state, name)
    entries = [entry for entry in history.entries() if entry.kept.digest == snapshot.digest]
    if not entries:
        raise FileNotFoundError
    # The same document may have been published before, from files with other lines.
    entries.sort(
        key=lambda entry: (
            entry.kept.sources is None,
            (entry.kept.epoch, entry.kept.version) != (snapshot.epoch, snapshot.version),
        )
    )
    return history.layers(entries[0])


def _told(error: NotKept | OSError) -> str | None:
    if isinstance(error, FileNotFoundError):
        return None
    if isinstance(error, OSError):
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)


def _mount(origin: Origin, agent: AgentConfig, segment: SegmentConfig) -> Place:
    at, entry = origin.text.at, origin.text.entry
    if not at or not entry or agent.file is None:
        return ()
    if not any((source.at, source.entry) == (at, entry) for source in segment.sources):  # not any more
        return ()
    try:
        return place_in(agent.file, (*entry, "at"))
    except (Invalid, OSError):  # it was changed just now
        return str(agent.file), None, None
