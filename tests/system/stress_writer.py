"""The writers of the stress test: one process that forks them on request, so that none costs an interpreter's start.

argv: the runtime and the state directory. stdin: `start NUMBER` or `reap`, a line each; stdout answers with the process
id of the writer started, or with how the last one ended (minus the signal).
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import stress_document as documents

from shmconf.directories import Directory
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer

MAX_BYTES = 64 << 20


def write(number: int) -> None:
    """Publish without a pause; writer `number` says so in each version's metadata."""
    directory = Directory(Path(sys.argv[1]), named=True)
    writer = Writer(directory, "web", Settings(MAX_BYTES), state_directory=Path(sys.argv[2]))
    while True:
        assert writer._segment is not None, writer.warnings()
        version = writer._next_version(writer._segment)  # not always `version` + 1: a lost file's successor leaps
        published = writer.publish(documents.document(version), {"writer": number})
        assert published == version, f"version {published} was to be {version}"
        if version % 8 == 0:
            writer.beat()
            told = f"{version} " * (version % 400) or None
            status = AgentStatus("running", rejections=version, problem_count=version, last_error=told)
            writer.set_status(status.encode())


def main() -> None:
    running = 0
    for line in sys.stdin:
        if line == "reap\n":
            print(os.waitstatus_to_exitcode(os.waitpid(running, 0)[1]), flush=True)
            continue
        running = os.fork()
        if running:
            print(running, flush=True)
            continue
        try:
            write(int(line.split()[1]))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)


if __name__ == "__main__":
    main()
