"""Whether a valid candidate differs so much from what is served that a person has to look at it first.

A pure judgement, of a segment's GuardSettings. Keys are counted as `difference` has it, and a share is one of the keys
that are served. A candidate with the digest of what is served is never judged: it is what was published, or accepted,
before. With nothing served and nothing kept, `never_empty` alone is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shmconf import codec
from shmconf.paths import MISSING, look_up, parse_path, resolve

from .difference import Paths, count_keys, difference, same
from .guard_settings import GuardSettings, Most
from .merge import Layer, settings
from .origins import Locator
from .problems import Code, Fault, Path, Problem, format_path
from .view import SourceLayer

_MOST_PATHS = 3
_LONGEST_PATH = 80


@dataclass(frozen=True, slots=True)
class Served:
    """What a candidate is to be compared with. payload: its msgpack document, read when it is called."""

    digest: str
    payload: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Trip:
    """One rule that a candidate trips. path: of what stands where the place is to be looked for."""

    fault: Fault
    path: Path


class Guard:
    """Judges one segment's candidates. Keeps the tree that is served, once it was needed. For one thread."""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._known: tuple[str, dict[Any, Any]] | None = None  # digest and tree of what is, or was, served

    def published(self, digest: str, tree: dict[Any, Any]) -> None:
        """This is what is served now. The tree is shared with the candidates that follow, which makes comparing cheap;
        nobody changes it."""
        self._known = digest, tree

    def judge(self, digest: str, tree: dict[Any, Any], served: Served | None) -> tuple[Trip, ...]:
        """The rules that the candidate trips. Raises what `served.payload` raises, or ValueError if it is no document.

        digest and tree: the candidate's. served: None where nothing is.
        """
        if served is None:
            return tuple(self._empty(tree))
        if served.digest == digest:
            return ()
        before = self._tree_of(served)
        return (*self._too_many(before, tree), *self._empty(tree), *self._thawed(before, tree))

    def _tree_of(self, served: Served) -> dict[Any, Any]:
        if self._known is None or self._known[0] != served.digest:
            tree = codec.unpack(served.payload())
            if not isinstance(tree, dict):
                raise ValueError("not a map")
            self._known = served.digest, tree
        return self._known[1]

    def _too_many(self, before: dict[Any, Any], after: dict[Any, Any]) -> Iterable[Trip]:
        deleted, changed = self._settings.max_deleted_keys, self._settings.max_changed_keys
        if deleted is None and changed is None:
            return
        found = difference(before, after, _MOST_PATHS)
        if deleted is not None and _is_too_many(found.deleted.count, deleted, before):
            yield _counted(Code.GUARD_DELETED, "delete", found.deleted, before, f"max_deleted_keys = {deleted.written}")
        if changed is not None and _is_too_many(found.changed.count, changed, before):
            yield _counted(Code.GUARD_CHANGED, "change", found.changed, before, f"max_changed_keys = {changed.written}")

    def _empty(self, tree: dict[Any, Any]) -> Iterable[Trip]:
        for path in self._settings.never_empty:
            emptiness = _emptiness(look_up(tree, path))
            if emptiness is not None:
                text = f"{_shown(parse_path(path))} is never_empty, and would be {emptiness}"
                yield Trip(Fault(Code.GUARD_EMPTY, text), resolve(tree, path) or parse_path(path))

    def _thawed(self, before: dict[Any, Any], after: dict[Any, Any]) -> Iterable[Trip]:
        for path in self._settings.frozen:
            old, new = look_up(before, path), look_up(after, path)
            if not same(old, new):
                what = "be deleted" if new is MISSING else "be added" if old is MISSING else "change"
                text = f"{_shown(parse_path(path))} is frozen, and would {what}"
                yield Trip(Fault(Code.GUARD_FROZEN, text), resolve(after, path) or parse_path(path))


def problems(trips: Sequence[Trip], layers: Sequence[Layer], texts: Sequence[SourceLayer]) -> tuple[Problem, ...]:
    """The same with places: of the value, or of the map that lacks it, if that is not the whole file."""
    locator = Locator(texts)
    return tuple(_placed(trip, layers, locator) for trip in trips)


def _placed(trip: Trip, layers: Sequence[Layer], locator: Locator) -> Problem:
    for length in range(len(trip.path), 0, -1):
        for setting in settings(layers, trip.path[:length]):
            if not setting.shadowed and setting.reached == trip.path[:length]:
                if setting.within and not locator.affords(setting.layer):
                    return trip.fault.at(setting.layer.file, None, trip.path)
                place = locator.place(setting.layer, setting.within)
                if place is not None and setting.within:
                    return trip.fault.at(setting.layer.file, place.at, trip.path)
    fault = trip.fault
    return Problem(fault.message, code=fault.code, hint=fault.hint, path=trip.path)


def _is_too_many(count: int, most: Most, served: dict[Any, Any]) -> bool:
    return count > 0 and not most.allows(count, count_keys(served, most.enough(count)))


def _counted(code: Code, verb: str, paths: Paths, served: dict[Any, Any], rule: str) -> Trip:
    shown = ", ".join(_shown(path) for path in paths.first)
    which = f": {shown}" if paths.count == len(paths.first) else f"; first: {shown}, …"
    total = count_keys(served)
    text = f"would {verb} {paths.count:,} of {total:,} key{'s' if total != 1 else ''}, more than {rule}{which}"
    return Trip(Fault(code, text), paths.first[0])


def _shown(path: Path) -> str:
    text = format_path(path)
    return text if len(text) <= _LONGEST_PATH else text[: _LONGEST_PATH - 1] + "…"


def _emptiness(value: Any) -> str | None:
    """In what way there is nothing at a path; None if there is something, such as 0 or false."""
    if value is MISSING:
        return "missing"
    if value is None:
        return "null"
    if value == {} and isinstance(value, dict):
        return "an empty map"
    if isinstance(value, list) and not value:
        return "an empty list"
    return "empty" if isinstance(value, str | bytes) and not value else None
