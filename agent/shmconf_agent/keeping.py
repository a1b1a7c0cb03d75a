"""What the state directory keeps of one segment's publications: the history, as the one who publishes knows it.

Whatever becomes visible is kept, in the background (`history_writer`), and the newest that is whole is the last known
good. What was not made by a candidate of this agent (a predecessor's version, the last known good served again) is kept
without the files it was made from, unless a version before it has the same document and knows them; they are added
(`complete`) as soon as a candidate turns out to be equal to it. One thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shmconf.snapshot import Snapshot

from .history import History
from .history_keeping import WritableHistory
from .history_writer import HistoryWriter, Publication
from .kept_version import KeptVersion
from .view import SourceLayer

__all__ = ["Keeping", "as_kept"]


class Keeping:
    """See the module."""

    def __init__(self, state: Path, name: str) -> None:
        """state: the state directory. name: of the segment. Nothing is read or written yet."""
        self._history = History(state, name)
        self._writer = HistoryWriter(WritableHistory(state, name))
        self._unsourced: Publication | None = None  # what is served, if nobody has kept what it was made from

    def newest(self) -> tuple[KeptVersion, bytes] | None:
        """The last known good and its document. Never raises."""
        return self._history.newest()

    @property
    def passed_over(self) -> bool:
        """Whether the last `newest` had to pass over something newer, which is damaged or cannot be read."""
        return self._history.problem is not None

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the history. What was passed over matters until something newer is kept."""
        passed_over = None if self._writer.has_kept else self._history.problem
        return tuple(problem for problem in (passed_over, self._writer.problem) if problem)

    def keep_made(self, published: KeptVersion, payload: bytes, layers: Sequence[SourceLayer], tree: Any) -> None:
        """Keep what was published just now, made from `layers`, which make `tree`."""
        self._unsourced = None
        self._writer.keep(Publication(published, payload).made_from(layers, tree))

    def keep_again(self, published: KeptVersion, payload: bytes) -> None:
        """Keep a version that was published again, by a rollback: it has the sources that are known of it."""
        self._unsourced = None
        self._writer.keep(Publication(published, payload))

    def keep_found(self, published: KeptVersion, payload: bytes, before: KeptVersion | None) -> None:
        """Keep what was not made by a candidate of ours. before: the newest version that is kept."""
        publication = Publication(published, payload)
        self._writer.keep(publication)
        if before is None or before.digest != published.digest or not self._history.has_layers(before):
            self._unsourced = publication

    def adopt(self, published: KeptVersion, payload: bytes, before: KeptVersion | None) -> None:
        """A predecessor published it, and it is served: keep what is missing. before: the newest version kept."""
        if before is None or (before.epoch, before.version) != (published.epoch, published.version):
            # It was killed, or had no disk, before it could keep it, or the segment had to be replaced just now.
            self.keep_found(published, payload, before)
        elif not self._history.has_layers(before):
            self._unsourced = Publication(before, payload)

    def keep_relinked(self, published: KeptVersion, payload: bytes) -> None:
        """Keep what is served under the new epoch of a segment whose file was put back."""
        self._writer.keep(Publication(published, payload))

    def complete(self, layers: Sequence[SourceLayer], tree: Any) -> None:
        """What is served can be made from `layers`, which make `tree`: keep these, if nobody has."""
        if self._unsourced is not None:
            self._writer.keep(self._unsourced.made_from(layers, tree))
            self._unsourced = None

    def retry(self) -> None:
        """Ask a disk that refused again."""
        self._writer.retry()

    def settle(self) -> None:
        """Wait, some seconds at most, until what was published is kept."""
        self._writer.settle()


def as_kept(snapshot: Snapshot) -> KeptVersion:
    """What stands in a segment, as the history has it."""
    metadata = snapshot.metadata
    del metadata["digest"]
    return KeptVersion(snapshot.epoch, snapshot.version, snapshot.published_at, snapshot.digest, metadata)
