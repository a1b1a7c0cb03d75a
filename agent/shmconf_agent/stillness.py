"""Whether all that a survey saw is there as it saw it: the cheapest look, which a segment at rest lives by.

A survey follows paths through their links, lists directories and matches names, and what it comes to follows from what
the disk answered. If the disk answers the same to all the same questions, it would come to the same: so the questions
alone are asked again, an lstat for each name, and no path is followed. Names are looked up from their directory's
descriptor, which the kernel finds once for all of them. Where there is the native module, it asks for all names of a
directory at once.

Of a directory that is only passed through it matters which one it is, not when something in it was last changed. One
whose names were listed is listed again if its times have changed since, or had only just when it was listed.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping

from . import native

__all__ = ["Stillness"]

_Answer = tuple[str, int, int, int, int]  # name, times of change and of content, inode, size
_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
_SECOND_NS = 1_000_000_000
_RACY_NS = 20_000_000  # within this time of a change there may be another that the times do not show


class Stillness:
    """What the disk answered, to be asked again. Belongs to one thread; keeps no descriptor open."""

    def __init__(
        self, seen: Mapping[str, os.stat_result | None], listed: Mapping[str, list[str]], wall_ns: int
    ) -> None:
        """seen: by real path, what lstat said; None where nothing was. listed: by real path, a directory's names.
        wall_ns: when the first of all this was asked, in ns since 1970."""
        self._files: dict[str, list[_Answer]] = {}
        self._packed: list[tuple[str, bytes, bytes]] | None = None  # the same, for the native module
        self._places: list[tuple[str, int, int, int]] = []  # path, inode, device, mode
        self._absent = [path for path, status in seen.items() if status is None]
        self._listed = {path: (frozenset(names), _times(seen.get(path), wall_ns)) for path, names in listed.items()}
        for path, status in seen.items():
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                self._places.append((path, status.st_ino, status.st_dev, status.st_mode))
            else:
                directory, _, name = path.rpartition("/")
                self._files.setdefault(directory or "/", []).append(_answer(name, status))

    def holds(self) -> bool:
        """Whether everything is as it was. What cannot be found out any more is not."""
        try:
            return self._places_hold() and self._files_hold()
        except OSError:
            return False

    def _places_hold(self) -> bool:
        listed = dict(self._listed)
        for path, inode, device, mode in self._places:
            status = os.lstat(path)
            if status.st_ino != inode or status.st_dev != device or status.st_mode != mode:
                return False
            if path in listed and _times(status) == listed[path][1]:
                del listed[path]
        if any(os.path.lexists(path) for path in self._absent):
            return False
        return all(names == frozenset(os.listdir(path)) for path, (names, _) in listed.items())

    def _files_hold(self) -> bool:
        if native.module is None:
            return self._files_hold_one_by_one()
        if self._packed is None:
            self._packed = [(directory, *_pack(answers)) for directory, answers in self._files.items()]
        still = native.module.still
        return all(still(directory, names, answers) for directory, names, answers in self._packed)

    def _files_hold_one_by_one(self) -> bool:
        look = os.stat
        for directory, answers in self._files.items():
            place = os.open(directory, _PLACE)
            try:
                for name, changed, written, inode, size in answers:
                    status = look(name, dir_fd=place, follow_symlinks=False)
                    if (
                        status.st_ctime_ns != changed  # which nothing but another file in its place leaves the same
                        or status.st_ino != inode
                        or status.st_mtime_ns != written
                        or status.st_size != size
                    ):
                        return False
            finally:
                os.close(place)
        return True


def _answer(name: str, status: os.stat_result) -> _Answer:
    return name, status.st_ctime_ns, status.st_mtime_ns, status.st_ino, status.st_size


def _pack(answers: list[_Answer]) -> tuple[bytes, bytes]:
    names = b"".join(os.fsencode(name) + b"\0" for name, *_ in answers)
    pack = struct.Struct("=4qQq").pack
    packed = [
        pack(*divmod(changed, _SECOND_NS), *divmod(written, _SECOND_NS), inode, size)
        for _, changed, written, inode, size in answers
    ]
    return names, b"".join(packed)


def _times(status: os.stat_result | None, wall_ns: int | None = None) -> tuple[int, int] | None:
    """A directory's times, by which its names are known again; None if they changed too shortly before `wall_ns`."""
    if status is None:
        return None
    times = status.st_ctime_ns, status.st_mtime_ns
    return None if wall_ns is not None and wall_ns - max(times) < _RACY_NS else times
