"""Between a candidate and its publication: what the guard says, and what was accepted in spite of it.

Of one segment's reconciler, and of its thread. Without a guard in the agent's file nothing is ever held here.
"""

from __future__ import annotations

from collections.abc import Iterable

from shmconf.errors import Error

from .config import SegmentConfig
from .events import Said, Say
from .guard import Guard, Trip, problems
from .log_kinds import Kind
from .pipeline import Candidate, Pipeline
from .problems import Problem
from .progress import Progress
from .publish import Publisher
from .render import DIGEST_DIGITS
from .view import View

_GUARD_SECONDS = 60.0


class Gate:
    """Lets candidates pass to the publisher, or says why not. An acceptance is for one digest, until it is served."""

    def __init__(self, config: SegmentConfig, publisher: Publisher, pipeline: Pipeline, say: Say) -> None:
        self._name = config.name
        self._guard = None if config.guard is None else Guard(config.guard)
        self._publisher = publisher
        self._pipeline = pipeline
        self._say = say
        self._accepted: str | None = None
        self._told: str | None = None
        # What was found last, and of what: to find the places of a large file takes longer than all the rest.
        self._found: tuple[tuple[str | None, str, bytes], tuple[Problem, ...]] | None = None

    def held(
        self, candidate: Candidate, view: View, accepted: Iterable[str], progress: Progress
    ) -> tuple[Problem, ...]:
        """Why the candidate made of the view has to be held; empty if it may be published.

        accepted: beginnings of digests, of candidates that are to be published though the guard trips.
        """
        if self._guard is None:
            return ()
        digest = candidate.document.digest
        of = self._publisher.digest, digest, view.fingerprint
        if self._found is None or self._found[0] != of:
            with progress.stage("guard", _GUARD_SECONDS):
                trips = self._trips(self._guard, candidate)
                layers = self._pipeline.parse(view.layers)[0] if trips else ()
                self._found = of, problems(trips, layers, view.layers)
        found = self._found[1]
        if not found:
            return ()
        if any(digest.startswith(beginning) for beginning in accepted) and self._accepted != digest:
            self._accepted = digest
            texts = "; ".join(str(problem) for problem in found)
            text = f"candidate {digest[:DIGEST_DIGITS]} was accepted by request, though: {texts}"
            self._say(Said(self._name, text, kind=Kind.ACCEPTED))
        return () if self._accepted == digest else found

    def passed(self, candidate: Candidate) -> None:
        """The candidate is what is served now."""
        self._accepted = self._found = None
        if self._guard is not None:
            self._guard.published(candidate.document.digest, candidate.tree)

    def _trips(self, guard: Guard, candidate: Candidate) -> tuple[Trip, ...]:
        digest, tree = candidate.document.digest, candidate.tree
        try:
            return guard.judge(digest, tree, self._publisher.served())
        except (Error, ValueError) as error:  # readers that have it go on with it; there is nothing to compare with
            if self._told != str(error):
                self._told = str(error)
                text = f"what is served cannot be read ({error}): of the guard, never_empty alone is asked"
                self._say(Said(self._name, text))
            return guard.judge(digest, tree, None)
