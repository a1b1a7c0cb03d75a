"""The history of a segment: its last versions in the state directory, the newest of them the last known good.

`NAME.history/` has one file for each version and one for each content that a source of theirs had (`kept_version` says
what is in them), so that what an unchanged source costs does not grow with the versions. A version that is kept is
durable before its sources are, and these before anything older goes: whatever kills the agent, a whole version is
there.

The order of the versions is that of the number with which the names of their files begin: clocks may go back, and
versions may after the loss of segment and reservation. Of a version that is published again and again with nothing
changed (as last known good, boot after boot, or because its segment was removed) the first and the last are kept.

A `History` is read by any process, while the agent writes (`history_keeping`). What is damaged, torn or not to be
trusted is passed over and said, files of other names are left alone. One thread at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shmconf.errors import Error

from .history_directory import Found, HistoryDirectory, open_history
from .kept_version import (
    Damaged,
    Header,
    KeptVersion,
    decode_source,
    read_header,
    read_payload,
)
from .view import SourceLayer

VERSION_NAME = re.compile(r"(\d{10,18})-([0-9a-f]{16})-(\d{1,19})\.version")


class NotKept(Error):
    """What was asked for is not kept, not any more, or is damaged; the text says which."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept version as it is listed. payload_bytes: of its document; stored_bytes: of its file."""

    name: str
    sequence: int
    kept: KeptVersion
    payload_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """A version's file as its name has it. entry: None if it is damaged, for the reason in `damage`."""

    found: Found
    sequence: int
    version: int
    entry: Entry | None
    damage: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """What is greater for what was published later."""
        return self.sequence, self.version


class History:
    """See the module."""

    def __init__(self, state: Path, name: str) -> None:
        """state: the state directory. name: of the segment. Nothing is read yet."""
        self.path = state / f"{name}.history"
        self.problem: str | None = None
        """What the last `newest` passed over, and why."""
        self._known: dict[Found, Place] = {}

    def entries(self) -> list[Entry]:
        """The kept versions, the newest first, without their documents. Raises OSError if nobody can tell."""
        try:
            with open_history(self.path, reading=True) as directory:
                return [place.entry for place in self._places(directory, directory.list()) if place.entry is not None]
        except FileNotFoundError:
            return []

    def versions(self) -> set[int]:
        """The numbers of the versions that are there, whole or not. Raises OSError if nobody can tell."""
        try:
            with open_history(self.path, reading=True) as directory:
                return {place.version for place in self._places(directory, directory.list())}
        except FileNotFoundError:
            return set()

    def verified(self) -> tuple[list[Entry], list[str]]:
        """`entries` whose documents were read and are whole, and of each other version a sentence that says why it is
        not among them. Raises OSError if nobody can tell."""
        whole, damaged = [], []
        try:
            with open_history(self.path, reading=True) as directory:
                for place in self._places(directory, directory.list()):
                    damage = place.damage
                    if place.entry is not None:
                        try:
                            self._payload(directory, place.entry.name)
                            whole.append(place.entry)
                            continue
                        except FileNotFoundError:  # the agent has just removed it
                            continue
                        except Damaged as damaged_there:
                            damage = f"is damaged ({damaged_there})"
                        except OSError as error:
                            damage = f"cannot be read: {error.strerror}"
                    damaged.append(f"version {place.version}: {self.path / place.found.name} {damage}")
        except FileNotFoundError:
            pass
        return whole, damaged

    def find(self, version: int, epoch: int | None = None) -> Entry:
        """The kept version of this number, the newest of them if several epochs have it. Raises NotKept, OSError."""
        entries = self.entries()
        for entry in entries:
            if entry.kept.version == version and epoch in (None, entry.kept.epoch):
                return entry
        kept = f"kept: {numbers({entry.kept.version for entry in entries})}" if entries else "nothing is kept"
        raise NotKept(f"version {version} is not in {self.path}; {kept}")

    def payload(self, entry: Entry) -> bytes:
        """The document of a listed version. Raises NotKept, OSError."""
        try:
            with open_history(self.path, reading=True) as directory:
                return self._payload(directory, entry.name)
        except FileNotFoundError:
            raise NotKept(f"version {entry.kept.version} is not in {self.path} any more") from None
        except Damaged as damage:
            raise NotKept(f"{self.path / entry.name} is damaged ({damage})") from None

    def layers(self, entry: Entry) -> tuple[SourceLayer, ...]:
        """The files that a listed version was made from, as they were then. Raises NotKept, OSError."""
        if entry.kept.sources is None:
            raise NotKept(f"nobody has kept what version {entry.kept.version} was made from")
        contents: dict[bytes, bytes] = {}
        with open_history(self.path, reading=True) as directory:
            for source in entry.kept.sources:
                if source.digest not in contents:
                    name = source_name(source.digest)
                    try:
                        contents[source.digest] = decode_source(directory.read(name), source.digest)
                    except FileNotFoundError:
                        raise NotKept(
                            f"{source.file}, as version {entry.kept.version} has it, is not in {self.path}"
                        ) from None
                    except Damaged as damage:
                        raise NotKept(f"{self.path / name} is damaged ({damage})") from None
        return tuple(source.layer(contents[source.digest]) for source in entry.kept.sources)

    def has_layers(self, kept: KeptVersion) -> bool:
        """Whether `layers` may know them: the files are there, whole or not. Never raises."""
        if kept.sources is None:
            return False
        try:
            with open_history(self.path, reading=True) as directory:
                return {source_name(source.digest) for source in kept.sources} <= {
                    found.name for found in directory.list()
                }
        except OSError:
            return False

    def newest(self) -> tuple[KeptVersion, bytes] | None:
        """The last known good: the newest version that is whole. Never raises; `problem` says what was passed over."""
        self.problem = None
        try:
            with open_history(self.path) as directory:
                return self._newest(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"cannot read {error.filename or self.path}: {error.strerror}"
            return None

    def _places(self, directory: HistoryDirectory, files: Iterable[Found]) -> list[Place]:
        """The files of versions, the newest first; their headers are read once."""
        known = {}
        for found in files:
            named = VERSION_NAME.fullmatch(found.name)
            if named is None:
                continue
            place = self._known.get(found)
            if place is None:
                try:
                    place = self._place(directory, found, int(named[1]), int(named[3]))
                except FileNotFoundError:
                    continue
                except OSError as error:  # another time it may be readable
                    damage = f"cannot be read: {error.strerror}"
                    known[found] = Place(found, int(named[1]), int(named[3]), None, damage)
                    continue
                self._known[found] = place
            known[found] = place
        self._known = {found: place for found, place in known.items() if found in self._known}
        return sorted(known.values(), key=lambda place: (*place.order, place.found.name), reverse=True)

    def _place(self, directory: HistoryDirectory, found: Found, sequence: int, version: int) -> Place:
        try:
            with directory.open(found.name) as (file, size):
                header = read_header(file, size)
            _check_name(found.name, header)
        except Damaged as damage:
            return Place(found, sequence, version, None, f"is damaged ({damage})")
        return Place(found, sequence, version, Entry(found.name, sequence, header.kept, header.size, size))

    def _newest(self, directory: HistoryDirectory) -> tuple[KeptVersion, bytes] | None:
        passed_over = []
        newest = None
        for place in self._places(directory, directory.list()):
            damage = place.damage
            if place.entry is not None:
                try:
                    newest = place.entry.kept, self._payload(directory, place.entry.name)
                    break
                except Damaged as damaged:
                    damage = f"is damaged ({damaged})"
                except FileNotFoundError:
                    continue
                except OSError as error:
                    damage = f"cannot be read: {error.strerror}"
            passed_over.append(f"{place.found.name} {damage}")
        if passed_over:
            more = f"; so were {len(passed_over) - 1} older ones" if len(passed_over) > 1 else ""
            served = f"version {newest[0].version}" if newest else "nothing"
            self.problem = (
                f"{self.path}/{passed_over[0]} and was passed over{more}: the last known good is {served}"
            )
        return newest

    def _payload(self, directory: HistoryDirectory, name: str) -> bytes:
        with directory.open(name) as (file, size):
            header = read_header(file, size)
            _check_name(name, header)
            return read_payload(file, header)



def numbers(versions: Iterable[int]) -> str:
    """Numbers for people: `1 to 4, 7`."""
    runs: list[list[int]] = []
    for version in sorted(set(versions)):
        if runs and version == runs[-1][-1] + 1:
            runs[-1][1:] = [version]
        else:
            runs.append([version])
    return ", ".join(" to ".join(str(number) for number in run) for run in runs)


def _check_name(name: str, header: Header) -> None:
    named = VERSION_NAME.fullmatch(name)
    if named is None or (int(named[2], 16), int(named[3])) != (header.kept.epoch, header.kept.version):
        raise Damaged(f"it holds version {header.kept.version} of epoch {header.kept.epoch:016x}")


def source_name(digest: bytes) -> str:
    """The file that the content of this digest is in."""
    return f"{digest.hex()}.source"
