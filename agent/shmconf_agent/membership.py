"""The files of one source: which it names now, and what each adds to a view: a layer, a problem, a reason to wait.

The schema and the commit path are sources of one file each. A Membership belongs to the SourceFiles that it is part of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import commit_mark
from .config import Source
from .disk import Listing, Standing, printable
from .formats import SUFFIXES, Limits
from .problems import Code, Fault
from .settle import TrackedFile
from .survey import Survey
from .view import Gathering, InFlux, SourceLayer

_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?\s*\Z")


@dataclass(slots=True)
class Membership:
    """The files of one source as of the last look: those that it names, and those that have only just vanished."""

    source: Source
    is_schema: bool = False
    is_commit: bool = False
    listing: Listing = field(default_factory=lambda: Listing((), "file"))
    members: dict[str, str] = field(default_factory=dict)  # absolute path: name as the user would write it
    layers: dict[str, SourceLayer] = field(default_factory=dict)  # as last built, by absolute path

    def update(self, survey: Survey, base: str, limits: Limits, besides: int) -> dict[str, str]:
        """Lists the source anew. Returns what it names now; nothing if that, with the `besides` files of the sources
        before it, is more than the limit."""
        if self.is_schema or self.is_commit:
            path = self.source.path
            self.listing = Listing(((path, os.path.join(base, path)),), "file")
        else:
            was_directory = self.listing.kind == "directory"
            self.listing = survey.listing(base, self.source.path, was_directory=was_directory)
        count = len(self.listing.found)
        if count + besides > limits.max_files:
            self.listing = Listing((), self.listing.kind, str(limits.too_many_files(count)), too_many=True)
        return {path: printable(shown) for shown, path in self.listing.found}

    def layer(self, file: TrackedFile, shown: str, data: bytes) -> SourceLayer:
        """The layer that this file is; the same object as long as its content is the same."""
        layer = self.layers.get(file.path)
        if layer is None or layer.data is not data:
            blank = _BLANK.match(data) is not None
            layer = SourceLayer(shown, self.source.at, data, file.digest, file.path, blank, self.source.entry)
            self.layers[file.path] = layer
        return layer

    def gather(
        self, gathered: Gathering, files: Mapping[str, TrackedFile], nonblank: frozenset[str], *, complete: bool
    ) -> None:
        """Adds what stands in the source to a view.

        nonblank: the names of files that may not be empty. complete: whether everything there was at the start is read.
        """
        source, listing = self.source, self.listing
        listed = {path for _, path in listing.found}
        pending = False
        count = len(gathered.layers) + len(gathered.problems)
        for path in sorted(self.members, key=os.fsencode):
            file = files[path]
            shown = self.members[path]
            gathered.order.append(shown)
            if file.flux_since is not None:
                gathered.in_flux[path] = InFlux(shown, file.flux_since, file.vanished)
            if file.content is not None:
                self._gather_layer(self.layer(file, shown, file.content), gathered, nonblank)
            elif file.failure is not None:
                gathered.problems.append(file.failure.at(shown))
            elif file.absence is None:
                pending = True
            elif path in listed and not _is_excused(file.absence, source, listing):
                why = _why_absent(file.absence, listing, is_schema=self.is_schema)
                code = Code.FILE_MISSING if file.absence.missing else Code.FILE_UNREADABLE
                gathered.problems.append(Fault(code, why).at(shown))
        gathered.order.append(printable(source.path))
        is_empty = count == len(gathered.layers) + len(gathered.problems) and not self.is_schema
        if listing.failure is not None and not listing.missing:
            code = Code.TOO_MANY_FILES if listing.too_many else Code.FILE_UNREADABLE
            gathered.problems.append(Fault(code, listing.failure).at(printable(source.path)))
        elif is_empty and not source.optional and not pending and listing.kind != "file":
            gathered.problems.append(Fault(Code.NO_FILES, _why_empty(listing)).at(printable(source.path)))
        if pending and (not complete or (is_empty and not source.optional) or self.is_schema):
            gathered.waiting = True

    def gather_commit(self, gathered: Gathering, files: Mapping[str, TrackedFile], survey: Survey) -> None:
        """Adds what stands at the commit path, if this is that."""
        for path, shown in self.members.items():
            file = files[path]
            gathered.commit = commit_mark.stands(file, survey.resolve(path))
            if file.flux_since is not None:
                gathered.in_flux[path] = InFlux(shown, file.flux_since, file.vanished)

    def _gather_layer(self, layer: SourceLayer, gathered: Gathering, nonblank: frozenset[str]) -> None:
        if self.is_schema:
            gathered.schema = layer
            return
        gathered.layers.append(layer)
        if layer.blank and layer.file in nonblank:
            gathered.problems.append(Fault(Code.FILE_EMPTIED, _doubtful(layer.file)).at(layer.file))


def _is_excused(absence: Standing, source: Source, listing: Listing) -> bool:
    """Whether nothing need be there: for an optional file, or where it was listed a moment before it went."""
    if listing.kind == "file":
        return source.optional and absence.missing
    return absence.missing and not absence.dangling


def _why_absent(absence: Standing, listing: Listing, *, is_schema: bool) -> str:
    reason = absence.absent or ""
    if listing.kind == "file" and absence.missing and not absence.dangling:
        return f"{reason}; create it, or " + ("take 'schema' out" if is_schema else "mark the source optional")
    return reason


def _why_empty(listing: Listing) -> str:
    if listing.kind == "directory":
        reason = listing.failure or f"holds no {', '.join(f'*{suffix}' for suffix in SUFFIXES)} file"
    else:
        reason = "matches no file"
    return f"{reason}; add one, or mark the source optional"


def _doubtful(shown: str) -> str:
    empty = "a comment" if shown.endswith(".toml") else "{}"
    return f"is empty, which it was not before; if it is meant to be, write {empty} into it"
