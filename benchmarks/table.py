"""The table that `make bench-read` and `make bench-reload` print, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shmconf.mapping import IMPLEMENTATION, NATIVE_MISSING

from .row import Outcome, Row, Unit

_WIDTH = 140
_STEPS: dict[Unit, list[tuple[float, str]]] = {
    "s": [(1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")],
    "B": [(1e6, "MB"), (1e3, "kB"), (1, "B")],
}


@dataclass(frozen=True, slots=True)
class Line:
    """A row with what measuring it gave: an outcome, or the reason why there is none."""

    row: Row
    outcome: Outcome | None
    unavailable: str = ""

    @property
    def verdict(self) -> str:
        """met, missed or not available."""
        if self.outcome is None:
            return "not available"
        return "met" if self.outcome.ratio <= self.row.at_most else "missed"


def machine() -> dict[str, str]:
    """What the figures belong to."""
    models = (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name"))
    return {
        "processor": f"{os.cpu_count()} × {next(models, platform.machine())}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "shmconf": IMPLEMENTATION + (f" ({NATIVE_MISSING})" if NATIVE_MISSING else ""),
    }


def print_json(lines: list[Line]) -> None:
    """Everything that was measured, on stdout; times in seconds, memory and sizes in bytes."""
    rows = [
        {
            "row": line.row.name,
            "what": line.row.what,
            "against": line.row.against,
            "at_most": line.row.at_most,
            "ratio": line.outcome.ratio if line.outcome else None,
            "verdict": line.verdict,
            **(asdict(line.outcome) if line.outcome else {"unavailable": line.unavailable}),
        }
        for line in lines
    ]
    print(json.dumps({"machine": machine(), "rows": rows}, indent=2))


def console() -> Console:
    """Stdout, and wide enough for the table where it is not a terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=_WIDTH)


def print_table(lines: list[Line], console: Console, title: str) -> None:
    """The ratios with their targets, then what is behind them, then what could not be measured."""
    table = Table(title=title, caption=", ".join(machine().values()))
    for heading in ("row", "what", "", "against", ""):
        table.add_column(heading, justify="right" if not heading else "left")
    for heading in ("ratio", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("target")
    for line in lines:
        row, found = line.row, line.outcome
        shown = (_amount(found.measured, found.unit), _amount(found.reference, found.unit)) if found else ("", "")
        ratio = f"{found.ratio:.3g}" if found else ""
        style = {"met": "green", "missed": "red"}.get(line.verdict, "yellow")
        verdict = f"[{style}]{line.verdict}[/]"
        table.add_row(row.name, row.what, shown[0], row.against, shown[1], ratio, f"{row.at_most:g}", verdict)
    console.print(table)
    for line in lines:
        if line.outcome is None:
            console.print(f"{line.row.name}: not available: {line.unavailable}", markup=False)
            continue
        found = line.outcome
        parts = [f"{name} {_amount(value, found.unit)}" for name, value in found.details.items()]
        console.print(f"{line.row.name}: {'; '.join(filter(None, [found.note, *parts]))}", markup=False)
        for name, reason in found.missing.items():
            console.print(f"  not available: {name}: {reason}", markup=False)


def _amount(value: float, unit: Unit) -> str:
    steps = _STEPS[unit]
    size, name = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    return f"{value / size:.3g} {name}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
