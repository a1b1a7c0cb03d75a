"""Times expressions of nanoseconds against each other, each compiled into the same loop.

An expression stands in the loop itself, ten times over, with its names as locals: no call of ours is timed with it.
The same loop with `pass` in place of the expressions is timed in every round too, and its time is subtracted from
each. Rounds are interleaved (all expressions in each round), so that a slow spell of the machine falls on all of
them; the smallest round of each counts, as in timeit. The garbage collector is off.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from statistics import median

_UNROLLED = 10
_ROUND_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class Timed:
    """An expression over `names`, to be timed."""

    expression: str
    names: Mapping[str, object]

    def value(self) -> object:
        """What it gives, once."""
        found: object = eval(self.expression, dict(self.names))
        return found


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds per evaluation: the smallest round, and the median one."""

    smallest: float
    median: float


def interleaved(timed: Mapping[str, Timed], rounds: int = 60) -> dict[str, Seconds]:
    """What each takes, by name, the loop itself subtracted."""
    loops = {name: _loop(one.expression, one.names) for name, one in timed.items()}
    turns = {name: _turns(loop) for name, loop in loops.items()}
    empty = _loop("pass", {})
    samples: dict[str, list[float]] = {name: [] for name in timed}
    empty_samples = []
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            empty_samples.append(empty(20_000) / 20_000)
            for name, loop in loops.items():
                samples[name].append(loop(turns[name]) / turns[name])
    finally:
        if enabled:
            gc.enable()
    overhead = min(empty_samples)
    return {
        name: Seconds((min(found) - overhead) / _UNROLLED, (median(found) - overhead) / _UNROLLED)
        for name, found in samples.items()
    }


def once(call: Callable[..., object], *arguments: object) -> tuple[float, object]:
    """Seconds that one call took, and its result, which is kept so that its end is not timed with it."""
    began = time.perf_counter_ns()
    result = call(*arguments)
    return (time.perf_counter_ns() - began) * 1e-9, result


def _loop(statement: str, names: Mapping[str, object]) -> Callable[[int], float]:
    """A function that gives the seconds of so many turns, each with the statement ten times ('pass': once)."""
    times = 1 if statement == "pass" else _UNROLLED
    source = "\n".join(
        [
            f"def loop(turns, *, {''.join(f'{name}, ' for name in ('repeat_', 'clock_', *names)).rstrip(', ')}):",
            "    began = clock_()",
            "    for _ in repeat_(None, turns):",
            *[f"        {statement}"] * times,
            "    return (clock_() - began) * 1e-9",
        ]
    )
    scope: dict[str, Callable[..., float]] = {}
    exec(compile(source, f"<{statement}>", "exec"), scope)
    loop, given = scope["loop"], {"repeat_": repeat, "clock_": time.perf_counter_ns, **names}
    return lambda turns: loop(turns, **given)


def _turns(loop: Callable[[int], float]) -> int:
    turns = 1
    while (seconds := loop(turns)) < _ROUND_SECONDS / 2:
        turns = max(turns + 1, int(turns * min(10.0, _ROUND_SECONDS / max(seconds, 1e-9))))
    return turns
