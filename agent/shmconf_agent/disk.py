"""What stands on the disk now: paths followed through their links, directories and globs listed, files read.

A `Survey` is one pass: it asks the disk for each link and each directory once and remembers the answers, so that a
pass over many files in one directory costs one lstat for each. Nothing is remembered from one pass to the next, so
nothing can go stale. On its way it notes which directories would have to be watched, and for which names, to hear of
a change to anything that it looked at. A survey belongs to one thread.

`read` opens a file without ever blocking (a FIFO, a device or a socket is refused unopened, and a regular file that
turns into one meanwhile is opened with O_NONBLOCK) and reports whether the file stood still while it was read.
Failures of the disk are answers here, in words fit for `FILE: …` that say what to do (except for what simply does not
exist, where that depends on the source); no function of this module raises OSError.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from dataclasses import dataclass, field
from typing import NamedTuple

from .formats import DEFAULT_LIMITS, SUFFIXES, Limits

__all__ = ["Interest", "Listing", "Reading", "Stamp", "Standing", "Survey", "printable", "read"]

_MOST_LINKS = 40  # as the kernel has it
_WILDCARDS = frozenset("*?[")


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
    kind: "file", "directory" or "glob".
    """

    found: tuple[tuple[str, str], ...]
    kind: str
    failure: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """The outcome of reading one file: `data`, or `failure` in words; neither if it changed too fast to be opened.

    stamp: of the open file, before the read. None if it was not opened.
    steady: size and times were the same after the read, and the path still named the file, or another file had been
      put in its place, which leaves the one that was read whole.
    """

    data: bytes | None
    failure: str | None
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


@dataclass(slots=True)
class _Gathering:
    names: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    writes: bool = False


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where a path leads: `status` of `entries[-1]`, or why nobody can tell."""

    real: str
    entries: tuple[str, ...]
    status: os.stat_result | None
    failure: str | None = None
    missing: bool = False


class Survey:
    """One pass over the disk. See the module."""

    def __init__(self) -> None:
        self._directories: dict[str, _Walk] = {"/": _Walk("/", (), None)}
        self._standings: dict[str, Standing] = {}
        self._interests: dict[str, _Gathering] = {}

    def resolve(self, path: str) -> Standing:
        """What stands at this absolute path."""
        known = self._standings.get(path)
        if known is None:
            known = self._standings[path] = self._resolve(path)
        return known

    def listing(self, base: str, text: str, *, was_directory: bool = False) -> Listing:
        """The files that a source's `text` names, relative to the absolute `base`.

        Text with `*`, `?` or `[` is a glob; text that ends in `/`, or leads to a directory, or led to one before
        (`was_directory`) and now to nothing, is a directory; all else is a file.
        """
        if not _WILDCARDS.isdisjoint(text):
            return self._glob(base, text)
        path = os.path.join(base, text)
        if text.endswith("/"):
            return self._directory_listing(text, path)
        standing = self.resolve(path)
        if standing.is_directory or (was_directory and standing.missing):
            return self._directory_listing(f"{text}/", path)
        return Listing(((text, path),), "file")

    def interests(self) -> dict[str, Interest]:
        """The real directories to watch, so that no change to what this survey saw goes unheard."""
        return {
            directory: Interest(frozenset(seen.names), frozenset(seen.patterns), seen.writes)
            for directory, seen in self._interests.items()
        }

    def _resolve(self, path: str) -> Standing:
        directory, _, name = path.rpartition("/")
        parent = self._directory(directory or "/")
        if parent.failure is not None:
            return Standing(parent.entries, absent=parent.failure, missing=parent.missing)
        walk = self._walk(parent.real, name, parent.entries)
        if walk.entries[:-1] == parent.entries:  # no link in the file's own place: only its name is news
            self._gathering(parent.real).names.add(name)
        else:
            self._note(walk.entries)
        if walk.failure is not None or walk.status is None:
            dangling = walk.missing and len(walk.entries) > len(parent.entries) + 1
            return Standing(walk.entries, absent=walk.failure, missing=walk.missing, dangling=dangling)
        mode = walk.status.st_mode
        if stat.S_ISREG(mode):
            return Standing(walk.entries, _stamp(walk.real, walk.status))
        return Standing(walk.entries, absent=_not_regular(mode), is_directory=stat.S_ISDIR(mode))

    def _directory(self, path: str) -> _Walk:
        """Where the path of a directory leads; `entries` without the directory itself, as it stays in its place."""
        known = self._directories.get(path)
        if known is None:
            known = self._walk("/", path, ())
            self._note(known.entries)
            if known.failure is None:
                known = _Walk(known.real, known.entries[:-1], known.status)
                self._gathering(known.real).writes = True
                self._note_place(known.real)
            self._directories[path] = known
        return known

    def _gathering(self, directory: str) -> _Gathering:
        seen = self._interests.get(directory)
        if seen is None:
            seen = self._interests[directory] = _Gathering()
        return seen

    def _walk(self, real: str, path: str, before: tuple[str, ...]) -> _Walk:
        entries = list(before)
        pending = path.split("/")[::-1]
        entry = real
        links = 0
        status: os.stat_result | None = None
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                if name == "..":
                    real, status = os.path.dirname(real), None
                    continue
                entry = _join(real, name)
                status = os.lstat(entry)
                if not stat.S_ISLNK(status.st_mode):
                    real = entry
                    continue
                entries.append(entry)
                links += 1
                if links > _MOST_LINKS:
                    return _Walk(
                        real,
                        tuple(entries),
                        None,
                        f"its symbolic links lead in a circle ({printable(entry)}); mend them",
                    )
                target = os.readlink(entry)
                real = "/" if target.startswith("/") else real
                pending.extend(target.split("/")[::-1])
            if status is None:
                status = os.lstat(real)
        except OSError as error:
            failure, missing = _unreachable(error, entry, links)
            return _Walk(real, (*entries, entry), None, failure, missing)
        return _Walk(real, (*entries, real), status)

    def _note(self, entries: tuple[str, ...]) -> None:
        for entry in entries:
            directory, name = os.path.split(entry)
            seen = self._gathering(directory)
            seen.names.add(name)
            seen.writes = True
        self._note_place(os.path.dirname(entries[-1]))

    def _note_place(self, directory: str) -> None:
        """A directory can be exchanged as a whole: that is heard in its parent."""
        if directory != "/":
            parent, name = os.path.split(directory)
            self._gathering(parent).names.add(name)

    def _directory_listing(self, shown: str, path: str) -> Listing:
        walk = self._directory(path.rstrip("/") or "/")
        if walk.failure is not None:
            return Listing((), "directory", walk.failure, walk.missing)
        entries, failure, missing = self._scan(walk, frozenset(f"*{suffix}" for suffix in SUFFIXES))
        if failure is not None:
            return Listing((), "directory", failure, missing)
        found = tuple(
            (shown + name, os.path.join(path, name))
            for name, is_directory in entries
            if not is_directory and not name.startswith(".") and os.path.splitext(name)[1] in SUFFIXES
        )
        return Listing(found, "directory")

    def _glob(self, base: str, text: str) -> Listing:
        heads = [("", "/" if text.startswith("/") else base)]
        failure: str | None = None
        *folders, last = text.split("/")
        for part in folders:
            if _WILDCARDS.isdisjoint(part):
                heads = [(f"{shown}{part}/", os.path.join(path, part)) for shown, path in heads]
                continue
            matches, problem = self._matches(heads, part, directories=True)
            heads = [(f"{shown}/", path) for shown, path in matches]
            failure = failure or problem
        found, problem = self._matches(heads, last, directories=False)
        return Listing(tuple(found), "glob", failure or problem)

    def _matches(
        self, heads: list[tuple[str, str]], pattern: str, *, directories: bool
    ) -> tuple[list[tuple[str, str]], str | None]:
        """The entries in any of `heads` that match. A head that does not exist matches nothing and is no failure."""
        found: list[tuple[str, str]] = []
        trouble: str | None = None
        for shown, path in heads:
            walk = self._directory(path.rstrip("/") or "/")
            if walk.failure is not None:
                trouble = trouble or (None if walk.missing else walk.failure)
                continue
            entries, failure, missing = self._scan(walk, frozenset([pattern]))
            trouble = trouble or (None if missing else failure)
            found.extend(
                (shown + name, os.path.join(path, name))
                for name, is_directory in entries
                if is_directory is directories
                and fnmatch.fnmatchcase(name, pattern)
                and (not name.startswith(".") or pattern.startswith("."))
            )
        return found, trouble

    def _scan(self, walk: _Walk, patterns: frozenset[str]) -> tuple[list[tuple[str, bool]], str | None, bool]:
        """(name, whether it is a directory) of all entries, or why they cannot be had and whether nothing is there."""
        self._gathering(walk.real).patterns |= patterns
        try:
            with os.scandir(walk.real) as entries:
                return [(entry.name, _is_directory(entry)) for entry in entries], None, False
        except NotADirectoryError:
            return [], "is not a directory", False
        except OSError as error:
            failure, missing = _unreachable(error, walk.real, 0)
            return [], failure, missing


def read(path: str, limits: Limits = DEFAULT_LIMITS) -> Reading:
    """The content of the file at this real path, if it has at most `limits.max_bytes`.

    Never blocks on anything but the disk itself, and never opens what lstat does not call a regular file.
    """
    try:
        if not stat.S_ISREG((status := os.lstat(path)).st_mode):
            return Reading(None, _not_regular(status.st_mode), None, False)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        return Reading(None, None if gone else _failed(error), None, not gone)
    try:
        before = os.fstat(descriptor)
        stamp = _stamp(path, before)
        if not stat.S_ISREG(before.st_mode):
            return Reading(None, None, stamp, False)
        data = _read_to_end(descriptor, before.st_size, limits.max_bytes)
        after = _stamp(path, os.fstat(descriptor))
        steady = _steady(stamp, after, _stamp_at(path))
    except OSError as error:
        return Reading(None, _failed(error), None, True)
    finally:
        os.close(descriptor)
    return Reading(data, limits.too_large(after.size) if data is None else None, stamp, steady)


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
        return _stamp(path, os.lstat(path))
    except OSError:
        return None


def _stamp(real: str, status: os.stat_result) -> Stamp:
    return Stamp(real, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def printable(name: str) -> str:
    """File names are bytes; what isn't UTF-8 in them is shown by its code."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _join(directory: str, name: str) -> str:
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle or behind a closed door: a file, whose own turn will tell
        return False


def _unreachable(error: OSError, entry: str, links: int) -> tuple[str, bool]:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        nothing = f"its symbolic link leads to nothing ({printable(entry)}); mend it or remove it"
        return (nothing if links else "does not exist"), True
    return f"cannot be reached: {_words(error)} at {printable(entry)}{_remedy(error)}", False


def _failed(error: OSError) -> str:
    return f"cannot be read: {_words(error)}{_remedy(error)}"


def _remedy(error: OSError) -> str:
    return "; let the agent's user read it" if error.errno in (errno.EACCES, errno.EPERM) else ""


def _words(error: OSError) -> str:
    words = error.strerror or type(error).__name__
    return words[:1].lower() + words[1:]


def _not_regular(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    return f"is {kind}, not a regular file; put a file in its place or take it out of the sources"
