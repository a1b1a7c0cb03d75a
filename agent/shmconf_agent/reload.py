"""One request to read the files again, to roll back or to resume, and the verdict for each segment that it is about.

Whoever asks makes a `Reload` and hands it to the agent. The agent's main thread says with `begin` which segments it is
about; each segment's reconciler answers its `Question` from a look at the disk that began after the question came to
it. Nothing is answered from what was known before, and every question is answered once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shmconf import Hold

from .events import problem_fields
from .hold import Order
from .problems import Code, Problem
from .render import DIGEST_DIGITS, hold_fields

PUBLISHED: Final = "published"
UNCHANGED: Final = "unchanged"
HELD: Final = "held"  # by the guard, though valid; or, whatever they are, by a rollback
ROLLED_BACK: Final = "rolled-back"  # what was asked for is served, and held
NOT_KEPT: Final = "not-kept"  # there is no such version to roll back to
REJECTED: Final = "rejected"  # the files are invalid, or the agent's own file is
FAILED: Final = "failed"  # valid, and yet not served
GONE: Final = "gone"  # the agent does not know this segment (any more)
TIMEOUT: Final = "timeout"  # no verdict yet
# What a client says in the place of a verdict that it did not get.
UNAVAILABLE: Final = "unavailable"  # no agent
REFUSED: Final = "refused"  # no right to ask
BUSY: Final = "busy"  # too many others ask


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the files of one segment.

    version and digest: of what is served now; 0 and None where nothing is. waited_for: the files that were being
    written, or had just vanished, when the look began, and had to be waited for; of a TIMEOUT those that are so still.
    awaits_commit: the commit path for whose change edits wait that are not served; None where there are none.
    held: of HELD, the digest of the candidate that the files make, if it is the guard that holds it. hold: the rollback
    that is held. released: the one that was held until this was asked.
    """

    segment: str
    verdict: str
    version: int = 0
    digest: str | None = None
    problems: tuple[Problem, ...] = ()
    waited_for: tuple[str, ...] = ()
    awaits_commit: str | None = None
    held: str | None = None
    hold: Hold | None = None
    released: Hold | None = None

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "segment": self.segment,
            "verdict": self.verdict,
            "version": self.version,
            "digest": self.digest,
            "problems": [problem_fields(problem) for problem in self.problems],
            "waited_for": list(self.waited_for),
            "awaits_commit": self.awaits_commit,
            "held": self.held,
            "hold": hold_fields(self.hold),
            "released": hold_fields(self.released),
        }


class Question:
    """What one segment is asked. From its reconciler's thread, or before that from the main thread."""

    def __init__(self, reload: Reload, segment: str, version: int, problems: Sequence[Problem] = ()) -> None:
        """version: what was served when the question was put. problems: why the agent's own file was not taken."""
        self.segment = segment
        self._reload = reload
        self._version = version
        self._problems = tuple(problems)
        self._waited_for: dict[str, None] = {}
        self._waiting_for: tuple[str, ...] = ()
        self._served: tuple[int, str | None] = (version, None)
        self._released: Hold | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self._reload.abandoned

    @property
    def accept(self) -> str | None:
        """The beginning of the digest of the candidate that is to be published although the guard holds it."""
        return self._reload.accept

    @property
    def order(self) -> Order | None:
        """What is asked besides a look at the files."""
        return self._reload.order

    def released(self, hold: Hold | None) -> None:
        """This was held until now."""
        self._released = hold

    def settings_refused(self, problems: Iterable[Problem]) -> None:
        """The segment goes on, but not as the agent's file has it."""
        self._problems += tuple(problem for problem in problems if problem not in self._problems)

    def waits_for(self, files: Sequence[str], version: int, digest: str | None) -> None:
        """These files are not whole yet."""
        self._waiting_for = tuple(files)
        self._waited_for.update(dict.fromkeys(files))
        self._served = version, digest

    def judged(
        self,
        version: int,
        digest: str | None,
        problems: Sequence[Problem],
        *,
        invalid: bool,
        awaits_commit: str | None = None,
        candidate: str | None = None,
        held: str | None = None,
        hold: Hold | None = None,
    ) -> None:
        """The files were read whole, and this is served now.

        problems: why it is not what the files say; invalid: because of the files themselves. awaits_commit: as of
          Verdict. candidate: the digest of what they make. held: the same, if the guard holds it. hold: the
          rollback that is held.
        """
        accept = self._reload.accept
        if accept is not None and not invalid and not (candidate or digest or "").startswith(accept):
            made = "nothing is held" if candidate is None else f"the files now make {candidate[:DIGEST_DIGITS]}"
            message = f"not accepted: {made}, not {accept[:DIGEST_DIGITS]}"
            problems = (Problem(message, code=Code.GUARD_ACCEPT), *problems)
        problems = (*self._problems, *problems)
        if hold is not None:
            verdict = HELD
        elif problems:
            verdict = REJECTED if invalid or self._problems else FAILED if held is None else HELD
        else:
            verdict = PUBLISHED if version > self._version else UNCHANGED
        self._answer(verdict, version, digest, problems, awaits_commit, held, hold)

    def settled(
        self, verdict: str, version: int, digest: str | None, problems: Sequence[Problem], hold: Hold | None
    ) -> None:
        """What was asked for is done, or is not, whatever the files say. As of Verdict."""
        self._answer(verdict, version, digest, problems, hold=hold)

    def failed(self, problems: Sequence[Problem]) -> None:
        """Nobody can tell what the files say: a fault of the agent's own."""
        self._answer(FAILED, *self._served, (*self._problems, *problems))

    def gone(self) -> None:
        """There is no such segment in the agent's file."""
        self._answer(GONE, 0, None, self._problems)

    def not_taken(self) -> None:
        """The segment has no reconciler, for the reasons given to `settings_refused`."""
        self._answer(REJECTED, *self._served, self._problems)

    def unanswered(self) -> Verdict:
        """As far as it has come."""
        return Verdict(self.segment, TIMEOUT, *self._served, self._problems, self._waiting_for)

    def _answer(
        self,
        verdict: str,
        version: int,
        digest: str | None,
        problems: Sequence[Problem],
        awaits_commit: str | None = None,
        held: str | None = None,
        hold: Hold | None = None,
    ) -> None:
        found, waited_for = tuple(dict.fromkeys(problems)), tuple(self._waited_for)
        self._reload.answered(
            Verdict(
                self.segment, verdict, version, digest, found, waited_for, awaits_commit, held, hold, self._released
            )
        )


class Reload:
    """Asks for one segment, or (None) for all of the agent's file. May be used from any thread."""

    def __init__(
        self,
        segment: str | None,
        done: Callable[[], None],
        accept: str | None = None,
        order: Order | None = None,
    ) -> None:
        """done: called once, from some thread, when every verdict is there.

        accept: the digest, or its beginning, of the candidate to be published although the guard holds it.
        """
        self.segment = segment
        self.accept = accept
        self.order = order
        """What is asked besides; a RollBack instead of a look at the files."""
        self.abandoned = False
        """Set by whoever asked, and no longer waits."""
        self._done = done
        self._lock = threading.Lock()
        self._questions: dict[str, Question] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._complete = False

    def begin(self, versions: dict[str, int], problems: Sequence[Problem]) -> list[Question]:
        """The questions to be answered: for the segments of `versions`, which says what each serves.

        problems: why the agent's own file was not taken.
        """
        questions = [Question(self, segment, version, problems) for segment, version in versions.items()]
        with self._lock:
            self._questions = {question.segment: question for question in questions}
        if not questions:
            self._complete = True
            self._done()
        return questions

    def answered(self, verdict: Verdict) -> None:
        """For Question."""
        with self._lock:
            if verdict.segment in self._verdicts:
                return
            self._verdicts[verdict.segment] = verdict
            complete = len(self._verdicts) == len(self._questions)
        if complete:
            self._complete = True
            self._done()

    def is_complete(self) -> bool:
        """Whether it has begun, and every verdict is there."""
        return self._complete

    def verdicts(self) -> list[Verdict]:
        """A verdict for each segment, TIMEOUT where it is not known yet."""
        with self._lock:
            questions = dict(self._questions)
            verdicts = dict(self._verdicts)
        if not questions and self.segment is not None:
            return [Verdict(self.segment, TIMEOUT)]
        return [verdicts.get(name) or question.unanswered() for name, question in questions.items()]


def digest_beginning(written: str) -> str | None:
    """A digest, or its first 8 or more digits, as digests are written here; None for anything else."""
    found = written.strip().lower()
    return found if re.fullmatch("[0-9a-f]{8,64}", found) else None
