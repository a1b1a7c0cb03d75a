"""What `shmconf demo` plays on: a copy of the sample, an agent, workers, and everything they report.

All processes are children with handles of their own, each in a session of its own, so that Ctrl-C reaches only the
demo, which then ends them in order. Leaving the stage ends every process that it started and removes every directory
that it made, whatever happened. One thread does everything; reports are taken in while it waits in `until`.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import shmconf

from .agents_file import load

SECONDS = 15.0  # until what should happen counts as not happening; it takes milliseconds on a machine at rest
SHMCONF = (sys.executable, "-P", "-m", "shmconf_agent")
WORKER = (sys.executable, "-P", "-m", "shmconf_agent.demo_worker")
_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_NAP_SECONDS = 0.000_25  # of each worker, times their number: all together they leave the machine some room
_SAMPLE = Path("share/shmconf/quickstart")  # under the prefix, where the package is installed
_NOT_THE_SAMPLE = shutil.ignore_patterns("local.yaml", "__pycache__", ".*")  # what its user may have added
_SHARED_MEMORY = Path("/dev/shm")

Found = TypeVar("Found")


class DidNotHappen(Exception):
    """What should have happened and did not, in one line."""


class Stopped(Exception):
    """Somebody asked the demo to stop. `signum` is the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Child:
    """A process that reports by lines of JSON on its stdout; what it says on stderr is kept for its obituary."""

    def __init__(self, what: str, argv: list[str], log: Path) -> None:
        """Start it. what: its name in messages."""
        self.what = what
        self.reports: list[dict[str, Any]] = []
        self.expected_to_run = True
        self._log = log
        self._rest = b""
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def take_in(self) -> bool:
        """Read what it reported; False once its pipe is closed."""
        try:
            data = os.read(self.pipe, 65536)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self.reports.append(json.loads(line))
            except ValueError:
                raise DidNotHappen(f"{self.what} said something else than JSON: {line[:200]!r}") from None
        return bool(data)

    def since(self, mark: int, event: str) -> dict[str, Any] | None:
        """The first report of that kind from number `mark` on."""
        return next((report for report in self.reports[mark:] if report["event"] == event), None)

    def last(self, event: str) -> dict[str, Any] | None:
        """The newest report of that kind."""
        return next((report for report in reversed(self.reports) if report["event"] == event), None)

    def number_of(self, event: str) -> int:
        """How many reports of that kind there were."""
        return sum(report["event"] == event for report in self.reports)

    def check(self) -> None:
        """Raise DidNotHappen if it ended although it should not have."""
        code = self.process.poll()
        if self.expected_to_run and code is not None:
            said = self._log.read_text("utf-8", "replace").strip().splitlines()
            reason = f": {said[-1]}" if said else ""
            raise DidNotHappen(f"{self.what} ended with {_ending(code)}{reason}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.expected_to_run = False
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let go of its pipe; it has ended."""
        assert self.process.stdout is not None
        self.process.stdout.close()


class Stage:
    """The directories and processes of one demo. A context manager; see the module."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self.workers: list[Child] = []
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._cleanup = ExitStack()
        self._signals: list[int] = []

    def __enter__(self) -> Stage:
        """Copy the sample. Raises DidNotHappen where there is none, OSError where there is no room for it."""
        with ExitStack() as cleanup:
            self._signals = cleanup.enter_context(_signals_noted())
            self._directory = Path(cleanup.enter_context(_temporary_directory()))
            self.sample = self._directory / "sample"
            shutil.copytree(sample_directory(), self.sample, ignore=_NOT_THE_SAMPLE)
            shared = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else self._directory
            self.runtime = Path(cleanup.enter_context(_temporary_directory(shared)))
            self.config = load(self.sample / "shmconf.toml").segments[0]
            self.segment = self.config.name
            cleanup.callback(self._selector.close)
            cleanup.callback(self._end_all)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End and remove everything."""
        self._cleanup.close()

    def start_agent(self) -> Child:
        """An agent for the copy of the sample."""
        self.agent = self._start("the agent", [*self._command(), "run", "--format", "json"])
        return self.agent

    def stop_agent(self) -> None:
        """Ask the agent to stop. Raises DidNotHappen where it does not do so in good order."""
        agent = self.agent
        agent.expected_to_run = False
        agent.process.terminate()
        self.until(lambda: agent.process.poll() is not None, "the agent stops after SIGTERM")
        if agent.process.returncode != 0:
            raise DidNotHappen(f"the agent stopped with {_ending(agent.process.returncode)}")

    def start_workers(self, count: int, path: str) -> None:
        """Processes that read `path` without end."""
        arguments = [self.segment, str(self.runtime), path, str(_NAP_SECONDS * count)]
        for number in range(1, count + 1):
            self.workers.append(self._start(f"worker {number}", [*WORKER, *arguments]))

    def segment_status(self) -> shmconf.Status | None:
        """How the segment and its agent are, by the library; None where there is no segment."""
        try:
            with shmconf.attach(self.segment, directory=self.runtime) as reader:
                return reader.status()
        except shmconf.SegmentNotFound:
            return None

    def status(self) -> tuple[int, str]:
        """What `shmconf status` says now: its exit code and its first line."""
        argv = [*self._command(), "status", self.segment]
        try:
            asked = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise DidNotHappen(f"not within {SECONDS:g} s: `shmconf status` answers") from None
        said = (asked.stdout or asked.stderr).strip().splitlines()
        self._look()
        return asked.returncode, said[0] if said else ""

    def until(self, condition: Callable[[], Found | None], what: str) -> Found:
        """Take in reports until the condition gives something true, which is returned.

        Raises DidNotHappen(what) after SECONDS, or at once when a process ended that should go on; Stopped when a
        signal asked for it.
        """
        deadline = time.monotonic() + SECONDS
        while True:
            self._look()
            found = condition()
            if found:
                return found
            if time.monotonic() >= deadline:
                raise DidNotHappen(f"not within {SECONDS:g} s: {what}")

    def go_on(self, seconds: float) -> None:
        """Let the play go on for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()

    def _command(self) -> list[str]:
        options = {
            "--config": self.sample / "shmconf.toml",
            "--runtime-dir": self.runtime,
            "--state-dir": self._directory / "state",
        }
        return [*SHMCONF, *(str(part) for option in options.items() for part in option)]

    def _start(self, what: str, argv: list[str]) -> Child:
        child = Child(what, argv, self._directory / f"{len(self._children)}.log")
        self._children.append(child)
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        return child

    def _look(self) -> None:
        """One round: signals, reports, deaths."""
        for key, _ in self._selector.select(_LOOK_SECONDS):
            if not key.data.take_in():
                self._selector.unregister(key.fileobj)
        if self._signals:
            raise Stopped(self._signals[0])
        for child in self._children:
            child.check()

    def _end_all(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
            child.close()


def sample_directory() -> Path:
    """The quickstart: in the checkout that this module is part of, or where the package installed it.

    Raises DidNotHappen where there is none.
    """
    candidates = [Path(__file__).parents[2] / "examples" / "quickstart", *_installed_samples()]
    for candidate in candidates:
        if (candidate / "shmconf.toml").is_file():
            return candidate
    raise DidNotHappen(f"the sample is missing: {candidates[-1]} is not there; install shmconf again")


def _installed_samples() -> Iterator[Path]:
    try:
        files = metadata.files("shmconf") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-4:] == (*_SAMPLE.parts, "shmconf.toml"):
            yield Path(file.locate()).resolve().parent
    yield Path(__file__).parents[1] / _SAMPLE  # pip install --target
    yield Path(sysconfig.get_path("data")) / _SAMPLE


def _temporary_directory(inside: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="shmconf-demo-", dir=inside)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """The signals that ask for an end are put in a list instead of ending anything halfway."""
    noted: list[int] = []
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, lambda received, _: noted.append(received))
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
