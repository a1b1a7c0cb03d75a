"""Reloads that were asked for with SIGHUP, as the service manager hears of them: RELOADING=1, and READY=1 at the end.

That is the protocol of Type=notify-reload (sd_notify(3)); Type=notify shows the unit as reloading meanwhile, too. The
end is that every segment has judged its files, whatever the verdict: that one is told elsewhere. A file that never
comes to rest does not make it last for ever.
"""

from __future__ import annotations

import time

from .notify import Notifier
from .reload import Reload

MOST_SECONDS = 60.0
"""After so long the manager hears READY=1 all the same."""


class HangUps:
    """Used by the agent's main thread."""

    def __init__(self, notifier: Notifier) -> None:
        """Nothing is under way."""
        self._notifier = notifier
        self._under_way: list[tuple[Reload, float]] = []

    def begin(self, *, ready: bool) -> Reload:
        """What is to be asked of all segments. ready: whether the manager has heard that the agent is: no one reloads
        what has not started."""
        reload = Reload(None, lambda: None)
        if ready:
            self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
            self._under_way.append((reload, time.monotonic() + MOST_SECONDS))
        return reload

    def look(self) -> None:
        """Tell the manager if all that was under way has ended."""
        if not self._under_way:
            return
        now = time.monotonic()
        for reload, deadline in self._under_way:
            if now < deadline and not reload.is_complete():
                return
            reload.abandoned = True
        self._under_way.clear()
        self._notifier.send(READY="1")

    @property
    def are_under_way(self) -> bool:
        """Whether the manager waits for the end of one."""
        return bool(self._under_way)
