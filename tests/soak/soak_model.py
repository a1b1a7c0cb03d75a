"""What the files were, from the first to the last edit, and whether a published tree is one of their states.

Every edit is noted before it is made. A published tree names the edit of each file that it shows. It is right if

- each file shows a state that it was in, or is absent in a tree where it was absent once, and had not been left for
  a later one that was already published (nothing goes back);
- files that are exchanged together show the same exchange;
- a directory or a glob has files: one file's absence is a state, that of all is an error;
- the whole tree, with its order and the keys that the files contend for, is what these states make, merged.

A state that must never be seen (a broken text, a required file's absence) is noted as such. Where a tree fits several
states of a file (it was renamed and renamed back), the earliest is assumed: that allows the most, and so accuses nobody
without reason. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from soak_texts import Tree, equal, merge

ABSENT: Tree = {}
NEVER: Tree = {"never": "to be seen"}


@dataclass
class Unit:
    """A file, or files that are exchanged together: names in the order of the layers, states from the first on.

    A state is the trees of its files by name; empty while there are none.
    """

    names: tuple[str, ...]
    place: tuple[str, ...] = ()  # where its content is mounted
    required: bool = False
    source: str = ""  # the directory or glob that names it
    states: list[Tree] = field(default_factory=list)
    shown: int = -1  # the latest state that was published


class Wrong(Exception):
    """What was published was never there."""


class Model:
    """All units, in the order of the layers."""

    def __init__(self, units: list[Unit]) -> None:
        self.units = units
        self._lock = threading.Lock()
        self.edits = 0

    def note(self, unit: Unit, state: Tree) -> None:
        """The unit is about to be in this state. ABSENT, NEVER, or the trees of its files."""
        with self._lock:
            self.edits += 1
            unit.states.append(NEVER if state is ABSENT and unit.required else state)

    def expected(self) -> Tree | None:
        """What has to be served for the files as they are now; None if they have to be refused."""
        with self._lock:
            states = [unit.states[-1] for unit in self.units]
            if any(state is NEVER for state in states):
                return None
            return self._merged(states)

    def check(self, tree: Tree, what: str) -> None:
        """Raises Wrong unless this may have been published after all that was checked before."""
        with self._lock:
            found = [self._find(unit, tree, what) for unit in self.units]
            whole = self._merged([unit.states[index] for unit, index in zip(self.units, found, strict=True)])
            if not equal(tree, whole):
                raise Wrong(f"{what}: files that are right by themselves are merged otherwise\n{tree}\nnot\n{whole}")
            for source in {unit.source for unit in self.units} - {""}:
                if not any(
                    unit.states[index] for unit, index in zip(self.units, found, strict=True) if unit.source == source
                ):
                    raise Wrong(f"{what}: {source} has no file at all, which is an error")
            for unit, index in zip(self.units, found, strict=True):
                unit.shown = index

    def _find(self, unit: Unit, tree: Tree, what: str) -> int:
        seen = {name: _entry(tree, unit.place, name) for name in unit.names}
        for index in range(max(unit.shown, 0), len(unit.states)):
            state = unit.states[index]
            if state is not NEVER and all(
                equal(seen[name], state[name]["data"][name] if name in state else None) for name in unit.names
            ):
                return index
        earlier = [index for index, state in enumerate(unit.states[: max(unit.shown, 0)]) if state is not NEVER and all(
            equal(seen[name], state[name]["data"][name] if name in state else None) for name in unit.names
        )]  # fmt: skip
        if earlier:
            raise Wrong(f"{what}: {unit.names} went back from state {unit.shown} to {earlier[-1]}")
        raise Wrong(f"{what}: {unit.names} never were {seen} (at state {unit.shown} of {len(unit.states)})")

    def _merged(self, states: list[Tree]) -> Tree:
        layers = []
        for unit, state in zip(self.units, states, strict=True):
            for name in unit.names:
                if name in state:
                    layers.append(_mounted(state[name], unit.place))
        return merge(layers)


def _entry(tree: Tree, place: tuple[str, ...], name: str) -> Any:
    at: Any = tree
    for key in (*place, "data", name):
        if not isinstance(at, dict) or key not in at:
            return None
        at = at[key]
    return at


def _mounted(tree: Tree, place: tuple[str, ...]) -> Tree:
    for key in reversed(place):
        tree = {key: tree}
    return tree
