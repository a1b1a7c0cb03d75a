"""Is a merged tree what it should be? The JSON Schema answers, in the words of the person who edits it.

`Schema` compiles a schema file once and lists every violation of a tree, in the order of the tree. Nothing is
fetched over a network: `$ref` reaches the schema's own file and files beside it. `format` is asserted
(`date`, `email`, ...), because an editor of configuration expects it to be. `run_check` asks the user's own
code. A compiled Schema may be used by several threads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import jsonschema_rs

from . import formats
from .check_process import run_check
from .problems import MOST_PROBLEMS, Code, Fault, Invalid, Path, Problem, format_path
from .reading import read
from .schema_view import STAND_INS_FOR_NAN, Clash, View, view
from .violations import Violation, describe

__all__ = ["BadSchema", "Schema", "run_check"]

_DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KNOWN_TO_THE_ENGINE = ("https://json-schema.org/", "http://json-schema.org/")
_NOTHING_FETCHED = "nothing is fetched over a network: keep a copy beside the schema, and refer to that"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class BadSchema(Invalid):
    """The schema cannot be used. `files` are those that were looked for, found or not: one of them is to be mended."""

    files: tuple[FilePath, ...]

    def __init__(self, problems: Iterable[Problem], files: Iterable[FilePath]) -> None:
        super().__init__(problems)
        self.files = tuple(files)


class Schema:
    """A compiled JSON Schema. `files`: the schema's file and every file that it refers to, to be watched."""

    files: tuple[FilePath, ...]

    def __init__(self, documents: _Documents, validator: jsonschema_rs.Validator) -> None:
        self.files = documents.files
        self._documents = documents
        self._validator = validator

    @classmethod
    def load(cls, path: FilePath, *, shown: str | None = None) -> Schema:
        """Reads and compiles the schema at `path`, called `shown` (the path as it is) in problems.

        The suffix decides the format, as for sources. Raises BadSchema with every problem found and its place.
        """
        try:
            documents = _Documents(path, shown or str(path))
        except Invalid as invalid:
            raise BadSchema(invalid.problems, [path]) from None
        root = documents.root
        try:
            validator = jsonschema_rs.validator_for(
                root.view.seen,
                retriever=documents,
                base_uri=root.uri,
                validate_formats=True,
                mask="the value",
            )
        except jsonschema_rs.ValidationError as error:
            problems = sorted(documents.why(error), key=_place)
            raise BadSchema(problems, documents.files) from None
        return cls(documents, validator)

    def problems(self, tree: Any, told: Any = None) -> list[Violation]:
        """Every violation in `tree` with its path, in the tree's order; an empty list for a valid tree.

        told: the tree with other values, of the same shape, which are the ones to be named.
        The path of an unknown key ends in that key, that of a missing key is the map which lacks it.
        """
        told = tree if told is None else told
        shown = replace(view(tree), real=told)
        found = [Violation(clash.path, _clash(clash)) for clash in shown.clashes]
        found += islice(self._violations(shown), MOST_PROBLEMS + 1)  # one more, so that it is known that there are more
        for stand_in in STAND_INS_FOR_NAN if shown.has_nan else ():
            found = found or list(self._violations(replace(view(tree, nan=stand_in), real=told)))
        return _in_document_order(tree, found)

    def _violations(self, shown: View) -> Iterator[Violation]:
        for error in self._validator.iter_errors(shown.seen):
            yield from describe(error, shown, self._documents.keys_beside)


class _Document:
    """One schema file: its bytes, for places, and its tree as the schema engine sees it."""

    def __init__(self, path: FilePath, shown: str) -> None:
        self.path = path
        self.shown = shown
        self.uri = path.absolute().as_uri()
        reading = read(os.path.realpath(path))  # which does not wait for a pipe
        if reading.data is None:
            reason = reading.failure.message if reading.failure else "No such file or directory"
            raise Invalid([Fault(Code.BAD_SCHEMA, f"cannot read the schema: {reason}").at(shown)])
        self.data = reading.data
        self.tree = formats.parse(self.data, file=shown)
        self.view = view(self.tree)
        own_name = self.tree.get("$id")
        # What relative references in it are relative to, which `$id` may move elsewhere.
        self.base = urljoin(self.uri, own_name) if isinstance(own_name, str) else self.uri

    def problem(self, path: Path, message: str) -> Problem:
        return Fault(Code.BAD_SCHEMA, message).at(self.shown, formats.locate(self.data, path, file=self.shown))


class _Documents:
    """The schema's file and those that it refers to: the engine's retriever, which never leaves the disk."""

    def __init__(self, path: FilePath, shown: str) -> None:
        self.root = _Document(path, shown)
        self._by_uri = {self.root.uri: self.root}
        self._refused: dict[str, tuple[Problem, ...]] = {}
        self._looked_for = [path]

    @property
    def files(self) -> tuple[FilePath, ...]:
        return tuple(self._looked_for)

    def __iter__(self) -> Iterator[_Document]:
        return iter(self._by_uri.values())

    def __call__(self, uri: str, /) -> dict[str, Any]:
        """The document at `uri`. Raises ValueError, and remembers why, if it is not a readable local file."""
        try:
            document = self._open(uri)
        except Invalid as invalid:
            self._refused[uri] = invalid.problems
            raise ValueError("it cannot be used") from None
        except ValueError:
            self._refused[uri] = ()
            raise
        self._by_uri[uri] = document
        seen: dict[str, Any] = document.view.seen
        return seen

    def _open(self, uri: str) -> _Document:
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise ValueError(_NOTHING_FETCHED)
        path = FilePath(url2pathname(parts.path))
        self._looked_for.append(path)
        beside = FilePath(self.root.shown).parent
        try:
            shown = str(beside / path.relative_to(self.root.path.absolute().parent))
        except ValueError:
            shown = str(path)
        return _Document(path, shown)

    def why(self, error: jsonschema_rs.ValidationError) -> list[Problem]:
        """Every reason for which the schema could not be compiled; `error` is the engine's first."""
        if error.message.startswith("Unknown meta-schema"):
            message = f"an unknown dialect of JSON Schema; write {_DEFAULT_DIALECT} or leave '$schema' out"
            return [self.root.problem(("$schema",), message)]
        broken = self._broken_references() if self._refused or error.kind.name == "$ref" else []
        broken += [problem for document in self for problem in _against_its_dialect(document)]
        if broken:
            return broken
        return [self.root.problem(each.path, str(each.fault)) for each in describe(error, self.root.view, lambda _: [])]

    def _broken_references(self) -> list[Problem]:
        """Those that the engine met, and those that it would have met next."""
        broken: list[Problem] = []
        seen: list[_Document] = []
        while unseen := [document for document in self if document not in seen]:
            seen += unseen
            for document in unseen:
                for path, reference in _references(document.tree, ()):
                    broken += self._try(document, path, reference)
        return broken

    def _try(self, document: _Document, path: Path, reference: str) -> Iterator[Problem]:
        uri, fragment = urldefrag(urljoin(document.base, reference))
        if uri.startswith(_KNOWN_TO_THE_ENGINE):
            return
        named = {urldefrag(own.base)[0]: own for own in self}
        if uri not in named and uri not in self._refused:
            with contextlib.suppress(ValueError):
                self(uri)
        if uri in self._refused:
            why = "which cannot be used" if self._refused[uri] else f"which is {uri}; {_NOTHING_FETCHED}"
            yield document.problem(path, f"it refers to {reference!r}, {why}")
            yield from self._refused[uri]
            return
        target = named.get(uri) or self._by_uri[uri]
        if fragment.startswith("/") and not _has(target.view.seen, unquote(fragment)):
            yield document.problem(path, f"it refers to {reference!r}, and there is no such place")

    def keys_beside(self, error: jsonschema_rs.ValidationError) -> list[str]:
        """The names under `properties` beside the keyword that failed: what an unknown key may have meant."""
        uri = urldefrag(error.absolute_keyword_location or "")[0]
        schema: Any = self._by_uri.get(uri, self.root).tree
        for part in error.schema_path[:-1]:
            if isinstance(schema, dict):
                schema = schema.get(str(part))
            elif isinstance(schema, list) and isinstance(part, int) and part < len(schema):
                schema = schema[part]
            else:
                return []
        properties = schema.get("properties") if isinstance(schema, dict) else None
        return [key for key in properties if isinstance(key, str)] if isinstance(properties, dict) else []


def _clash(clash: Clash) -> Fault:
    message = f"a schema cannot tell this key from {clash.text!r} beside it; rename one of them"
    return Fault(Code.SCHEMA_KEY_CLASH, message)


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file or "", problem.line or 0, problem.column or 0


def _against_its_dialect(document: _Document) -> Iterator[Problem]:
    dialect = document.tree.get("$schema", _DEFAULT_DIALECT)
    try:
        meta = jsonschema_rs.validator_for(
            {"$ref": dialect}, retriever=_fetch_nothing, validate_formats=True, mask="the value"
        )
    except ValueError:
        return  # not a dialect that the engine knows; its own message says so
    for error in meta.iter_errors(document.view.seen):
        for path, fault, _ in describe(error, document.view, lambda _: []):
            yield document.problem(path, f"not a valid JSON Schema: {format_path(path)}: {fault}")


def _fetch_nothing(uri: str, /) -> dict[str, Any]:
    raise ValueError(_NOTHING_FETCHED)


def _has(tree: Any, pointer: str) -> bool:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(tree, list) and name.isdecimal() and int(name) < len(tree):
            tree = tree[int(name)]
        elif isinstance(tree, dict) and name in tree:
            tree = tree[name]
        else:
            return False
    return True


def _references(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(node, dict):
        for key, item in node.items():
            if key in _REFERENCES and isinstance(item, str):
                yield (*path, key), item
            else:
                yield from _references(item, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _references(item, (*path, index))


def _in_document_order(tree: Any, found: list[Violation]) -> list[Violation]:
    """`found` sorted as the tree is written, a map before what it holds; each line once."""
    places: dict[int, dict[Any, int]] = {}

    def position(problem: Violation) -> list[int]:
        node, positions = tree, []
        for part in problem.path:
            if isinstance(node, dict):
                order = places.get(id(node))
                if order is None:
                    order = places[id(node)] = {key: index for index, key in enumerate(node)}
                positions.append(order.get(part, len(order)))
                node = node.get(part)
            else:
                at = part if isinstance(part, int) else 0
                positions.append(at)
                node = node[at] if isinstance(node, list) and at < len(node) else None
        return positions

    return sorted(dict.fromkeys(found), key=position)
