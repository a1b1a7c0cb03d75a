"""The least that a process can do for itself: `python -m benchmarks.inotify_worker DIRECTORY RESULTS PATH`.

It reads inotify's events for DIRECTORY as the kernel gives them, loads web.yaml with CSafeLoader as soon as another is
moved there, and notes in RESULTS when it had the value at PATH, and then the value.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from functools import reduce
from pathlib import Path

import yaml

_MOVED_TO = 0x80  # of inotify(7)


def main(directory: str, results: str, path: str) -> None:
    """Wait for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_CLOEXEC)
    if events < 0 or libc.inotify_add_watch(events, directory.encode(), _MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with open(results, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    file_at, parts = Path(directory) / "web.yaml", path.split(".")
    print(0, flush=True)
    while os.read(events, 65536):
        with open(file_at, "rb") as text:
            tree = yaml.load(text.read(), yaml.CSafeLoader)
        value = reduce(lambda node, part: node[part], parts, tree)
        words[1] = time.monotonic_ns()
        words[0] = value


if __name__ == "__main__":
    main(*sys.argv[1:])
