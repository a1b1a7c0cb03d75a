"""A worker of `wakeup`: `python -m benchmarks.waiter DIRECTORY RESULTS NUMBER`.

It waits for versions for as long as it lives; for each it notes in RESULTS when it was back, and then for which.
"""

from __future__ import annotations

import mmap
import sys
import time

import shmconf

WORDS_EACH = 8  # a cache line for each worker: version, time


def main(directory: str, results: str, number: str) -> None:
    """Wait for ever."""
    config = shmconf.attach("web", directory=directory)
    with open(results, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    at = int(number) * WORDS_EACH
    words[at] = version = config.version
    while True:
        woken = config.wait_version(after=version)
        words[at + 1] = time.monotonic_ns()
        assert woken is not None
        words[at] = version = woken


if __name__ == "__main__":
    main(*sys.argv[1:])
