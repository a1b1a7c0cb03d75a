"""The terminal of whoever calls a verb: whether it may have colours, and a sign of life while something takes long."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 120
_PATIENCE_SECONDS = 1.0  # what takes less is its own sign of life
_TURN_SECONDS = 0.1


def colourless() -> bool:
    """Whether the user wants no colours (`NO_COLOR`) or has none (`TERM=dumb`): then there are no codes in a text."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")


def console() -> Console:
    """Stdout for rich, `COLUMNS` or the window wide, at most 120."""
    from rich.console import Console  # verbs that draw nothing start faster without it

    made = Console(highlight=False, color_system=None if colourless() else "auto")
    made.width = min(made.width, WIDEST)
    return made


class Waiting:
    """What is being waited for, in words that may change while it goes on. Any thread may say them."""

    def __init__(self, text: str) -> None:
        """text: what is done now."""
        self.text = text


@contextmanager
def waiting(text: str) -> Iterator[Waiting]:
    """While something is done that may take longer than a second: then, if stderr is a terminal, a line there tells
    what and for how long, and goes when it is over. Print nothing meanwhile. Where stderr is no terminal, nothing is
    shown."""
    told = Waiting(text)
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield told
        return
    over = threading.Event()
    thread = threading.Thread(target=_show, args=(told, over), name="shmconf-waiting", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def _show(told: Waiting, over: threading.Event) -> None:
    began = time.monotonic()
    if over.wait(_PATIENCE_SECONDS):
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    screen = Console(stderr=True, highlight=False, color_system=None if colourless() else "auto")
    spinner = Spinner("line" if screen.options.ascii_only else "dots")
    with Live(
        spinner, console=screen, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:
        while True:
            line = Text(f"{told.text} … {time.monotonic() - began:.0f} s", no_wrap=True, overflow="ellipsis")
            spinner.update(text=line)
            live.refresh()
            if over.wait(_TURN_SECONDS):
                return
