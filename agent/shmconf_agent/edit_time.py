"""When the edit was made that a new version shows: by the times of the changed files, so far as they can be believed.

A file that is newly named by a link may be of any age, and a server's clock may go wrong; but at the last look that
found everything as it is served the edit was not there yet, so it is never taken to be older than that. A file that is
gone leaves its time in its directory. Of a segment with a commit path, the commit is the edit that counts.
"""

from __future__ import annotations

import os

from .config import SegmentConfig
from .view import View

__all__ = ["EditTime"]

_NS = 1e9


class EditTime:
    """Of one segment, and of its reconciler's thread."""

    def __init__(self, config: SegmentConfig) -> None:
        """Nothing was looked at yet, and what the first version shows is no edit."""
        self._base = os.path.abspath(config.base)
        self._commit = None if config.commit is None else os.path.join(self._base, config.commit)
        self._looked_at = 0.0
        self._unedited_at: float | None = None

    def looked(self, view: View, began_at: float) -> None:
        """What a look found that began at that time, in seconds since 1970."""
        self._looked_at = began_at
        if not view.changed:
            self.accepted(view)

    def accepted(self, view: View) -> None:
        """What the last look found is what is served."""
        if view.whole:
            self._unedited_at = self._looked_at

    def of(self, view: View) -> float | None:
        """When the last of the files changed that the view has otherwise than what is served, in seconds since 1970.

        None for the first version, and where other things than files made the difference.
        """
        if self._unedited_at is None or not view.changed:
            return None
        layers = [*view.layers, *([view.schema] if view.schema is not None else [])]
        paths = {layer.file: layer.path for layer in layers}
        paths |= {file.file: file.path for file in view.references.values()}
        times = [_changed_at(paths.get(name) or os.path.join(self._base, name)) for name in view.changed]
        if self._commit is not None:
            times.append(_changed_at(self._commit))
        return max(self._unedited_at, *times)


def _changed_at(path: str) -> float:
    """Of the file, and of the link to it, if it is one; where nothing is, of the directory that it was in."""
    try:
        return max(os.lstat(path).st_ctime_ns, os.stat(path).st_ctime_ns) / _NS
    except OSError:
        try:
            return os.stat(os.path.dirname(path)).st_mtime_ns / _NS
        except OSError:
            return 0.0
