"""The line that a problem is about, with a caret below its place, for people.

Two lines for a problem whose place can be shown, one with its code alone for others:

        3 |   port: 2
          |   ^ [duplicate-key]

Tabs, wide and invisible characters are laid out as terminals do; a character that could move the cursor is shown as a
dot. Of a long line a part around the place is shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from . import formats
from .problems import Code, Problem

_GUTTER = 8
_TAB = 4
_LEAST_WIDTH = 20
_ODD = "·"
_CUT = "…"


class Excerpts:
    """Shows problems. Each file is read, if `contents` does not have it, and cut into lines once."""

    def __init__(self, contents: Mapping[str, bytes], base: Path, width: int = 100) -> None:
        """contents: by the name that problems use. base: what schemas are relative to. width: in columns."""
        self._contents = contents
        self._base = base
        self._width = max(width - _GUTTER, _LEAST_WIDTH)
        self._lines: dict[str, list[str]] = {}

    def of(self, problem: Problem) -> list[str]:
        """The lines to print below the problem's own."""
        code = f"[{problem.code.value}]"
        if problem.file is None or problem.line is None or problem.column is None:
            return [f"{'':{_GUTTER}}{code}"]
        lines = self._lines_of(problem.file, problem.code)
        if problem.line > len(lines):
            return [f"{'':{_GUTTER}}{code}"]
        shown, caret = lay_out(lines[problem.line - 1], problem.column, self._width)
        return [f"{problem.line:>5} | {shown}".rstrip(), f"{'':5} | {'':{caret}}^ {code}"]

    def _lines_of(self, file: str, code: Code) -> list[str]:
        lines = self._lines.get(file)
        if lines is None:
            lines = self._lines[file] = self._read(file, code)
        return lines

    def _read(self, file: str, code: Code) -> list[str]:
        data = self._contents.get(file)
        if data is None:
            try:
                data = (self._base / file if code is Code.BAD_SCHEMA else Path(file)).read_bytes()
            except (OSError, ValueError):
                return []
        return formats.lines(data, file=file)


def lay_out(line: str, column: int, width: int) -> tuple[str, int]:
    """What to show of a line in `width` columns so that the character at `column` (from 1) is seen, and the column
    (from 0) at which it is seen; behind the end if the line has no such character."""
    index = min(column - 1, len(line))
    # No more than this many characters on each side can be seen, but for those without a width.
    first = max(index - 4 * width, 0)
    cells = _cells(line[first : index + 4 * width])
    at = index - first
    before = sum(size for _, size in cells[:at])
    total = sum(size for _, size in cells)
    if total + 1 <= width and first == 0 and index + 4 * width >= len(line):
        return "".join(text for text, _ in cells), before
    start, end = at, at
    room = width - 3  # for the cut marks, and the caret behind the end
    left = 0
    while start > 0 and left + cells[start - 1][1] <= room * 2 // 3:
        start -= 1
        left += cells[start][1]
    right = 0
    while end < len(cells) and left + right + cells[end][1] <= room:
        right += cells[end][1]
        end += 1
    while start > 0 and left + right + cells[start - 1][1] <= room:
        start -= 1
        left += cells[start][1]
    head = _CUT if first + start > 0 else ""
    tail = _CUT if first + end < len(line) else ""
    return head + "".join(text for text, _ in cells[start:end]) + tail, len(head) + left


def _cells(text: str) -> list[tuple[str, int]]:
    """Each character as it is shown, with the columns that it takes."""
    cells: list[tuple[str, int]] = []
    column = 0
    for character in text:
        if character == "\t":
            size = _TAB - column % _TAB
            cells.append((" " * size, size))
        elif not character.isprintable():
            size = 1
            cells.append((_ODD, 1))
        else:
            size = _size(character)
            cells.append((character, size))
        column += size
    return cells


def _size(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
