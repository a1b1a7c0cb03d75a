"""One inotify instance and the thread that reads it: watchdog's `InotifyFD`, made fit to be supervised.

Taken directly, below watchdog's `Observer`: an observer holds back every event of a directory for 501 ms once a file
is moved out of it, follows renames on its own account, and keeps one instance for the whole process. `InotifyFD`
reads the kernel's events and hands each to the callback of its watch at once. That is so from release 7.1 on, which the
package asks for: there a watch has callbacks of its own that hear of its end and of a queue that overflowed, which 6.0
dropped without a word. The next major release may change that again, and is not taken. What it lacks is added here:

- however the thread ends, `ended` is called, from that thread, and `release` leaves no descriptor open;
- `caught_up` tells whether all that the kernel had queued has reached its callback, so that a look at the disk can
  be sure that it knows of every event before it;
- the descriptor is not handed to programs that the process starts.

Importing this module raises ImportError or watchdog's UnsupportedLibcError where there is no inotify.
"""

from __future__ import annotations

import array
import fcntl
import os
import sys
import termios
import threading
from collections.abc import Callable

from watchdog.observers.inotify_c import CallbackId, InotifyFD, Mask

if sys.platform != "linux":  # the C library's names alone do not tell
    raise ImportError("inotify is part of Linux")

__all__ = ["CallbackId", "Inotify", "Mask"]


class Inotify(InotifyFD):
    """A running inotify instance with its thread.

    The constructor raises OSError (EMFILE at the limit of instances or of open files) or RuntimeError (no thread to
    be had); it leaves nothing open then. Watches are set by `add_callback`, which raises OSError (ENOSPC at the limit
    of watches) but returns -1 where the directory may not be read. `ended` must not raise.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._inotify_fd = -1
        try:
            super().__init__()
        except OSError:  # of the pipe, after the instance
            if self._inotify_fd != -1:
                os.close(self._inotify_fd)
            raise
        os.set_inheritable(self._inotify_fd, False)
        self.name = "shmconf-inotify"
        self._ended = ended
        self._closing = threading.Lock()
        self._released = False
        self._handling = False
        self._finished = False
        try:
            self.start()
        except RuntimeError:
            self._close_resources()
            raise

    def run(self) -> None:
        """Hands on events until stopped, or until the instance is of no more use."""
        try:
            while self.should_keep_running():
                events = self.read_events()
                for event in events:
                    self.handle_event(event)
                self._handling = False
                if not events:  # stopped, or the descriptor was closed by somebody else: reading it again would spin
                    os.fstat(self._inotify_fd)
        except OSError:
            pass  # the supervisor sees the thread gone and begins anew
        finally:
            self._finished = True
            self._ended()

    @property
    def finished(self) -> bool:
        """Whether the thread hands on no more events. True before `ended` is called."""
        return self._finished or not self.is_alive()

    def caught_up(self) -> bool:
        """Whether every event that was queued when this was called has been handled. Never blocks."""
        queued = array.array("i", [0])
        with self._closing:
            if self._released or self.finished:
                return True
            try:
                fcntl.ioctl(self._inotify_fd, termios.FIONREAD, queued)
            except OSError:
                return True
        # In this order: the thread marks itself as handling before it takes events out of the queue.
        return queued[0] == 0 and not self._handling

    def release(self) -> None:
        """Stops the thread, waits for it and closes every descriptor. May be called again, and after its end."""
        self.stop()
        self.join(5.0)
        if not self.is_alive():
            self._close_resources()

    def _check_inotify_fd(self) -> bool:
        readable = super()._check_inotify_fd()
        self._handling = readable
        return readable

    def _close_resources(self) -> None:
        with self._closing:
            if not self._released:
                self._released = True
                super()._close_resources()
