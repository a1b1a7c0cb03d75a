"""A worker of the shop, reduced to how it uses its configuration. Copy what you need.

    python worker.py            # in one terminal, with `shmconf run` in another

The configuration is read straight from shared memory: no file is opened, nothing is parsed, and no request waits
for it. A worker may start before the agent does, and goes on serving if the agent is stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import shmconf

SEGMENT = "web"


def handle_request(config: shmconf.Reader, path: str) -> str:
    """One value at a time: `get` never blocks, never raises for a missing path, and is current at each call."""
    limit = config.get(("limits", "paths", path), default=config.get("limits.requests_per_second", default=200))
    notice = config.get("service.notice", default="")
    return f"{path}: {notice or 'welcome'} (at most {limit} a second)"


def resize_pool(snapshot: Mapping[str, Any]) -> str:
    """Several values that belong together come from one snapshot: all of them of the same version."""
    db = snapshot["db"]
    return f"{db['pool']['size']} connections to {db['name']} at {db['host']}:{db['port']}"


def report(snapshot: shmconf.Snapshot, config: shmconf.Reader) -> None:
    """What this worker has now, in two lines."""
    print(f"worker {os.getpid()} has version {snapshot.version}: {resize_pool(snapshot)}")
    print(handle_request(config, "/login"), flush=True)


def main() -> int:
    """Says what is configured, then says it again at each change, until Ctrl-C."""
    try:
        with shmconf.attach(SEGMENT, wait=30.0) as config:
            first = config.snapshot()
            report(first, config)
            for snapshot in config.changes(after=first.version):
                report(snapshot, config)
    except shmconf.SegmentNotFound as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("worker: stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
