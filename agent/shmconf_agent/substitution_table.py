"""The keys of a segment's table that say what references in its sources may name."""

from __future__ import annotations

from typing import Any

from .config import Substitution
from .findings import Findings
from .problems import Key, Path
from .substitution import ENV_NAME

SUBSTITUTION_KEYS = ("substitute", "substitute_env", "substitute_roots")


def substitution(table: dict[Key, Any], path: Path, findings: Findings) -> Substitution | None:
    """What the table allows; None without `substitute = true`."""
    wanted = table.get("substitute", False)
    if not isinstance(wanted, bool):
        findings.expected((*path, "substitute"), "true or false", wanted)
    env = _texts(table, "substitute_env", path, 'a list of variables, as in ["DB_HOST"]', findings)
    for index, name in env:
        if not ENV_NAME.fullmatch(name):
            what = f"{name!r} is no name of a variable: letters, digits and _, as in \"DB_HOST\""
            findings.add((*path, "substitute_env", index), what)
    roots = _texts(table, "substitute_roots", path, 'a list of directories, as in ["/run/secrets"]', findings)
    for index, root in roots:
        if not root or "\0" in root:
            findings.add((*path, "substitute_roots", index), "it is a directory's path, and this is none")
    if "substitute" not in table:
        for key in SUBSTITUTION_KEYS[1:]:
            if key in table:
                findings.add((*path, key), f"{key!r} does nothing without 'substitute = true' beside it")
    if wanted is not True:
        return None
    return Substitution(tuple(name for _, name in env), tuple(root for _, root in roots))


def _texts(table: dict[Key, Any], key: str, path: Path, what: str, findings: Findings) -> list[tuple[int, str]]:
    written = table.get(key, [])
    if isinstance(written, list) and all(isinstance(each, str) for each in written):
        return list(enumerate(written))
    findings.expected((*path, key), what, written)
    return []
