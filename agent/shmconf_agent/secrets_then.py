"""The secrets in a version that was published before, found in its values by the text that these were made from.

A version's metadata tells which values hold a secret, not which part of such a value it is: `db://me:tiger@host` was
made from `db://me:${file:secrets/db}@host`, and what stands between the literal texts is the secret. A check may tell
that part alone, so it has to be known, also once the file holds another secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shmconf.paths import MISSING, look_up

from .merge import Layer
from .problems import Path
from .substitution import split


def secrets_then(tree: Mapping[Any, Any], secrets: Sequence[Path], layers: Sequence[Layer]) -> frozenset[str] | None:
    """The texts in `tree` that are secret, each whole and without the literal text around it; None if the layers do not
    tell of one of them which part of it that is.

    secrets: where they are in the tree. layers: what it was made from, with its references as they are written.
    """
    found: set[str] = set()
    for secret in secrets:
        for path, value in _texts(look_up(tree, secret), secret):
            parts = _parts_of(path, value, layers)
            if parts is None:
                return None
            found.add(value)
            found.update(parts)
    return frozenset(found)


def parts_between(template: str, value: str) -> frozenset[str] | None:
    """What stands in `value` where references stand in the `template` that it was made from; None if it was not.

    Where the literal texts between references could be found in more than one place, each of the readings from the left
    and from the right is told.
    """
    parts = split(template)[0]
    literals = [""]
    for part in parts:
        if isinstance(part, str):
            literals[-1] = part
        elif literals[-1] or len(literals) == 1:
            literals.append("")  # references side by side are read as one
    first, last = literals[0], literals[-1]
    if len(literals) == 1:
        return frozenset() if value == first else None
    if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
        return None
    inner = value[len(first) : len(value) - len(last)]
    from_left = _between(inner, literals[1:-1])
    from_right = _between(inner[::-1], [each[::-1] for each in literals[-2:0:-1]])
    if from_left is None or from_right is None:
        return None
    return frozenset(from_left) | {each[::-1] for each in from_right}


def _between(text: str, literals: Sequence[str]) -> list[str] | None:
    found = []
    for literal in literals:
        before, separator, text = text.partition(literal)
        if not separator:
            return None
        found.append(before)
    return [*found, text]


def _parts_of(path: Path, value: str, layers: Sequence[Layer]) -> frozenset[str] | None:
    for layer in reversed(layers):
        if path[: len(layer.at)] == layer.at:
            template = look_up(layer.tree, path[len(layer.at) :])
            if isinstance(template, str) and (parts := parts_between(template, value)) is not None:
                return parts
    return None


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text at the path and beneath it."""
    waiting = [] if value is MISSING else [(path, value)]
    while waiting:
        at, each = waiting.pop()
        if isinstance(each, str):
            yield at, each
        elif isinstance(each, Mapping):
            waiting += [((*at, key), below) for key, below in each.items()]
        elif isinstance(each, list):
            waiting += [((*at, index), below) for index, below in enumerate(each)]
