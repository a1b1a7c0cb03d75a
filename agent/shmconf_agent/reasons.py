"""The reasons by which failed reloads are counted: a few, so that dashboards can name them all; a log has the codes."""

from __future__ import annotations

from .problems import Code

__all__ = ["REASONS", "ROLLBACK", "reason_of"]

ROLLBACK = "rollback"
REASONS = {
    "source": "a file is missing, unreadable, emptied or not to be taken",
    "limit": "the sources pass one of the segment's limits",
    "syntax": "a file cannot be parsed, or says something twice",
    "reference": "a variable, file or credential that a file refers to cannot be used",
    "schema": "the merged tree breaks the schema, or the schema itself is broken",
    "check": "the check complained, failed or took too long",
    "guard": "the candidate is valid, and the guard holds it",
    ROLLBACK: "valid, and a rollback is held",
    "publish": "valid, and there is no room, or the segment cannot be written",
    "commit": "the commit file is not there, or what it committed was refused before",
    "internal": "a fault of the agent itself, which tries again",
    "other": "anything else",
}
"""Each reason, and what it means."""

# By the beginning of a code's name; of several problems the first one counts.
_BEGINNINGS = {
    "file-": "source",
    "no-files": "source",
    "too-many-files": "source",
    "limit-": "limit",
    "encoding": "syntax",
    "yaml-": "syntax",
    "toml-": "syntax",
    "json-": "syntax",
    "top-level": "syntax",
    "second-document": "syntax",
    "duplicate-key": "syntax",
    "number-range": "syntax",
    "half-character": "syntax",
    "reference-": "reference",
    "schema-": "schema",
    "bad-schema": "schema",
    "check": "check",
    "guard-": "guard",
    "not-published": "publish",
    "not-committed": "commit",
    "internal": "internal",
}


def reason_of(code: Code) -> str:
    """The reason that a problem with this code stands for."""
    return next((reason for beginning, reason in _BEGINNINGS.items() if code.value.startswith(beginning)), "other")
