"""Every way in which the writer touches the world, in one place: files, room, renames, and words of a mapping.

The writer goes through a Storage so that a test can stop it before any single step, as a crash would, and look at
what is left.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .errors import Error
from .mapping import Mapping, open_mapping


class Storage:
    """The real thing. Every method raises OSError as the system call does."""

    def create(self, path: Path) -> int:
        """A new empty file that only its owner may touch yet, open for reading and writing; a left-over is removed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def set_access(self, fd: int, mode: int, gid: int | None) -> None:
        """Group and mode, in the order that never gives the old group the new rights."""
        if gid is not None and os.fstat(fd).st_gid != gid:
            os.fchown(fd, -1, gid)
        if os.fstat(fd).st_mode & 0o7777 != mode:
            os.fchmod(fd, mode)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """Make sure that every byte of the range has room, so that no store into it can be a SIGBUS."""
        os.posix_fallocate(fd, offset, length)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically, over whatever stands there."""
        os.rename(source, target)

    def map(self, fd: int, length: int) -> Mapping:
        """A writable mapping that no forked child inherits."""
        try:
            return open_mapping(fd, length, writable=True)
        except RuntimeError as error:  # pure Python where it may not write
            raise Error(str(error)) from None
