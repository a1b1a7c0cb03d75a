"""What is noted beside a published document (the metadata of `shm/FORMAT.md`): which files made it, which commit was
judged last, where secrets are, and whether it is a rollback or the last known good.

Readers may see it, the history keeps it, and the next agent goes on from it. Functions only; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shmconf import Hold, codec

from .commit_mark import Record
from .kept_version import KeptVersion
from .pipeline import Candidate

__all__ = ["of_candidate", "of_last_known_good", "of_rollback", "packed"]


def of_candidate(candidate: Candidate) -> dict[str, Any]:
    """For what the files make."""
    metadata: dict[str, Any] = {"files": list(candidate.files), "blank_files": list(candidate.blank_files)}
    if candidate.commit is not None:
        metadata["commit"] = candidate.commit.fields()
    if candidate.secret_paths:
        metadata["secret_paths"] = [list(path) for path in candidate.secret_paths]
    return metadata


def of_rollback(kept: KeptVersion, hold: Hold, commit: Record | None, lost_commit: str | None) -> dict[str, Any]:
    """For a kept version that is published again. commit: the one judged last, whatever is served. lost_commit: mark of
    one whose version was kept and is damaged."""
    metadata = {key: value for key, value in kept.metadata.items() if key not in ("stale", "commit", "lost_commit")}
    metadata["rollback"] = {key: value for key, value in hold.as_map().items() if key != "candidate"}
    if commit is not None:
        metadata["commit"] = commit.fields()
    if lost_commit is not None:
        metadata["lost_commit"] = lost_commit
    return metadata


def of_last_known_good(kept: KeptVersion, lost_commit: str | None) -> dict[str, Any]:
    """For what was good before the agent's start. lost_commit: as of `of_rollback`; for who starts after us."""
    metadata = {**kept.metadata, "stale": True}
    if lost_commit is not None:
        metadata["lost_commit"] = lost_commit
    return metadata


def packed(secrets: Sequence[tuple[Any, ...]]) -> bytes:
    """Paths of secrets for a comparison: packed, a key that is nan equals itself."""
    return codec.pack([list(path) for path in secrets])
