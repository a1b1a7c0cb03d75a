"""One segment's loop: look at the files, build a candidate, publish or reject, sleep until there is reason to look.

Events only shorten the sleep; what is served follows from what stands on the disk. Nothing that one attempt meets can
keep the next from starting clean: a failure is reported and the loop goes on. The thread of a Reconciler is the only
one that publishes in its segment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from shmconf.directories import Directory
from shmconf.errors import SegmentLocked

from . import collector
from .admin_socket import AdminSocket
from .commit import CommittedFiles, Files, RecordFile
from .config import SegmentConfig
from .edit_time import EditTime
from .events import Said, Say
from .gate import Gate
from .hold import Hold, Resume, RollBack, who
from .log_kinds import Kind
from .pipeline import Candidate, Pipeline
from .problems import Code, Invalid, Problem
from .progress import IDLE_SECONDS, Progress
from .publish import Publisher
from .reload import FAILED, Question
from .rollback import Rollbacks
from .sources import SourceFiles, View
from .tally import Tally
from .watch import Watcher
from .watch_log import WatchLog

_LONGEST_SLEEP = 1.0  # also how long a removed segment file may go unnoticed
_RETRY_SECONDS = 2.0  # after a failure that is not the files' fault: a full file system, say
_STILL_CHANGING_SECONDS = 10.0


class Reconciler:
    """Keeps one segment equal to its files, in a thread of its own."""

    def __init__(
        self,
        config: SegmentConfig,
        directory: Directory,
        state: Path,
        say: Say,
        make_socket: Callable[[str], AdminSocket] | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Open the segment. Raises SegmentLocked, Error, OSError, or Invalid for an unusable group.

        make_socket: of the segment's name, for as long as its lock is held; None for no admin socket. tally: counts
        what comes of the segment's files; None where nobody asks.
        """
        self.config = config
        self.name = config.name
        self.failure: str | None = None
        """Why the loop ended by itself; None while it goes on."""
        self._tally = tally or Tally()
        self._say = say = self._tally.listening(say)
        self._publisher = Publisher(config, directory, state, say)
        self._tally.follow(lambda: self._publisher.standing)
        self._edit_time = EditTime(config)
        self._progress = Progress()
        self._wake = threading.Event()
        self._watcher = Watcher(self._wake, self_test=True)
        self._watch_log = WatchLog(self._watcher)
        self._pipeline = Pipeline(config)
        files = SourceFiles(
            config,
            hints=self._watcher,
            nonblank=self._publisher.nonblank_files(),
            references=lambda texts: self._pipeline.references(texts, self._progress),
        )
        self._files: Files = files
        self._committed: CommittedFiles | None = None
        if config.commit is not None:
            record_file = RecordFile(state / f"{self.name}.commit")
            records = self._publisher.commits(record_file.load())
            self._files = self._committed = CommittedFiles(files, config.commit, record_file, records)
        self._rollbacks = Rollbacks(config, state, self._publisher, say)
        self._gate = Gate(config, self._publisher, self._pipeline, say)
        self._stopping = False
        self._new_questions: deque[Question] = deque()
        self._questions: list[Question] = []  # of which a look has begun
        self._judged: bytes | None = None  # fingerprint of the view last accepted or rejected
        self._has_judged = False  # in the turn at hand
        self._invalid = False  # whether the files were rejected then
        self._candidate: str | None = None  # the digest of what they make, if they were not
        # Of a fingerprint; when work on it began, and None once it was judged: what lets it pass later begins anew.
        self._built: tuple[bytes, Candidate | Invalid, float | None] | None = None
        self._schema_stamp: tuple[object, ...] = ()
        self._retry_at = float("inf")
        self.version = self._publisher.version
        self._thread: threading.Thread | None = None
        self._socket = make_socket(self.name) if make_socket is not None else None
        if self._socket is not None:
            self._socket.keep()
        self._tally.note(self._watcher.errors)

    def start(self) -> None:
        """Begin the loop."""
        self._thread = threading.Thread(target=self._run, name=f"shmconf-{self.name}", daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> None:
        """Judge the files anew, though they may look the same, and answer from that. From any thread."""
        self._new_questions.append(question)
        self._wake.set()

    def unanswered(self) -> list[Question]:
        """The questions that are left, once the loop `has_ended`."""
        return [*self._questions, *self._new_questions]

    @property
    def hold(self) -> Hold | None:
        """The rollback that is held; None for none. From any thread."""
        return self._publisher.hold

    def gets_on(self) -> bool:
        """Whether the loop does. From any thread."""
        return self._progress.is_current()

    def ask_to_stop(self) -> None:
        """End the loop soon. From any thread."""
        self._stopping = True
        self._wake.set()

    def has_ended(self) -> bool:
        """Whether the loop is over and the segment closed. From any thread."""
        return self._thread is not None and not self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """End the loop and close the segment, which stays for its readers; a stuck loop is left behind."""
        self.ask_to_stop()
        if self._thread is None:
            self._close()
        else:
            self._thread.join(timeout)

    def beat(self) -> bool:
        """Pass a heartbeat on if the loop gets on; whether it does. From any thread."""
        if not self.gets_on():
            return False
        self._publisher.beat()
        return True

    def summary(self) -> str:
        """A few words for the service manager. From any thread."""
        rejected = self._publisher.rejected
        served = f"{self.name}: version {self.version}" if self.version else f"{self.name}: nothing to serve yet"
        if (hold := self._publisher.hold) is not None:
            served += f", HELD: a rollback of version {hold.version} by {who(hold.uid)}"
        what = "rejected" if self._publisher.held is None else "held"
        return f"{served}, {what}: {rejected[0]}" if rejected else served

    def _run(self) -> None:
        try:
            while not self._stopping:
                next_look = self._guarded_turn()
                if self._has_judged:
                    self._has_judged = False
                    collector.tidy()
                self._sleep_until(next_look)
        except SegmentLocked as error:
            self.failure = str(error)
        except Exception as error:  # of the telling of a fault itself; the service manager begins anew
            self.failure = f"internal error: {type(error).__name__}: {error}{_where(error)}"
        finally:
            self._close()

    def _guarded_turn(self) -> float:
        """One turn; a fault of the turn itself is told and tried again, never the end of the loop."""
        try:
            with collector.stands_aside():
                next_look = self._turn()
            return next_look
        except SegmentLocked:
            raise
        except Exception as error:
            said = self._pipeline.censored(f"{type(error).__name__}: {error}")
            fault = f"internal error, will try again: {said}{_where(error)}"
            problems = [Problem(fault, code=Code.INTERNAL)]
            self._tally.begin()
            self._publisher.reject(problems)
            self._tally.end(problems)
            self._judged = None
            self._answer(lambda question: question.failed(problems))
            return time.monotonic() + _RETRY_SECONDS

    def _turn(self) -> float:
        """Look, judge if it is time to, and say when to look again (seconds of the monotonic clock)."""
        began, began_at = time.monotonic(), time.time()
        self._progress.step()
        self._rollbacks.complete(self._progress)
        anew = bool(self._new_questions)
        if anew:
            self._take_questions()
            self._obey()
            if self._committed is None:  # what was committed is judged again by the next commit only
                self._judged = self._built = None
                self._pipeline.read_schema_again()
            elif any(question.accept for question in self._questions):
                self._judged = None  # the candidate stays what it was, and may pass now
        schema_stamp = self._pipeline.schema_stamp()
        if schema_stamp != self._schema_stamp and self._committed is None:
            self._schema_stamp = schema_stamp
            self._judged = self._built = None
        if self._built is None or self._built[2] is None:
            self._progress.begin()
        with self._progress.stage("read", IDLE_SECONDS):
            view = self._files.look(anew=anew)
        self._edit_time.looked(view, began_at)
        self._watcher.follow(view.directories)
        self._publisher.tick()
        if self._socket is not None:
            self._socket.keep()  # the lock was confirmed just now
        self._publisher.note(self._notes(view, began))
        for text in self._watch_log.news():
            self._say(Said(self.name, text, self.version, Kind.WATCHING))
        due = not view.held and (view.fingerprint != self._judged or began >= self._retry_at)
        if view.held and not view.waiting and self._committed is not None:
            self._invalid = self._publisher.go_on(self._committed.resumes, self._committed.path)
        if due and view.committed is not None and (self._built is None or self._built[0] != view.fingerprint):
            self._pipeline.read_schema_again()
        if due and view.worth_building:
            verdict, building_began = self._build(view, began)
            ready = view.ready or (bool(self._questions) and view.whole)
            if ready and not self._stopping:
                with self._progress.stage("read", IDLE_SECONDS):
                    unchanged = self._files.unchanged(view)
                if not unchanged:
                    return began  # what was seen of the change just now will not be heard of again
                self._judge(view, verdict, building_began)
        self.version = self._publisher.version
        self._tally.note(self._watcher.errors)
        self._answer_from(view)
        if view.fingerprint == self._judged:
            self._pipeline.prepare()
        return min(view.next_look, self._retry_at)

    def _take_questions(self) -> None:
        """The look that is about to begin is the one that they ask for."""
        while self._new_questions:
            self._questions.append(self._new_questions.popleft())

    def _obey(self) -> None:
        """Roll back and resume, in the order in which it was asked for. A rollback is answered from that alone; the
        files are judged anew after either."""
        left = []
        for question in self._questions:
            if isinstance(question.order, RollBack):
                if question.is_wanted:
                    self._judged = None
                    verdict, problems = self._rollbacks.roll_back(question.order, self._progress)
                    publisher = self._publisher
                    question.settled(verdict, publisher.version, publisher.digest, problems, publisher.hold)
            elif isinstance(question.order, Resume):
                self._judged = None
                hold, refused = self._rollbacks.resume(question.order)
                if refused:
                    publisher = self._publisher
                    question.settled(FAILED, publisher.version, publisher.digest, refused, publisher.hold)
                else:
                    question.released(hold)
                    left.append(question)
            else:
                left.append(question)
        self._questions = left
        self.version = self._publisher.version

    def _answer_from(self, view: View) -> None:
        """Every file has been read since the questions were taken, or is in flux."""
        self._questions = [question for question in self._questions if question.is_wanted]
        publisher = self._publisher
        if not view.whole:
            files = [flux.file for flux in view.in_flux]
            for question in self._questions:
                question.waits_for(files, publisher.version, publisher.digest)
        elif view.held or view.fingerprint == self._judged:
            self._answer(
                lambda question: question.judged(
                    publisher.version,
                    publisher.digest,
                    publisher.rejected,
                    invalid=self._invalid,
                    awaits_commit=view.awaits_commit,
                    candidate=self._candidate,
                    held=publisher.held,
                    hold=publisher.hold,
                )
            )

    def _answer(self, answer: Callable[[Question], None]) -> None:
        questions, self._questions = self._questions, []
        for question in questions:
            answer(question)

    def _build(self, view: View, now: float) -> tuple[Candidate | Invalid, float]:
        """The pipeline's verdict on the view and when work on it began; from before if it is the same view."""
        if self._built is None or self._built[0] != view.fingerprint:
            verdict: Candidate | Invalid
            self._progress.begin("read")
            try:
                verdict = self._pipeline.run(view, self._progress)
            except Invalid as invalid:
                verdict = Invalid(invalid.problems)  # without the traceback, which holds on to trees and texts
            self._built = (view.fingerprint, verdict, now)
        _, built, began = self._built
        return built, now if began is None else began

    def _judge(self, view: View, verdict: Candidate | Invalid, began: float) -> None:
        self._has_judged = True
        self._tally.begin(self._edit_time.of(view))
        self._judge_counted(view, verdict, began)
        self._tally.end(self._publisher.rejected)

    def _judge_counted(self, view: View, verdict: Candidate | Invalid, began: float) -> None:
        self._retry_at = float("inf")
        self._judged = view.fingerprint
        self._built = (view.fingerprint, verdict, None)
        self._invalid = isinstance(verdict, Invalid)
        if isinstance(verdict, Invalid):
            self._candidate = None
            self._publisher.reject(verdict.problems, asked=bool(self._questions))
            self._files.reject(view)
            return
        self._candidate = verdict.document.digest
        if self._rollbacks.holds and not self._publisher.serves(verdict):
            self._publisher.withhold(verdict, view.changed)
            self._files.withhold(view)
            return
        accepted = [question.accept for question in self._questions if question.accept and question.is_wanted]
        if held := self._gate.held(verdict, view, accepted, self._progress):
            self._publisher.reject(held, verdict.document.digest, asked=bool(self._questions))
            self._files.reject(view)
        elif self._publisher.publish(verdict, view.changed, began, self._progress.timings):
            self._files.accept(view)
            self._edit_time.accepted(view)
            self._gate.passed(verdict)
        else:
            self._files.reject(view)
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _notes(self, view: View, now: float) -> list[str]:
        notes = [*self._watcher.notes, *view.notes]
        if self._rollbacks.problem is not None:
            notes.append(self._rollbacks.problem)
        if self._socket is not None and self._socket.problem is not None:
            notes.append(self._socket.problem)
        notes += [
            f"{file.file} has been changing for more than {_STILL_CHANGING_SECONDS:.0f} s and is not taken; "
            "its last whole content is served"
            for file in view.in_flux
            if not file.vanished and now - file.since >= _STILL_CHANGING_SECONDS
        ]
        return notes

    def _sleep_until(self, moment: float) -> None:
        # Looking clears `_wake`: what else was asked for in the meantime stands in these two.
        if not (self._stopping or self._new_questions):
            self._wake.wait(min(max(moment - time.monotonic(), 0.0), _LONGEST_SLEEP))

    def _close(self) -> None:
        self._watcher.close()
        self._pipeline.close()
        if self._socket is not None:
            self._socket.close()
        self._publisher.close()


def _where(error: Exception) -> str:
    """The innermost place of a fault of ours, for the report that somebody will make of it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
