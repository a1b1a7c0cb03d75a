"""The last known good on disk: what to serve after a reboot when the files are invalid then.

After each publication the document is written in the background (a slow disk delays nothing), to a temporary file
that is synced and renamed, with a checksum: a torn or damaged file is passed over, never served.
"""

from __future__ import annotations

import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shmconf import codec

_MAGIC = b"shmconf last known good 1\n"


@dataclass(frozen=True, slots=True)
class Kept:
    """A published version as it is kept: published_at in ns since 1970; blank_files: `files` without content."""

    version: int
    published_at: int
    digest: str
    files: tuple[str, ...]
    payload: bytes
    blank_files: tuple[str, ...] = ()


class LastKnownGood:
    """One segment's last known good in the state directory. Used by one thread; writes happen in another."""

    def __init__(self, path: Path | None) -> None:
        """path None: there is no state directory, nothing is kept."""
        self._path = path
        self._next: Kept | None = None
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self.problem: str | None = None

    def load(self) -> Kept | None:
        """What was kept, if it is whole. Never raises; `problem` says why something was passed over."""
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"cannot read {self._path}: {error.strerror}"
            return None
        try:
            return _decode(data)
        except (ValueError, KeyError, TypeError) as error:
            self.problem = f"{self._path} is damaged and was passed over ({error})"
            return None

    def keep(self, kept: Kept) -> None:
        """Write it in the background; of several waiting, the newest alone."""
        if self._path is None:
            return
        with self._lock:
            self._next = kept
            if self._writer is None or not self._writer.is_alive():
                self._writer = threading.Thread(target=self._write_all, name="shmconf-history", daemon=True)
                self._writer.start()

    def settle(self, timeout: float = 5.0) -> None:
        """Wait for what is being written, at most `timeout` seconds."""
        writer = self._writer
        if writer is not None:
            writer.join(timeout)

    def _write_all(self) -> None:
        while True:
            with self._lock:
                kept, self._next = self._next, None
                if kept is None:
                    self._writer = None
                    return
            try:
                self._write(kept)
                self.problem = None
            except OSError as error:
                self.problem = f"the last known good cannot be kept in {self._path}: {error.strerror}"

    def _write(self, kept: Kept) -> None:
        assert self._path is not None
        aside = self._path.with_name(self._path.name + ".new")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(_encode(kept))
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, self._path)


def _encode(kept: Kept) -> bytes:
    body = codec.pack(
        {
            "version": kept.version,
            "published_at": kept.published_at,
            "digest": kept.digest,
            "files": list(kept.files),
            "blank_files": list(kept.blank_files),
            "payload": kept.payload,
        }
    )
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def _decode(data: bytes) -> Kept:
    start = len(_MAGIC) + 4
    body = data[start:]
    if not data.startswith(_MAGIC) or zlib.crc32(body).to_bytes(4, "little") != data[len(_MAGIC) : start]:
        raise ValueError("its checksum does not fit")
    told: dict[str, Any] = codec.unpack(body)
    files, blank_files = tuple(told["files"]), tuple(told["blank_files"])
    return Kept(told["version"], told["published_at"], told["digest"], files, told["payload"], blank_files)
