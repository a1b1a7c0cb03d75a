"""The C programs of this directory, compiled when a row needs them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from .process import ROOT
from .row import Unavailable

HEADER = ROOT / "shm" / "include" / "shmconf.h"
# A loop of one or two instructions takes twice as long where it happens to lie across two lines of code.
_FLAGS = ["-std=c11", "-O2", "-falign-loops=64", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]


def compile_c(name: str, into: Path) -> Path:
    """The program from `name`.c, in `into`. Raises Unavailable without a C compiler, or with what it complains of."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise Unavailable(f"no C compiler here ({compiler[0]})")
    program = into / name
    source = Path(__file__).with_name(f"{name}.c")
    command = [*compiler, *_FLAGS, f"-I{HEADER.parent}", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if "error" in line]
        reason = complaints[0] if complaints else f"exit {done.returncode}, without a word"
        raise Unavailable(f"{source.name} does not compile: {reason}")
    return program


def run(program: Path, *arguments: object) -> list[float]:
    """The numbers that it prints. Raises RuntimeError with what it says when it fails."""
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{program.name} ended with {done.returncode}: {done.stderr}")
    return [float(word) for word in done.stdout.split()]
