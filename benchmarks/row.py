"""What a row of the table is, and what measuring it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Unit = Literal["s", "B"]


class Unavailable(Exception):
    """The row or rival cannot be measured on this machine; the text says why, and the table shows it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """measured and reference: the two figures whose ratio is the row's, in `unit`, from one run.

    details: further figures by name, in the same unit unless the name says another. missing: what could not be
    measured, by name, with the reason.
    """

    measured: float
    reference: float
    unit: Unit
    details: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def ratio(self) -> float:
        """measured / reference."""
        return self.measured / self.reference


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `measure` raises Unavailable where the machine lacks what it needs."""

    name: str
    what: str
    against: str
    at_most: float
    measure: Callable[[], Outcome]


def of_medians(measured: list[float], reference: list[float], unit: Unit = "s", **details: float) -> Outcome:
    """The Outcome whose figures are medians, with the smallest values among its details."""
    return Outcome(
        median(measured),
        median(reference),
        unit,
        {"measured, smallest": min(measured), "against, smallest": min(reference), **details},
        note=f"medians of {len(measured)} and {len(reference)}",
    )
