"""What the libraries that the agent uses have to say takes the agent's own way: one line, and nobody waits for it.

Without this, Python's logging would write to stderr at once, and a thread that watches files would hang in it where
nobody reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .events import Said, Say

__all__ = ["relayed"]

_QUIET_SECONDS = 60.0  # before the same is said again
_MOST_KNOWN = 100


class _Relay(logging.Handler):
    def __init__(self, say: Say, clock: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._clock = clock
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{record.name}: {record.getMessage()}"
            if record.exc_info and (error := record.exc_info[1]):
                text += f": {type(error).__name__}: {error}"
        except Exception as error:  # of the arguments of a library's message
            text = f"{record.name}: {record.msg!r}: {type(error).__name__}: {error}"
        now = self._clock()
        if now - self._told.get(text, -_QUIET_SECONDS) >= _QUIET_SECONDS:
            if len(self._told) >= _MOST_KNOWN:
                self._told.clear()
            self._told[text] = now
            self._say(Said(None, text))


@contextmanager
def relayed(say: Say, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Meanwhile warnings and errors of libraries are said; from any thread. The same one at most once a minute."""
    relay = _Relay(say, clock)
    logging.getLogger().addHandler(relay)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(relay)
