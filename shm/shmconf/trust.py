"""Opening a segment file only where nobody but root, the caller or a trusted directory's owner could have made it.

The checks come in the order in which they protect: the directory first, then the name without following links, then
the opened file itself, so that what was checked is what is mapped.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass

from .directories import Directory
from .errors import SegmentNotFound, SegmentUntrusted

_OTHERS_MAY_WRITE = 0o022
_LOOK_UP = getattr(os, "O_PATH", os.O_RDONLY)  # a directory that may be entered need not be readable


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open descriptor of a checked file; the caller closes it."""

    fd: int
    device: int
    inode: int
    size: int


def open_trusted(directory: Directory, file_name: str) -> OpenFile:
    """Open `file_name` in `directory` read-only after all trust checks.

    Raises SegmentNotFound where the directory or the file is missing or the directory may not be entered (then
    caused by a PermissionError), SegmentUntrusted for everything that should make the caller stop: a link, something
    that is not a regular file, a foreign owner, writable by others.
    """
    path = directory.path / file_name
    flags = _LOOK_UP | os.O_DIRECTORY | os.O_CLOEXEC | (0 if directory.named else os.O_NOFOLLOW)
    try:
        directory_fd = os.open(directory.path, flags)
    except FileNotFoundError:
        raise SegmentNotFound(f"no segment {path}") from None
    except PermissionError as error:
        raise SegmentNotFound(f"no permission to look for {path}") from error
    except OSError as error:
        raise SegmentUntrusted(f"cannot open the directory {directory.path}: {error.strerror}") from None
    try:
        return _open_in(directory_fd, file_name, path, directory)
    finally:
        os.close(directory_fd)


def is_link_to(directory: Directory, file_name: str, device: int, inode: int) -> bool:
    """Whether the name still leads to that very file."""
    try:
        found = os.lstat(directory.path / file_name)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def trusted_owners(directory: Directory, found: os.stat_result) -> frozenset[int]:
    """Whose files, and sockets, in `directory` may be believed; `found` is its status. Raises SegmentUntrusted."""
    caller = os.geteuid()
    if not directory.named:
        if found.st_uid != caller or found.st_mode & 0o077:
            raise SegmentUntrusted(f"{directory.path} must be this user's own, with mode 0700")
        return frozenset({0, caller})
    if found.st_mode & _OTHERS_MAY_WRITE:
        return frozenset({0, caller})
    return frozenset({0, caller, found.st_uid})


def _open_in(directory_fd: int, file_name: str, path: os.PathLike[str], directory: Directory) -> OpenFile:
    try:
        # Looked at before it is opened: opening a device or a FIFO can have effects of its own.
        found = _stat_in(directory_fd, file_name, path)
        # An untrusted directory that does not hold the segment hides none that another place holds.
        owners = trusted_owners(directory, os.fstat(directory_fd))
        _check(found, path, owners)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(file_name, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        raise SegmentNotFound(f"no segment {os.fspath(path)}") from None
    except OSError as error:
        raise SegmentUntrusted(f"cannot open {os.fspath(path)}: {error.strerror}") from None
    with contextlib.ExitStack() as unless_checked:
        unless_checked.callback(os.close, fd)
        found = os.fstat(fd)
        _check(found, path, owners)
        unless_checked.pop_all()
    return OpenFile(fd, found.st_dev, found.st_ino, found.st_size)


def _stat_in(directory_fd: int, file_name: str, path: os.PathLike[str]) -> os.stat_result:
    try:
        return os.stat(file_name, dir_fd=directory_fd, follow_symlinks=False)
    except PermissionError as error:  # the directory may not be entered
        raise SegmentNotFound(f"no permission to look for {os.fspath(path)}") from error


def _check(found: os.stat_result, path: os.PathLike[str], owners: frozenset[int]) -> None:
    where = os.fspath(path)
    if stat.S_ISLNK(found.st_mode):
        raise SegmentUntrusted(f"{where} is a symbolic link; a segment never is")
    if not stat.S_ISREG(found.st_mode):
        raise SegmentUntrusted(f"{where} is not a regular file")
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise SegmentUntrusted(f"{where} is writable by its group or by others (mode {found.st_mode & 0o7777:04o})")
    if found.st_uid not in owners:
        raise SegmentUntrusted(f"{where} belongs to user {found.st_uid}, who is neither root, the caller nor the owner "
                               "of a directory that only they may write")
