"""Makes the golden segments: golden/NAME.shmconf.gz, and golden/NAME.json with what every reader must find in it.

    python tests/segment/make_golden.py            writes them all anew
    python tests/segment/make_golden.py NAME ...   writes these

Everything in them is fixed, also epoch and times, so today's writer gives the stored bytes again: test_golden.py
demands it. So a stored file changes only together with the format, and a new format gets new files beside the old.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

from shmconf import codec
from shmconf.index import build_index
from shmconf.layout import Header
from shmconf.segment import WritableSegment
from shmconf.status import AgentStatus
from shmconf.storage import Storage

GOLDEN_DIRECTORY = Path(__file__).parent / "golden"
EPOCH = 0xFEDC_BA98_7654_3210
CREATED_AT = 1_795_000_000_000_000_000  # ns since 1970
MAX_BYTES = 1 << 20


class Killed(BaseException):
    """The writer's process ends here."""


class DyingMapping:
    """A mapping that dies half-way through the first large copy, once `armed`."""

    def __init__(self, real: Any) -> None:
        self._real, self.armed = real, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, offset: int, data: bytes) -> None:
        if self.armed and len(data) > 256:
            self._real.write(offset, data[: len(data) // 16 * 8])
            raise Killed
        self._real.write(offset, data)


class DyingStorage(Storage):
    def map(self, fd: int, length: int) -> Any:
        self.mapping = DyingMapping(super().map(fd, length))
        return self.mapping


class Making:
    """A segment in the making; versions are published 1 s apart."""

    def __init__(self, path: Path, *, floor: int = 0) -> None:
        self.storage = DyingStorage()
        self.floor = floor
        header = Header(EPOCH, MAX_BYTES, CREATED_AT, floor)
        self.segment = WritableSegment.build(self.storage, path, header, 0o640, None)

    def publish(self, tree: dict[Any, Any], *, with_index: bool = True) -> None:
        payload = codec.pack(tree)
        index = build_index(payload) if with_index else b""
        metadata = codec.pack({"files": ["base.yaml", "conf.d/10.toml"], "digest": hashlib.sha256(payload).hexdigest()})
        version = max(self.segment.latest, self.floor) + 1
        published_at = published_at_of(version - self.floor)
        self.segment.publish(version, payload, index, metadata, published_at, MAX_BYTES)

    def status(self, last_error: str | None, **more: Any) -> None:
        told = AgentStatus(
            state="running",
            pid=4711,
            agent_version="0.1.0",
            started_at=CREATED_AT,
            last_error=last_error,
            last_error_at=CREATED_AT + 5 if last_error else None,
            **more,
        )
        self.segment.write_status(told.encode())


def published_at_of(number: int) -> int:
    return CREATED_AT + 1_000_000_000 * number


# --- what is published ------------------------------------------------------------------------------------------------

PLAIN = {"db": {"host": "db.example.internal", "pool": {"size": 10, "timeout": 2.5}}, "debug": False, "name": None}

SCALARS: dict[str, Any] = {
    "small integers": [0, 1, -1, 127, 128, -32, -33, -128, -129, 255, 256, 65_535, 65_536, -32_768, -32_769],
    "larger integers": [2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32 - 1, 2**32],
    "largest integers": [2**63 - 1, 2**63, 2**64 - 1, -(2**63)],
    "floats": [0.0, -0.0, 1.0, 0.1, -2.5e-300, 1.7e308, 2.0**53, float("inf"), float("-inf"), float("nan")],
    "truth": [True, False, None],
    "texts": ["", "a", "naïve", "日本", "\0", "\U0001f980", "x" * 31, "x" * 32, "y" * 255, "y" * 256, "é" * 150],
    "bytes": [b"", b"\0\xff", b"z" * 255, b"z" * 256],
    "dates": [date(2026, 11, 22), date(1, 1, 1), time(7, 32), time(7, 32, 0, 999_999), datetime(1979, 5, 27, 7, 32)],
    "instants": [
        datetime(1979, 5, 27, 7, 32, tzinfo=UTC),
        datetime(1979, 5, 27, 0, 32, 0, 5, tzinfo=timezone(timedelta(hours=-7))),
    ],
    "empty": [{}, [], "", {"in a map": {}, "in one more": []}],
}

KEYS: dict[Any, Any] = {
    7: "seven",
    -7: "minus seven",
    2**40: "2^40",
    2**64 - 1: "2^64 - 1",
    -(2**63): "-2^63",
    0.5: "a half",
    2.0**70: "2^70 as a float",
    True: "one",
    False: "zero",
    None: "nil",
    "7": "text",
    "": "the empty text",
    "dotted.key": "one key",
    "ключ": "not ASCII",
    "k" * 300: "a long key",
    b"7": "bytes",
    b"": "no bytes",
    date(2026, 11, 22): "a day",
    time(7, 32): "a time",
    datetime(1979, 5, 27, 7, 32): "a local moment",
    datetime(1979, 5, 27, 7, 32, tzinfo=UTC): "an instant",
}

INDEXED: dict[str, Any] = {
    "scalars": SCALARS,
    "keys": KEYS,
    "services": {
        f"service-{number:03d}": {"port": 8000 + number, "tags": ["blue", f"zone-{number % 7}"], "weight": number / 8}
        for number in range(120)
    },
    "lists": {
        "of numbers": list(range(1000)),
        "of texts": [f"host-{number:02d}.example.internal" for number in range(50)],
        "of long texts": [f"{number}: " + "long " * 20 for number in range(9)],
        "of lists": [[[number] * number] for number in range(20)],
        "of maps": [{"id": number, "on": number % 2 == 0} for number in range(70)],
    },
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": {"g": ["x" * 300, {"h": "the bottom"}]}}}}}}},
    "last": 1,
}

LARGE = {
    "text": "".join(f"{number:07d}\n" for number in range(9000)),  # longer than 2^16 bytes
    "list": [number % 100 for number in range(5000)],
    "map": {f"{number:05x}": number for number in range(1000)},
}


# --- the segments -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Golden:
    """make(path) makes the file; the rest is what a reader must find in it. tree None: nothing is published."""

    make: Callable[[Path], None]
    tree: dict[Any, Any] | None
    number: int
    floor: int = 0
    retired: bool = False
    last_error: str | None = None

    def expected(self) -> dict[str, Any]:
        """What stands in the JSON file."""
        payload = codec.pack(self.tree)
        there = self.tree is not None
        return {
            "version": self.floor + self.number,
            "epoch": EPOCH,
            "retired": self.retired,
            "published_at": published_at_of(self.number) if there else None,
            "digest": hashlib.sha256(payload).hexdigest() if there else None,
            "last_error": self.last_error,
            "tree": as_json(self.tree),
        }


def make_plain(path: Path) -> None:
    Making(path).publish(PLAIN)


def make_indexed(path: Path) -> None:
    making = Making(path)
    for number in range(6):  # all slots are in use, two for the second time
        making.publish({**INDEXED, "last": number - 4})


def make_without_index(path: Path) -> None:
    """As the writer of 0.1.0 left it."""
    making = Making(path)
    making.publish(PLAIN, with_index=False)
    making.publish(INDEXED, with_index=False)


def make_retired(path: Path) -> None:
    making = Making(path)
    making.publish(PLAIN)
    making.publish(INDEXED)
    making.segment.retire()


def make_half_written(path: Path) -> None:
    """The writer was killed in the midst of version 5's payload."""
    making = Making(path)
    for _ in range(4):
        making.publish(INDEXED)
    making.storage.mapping.armed = True
    try:
        making.publish({**INDEXED, "last": "never whole"})
    except Killed:
        return
    raise AssertionError("the writer was to die")


def make_empty(path: Path) -> None:
    making = Making(path)
    making.status("base.yaml:3:1: expected a value", problems=("base.yaml:3:1: expected a value",), problem_count=1)


LAST_FLOOR = 2**63 - 6


def make_last_versions(path: Path) -> None:
    """Up to the last version that there can be."""
    making = Making(path, floor=LAST_FLOOR)
    for number in range(5):
        making.publish({**INDEXED, "last": number - 3})


def make_grown(path: Path) -> None:
    making = Making(path)
    for tree in (PLAIN, INDEXED, PLAIN, LARGE, LARGE, PLAIN, LARGE):
        making.publish(tree)


def make_status(path: Path) -> None:
    making = Making(path)
    making.status(None)
    making.publish(PLAIN)
    problems = tuple(f"conf.d/{number:02d}.yaml:1:1: a problem" for number in range(40))
    making.status("conf.d/00.yaml: naïve", problems=problems, problem_count=400, rejections=9, stale=True)


GOLDEN: dict[str, Golden] = {
    "plain": Golden(make_plain, PLAIN, 1),
    "indexed": Golden(make_indexed, INDEXED, 6),
    "without-index": Golden(make_without_index, INDEXED, 2),
    "retired": Golden(make_retired, INDEXED, 2, retired=True),
    "half-written": Golden(make_half_written, INDEXED, 4),
    "empty": Golden(make_empty, None, 0, last_error="base.yaml:3:1: expected a value"),
    "last-versions": Golden(make_last_versions, INDEXED, 5, floor=LAST_FLOOR),
    "grown": Golden(make_grown, LARGE, 7),
    "status": Golden(make_status, PLAIN, 1, last_error="conf.d/00.yaml: naïve"),
}


# --- trees as JSON: a map is {"map": [[key, value], ...]}, and what JSON lacks {"type": text} -----------------------


def as_json(value: Any) -> Any:
    """`value` for a JSON file, exactly: types, order and keys of any type included."""
    if isinstance(value, dict):
        return {"map": [[as_json(key), as_json(inner)] for key, inner in value.items()]}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    if isinstance(value, (datetime, date, time)):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float):
        return {"float": value.hex()}
    return value


FROM_JSON: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "bytes": bytes.fromhex,
    "float": float.fromhex,
}


def from_json(told: Any) -> Any:
    """What `as_json` was given."""
    if isinstance(told, list):
        return [from_json(inner) for inner in told]
    if not isinstance(told, dict):
        return told
    ((kind, content),) = told.items()
    if kind == "map":
        return {from_json(key): from_json(inner) for key, inner in content}
    return FROM_JSON[kind](content)


def main(names: list[str]) -> None:
    for name in names or GOLDEN:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "golden.shmconf"
            GOLDEN[name].make(path)
            compressed = gzip.compress(path.read_bytes(), mtime=0)
        (GOLDEN_DIRECTORY / f"{name}.shmconf.gz").write_bytes(compressed)
        text = json.dumps(GOLDEN[name].expected(), ensure_ascii=False, indent=None, separators=(",", ":"))
        (GOLDEN_DIRECTORY / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
