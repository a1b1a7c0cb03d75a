"""`NAME.workers`, the file beside a segment by which its agent knows the attached workers.

It is empty, and stays so. A worker holds a shared record lock (fcntl) on it, for which it needs no right but to read:
where the lock begins is a place of the worker's own, and its length tells the version that the worker has adopted. Who
holds a lock the kernel says, which lets go of it when its holder ends, however that happens. Nothing that reads or
publishes looks at these locks: a worker without one reads as any other, and nobody ever waits for one.

FORMAT.md, section 7, has the layout. Record locks are those of processes: they are not inherited through fork, and a
process loses its own on a file when it closes any descriptor of that file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import sys
from pathlib import Path

SUFFIX = ".workers"
VERSION_BITS = 40
PLACE_BITS = 22
PLACE_SIZE = 1 << VERSION_BITS
"""Bytes from one place to the next; nothing is stored in them."""
END = 1 << VERSION_BITS + PLACE_BITS

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, PID
OFFERED = sys.platform == "linux" and struct.calcsize("P") == 8
"""Whether locks can be asked for here."""


def provide(path: Path, mode: int, gid: int | None) -> None:
    """Make the file, or give it the access that the segment has. Raises OSError; what is no regular file stays.

    One that another user's agent has left is replaced, as a segment of its would be; its workers take part in the new
    one from the next version on.
    """
    try:
        _provide(path, mode, gid)
    except PermissionError:
        aside = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        _provide(aside, mode, gid)
        os.rename(aside, path)


def _provide(path: Path, mode: int, gid: int | None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o400)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileExistsError(17, "something that is no regular file is in the way", str(path))
        if gid is not None and found.st_gid != gid:
            os.fchown(fd, -1, gid)
        if stat.S_IMODE(found.st_mode) != mode & 0o444:
            os.fchmod(fd, mode & 0o444)
    finally:
        os.close(fd)


def is_there(path: Path) -> bool:
    """Whether there is such a file. Never raises."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def length_for(version: int) -> int:
    """How long the lock of a worker is that has adopted `version`: 1 to PLACE_SIZE."""
    return version % PLACE_SIZE + 1


def version_of(length: int, served: int) -> int:
    """What a lock of this length says where version `served` is published: the number nearest to it that fits."""
    behind = (served - (length - 1)) % PLACE_SIZE
    return served - behind if behind <= PLACE_SIZE // 2 else served + PLACE_SIZE - behind


def lock_in(fd: int, start: int, end: int) -> tuple[int, int, int] | None:
    """(start, end, PID) of any lock of another process that touches the bytes from `start` to before `end`.

    PID 0 is that of a process which this one cannot see. Raises OSError.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    kind, _, at, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return None
    return at, at + length if length else 1 << 63, max(pid, 0)


def lock(fd: int, start: int, length: int, before: int) -> None:
    """Hold `length` bytes, shared, where this process holds `before` bytes. Raises OSError; never waits."""
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
    if before > length:
        fcntl.lockf(fd, fcntl.LOCK_UN, before - length, start + length)
