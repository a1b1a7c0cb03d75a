"""`python -m benchmarks.read [--row NAME]... [--json]`: measures the rows, and prints them as a table or as JSON.

Each row is one ratio whose two sides are measured in turns within this run. It exits 0 whether targets are met or
not; a row that fails, rather than being unavailable, ends the run with its traceback.
"""

from __future__ import annotations

import argparse

from . import c_read, fresh, hot, index, memory, publication, sample, wakeup
from .command import add_options, measure_and_print
from .row import Row

ROWS: list[Row] = [
    *hot.ROWS,
    *fresh.ROWS,
    *memory.ROWS,
    *publication.ROWS,
    *wakeup.ROWS,
    *c_read.ROWS,
    *index.ROWS,
]


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read", description="How fast reading is, as ratios.")
    add_options(parser, [row.name for row in ROWS])
    options = parser.parse_args()
    sample.check_sizes()
    measure_and_print(ROWS, options, "Reading, as ratios of one run")


if __name__ == "__main__":
    main()
