"""Keeps published versions in the background: a slow, full or read-only disk delays no publication.

The newest version goes first, since it is the last known good. Those that came while the disk was busy follow, the
newest of them first; of more than `MOST_WAITING`, or `MOST_WAITING_BYTES`, the oldest are left out of the history. What
a disk refuses waits for the next version, or for `retry`.

One thread calls this; the writing happens in another, which lives as long as there is something to write.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shmconf import codec

from .history_keeping import WritableHistory
from .kept_version import KeptVersion, SourceRef
from .view import SourceLayer

MOST_WAITING = 8
MOST_WAITING_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Publication:
    """A version to keep: its document, and `contents` of its sources by digest, which are shared with the pipeline.

    tree: the document decoded, if somebody has it at hand; it is counted and nothing else.
    """

    kept: KeptVersion
    payload: bytes
    contents: Mapping[bytes, bytes] = field(default_factory=dict)
    tree: Any = None

    def made_from(self, texts: Sequence[SourceLayer], tree: Any) -> Publication:
        """The same, made from these layers, which make `tree`."""
        sources = tuple(SourceRef.of(text) for text in texts)
        kept = dataclasses.replace(self.kept, sources=sources)
        return Publication(kept, self.payload, {text.digest: text.data for text in texts}, tree)


class HistoryWriter:
    """See the module. `history` is this writer's own."""

    def __init__(self, history: WritableHistory) -> None:
        """Nothing is written yet."""
        self._history = history
        self._lock = threading.Lock()
        self._waiting: dict[int, Publication] = {}  # by the order in which they came
        self._came = 0
        self._written = -1  # the last that came of those that are kept
        self._base = 0  # what added to that order is a place in the history
        self._writer: threading.Thread | None = None
        self._refused = False
        self.problem: str | None = None
        """Why the newest version is not kept, in a sentence; None while it is, or is being written."""

    @property
    def has_kept(self) -> bool:
        """Whether anything was kept since this writer was made: it is the last known good then."""
        return self._written >= 0

    def keep(self, publication: Publication) -> None:
        """Have it written as soon as the disk can."""
        with self._lock:
            self._waiting[self._came] = publication
            self._came += 1
            self._leave_out()
            self._begin()

    def retry(self) -> None:
        """Ask a disk that refused again: for a caller that has time between versions."""
        with self._lock:
            if self._refused:
                self._begin()

    def settle(self, timeout: float = 5.0) -> None:
        """Wait for what is being written, at most `timeout` seconds."""
        writer = self._writer
        if writer is not None:
            writer.join(timeout)

    def _leave_out(self) -> None:
        """Forget the oldest until what waits is few and small enough; the newest stays, however big."""
        newest = self._waiting[max(self._waiting)]
        shared = {id(data) for data in newest.contents.values()}
        for order in sorted(self._waiting)[:-1]:
            if len(self._waiting) <= MOST_WAITING and self._bytes_beside(shared) <= MOST_WAITING_BYTES:
                return
            del self._waiting[order]

    def _bytes_beside(self, shared: set[int]) -> int:
        """What waits takes in memory beside the newest version."""
        older = [self._waiting[order] for order in sorted(self._waiting)[:-1]]
        contents = {id(data): len(data) for each in older for data in each.contents.values() if id(data) not in shared}
        return sum(len(each.payload) for each in older) + sum(contents.values())

    def _begin(self) -> None:
        self._refused = False
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="shmconf-history", daemon=True)
            self._writer.start()

    def _write_all(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._refused:
                    self._writer = None
                    return
                order = max(self._waiting)
                publication = self._waiting.pop(order)
            failure: str | None = None
            try:
                self._write(order, publication)
            except OSError as error:
                failure = error.strerror or str(error)
            except Exception as error:  # a fault of ours: it is told, and no reason to lose the versions that follow
                failure = f"internal error: {type(error).__name__}: {error}"
            with self._lock:
                if failure is None:
                    self._written = max(self._written, order)
                    self.problem = None
                if failure is None or order < self._written:  # a newer one is kept: this one may be missing
                    continue
                self.problem = f"{self._history.path}: version {publication.kept.version} cannot be kept: {failure}"
                self._waiting[order] = publication
                self._leave_out()
                # Something newer is tried at once: it may be that this one does not fit.
                self._refused = max(self._waiting) == order

    def _write(self, order: int, publication: Publication) -> None:
        if order > self._written:
            # Behind all that is there, whoever put it there.
            self._base = max(self._base, self._history.next_sequence() - order)
        kept = publication.kept
        if kept.keys is None:
            tree = publication.tree if publication.tree is not None else codec.unpack(publication.payload)
            kept = dataclasses.replace(kept, keys=count_keys(tree))
        self._history.keep(kept, publication.payload, publication.contents, self._base + order)


def count_keys(tree: Any) -> int:
    """How many keys all maps in a tree have, however deep. Nothing here recurses."""
    count = 0
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            count += len(value)
            waiting += [each for each in value.values() if isinstance(each, (dict, list))]
        elif isinstance(value, list):
            waiting += [each for each in value if isinstance(each, (dict, list))]
    return count
