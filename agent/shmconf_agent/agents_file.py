"""The agent's own file, shmconf.toml: read whole, with every mistake at once, its place and what would be right."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from . import formats
from .config import AgentConfig, Place, SegmentConfig
from .findings import Findings, text
from .problems import Code, Fault, Invalid, Key, Path
from .segment_table import SEGMENT_KEYS, segment

_TOML = formats.SUFFIXES[".toml"]
_TOP_KEYS = ("runtime_dir", "state_dir", "admin_group", "metrics_textfile", "segment")


def load(file: FilePath) -> AgentConfig:
    """The agent's configuration in `file`. Raises Invalid with every problem, in the order of the file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        advice = "name the agent's file with --config, or give --segment NAME and its sources"
        fault = Fault(Code.FILE_UNREADABLE, f"cannot read it: {error.strerror}; {advice}")
        raise Invalid([fault.at(str(file))]) from None
    [tree] = _TOML.documents(data, file=str(file), limits=formats.DEFAULT_LIMITS)
    findings = Findings(data, str(file))
    config = _agent(tree, file, findings)
    findings.raise_any()
    return config


def place_in(file: FilePath, path: Path) -> Place:
    """Where `path` stands in the agent's file as it is now: file, line and column. Raises Invalid, OSError."""
    data = file.read_bytes()
    _TOML.documents(data, file=str(file), limits=formats.DEFAULT_LIMITS)
    return Findings(data, str(file)).place(path)


def _agent(tree: dict[Key, Any], file: FilePath, findings: Findings) -> AgentConfig:
    findings.unknown_keys((), tree, _TOP_KEYS)
    for key in tree:
        if key in SEGMENT_KEYS:
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
        segments = [segment(str(name), table, base, findings) for name, table in tables.items()]
    admin_group = text(tree, "admin_group", (), "the name of a group", findings)
    admin_group_place = findings.place(("admin_group",)) if "admin_group" in tree else ()
    written = text(tree, "metrics_textfile", (), "the path of a file", findings)
    textfile = None if written is None else base / written
    return AgentConfig(file, runtime_dir, state_dir, tuple(segments), admin_group, admin_group_place, textfile)


def _directory(tree: dict[Key, Any], key: str, base: FilePath, findings: Findings) -> FilePath | None:
    written = text(tree, key, (), "the path of a directory", findings)
    return None if written is None else base / written
