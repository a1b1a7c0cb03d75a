"""The guard's own table in the agent's file, [segment.NAME.guard]."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from shmconf.errors import PathError
from shmconf.paths import parse_path

from .findings import Findings, described
from .guard_settings import GuardSettings, Most
from .problems import Key, Path, format_path

_KEYS = ("max_deleted_keys", "max_changed_keys", "never_empty", "frozen")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")
_WHAT_MOST = 'a number of keys, as in 20, or a share of those that are served, as in "10%"'
_WHAT_PATHS = 'a list of paths, as in ["db.hosts"]'


def guard(segment: dict[Key, Any], path: Path, findings: Findings) -> GuardSettings | None:
    """What the table `guard` of the segment's table at `path` says; None if there is none, or it asks for nothing."""
    if "guard" not in segment:
        return None
    table, path = segment["guard"], (*path, "guard")
    if not isinstance(table, dict):
        findings.add(path, f"[{format_path(path)}] is a table of the guard's keys, not {described(table)}")
        return None
    findings.unknown_keys(path, table, _KEYS)
    settings = GuardSettings(
        _most(table, "max_deleted_keys", path, findings),
        _most(table, "max_changed_keys", path, findings),
        _paths(table, "never_empty", path, findings),
        _paths(table, "frozen", path, findings),
    )
    return None if settings == GuardSettings() else settings


def _most(table: dict[Key, Any], key: str, path: Path, findings: Findings) -> Most | None:
    if key not in table:
        return None
    written = table[key]
    if type(written) is int and written >= 0:
        return Most(str(written), number=written)
    found = _SHARE.fullmatch(written) if isinstance(written, str) else None
    share = Fraction(found[1]) / 100 if found else None
    if share is not None and share <= 1:
        return Most(written, share=share)
    findings.expected((*path, key), _WHAT_MOST, written)
    return None


def _paths(table: dict[Key, Any], key: str, path: Path, findings: Findings) -> tuple[str, ...]:
    if key not in table:
        return ()
    written, path = table[key], (*path, key)
    if not isinstance(written, list):
        findings.expected(path, _WHAT_PATHS, written)
        return ()
    for index, entry in enumerate(written):
        try:
            if not isinstance(entry, str):
                what = f"an entry of {key!r} is a path"
                findings.add((*path, index), f'{what}, as in "db.hosts", not {described(entry)}')
            else:
                parse_path(entry)
        except PathError as error:
            findings.add((*path, index), f"an entry of {key!r} is a path of keys: {error}")
    return tuple(dict.fromkeys(entry for entry in written if isinstance(entry, str)))
