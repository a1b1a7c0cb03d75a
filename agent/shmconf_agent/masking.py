"""Secrets are not shown: which values of a tree are secret, a tree with `***` in their place, text without them.

A secret is named by its path; whatever is at that path or beneath it is secret. A version has the paths of its own
among its metadata, as `secret_paths` (shm/FORMAT.md). Keys are never secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shmconf.paths import MISSING

from .merge import Layer
from .problems import Path
from .substitution import bounded

MASK = "***"

_LEAST = 4
"""The least characters by which a secret is looked for in text: shorter ones are in everything."""
_CUT = "…"
_NAN = object()  # for keys that are nan, which equal nothing

_Marks = dict[Any, Any]
"""By part of a path: what is secret beneath, as the same again; True where all is."""


def secret_paths(layers: Sequence[Layer], tree: Mapping[Any, Any]) -> tuple[Path, ...]:
    """The paths of the secrets of `layers` that are in the tree which they make, where nothing shadows them."""
    found: list[Path] = []
    for layer in layers:
        for path in layer.secrets:
            whole = (*layer.at, *path)
            value = _at(tree, whole)
            own = _at(layer.tree, path)
            # A plain value that is equal to the secret which it shadows would tell as much as the secret itself.
            if value is not MISSING and (isinstance(own, dict | list) or (type(value) is type(own) and value == own)):
                found.append(whole)
    return bounded(found)


def noted_paths(metadata: Mapping[str, Any]) -> tuple[Path, ...]:
    """The `secret_paths` of a version's metadata; what cannot be understood there makes all of it secret."""
    noted = metadata.get("secret_paths", [])
    if isinstance(noted, list) and all(isinstance(path, list) for path in noted):
        paths = tuple(tuple(path) for path in noted)
        if not any(isinstance(part, list | dict) for path in paths for part in path):
            return paths
    return ((),)


def masked(tree: Any, secrets: Iterable[Path], at: Path = ()) -> Any:
    """The value at the path `at` of a tree with these secrets, with `***` in the place of each; nothing is changed.

    tree: that value itself. Maps and lists that are secret keep their shape and their keys.
    """
    marks: Any = _marks(secrets)
    for part in at:
        if marks is True or marks is None:
            break
        marks = marks.get(_part(part))
    return tree if marks is None else _masked(tree, marks)


class Censor:
    """Takes secrets out of text that others wrote: what a check says of the values that it was given."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """secrets: shorter ones than four characters are let pass, for they are in everything."""
        spellings: set[str] = set()
        for secret in secrets:
            spellings.update(_spellings(secret))
        self._spellings = sorted(
            (each for each in spellings if len(each) >= _LEAST), key=lambda each: (-len(each), each)
        )

    def clean(self, text: str) -> str:
        """The text with `***` in the place of each secret, also of one that the text's end cuts short."""
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        if text.endswith(_CUT) and self._spellings:
            head = text.removesuffix(_CUT)
            longest = max((_overlap(head, spelling) for spelling in self._spellings), default=0)
            if longest:
                text = head[:-longest] + MASK + _CUT
        return text


def _overlap(text: str, spelling: str) -> int:
    """How many characters at the end of the text are the spelling's first ones; 0 for fewer than four."""
    for size in range(min(len(spelling), len(text)), _LEAST - 1, -1):
        if text.endswith(spelling[:size]):
            return size
    return 0


def _spellings(secret: str) -> Iterable[str]:
    """The secret as programs write it, whole and, as they may write line by line, each of its lines."""
    for text in {secret, *secret.splitlines()}:
        plain = "".join(each if each.isprintable() else " " for each in text).strip()
        yield from (text, plain, text.strip(), repr(text)[1:-1], ascii(text)[1:-1], json.dumps(text)[1:-1])
        yield json.dumps(text, ensure_ascii=False)[1:-1]


def _marks(secrets: Iterable[Path]) -> Any:
    root: Any = {}
    for path in secrets:
        if not path:
            return True
        marks: Any = root
        for part in path[:-1]:
            marks = marks.setdefault(_part(part), {})
            if marks is True:
                break
        else:
            marks[_part(path[-1])] = True
    return root or None


def _masked(value: Any, marks: Any) -> Any:
    if isinstance(value, dict):
        if marks is True:
            return {key: _masked(each, True) for key, each in value.items()}
        found = ((key, each, marks.get(_part(key))) for key, each in value.items())
        return {key: each if below is None else _masked(each, below) for key, each, below in found}
    if isinstance(value, list):
        if marks is True:
            return [_masked(each, True) for each in value]
        return [each if marks.get(index) is None else _masked(each, marks[index]) for index, each in enumerate(value)]
    return MASK if marks is True else value


def _at(tree: Any, path: Path) -> Any:
    """The value at a path, by keys as they are; paths.MISSING for none."""
    for part in path:
        if isinstance(tree, Mapping):
            if part not in tree:
                return MISSING
        elif not isinstance(tree, list) or type(part) is not int or not 0 <= part < len(tree):
            return MISSING
        tree = tree[part]
    return tree


def _part(part: Any) -> Any:
    return _NAN if isinstance(part, float) and part != part else part
