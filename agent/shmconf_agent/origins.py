"""Where what a merged tree holds stands in its files: which layer put it there, at what line, and what it shadows.

Nothing of this is kept while layers are parsed and merged. A `Locator` reads a file once more when the first place in
it is asked for; it lives as long as the question does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import formats
from .formats.places import Place, Trace, find, trace
from .merge import Layer, Setting, settings
from .problems import Path
from .view import SourceLayer


@dataclass(frozen=True, slots=True)
class Origin:
    """One layer's say in a path.

    setting: what it puts there. text: the file that the layer is from. trace: where in it; None where it is only the
    mounting of the file that makes a map stand there, or if the file has it no more.
    """

    setting: Setting
    text: SourceLayer
    trace: Trace | None

    @property
    def is_mount(self) -> bool:
        """Whether the path is above the layer's mount point, so that nothing in the file itself makes it."""
        return len(self.setting.reached) < len(self.setting.layer.at)

    @property
    def value(self) -> Any:
        """What the layer puts there."""
        return self.setting.value


MOST_MARKS = 500_000
"""Line ends, commas and colons in all files in which one Locator gives places: some seconds and 200 MB at worst."""


class Locator:
    """Finds places in the files of layers. `texts` are what the layers were parsed from."""

    def __init__(self, texts: Sequence[SourceLayer]) -> None:
        self._texts = {(text.file, text.at): text for text in reversed(texts)}
        self._roots: dict[str, list[Place]] = {}
        self._left = MOST_MARKS
        self._afforded: dict[str, bool] = {}

    def text(self, layer: Layer) -> SourceLayer:
        """The file that the layer is from."""
        return self._texts[layer.file, layer.at]

    def place(self, layer: Layer, within: Path) -> Place | None:
        """The node of the place tree at a path of the layer's own tree; None too in a file that it does not afford."""
        return find(self._root(layer), within) if self.affords(layer) else None

    def affords(self, layer: Layer) -> bool:
        """Whether `place` finds places in the layer's file: not where to read it once more would take long, and memory
        that the agent is not to take for a message."""
        if layer.file not in self._afforded:
            data = self.text(layer).data
            marks = sum(map(data.count, (b"\n", b",", b":")))
            self._afforded[layer.file] = marks <= self._left
            self._left -= marks if marks <= self._left else 0
        return self._afforded[layer.file]

    def trace(self, layer: Layer, within: Path) -> Trace | None:
        """How it comes to stand there."""
        return trace(self._root(layer), within)

    def _root(self, layer: Layer) -> Place:
        roots = self._roots.get(layer.file)
        if roots is None:
            roots = self._roots[layer.file] = formats.place_trees(self.text(layer).data, file=layer.file)
        return roots[layer.document]


def origins(path: Path, layers: Sequence[Layer], texts: Sequence[SourceLayer]) -> list[Origin]:
    """Every layer's say in `path`, the winner first and what is shadowed last, the uppermost first in each.

    For a map all layers that have entries for it come before those that it shadows.
    """
    locator = Locator(texts)
    found = []
    for setting in sorted(settings(layers, path), key=lambda each: each.shadowed):
        origin = Origin(setting, locator.text(setting.layer), None)
        if not origin.is_mount:
            origin = Origin(setting, origin.text, locator.trace(setting.layer, setting.within))
        found.append(origin)
    return found
