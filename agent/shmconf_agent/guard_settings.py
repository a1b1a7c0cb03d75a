"""What [segment.NAME.guard] says, as data: how far a candidate may differ from what is served."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Most:
    """The most keys that may be deleted, or changed: a number of them, or a share of the keys that are served.

    written: as in the agent's file. Exactly one of number and share is not None; share is from 0 to 1.
    """

    written: str
    number: int | None = None
    share: Fraction | None = None

    def allows(self, count: int, of: int) -> bool:
        """Whether `count` keys of `of` that are served are not too many."""
        if self.share is not None:
            return count <= self.share * of
        return self.number is None or count <= self.number

    def enough(self, count: int) -> int:
        """How many keys have to be served for `count` of them not to be too many, if it is a share of more than 0."""
        return -(-count // self.share) if self.share else 0


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """never_empty and frozen are paths in the grammar that shmconf.paths parses."""

    max_deleted_keys: Most | None = None
    max_changed_keys: Most | None = None
    never_empty: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
