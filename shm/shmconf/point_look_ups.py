"""Looking values up in the segment itself: a path is walked through the index, and only its value leaves the segment.

What is cached is scalars of the version that is published now; `_native.LookUps` keeps them and answers from them
without a Python frame. This module is the way there when the cache has no answer. A new version costs nothing until
something is looked up, and then what the path costs, whatever the size of the configuration.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from . import _native, codec
from .errors import PathError, SegmentCorrupt
from .paths import MISSING, PathLike, as_path

if TYPE_CHECKING:
    from .native_attachment import NativeAttachment
    from .snapshot import Snapshot

_SCALARS = frozenset({str, int, float, bool, type(None), bytes, datetime, date, time})


class LookUps(_native.LookUps):
    """`get`, `[]`, `in` and `version` of a Reader; see there."""

    __slots__ = ()

    if TYPE_CHECKING:  # the Reader's

        def _in_use(self) -> Any: ...  # a NativeAttachment, which only this variant has
        def _latest(self) -> Snapshot: ...
        def _reopen(self, at_once: bool = False) -> bool: ...

    def _look_up_anew(self, path: PathLike) -> Any:
        """The value at a path, remembered if it is a scalar; MISSING where there is none. Raises PathError."""
        return self._find(path, path, by_path=True)

    def _look_up_key_anew(self, key: Any) -> Any:
        """The same for one key of the top level."""
        return self._find((key,), key, by_path=False)

    def _find(self, path: PathLike, asked: Any, by_path: bool) -> Any:
        while True:
            attachment: NativeAttachment = self._in_use()
            try:
                found = attachment.find(path)
                if found is NotImplemented:  # malformed, or with a part of a rarer type, such as a date
                    as_path(path)
                    return self._latest().look_up(path)
                version, encoded = found
                if encoded is None and version > 0:
                    return MISSING
                if encoded is None:  # the name leads to a published version only; a zero here is damage
                    raise SegmentCorrupt(f"{attachment.path}: the published version is gone")
                value = codec.unpack(encoded)
            except PathError:
                raise
            except (SegmentCorrupt, ValueError) as error:
                if self._reopen(at_once=True):
                    continue
                if isinstance(error, SegmentCorrupt):
                    raise
                raise SegmentCorrupt(f"{attachment.path}: {error}") from None
            if self._is_found_again(version) and type(value) in _SCALARS:
                self._remember(attachment, version, by_path, asked, value)
            return value
