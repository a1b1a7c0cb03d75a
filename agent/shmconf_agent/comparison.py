"""Two versions of a segment beside each other: which paths differ, and their values without what is secret in either.

A version is one that is kept, the one that is published, or what the files make now. Trees are compared as they are, so
that a secret that changed is a difference; what is handed out has `***` in its place, in both versions if it is secret
in one of them. Nothing is watched, locked or changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shmconf import codec
from shmconf.paths import MISSING
from shmconf.snapshot import Snapshot

from .difference import Change, changes
from .history import History
from .masking import masked, noted_paths
from .pipeline import Candidate
from .problems import Path

Origin = Literal["kept", "published", "files"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. version and epoch: None of what the files make, which has none yet. published_at: in ns."""

    origin: Origin
    digest: str
    tree: dict[Any, Any]
    secrets: tuple[Path, ...]
    version: int | None = None
    epoch: int | None = None
    published_at: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return "the files now" if self.version is None else f"version {self.version}"

    def is_same(self, other: Side) -> bool:
        """Whether there is no need to publish one after the other."""
        mine, others = ({codec.pack(list(path)) for path in side.secrets} for side in (self, other))
        return self.digest == other.digest and mine == others


@dataclass(frozen=True, slots=True)
class Shown:
    """A path that differs as it may be shown. hidden: whether something of it was secret."""

    change: Change
    hidden: bool


def published_side(snapshot: Snapshot) -> Side:
    """What is served now."""
    secrets = noted_paths(snapshot.metadata)
    return Side(
        "published", snapshot.digest, snapshot.to_dict(), secrets, snapshot.version, snapshot.epoch,
        snapshot.published_at,
    )  # fmt: skip


def files_side(candidate: Candidate) -> Side:
    """What would be published of the files as they are now."""
    document = candidate.document
    return Side("files", document.digest, codec.unpack(document.payload), candidate.secret_paths)


def kept_side(history: History, version: int) -> Side:
    """A version in the history. Raises NotKept, OSError."""
    entry = history.find(version)
    kept = entry.kept
    tree = codec.unpack(history.payload(entry))
    secrets = noted_paths(kept.metadata)
    return Side("kept", kept.digest, tree, secrets, kept.version, kept.epoch, kept.published_at)


def compare(before: Side, after: Side, *, reveal: bool = False) -> list[Shown]:
    """Every path that differs, in the order of `before`."""
    found = changes(before.tree, after.tree)
    if reveal:
        return [Shown(change, hidden=False) for change in found]
    secrets = (*before.secrets, *after.secrets)
    return [_without(change, secrets) for change in found]


def _without(change: Change, secrets: Sequence[Path]) -> Shown:
    if not secrets:
        return Shown(change, hidden=False)
    before, after = (
        value if value is MISSING else masked(value, secrets, change.path) for value in (change.before, change.after)
    )
    hidden = any(
        shown is not MISSING and codec.pack(shown) != codec.pack(value)
        for shown, value in ((before, change.before), (after, change.after))
    )
    return Shown(dataclasses.replace(change, before=before, after=after), hidden)
