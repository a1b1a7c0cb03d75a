"""The exit codes: one place for what the documentation promises."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REJECTED: Final = 3  # status: serving last known good
NOT_ALIVE: Final = 4  # status: no live agent
UNAVAILABLE: Final = 69  # no such segment, or no agent
TIMED_OUT: Final = 75
INVALID: Final = 78  # the configuration is invalid
INTERRUPTED: Final = 130  # by Ctrl-C, as shells have it
