"""A worker of `memory`: `python -m benchmarks.memory_worker reads|decodes DIRECTORY SERVICES`.

It answers with the bytes by which its private pages, clean and dirty, grew between its imports and the end of its
work, with what that work left alive. `reads` looks up 5,000 scalars twice, which is more than a Reader keeps;
`decodes` keeps what msgpack.unpackb gave, and not the bytes that it came from.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import msgpack

import shmconf

from . import sample

_LOOK_UPS = 5_000


def main(kind: str, directory: str, services: str) -> None:
    """Work, and print the growth."""
    gc.collect()
    before = private_bytes()
    kept = (_reads if kind == "reads" else _decodes)(directory, int(services))
    gc.collect()
    print(private_bytes() - before, flush=True)
    assert kept is not None


def private_bytes() -> int:
    """Bytes of this process's pages that no other process maps."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    fields = (line.split() for line in lines)
    return sum(int(words[1]) << 10 for words in fields if words[0] in ("Private_Clean:", "Private_Dirty:"))


def _reads(directory: str, services: int) -> object:
    config = shmconf.attach("web", directory=directory)
    step = services // _LOOK_UPS
    for _ in range(2):
        for turn in range(_LOOK_UPS):
            port = config.get(sample.service_path(turn * step, "port"))
            assert isinstance(port, int)
    return config


def _decodes(directory: str, services: int) -> object:
    tree = msgpack.unpackb((Path(directory) / "payload").read_bytes())
    assert len(tree["services"]) == services
    return tree


if __name__ == "__main__":
    main(*sys.argv[1:])
