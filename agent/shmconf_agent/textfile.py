"""The metrics as a file for node_exporter's textfile collector: for agents that nobody can reach over a network.

A thread of its own writes it: soon after anything was counted, and every 15 s besides, so that the file's age tells
whether the agent lives. A disk that is slow, full or gone holds up nothing else; it is told of once for each reason
until it takes the file again. What stands at the path is always a whole file, readable by everybody: it is made aside,
in the same directory, and renamed. At an orderly end it is taken away, for what it says holds no more.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from .events import Said, Say

__all__ = ["MetricsTextfile"]

INTERVAL_SECONDS = 15.0
PAUSE_SECONDS = 1.0
"""Between two writings, however much is counted."""
MODE = 0o644
_STOP_SECONDS = 2.0


class MetricsTextfile:
    """Writes to at most one path at a time. Its methods belong to one thread, but `changed` to any."""

    def __init__(self, text: Callable[[], bytes], say: Say) -> None:
        """text: what the file is to hold. Nothing is written before `write_to`."""
        self._text = text
        self._say = say
        self._path: Path | None = None
        self._written: Path | None = None  # of the thread
        self._told: set[str] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def write_to(self, path: Path | None) -> None:
        """Keep this file from now on, instead of the one before; None for no file."""
        if path == self._path:
            return
        self._path = path
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shmconf-textfile", daemon=True)
            self._thread.start()
        self._wake.set()

    def changed(self) -> None:
        """Write it again, soon."""
        self._wake.set()

    def close(self) -> None:
        """Take the file away and end the thread, which a disk that hangs may keep. Idempotent."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            path = self._path
            if self._written not in (None, path):
                self._remove()
            if path is not None:
                self._try(path)
            self._stopping.wait(PAUSE_SECONDS)
            self._wake.wait(None if path is None else INTERVAL_SECONDS)
        self._remove()

    def _try(self, path: Path) -> None:
        try:
            write(path, self._text())
            self._written = path
            self._told.clear()
        except OSError as error:
            self._tell(f"the metrics cannot be written to {path}: {error.strerror or error}")
        except ImportError as error:
            self._tell(f"the metrics cannot be written ({error}); pip install 'shmconf[agent]'")
        except Exception as error:  # a fault of ours, and no reason to stop
            self._tell(f"internal error in the metrics: {type(error).__name__}: {error}")

    def _tell(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            self._say(Said(None, text))

    def _remove(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            with contextlib.suppress(OSError):
                os.unlink(written)


def write(path: Path, text: bytes) -> None:
    """Put a file with this text in the place of whatever is there. Raises OSError, with what is there untouched."""
    aside = path.with_name(f".{path.name}.new")  # a name that no collector reads
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)  # of an agent that was killed; and whoever else may write here puts no link in our way
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), MODE)
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
