"""Publication of 1 MB against the least that it contains: one copy and one checksum.

What is published is a Document, whose digest and index were made when it was encoded: that is how the agent publishes.
The time for these is told beside the ratio, and the index has a row of its own.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import zlib
from statistics import median

from shmconf.document import Document

from . import sample
from .place import place, writer
from .row import Outcome, Row, of_medians
from .timing import once

_PACKED_BYTES = 1_000_000
_SETTLING = 8  # every slot has had its room, and its pages are there
_ROUNDS = 200


def measure() -> Outcome:
    """Writer.publish of a Document of 1 MB, against memcpy of the payload plus zlib.crc32 of it."""
    versions = sample.Versions.of(sample.services_for(_PACKED_BYTES))
    values = itertools.count(100_000)
    size = len(versions.payload(100_000))
    target = ctypes.create_string_buffer(size)
    published, copied, prepared = [], [], []
    with place() as directory, writer(directory) as publisher:
        gc.disable()
        try:
            for turn in range(-_SETTLING, _ROUNDS):
                payload = versions.payload(next(values))
                copying, _ = once(_copy_and_check, target, payload)
                preparing, document = once(Document.of, payload)
                publishing, _ = once(publisher.publish, document)
                if turn >= 0:
                    copied.append(copying)
                    published.append(publishing)
                    prepared.append(preparing)
        finally:
            gc.enable()
        found = publisher.published()
        assert found is not None
        assert found.payload == payload == target.raw, "what was published or copied is not the payload"
    return of_medians(published, copied, "s", **{"digest and index": median(prepared)})


def _copy_and_check(target: ctypes.Array[ctypes.c_char], payload: bytes) -> int:
    ctypes.memmove(target, payload, len(payload))
    return zlib.crc32(payload)


ROWS = [Row("publish", "publication of 1 MB", "memcpy of 1 MB plus crc32 of it", 1.5, measure)]
