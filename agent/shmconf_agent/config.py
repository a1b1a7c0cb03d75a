"""The agent's own file, shmconf.toml: which segments there are, and what each is made of.

`load` reads it and reports every mistake at once, each with its place and what would be right.
`from_arguments` is the same for a command line without a file. Nothing here looks at the sources themselves,
except `source_kind`, which asks whether a path is a directory. Relative paths are relative to
`SegmentConfig.base`, the agent's file's directory.
"""

from __future__ import annotations

import grp
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

from shmconf.directories import check_name
from shmconf.errors import PathError
from shmconf.paths import parse_path

from . import formats
from .nearest import did_you_mean
from .problems import Invalid, Key, Path, Problem, format_path

SETTLE_MS = 2.0
MAX_BYTES = 256 * 1024 * 1024
MODE = 0o640

_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_UNITS = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, base in ((f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_LEAST_BYTES = 1024 * 1024
_MOST_BYTES = 1024**4
_MOST_SETTLE_MS = 10_000
# A mount point adds to the depth of the tree, which every later stage walks.
_LONGEST_MOUNT = 32

_TOML = formats.SUFFIXES[".toml"]

_TOP_KEYS = ("runtime_dir", "state_dir", "segment")
_SEGMENT_KEYS = ("sources", "schema", "check", "settle_ms", "max_bytes", "mode", "group")
_SOURCE_KEYS = ("path", "at", "optional")


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of `sources`: `path` as it was written; its content is mounted at the map with the path `at`."""

    path: str
    at: Path = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """One segment: its layers, lowest first, and what must be true of the tree that they make.

    base: the directory that relative paths are relative to, absolute.
    check: `pkg.module:name`, or the argument list of a command.
    settle_ms: quiet time after a change before it is published, in milliseconds.
    max_bytes: the most that the segment's file may grow to, in bytes. mode: of that file. group: its name, or None.
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


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The whole file: its segments in the order in which it has them. `file` is None for a command line's segment."""

    file: FilePath | None
    runtime_dir: FilePath | None
    state_dir: FilePath | None
    segments: tuple[SegmentConfig, ...]


def load(file: FilePath) -> AgentConfig:
    """The agent's configuration in `file`. Raises Invalid with every problem, in the order of the file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        advice = "name the agent's file with --config, or give --segment NAME and its sources"
        raise Invalid([Problem(f"cannot read it: {error.strerror}; {advice}", str(file))]) from None
    tree = _TOML.parse(data, file=str(file), limits=formats.DEFAULT_LIMITS)
    findings = _Findings(data, str(file))
    config = _agent(tree, file, findings)
    findings.raise_any()
    return config


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
    return AgentConfig(None, None, None, (SegmentConfig(name, base.absolute(), layers),))


def source_kind(source: Source, base: FilePath) -> Literal["file", "directory", "glob"]:
    """What the path means now: a directory ends in `/` or is one, a glob contains `*`, `?` or `[`."""
    if source.path.endswith("/") or (base / source.path).is_dir():
        return "directory"
    return "glob" if any(character in source.path for character in "*?[") else "file"


def resolve_group(name: str) -> int:
    """The number of the group `name`, which may be digits. Raises Invalid, without a place, for no group."""
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        message = f"there is no group {name!r} on this machine; create it, or change 'group'"
        raise Invalid([Problem(message)]) from None


class _Findings:
    """The problems found so far in one file, in the order in which they were found."""

    def __init__(self, data: bytes, file: str) -> None:
        self._data = data
        self._file = file
        self._found: list[tuple[Path, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: Path, message: str) -> None:
        self._found.append((path, message))

    def expected(self, path: Path, what: str, value: Any) -> None:
        self.add(path, f"{path[-1]!r} is {what}, not {_described(value)}")

    def unknown_keys(self, path: Path, table: Iterable[Key], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                where = f"in [{format_path(path)}]" if path else "at the top level"
                hint = did_you_mean(str(key), known) or f"; the keys here are {', '.join(known)}"
                self.add((*path, key), f"unknown key {key!r} {where}{hint}")

    def raise_any(self) -> None:
        if not self._found:
            return
        places = _TOML.locate_many(self._data, [path for path, _ in self._found])
        problems = [
            Problem(message, self._file, *(place or (None, None)))
            for (_, message), place in zip(self._found, places, strict=True)
        ]
        problems.sort(key=lambda problem: (problem.line or 0, problem.column or 0))
        raise Invalid(problems)


def _agent(tree: dict[Key, Any], file: FilePath, findings: _Findings) -> AgentConfig:
    findings.unknown_keys((), tree, _TOP_KEYS)
    for key in tree:
        if key in _SEGMENT_KEYS:
            findings.add((key,), f"{key!r} belongs in a segment's table: put it below [segment.NAME]")
    base = file.absolute().parent
    runtime_dir = _directory(tree, "runtime_dir", base, findings)
    state_dir = _directory(tree, "state_dir", base, findings)
    tables = tree.get("segment", {})
    segments: list[SegmentConfig] = []
    if not isinstance(tables, dict):
        findings.add(("segment",), "'segment' is a table of tables: write [segment.NAME] above a segment's keys")
    elif not tables and not findings:
        findings.add((), "there is no segment: add [segment.NAME] and its sources")
    else:
        segments = [_segment(str(name), table, base, findings) for name, table in tables.items()]
    return AgentConfig(file, runtime_dir, state_dir, tuple(segments))


def _segment(name: str, table: Any, base: FilePath, findings: _Findings) -> SegmentConfig:
    path: Path = ("segment", name)
    try:
        check_name(name)
    except ValueError as error:
        findings.add(path, str(error))
    if not isinstance(table, dict):
        findings.add(path, f"[{format_path(path)}] is a table of a segment's keys, not {_described(table)}")
        return SegmentConfig(name, base, ())
    findings.unknown_keys(path, table, _SEGMENT_KEYS)
    return SegmentConfig(
        name,
        base,
        _sources(table, path, findings),
        schema=_text(table, "schema", path, "the path of a JSON Schema", findings),
        check=_check(table, path, findings),
        settle_ms=_settle_ms(table, path, findings),
        max_bytes=_max_bytes(table, path, findings),
        mode=_mode(table, path, findings),
        group=_text(table, "group", path, "the name of a group", findings),
    )


def _directory(tree: dict[Key, Any], key: str, base: FilePath, findings: _Findings) -> FilePath | None:
    written = _text(tree, key, (), "the path of a directory", findings)
    return None if written is None else base / written


def _sources(table: dict[Key, Any], path: Path, findings: _Findings) -> tuple[Source, ...]:
    what = 'a list of paths, as in ["base.yaml", "conf.d/"]'
    if "sources" not in table:
        findings.add(path, f"[{format_path(path)}] has no 'sources': add {what}")
        return ()
    path = (*path, "sources")
    written = table["sources"]
    if not isinstance(written, list):
        findings.expected(path, what, written)
        return ()
    if not written:
        findings.add(path, f"'sources' is empty: it is {what}")
    return tuple(_source(entry, (*path, index), findings) for index, entry in enumerate(written))


def _source(entry: Any, path: Path, findings: _Findings) -> Source:
    if isinstance(entry, str):
        _acceptable_path(entry, path, findings)
        return Source(entry)
    if not isinstance(entry, dict):
        findings.add(path, f'a source is a path or {{ path = "local.yaml", optional = true }}, not {_described(entry)}')
        return Source("")
    for key in entry:
        if key not in _SOURCE_KEYS:
            hint = did_you_mean(str(key), _SOURCE_KEYS) or f"; the keys here are {', '.join(_SOURCE_KEYS)}"
            findings.add((*path, key), f"unknown key {key!r} in a source{hint}")
    written = entry.get("path")
    if "path" not in entry:
        findings.add(path, "this source has no 'path'")
    elif not isinstance(written, str):
        findings.expected((*path, "path"), "the path of a file or directory, or a glob", written)
    else:
        _acceptable_path(written, (*path, "path"), findings)
    optional = entry.get("optional", False)
    if not isinstance(optional, bool):
        findings.expected((*path, "optional"), "true or false", optional)
    return Source(str(written), _mount(entry, path, findings), optional is True)


def _acceptable_path(written: str, path: Path, findings: _Findings) -> None:
    if not written or "\0" in written:
        findings.add(path, "a path cannot contain a null character" if written else "a source's path is empty")


def _mount(entry: dict[Key, Any], path: Path, findings: _Findings) -> Path:
    if "at" not in entry:
        return ()
    at = _text(entry, "at", path, 'a path of keys, as in "service.limits"', findings)
    if at is None:
        return ()
    try:
        mount = parse_path(at)
    except PathError as error:
        findings.add((*path, "at"), f"'at' is a path of keys, as in \"service.limits\": {error}")
        return ()
    if len(mount) > _LONGEST_MOUNT:
        findings.add((*path, "at"), f"'at' has {len(mount)} keys; {_LONGEST_MOUNT} is the most")
    return mount


def _check(table: dict[Key, Any], path: Path, findings: _Findings) -> str | tuple[str, ...] | None:
    if "check" not in table:
        return None
    written = table["check"]
    path = (*path, "check")
    if isinstance(written, str):
        if not _CALLABLE.fullmatch(written):
            what = '"package.module:name", or a command as a list of text'
            findings.expected(path, what, written)
        return written
    if isinstance(written, list) and written and written[0] and all(type(part) is str for part in written):
        return tuple(written)
    findings.expected(path, '"package.module:name" or a command as a list of text', written)
    return None


def _settle_ms(table: dict[Key, Any], path: Path, findings: _Findings) -> float:
    written = table.get("settle_ms", SETTLE_MS)
    if type(written) in (int, float) and math.isfinite(written) and 0 <= written <= _MOST_SETTLE_MS:
        return float(written)
    findings.expected((*path, "settle_ms"), f"a number of milliseconds from 0 to {_MOST_SETTLE_MS}", written)
    return SETTLE_MS


def _max_bytes(table: dict[Key, Any], path: Path, findings: _Findings) -> int:
    written = table.get("max_bytes", MAX_BYTES)
    path = (*path, "max_bytes")
    size = _size(written)
    if size is None:
        findings.expected(path, 'a size, as in "256MiB" or a number of bytes', written)
    elif size < _LEAST_BYTES:
        findings.add(path, f"'max_bytes' is {size:,} bytes; the least is 1MiB")
    elif size > _MOST_BYTES:
        findings.add(path, f"'max_bytes' is {size:,} bytes; the most is 1TiB")
    else:
        return size
    return MAX_BYTES


def _size(written: Any) -> int | None:
    if type(written) is int:
        return written
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    unit = _UNITS.get(found[2].lower()) if found else None
    return None if found is None or unit is None else int(float(found[1]) * unit)


def _mode(table: dict[Key, Any], path: Path, findings: _Findings) -> int:
    if "mode" not in table:
        return MODE
    written = table["mode"]
    path = (*path, "mode")
    if not isinstance(written, str) or not re.fullmatch("[0-7]{3,4}", written):
        findings.expected(path, 'an octal file mode in quotes, as in "0640"', written)
        return MODE
    mode = int(written, 8)
    if mode & 0o022:
        findings.add(path, f"mode {written!r} lets group or others write; readers refuse such a segment")
    elif mode & ~0o644:
        findings.add(path, f'mode {written!r} does more than let read and write; "0640" is usual')
    elif mode & 0o600 != 0o600:
        findings.add(path, f"mode {written!r} keeps the agent, the file's owner, from reading and writing it")
    return mode


def _text(table: dict[Key, Any], key: str, path: Path, what: str, findings: _Findings) -> str | None:
    if key not in table:
        return None
    written = table[key]
    if isinstance(written, str) and written and "\0" not in written:
        return written
    findings.expected((*path, key), what, written)
    return None


def _described(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
