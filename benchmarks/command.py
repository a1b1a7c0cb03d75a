"""What the benchmarks' commands share: which rows to measure, and how to show them."""

from __future__ import annotations

import argparse

from rich.console import Console

from .row import Row, Unavailable
from .table import Line, console, print_json, print_table


def add_options(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """--row and --json."""
    parser.add_argument("--row", action="append", choices=names, metavar="NAME", help=f"only: {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="all figures as JSON on stdout")


def measure_and_print(rows: list[Row], options: argparse.Namespace, title: str) -> None:
    """Measure the rows that were asked for, and print them. What fails, rather than being unavailable, raises."""
    progress = Console(stderr=True)
    lines = []
    for row in rows:
        if options.row and row.name not in options.row:
            continue
        with progress.status(f"{row.name}: {row.what}"):
            lines.append(_measure(row))
    if options.json:
        print_json(lines)
    else:
        print_table(lines, console(), title)


def _measure(row: Row) -> Line:
    try:
        return Line(row, row.measure())
    except Unavailable as reason:
        return Line(row, None, str(reason))
