"""Writer exclusion: a kernel lock on a file of its own, which a dead process cannot keep.

The file is mode 0600 and never unlinked: flock works on a read-only descriptor, so whoever could open it could lock
the agent out, and removing it would let two agents lock two files. The process id inside is for messages only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import weakref
from pathlib import Path

from .errors import Error, SegmentLocked

_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """An exclusive lock on `path`, from construction to release(), in this process alone (not in forked children)."""

    def __init__(self, path: Path, what: str, directory_mode: int) -> None:
        """Take the lock; `directory_mode` is for making its directory anew should somebody remove it.

        Raises SegmentLocked naming the holder, or Error where the file cannot be used.
        """
        self._path = path
        self._directory_mode = directory_mode
        self._what = what
        self._fd: int | None = self._acquire()
        _held.add(self)

    def confirm(self) -> None:
        """Make sure that the lock held is on the file that the path leads to now; lock that one if it is another.

        Raises SegmentLocked where another process holds it: this one must stop writing. Error where the path cannot be
        used; the lock held stays held.
        """
        if self._fd is None:
            raise Error(f"the lock of {self._what} was released")
        try:
            found = os.lstat(self._path)
            held = os.fstat(self._fd)
            if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                return
        except (FileNotFoundError, NotADirectoryError):
            with contextlib.suppress(OSError):  # what stands in the way is said by the open that follows
                os.makedirs(self._path.parent, mode=self._directory_mode, exist_ok=True)
        fresh = self._acquire()
        self._fd, stale = fresh, self._fd
        os.close(stale)

    def release(self) -> None:
        """Give the lock up; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _acquire(self) -> int:
        while True:
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody may have replaced the file between open and flock: then this lock excludes nobody.
                if os.path.samestat(os.lstat(self._path), os.fstat(fd)):
                    with contextlib.suppress(OSError):  # a full file system: the lock holds without the number
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    return fd
            except BlockingIOError:
                holder = _holder(fd)
                os.close(fd)
                raise SegmentLocked(
                    f"{self._what} already has an agent ({holder}); stop that one first (lock: {self._path})"
                ) from None
            except FileNotFoundError:
                pass
            except OSError as error:
                os.close(fd)
                raise Error(f"cannot lock {self._path}: {error.strerror}") from None
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise Error(f"cannot open the lock {self._path}: {error.strerror}") from None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            os.close(fd)
            raise Error(f"the lock {self._path} is not a regular file of this user; remove it")
        if found.st_mode & 0o077:
            os.fchmod(fd, 0o600)
        return fd


def _holder(fd: int) -> str:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "its process id is not known"


def _close_in_child() -> None:
    # A child that kept the descriptor would keep the lock after the agent's death.
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


os.register_at_fork(after_in_child=_close_in_child)
