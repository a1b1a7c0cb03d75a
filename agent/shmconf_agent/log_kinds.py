"""The kinds of events that an agent's log tells of. Each has a priority of syslog and an id that never changes.

The ids are journald's MESSAGE_ID=, random 128-bit numbers as sd-id128(3) wants them: `journalctl MESSAGE_ID=…` finds
all events of one kind. systemd/shmconf.catalog explains each of them to `journalctl --catalog`.
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["Kind", "Priority"]


class Priority(IntEnum):
    """How bad it is, as syslog(3) counts: the smaller, the worse."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


class Kind(Enum):
    """What happened. A name and its id stay, once they were in a release."""

    PUBLISHED = ("94f872e7bd7d498abae931ce7f5559e2", Priority.INFO)
    """A new version is visible."""
    LAST_KNOWN_GOOD = ("851771cf59e54a2f95c2cc589eef7ba2", Priority.WARNING)
    """The files are invalid at the start; what was kept from before is served."""
    REJECTED = ("ca86faceb9654070b68e3faa39017aac", Priority.ERROR)
    """The files are invalid, or could not be published; the version before is served."""
    REPEATED = ("86beae7adc26426a80ffca96bab31d16", Priority.WARNING)
    """The same problems as before were found again, or are over: how often they were found."""
    HELD = ("cb1b3c599a844e8ba615305cc05db3b3", Priority.WARNING)
    """The guard holds a valid candidate; the version before is served."""
    ACCEPTED = ("15d8e43c649c414dab7cbdbef44b29b3", Priority.NOTICE)
    """Somebody let a candidate through that the guard held."""
    RELEASED = ("d17180c009a0435b8c2bbcc96dd0e672", Priority.NOTICE)
    """A candidate is held no more, as the files were changed."""
    ROLLED_BACK = ("dde38a440fe44909bc9a00fe17497d17", Priority.WARNING)
    """An earlier version is served again, and held: edits are not published."""
    ROLLBACK_REFUSED = ("81a90a07160247078bd38962e81ec7d8", Priority.ERROR)
    """Somebody asked for a rollback to a version that is not valid today."""
    WITHHELD = ("ad90a2b83dfd4b9480d3f774ccf0f9ab", Priority.WARNING)
    """The files were changed and are valid, and a rollback is held: they are not published."""
    RESUMED = ("1530a820f1df43068168abfa0f4b451d", Priority.NOTICE)
    """A rollback is held no more: the files are followed again."""
    VALID_AGAIN = ("5f5249e881984818b078d4b57620ce53", Priority.NOTICE)
    """The files are valid again, and equal to what is served."""
    RESTORED = ("5ba0ef6a767b478baf2388e2fca13156", Priority.WARNING)
    """Somebody removed the segment file; it was put back."""
    WATCHING = ("eaeee61a99c1436685f6eb335b9d6bd3", Priority.NOTICE)
    """How changes of files are heard of."""
    WARNING = ("3ad1132404c4498db2dcc8914604196a", Priority.WARNING)
    """What an operator should know, though nothing failed: of the sources, the disk, the history."""
    SETTINGS_REFUSED = ("fe6825d863444284b00f84bcd6c8a503", Priority.ERROR)
    """The agent's file, or a segment's part in it, was not taken; what was before is in force."""
    LEFT_OUT = ("1e5a436db7464ec7b79e8999967df430", Priority.NOTICE)
    """A segment is no longer in the agent's file."""
    STARTED = ("33dfe1ab1f8844deb9269ee9bf28d481", Priority.NOTICE)
    """The agent begins."""
    STOPPED = ("412054e3854c48a99c47e9b2cfca689a", Priority.NOTICE)
    """The agent was asked to stop, and has."""
    FAILED = ("b2050c57e2c042a6be6c2b01720e0cc4", Priority.CRITICAL)
    """A segment's loop has ended by itself, and the agent ends with it."""
    LINES_DROPPED = ("e42b26001c0c4849bd44c66d0fc89f14", Priority.WARNING)
    """Lines of the log are missing here, as nobody took them."""

    def __init__(self, message_id: str, priority: Priority) -> None:
        self.message_id = message_id
        self.priority = priority

    @property
    def label(self) -> str:
        """As JSON and the journal have it: `last-known-good`."""
        return self.name.lower().replace("_", "-")
