"""From the bytes of a segment's layers to a candidate for publication, or to every reason why there is none.

A pure function of its input but for the user's `check`, which runs in a child process, and the schema, which is read
when it changed. Parsed layers are kept from one run to the next by their content, so a file whose bytes did not change
is not parsed again. Not thread-safe: each segment's reconciler has a Pipeline of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from shmconf.document import Document
from shmconf.paths import MISSING, look_up

from . import formats
from .check_process import DEADLINE, Check
from .commit_mark import Record
from .config import SegmentConfig
from .encode import Encoder
from .masking import Censor, masked, secret_paths
from .merge import Layer, Setting, Settings, merge
from .merged_size import MergedSize
from .origins import Locator
from .problems import MOST_PROBLEMS, TOO_MANY, Code, Fault, Invalid, Path, Problem, format_path
from .progress import Progress
from .references import FileKey
from .replacement import Replacement
from .secrets_then import secrets_then
from .sources import SourceLayer, View
from .validate import BadSchema, Schema
from .violations import Violation

_STAGE_SECONDS = 60.0  # how long parsing, merging or validating may take before the agent counts as stuck
_UNKNOWN_SECRETS = "the check complains; what it says may quote a secret, and is not shown"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be published: the merged tree, the document that it is, its files in order (some blank), its layers, and
    where in the tree there are secrets."""

    tree: dict[Any, Any]
    document: Document
    files: tuple[str, ...]
    blank_files: tuple[str, ...] = ()
    commit: Record | None = None
    layers: tuple[SourceLayer, ...] = ()
    secret_paths: tuple[Path, ...] = ()


class Pipeline:
    """One segment's parsing, merging and validation."""

    def __init__(self, config: SegmentConfig) -> None:
        """Nothing is read yet."""
        self._config = config
        self._sizes = MergedSize(config.limits, config.max_bytes)
        self._parsed: dict[tuple[str, bytes], list[dict[Any, Any]]] = {}
        self._replacement = None if config.substitution is None else Replacement(config.substitution)
        self._encoder = Encoder()
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

    def read_schema_again(self) -> None:
        """Take nothing of the schema for known at the next `run`."""
        self._schema = None

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
        schema_key = (None if view.schema is None else view.schema.digest, self.schema_stamp())
        layers, tree = self.assemble(view, progress)
        secrets = secret_paths(layers, tree)
        with progress.stage("validate", _STAGE_SECONDS):
            self._validate(tree, secrets, layers, texts, schema_key)
        with progress.stage("encode", _STAGE_SECONDS):
            document = Document.of(self._encoder.encode(tree))
        if self._check is not None:
            with progress.stage("check", 2 * DEADLINE):
                found = self._check.ask(document.payload)
            said = ((self._public(path, tree), self.censored(text)) for path, text in found)
            self._refuse((Violation(path, Fault(Code.CHECK, text)) for path, text in said), layers, texts)
        files = tuple(dict.fromkeys(text.file for text in texts))
        blank = tuple(text.file for text in texts if not text.data.strip())
        return Candidate(tree, document, files, blank, view.committed, texts, secrets)

    def judge_again(
        self,
        tree: dict[Any, Any],
        payload: bytes,
        secrets: Sequence[Path],
        texts: Sequence[SourceLayer],
        progress: Progress,
    ) -> None:
        """Judge what was published before, `payload` and decoded `tree`, by the schema and the check as they are now.
        Raises Invalid with every problem.

        secrets: where they are in the tree. texts: what it was made from, which gives the places; empty if not known.
        """
        layers = self.parse(texts)[0]
        with progress.stage("validate", _STAGE_SECONDS):
            self._validate(tree, secrets, layers, texts, (None, self.schema_stamp()))
        if self._check is not None:
            with progress.stage("check", 2 * DEADLINE):
                found = self._check.ask(payload)
            known = secrets_then(tree, secrets, layers)
            censor = Censor(known or ())

            def shown(text: str) -> str:
                return _UNKNOWN_SECRETS if known is None else censor.clean(text)

            said = ((path, shown(text)) for path, text in found if look_up(tree, path) is not MISSING)
            # A path that the check made up may hold a secret: its problem is that of the whole.
            more = (((), shown(text)) for path, text in found if look_up(tree, path) is MISSING)
            self._refuse((Violation(path, Fault(Code.CHECK, text)) for path, text in (*said, *more)), layers, texts)

    def assemble(self, view: View, progress: Progress) -> tuple[list[Layer], dict[Any, Any]]:
        """The layers and what they make, which nobody has judged yet. Raises Invalid, as `run`."""
        with progress.stage("parse", _STAGE_SECONDS):
            layers, problems = self.parse(view.layers)
            if self._replacement is not None:
                layers, unreplaced = self._replacement.apply(layers, view.layers, view.references)
                problems += unreplaced
        if view.problems or problems:
            order = {file: index for index, file in reversed(list(enumerate(view.order)))}
            found = dict.fromkeys([*view.problems, *problems])
            raise Invalid(sorted(found, key=lambda problem: order.get(problem.file or "", len(order))))
        with progress.stage("merge", _STAGE_SECONDS):
            tree = merge(layers)
            self._sizes.check(layers, tree)
            return layers, tree

    def parse(self, texts: Sequence[SourceLayer]) -> tuple[list[Layer], list[Problem]]:
        """The layers of those texts that can be read, and what is wrong with the others."""
        layers: list[Layer] = []
        problems: list[Problem] = []
        kept: dict[tuple[str, bytes], list[dict[Any, Any]]] = {}
        for text in texts:
            try:
                trees = kept[text.file, text.digest] = self._trees(text)
                layers += [Layer(text.file, text.at, tree, document) for document, tree in enumerate(trees)]
            except Invalid as invalid:
                problems += invalid.problems
                if len(problems) > MOST_PROBLEMS:
                    problems.append(TOO_MANY.at(text.file))
                    break
        # Good files are kept although others are not: the next attempt is usually the repair of one.
        self._parsed = kept
        return layers, problems

    def references(self, texts: Sequence[SourceLayer], progress: Progress) -> tuple[FileKey, ...]:
        """The files and credentials that the texts name, for SourceFiles; none of those that cannot be parsed. Of what
        was parsed before, only what is in these texts is kept: they may never come to be judged."""
        if self._replacement is None:
            return ()
        parsed: dict[tuple[str, bytes], list[dict[Any, Any]]] = {}
        with progress.stage("parse", _STAGE_SECONDS):
            for text in texts:
                with contextlib.suppress(Invalid):
                    parsed[text.file, text.digest] = self._trees(text)
            self._parsed = parsed
            return self._replacement.references(parsed)

    def censored(self, text: str) -> str:
        """The text without the secrets that references stand for, as they were when files were last assembled."""
        if self._replacement is None or not self._replacement.secrets:
            return text
        return Censor(self._replacement.secrets).clean(text)

    def _public(self, path: Path, tree: dict[Any, Any]) -> Path:
        """A path that a check gave: keys of the tree are no secrets, but what it made up can be one."""
        if look_up(tree, path) is not MISSING:
            return path
        return tuple(self.censored(part) if isinstance(part, str) else part for part in path)

    def _trees(self, text: SourceLayer) -> list[dict[Any, Any]]:
        """The documents of the text, which may be known from before. Raises Invalid."""
        trees = self._parsed.get((text.file, text.digest))
        if trees is None:
            trees = formats.parse_documents(text.data, file=text.file, limits=self._config.limits)
        return trees

    def _validate(
        self,
        tree: dict[Any, Any],
        secrets: Sequence[Path],
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
        self._refuse(self._schema.problems(tree, masked(tree, secrets)), layers, texts)

    def _refuse(
        self, found: Iterable[Violation], layers: Sequence[Layer], texts: Sequence[SourceLayer]
    ) -> None:
        """Raise Invalid for what was found, each at the place of the layer that set the value."""
        found = list(islice(found, MOST_PROBLEMS + 1))
        if not found:
            return
        locator, settings = Locator(texts), Settings(layers)
        problems = []
        for path, fault, wanted in found[:MOST_PROBLEMS]:
            said = f"{format_path(path)}: {fault.message}" if path else fault.message
            for setting in _where_to_look(path, settings):
                file = setting.layer.file
                if not locator.affords(setting.layer):
                    problems.append(Problem(said, file, code=fault.code, hint=fault.hint, path=path))
                    break
                place = locator.place(setting.layer, setting.within)
                if place is not None:
                    hint = fault.hint
                    if wanted and setting.reached == path:
                        hint = hint or formats.hint(place, wanted, file=file)
                    problems.append(Problem(said, file, *place.at, fault.code, hint, path))
                    break
            else:
                nearest = texts[-1].file if texts else None
                problems.append(Problem(said, nearest, code=fault.code, hint=fault.hint, path=path))
        order = {text.file: index for index, text in enumerate(texts)}
        problems.sort(key=lambda each: (order.get(each.file or "", -1), each.line or 0))
        if len(found) > MOST_PROBLEMS:
            problems.append(Problem(TOO_MANY.message, problems[-1].file, code=TOO_MANY.code))
        raise Invalid(problems)


def _where_to_look(path: Path, settings: Settings) -> Iterator[Setting]:
    """Where the path may stand, the likeliest first: where it is not itself (a missing key), the map that lacks it."""
    for length in range(len(path), -1, -1):
        yield from (each for each in settings.of(path[:length]) if not each.shadowed)


def _stamp(file: FilePath) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
