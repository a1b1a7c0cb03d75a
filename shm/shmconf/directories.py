"""Which directory a segment lives in, for readers and for agents.

An explicit directory (argument or $SHMCONF_DIR) is taken as it is. Else an agent takes the first of `/run/shmconf`,
`$XDG_RUNTIME_DIR/shmconf` (or `/run/user/UID/shmconf`) and `/dev/shm/shmconf-UID` that it may write, and a reader the
first of them that holds the segment.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import Error

SYSTEM_DIRECTORY = Path("/run/shmconf")
SUFFIX = ".shmconf"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class InvalidName(Error, ValueError):
    """Not a segment name: letters, digits, '.', '_' and '-', at most 64, the first a letter or digit."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A runtime directory, and whether its owner may be trusted.

    named: given explicitly, or /run/shmconf; its owner is then a trusted owner of segments as long as nobody else may
    write in it. The fallbacks in XDG_RUNTIME_DIR and /dev/shm must instead be the caller's own, with mode 0700.
    """

    path: Path
    named: bool


def check_name(name: str) -> str:
    """`name` itself. Raises InvalidName (a ValueError)."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} is not a segment name: use letters, digits, '.', '_' and '-', "
            "at most 64, the first a letter or digit"
        )
    return name


def explicit_directory(directory: str | os.PathLike[str] | None) -> Directory | None:
    """The directory that was named: the argument, else $SHMCONF_DIR, else None."""
    chosen = os.fspath(directory) if directory is not None else os.environ.get("SHMCONF_DIR")
    return Directory(Path(chosen).absolute(), named=True) if chosen else None


def default_directories() -> list[Directory]:
    """The places without an explicit directory, in order."""
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    return [
        Directory(SYSTEM_DIRECTORY, named=True),
        Directory(Path(runtime) / "shmconf", named=False),
        Directory(Path(f"/dev/shm/shmconf-{user}"), named=False),
    ]


def reader_directories(directory: str | os.PathLike[str] | None = None) -> list[Directory]:
    """Where a reader looks, in order."""
    chosen = explicit_directory(directory)
    return [chosen] if chosen else default_directories()


def writer_directory(directory: str | os.PathLike[str] | None = None) -> Directory:
    """The directory that an agent uses, made if it is missing.

    Raises Error with what to do when none can be made or written.
    """
    chosen = explicit_directory(directory)
    if chosen:
        problem = _make_writable(chosen)
        if problem:
            raise Error(f"cannot use the runtime directory {chosen.path}: {problem}; choose another with --runtime-dir")
        return chosen
    refused = []
    for candidate in default_directories():
        problem = _make_writable(candidate)
        if not problem:
            return candidate
        refused.append(f"{candidate.path}: {problem}")
    raise Error("no runtime directory can be written; choose one with --runtime-dir (" + "; ".join(refused) + ")")


def _make_writable(directory: Directory) -> str | None:
    """Why an agent cannot use the directory, or None."""
    try:
        os.mkdir(directory.path, 0o755 if directory.named else 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return error.strerror
    try:
        found = os.stat(directory.path, follow_symlinks=directory.named)
    except OSError as error:
        return error.strerror
    if not os.path.isdir(directory.path):
        return "not a directory"
    if not directory.named and (found.st_uid != os.getuid() or found.st_mode & 0o077):
        return "not private to this user (its owner must be the caller and its mode 0700)"
    if not os.access(directory.path, os.W_OK | os.X_OK):
        return "no permission to write there"
    return None
