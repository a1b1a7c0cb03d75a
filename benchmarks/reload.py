"""`python -m benchmarks.reload [--row NAME]... [--json]`: from the edit of a file to its value in worker processes.

Each row is one ratio whose two sides are measured in turns within this run. It exits 0 whether targets are met or
not; a row that fails, rather than being unavailable, ends the run with its traceback.
"""

from __future__ import annotations

import argparse
from functools import partial

from . import edits, parsing, rest, sample
from .command import add_options, measure_and_print
from .row import Row

BARE = "bare inotify event and CSafeLoader, median"


def rows(edits_of_one: int, edits_of_forty: int, rest_seconds: float, parsings: int) -> list[Row]:
    """The rows, with so many samples each."""
    of_one = edits.OfOne(edits_of_one)
    return [
        Row("parse", "parsing 2.4 MB of YAML", "CSafeLoader", 0.12, partial(parsing.large, parsings)),
        Row("parse-events", "the same", "libyaml's bare events", 1.6, partial(parsing.events, parsings)),
        Row("parse-small", "parsing 23 KB of YAML", "CSafeLoader", 0.5, partial(parsing.small, 10 * parsings)),
        Row(
            "reload-40",
            "edit of one of 40 files to visible in 8 workers",
            "CSafeLoader of all 40",
            0.02,
            partial(edits.of_forty, edits_of_forty, parsings),
        ),
        Row("reload-10k", "edit of a 10 KB file to visible in 8 workers, median", BARE, 1.5, of_one.median),
        Row("reload-10k-p99", "the same, 99th percentile", BARE, 3, of_one.percentile),
        Row("rest", "an agent at rest with 1,000 files", "one core", 0.003, partial(rest.measure, rest_seconds)),
    ]


def main() -> None:
    """Measure what was asked for, and print it."""
    description = "How fast an edit is visible in workers, as ratios."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reload", description=description)
    add_options(parser, [row.name for row in rows(1, 1, 1, 1)])
    parser.add_argument("--brief", action="store_true", help="a few samples only: to see that it works")
    options = parser.parse_args()
    sample.check_sizes()
    chosen = rows(5, 3, 2, 1) if options.brief else rows(400, 60, 40, 9)
    measure_and_print(chosen, options, "Reloading, as ratios of one run")


if __name__ == "__main__":
    main()
