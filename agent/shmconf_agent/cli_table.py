"""Tables on stdout, for every verb that has one: by rich on a terminal, plain where a program may read along.

On a terminal a table fits the width (`COLUMNS`, else the window's, at most 120): what is too long goes on below itself
in its column, and nothing is left out. Colours are left out where `NO_COLOR` is set or `TERM` is dumb. Elsewhere (a
pipe, a file) each row is one line, however long, without codes and without lines drawn: columns stand two spaces apart,
as those of `ps` do.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import click

from .cli_terminal import console
from .one_line import visible

_GAP = "  "
_NARROWEST = 8  # of a column that is folded


@dataclass(frozen=True, slots=True)
class Column:
    """name: the heading. right: for numbers. whole: never folded on a terminal that has room for the longest of these;
    for what is copied or compared, such as a version or a digest."""

    name: str
    right: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell that has a style of rich's on a terminal, such as "green" or "bold red"."""

    text: str
    style: str


def show(columns: Sequence[Column | str], rows: Sequence[Sequence[str | Styled]]) -> None:
    """Print the table: a heading, and a line or more for each row. A line end or control character in a cell, which a
    file's name may have, is shown by its code. Raises OSError, and UnicodeEncodeError for what stdout cannot encode."""
    headings = [Column(column) if isinstance(column, str) else column for column in columns]
    cells = [[_cell(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _by_rich(headings, cells)
    else:
        for line in _lines(headings, [[cell.text for cell in row] for row in cells]):
            click.echo(line)


def _lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as one line; the last column is not filled up."""
    from rich.cells import cell_len  # a character of Chinese takes the room of two

    texts = [[column.name.upper() for column in columns], *rows]
    widths = [max(cell_len(row[index]) for row in texts) for index in range(len(columns))]
    lines = []
    for row in texts:
        padded = []
        for column, text, width in zip(columns, row, widths, strict=True):
            fill = " " * (width - cell_len(text))
            padded.append(fill + text if column.right else text + fill)
        lines.append(_GAP.join(padded).rstrip())
    return lines


def _by_rich(columns: Sequence[Column], rows: Sequence[Sequence[Styled]]) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    screen = console()
    table = Table(box=None, padding=(0, len(_GAP), 0, 0), pad_edge=False, header_style="dim")
    needed = 0
    for index, column in enumerate(columns):
        longest = max(cell_len(text) for text in (column.name, *(row[index].text for row in rows)))
        least = longest if column.whole else min(longest, _NARROWEST)
        needed += least + len(_GAP)
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(Text(column.name.upper()), justify=justify, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    if needed - len(_GAP) > screen.width:  # there is no room to fold in: better torn by the terminal than cut
        screen.width = needed - len(_GAP)
    screen.print(table, crop=False)


def _cell(cell: str | Styled) -> Styled:
    return Styled(visible(cell.text), cell.style) if isinstance(cell, Styled) else Styled(visible(cell), "")
