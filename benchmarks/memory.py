"""Private memory of a worker that point-reads a configuration, against one that decoded it."""

from __future__ import annotations

from pathlib import Path

from shmconf import codec

from . import sample
from .place import place, writer
from .process import Worker
from .row import Outcome, Row, of_medians

_PACKED_BYTES = 17_000_000
_ROUNDS = 5


def measure() -> Outcome:
    """Growth of private pages in fresh processes; the writer keeps its mapping, as the agent does."""
    services = sample.services_for(_PACKED_BYTES)
    payload = codec.pack(sample.tree(services))
    with place() as directory, writer(directory) as publisher:
        publisher.publish(payload)
        (directory / "payload").write_bytes(payload)
        reads, decoded = [], []
        for _ in range(_ROUNDS):
            reads.append(_growth("reads", directory, services))
            decoded.append(_growth("decodes", directory, services))
    return of_medians(reads, decoded, "B", payload=len(payload))


def _growth(kind: str, directory: Path, services: int) -> float:
    with Worker("memory_worker", kind, directory, services) as worker:
        return worker.answer()


ROWS = [Row("memory", "private memory of a worker that point-reads 17 MB", "of one that decoded it", 0.02, measure)]
