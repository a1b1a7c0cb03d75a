"""Opening a segment for reading: what a Reader is attached to, in C or in Python.

Two implementations keep one contract, the protocol `Attached` below, and pass the same tests: `_native.Attachment`,
which is the reader of shm/include/shmconf.h, and `attachment.Attachment`, in Python on a Mapping, which takes its place
where there is no native module or SHMCONF_PURE is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .attachment import Attachment, Content, Note
from .directories import Directory
from .mapping import IMPLEMENTATION

__all__ = ["Attached", "open_attachment"]


class Attached(Protocol):
    """A trusted segment file, mapped for reading; it stays the same file whatever happens to its name.

    Methods that read raise SegmentCorrupt where the bytes at rest are damaged or `latest` names a slot that never
    becomes whole, and SegmentBusy where the writer laps this reader for 2,000 tries and a second. Nothing blocks but
    `wait`. Shared by threads, inherited through fork; unmapped when the last user lets go of it.
    """

    directory: Directory

    @property
    def path(self) -> str:
        """The file's path, for messages."""

    @property
    def epoch(self) -> int:
        """The segment's epoch, random and not 0."""

    @property
    def retries(self) -> int:
        """Tries that a concurrent publication made worthless."""

    def latest(self) -> tuple[int, bool]:
        """The published version (0: none yet) and whether the segment was retired; one acquire load."""

    def is_linked(self) -> bool:
        """Whether the segment's name still leads to this file."""

    def verify(self) -> tuple[int, Content | None]:
        """The latest version if it is whole (0: none yet), and a copy of it where verifying took one."""

    def copy_latest(self) -> Content | None:
        """The latest version, copied and verified; None where nothing was published yet."""

    def copy_note(self) -> Note | None:
        """What the latest version says of itself, verified, without its payload; None where there is none."""

    def copy_status(self) -> bytes | None:
        """The body of the agent's status block, copied and verified; None where there is none yet."""

    def heartbeat_age(self) -> float | None:
        """Seconds since the agent's last heartbeat; None where there is none, it stopped, or the clock began anew."""

    def wake_word(self) -> int:
        """What wait() takes as `seen`; to be loaded before `latest`, or a publication in between is slept through."""

    def wait(self, seen: int, seconds: float, /) -> None:
        """Sleep in the kernel until the wake word is not `seen`, a signal, or `seconds` have passed."""

    def wait_beyond(self, after: int, seconds: float, /) -> int:
        """Sleep until the version is beyond `after`; the version now, whatever it is after `seconds` or a signal.

        Does not sleep on a segment that is retired. after: 0 to 2**63 - 1.
        """


def open_attachment(directory: Directory, name: str) -> Attached:
    """Open the segment `name`. Raises SegmentNotFound, SegmentUntrusted, SegmentIncompatible or SegmentCorrupt."""
    return _Attachment.open(directory, name)


if TYPE_CHECKING or IMPLEMENTATION == "native":
    from .native_attachment import NativeAttachment as _Attachment
else:
    _Attachment = Attachment
