"""One segment's references replaced, layer by layer, between parsing and merging.

What a layer refers to is found once for each content of its file, and replaced again only when something that it
refers to has changed; everything else of its tree is shared with what was parsed. Not thread-safe, like its Pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from .config import Substitution
from .merge import Layer
from .origins import Locator
from .problems import Fault, Problem, format_path
from .references import FileKey, ReferencedFile, file_keys, resolver
from .substitution import MOST_TEXT, Replaced, Sites, find_sites, replace, too_much
from .view import SourceLayer

_Key = tuple[str, bytes, int]
"""The name of a file, the digest of its content, and which of its documents."""


class Replacement:
    """See the module."""

    def __init__(self, substitution: Substitution) -> None:
        """Nothing is known yet."""
        self._substitution = substitution
        self._sites: dict[_Key, Sites] = {}
        self._replaced: dict[_Key, tuple[object, Replaced]] = {}
        self.secrets: frozenset[str] = frozenset()
        """The texts that were put in the place of references to files and credentials, the last time."""

    def references(self, parsed: Mapping[tuple[str, bytes], Sequence[dict[Any, Any]]]) -> tuple[FileKey, ...]:
        """The files and credentials that the trees name; by the name of a file and the digest of its content."""
        self._sites = {
            (*text, index): self._sites_of((*text, index), tree)
            for text, trees in parsed.items()
            for index, tree in enumerate(trees)
        }
        return file_keys(reference for each in self._sites.values() for reference in each.references)

    def apply(
        self, layers: Sequence[Layer], texts: Sequence[SourceLayer], files: Mapping[FileKey, ReferencedFile]
    ) -> tuple[list[Layer], list[Problem]]:
        """The layers with their references replaced, and every reason why one cannot be, with its place."""
        digests = {(text.file, text.at): text.digest for text in texts}
        resolve = cache(resolver(self._substitution, files))
        locator = Locator(texts)
        made: list[Layer] = []
        problems: list[Problem] = []
        sites: dict[_Key, Sites] = {}
        kept: dict[_Key, tuple[object, Replaced]] = {}
        size = 0
        for layer in layers:
            key = (layer.file, digests[layer.file, layer.at], layer.document)
            sites[key] = self._sites_of(key, layer.tree)
            inputs = tuple((each, files[each].state if each in files else None) for each in _named(sites[key]))
            known = self._replaced.get(key)
            replaced = known[1] if known is not None and known[0] == inputs else replace(sites[key], resolve)
            kept[key] = (inputs, replaced)
            made.append(dataclasses.replace(layer, tree=replaced.tree, secrets=replaced.secrets))
            problems += _problems(layer, replaced, locator)
            before, size = size, size + replaced.size
            if before <= MOST_TEXT < size and replaced.size <= MOST_TEXT:
                problems.append(too_much(size).at(layer.file))
        self._sites, self._replaced = sites, kept
        self.secrets = frozenset().union(*(replaced.texts for _, replaced in kept.values()))
        return made, problems

    def _sites_of(self, key: _Key, tree: Any) -> Sites:
        found = self._sites.get(key)
        if found is None:
            found = self._sites[key] = find_sites(tree)
        return found


def _named(sites: Sites) -> tuple[FileKey, ...]:
    return file_keys(sites.references)


def _problems(layer: Layer, replaced: Replaced, locator: Locator) -> list[Problem]:
    """In the order of the text."""
    found: list[Problem] = []
    for path, fault in dict.fromkeys(replaced.faults):
        place = locator.place(layer, path)
        whole = (*layer.at, *path)
        said = Fault(fault.code, f"{format_path(whole)}: {fault.message}" if whole else fault.message, fault.hint)
        found.append(said.at(layer.file, place.value if place is not None and path else None, whole))
    return sorted(found, key=lambda problem: (problem.line or 0, problem.column or 0))
