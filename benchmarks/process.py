"""Fresh processes that measure: each runs a module of this package, and answers lines with numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]


class WorkerFailed(Exception):
    """A measuring process ended before it answered; the text is what it wrote on stderr."""


class Worker:
    """`python -m benchmarks.MODULE ARGUMENTS`, ended with its context."""

    def __init__(self, module: str, *arguments: object) -> None:
        """Start it; it runs while this process goes on."""
        self._start(sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments))

    def _start(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, line: str) -> float:
        """Tell it a line, and return the number that it answers with. Raises WorkerFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        return self.answer()

    def answer(self) -> float:
        """The next number from it. Raises WorkerFailed."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            _, errors = self._process.communicate()
            raise WorkerFailed(f"{self._process.args!r} ended with {self._process.returncode}: {errors}")
        return float(said)

    def __enter__(self) -> Worker:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
        self._process.wait()


class Program(Worker):
    """A compiled program with its arguments, likewise."""

    def __init__(self, program: Path, *arguments: object) -> None:
        """Start it."""
        self._start(str(program), *map(str, arguments))
