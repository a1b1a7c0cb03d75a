"""Looking values up in whole snapshots: the pure-Python path.

The first look-up after a new version copies, verifies and decodes it; those after it find it decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .paths import MISSING, PathLike

if TYPE_CHECKING:
    from .attachment import Attachment
    from .registration import Membership
    from .snapshot import Snapshot

_LOOK_UPS_PER_CHECK = 1024


class LookUps:
    """`get`, `[]`, `in` and `version` of a Reader; see there."""

    __slots__ = ("_adopted", "_attachment", "_count", "_membership")

    if TYPE_CHECKING:  # the Reader's

        def _attached(self) -> Attachment: ...
        def _follow_name(self) -> None: ...
        def _latest(self) -> Snapshot: ...

    def __init__(self) -> None:
        """Attached to nothing yet."""
        self._attachment: Any = None
        self._count = 0
        self._membership: Any = None
        self._adopted = 0

    @property
    def version(self) -> int:
        """The version now in shared memory: one atomic load, which alone never follows a replacement."""
        return self._attached().latest()[0]

    def get(self, path: PathLike, default: Any = None) -> Any:
        """The value at `path` (dotted text, or a tuple of keys), or `default` where there is none.

        Containers are fresh at each call. Never blocks. Raises PathError for malformed text, SegmentCorrupt or
        SegmentBusy where the segment itself is at fault, Error once the Reader is closed.
        """
        found = self._for_look_up().look_up(path)
        return default if found is MISSING else found

    def __getitem__(self, key: Any) -> Any:
        """One key of the top level, or a tuple as a path. Raises KeyError."""
        return self._for_look_up()[key]

    def __contains__(self, key: object) -> bool:
        """Whether the key (or tuple as a path) is there."""
        return key in self._for_look_up()

    def _adopt(self, version: int) -> None:
        """Something was looked up at `version`: of a new one, whoever counts the workers is to know."""
        if version != self._adopted:
            self._adopted = version
            membership: Membership | None = self._membership
            if membership is not None:
                membership.adopt(version)

    def _for_look_up(self) -> Snapshot:
        self._count += 1
        if self._count % _LOOK_UPS_PER_CHECK == 0:
            self._follow_name()
        return self._latest()
