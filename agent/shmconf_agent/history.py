"""The history of a segment: its last versions in the state directory, the newest of them the last known good.

`NAME.history/` has one file for each version and one for each content that a source of theirs had (`kept_version` says
what is in them), so that what an unchanged source costs does not grow with the versions. A version that is kept is
durable before its sources are, and these before anything older goes: whatever kills the agent, a whole version is
there. At most `MOST_VERSIONS` are kept, and fewer where they take more than `MOST_BYTES` with their sources; the newest
always is. A disk without room gets the newest in place of the oldest.

The order of the versions is that of the number with which the names of their files begin: clocks may go back, and
versions may after the loss of segment and reservation. Of a version that is published again and again with nothing
changed (as last known good, boot after boot, or because its segment was removed) the first and the last are kept.

A `History` may be read by any process, while the agent writes; it writes only in the process that holds the segment's
lock in the state directory. What is damaged, torn or not to be trusted is passed over and said, files of other names
are left alone. One thread at a time.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shmconf import codec
from shmconf.errors import Error

from .history_directory import ASIDE, Found, HistoryDirectory, open_history
from .kept_version import (
    Damaged,
    Header,
    KeptVersion,
    SourceRef,
    decode_source,
    encode,
    encode_source,
    read_header,
    read_payload,
)
from .view import SourceLayer

MOST_VERSIONS = 50
MOST_BYTES = 64_000_000
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where older versions can give way."""

_VERSION_NAME = re.compile(r"(\d{10,18})-([0-9a-f]{16})-(\d{1,19})\.version")
_SOURCE_NAME = re.compile(r"([0-9a-f]{32})\.source")


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
class _Place:
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

    def __init__(
        self, state: Path, name: str, *, most_versions: int = MOST_VERSIONS, most_bytes: int = MOST_BYTES
    ) -> None:
        """state: the state directory. name: of the segment. Nothing is read yet."""
        self.path = state / f"{name}.history"
        self.problem: str | None = None
        """What the last `newest` passed over, and why."""
        self._most_versions = most_versions
        self._most_bytes = most_bytes
        self._known: dict[Found, _Place] = {}
        self._whole_sources: set[bytes] = set()  # those that this History has written or verified

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
                    name = _source_name(source.digest)
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
                return {_source_name(source.digest) for source in kept.sources} <= {
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

    def keep(
        self, kept: KeptVersion, payload: bytes, contents: Mapping[bytes, bytes], sequence: int | None = None
    ) -> None:
        """Keep a version durably, then its sources, then what there is room for. Raises OSError.

        contents: of its sources, by digest. Without `kept.sources` they are those of the version before, where that has
        the same document. sequence: its place among the others (`next_sequence`); behind all of them, if it is None.
        Again for a version that is kept, it adds what is missing.
        """
        with open_history(self.path, make=True) as directory:
            files = directory.list()
            for found in files:
                if found.name.endswith(ASIDE) and _is_ours(found.name.removesuffix(ASIDE)):
                    directory.remove(found.name)
            places = self._places(directory, files)
            here = _same(places, kept)
            if here is not None:
                sequence, kept = here.sequence, _completed(kept, here.kept)
            else:
                sequence = _place_among(places, kept, sequence)
            order = sequence, kept.version
            below = next((place.entry for place in places if place.order < order), None)
            if below is not None and below.kept.digest == kept.digest:
                kept = dataclasses.replace(_completed(kept, below.kept), republished=True)
            if here is None or here.kept.sources != kept.sources or not self._is_whole(directory, here):
                name = f"{sequence:010d}-{kept.epoch:016x}-{kept.version}.version"
                self._put(directory, name, encode(kept, payload), order)
            self._put_sources(directory, kept.sources or (), contents, order)
            if below is not None and below.kept.republished and kept.republished and _noted(below.kept) == _noted(kept):
                directory.remove(below.name)
            self._prune(directory)

    def give_up_oldest(self, spared: str) -> bool:
        """Remove the oldest version, as room for something else; False where there is none to give. Raises OSError.

        Neither the newest goes nor one whose document has the digest `spared`.
        """
        with open_history(self.path) as directory:
            places = self._places(directory, directory.list())[1:]
            for place in reversed(places):
                if place.entry is None or place.entry.kept.digest != spared:
                    directory.remove(place.found.name)
                    self._remove_unused(directory)
                    return True
        return False

    def next_sequence(self) -> int:
        """The number behind all that are kept. Raises OSError."""
        with open_history(self.path, make=True) as directory:
            return _behind(self._places(directory, directory.list()))

    # --- what is there ------------------------------------------------------------------------------------------------

    def _places(self, directory: HistoryDirectory, files: Iterable[Found]) -> list[_Place]:
        """The files of versions, the newest first; their headers are read once."""
        known = {}
        for found in files:
            named = _VERSION_NAME.fullmatch(found.name)
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
                    known[found] = _Place(found, int(named[1]), int(named[3]), None, damage)
                    continue
                self._known[found] = place
            known[found] = place
        self._known = {found: place for found, place in known.items() if found in self._known}
        return sorted(known.values(), key=lambda place: (*place.order, place.found.name), reverse=True)

    def _place(self, directory: HistoryDirectory, found: Found, sequence: int, version: int) -> _Place:
        try:
            with directory.open(found.name) as (file, size):
                header = read_header(file, size)
            _check_name(found.name, header)
        except Damaged as damage:
            return _Place(found, sequence, version, None, f"is damaged ({damage})")
        return _Place(found, sequence, version, Entry(found.name, sequence, header.kept, header.size, size))

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

    def _is_whole(self, directory: HistoryDirectory, entry: Entry) -> bool:
        try:
            self._payload(directory, entry.name)
        except (Damaged, OSError):
            return False
        return True

    # --- what becomes of it -------------------------------------------------------------------------------------------

    def _put_sources(
        self,
        directory: HistoryDirectory,
        sources: Iterable[SourceRef],
        contents: Mapping[bytes, bytes],
        order: tuple[int, int],
    ) -> None:
        present = {found.name for found in directory.list()}
        for source in sources:
            digest, name = source.digest, _source_name(source.digest)
            if digest not in contents or (name in present and self._is_whole_source(directory, digest)):
                continue
            self._put(directory, name, encode_source(contents[digest]), order)
            self._whole_sources.add(digest)
            present.add(name)

    def _is_whole_source(self, directory: HistoryDirectory, digest: bytes) -> bool:
        """Whether a file that is there is what it should be; looked at once."""
        if digest not in self._whole_sources:
            try:
                decode_source(directory.read(_source_name(digest)), digest)
            except (Damaged, OSError):
                return False
            self._whole_sources.add(digest)
        return True

    def _put(
        self, directory: HistoryDirectory, name: str, parts: Sequence[bytes], order: tuple[int, int]
    ) -> None:
        """Put a file in place; what was published before `order` gives way where there is no room for both."""
        while True:
            try:
                directory.put(name, parts)
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                places = self._places(directory, directory.list())
                older = [place for place in places if place.order < order]
                # The last known good stays until what takes its place is durable.
                expendable = older[1:] if name.endswith(".version") else older
                if sum(place.found.size for place in expendable) < sum(len(part) for part in parts):
                    raise
                directory.remove(expendable[-1].found.name)
                self._remove_unused(directory)

    def _prune(self, directory: HistoryDirectory) -> None:
        """Remove what there are too many of, the oldest first, then the sources that no version is made from."""
        files = directory.list()
        sizes = {found.name: found.size for found in files}
        counted: set[str] = set()
        total = 0
        places = self._places(directory, files)
        kept = 0
        for place in places:
            sources = _source_names(place) - counted
            counted |= sources
            total += place.found.size + sum(sizes.get(name, 0) for name in sources)
            if kept and (kept >= self._most_versions or total > self._most_bytes):
                break
            kept += 1
        for place in reversed(places[kept:]):
            directory.remove(place.found.name)
        self._remove_unused(directory)

    def _remove_unused(self, directory: HistoryDirectory) -> None:
        files = directory.list()
        used: set[str] = set().union(*(_source_names(place) for place in self._places(directory, files)))
        for found in files:
            named = _SOURCE_NAME.fullmatch(found.name)
            if named is not None and found.name not in used:
                directory.remove(found.name)
                self._whole_sources.discard(bytes.fromhex(named[1]))


def numbers(versions: Iterable[int]) -> str:
    """Numbers for people: `1 to 4, 7`."""
    runs: list[list[int]] = []
    for version in sorted(set(versions)):
        if runs and version == runs[-1][-1] + 1:
            runs[-1][1:] = [version]
        else:
            runs.append([version])
    return ", ".join(" to ".join(str(number) for number in run) for run in runs)


def _same(places: Iterable[_Place], kept: KeptVersion) -> Entry | None:
    for place in places:
        entry = place.entry
        if entry is not None and (entry.kept.epoch, entry.kept.version) == (kept.epoch, kept.version):
            return entry
    return None


def _completed(kept: KeptVersion, known: KeptVersion) -> KeptVersion:
    """A version, with what is known of the same document from elsewhere."""
    sources = kept.sources if kept.sources is not None else known.sources
    keys = kept.keys if kept.keys is not None else known.keys
    return dataclasses.replace(kept, sources=sources, keys=keys)


def _noted(kept: KeptVersion) -> bytes:
    """What was published beside the document, but for its being stale; packed, as nan equals itself there."""
    return codec.pack({key: value for key, value in kept.metadata.items() if key != "stale"})


def _check_name(name: str, header: Header) -> None:
    named = _VERSION_NAME.fullmatch(name)
    if named is None or (int(named[2], 16), int(named[3])) != (header.kept.epoch, header.kept.version):
        raise Damaged(f"it holds version {header.kept.version} of epoch {header.kept.epoch:016x}")


def _place_among(places: Sequence[_Place], kept: KeptVersion, sequence: int | None) -> int:
    """The wanted sequence, or the last where it is None; but not behind later versions of the same epoch, as what was
    stuck in a disk for long would come."""
    later = [
        place.sequence
        for place in places
        if place.entry is not None and place.entry.kept.epoch == kept.epoch and place.version > kept.version
    ]
    return min([_behind(places) if sequence is None else sequence, *later])


def _behind(places: Sequence[_Place]) -> int:
    return places[0].sequence + 1 if places else 1


def _is_ours(name: str) -> bool:
    return _VERSION_NAME.fullmatch(name) is not None or _SOURCE_NAME.fullmatch(name) is not None


def _source_name(digest: bytes) -> str:
    return f"{digest.hex()}.source"


def _source_names(place: _Place) -> set[str]:
    if place.entry is None or place.entry.kept.sources is None:
        return set()
    return {_source_name(source.digest) for source in place.entry.kept.sources}
