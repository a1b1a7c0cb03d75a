"""A worker of `edits`: `python -m benchmarks.edit_worker DIRECTORY RESULTS NUMBER PATH`.

It waits for versions for as long as it lives; of each it reads PATH and notes in RESULTS when it had it, and then what.
"""

from __future__ import annotations

import mmap
import sys
import time

import shmconf

from .edits import WORDS_EACH


def main(directory: str, results: str, number: str, path: str) -> None:
    """Wait for ever."""
    config = shmconf.attach("web", directory=directory)
    with open(results, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    at = int(number) * WORDS_EACH
    version = config.version
    print(version, flush=True)
    while True:
        woken = config.wait_version(after=version)
        value = config.get(path)
        words[at + 1] = time.monotonic_ns()
        words[at] = value
        assert woken is not None
        version = woken


if __name__ == "__main__":
    main(*sys.argv[1:])
