"""What one look at the sources found: the layers, what is wrong with them, and when they may be judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .commit_mark import NO_COMMIT, CommitPath, Record
from .disk import Interest
from .problems import Path, Problem
from .references import FileKey, ReferencedFile
from .settle import digest_of

__all__ = ["Gathering", "InFlux", "SourceLayer", "View", "differing"]


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """The content of one file. `file` is its name as the user wrote it or would; `path` the same, absolute;
    `digest` tells contents apart (16 bytes); `blank` if there is white space only; `entry` is the path of its source in
    the agent's file, () without one."""

    file: str
    at: Path
    data: bytes
    digest: bytes
    path: str
    blank: bool
    entry: Path = ()


@dataclass(frozen=True, slots=True)
class InFlux:
    """A file that is changing, or has vanished and may come back. Its last content, if any, is still in view."""

    file: str
    since: float
    vanished: bool


@dataclass(frozen=True, slots=True)
class View:
    """What one look found.

    layers: in order, lowest first. schema: the schema's file, if the segment has one and it could be read.
    problems: why this cannot be published: what is missing, unreadable, or doubtful. Each says what to do.
    fingerprint: equal for views with equal layers, schema, problems and references.
    changed: the files whose content is another than was last accepted, or that came or went since.
    in_flux: files that are changing; the oldest `since` tells for how long.
    waiting: something that must be there is in flux and has no content yet; the view can't be judged, however long
      that takes.
    ready: may be judged now, as far as the rules of settling go. True as well when nothing changed since the last
      judgement.
    overdue: ready though files are in flux or still changing, because changes may be held for so long only.
    next_look: when to look again at the latest; may be in the past.
    directories: what to watch, for Watcher.follow.
    notes: about the sources, for the operator; nothing that stops publication.
    order: the names that `layers` and `problems` have, in the order of the sources.
    commit: how the segment's commit path stands, if it has one. committed: what to record of the commit by which this
      view may be judged. awaits_commit: the path for whose change the files wait. held: nothing of it may be judged.
    references: the files that references in the layers name, as they were found.
    """

    layers: tuple[SourceLayer, ...]
    schema: SourceLayer | None
    problems: tuple[Problem, ...]
    fingerprint: bytes
    changed: tuple[str, ...]
    in_flux: tuple[InFlux, ...]
    waiting: bool
    ready: bool
    overdue: bool
    next_look: float
    directories: Mapping[str, Interest]
    notes: tuple[str, ...]
    look: int
    order: tuple[str, ...] = ()
    commit: CommitPath = NO_COMMIT
    committed: Record | None = None
    awaits_commit: str | None = None
    held: bool = False
    references: Mapping[FileKey, ReferencedFile] = field(default_factory=dict)

    def contents(self) -> dict[str, bytes]:
        """The digest of each file, by name."""
        return _contents([*self.layers, *([self.schema] if self.schema else [])], self.references)

    def paths(self) -> list[str]:
        """Of each file, absolute."""
        layers = [*self.layers, *([self.schema] if self.schema else [])]
        return [layer.path for layer in layers] + [file.path for file in self.references.values()]

    @property
    def whole(self) -> bool:
        """Whether every file is in view as it stands on the disk."""
        return not (self.waiting or self.in_flux)

    @property
    def worth_building(self) -> bool:
        """Whether it makes sense to run the pipeline already: what is in view may well be what is published."""
        return self.ready or self.whole


@dataclass(slots=True)
class Gathering:
    """A view in the making. `in_flux` by absolute path, as a file may be named twice."""

    layers: list[SourceLayer] = field(default_factory=list)
    schema: SourceLayer | None = None
    problems: list[Problem] = field(default_factory=list)
    in_flux: dict[str, InFlux] = field(default_factory=dict)
    waiting: bool = False
    order: list[str] = field(default_factory=list)
    commit: CommitPath = NO_COMMIT
    references: dict[FileKey, ReferencedFile] = field(default_factory=dict)
    environment: bytes = b""  # digest of the variables that references may name

    def contents(self) -> dict[str, bytes]:
        """The digest of each file."""
        return _contents(self._files(), self.references)

    def state(self) -> dict[str, object]:
        """What is known of each file, to be compared with another look's."""
        state: dict[str, object] = {**self.contents()}
        for problem in self.problems:
            name = problem.file or ""
            state[name] = (state.get(name), problem.message)
        for key, file in self.references.items():
            state[file.file] = (state.get(file.file), key, file.state)
        return state

    def fingerprint(self) -> bytes:
        """Of everything that a judgement depends on."""
        layers = [(layer.file, layer.at, layer.digest) for layer in self._files()]
        problems = [(problem.file, problem.message) for problem in self.problems]
        references = [(key, file.state) for key, file in self.references.items()]
        return digest_of(repr((layers, self.schema is not None, problems, references, self.environment)).encode())

    def _files(self) -> list[SourceLayer]:
        return [*self.layers, *([self.schema] if self.schema is not None else [])]


def _contents(layers: Iterable[SourceLayer], references: Mapping[FileKey, ReferencedFile]) -> dict[str, bytes]:
    read = {file.file: file.digest for file in references.values() if file.data is not None}
    return read | {layer.file: layer.digest for layer in layers}


def differing(left: Mapping[str, object], right: Mapping[str, object]) -> frozenset[str]:
    """The names that do not mean the same in both."""
    return frozenset(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
