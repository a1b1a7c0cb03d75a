"""Whether a reconciler still gets on: the one fact that feeds the heartbeat and systemd's watchdog.

The reconciler names each stage with the time that it may take; a feeder in another thread asks `is_current`. A loop
that is stuck, even in a stage that never returns, stops the feeding once that time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

IDLE_SECONDS = 5.0  # a healthy loop comes round far more often


class Progress:
    """One reconciler's deadline. Written by its thread, read by the feeder; each access is one attribute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Current for the first few seconds."""
        self._clock = clock
        self._deadline = clock() + IDLE_SECONDS
        self.timings: dict[str, float] = {}
        """Seconds of each stage since `begin`, in the order in which they came."""

    def begin(self, *keep: str) -> None:
        """New work: forget the timings, but for these stages."""
        self.timings = {name: self.timings[name] for name in keep if name in self.timings}

    def step(self, seconds: float = IDLE_SECONDS) -> None:
        """Still here; expect the next step within `seconds`."""
        self._deadline = self._clock() + seconds

    @contextmanager
    def stage(self, name: str, seconds: float) -> Iterator[None]:
        """A stage that may take up to `seconds`; its duration is added to `timings`."""
        began = self._clock()
        self._deadline = began + seconds
        try:
            yield
        finally:
            ended = self._clock()
            self.timings[name] = self.timings.get(name, 0.0) + ended - began
            self._deadline = ended + IDLE_SECONDS

    def is_current(self) -> bool:
        """Whether the last step's time is not over yet."""
        return self._clock() <= self._deadline
