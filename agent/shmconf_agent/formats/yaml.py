"""YAML 1.1 as PyYAML's safe loader reads it, straight from the parser's event stream.

libyaml's parser is used where PyYAML was built with it, PyYAML's own otherwise; the trees are the same. UTF-8 with or
without a byte order mark is read, and UTF-16 with one. A file is one document.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from yaml import SafeLoader
from yaml.error import MarkedYAMLError, YAMLError
from yaml.reader import Reader, ReaderError

from ..problems import Invalid, Key, Path, Problem
from .limits import Limits
from .places import START, Lines, Place, Position, positions
from .yaml_builder import Builder, Events, LimitPassed, Trouble

try:
    from yaml._yaml import CParser
except ImportError:  # PyYAML without libyaml
    HAS_LIBYAML = False
else:
    HAS_LIBYAML = True

_UNLIMITED = Limits(max_bytes=2**63, max_depth=2**31, max_nodes=2**63)


def parse(data: bytes, *, file: str, limits: Limits) -> dict[Key, Any]:
    """The tree in `data`. Raises Invalid with every problem up to the first syntax error or passed limit."""
    builder = Builder(limits, careful=False)
    try:
        builder.run(_events(data))
    except (YAMLError, UnicodeError, Trouble):
        pass
    else:
        if not builder.found:
            return {}
        if isinstance(builder.value, dict):
            return builder.value
    return _parse_carefully(data, file, limits)


def locate_many(data: bytes, paths: Sequence[Path]) -> list[Position | None]:
    """The place of each path, None where the document has no such path."""
    builder = Builder(_UNLIMITED, careful=True)
    builder.run(_events(data))
    return positions(builder.place or Place(START, START, {}), paths)


def _events(data: bytes) -> Events:
    return CParser(data) if HAS_LIBYAML else SafeLoader(data)


def _parse_carefully(data: bytes, file: str, limits: Limits) -> dict[Key, Any]:
    builder = Builder(limits, careful=True)
    problems = builder.problems
    try:
        builder.run(_events(data))
    except ReaderError as error:
        problems.append(_unreadable(data, error))
    except MarkedYAMLError as error:
        problems.append(_syntax_error(error))
    except (YAMLError, UnicodeError) as error:
        problems.append((None, " ".join(str(error).split())))
    except LimitPassed:
        pass
    else:
        root = builder.place
        if root is not None and builder.value is None and root.text == "":
            builder.value = {}  # a document marker, tags or comments with nothing after them
        if not problems and not isinstance(builder.value, dict):
            at = root.value if root else START
            problems.append((at, f"the top level is {_kind(builder.value)}; it has to be a map"))
    if problems:
        problems.sort(key=lambda problem: problem[0] or (0, 0))
        raise Invalid(Problem(message, file, *(at or (None, None))) for at, message in problems)
    tree: dict[Key, Any] = builder.value
    return tree


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "a list" if isinstance(value, list) else "a single value"


def _syntax_error(error: MarkedYAMLError) -> tuple[Position | None, str]:
    """libyaml's message in one line, with the place where the broken construct began if that is elsewhere."""
    mark = error.problem_mark or error.context_mark
    at = (mark.line + 1, mark.column + 1) if mark else None
    message = error.problem or error.context or "not YAML"
    if error.problem and error.context:
        message += f" ({error.context}"
        began = error.context_mark
        if began is not None and at != (began.line + 1, began.column + 1):
            message += f" that begins at line {began.line + 1}, column {began.column + 1}"
        message += ")"
    return at, " ".join(message.split())


def _unreadable(data: bytes, error: ReaderError) -> tuple[Position | None, str]:
    """The place of the first byte that is not text, or of the first character that YAML does not allow."""
    encoding = "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as undecodable:
        # An incremental decoder keeps back a sequence that is only incomplete, which is what remains to be read here.
        before = codecs.getincrementaldecoder(encoding)("ignore").decode(data[: undecodable.start])
        return Lines(before).position(len(before)), f"not {encoding.removesuffix('-sig').upper()}: {undecodable.reason}"
    found = Reader.NON_PRINTABLE.search(text)
    if found is None:
        return None, str(error.reason)
    return Lines(text).position(found.start()), f"character U+{ord(found.group()):04X} is not allowed in YAML"
