"""The directory that a segment's history is in: its files are opened, put in place and removed here, and nowhere else.

Nothing is followed or opened that somebody else could have put there: the directory and its files must belong to root
or this user and be writable by nobody else; whoever only reads also believes the directory's owner. A file appears
whole or not at all: it is written aside, synced, renamed, and the directory synced. Methods raise OSError as the system
calls do, `Untrusted` among them. One thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ASIDE = ".new"
"""What the name of a file ends in until it is whole."""

_OTHERS_MAY_WRITE = 0o022
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Untrusted(PermissionError):
    """Something that somebody else could have made; `strerror` says what."""

    def __init__(self, path: str, reason: str) -> None:
        """reason: a sentence about `path`."""
        super().__init__(1, reason, path)


@dataclass(frozen=True, slots=True)
class Found:
    """A name in the directory and what tells one file of that name from another."""

    name: str
    size: int
    stamp: tuple[int, int, int]


class HistoryDirectory:
    """An open directory; made by `open_history`."""

    def __init__(self, path: Path, fd: int, owners: frozenset[int]) -> None:
        """fd: of the directory, whoever closes it. owners: whose files may be believed."""
        self._path = path
        self._fd = fd
        self._owners = owners

    def list(self) -> list[Found]:
        """The regular files in it, in no order; links and whatever else there is are passed over."""
        found = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                    found.append(Found(entry.name, status.st_size, stamp))
        return found

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """A file to read from, and its size in bytes."""
        shown = str(self._path / name)
        # Looked at before it is opened: to open a device or a FIFO can have effects of its own.
        self._check(os.stat(name, dir_fd=self._fd, follow_symlinks=False), shown)
        fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._fd)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            self._check(found, shown)
            yield file, found.st_size

    def read(self, name: str) -> bytes:
        """All of a file."""
        with self.open(name) as (file, _):
            return file.read()

    def put(self, name: str, parts: Sequence[bytes]) -> None:
        """Make a file of these parts, durably, over whatever has the name."""
        aside = name + ASIDE
        self.remove(aside)
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self._fd)
            with os.fdopen(fd, "wb", buffering=0) as file:
                for part in parts:
                    _write_all(file.fileno(), part)
                os.fsync(fd)
            os.rename(aside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # room for others, if the disk is full
                os.unlink(aside, dir_fd=self._fd)
            raise
        with contextlib.suppress(OSError):  # the rename is atomic without it; this makes it last
            os.fsync(self._fd)

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Make what was removed stay so, as `put` does for what it puts."""
        os.fsync(self._fd)

    def _check(self, found: os.stat_result, shown: str) -> None:
        if stat.S_ISLNK(found.st_mode):
            raise Untrusted(shown, "it is a symbolic link, and nothing of a history ever is")
        if not stat.S_ISREG(found.st_mode):
            raise Untrusted(shown, "it is no regular file")
        if found.st_mode & _OTHERS_MAY_WRITE:
            raise Untrusted(shown, "it is writable by its group or by others")
        if found.st_uid not in self._owners:
            raise Untrusted(shown, f"it belongs to user {found.st_uid}")


@contextmanager
def open_history(path: Path, *, make: bool = False, reading: bool = False) -> Iterator[HistoryDirectory]:
    """The directory at `path`. Raises OSError.

    make: if it is missing, and with nobody else's right to look into it. reading: for somebody who may be another user
    than the agent and believes whoever owns the directory.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        owners = frozenset({0, os.geteuid()})
        if found.st_mode & _OTHERS_MAY_WRITE:
            raise Untrusted(str(path), "it is writable by its group or by others")
        if reading:
            owners |= {found.st_uid}
        elif found.st_uid not in owners:
            raise Untrusted(str(path), f"it belongs to user {found.st_uid}")
        if make and found.st_mode & 0o077:
            os.fchmod(fd, 0o700)
        yield HistoryDirectory(path, fd, owners)
    finally:
        os.close(fd)


def _write_all(fd: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(fd, rest) :]
