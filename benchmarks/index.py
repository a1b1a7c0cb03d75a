"""The index beside the payload: its size, and the time to build it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from typing import cast

from shmconf import codec

from . import sample
from .row import Outcome, Row, Unavailable, of_medians
from .timing import once

_ROUNDS = 30


def measure_size() -> Outcome:
    """Bytes of the sample's index against bytes of its payload."""
    build = _builder()
    payload = codec.pack(sample.tree())
    return Outcome(len(build(payload)), len(payload), "B")


def measure_time() -> Outcome:
    """Seconds to build the sample's index from its payload, against seconds to pack the sample."""
    build = _builder()
    tree = sample.tree()
    payload = codec.pack(tree)
    built, packed = [], []
    gc.disable()
    try:
        for _ in range(_ROUNDS):
            packing, again = once(codec.pack, tree)
            assert again == payload
            building, _index = once(build, payload)
            packed.append(packing)
            built.append(building)
    finally:
        gc.enable()
    return of_medians(built, packed)


def _builder() -> Callable[[bytes], bytes]:
    try:
        module = importlib.import_module("shmconf.index")
    except ModuleNotFoundError as error:
        raise Unavailable(f"no index in this shmconf: {error}") from error
    return cast("Callable[[bytes], bytes]", module.build_index)


ROWS = [
    Row("index-size", "the sample's index", "its payload", 0.25, measure_size),
    Row("index-time", "building that index", "packing the sample", 2, measure_time),
]
