"""What a reader of the stress test has seen, in a file that the test can read at any time, also after a SIGKILL.

stress_reader.c writes the same record.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path

NAMES = (
    "verified",  # reads that were checked
    "points",  # of them look-ups of one path,
    "containers",  # of which a map, a list or a long value,
    "snapshots",  # and whole versions
    "retries",  # tries that a publication made worthless
    "lapped",  # reads that began at a version whose slot was used again before they ended
    "grown",  # versions larger than the whole file was when it was last looked at
    "takeovers",  # writers that went on in a segment that another had begun
    "epochs",  # segment files
    "last",  # the latest version seen
)
RECORD = struct.Struct(f"<{len(NAMES)}Q")


class Progress:
    """Written by the reader's threads."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        self._counts = dict.fromkeys(NAMES, 0)
        self._lock = threading.Lock()
        self._write_at = 0.0

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count
            if time.monotonic() >= self._write_at:
                self._write()

    def set(self, **counts: int) -> None:
        """What is the most so far; it is written at once, with what was counted since the last time."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] = max(count, self._counts[name])
            self._write()

    def _write(self) -> None:
        self._write_at = time.monotonic() + 0.2
        os.pwrite(self._fd, RECORD.pack(*self._counts.values()), 0)


def seen(file: Path) -> dict[str, int]:
    """What the reader has written; all zeros before it has."""
    record = file.read_bytes() if file.exists() else b""
    return dict(zip(NAMES, RECORD.unpack(record.ljust(RECORD.size, b"\0")), strict=True))
