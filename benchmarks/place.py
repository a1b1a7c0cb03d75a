"""Where a row's segments live: a temporary directory in memory, with Writers of this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shmconf.directories import Directory
from shmconf.storage import Storage
from shmconf.writer import Settings, Writer

_MEMORY = "/dev/shm"


@contextmanager
def place() -> Iterator[Path]:
    """A directory of our own, on tmpfs where there is one, removed with all that is in it."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="shmconf-bench-", dir=memory) as made:
        yield Path(made)


def writer(directory: Path, name: str = "web", *, max_mib: int = 256, storage: Storage | None = None) -> Writer:
    """The Writer of a segment there, with a state directory, as the agent has one."""
    return Writer(
        Directory(directory, named=True),
        name,
        Settings(max_mib << 20),
        state_directory=directory / "state",
        storage=storage,
    )
