"""Where in the file the next version goes: a pure function from the rooms in use to a free place.

Free room is whatever no slot owns, computed anew from the slots' room words each time, so that no crash can lose any.
First fit from the front keeps the file short and uses again pages that were touched before.
"""

from __future__ import annotations

from collections.abc import Iterable

from .layout import FIRST_ROOM_PAGE, PAGE, Room

TWO_ROOMS_ABOVE = 8 << 20  # bytes of content above which only `latest` keeps its room while the next is written
_SLACK = 64 << 10
_FACTOR = 6


def pages_for(size: int) -> int:
    """Whole pages for `size` bytes; at least one."""
    return max(1, -(-size // PAGE))


def first_fit(pages: int, owned: Iterable[Room], limit_pages: int) -> Room | None:
    """The lowest run of `pages` free pages that ends at or before page `limit_pages`, or None."""
    start = FIRST_ROOM_PAGE
    for room in sorted(owned, key=lambda room: room.page):
        if room.page - start >= pages:
            break
        start = max(start, room.end)
    return Room(start, pages) if start + pages <= limit_pages else None


def limit_for(largest: int, file_size: int, max_bytes: int) -> int:
    """How many pages the file may have: 6 × the largest content + 64 KiB, or what it has; never over max_bytes."""
    wanted = max(_FACTOR * largest + _SLACK, file_size)
    return min(wanted, max_bytes) // PAGE
