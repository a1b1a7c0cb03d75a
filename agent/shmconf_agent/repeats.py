"""How often the same rejection was found again, and when to say so: at once, then ever more rarely, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Repeats"]

_FIRST_GAP_SECONDS = 1.0
_LONGEST_GAP_SECONDS = 600.0


class Repeats:
    """Of one segment's rejection. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: in seconds."""
        self._clock = clock
        self._start(0)

    def _start(self, problems: int) -> None:
        self._problems = problems
        self._times = 1
        self._told = 1
        self._gap = _FIRST_GAP_SECONDS
        self._quiet_until = -float("inf")

    def begin(self, problems: int) -> str | None:
        """So many problems were found, and told of; others than before. What is left to be said of those before."""
        left = self.end()
        self._start(problems)
        return left

    def again(self) -> str | None:
        """The same were found again; what is to be said of it, if anything."""
        self._times += 1
        now = self._clock()
        if now < self._quiet_until:
            return None
        self._quiet_until = now + self._gap
        self._gap = min(2 * self._gap, _LONGEST_GAP_SECONDS)
        self._told = self._times
        return f"the same {_counted(self._problems)} for the {_ordinal(self._times)} time"

    def end(self) -> str | None:
        """They are over; how often they were found, where that was not told yet."""
        if self._told == self._times:
            return None
        self._told = self._times
        was = "was" if self._problems == 1 else "were"
        return f"the {_counted(self._problems)} before {was} found {self._times:,} times in all"


def _counted(problems: int) -> str:
    return "problem" if problems == 1 else f"{problems:,} problems"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number:,}{ending}"
