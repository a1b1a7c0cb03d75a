"""Python's garbage collector, kept out of the way of a reload.

A collection that begins by itself stops every thread for as long as it takes to look at all that lives, and it begins
when much was made: in the midst of a reload. So it is off while any segment's loop is at work, whichever thread that
is in, and on in between; what a reload left behind is collected as soon as its verdict is out. What the agent holds
from its start on is not looked at any more. Reference counts go on freeing all that is in no cycle, which is nearly
everything; so little is left for the collector, and memory stays bounded.

All functions may be called from any thread. They speak for the whole process, as the collector is one.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settle", "stands_aside", "tidy"]

_LONGEST_S = 10.0  # how long it may be off altogether, where some loop is always at work
_YOUNG = 1  # the generations that hold what a reload made

_lock = threading.Lock()
_at_work = 0
_off_since = 0.0
_was_on = True


@contextmanager
def stands_aside() -> Iterator[None]:
    """No collection begins by itself meanwhile, in any thread; afterwards it is as it was before, whatever happened."""
    global _at_work, _off_since, _was_on
    with _lock:
        _at_work += 1
        if _at_work == 1:
            _was_on, _off_since = gc.isenabled(), time.monotonic()
            gc.disable()
    try:
        yield
    finally:
        with _lock:
            _at_work -= 1
            if _at_work == 0 and _was_on:
                gc.enable()


def tidy() -> None:
    """Collect what was made lately, unless another loop is at work, which will do it in its turn."""
    global _off_since
    with _lock:
        now = time.monotonic()
        if _at_work and now - _off_since < _LONGEST_S:
            return
        _off_since = now
    gc.collect(_YOUNG)


def settle() -> None:
    """Everything was started: collect once, and leave what lives out of every collection from here on."""
    gc.collect()
    gc.freeze()
