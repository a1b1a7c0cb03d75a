"""The reader process of `fresh`: `python -m benchmarks.fresh_reader DIRECTORY SEGMENT...`.

A line `get SEGMENT PATH VALUE` comes after a publication: it answers with the seconds of the first look-up. Between
publications it is at work, as workers are: it looks up keys of a segment that does not change, more of them than a
Reader keeps, so that the code of a look-up is in the processor's cache and the new version's bytes are not. `decode
FILE` answers with the seconds of msgpack.unpackb of the file.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import msgpack

import shmconf

from . import sample
from .timing import once

WORK_SERVICES = 1_000  # in the segment that does not change: more scalars than the 4,096 that a Reader keeps
_WORK = 200  # look-ups there


def main(directory: str, *names: str) -> None:
    """Answer lines until there are no more."""
    gc.disable()  # as timeit does; it is decoding that gains by it
    still = shmconf.attach("still", directory=directory)
    for field in ("hostname", "owner", "enabled", "port", "deployed_at"):
        for service in range(WORK_SERVICES):
            still.get(sample.service_path(service, field))
    configs = {name: shmconf.attach(name, directory=directory) for name in names}
    for line in sys.stdin:
        match line.split():
            case ["get", name, path, expected]:
                for turn in range(_WORK):
                    still.get(sample.service_path(WORK_SERVICES - 1 - turn, "port"))
                config, value = configs[name], int(expected)
                seconds, found = once(config.get, path)
                assert found == value, f"read {found!r}, and {value} was published"
            case ["decode", file]:
                payload = Path(file).read_bytes()
                seconds, found = once(msgpack.unpackb, payload)
                assert isinstance(found, dict)
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
