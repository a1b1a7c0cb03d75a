"""Whether a change in a watched directory is heard: proved by making one, a dot-file that comes and goes.

    tests = SelfTests()
    tests.begin(directory, identity)   # once it is watched; the change is made by a thread of this room
    tests.heard(name)                  # from the thread that reads events, for each name that starts with PREFIX
    tests.settle(caught_up=...)        # now and then: what was not heard in time is said to be deaf
    tests.outcomes()

The contract with `watch` and `survey`: a name that starts with PREFIX raises no hint and is no source, whatever a glob
says, so a self-test causes no look, no reload and no version, in this agent or in another one.

Nothing here waits. A file is made and unlinked at once by a thread of its own, which a file system that hangs may keep,
and nobody else; what a process that was killed in between left behind goes with the next self-test of the directory. A
change that is heard late, as on a busy machine, counts as heard: the outcome is put right. A directory that this user
may not write to is left alone and remains unproved.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .disk import Interest
from .survey import SELF_TEST_PREFIX as PREFIX

__all__ = ["DEADLINE_S", "PREFIX", "Outcome", "Result", "SelfTests", "holders", "make_change", "untested"]

DEADLINE_S = 2.0
"""How soon a change must be heard, in seconds from when it was made."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Result(enum.Enum):
    """What a self-test has come to."""

    PENDING = "pending"
    PROVED = "proved"
    DEAF = "deaf"
    UNPROVED = "unproved"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one directory. seconds: from before the change was made until it was heard, where it was. why: what kept the
    change from being made, in words, where it was not."""

    directory: str
    result: Result
    seconds: float | None = None
    why: str | None = None


@dataclass(slots=True)
class _Test:
    identity: tuple[int, int]
    name: str
    outcome: Outcome
    began: float = 0.0
    made: float | None = None  # None: not yet


def holders(directories: Mapping[str, Interest]) -> frozenset[str]:
    """Those of the watched directories in which files or links are followed, without those that are watched only for
    a directory in them being replaced."""
    return frozenset(
        path
        for path, interest in directories.items()
        if interest.writes
        and (interest.patterns or any(os.path.join(path, name) not in directories for name in interest.names))
    )


def untested(outcomes: Sequence[Outcome]) -> str | None:
    """Of which directories it cannot be proved that changes are heard, in a sentence; None where there is none, or
    something is still pending."""
    left = [outcome for outcome in outcomes if outcome.result is Result.UNPROVED]
    if not left or any(outcome.result is Result.PENDING for outcome in outcomes):
        return None
    where = left[0].directory + (f" and {len(left) - 1} more" if len(left) > 1 else "")
    return f"{where} is watched, without a test that changes there are heard: none can be made ({left[0].why})"


class SelfTests:
    """See the module. `heard` may be called from any thread; all else belongs to one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._tests: dict[str, _Test] = {}
        self._by_name: dict[str, _Test] = {}
        self._queue: deque[tuple[str, _Test]] = deque()
        self._worker: threading.Thread | None = None
        self._ids = itertools.count(1)
        self._closed = False

    def begin(self, directory: str, identity: tuple[int, int]) -> None:
        """Test this directory, unless this very one was tested before. It must be watched already."""
        with self._lock:
            known = self._tests.get(directory)
            if self._closed or (known is not None and known.identity == identity):
                return
            self._drop(directory)
            name = f"{PREFIX}{os.getpid()}-{next(self._ids)}-{os.urandom(4).hex()}"
            test = _Test(identity, name, Outcome(directory, Result.PENDING))
            self._tests[directory] = self._by_name[name] = test
            self._queue.append((directory, test))
            if self._worker is None:
                worker = threading.Thread(target=self._make_all, name="shmconf-self-test", daemon=True)
                try:
                    worker.start()
                except RuntimeError:  # no thread to be had: whoever is tested next tries again
                    return
                self._worker = worker

    def again(self, directory: str) -> None:
        """It is watched anew: what was not heard by the watch before may be heard by this one."""
        with self._lock:
            known = self._tests.get(directory)
            if known is not None and known.outcome.result in (Result.PENDING, Result.DEAF):
                self._drop(directory)

    def heard(self, name: str) -> None:
        """A file of this name came or went somewhere."""
        now = self._now()
        with self._lock:
            test = self._by_name.get(name)
            if test is not None and test.outcome.result is not Result.PROVED:
                test.outcome = replace(test.outcome, result=Result.PROVED, seconds=now - test.began, why=None)

    def keep_only(self, directories: frozenset[str]) -> None:
        """Forget all others: what is not watched any more proves nothing."""
        with self._lock:
            for directory in self._tests.keys() - directories:
                self._drop(directory)

    def settle(self, *, caught_up: bool) -> int:
        """What was not heard within DEADLINE_S is deaf, provided that all the kernel's events were handed on; how many
        directories were found to be."""
        found = 0
        if not caught_up:
            return found
        now = self._now()
        with self._lock:
            for test in self._tests.values():
                late = test.made is not None and now >= test.made + DEADLINE_S
                if late and test.outcome.result is Result.PENDING:
                    test.outcome = replace(test.outcome, result=Result.DEAF)
                    found += 1
        return found

    def outcomes(self) -> tuple[Outcome, ...]:
        """Of each directory, in the order of their paths."""
        with self._lock:
            return tuple(self._tests[directory].outcome for directory in sorted(self._tests, key=os.fsencode))

    def close(self) -> None:
        """No more changes are made."""
        with self._lock:
            self._closed = True
            self._queue.clear()

    def _drop(self, directory: str) -> None:
        test = self._tests.pop(directory, None)
        if test is not None:
            self._by_name.pop(test.name, None)

    def _make_all(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._worker = None
                    return
                directory, test = self._queue.popleft()
                test.began = self._now()
            why = make_change(directory, test.name)
            with self._lock:
                test.made = self._now() if why is None else None
                if why is not None and test.outcome.result is Result.PENDING:
                    test.outcome = replace(test.outcome, result=Result.UNPROVED, why=why)


def make_change(directory: str, name: str) -> str | None:
    """A file of this name comes and goes in the real directory; why it could not, in words, or None. Never raises."""
    try:
        descriptor = os.open(directory, _OPEN)
    except OSError as error:
        return _words(error)
    try:
        os.close(os.open(name, _MAKE, 0o600, dir_fd=descriptor))
        with contextlib.suppress(FileNotFoundError):  # swept by another agent's self-test
            os.unlink(name, dir_fd=descriptor)
        _sweep(descriptor)
    except OSError as error:
        return _words(error)
    finally:
        os.close(descriptor)
    return None


def _sweep(descriptor: int) -> None:
    """Removes what killed self-tests left behind. One that is still going on does not miss its file: it was heard."""
    with contextlib.suppress(OSError):
        for name in os.listdir(descriptor):
            if name.startswith(PREFIX):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_size == 0:
                    os.unlink(name, dir_fd=descriptor)


def _words(error: OSError) -> str:
    words = error.strerror or type(error).__name__
    return words[:1].lower() + words[1:]
