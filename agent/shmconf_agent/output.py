"""The agent's lines on stdout and stderr, which may be slow, full or gone: nothing of the agent ever waits for them.

Lines are queued and written by a thread of their own. Where nobody reads them they are dropped, and once somebody
does again a line says how many; a closed pipe ends the writing and nothing else.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from typing import TextIO

from .events import Event, Published, Rejected, as_json_line

_MOST_LINES = 1000
_SETTLE_SECONDS = 1.0


class Output:
    """Where an agent's events go. `say` may be called from any thread."""

    def __init__(self, as_json: bool) -> None:
        """as_json: a line of JSON for each event, to stdout. Else text, and only publications and rejections there."""
        self._as_json = as_json
        self._lines: queue.Queue[tuple[int, str] | None] = queue.Queue(_MOST_LINES)
        self._dropped = 0
        # By number: a thread that hangs in a file object's lock would hang the interpreter's end as well.
        self._out, self._err = _descriptor(sys.stdout), _descriptor(sys.stderr)
        self._thread = threading.Thread(target=self._write_all, name="shmconf-output", daemon=True)
        self._thread.start()

    def say(self, event: Event) -> None:
        """Print the event as one line, soon. Never waits and never raises."""
        to_out = self._as_json or isinstance(event, Published | Rejected)
        text = as_json_line(event) if self._as_json else " ".join(event.line().splitlines())
        try:
            self._lines.put_nowait((self._out if to_out else self._err, text))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Give what is queued a second or two to be written."""
        try:
            self._lines.put(None, timeout=_SETTLE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_SETTLE_SECONDS)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            _write(*line)
            if self._lines.empty():
                self._tell_of_dropped()
        self._tell_of_dropped()

    def _tell_of_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            _write(self._err, f"shmconf: {dropped} lines were dropped here, as nobody read them")


def _descriptor(stream: TextIO | None) -> int:
    """The number of a standard stream; -1 where it was closed before the start."""
    return -1 if stream is None else stream.fileno()


def _write(descriptor: int, text: str) -> None:
    data = memoryview(f"{text}\n".encode("utf-8", "backslashreplace"))
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
    except (OSError, ValueError):
        pass  # nobody is there to be told
