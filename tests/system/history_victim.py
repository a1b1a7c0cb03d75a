"""Keeps one version in a history, and is killed by SIGKILL before its step of that number, if it has so many.

argv: the state directory, the version, the number. A step is a system call that may change the directory.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shmconf import codec
from shmconf_agent.history_keeping import WritableHistory
from shmconf_agent.kept_version import KeptVersion, SourceRef
from shmconf_agent.settle import digest_of

STEPS = ("unlink", "open", "write", "fsync", "rename")


def document(version: int) -> bytes:
    """What is kept as this version."""
    return codec.pack({"version": version, "fill": [hashlib.sha256(bytes([version])).hexdigest()] * 50})


def sources(version: int) -> dict[str, bytes]:
    """What it is made from, one of them the same for all."""
    return {"base.yaml": b"same: 1\n", "site.yaml": b"version: %d\n" % version}


def keep(state: Path, version: int) -> None:
    """Keep it; of three versions the oldest goes."""
    texts = sources(version)
    refs = tuple(SourceRef(name, (), digest_of(data), f"/etc/{name}") for name, data in texts.items())
    payload = document(version)
    kept = KeptVersion(5, version, version, hashlib.sha256(payload).hexdigest(), sources=refs)
    history = WritableHistory(state, "web", most_versions=2)
    history.keep(kept, payload, {digest_of(data): data for data in texts.values()})


def main() -> None:
    """See the module."""
    left = int(sys.argv[3])

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **more)

        return counted

    for step in STEPS:
        setattr(os, step, counting(getattr(os, step)))
    keep(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
