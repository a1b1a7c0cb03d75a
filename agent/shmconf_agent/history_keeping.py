"""What becomes of the history of a segment: the agent keeps versions in it, and the oldest go.

At most `MOST_VERSIONS` are kept, and fewer where they take more than `MOST_BYTES` with their sources; the newest always
is. A disk without room gets the newest in place of the oldest. What is in the directory, and what reads it, is in
`history`.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from shmconf import codec

from .history import VERSION_NAME, Entry, History, Place, source_name
from .history_directory import ASIDE, HistoryDirectory, open_history
from .kept_version import Damaged, KeptVersion, SourceRef, decode_source, encode, encode_source

MOST_VERSIONS = 50
MOST_BYTES = 64_000_000
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where older versions can give way."""

_SOURCE_NAME = re.compile(r"([0-9a-f]{32})\.source")


class WritableHistory(History):
    """A history that may be written in: only in the process that holds the segment's lock in the state directory.

    One thread at a time.
    """

    def __init__(
        self, state: Path, name: str, *, most_versions: int = MOST_VERSIONS, most_bytes: int = MOST_BYTES
    ) -> None:
        """state: the state directory. name: of the segment. Nothing is read yet."""
        super().__init__(state, name)
        self._most_versions = most_versions
        self._most_bytes = most_bytes
        self._whole_sources: set[bytes] = set()  # those that were written or verified here

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

    def _is_whole(self, directory: HistoryDirectory, entry: Entry) -> bool:
        try:
            self._payload(directory, entry.name)
        except (Damaged, OSError):
            return False
        return True

    def _put_sources(
        self,
        directory: HistoryDirectory,
        sources: Iterable[SourceRef],
        contents: Mapping[bytes, bytes],
        order: tuple[int, int],
    ) -> None:
        present = {found.name for found in directory.list()}
        for source in sources:
            digest, name = source.digest, source_name(source.digest)
            if digest not in contents or (name in present and self._is_whole_source(directory, digest)):
                continue
            self._put(directory, name, encode_source(contents[digest]), order)
            self._whole_sources.add(digest)
            present.add(name)

    def _is_whole_source(self, directory: HistoryDirectory, digest: bytes) -> bool:
        """Whether a file that is there is what it should be; looked at once."""
        if digest not in self._whole_sources:
            try:
                decode_source(directory.read(source_name(digest)), digest)
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


def _same(places: Iterable[Place], kept: KeptVersion) -> Entry | None:
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


def _place_among(places: Sequence[Place], kept: KeptVersion, sequence: int | None) -> int:
    """The wanted sequence, or the last where it is None; but not behind later versions of the same epoch, as what was
    stuck in a disk for long would come."""
    later = [
        place.sequence
        for place in places
        if place.entry is not None and place.entry.kept.epoch == kept.epoch and place.version > kept.version
    ]
    return min([_behind(places) if sequence is None else sequence, *later])


def _behind(places: Sequence[Place]) -> int:
    return places[0].sequence + 1 if places else 1


def _is_ours(name: str) -> bool:
    return VERSION_NAME.fullmatch(name) is not None or _SOURCE_NAME.fullmatch(name) is not None


def _source_names(place: Place) -> set[str]:
    if place.entry is None or place.entry.kept.sources is None:
        return set()
    return {source_name(source.digest) for source in place.entry.kept.sources}
