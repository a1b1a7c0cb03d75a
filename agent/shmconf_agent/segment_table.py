"""A segment's own table in the agent's file, [segment.NAME]: its sources and its settings."""

from __future__ import annotations

import math
import re
from pathlib import Path as FilePath
from typing import Any

from shmconf.directories import check_name
from shmconf.errors import PathError
from shmconf.paths import parse_path

from .config import MAX_BYTES, MODE, SETTLE_MS, SegmentConfig, Source
from .findings import Findings, described, text
from .guard_table import guard
from .limits_table import limits, size_in_bytes
from .problems import Key, Path, format_path
from .substitution_table import SUBSTITUTION_KEYS, substitution

SEGMENT_KEYS = (
    *("sources", "schema", "check", "settle_ms", "max_bytes", "mode", "group", "commit", "limits", "guard"),
    *SUBSTITUTION_KEYS,
)
_SOURCE_KEYS = ("path", "at", "optional")

_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_LEAST_BYTES = 1024 * 1024
_MOST_BYTES = 1024**4
_MOST_SETTLE_MS = 10_000
# A mount point adds to the depth of the tree, which every later stage walks.
_LONGEST_MOUNT = 32


def segment(name: str, table: Any, base: FilePath, findings: Findings) -> SegmentConfig:
    """What the table says; where it is wrong, a default, and why among the findings."""
    path: Path = ("segment", name)
    try:
        check_name(name)
    except ValueError as error:
        findings.add(path, str(error))
    if not isinstance(table, dict):
        findings.add(path, f"[{format_path(path)}] is a table of a segment's keys, not {described(table)}")
        return SegmentConfig(name, base, ())
    findings.unknown_keys(path, table, SEGMENT_KEYS)
    return SegmentConfig(
        name,
        base,
        _sources(table, path, findings),
        schema=text(table, "schema", path, "the path of a JSON Schema", findings),
        check=_check(table, path, findings),
        settle_ms=_settle_ms(table, path, findings),
        max_bytes=_max_bytes(table, path, findings),
        mode=_mode(table, path, findings),
        group=text(table, "group", path, "the name of a group", findings),
        limits=limits(name, table, path, findings),
        substitution=substitution(table, path, findings),
        group_place=findings.place((*path, "group")) if "group" in table else (),
        commit=text(table, "commit", path, "the path of a file or a link", findings),
        guard=guard(table, path, findings),
    )


def _sources(table: dict[Key, Any], path: Path, findings: Findings) -> tuple[Source, ...]:
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


def _source(entry: Any, path: Path, findings: Findings) -> Source:
    if isinstance(entry, str):
        _acceptable_path(entry, path, findings)
        return Source(entry, entry=path)
    if not isinstance(entry, dict):
        findings.add(path, f'a source is a path or {{ path = "local.yaml", optional = true }}, not {described(entry)}')
        return Source("")
    for key in entry:
        if key not in _SOURCE_KEYS:
            findings.unknown_key(path, key, "in a source", _SOURCE_KEYS)
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
    return Source(str(written), _mount(entry, path, findings), optional is True, path)


def _acceptable_path(written: str, path: Path, findings: Findings) -> None:
    if not written or "\0" in written:
        findings.add(path, "a path cannot contain a null character" if written else "a source's path is empty")


def _mount(entry: dict[Key, Any], path: Path, findings: Findings) -> Path:
    if "at" not in entry:
        return ()
    at = text(entry, "at", path, 'a path of keys, as in "service.limits"', findings)
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


def _check(table: dict[Key, Any], path: Path, findings: Findings) -> str | tuple[str, ...] | None:
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


def _settle_ms(table: dict[Key, Any], path: Path, findings: Findings) -> float:
    written = table.get("settle_ms", SETTLE_MS)
    if type(written) in (int, float) and math.isfinite(written) and 0 <= written <= _MOST_SETTLE_MS:
        return float(written)
    findings.expected((*path, "settle_ms"), f"a number of milliseconds from 0 to {_MOST_SETTLE_MS}", written)
    return SETTLE_MS


def _max_bytes(table: dict[Key, Any], path: Path, findings: Findings) -> int:
    written = table.get("max_bytes", MAX_BYTES)
    path = (*path, "max_bytes")
    size = size_in_bytes(written)
    if size is None:
        findings.expected(path, 'a size, as in "256MiB" or a number of bytes', written)
    elif size < _LEAST_BYTES:
        findings.add(path, f"'max_bytes' is {size:,} bytes; the least is 1MiB")
    elif size > _MOST_BYTES:
        findings.add(path, f"'max_bytes' is {size:,} bytes; the most is 1TiB")
    else:
        return size
    return MAX_BYTES


def _mode(table: dict[Key, Any], path: Path, findings: Findings) -> int:
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
