"""One segment's loop: look at the files, build a candidate, publish or reject, sleep until there is reason to look.

Events only shorten the sleep; what is served follows from what stands on the disk. Nothing that one attempt meets can
keep the next from starting clean: a failure is reported and the loop goes on. The thread of a Reconciler is the only
one that publishes in its segment.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from shmconf.directories import Directory
from shmconf.errors import SegmentLocked

from .config import SegmentConfig
from .events import Say
from .pipeline import Candidate, Pipeline
from .problems import Invalid, Problem
from .progress import Progress
from .publish import Publisher
from .sources import SourceFiles, View
from .watch import Watcher

_LONGEST_SLEEP = 1.0  # also how long a removed segment file may go unnoticed
_RETRY_SECONDS = 2.0  # after a failure that is not the files' fault: a full file system, say
_STILL_CHANGING_SECONDS = 10.0


class Reconciler:
    """Keeps one segment equal to its files, in a thread of its own."""

    def __init__(self, config: SegmentConfig, directory: Directory, state: Path, say: Say) -> None:
        """Open the segment. Raises SegmentLocked, Error, OSError, or Invalid for an unknown group."""
        self.config = config
        self.name = config.name
        self.failure: str | None = None
        """Why the loop ended by itself; None while it goes on."""
        self._say = say
        self._publisher = Publisher(config, directory, state, say)
        self._progress = Progress()
        self._wake = threading.Event()
        self._watcher = Watcher(self._wake)
        self._files = SourceFiles(config, hints=self._watcher, nonblank=self._publisher.nonblank_files())
        self._pipeline = Pipeline(config)
        self._stopping = False
        self._again = False
        self._judged: bytes | None = None  # fingerprint of the view last accepted or rejected
        self._built: tuple[bytes, Candidate | Invalid, float] | None = None  # of a fingerprint; when work on it began
        self._schema_stamp: tuple[object, ...] = ()
        self._retry_at = float("inf")
        self._fault: str | None = None
        self.version = self._publisher.version
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the loop."""
        self._thread = threading.Thread(target=self._run, name=f"shmconf-{self.name}", daemon=True)
        self._thread.start()

    def read_again(self) -> None:
        """Judge the files anew although they look the same. From any thread."""
        self._again = True
        self._wake.set()

    def ask_to_stop(self) -> None:
        """End the loop soon. From any thread."""
        self._stopping = True
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """End the loop and close the segment, which stays for its readers; a stuck loop is left behind."""
        self.ask_to_stop()
        if self._thread is None:
            self._close()
        else:
            self._thread.join(timeout)

    def beat(self) -> bool:
        """Pass a heartbeat on if the loop gets on; whether it does. From any thread."""
        if not self._progress.is_current():
            return False
        self._publisher.beat()
        return True

    def summary(self) -> str:
        """A few words for the service manager. From any thread."""
        rejected = self._publisher.rejected
        served = f"{self.name}: version {self.version}" if self.version else f"{self.name}: nothing to serve yet"
        return f"{served}, rejected: {rejected[0]}" if rejected else served

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._sleep_until(self._guarded_turn())
        except SegmentLocked as error:
            self.failure = str(error)
        except Exception as error:  # of the telling of a fault itself; the service manager begins anew
            self.failure = f"internal error: {type(error).__name__}: {error}{_where(error)}"
        finally:
            self._close()

    def _guarded_turn(self) -> float:
        """One turn; a fault of the turn itself is told and tried again, never the end of the loop."""
        try:
            next_look = self._turn()
            self._fault = None
            return next_look
        except SegmentLocked:
            raise
        except Exception as error:
            fault = f"internal error, will try again: {type(error).__name__}: {error}{_where(error)}"
            if fault != self._fault:
                self._fault = fault
                self._publisher.reject([Problem(fault)])
            self._judged = None
            return time.monotonic() + _RETRY_SECONDS

    def _turn(self) -> float:
        """Look, judge if it is time to, and say when to look again (seconds of the monotonic clock)."""
        began = time.monotonic()
        self._progress.step()
        if self._again:
            self._again = False
            self._judged = self._built = None
        schema_stamp = self._pipeline.schema_stamp()
        if schema_stamp != self._schema_stamp:
            self._schema_stamp = schema_stamp
            self._judged = self._built = None
        view = self._files.look()
        self._watcher.follow(view.directories)
        self._publisher.note(self._notes(view, began))
        self._publisher.tick()
        due = view.fingerprint != self._judged or began >= self._retry_at
        if due and view.worth_building:
            verdict, building_began = self._build(view, began)
            if view.ready and not self._stopping and self._files.unchanged(view):
                self._judge(view, verdict, building_began)
        if view.fingerprint == self._judged:
            self._pipeline.prepare()
        self.version = self._publisher.version
        return min(view.next_look, self._retry_at)

    def _build(self, view: View, now: float) -> tuple[Candidate | Invalid, float]:
        """The pipeline's verdict on the view and when work on it began; from before if it is the same view."""
        if self._built is None or self._built[0] != view.fingerprint:
            verdict: Candidate | Invalid
            try:
                verdict = self._pipeline.run(view, self._progress)
            except Invalid as invalid:
                verdict = invalid
            self._built = (view.fingerprint, verdict, now)
        return self._built[1:]

    def _judge(self, view: View, verdict: Candidate | Invalid, began: float) -> None:
        self._retry_at = float("inf")
        self._judged = view.fingerprint
        if isinstance(verdict, Invalid):
            self._publisher.reject(verdict.problems)
            self._files.reject(view)
        elif self._publisher.publish(verdict, view.changed, began):
            self._files.accept(view)
        else:
            self._files.reject(view)
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _notes(self, view: View, now: float) -> list[str]:
        notes = [*self._watcher.notes, *view.notes]
        notes += [
            f"{file.file} has been changing for more than {_STILL_CHANGING_SECONDS:.0f} s and is not taken; "
            "its last whole content is served"
            for file in view.in_flux
            if not file.vanished and now - file.since >= _STILL_CHANGING_SECONDS
        ]
        return notes

    def _sleep_until(self, moment: float) -> None:
        # Looking clears `_wake`: what else was asked for in the meantime stands in these two.
        if not (self._stopping or self._again):
            self._wake.wait(min(max(moment - time.monotonic(), 0.0), _LONGEST_SLEEP))

    def _close(self) -> None:
        self._watcher.close()
        self._pipeline.close()
        self._publisher.close()


def _where(error: Exception) -> str:
    """The innermost place of a fault of ours, for the report that somebody will make of it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
