"""Checks a parsed tree against what the format holds: depth, number of nodes, integers of 64 bits, whole characters.

For parsers that cannot be held to this while they read. The walk has a stack of its own and ends at the first limit
that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shmconf.codec import INT_MAX, INT_MIN

from ..problems import Path
from .limits import Limits

HALF_A_PAIR = "half a surrogate pair is not a character"


@dataclass(slots=True)
class Findings:
    """What a walk found: problems by path, and the paths of the floats that are infinite, which may be meant."""

    problems: list[tuple[Path, str]] = field(default_factory=list)
    infinities: list[Path] = field(default_factory=list)


def inspect(tree: Any, limits: Limits) -> Findings:
    """Every value of `tree` that is outside the format, in the order of the walk, until a limit is passed."""
    findings = Findings()
    nodes = 1
    waiting: list[tuple[Any, Path]] = [(tree, ())]
    while waiting:
        container, path = waiting.pop()
        if len(path) >= limits.max_depth:
            findings.problems.append((path, limits.too_deep()))
            return findings
        is_map = isinstance(container, dict)
        entries: Iterable[tuple[Any, Any]] = container.items() if is_map else enumerate(container)
        nodes += len(container) * (2 if is_map else 1)
        if nodes > limits.max_nodes:
            findings.problems.append((path, limits.too_many_nodes()))
            return findings
        for part, value in entries:
            kind = type(value)
            if kind is dict or kind is list:
                waiting.append((value, (*path, part)))
            elif kind is str:
                if not value.isascii():
                    _check_text(value, (*path, part), findings)
            elif kind is int:
                if not INT_MIN <= value <= INT_MAX:
                    message = "an integer beyond 64 bits (it may be -2**63 to 2**64-1)"
                    findings.problems.append(((*path, part), message))
            elif kind is float and math.isinf(value):
                findings.infinities.append((*path, part))
            if is_map and not part.isascii():
                _check_text(part, (*path, part), findings)
    return findings


def _check_text(text: str, path: Path, findings: Findings) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        findings.problems.append((path, HALF_A_PAIR))
