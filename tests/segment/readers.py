"""Every reader of segments that there is, behind one call, so that they can be asked the same.

A reader in a process of its own is given the directory and the segment's name as arguments and, on stdin, a msgpack
array of paths, each an array of keys; on stdout it gives one msgpack map with the fields of Reading.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
from second_reader import SecondReader

from shmconf import codec

Parts = tuple[Any, ...]


@dataclass(frozen=True)
class Reading:
    """What a reader finds in a segment: times in ns since 1970; values as msgpack, None for a path without one.

    version 0: nothing is published; then there is neither published_at nor digest, and no path has a value.
    """

    version: int
    epoch: int
    retired: bool
    published_at: int | None
    digest: str | None
    last_error: str | None
    values: list[bytes | None]


Read = Callable[[Path, list[Parts]], Reading]


def by_second_reader(path: Path, paths: list[Parts]) -> Reading:
    segment = SecondReader(path)
    latest, status = segment.latest(), segment.status() or {}
    found = [latest.find(parts) if latest else None for parts in paths]
    return Reading(
        version=segment.version,
        epoch=segment.epoch,
        retired=segment.retired,
        published_at=latest.published_at if latest else None,
        digest=latest.metadata["digest"] if latest else None,
        last_error=status.get("last_error"),
        values=[value if isinstance(value, bytes) else None for value in found],
    )


def by_process(*command: str, **environment: str) -> Read:
    """A reader that is another program."""

    def read(path: Path, paths: list[Parts]) -> Reading:
        ran = subprocess.run(
            [*command, str(path.parent), path.name.removesuffix(".shmconf")],
            env={**os.environ, **environment},
            input=codec.pack([list(parts) for parts in paths]),
            capture_output=True,
            timeout=250,
        )
        assert ran.returncode == 0, ran.stderr.decode(errors="replace")
        assert not ran.stderr, ran.stderr.decode(errors="replace")
        return Reading(**msgpack.unpackb(ran.stdout))

    return read


@cache
def _built_in_c() -> str:
    """The C reader as a program, which goes with this process."""
    root = Path(__file__).parents[2]
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    built, source = f"{directory}/read_golden", root / "tests/c/read_golden.c"
    warnings = ("-Wall", "-Wextra", "-Werror")
    subprocess.run(["gcc", "-std=c11", "-O2", *warnings, f"-I{root}/shm/include", source, "-o", built], check=True)
    return built


def by_c_reader(path: Path, paths: list[Parts]) -> Reading:
    return by_process(_built_in_c())(path, paths)


LIBRARY = (sys.executable, "-W", "error", str(Path(__file__).parent / "read_by_library.py"))

READERS: dict[str, Read] = {
    "second reader": by_second_reader,
    "C": by_c_reader,
    "library, native": by_process(*LIBRARY, SHMCONF_PURE="0"),
    "library, pure Python": by_process(*LIBRARY, SHMCONF_PURE="1"),
}
