"""Files read without ever blocking, and whether they stood still meanwhile.

A FIFO, a device or a socket is refused unopened, and a regular file that turns into one at that moment is opened with
O_NONBLOCK. No function here raises OSError.
"""

from __future__ import annotations

import errno
import os
import stat

from .disk import Reading, Stamp, not_regular, remedy, words
from .formats import DEFAULT_LIMITS, Limits
from .problems import Code, Fault

__all__ = ["holds", "read"]

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
_PASSING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def read(path: str, limits: Limits = DEFAULT_LIMITS, *, besides: int = 0, follow_links: bool = True) -> Reading:
    """The content of the file at this real path, if it has at most `limits.max_file_bytes` and, with the `besides`
    bytes of others, at most `limits.max_total_bytes`.

    Never blocks on anything but the disk itself, and never opens what lstat does not call a regular file.
    follow_links: False where it matters that no directory on the path has just become a link to elsewhere.
    """
    try:
        if not stat.S_ISREG((status := os.lstat(path)).st_mode):
            return Reading(None, _unreadable(not_regular(status.st_mode)), None, False)
        descriptor = os.open(path, _READING) if follow_links else _open_step_by_step(path)
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        return Reading(None, None if gone else _unreadable(_failed(error)), None, not gone)
    try:
        before = os.fstat(descriptor)
        stamp = Stamp.of(path, before)
        if not stat.S_ISREG(before.st_mode):
            return Reading(None, None, stamp, False)
        most = min(limits.max_file_bytes, max(limits.max_total_bytes - besides, 0))
        data = _read_to_end(descriptor, before.st_size, most)
        after = Stamp.of(path, os.fstat(descriptor))
        steady = _steady(stamp, after, _stamp_at(path))
    except OSError as error:
        return Reading(None, _unreadable(_failed(error)), None, True)
    finally:
        os.close(descriptor)
    return Reading(data, _too_large(after.size, limits) if data is None else None, stamp, steady)


def holds(path: str, data: bytes) -> bool:
    """Whether the file at this real path, which lstat calls a regular one, has just these bytes. False as well where
    that cannot be said. Cheaper than `read`, which says what else there is."""
    try:
        descriptor = os.open(path, _READING)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(data) + 1) == data
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _too_large(size: int, limits: Limits) -> Fault:
    return limits.too_large(size) if size > limits.max_file_bytes else limits.too_large_together(size)


def _open_step_by_step(path: str) -> int:
    """The file at this absolute path, on which no link is followed. Raises OSError, ENOTDIR for a link."""
    *folders, name = path.split("/")[1:]
    directory = os.open("/", _PASSING)
    try:
        for folder in folders:
            below = os.open(folder, _PASSING, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(name, _READING, dir_fd=directory)
    finally:
        os.close(directory)


def _read_to_end(descriptor: int, size: int, limit: int) -> bytes | None:
    """All bytes, or None if there are more than `limit`, of which no more than the limit are then read."""
    if size > limit:
        return None
    pieces: list[bytes] = []
    total = 0
    while piece := os.read(descriptor, max(size + 1 - total, 64 * 1024)):
        pieces.append(piece)
        total += len(piece)
        if total > limit:
            return None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _steady(before: Stamp, after: Stamp, at_path: Stamp | None) -> bool:
    if at_path is not None and (at_path.dev, at_path.ino) == (before.dev, before.ino):
        return before == after == at_path
    # Another file took its place. That alone changes the ctime of the one that was read, so its ctime tells nothing.
    return before._replace(ctime_ns=0) == after._replace(ctime_ns=0)


def _stamp_at(path: str) -> Stamp | None:
    try:
        return Stamp.of(path, os.lstat(path))
    except OSError:
        return None


def _unreadable(message: str) -> Fault:
    return Fault(Code.FILE_UNREADABLE, message)


def _failed(error: OSError) -> str:
    return f"cannot be read: {words(error)}{remedy(error)}"
