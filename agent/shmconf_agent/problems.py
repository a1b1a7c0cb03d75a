"""What is wrong with an input, said to the person who can mend it: what, and at which file, line and column.

Every stage of the pipeline reports bad input as `Problem`s, gathered in one `Invalid`; nothing here knows which
stage speaks. Lines and columns count from 1, columns in characters (a byte order mark is not one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from shmconf.paths import format_path

from .one_line import one_line, visible

__all__ = ["MOST_PROBLEMS", "TOO_MANY", "Code", "Fault", "Invalid", "Key", "Path", "Problem", "format_path", "in_order"]

Key = str | int | float | bool | None | bytes | date | datetime
"""A map key. In a path, a list's item is addressed by its index, an int."""

Path = tuple[Key, ...]


class Code(StrEnum):
    """The kinds of problems; docs/problems.md says what each means. A name stays, once it was in a release."""

    FILE_MISSING = "file-missing"
    FILE_UNREADABLE = "file-unreadable"
    FILE_EMPTIED = "file-emptied"
    FILE_CHANGING = "file-changing"
    FILE_MOUNTED = "file-mounted"
    FILE_SUFFIX = "file-suffix"
    NO_FILES = "no-files"
    TOO_MANY_FILES = "too-many-files"
    TOO_MANY_PROBLEMS = "too-many-problems"
    LIMIT_BYTES = "limit-bytes"
    LIMIT_TOTAL_BYTES = "limit-total-bytes"
    LIMIT_PACKED_BYTES = "limit-packed-bytes"
    LIMIT_DEPTH = "limit-depth"
    LIMIT_NODES = "limit-nodes"
    LIMIT_KEYS = "limit-keys"
    LIMIT_DOCUMENTS = "limit-documents"
    ENCODING = "encoding"
    YAML_SYNTAX = "yaml-syntax"
    TOML_SYNTAX = "toml-syntax"
    JSON_SYNTAX = "json-syntax"
    TOP_LEVEL = "top-level"
    SECOND_DOCUMENT = "second-document"
    DUPLICATE_KEY = "duplicate-key"
    NUMBER_RANGE = "number-range"
    HALF_CHARACTER = "half-character"
    YAML_ALIAS = "yaml-alias"
    YAML_KEY = "yaml-key"
    YAML_MERGE = "yaml-merge"
    YAML_TAG = "yaml-tag"
    YAML_VALUE = "yaml-value"
    YAML_BOOL = "yaml-bool"
    YAML_EQUAL_KEYS = "yaml-equal-keys"
    YAML_EXPONENT = "yaml-exponent"
    YAML_OCTAL = "yaml-octal"
    YAML_SEXAGESIMAL = "yaml-sexagesimal"
    REFERENCE_EMPTY = "reference-empty"
    REFERENCE_LIMIT = "reference-limit"
    REFERENCE_MISSING = "reference-missing"
    REFERENCE_NOT_ALLOWED = "reference-not-allowed"
    REFERENCE_SYNTAX = "reference-syntax"
    REFERENCE_TEXT = "reference-text"
    REFERENCE_UNREADABLE = "reference-unreadable"
    SCHEMA_ALTERNATIVES = "schema-alternatives"
    SCHEMA_CHOICE = "schema-choice"
    SCHEMA_FORMAT = "schema-format"
    SCHEMA_KEY_CLASH = "schema-key-clash"
    SCHEMA_KEY_NAME = "schema-key-name"
    SCHEMA_PATTERN = "schema-pattern"
    SCHEMA_RANGE = "schema-range"
    SCHEMA_REQUIRED = "schema-required"
    SCHEMA_RULE = "schema-rule"
    SCHEMA_SIZE = "schema-size"
    SCHEMA_TYPE = "schema-type"
    SCHEMA_UNKNOWN_KEY = "schema-unknown-key"
    BAD_SCHEMA = "bad-schema"
    CHECK = "check"
    AGENT_FILE = "agent-file"
    AGENT_FILE_KEY = "agent-file-key"
    GROUP = "group"
    GUARD_DELETED = "guard-deleted"
    GUARD_CHANGED = "guard-changed"
    GUARD_EMPTY = "guard-empty"
    GUARD_FROZEN = "guard-frozen"
    GUARD_ACCEPT = "guard-accept"
    NOT_KEPT = "not-kept"
    HOLD_NOT_KEPT = "hold-not-kept"
    NOT_PUBLISHED = "not-published"
    NOT_COMMITTED = "not-committed"
    INTERNAL = "internal"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, without the place. `hint`: what was probably meant, or how to write it."""

    code: Code
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """The message with its hint."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def at(self, file: str, position: tuple[int, int] | None = None, path: Path | None = None) -> Problem:
        """The problem of having this here."""
        line, column = position or (None, None)
        return Problem(self.message, file, line, column, self.code, self.hint, path)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `file` is as the user wrote it or would type it; `line` and `column` are None when
    the problem belongs to the file as a whole; `path` is that of a value in the merged tree, or in the agent's file, if
    the problem is one of a value. `hint`: what was probably meant, or how to write it."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    code: Code = Code.OTHER
    hint: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        """`file:line:col: message; hint`, with as much of the place as is known, in one line that a terminal can show,
        whatever is in the file's name."""
        place = visible(":".join(str(part) for part in (self.file, self.line, self.column) if part is not None))
        said = one_line(f"{self.message}; {self.hint}" if self.hint else self.message)
        return f"{place}: {said}" if place else said


MOST_PROBLEMS = 1000
"""The most that are told of one file, of all files, or of the merged tree, so that what is wrong with a text costs no
more than the text itself."""

TOO_MANY = Fault(Code.TOO_MANY_PROBLEMS, f"these are {MOST_PROBLEMS:,} problems; what else is wrong is not told")
"""Stands behind the last one of so many, if there were more."""


class Invalid(Exception):
    """The input cannot be used. `problems` holds every problem found, in the order of the input, and at least one."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("Invalid needs at least one problem")
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def in_order(found: list[tuple[tuple[int, int] | None, Fault]], file: str) -> list[Problem]:
    """The faults found in one file by their places, no more of them than are told."""
    found = sorted(found, key=lambda each: each[0] or (0, 0))
    if len(found) > MOST_PROBLEMS:
        found[MOST_PROBLEMS:] = [(found[MOST_PROBLEMS - 1][0], TOO_MANY)]
    return [fault.at(file, at) for at, fault in found]
