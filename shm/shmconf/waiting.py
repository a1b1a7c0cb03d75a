"""Waiting for versions: in the kernel, and as an iterator.

The order that makes a lost wake-up impossible: load the wake word, then look at the version, then sleep on the wake
word as loaded. The writer publishes first and bumps the word after, so a publication between the two loads ends the
sleep at once. Sleeps are cut into slices of at most a second, after each of which the segment's name is looked at:
a segment that somebody unlinked never wakes anybody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from .opening import Attached
from .snapshot import Snapshot

_SLICE_SECONDS = 1.0
_BEYOND_VERSIONS = 1 << 63


class Followed(Protocol):
    """What waiting needs of a Reader."""

    name: str

    @property
    def epoch(self) -> int:
        """The epoch of the segment in use."""

    def attachment(self) -> Attached:
        """The attachment in use. Raises Error once there is none."""

    def identity(self) -> tuple[int, int]:
        """(epoch, version) as published now."""

    def snapshot(self) -> Snapshot:
        """The latest version, whole."""

    def sleep(self, attachment: Attached, seen: int, seconds: float) -> None:
        """One slice of a wait; afterwards the segment's name is looked at."""

    def look_at_name(self) -> None:
        """Move to what the segment's name leads to, if that is another file by now."""

    def has_moved(self) -> bool:
        """Whether the epoch is another than at first."""


def wait_version(reader: Followed, after: int, timeout: float | None) -> int | None:
    """The version once it is greater than `after`; None after `timeout` seconds."""
    if timeout is not None and math.isnan(timeout):
        raise ValueError("a timeout is a number of seconds, not nan")
    began_in = reader.epoch
    deadline = None if timeout is None else time.monotonic() + timeout
    if not reader.has_moved() and 0 <= after < _BEYOND_VERSIONS:
        # Nearly always this is all, and the way back from the kernel short: many workers are woken at once.
        attachment = reader.attachment()
        while reader.attachment() is attachment and not attachment.latest()[1]:
            remaining = _SLICE_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            version = attachment.wait_beyond(after, min(remaining, _SLICE_SECONDS))
            if version > after:
                return version
            if remaining <= 0:
                return None
            reader.look_at_name()
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    found = _wait(reader, left, partial(_is_news, reader, after, began_in))
    return None if found is None else found[1]


def changes(reader: Followed, after: int | None, timeout: float | None) -> Iterator[Snapshot]:
    """Snapshots of new versions; `seen` compares epochs too, so a replaced segment's first version is news."""
    return changes_since(reader, starting_point(reader, after), timeout)


def starting_point(reader: Followed, after: int | None) -> tuple[int, int]:
    """The (epoch, version) that `after` means now; None means the version published now."""
    epoch, version = reader.identity()
    return epoch, version if after is None else after


def changes_since(reader: Followed, seen: tuple[int, int], timeout: float | None) -> Iterator[Snapshot]:
    """Snapshots of what differs from `seen`, until `timeout` seconds pass without one."""
    while _wait(reader, timeout, partial(_differs, seen)) is not None:
        snapshot = reader.snapshot()
        if _differs(seen, (snapshot.epoch, snapshot.version)):
            seen = (snapshot.epoch, snapshot.version)
            yield snapshot


def _is_news(reader: Followed, after: int, began_in: int, identity: tuple[int, int]) -> bool:
    epoch, version = identity
    if epoch != began_in or reader.has_moved():  # `after` may be a number of the segment before
        return version >= 1 and (version != after or epoch != began_in)
    return version > after


def _differs(seen: tuple[int, int], identity: tuple[int, int]) -> bool:
    epoch, version = identity
    return version > 0 and (epoch != seen[0] or version > seen[1])


def _wait(
    reader: Followed, timeout: float | None, is_news: Callable[[tuple[int, int]], bool]
) -> tuple[int, int] | None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        attachment = reader.attachment()
        seen = attachment.wake_word()  # before the version: see the module's first lines
        identity = reader.identity()
        if is_news(identity):
            return identity
        remaining = _SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        if remaining <= 0:
            return None
        if reader.attachment() is attachment:  # else the wake word belongs to a segment that was left
            reader.sleep(attachment, seen, min(remaining, _SLICE_SECONDS))
