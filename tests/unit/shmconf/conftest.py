"""What the tests of the shared-memory library share: a place, writers, children, waiting for conditions."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Settings, Writer


class Place:
    """A runtime directory, a state directory, and writers of the segment `web` in them."""

    def __init__(self, root: Path) -> None:
        self.run, self.state = root / "run", root / "state"
        self.run.mkdir(mode=0o755)
        self.run.chmod(0o755)
        self.file = self.run / "web.shmconf"
        self.directory = Directory(self.run, named=True)
        self.opened: list[Writer] = []

    def writer(self, *, max_bytes: int = 1 << 20, state: bool = True, **settings: Any) -> Writer:
        writer = Writer(
            self.directory,
            "web",
            Settings(max_bytes, **settings),
            state_directory=self.state if state else None,
        )
        self.opened.append(writer)
        return writer

    def open_files(self) -> list[str]:
        """What this process has open of all that."""
        links = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
        return [link for link in links if link.startswith(str(self.run.parent))]


def kill(writer: Writer) -> None:
    """What SIGKILL does to a writer: its locks are free, and nothing else is tidied."""
    if writer._reservation:
        writer._reservation.settle()
    writer._release_locks()


def publish(writer: Writer, tree: dict[Any, Any]) -> int:
    return writer.publish(codec.pack(tree), {"files": ["base.yaml"]})


def _until(condition: Callable[[], Any], what: str, seconds: float = 100.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.002)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for writer in made.opened:
        writer.close()


@pytest.fixture(name="publish", scope="session")
def _publish() -> Callable[[Writer, dict[Any, Any]], int]:
    """`publish(writer, tree)` returns the version."""
    return publish


@pytest.fixture(name="kill", scope="session")
def _kill() -> Callable[[Writer], None]:
    """`kill(writer)` leaves everything as SIGKILL would."""
    return kill


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """`until(condition, what, seconds=100)` polls, and returns what the condition gave once that is true."""
    return _until


class Child:
    """A Python process that runs `code` (with `import shmconf` and sys.argv), warnings being errors."""

    def __init__(self, code: str, *arguments: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line of its output; '' when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def expect(self, text: str) -> None:
        said = self.line()
        assert said == text, f"the child said {said!r}: {self.finish(check=False)}"

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def finish(self, *, check: bool = True, seconds: float = 100.0) -> str:
        """The rest of its output, once it has ended (well, where `check` is set)."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"the child hangs; it said: {out}{err}") from None
        if check:
            assert self.process.returncode == 0, f"exit {self.process.returncode}: {out}{err}"
        return out if check else out + err


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """`child(code, *arguments, **environment)` starts a Child; it is killed when the test ends."""
    started: list[Child] = []

    def start(code: str, *arguments: object, **environment: str) -> Child:
        started.append(Child(code, *arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
        one.process.wait()
