"""One pass over the disk: paths followed through their links, directories and globs listed.

A `Survey` asks the disk for each link and each directory once and remembers the answers, so that a pass over many files
in one directory costs one lstat for each. Nothing is remembered from one pass to the next, so nothing can go stale. On
its way it notes which directories would have to be watched, and for which names, to hear of a change to anything that
it looked at. A survey belongs to one thread. None of its functions raises OSError.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
import time
from dataclasses import dataclass, field

from .disk import Interest, Listing, Stamp, Standing, not_regular, printable, remedy, words
from .formats import SUFFIXES
from .stillness import Stillness

__all__ = ["SELF_TEST_PREFIX", "Survey"]

SELF_TEST_PREFIX = ".shmconf-self-test-"
"""How the names begin of the files by which watching is tested: no source is called so, whatever a glob says."""
_MOST_LINKS = 40  # as the kernel has it
_WILDCARDS = frozenset("*?[")


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
        self._began_ns = time.time_ns()
        self._seen: dict[str, os.stat_result | None] = {}
        self._listed: dict[str, list[str]] = {}
        self._failed = False  # whether the disk refused an answer, which it may give at any time without a change

    def stillness(self) -> Stillness | None:
        """What there is to ask the disk again to know that another survey would come to the same; None if nobody can
        know."""
        return None if self._failed else Stillness(self._seen, self._listed, self._began_ns)

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
            return Standing(walk.entries, Stamp.of(walk.real, walk.status))
        return Standing(walk.entries, absent=not_regular(mode), is_directory=stat.S_ISDIR(mode))

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
                status = self._lstat(entry)
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
                status = self._lstat(real)
        except OSError as error:
            self._failed = self._failed or not isinstance(error, FileNotFoundError)
            failure, missing = _unreachable(error, entry, links)
            return _Walk(real, (*entries, entry), None, failure, missing)
        return _Walk(real, (*entries, real), status)

    def _lstat(self, path: str) -> os.stat_result:
        self._seen[path] = None
        status = self._seen[path] = os.lstat(path)
        return status

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
                and (not name.startswith(".") or (pattern.startswith(".") and not name.startswith(SELF_TEST_PREFIX)))
            )
        return found, trouble

    def _scan(self, walk: _Walk, patterns: frozenset[str]) -> tuple[list[tuple[str, bool]], str | None, bool]:
        """(name, whether it is a directory) of all entries, or why they cannot be had and whether nothing is there."""
        self._gathering(walk.real).patterns |= patterns
        try:
            with os.scandir(walk.real) as entries:
                found = [(entry.name, _is_directory(entry)) for entry in entries]
            self._listed[walk.real] = [name for name, _ in found]
            return found, None, False
        except NotADirectoryError:
            self._failed = True
            return [], "is not a directory", False
        except OSError as error:
            self._failed = True
            failure, missing = _unreachable(error, walk.real, 0)
            return [], failure, missing


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
    return f"cannot be reached: {words(error)} at {printable(entry)}{remedy(error)}", False
