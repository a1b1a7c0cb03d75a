"""A segment's limits in the agent's file, [segment.NAME.limits]: how much its sources may hold."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from .config import limits_table
from .findings import Findings, described
from .formats.limits import DEFAULT_LIMITS, Limits
from .problems import Key, Path, format_path

LIMIT_KEYS = tuple(each.name for each in fields(Limits) if each.name.startswith("max_"))

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")  # longer ones are no sizes, and may be infinite
_UNITS = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, base in ((f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_MOST = {  # what later stages can bear: those that walk the merged tree recurse, and an offset has to fit
    "max_file_bytes": 2**30,
    "max_total_bytes": 2**34,
    "max_files": 1_000_000,
    "max_depth": 256,
    "max_nodes": 10**9,
    "max_keys": 10**9,
    "max_documents": 1_000_000,
}


def limits(name: str, table: dict[Key, Any], path: Path, findings: Findings) -> Limits:
    """What `limits` in the segment's table, which stands at `path`, says; where it is wrong, the default, and why among
    the findings."""
    written = table.get("limits", {})
    path = (*path, "limits")
    if not isinstance(written, dict):
        findings.add(path, f"[{format_path(path)}] is a table of limits, as max_depth = 64, not {described(written)}")
        written = {}
    findings.unknown_keys(path, written, LIMIT_KEYS)
    values = {key: _value(key, written[key], (*path, key), findings) for key in LIMIT_KEYS if key in written}
    return Limits(**values, table=limits_table(name))


def size_in_bytes(written: Any) -> int | None:
    """A number of bytes, or a size as in "256MiB"; None for anything else."""
    if type(written) is int:
        return written
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    unit = _UNITS.get(found[2].lower()) if found else None
    return None if found is None or unit is None else int(float(found[1]) * unit)


def _value(key: str, written: Any, path: Path, findings: Findings) -> int:
    is_size = key.endswith("_bytes")
    value = size_in_bytes(written) if is_size else written
    default: int = getattr(DEFAULT_LIMITS, key)
    if type(value) is not int:
        findings.expected(path, 'a size, as in "16MiB" or a number of bytes' if is_size else "a whole number", written)
    elif not 1 <= value <= _MOST[key]:
        findings.add(path, f"{key!r} is {value:,}; it may be 1 to {_MOST[key]:,}")
    else:
        return value
    return default
