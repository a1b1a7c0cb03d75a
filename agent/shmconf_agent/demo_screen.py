"""How `shmconf demo` looks: headings, facts with a label, and a table of workers. It knows nothing of what is played.

On a terminal there are colours and, while something is awaited, a spinner; elsewhere plain lines, nothing redrawn. All
fits 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

_LABEL_WIDTH = 9
_LATENCY_WIDTH = 10
_BAR_WIDTH = 8
_TWO_ABREAST = 4  # tables of more workers than that have two columns of them


@dataclass(frozen=True, slots=True)
class Arrival:
    """A version in a worker. seconds: from the edit until the worker had read the new value."""

    pid: int
    version: int
    seconds: float


class Screen:
    """Prints on one console. spinning: a spinner may be shown while something is awaited."""

    def __init__(self, console: Console, *, spinning: bool) -> None:
        """Nothing is printed yet."""
        self._console = console
        self._spinning = spinning
        self._slowest = 0.0
        self._bar, self._arrow = ("#", "->") if console.options.ascii_only else ("━", "→")

    def title(self, name: str, text: str) -> None:
        """The first line."""
        self._console.print()
        self._console.print(Text.assemble((name, "bold"), "  ", (text, "dim")))

    def act(self, number: int, name: str) -> None:
        """The heading of an act."""
        self._console.print()
        title = Text.assemble((f"{number}  ", "dim"), (name, "bold"))
        self._console.print(Rule(title, align="left", style="dim", characters="-" if self._bar == "#" else "─"))

    def fact(self, label: str, *lines: str, style: str = "") -> None:
        """Something that was seen to be so, in one line or more; long ones are continued below themselves."""
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_LABEL_WIDTH + 2)
        table.add_column(overflow="fold")
        for number, line in enumerate(lines):
            table.add_row(Text(f"  {label}" if number == 0 else "", style="dim"), Text(line, style=style))
        self._console.print(table)

    def change(self, place: str, before: str, after: str) -> None:
        """An edit of a line of a file."""
        shown = Text.assemble(f"{place}  ", (before, "dim"), f" {self._arrow} ", (after, "bold"))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_LABEL_WIDTH + 2)
        table.add_column(overflow="fold")
        table.add_row(Text("  edit", style="dim"), shown)
        self._console.print(table)

    def arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """A table of the workers, with a bar for how long the version was on its way; the longest so far is full."""
        blocks = 2 if len(arrivals) > _TWO_ABREAST else 1
        height = -(-len(arrivals) // blocks)
        self._slowest = max(self._slowest, *(arrival.seconds for arrival in arrivals))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for _ in range(blocks):
            table.add_column("  worker", justify="right")
            table.add_column("version", justify="right")
            table.add_column("visible after", width=_LATENCY_WIDTH + _BAR_WIDTH, no_wrap=True)
        for row in range(height):
            cells: list[str | Text] = []
            for arrival in arrivals[row::height]:
                cells += [str(arrival.pid), Text(str(arrival.version), style="bold"), self._latency(arrival)]
            table.add_row(*cells)
        self._console.print()
        self._console.print(table)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """While something is awaited."""
        if not self._spinning:
            yield
            return
        with self._console.status(f"[dim]{what}[/dim]", spinner="dots", spinner_style="dim"):
            yield

    def end(self, text: str) -> None:
        """The last line."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def _latency(self, arrival: Arrival) -> Text:
        latency = f"{arrival.seconds * 1000:.1f} ms ".rjust(_LATENCY_WIDTH)
        length = max(1, round(_BAR_WIDTH * arrival.seconds / self._slowest))
        return Text.assemble(latency, (self._bar * length, "green"))


class Record:
    """Keeps what is told instead of showing it, for programs. acts: what was seen in each, as data for JSON."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self.acts: list[dict[str, Any]] = []

    def title(self, name: str, text: str) -> None:
        """Told by the acts."""

    def act(self, number: int, name: str) -> None:
        """An act begins."""
        self.acts.append({"act": number, "name": name, "facts": [], "arrivals": []})

    def fact(self, label: str, *lines: str, style: str = "") -> None:
        """Without a label it goes on with the fact before."""
        facts = self.acts[-1]["facts"]
        if label or not facts:
            facts.append({"about": label, "lines": []})
        facts[-1]["lines"] += lines

    def change(self, place: str, before: str, after: str) -> None:
        """An edit."""
        self.acts[-1]["facts"].append({"about": "edit", "lines": [f"{place}: {before} -> {after}"]})

    def arrivals(self, arrivals: Sequence[Arrival]) -> None:
        """A version in every worker."""
        self.acts[-1]["arrivals"] += [
            {"pid": each.pid, "version": each.version, "seconds": round(each.seconds, 6)} for each in arrivals
        ]

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Without a word."""
        yield

    def end(self, text: str) -> None:
        """Told by the exit code and `happened`."""
