"""A command on a terminal of its own, as a person has it: what it shows, and its exit code."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60.0
_CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|\][^\x07]*\x07)")


@dataclass(frozen=True)
class Shown:
    """code: the exit code. raw: everything that came to the terminal, with its codes."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """Without codes, and without the spaces that fill lines up."""
        return [line.rstrip() for line in _CODES.sub("", self.raw).replace("\r\n", "\n").split("\n")]

    @property
    def words(self) -> str:
        """All in one line, with single spaces."""
        return " ".join(" ".join(self.lines).split())


def on_terminal(
    command: Sequence[str], cwd: Path, environment: dict[str, str], *, columns: int = 80, stdout: int | None = None
) -> Shown:
    """Run the command to its end with a terminal of so many columns for its three streams; stdout: a descriptor instead
    of the terminal. Fails after a minute."""
    screen, end = pty.openpty()
    try:
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            command, cwd=cwd, env={"TERM": "xterm", **environment}, stdin=end, stdout=end if stdout is None else stdout,
            stderr=end, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(end)
    pieces: list[bytes] = []
    deadline = time.monotonic() + _SECONDS
    try:
        while select.select([screen], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                pieces.append(os.read(screen, 65536))
            except OSError:  # EIO: whoever had it has ended
                break
        code = process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    return Shown(code, b"".join(pieces).decode())
