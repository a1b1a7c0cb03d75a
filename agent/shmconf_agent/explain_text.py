"""An explanation as lines for people and as fields for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shmconf.paths import MISSING
from shmconf.snapshot import Snapshot

from .config import Place
from .events import problem_fields
from .explain import Explanation
from .formats.places import Position, Trace
from .one_line import visible
from .origins import Origin
from .problems import format_path
from .violations import show

# --- for people -------------------------------------------------------------------------------------------------------


def lines(segment: str, snapshot: Snapshot, told: Explanation) -> Iterator[str]:
    """What set the value and what it shadows, a line each. Only for an explanation that has origins."""
    yield f"{format_path(told.path)} = {_shown(told.value)}  ({segment}, version {snapshot.version})"
    yield from _note(snapshot, told)
    rows = [(label, _place(origin, mount), origin, mount) for label, origin, mount in _labelled(told)]
    width = max(len(place) for _, place, _, _ in rows)
    for label, place, origin, mount in rows:
        yield f"  {label:<8}  {place:<{width}}  {_what(origin, told.path)}"
        yield from (f"{'':12}{detail}" for detail in _details(origin, mount))


def _note(snapshot: Snapshot, told: Explanation) -> Iterator[str]:
    """What there is to say of files that are others than those that made the version."""
    if told.digest == snapshot.digest:
        return
    if told.digest is None:
        judged, value = "which are invalid", None
    else:
        judged = "which are valid and"
        value = "the same" if told.same else _shown(told.value_now)
    yield f"  note      version {snapshot.version} was not made from the files as they are now, {judged}"
    if not told.kept:
        yield f"            not published; the places are those in these files, where the value is {value}"
        return
    if value is None:
        yield "            and not published; the places are those in the files as they were then"
    elif told.value_now is MISSING:
        yield "            not published, and have no such value; the places are those in the files as they were then"
    else:
        yield f"            not published, and where the value is {value}; the places are those in the files as they"
        yield "            were then"


def _labelled(told: Explanation) -> Iterator[tuple[str, Origin, Place]]:
    parts = 0
    for origin, mount in zip(told.origins, told.mounts, strict=True):
        if origin.setting.shadowed:
            yield "shadows", origin, mount
        else:
            parts += 1
            yield "set by" if parts == 1 else "and by", origin, mount


def _place(origin: Origin, mount: Place) -> str:
    if origin.is_mount:
        return _joined(mount) or visible(origin.text.file)
    at = origin.trace.at if origin.trace else ()
    return _joined((origin.text.file, *at))


def _joined(place: Iterable[object]) -> str:
    return visible(":".join(str(part) for part in place if part is not None))


def _what(origin: Origin, path: tuple[Any, ...]) -> str:
    if origin.is_mount:
        return f"mounts {visible(origin.text.file)} at {format_path(origin.text.at)}"
    reached = origin.setting.reached
    return _shown(origin.value) if reached == path else f"{format_path(reached)} = {_shown(origin.value)}"


def _details(origin: Origin, mount: Place) -> Iterator[str]:
    if origin.trace is not None:
        for use in origin.trace.uses:
            kind = "merged in by the << at" if use.kind == "merge" else "used by the alias at"
            yield f"{kind} {_at(use.at)}"
        if origin.trace.anchor is not None:
            yield f"an alias of what stands at {_at(origin.trace.anchor)}"
    if mount and not origin.is_mount:
        yield f"mounted at {format_path(origin.text.at)} by {_joined(mount)}"


def _at(position: Position) -> str:
    return f"{position[0]}:{position[1]}"


def _shown(value: Any) -> str:
    """The one place where a value becomes text; `_value` is that for programs."""
    return show(value)


# --- for programs -----------------------------------------------------------------------------------------------------


def fields(segment: str, snapshot: Snapshot, told: Explanation) -> dict[str, Any]:
    """The same for JSON, and the problems where that is all there is."""
    files: dict[str, Any] | None = None
    if told.digest is not None:
        present = told.value_now is not MISSING
        files = {"digest": told.digest, "present": present, "value": _value(told.value_now) if present else None}
    return {
        "segment": segment,
        "version": snapshot.version,
        "digest": snapshot.digest,
        "path": format_path(told.path),
        "value": _value(told.value),
        "current": told.digest == snapshot.digest,
        "kept": told.kept,
        "files": files,
        "origins": [_origin_fields(*each) for each in zip(told.origins, told.mounts, strict=True)],
        "problems": [problem_fields(problem) for problem in told.problems],
    }


def _origin_fields(origin: Origin, mount: Place) -> dict[str, Any]:
    where: dict[str, Any] = {"file": origin.text.file, **_position(origin.trace.at if origin.trace else None)}
    mounted = None
    if mount:
        file, line, column = mount
        mounted = {"at": format_path(origin.text.at), "file": file, "line": line, "column": column}
        if origin.is_mount:
            where = {"file": file, "line": line, "column": column}
    return {
        "shadowed": origin.setting.shadowed,
        **where,
        "document": origin.setting.layer.document + 1,
        "path": format_path(origin.setting.reached),
        "value": _value(origin.value),
        "uses": [{"kind": use.kind, **_position(use.at)} for use in _uses(origin.trace)],
        "anchor": _position(origin.trace.anchor) if origin.trace and origin.trace.anchor else None,
        "mount": mounted,
    }


def _value(value: Any) -> Any:
    """The one place where a value goes out for programs."""
    return value


def _uses(trace: Trace | None) -> Any:
    return trace.uses if trace is not None else ()


def _position(position: Position | None) -> dict[str, Any]:
    line, column = position or (None, None)
    return {"line": line, "column": column}
