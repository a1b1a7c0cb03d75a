"""What JSON and TOML, in which a value is what it looks like, have to say of surprises and spelling: nothing."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from ..problems import Fault
from .places import Place, Position


def surprises(data: bytes) -> list[tuple[Position, Fault]]:
    """Nothing: in this format a value is what it looks like."""
    return []


def hint(place: Place, wanted: AbstractSet[str]) -> None:
    """Nothing: in this format a value's type is plain to see."""
