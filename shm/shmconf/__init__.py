"""shmconf: read a configuration that an agent keeps in shared memory.

>>> import shmconf                                   # doctest: +SKIP
>>> config = shmconf.attach("web")                   # doctest: +SKIP
>>> config.get("db.pool.size", default=10)           # doctest: +SKIP

Everything here needs msgpack alone and never blocks on the agent. See `Reader` and `Snapshot`.
"""

from .directories import InvalidName
from .errors import (
    Error,
    PathError,
    SegmentBusy,
    SegmentCorrupt,
    SegmentIncompatible,
    SegmentNotFound,
    SegmentUntrusted,
)
from .reader import Reader, attach
from .snapshot import Snapshot
from .status import AgentStatus, Hold, Status

__version__ = "0.1.0"

__all__ = [
    "AgentStatus",
    "Error",
    "Hold",
    "InvalidName",
    "PathError",
    "Reader",
    "SegmentBusy",
    "SegmentCorrupt",
    "SegmentIncompatible",
    "SegmentNotFound",
    "SegmentUntrusted",
    "Snapshot",
    "Status",
    "attach",
]
