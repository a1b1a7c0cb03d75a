"""What tells one state of a segment's commit path from another, and the record of the one that was judged last.

The mark is of the links on the way (which ones, their inodes and times), of the file (its inode, size, mtime and
content) or, where the path leads to a directory, of which directory that is.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from .disk import Standing
from .settle import TrackedFile, digest_of

__all__ = ["NO_COMMIT", "CommitPath", "Record", "stands"]


@dataclass(frozen=True, slots=True)
class CommitPath:
    """How it stands. mark: None where nothing is there. changing: it is not whole, or has only just vanished, and there
    is no mark yet. failure: why it cannot be read, in words; no mark then either."""

    mark: str | None = None
    changing: bool = False
    failure: str | None = None


NO_COMMIT = CommitPath()


@dataclass(frozen=True, slots=True)
class Record:
    """A commit that was judged: its mark, the fingerprint of the files then (hexadecimal), and the outcome."""

    mark: str
    inputs: str
    accepted: bool = True

    def is_of(self, other: Record) -> bool:
        """Whether both are of the same files, committed by the same change."""
        return (self.mark, self.inputs) == (other.mark, other.inputs)

    def fields(self) -> dict[str, Any]:
        """For metadata and JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, told: Any) -> Record | None:
        """What `fields` gave; None for anything else."""
        if not isinstance(told, dict):
            return None
        mark, inputs, accepted = (told.get(name) for name in ("mark", "inputs", "accepted"))
        if type(mark) is str and type(inputs) is str and type(accepted) is bool:
            return cls(mark, inputs, accepted)
        return None


def stands(file: TrackedFile, standing: Standing) -> CommitPath:
    """How the commit path stands, as the look that `standing` is of has it."""
    if file.flux_since is not None:
        return CommitPath(changing=True)
    if file.failure is not None:
        return CommitPath(failure=file.failure.message)
    found: object
    if file.content is not None and file.stamp is not None:
        found = (file.stamp.ino, file.stamp.size, file.stamp.mtime_ns, file.digest)
    elif file.absence is None:
        return CommitPath(changing=True)
    elif file.absence.missing:
        return NO_COMMIT
    elif not file.absence.is_directory:
        return CommitPath(failure=file.absence.absent)
    else:
        found = "a directory"
    *links, last = standing.entries
    try:
        way = [(link, (status := os.lstat(link)).st_ino, status.st_mtime_ns) for link in links]
        place = os.lstat(last).st_ino if found == "a directory" else 0
    except OSError:  # it has just gone
        return CommitPath(changing=True)
    return CommitPath(digest_of(repr((way, last, place, found)).encode()).hex())
