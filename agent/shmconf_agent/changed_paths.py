"""Which paths a publication changed, for the log: never their values. Found after the publication, by whoever asks.

Maps that two versions share are not looked into, so that the cost follows the change; and a change that is too large to
be told of is not counted to its end. Secrets need no care here: a path is made of keys, which are never secret.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shmconf import codec

from .difference import Kind, Paths, changes
from .problems import format_path

__all__ = ["ChangedPaths", "Comparison", "Lineage"]

_MOST_COUNTED = 10_000
_MOST_TOLD = 100  # of each kind, as fields
_MOST_SHOWN = 6  # of all kinds, in a line
_LONGEST_SHOWN = 80
_ORDER = (Kind.CHANGED, Kind.ADDED, Kind.DELETED)

Content = Mapping[Any, Any] | bytes
"""A tree, which nobody changes any more, or the msgpack document of one."""


@dataclass(frozen=True, slots=True)
class ChangedPaths:
    """What differs: how many paths of each kind, and the first of them. Where not all were counted there are more."""

    paths: Mapping[Kind, Paths]
    all_counted: bool = True

    def text(self) -> str:
        """`changed db.pool.size, db.host and 3 more; added x`."""
        parts, room = [], _MOST_SHOWN
        for number, kind in enumerate(_ORDER):
            found = self.paths[kind]
            if found.count:
                shown = [_shown(format_path(path)) for path in found.first[: max(1, room - (len(_ORDER) - 1 - number))]]
                room -= len(shown)
                more = found.count - len(shown)
                parts.append(f"{kind} {', '.join(shown)}{f' and {more:,} more' if more else ''}")
        if not self.all_counted:
            parts.append("and so on")
        return "; ".join(parts) or "no value changed"

    def fields(self) -> dict[str, Any]:
        """For JSON: by kind, the count and the first paths, as text."""
        found: dict[str, Any] = {"all_counted": self.all_counted}
        for kind in _ORDER:
            paths = self.paths[kind]
            found[str(kind)] = {"count": paths.count, "first": [format_path(path) for path in paths.first]}
        return found


class Comparison:
    """Two contents that are compared when somebody asks. From any thread; the first who asks does the work."""

    def __init__(self, before: Content, after: Content) -> None:
        """Nothing is compared yet."""
        self._lock = threading.Lock()
        self._contents: tuple[Content, Content] | None = (before, after)
        self._found: ChangedPaths | None = None

    def forget(self) -> None:
        """Let go of the contents: it is not worth the memory any more."""
        with self._lock:
            self._contents = None

    def result(self) -> ChangedPaths | None:
        """What differs; None if that was forgotten."""
        with self._lock:
            if self._contents is not None:
                before, after = map(_tree, self._contents)
                self._contents = None
                self._found = _compared(before, after)
            return self._found


class Lineage:
    """What a segment serves, one after another. For one thread."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._served: Content | None = None

    @property
    def is_known(self) -> bool:
        """Whether the next content has something to be compared with."""
        return self._served is not None

    def follow(self, content: Content) -> Comparison | None:
        """This is what is served from now on; how to compare it with what was before, where that is known."""
        before, self._served = self._served, content
        return None if before is None else Comparison(before, content)


def _compared(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> ChangedPaths:
    counts = dict.fromkeys(Kind, 0)
    first: dict[Kind, list[tuple[Any, ...]]] = {kind: [] for kind in Kind}
    found: Iterator[Any] = changes(before, after)
    for change in islice(found, _MOST_COUNTED):
        counts[change.kind] += 1
        if len(first[change.kind]) < _MOST_TOLD:
            first[change.kind].append(change.path)
    all_counted = next(found, None) is None
    return ChangedPaths({kind: Paths(counts[kind], tuple(first[kind])) for kind in Kind}, all_counted)


def _tree(content: Content) -> Mapping[Any, Any]:
    if not isinstance(content, bytes):
        return content
    tree = codec.unpack(content)
    assert isinstance(tree, dict)  # it was published
    return tree


def _shown(path: str) -> str:
    return path if len(path) <= _LONGEST_SHOWN else path[: _LONGEST_SHOWN - 1] + "…"
