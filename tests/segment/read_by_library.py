"""Run as a process of its own: what the library finds in a segment, as `readers.py` asks for it.

argv: the directory and the segment's name. stdin: a msgpack array of paths, each an array of keys. stdout: a msgpack
map with the fields of readers.Reading.
"""

from __future__ import annotations

import sys

import shmconf
from shmconf import codec
from shmconf.reader import find, read_status

MISS = object()
directory, name = sys.argv[1:]
paths = [tuple(path) for path in codec.unpack(sys.stdin.buffer.read())]
values: list[bytes | None] = [None] * len(paths)
try:
    with shmconf.attach(name, directory=directory) as reader:
        status = reader.status()
        for number, path in enumerate(paths):
            value = reader.get(path, MISS)
            if value is not MISS:
                values[number] = codec.pack(value)
except shmconf.SegmentNotFound:
    status = read_status(name, find(name, directory))
told = {
    "version": status.version,
    "epoch": status.epoch,
    "retired": status.retired,
    "published_at": status.published_at,
    "digest": status.digest,
    "last_error": status.last_error,
    "values": values,
}
sys.stdout.buffer.write(codec.pack(told))
