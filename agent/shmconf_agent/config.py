"""What the agent's file says, as data: which segments there are, and what each is made of.

`agents_file.load` reads it from the file; `from_arguments` is the same for a command line without one. Nothing here
looks at the sources themselves, except `source_kind`, which asks whether a path is a directory. Relative paths are
relative to `SegmentConfig.base`, the agent's file's directory.
"""

from __future__ import annotations

import grp
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Literal

from shmconf.directories import check_name

from .formats.limits import DEFAULT_LIMITS, Limits
from .guard_settings import GuardSettings
from .problems import Code, Fault, Invalid, Path, Problem, format_path

SETTLE_MS = 2.0
MAX_BYTES = 256 * 1024 * 1024
MODE = 0o640

_LAST_GID = 2**32 - 2  # the number after it means "leave the group as it is" to the kernel
_LONGEST_GID = len(str(_LAST_GID))


Place = tuple[()] | tuple[str, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of `sources`: `path` as it was written; its content is mounted at the map with the path `at`.
    `entry` is where it stands in the agent's file, as a path of that."""

    path: str
    at: Path = ()
    optional: bool = False
    entry: Path = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Substitution:
    """What references may name: environment variables, and the directories under which files may lie."""

    env: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """One segment: its layers, lowest first, and what must be true of the tree that they make.

    base: the directory that relative paths are relative to, absolute.
    check: `pkg.module:name`, or the argument list of a command.
    settle_ms: quiet time after a change before it is published, in milliseconds.
    max_bytes: the most that the segment's file may grow to, in bytes. mode: of that file. group: its name, or None.
    limits: what its sources may hold at most.
    substitution: what references in the sources may name; None where `${` is text as any other.
    group_place: file, line and column of the group, which only the machine that it is used on can judge.
    commit: the path without whose change nothing is published, or None.
    guard: what holds a candidate back, or None.
    """

    name: str
    base: FilePath
    sources: tuple[Source, ...]
    schema: str | None = None
    check: str | tuple[str, ...] | None = None
    settle_ms: float = SETTLE_MS
    max_bytes: int = MAX_BYTES
    mode: int = MODE
    group: str | None = None
    limits: Limits = DEFAULT_LIMITS
    substitution: Substitution | None = None
    group_place: Place = field(default=(), compare=False)
    commit: str | None = None
    guard: GuardSettings | None = None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The whole file: its segments in the order in which it has them. `file` is None for a command line's segment.

    admin_group: whose members may ask the agent for changes, besides root and the agent's own user; None for nobody.
    metrics_textfile: the file for node_exporter's textfile collector, or None.
    """

    file: FilePath | None
    runtime_dir: FilePath | None
    state_dir: FilePath | None
    segments: tuple[SegmentConfig, ...]
    admin_group: str | None = None
    admin_group_place: Place = field(default=(), compare=False)
    metrics_textfile: FilePath | None = None


def from_arguments(name: str, sources: Sequence[str], base: FilePath) -> AgentConfig:
    """The configuration of `shmconf run --segment NAME SOURCE...`, its sources relative to `base`.

    Raises ValueError, whose text is for the person at the command line, for a name or a list that cannot be.
    """
    check_name(name)
    if not sources:
        raise ValueError(f"segment {name!r} needs at least one source: a file, a directory or a glob")
    if "" in sources:
        raise ValueError("a source is a path; one of those given is empty")
    layers = tuple(Source(path) for path in sources)
    limits = Limits(table=limits_table(name))
    return AgentConfig(None, None, None, (SegmentConfig(name, base.absolute(), layers, limits=limits),))


def limits_table(name: str) -> str:
    """The name of the table with a segment's limits in the agent's file."""
    return format_path(("segment", name, "limits"))


def source_kind(source: Source, base: FilePath) -> Literal["file", "directory", "glob"]:
    """What the path means now: a directory ends in `/` or is one, a glob contains `*`, `?` or `[`."""
    if source.path.endswith("/") or (base / source.path).is_dir():
        return "directory"
    return "glob" if any(character in source.path for character in "*?[") else "file"


def resolve_group(name: str, place: Place = (), key: str = "group") -> int:
    """The number of the group `name`, which may be digits and stands at `key`. Raises Invalid for no group."""
    if name.isdecimal() and len(name) <= _LONGEST_GID and int(name) <= _LAST_GID:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        message = f"there is no group {name!r} on this machine; create it, or change {key!r}"
        raise Invalid([in_agents_file(Fault(Code.GROUP, message), place)]) from None


def in_agents_file(fault: Fault, place: Place) -> Problem:
    """The problem of having this at a place in the agent's file, or in none."""
    file, line, column = place or (None, None, None)
    return Problem(fault.message, file, line, column, fault.code, fault.hint)
