"""From the bytes of a segment's layers to a candidate for publication, or to every reason why there is none.

A pure function of its input but for the user's `check`, which runs in a child process, and the schema, which is read
when it changed. Parsed layers are kept from one run to the next by their content, so a file whose bytes did not change
is not parsed again. Not thread-safe: each segment's reconciler has a Pipeline of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from shmconf import codec

from . import formats
from .check_process import DEADLINE, Check
from .config import SegmentConfig
from .formats import DEFAULT_LIMITS, Limits
from .merge import Layer, merge, provenance
from .problems import Invalid, Path, Problem, format_path
from .progress import Progress
from .sources import SourceLayer, View
from .validate import BadSchema, Schema

_STAGE_SECONDS = 60.0  # how long parsing, merging or validating may take before the agent counts as stuck

_Spot = tuple[str, Path, Path]  # file, the path that it is mounted at, the path within it


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be published: the merged tree, its msgpack document, its digest, its files in order (some blank)."""

    tree: dict[Any, Any]
    payload: bytes
    digest: str
    files: tuple[str, ...]
    blank_files: tuple[str, ...] = ()


class Pipeline:
    """One segment's parsing, merging and validation."""

    def __init__(self, config: SegmentConfig, limits: Limits = DEFAULT_LIMITS) -> None:
        """Nothing is read yet."""
        self._config = config
        self._limits = limits
        self._parsed: dict[tuple[str, bytes], dict[Any, Any]] = {}
        self._check = None if config.check is None else Check(config.check, config.base)
        self._schema: Schema | None = None
        self._schema_key: object = None
        self._schema_files: tuple[FilePath, ...] = ()

    def prepare(self) -> None:
        """Make the next `run` quick, while there is time."""
        if self._check is not None:
            self._check.prepare()

    def close(self) -> None:
        """End what `prepare` started."""
        if self._check is not None:
            self._check.close()

    def schema_stamp(self) -> tuple[object, ...]:
        """What differs once a file that the schema refers to, or should, has changed; no content is read."""
        # The schema's own file is followed like a source, with its grace for a file that is put back at once.
        own = self._config.base / (self._config.schema or "")
        return tuple(_stamp(file) for file in self._schema_files if file != own)

    def run(self, view: View, progress: Progress) -> Candidate:
        """The candidate that the sources make. Raises Invalid with every problem found, in the order of the files.

        Where sources are missing or a layer does not parse, the tree is not judged: what it lacks would only be an
        echo of that.
        """
        texts = view.layers
        with progress.stage("parse", _STAGE_SECONDS):
            layers, problems = self._parse(texts)
        if view.problems or problems:
            raise Invalid(dict.fromkeys([*view.problems, *problems]))
        schema_key = (None if view.schema is None else view.schema.digest, self.schema_stamp())
        with progress.stage("merge", _STAGE_SECONDS):
            tree = merge(layers)
        with progress.stage("validate", _STAGE_SECONDS):
            self._validate(tree, layers, texts, schema_key)
        with progress.stage("encode", _STAGE_SECONDS):
            payload = codec.pack(tree)
        if self._check is not None:
            with progress.stage("check", 2 * DEADLINE):
                found = self._check.ask(payload)
            self._refuse(found, layers, texts)
        files = tuple(dict.fromkeys(text.file for text in texts))
        blank = tuple(text.file for text in texts if not text.data.strip())
        return Candidate(tree, payload, hashlib.sha256(payload).hexdigest(), files, blank)

    def _parse(self, texts: Sequence[SourceLayer]) -> tuple[list[Layer], list[Problem]]:
        layers: list[Layer] = []
        problems: list[Problem] = []
        kept: dict[tuple[str, bytes], dict[Any, Any]] = {}
        for text in texts:
            key = (text.file, text.digest)
            try:
                tree = self._parsed.get(key)
                if tree is None:
                    tree = formats.parse(text.data, file=text.file, limits=self._limits)
                kept[key] = tree
                layers.append(Layer(text.file, text.at, tree))
            except Invalid as invalid:
                problems += invalid.problems
        # Good files are kept although others are not: the next attempt is usually the repair of one.
        self._parsed = kept
        return layers, problems

    def _validate(
        self,
        tree: dict[Any, Any],
        layers: Sequence[Layer],
        texts: Sequence[SourceLayer],
        schema_key: tuple[object, object],
    ) -> None:
        if self._config.schema is None:
            return
        if self._schema is None or schema_key != self._schema_key:
            self._schema = None  # if it cannot be read now, the next attempt begins anew
            try:
                self._schema = Schema.load(self._config.base / self._config.schema, shown=self._config.schema)
                self._schema_files = self._schema.files
            except BadSchema as bad:
                self._schema_files = bad.files
                raise
            self._schema_key = (schema_key[0], self.schema_stamp())
        self._refuse(self._schema.problems(tree), layers, texts)

    def _refuse(
        self, found: Iterable[tuple[Path, str]], layers: Sequence[Layer], texts: Sequence[SourceLayer]
    ) -> None:
        """Raise Invalid for what was found, each at the place of the layer that set the value."""
        found = list(found)
        if not found:
            return
        wanted = [_where_to_look(path, layers) for path, _ in found]
        places = _locate([spot for spots in wanted for spot in spots], texts)
        problems = []
        for (path, message), spots in zip(found, wanted, strict=True):
            said = f"{format_path(path)}: {message}" if path else message
            placed = next((spot for spot in spots if places.get(spot) is not None), None)
            if placed is None:
                problems.append(Problem(said, texts[-1].file if texts else None))
            else:
                problems.append(Problem(said, placed[0], *places[placed] or ()))
        order = {text.file: index for index, text in enumerate(texts)}
        raise Invalid(sorted(problems, key=lambda each: (order.get(each.file or "", -1), each.line or 0)))


def _where_to_look(path: Path, layers: Sequence[Layer]) -> list[_Spot]:
    """Where the path may stand, the likeliest first: where it is not itself (a missing key), the map that lacks it."""
    return [
        (layer.file, layer.at, inner)
        for length in range(len(path), -1, -1)
        for layer, inner in provenance(layers, path[:length])
    ]


def _locate(spots: Iterable[_Spot], texts: Sequence[SourceLayer]) -> dict[_Spot, tuple[int, int] | None]:
    """Line and column of each spot; every file is read once, however many there are in it."""
    places: dict[_Spot, tuple[int, int] | None] = {}
    wanted: dict[tuple[str, Path], list[Path]] = {}
    for file, at, inner in dict.fromkeys(spots):
        wanted.setdefault((file, at), []).append(inner)
    for (file, at), paths in wanted.items():
        data = next(text.data for text in texts if (text.file, text.at) == (file, at))
        for inner, place in zip(paths, formats.locate_many(data, paths, file=file), strict=True):
            places[file, at, inner] = place
    return places


def _stamp(file: FilePath) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
