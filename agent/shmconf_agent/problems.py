"""What is wrong with an input, said to the person who can mend it: what, and at which file, line and column.

Every stage of the pipeline reports bad input as `Problem`s, gathered in one `Invalid`; nothing here knows which
stage speaks. Lines and columns count from 1, columns in characters (a byte order mark is not one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from shmconf.paths import format_path

__all__ = ["Invalid", "Key", "Path", "Problem", "format_path"]

Key = str | int | float | bool | None | bytes | date | datetime
"""A map key. In a path, a list's item is addressed by its index, an int."""

Path = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `file` is as the user wrote it or would type it; `line` and `column` are None when
    the problem belongs to the file as a whole."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """`file:line:col: message`, with as much of the place as is known."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


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
