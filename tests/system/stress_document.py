"""What the stress test publishes: every byte of a version follows from its number, so that any mixture shows.

stress_reader.c has the same rules. Sizes go from 100 bytes to 8.5 MB, of which most versions are small, so that the
writer laps whoever copies a large one; the largest in each run of 1,200 versions come late in it, so that the file
of each segment grows under its readers. Each seventh version is published without an index, as any small one is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from shmconf import codec
from shmconf.document import Document

MISSING = object()
FEW = 300  # services, at most
# of 64 versions so many have at most that many bytes of filling
_SIZES = ((34, 0), (46, 600), (54, 5_000), (58, 50_000), (60, 500_000), (62, 2_000_000), (64, 8_500_000))
# that far into a run of versions they have no more than that
_LIMITS = ((60, 600), (150, 5_000), (300, 50_000), (450, 500_000), (600, 2_000_000), (1_200, 8_500_000))


def size(version: int) -> int:
    draw = (version * 0x9E3779B97F4A7C15 % 2**64) >> 58
    drawn = next(size for most, size in _SIZES if draw < most)
    return min(drawn, next(limit for most, limit in _LIMITS if version % 1_200 < most))


def services(version: int) -> int:
    return min(size(version) // 100, FEW)


def service(version: int, number: int) -> dict[str, Any]:
    return {"port": version + number, "name": f"s{number}-{version}", "on": (version + number) % 2 == 0}


def fill(version: int) -> bytes:
    return struct.pack("<Q", version) * (size(version) // 8)


def tree(version: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "version": version,
        "text": f"{version:020d}",
        "real": version + 0.5,
        "even": version % 2 == 0,
        "wide": version * 0x9E3779B97F4A7C15 % 2**64,
        "negative": -version,
        "db": {"pool": {"size": version}},
        "list": [version, version + 1],
        f"only{version % 3}": version,
    }
    count = services(version)
    if count:
        made["services"] = {f"s{number}": service(version, number) for number in range(count)}
        made["hosts"] = [f"h{number}-{version}" for number in range(count)]
        made["fill"] = fill(version)
    made["last"] = version
    return made


def payload(version: int) -> bytes:
    return codec.pack(tree(version))


def document(version: int) -> Document:
    made = Document.of(payload(version))
    return Document(made.payload, made.digest, b"") if version % 7 == 3 else made


def in_service(number: int, key: str) -> Callable[[int], Any]:
    return lambda version: service(version, number)[key] if number < services(version) else MISSING


# What a look-up of each path finds in a version.
POINTS: dict[Any, Callable[[int], Any]] = {
    "version": lambda version: version,
    "text": lambda version: f"{version:020d}",
    ("real",): lambda version: version + 0.5,
    "even": lambda version: version % 2 == 0,
    "wide": lambda version: version * 0x9E3779B97F4A7C15 % 2**64,
    "negative": lambda version: -version,
    "db.pool.size": lambda version: version,
    ("list", 1): lambda version: version + 1,
    "list.0": lambda version: version,
    "only0": lambda version: version if version % 3 == 0 else MISSING,
    ("only1",): lambda version: version if version % 3 == 1 else MISSING,
    "services.s3.port": in_service(3, "port"),
    "services.s250.name": in_service(250, "name"),
    ("services", "s5", "on"): in_service(5, "on"),
    "hosts.299": lambda version: f"h299-{version}" if services(version) > 299 else MISSING,
    "no.such": lambda version: MISSING,
    "last": lambda version: version,
}
CONTAINERS: dict[Any, Callable[[int], Any]] = {
    "db": lambda version: {"pool": {"size": version}},
    "list": lambda version: [version, version + 1],
    ("services", "s1"): lambda version: service(version, 1) if services(version) > 1 else MISSING,
}
