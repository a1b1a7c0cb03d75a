"""The sample that most rows read: services of 8 fields, the same bytes at every call and on every machine.

With 10,000 services it is 2.4 MB of YAML and 1.7 MB packed; other sizes have the same shape and depth, so that only
the size differs. `db.pool.size` is the scalar that the look-ups ask for.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from shmconf import codec

SERVICES = 10_000
YAML_BYTES = 2_400_000
PACKED_BYTES = 1_700_000
_TOLERANCE = 0.05

SCALAR_PATH = "db.pool.size"
SCALAR_VALUE = 10

_MARK = 0xDEADBEEF  # no other field reaches it
_PACKED_MARK = b"\xce" + _MARK.to_bytes(4, "big")
_TEAMS = ("billing", "checkout", "identity", "logistics", "payments", "search", "storefront")
_ZONES = ("eu-central-1", "eu-west-3", "us-east-1", "us-west-2", "ap-south-1")


def tree(services: int = SERVICES) -> dict[str, Any]:
    """The sample with so many services, as fresh objects."""
    return {
        "db": {"pool": {"size": SCALAR_VALUE, "timeout_ms": 250}, "hosts": ["db-1.internal", "db-2.internal"]},
        "services": {service_name(number): _service(number) for number in range(services)},
    }


def service_name(number: int) -> str:
    """The key of that service below `services`."""
    return f"service-{number:06d}"


def service_path(number: int, field: str) -> str:
    """The dotted path of a field of that service."""
    return f"services.{service_name(number)}.{field}"


def services_for(packed_bytes: int) -> int:
    """How many services make a payload of about that size."""
    return round(packed_bytes * SERVICES / PACKED_BYTES)


def yaml_text(tree: dict[str, Any]) -> str:
    """`tree` as a person would write it: block style, two spaces, no quotes where none are needed."""
    return "".join(_yaml_lines(tree, ""))


def check_sizes() -> tuple[int, int]:
    """The sample's sizes in bytes, YAML and packed. Raises AssertionError where they left what is documented."""
    whole = tree()
    sizes = len(yaml_text(whole).encode()), len(codec.pack(whole))
    for size, documented in zip(sizes, (YAML_BYTES, PACKED_BYTES), strict=True):
        if abs(size - documented) > _TOLERANCE * documented:
            raise AssertionError(f"the sample has {size} bytes where {documented} are documented")
    return sizes


@dataclass(frozen=True, slots=True)
class Versions:
    """Payloads that differ in the value at `path` alone, so that a reader can prove which version it read."""

    path: str
    _before: bytes
    _after: bytes

    @classmethod
    def of(cls, services: int) -> Versions:
        """Of the sample with so many services; the value that changes belongs to the one in the middle."""
        whole = tree(services)
        middle = services // 2
        whole["services"][service_name(middle)]["memory_limit_bytes"] = _MARK
        before, found, after = codec.pack(whole).partition(_PACKED_MARK)
        assert found, "the mark is not in the payload"
        assert _PACKED_MARK not in after, "the mark is there twice"
        return cls(service_path(middle, "memory_limit_bytes"), before, after)

    def payload(self, value: int) -> bytes:
        """The payload with `value`, from 65536 to 2**32 - 1, at `path`."""
        assert value > 0xFFFF, "msgpack would write a smaller number shorter"
        return self._before + b"\xce" + value.to_bytes(4, "big") + self._after


def _service(number: int) -> dict[str, Any]:
    chance = zlib.crc32(service_name(number).encode())
    return {
        "hostname": f"{service_name(number)}.{_ZONES[chance % 5]}.internal",
        "port": 10_000 + chance % 50_000,
        "enabled": chance % 7 != 0,
        "verify_client_tls": chance % 11 == 0,
        "owner": _TEAMS[chance % 7],
        "call_timeout_ms": 10_000 + chance % 20_000,
        "memory_limit_bytes": (1 << 30) + chance % (1 << 30),
        "deployed_at": 1_700_000_000 + chance // 5 % 100_000_000,
    }


def _yaml_lines(node: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in node.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:\n", *_yaml_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines += [f"{indent}{key}:\n", *(f"{indent}- {item}\n" for item in value)]
        else:
            lines.append(f"{indent}{key}: {str(value).lower() if isinstance(value, bool) else value}\n")
    return lines
