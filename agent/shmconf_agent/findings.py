"""The mistakes found in the agent's file, gathered while it is read and told all at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import formats
from .config import Place
from .formats.places import positions
from .nearest import suggestion
from .problems import Code, Fault, Invalid, Key, Path, format_path

_TOML = formats.SUFFIXES[".toml"]


class Findings:
    """The problems found so far in one TOML file, in the order in which they were found; paths are its own."""

    def __init__(self, data: bytes, file: str) -> None:
        self._data = data
        self._file = file
        self._found: list[tuple[Path, Fault]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: Path, message: str) -> None:
        self._found.append((path, Fault(Code.AGENT_FILE, message)))

    def expected(self, path: Path, what: str, value: Any) -> None:
        self.add(path, f"{path[-1]!r} is {what}, not {described(value)}")

    def unknown_keys(self, path: Path, table: Iterable[Key], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.unknown_key(path, key, f"in [{format_path(path)}]" if path else "at the top level", known)

    def unknown_key(self, path: Path, key: Key, where: str, known: tuple[str, ...]) -> None:
        hint = suggestion(str(key), known) or f"the keys here are {', '.join(known)}"
        self._found.append(((*path, key), Fault(Code.AGENT_FILE_KEY, f"unknown key {key!r} {where}", hint)))

    def place(self, path: Path) -> Place:
        line, column = positions(_TOML.place_trees(self._data)[0], [path])[0] or (None, None)
        return self._file, line, column

    def raise_any(self) -> None:
        if not self._found:
            return
        places = positions(_TOML.place_trees(self._data)[0], [path for path, _ in self._found])
        problems = [fault.at(self._file, place, path) for (path, fault), place in zip(self._found, places, strict=True)]
        problems.sort(key=lambda problem: (problem.line or 0, problem.column or 0))
        raise Invalid(problems)


def text(table: dict[Key, Any], key: str, path: Path, what: str, findings: Findings) -> str | None:
    """The text under `key` of the table at `path`; None if there is none, or something that is not `what`."""
    if key not in table:
        return None
    written = table[key]
    if isinstance(written, str) and written and "\0" not in written:
        return written
    findings.expected((*path, key), what, written)
    return None


def described(value: Any) -> str:
    """A value of the file for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
