"""The user's check, asked in a process of its own: whatever it does, there is an answer by the deadline.

The tree goes to the child's stdin as msgpack. A callable (`pkg.module:name`) runs in `shmconf_agent.checker`,
whose verdict comes back through a pipe that only the two know, so that what the user's code prints cannot be
mistaken for it. A command (an argv list) answers by its exit status, and by what it wrote where that is not
0. The child leads a session of its own; at the end, in time or not, everything left of its process group is
killed. May be called from any thread; nothing is kept between calls.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import IO

from shmconf import codec

from .problems import Path

DEADLINE = 5.0
"""Seconds that a check may take, the start of its process included."""

# What is kept of each stream of the child; the rest is read and dropped: it neither blocks nor fills memory.
_KEPT_BYTES = 64 * 1024
# Beyond what `checker` ever writes: a longer verdict was written by somebody else.
_VERDICT_BYTES = 1024 * 1024
_PIECE = 64 * 1024
_MOST_LINES = 20
_LONGEST_LINE = 500
# How often to see whether the child is gone: while its pipes are open (a process that it left behind may hold
# them), and once they are closed, which is when it ends.
_LOOK_SECONDS = 0.05
_LOOK_CLOSELY_SECONDS = 0.001
# After how long a child without a verdict ends by itself, should this process be killed while it hangs.
_ORPHAN_SECONDS = 4 * DEADLINE
# How long the kernel may take to bury a child that was killed.
_REAP_SECONDS = 1.0


def run_check(
    spec: str | Sequence[str], payload: bytes, *, cwd: FilePath, deadline: float = DEADLINE
) -> list[tuple[Path, str]]:
    """The problems that the check finds in the tree packed in `payload`; an empty list if it finds none.

    `spec` is `pkg.module:name`, imported with `cwd` first on sys.path, or an argument list, run in `cwd`. A
    check that cannot be started, fails, dies or takes more than `deadline` seconds is a problem, never an
    exception.
    """
    try:
        if isinstance(spec, str):
            return _CallableChild(spec, cwd).ask(payload, deadline)
        return _ask_command(spec, payload, cwd, deadline)
    except TimeoutError:
        return [((), _too_late(deadline))]
    except OSError as error:
        name = spec if isinstance(spec, str) else spec[0]
        return [((), f"the check {name!r} cannot be started: {error.strerror or error}")]


class Check:
    """One segment's check, asked again and again by one thread.

    For a callable, `prepare` starts the next child ahead of its question: with its interpreter up, an answer costs
    little more than the user's own code. Every child still answers once and imports the user's code only then.
    """

    def __init__(self, spec: str | Sequence[str], cwd: FilePath) -> None:
        """Starts nothing yet."""
        self._spec = spec
        self._cwd = cwd
        self._waiting: _CallableChild | None = None

    def prepare(self) -> None:
        """Have a child waiting; one that cannot be started is a matter for `ask`."""
        if isinstance(self._spec, str) and (self._waiting is None or not self._waiting.lives()):
            self.close()
            with contextlib.suppress(OSError):
                self._waiting = _CallableChild(self._spec, self._cwd)

    def ask(self, payload: bytes, deadline: float = DEADLINE) -> list[tuple[Path, str]]:
        """As `run_check`."""
        child, self._waiting = self._waiting, None
        if child is None or not child.lives():
            if child is not None:
                child.close()
            return run_check(self._spec, payload, cwd=self._cwd, deadline=deadline)
        try:
            return child.ask(payload, deadline)
        except TimeoutError:
            return [((), _too_late(deadline))]

    def close(self) -> None:
        """Ends the child that waits, if there is one."""
        child, self._waiting = self._waiting, None
        if child is not None:
            child.close()


class _CallableChild:
    """A child that waits for the tree; it ends by itself when its stdin does, as at the agent's death."""

    def __init__(self, spec: str, cwd: FilePath) -> None:
        self._verdict_end, childs_end = os.pipe()
        # It changes to `cwd` itself, once all of this package is imported: PYTHONPATH may be relative.
        longest = str(_ORPHAN_SECONDS)
        argv = [sys.executable, "-P", "-m", "shmconf_agent.checker", spec, str(cwd), str(childs_end), longest]
        try:
            self._process = _start(argv, None, pass_fds=(childs_end,))
        except OSError:
            os.close(self._verdict_end)
            raise
        finally:
            os.close(childs_end)

    def lives(self) -> bool:
        return not _ended(self._process.pid)

    def ask(self, payload: bytes, deadline: float) -> list[tuple[Path, str]]:
        """The verdict; the child is gone afterwards. Raises TimeoutError."""
        try:
            with open(self._verdict_end, "rb", buffering=0, closefd=False) as pipe:
                verdict = _Stream(pipe, _VERDICT_BYTES)
                conversation = _Conversation(self._process, payload, verdict)
                status = conversation.hold(deadline)
        finally:
            os.close(self._verdict_end)
        answer = _understand(verdict)
        if answer is not None:
            return answer
        last_words = conversation.errors.last_line()
        return [((), f"the check {_how_it_ended(status)} without an answer" + (last_words and f": {last_words}"))]

    def close(self) -> None:
        _kill_group(self._process.pid)
        with self._process:  # closes its pipes and waits for it
            os.close(self._verdict_end)


def _ask_command(argv: Sequence[str], payload: bytes, cwd: FilePath, deadline: float) -> list[tuple[Path, str]]:
    conversation = _Conversation(_start(argv, cwd), payload)
    status = conversation.hold(deadline)
    if status == 0:
        return []
    lines = conversation.errors.lines() or conversation.output.lines()
    if not lines or status < 0:
        lines.insert(0, f"the check {_how_it_ended(status)}")
    return [((), line) for line in lines]


def _start(argv: Sequence[str], cwd: FilePath | None, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv,
        bufsize=0,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


@dataclass(slots=True)
class _Stream:
    """One pipe from the child: its first `most` bytes, and whether there were more."""

    pipe: IO[bytes]
    most: int
    data: bytearray = field(default_factory=bytearray)
    overflowed: bool = False

    def read(self) -> bool:
        """Takes what is there; False at the end of the stream."""
        try:
            piece = os.read(self.pipe.fileno(), _PIECE)
        except BlockingIOError:
            return True
        room = self.most - len(self.data)
        self.data += piece[:room]
        self.overflowed = self.overflowed or len(piece) > room
        return bool(piece)

    def lines(self) -> list[str]:
        """The lines that say something, bounded in length and number, with nothing that moves a cursor."""
        lines = self._all_lines()
        if len(lines) > _MOST_LINES or self.overflowed:
            lines[_MOST_LINES - 1 :] = ["… and more"]
        return lines

    def last_line(self) -> str:
        """The last line that says something, bounded likewise; of an endless text, of what was kept."""
        return ["", *self._all_lines()][-1]

    def _all_lines(self) -> list[str]:
        lines = map(_printable, self.data.decode("utf-8", "replace").splitlines())
        return [line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…" for line in lines if line]


class _Conversation:
    """Feeds the child and reads from it until it ends; then nothing of it is left."""

    def __init__(self, process: subprocess.Popen[bytes], payload: bytes, verdict: _Stream | None = None) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.output = _Stream(process.stdout, _KEPT_BYTES)
        self.errors = _Stream(process.stderr, _KEPT_BYTES)
        self._process = process
        self._stdin = process.stdin
        self._unsent = memoryview(payload)
        self._streams = [stream for stream in (verdict, self.output, self.errors) if stream is not None]

    def hold(self, deadline: float) -> int:
        """The child's exit status, or minus the signal that ended it. Raises TimeoutError after `deadline` s."""
        try:
            with self._stdin, self.output.pipe, self.errors.pipe, selectors.DefaultSelector() as selector:
                self._converse(selector, time.monotonic() + deadline)
        finally:
            # Before the child is reaped, because until then its number cannot belong to anybody else.
            _kill_group(self._process.pid)
            try:
                self._process.wait(_REAP_SECONDS)
            except subprocess.TimeoutExpired:  # stuck in the kernel; Popen buries it when it can
                raise TimeoutError from None
        return self._process.returncode

    def _converse(self, selector: selectors.BaseSelector, end: float) -> None:
        os.set_blocking(self._stdin.fileno(), False)
        selector.register(self._stdin, selectors.EVENT_WRITE)
        for stream in self._streams:
            os.set_blocking(stream.pipe.fileno(), False)
            selector.register(stream.pipe, selectors.EVENT_READ, stream)
        while not _ended(self._process.pid):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            pause = _LOOK_SECONDS if selector.get_map() else _LOOK_CLOSELY_SECONDS
            for key, _ in selector.select(min(left, pause)):
                self._serve(key, selector)
        for stream in self._streams:
            self._drain(stream)

    def _serve(self, key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
        stream: _Stream | None = key.data
        if stream is not None:
            if not stream.read():
                selector.unregister(stream.pipe)
            return
        try:
            sent = os.write(self._stdin.fileno(), self._unsent[:_PIECE])
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know the rest
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            selector.unregister(self._stdin)
            self._stdin.close()

    def _drain(self, stream: _Stream) -> None:
        """What the child left in the pipe, 1 MiB at most: a process that it left behind may go on writing."""
        for _ in range(_VERDICT_BYTES // _PIECE + 1):
            before = len(stream.data)
            if not stream.read() or len(stream.data) == before:
                return


def _ended(pid: int) -> bool:
    """Whether the child has ended; it is not reaped, so that its number stays its own."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # SIGCHLD is ignored in this process: the kernel reaped it
        return True


def _kill_group(pid: int) -> None:
    # Not there: all are gone; not permitted: off Linux, only the dead child is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _too_late(deadline: float) -> str:
    return f"the check did not answer within {deadline:g} s"


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _understand(verdict: _Stream) -> list[tuple[Path, str]] | None:
    """The verdict of `shmconf_agent.checker`, or None where that did not get to give one."""
    if verdict.overflowed or not verdict.data:
        return None
    try:
        answer = codec.unpack(bytes(verdict.data))
        return [(tuple(path), str(message)) for path, message in answer]
    except (ValueError, TypeError):
        return None


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line).strip()
