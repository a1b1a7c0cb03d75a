"""What the log says of watching beside the warnings: what could not be proved, and that a trouble is over."""

from __future__ import annotations

from .self_test import untested
from .watch import RESCAN_S, Watcher

__all__ = ["WatchLog"]

_AGAIN = f"every directory is watched again; the files are looked at every {RESCAN_S:.0f} s besides, as before"


class WatchLog:
    """Of one Watcher, and of its thread."""

    def __init__(self, watcher: Watcher) -> None:
        """Nothing was said yet."""
        self._watcher = watcher
        self._untested: str | None = None
        self._polled = False

    def news(self) -> list[str]:
        """What is to be said now, each thing once."""
        said = []
        text = untested(self._watcher.self_tests)
        if text is not None and text != self._untested:
            self._untested = text
            said.append(text)
        polled = self._watcher.rescan_s != RESCAN_S
        if self._polled and not polled:
            said.append(_AGAIN)
        self._polled = polled
        return said
