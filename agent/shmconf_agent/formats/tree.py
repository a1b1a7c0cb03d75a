"""Checks a parsed tree against what the format holds: depth, numbers of nodes and keys, integers of 64 bits,
whole characters.

For parsers that cannot be held to this while they read. The walk has a stack of its own and ends at the first limit
that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shmconf.codec import INT_MAX, INT_MIN

from ..problems import MOST_PROBLEMS, Code, Fault, Path
from .limits import Limits

HALF_A_PAIR = Fault(Code.HALF_CHARACTER, "half a surrogate pair is not a character")
BEYOND_64_BITS = Fault(Code.NUMBER_RANGE, "an integer beyond 64 bits (it may be -2**63 to 2**64-1)")


@dataclass(slots=True)
class Findings:
    """What a walk found: problems by path, and the paths of the floats that are infinite, which may be meant."""

    problems: list[tuple[Path, Fault]] = field(default_factory=list)
    infinities: list[Path] = field(default_factory=list)


def inspect(tree: Any, limits: Limits) -> Findings:
    """Every value of `tree` that is outside the format, in the order of the walk, until a limit is passed or there are
    more than are told."""
    findings = Findings()
    nodes, keys = 1, 0
    waiting: list[tuple[Any, Path]] = [(tree, ())]
    while waiting and len(findings.problems) <= MOST_PROBLEMS:
        container, path = waiting.pop()
        if len(path) >= limits.max_depth:
            findings.problems.append((path, limits.too_deep()))
            return findings
        is_map = isinstance(container, dict)
        entries: Iterable[tuple[Any, Any]] = container.items() if is_map else enumerate(container)
        nodes += len(container)
        if is_map:
            nodes += len(container)
            keys += len(container)
        if nodes > limits.max_nodes:
            findings.problems.append((path, limits.too_many_nodes()))
            return findings
        if keys > limits.max_keys:
            findings.problems.append((path, limits.too_many_keys()))
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
                    _add(findings, (*path, part), BEYOND_64_BITS)
            elif kind is float and math.isinf(value):
                findings.infinities.append((*path, part))
            if is_map and not part.isascii():
                _check_text(part, (*path, part), findings)
    return findings


def _check_text(text: str, path: Path, findings: Findings) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _add(findings, path, HALF_A_PAIR)


def _add(findings: Findings, path: Path, fault: Fault) -> None:
    if len(findings.problems) <= MOST_PROBLEMS:
        findings.problems.append((path, fault))
