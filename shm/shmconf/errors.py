"""Every exception that shmconf raises on purpose; all derive from `Error`.

They are raised while opening a segment or when the segment itself is at fault, never because a path is missing
from the configuration (that is `KeyError` for `[]` and the default for `get`).
"""

from __future__ import annotations


class Error(Exception):
    """The base of shmconf's exceptions."""


class SegmentNotFound(Error):
    """No segment of that name, or nothing published in it yet (the message then quotes the agent's reason)."""


class SegmentCorrupt(Error):
    """The bytes are not what a writer of this format leaves: random, truncated or damaged. Raised, never crashed on."""


class SegmentIncompatible(Error):
    """A shmconf segment of a format that this library does not read."""


class SegmentUntrusted(Error):
    """The file or its directory may come from somebody who must not decide this process's configuration."""


class SegmentBusy(Error):
    """No consistent read within 2,000 tries and a second: the writer laps this reader without pause."""


class SegmentLocked(Error):
    """Another live writer holds the segment."""


class SegmentFull(Error):
    """The file system or `max_bytes` has no room for the new version; the published one is untouched."""


class PathError(Error, ValueError):
    """A path text that is not in the grammar of dotted keys."""
