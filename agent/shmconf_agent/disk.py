"""What stands on the disk, as data and in words: what `survey` finds out and `reading` takes, and `sources` judges.

Failures of the disk are answers, in words fit for `FILE: …` that say what to do (except for what simply does not exist,
where that depends on the source).
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from dataclasses import dataclass
from typing import NamedTuple

from .problems import Fault


class Stamp(NamedTuple):
    """All that the disk says of a regular file short of its content. Times in ns since 1970."""

    real: str
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def changed_ns(self) -> int:
        """The later of both times."""
        return max(self.mtime_ns, self.ctime_ns)

    @classmethod
    def of(cls, real: str, status: os.stat_result) -> Stamp:
        """Of the file at that real path."""
        return cls(real, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a path leads to. Exactly one of `stamp` and `absent` is set.

    entries: the directory entries, by real path, whose exchange changes what the path leads to: each link on the way
      and, last, the file itself or the first thing missing.
    holder: the real directory of the last entry.
    absent: why there is no regular file, in words; `missing` if that is because nothing is there, `dangling` if it is a
      link that leads there.
    """

    entries: tuple[str, ...]
    stamp: Stamp | None = None
    absent: str | None = None
    missing: bool = False
    dangling: bool = False
    is_directory: bool = False

    @property
    def holder(self) -> str:
        """See above."""
        return os.path.dirname(self.entries[-1])


@dataclass(frozen=True, slots=True)
class Listing:
    """The files that a source names now: (as the user would write it, absolute path), in no order.

    failure: why the source could not be listed, in words; `missing` if that is because it does not exist.
    kind: "file", "directory" or "glob". too_many: there are more files than a source may name.
    """

    found: tuple[tuple[str, str], ...]
    kind: str
    failure: str | None = None
    missing: bool = False
    too_many: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """The outcome of reading one file: `data`, or `failure`; neither if it changed too fast to be opened.

    stamp: of the open file, before the read. None if it was not opened.
    steady: size and times were the same after the read, and the path still named the file, or another file had been
      put in its place, which leaves the one that was read whole.
    """

    data: bytes | None
    failure: Fault | None
    stamp: Stamp | None
    steady: bool


@dataclass(frozen=True, slots=True)
class Interest:
    """What matters in a directory: entries by name or by shell pattern; `writes` if their content does as well."""

    names: frozenset[str]
    patterns: frozenset[str]
    writes: bool

    def covers(self, name: str) -> bool:
        """Whether an event for this entry is worth waking up for."""
        return name in self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns)


def printable(name: str) -> str:
    """File names are bytes; what isn't UTF-8 in them is shown by its code."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def remedy(error: OSError) -> str:
    """What to do about it, to be put behind it; nothing if that is not known."""
    return "; let the agent's user read it" if error.errno in (errno.EACCES, errno.EPERM) else ""


def words(error: OSError) -> str:
    """An error in the midst of a sentence."""
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


def not_regular(mode: int) -> str:
    """Why what has this mode is no source."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    return f"is {kind}, not a regular file; put a file in its place or take it out of the sources"
