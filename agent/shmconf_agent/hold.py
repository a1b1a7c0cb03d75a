"""What an operator asks of one segment (a rollback, an end of it), and the record that a rollback holds.

The record is the file `hold` among the kept versions (`NAME.history/`): whoever removes these removes it as well. It is
durable before the rollback is published and goes before the files are followed again, so that whatever kills the agent
in between, its successor finds what was asked for last: a record without its publication is a rollback to be completed,
a publication without its record is one that was resumed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from shmconf import Hold

from .history_directory import open_history

__all__ = ["Hold", "HoldFile", "Record", "Resume", "RollBack", "who"]

NAME = "hold"


@dataclass(frozen=True, slots=True)
class RollBack:
    """Publish a kept version again and hold it. uid: who asks. force: though it is not valid today."""

    version: int
    uid: int
    force: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Follow the files again. uid: who asks."""

    uid: int


Order = RollBack | Resume


@dataclass(frozen=True, slots=True)
class Record:
    """What is on the disk: the hold, and the digest of the document that it is about."""

    hold: Hold
    digest: str


class Damaged(ValueError):
    """The record is there and cannot be understood."""


class HoldFile:
    """The record of one segment. Methods raise OSError. One thread at a time."""

    def __init__(self, history: Path) -> None:
        """history: the directory of the segment's kept versions."""
        self.path = history / NAME
        self._history = history

    def load(self) -> Record | None:
        """The record, None where there is none. Raises Damaged, too."""
        try:
            with open_history(self._history) as directory:
                told = json.loads(directory.read(NAME))
            digest = told.pop("digest")
            if type(digest) is not str:
                raise TypeError
            return Record(Hold.of(told), digest)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Damaged(f"{self.path} is damaged") from None

    def is_there(self) -> bool:
        """Whether there is a record, in whatever state. Never raises; what cannot be looked at counts as there."""
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def keep(self, record: Record) -> None:
        """Put it in the place of the one before, durably."""
        told = {**record.hold.as_map(), "digest": record.digest}
        with open_history(self._history, make=True) as directory:
            directory.put(NAME, [json.dumps(told).encode()])

    def remove(self) -> None:
        """Take it away, durably, if it is there."""
        try:
            with open_history(self._history) as directory:
                if directory.has(NAME):  # a read-only disk also refuses to remove what is not there
                    directory.remove(NAME)
                directory.sync()
        except FileNotFoundError:
            pass


def who(uid: int) -> str:
    """A user for the log; without asking the user database, which may be far away."""
    return "root" if uid == 0 else "the agent's user" if uid == os.geteuid() else f"user {uid}"
