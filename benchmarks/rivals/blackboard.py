"""iceoryx2's blackboard: values of fixed size by key in shared memory, a handle for each key."""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rival import Rival, leaves, require


class Blackboard(Rival):
    """The read that its documentation shows. Integers alone are published: text has no fixed size."""

    name = "iceoryx2 blackboard"
    expression = "entry.get().decode_as(c_int64).value"

    def __init__(self) -> None:
        """Nothing is opened before `prepare`."""
        self._entry: Any = None
        self._held: list[Any] = []  # reader first, the service's creator last

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """A creator's node, and a reader's."""
        iceoryx = require("iceoryx2")
        iceoryx.set_log_level(iceoryx.LogLevel.Error)
        name = iceoryx.ServiceName.new(f"shmconf-bench/{os.getpid()}/{type(self).__name__}")
        integers = [(path, value) for path, value in leaves(tree) if type(value) is int]
        creator = iceoryx.NodeBuilder.new().create(iceoryx.ServiceType.Ipc)
        builder = creator.service_builder(name).blackboard_creator(ctypes.c_uint64)
        for path, value in integers:
            builder = builder.add(_key(path), ctypes.c_int64(value))
        service = builder.create()
        node = iceoryx.NodeBuilder.new().create(iceoryx.ServiceType.Ipc)
        opened = node.service_builder(name).blackboard_opener(ctypes.c_uint64).open()
        reader = opened.reader_builder().create()
        self._entry = reader.entry(_key("db.pool.size"), ctypes.c_int64)
        self._held = [reader, opened, node, service, creator]

    def names(self) -> Mapping[str, object]:
        """The handle of the one key."""
        return {"entry": self._entry, "c_int64": ctypes.c_int64}

    def close(self) -> None:
        """All of it goes with its last reference."""
        self._entry = None
        while self._held:
            self._held.pop(0)


class BlackboardKept(Blackboard):
    """A copy that the caller keeps, and one question whether it is still right: no value is read from the blackboard.

    Shown, and not counted as the nearest rival: the cache, one handle and one copy per key, is the caller's own code.
    """

    name = "iceoryx2 blackboard, copy kept by the caller"
    expression = "kept if entry.is_up_to_date(copy) else entry.get().decode_as(c_int64).value"
    counts = False

    def names(self) -> Mapping[str, object]:
        """The handle, the copy from it, and the copy's decoded value."""
        copy = self._entry.get()
        kept = copy.decode_as(ctypes.c_int64).value
        return {"entry": self._entry, "c_int64": ctypes.c_int64, "copy": copy, "kept": kept}


def _key(path: str) -> ctypes.c_uint64:
    return ctypes.c_uint64(zlib.crc32(path.encode()))
