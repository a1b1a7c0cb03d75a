"""YAML 1.1 as PyYAML's safe loader reads it, straight from the parser's event stream.

libyaml's parser is used where PyYAML was built with it, PyYAML's own otherwise; the trees are the same, but for a
lone tag `!` with nothing after it (an empty text, and null) and a byte order mark within the text. UTF-8 with or
without a byte order mark is read, and UTF-16 with one. A file may hold several documents, each of which is a tree.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from yaml import SafeLoader
from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import ScalarEvent, StreamEndEvent
from yaml.reader import Reader, ReaderError
from yaml.scanner import ScannerError

from ..problems import Code, Fault, Invalid, Key, in_order
from . import yaml_native, yaml_quick
from .limits import Limits
from .places import START, Lines, Place, Position
from .text import YAML_BREAK, encoding_of
from .yaml_builder import Builder, Events, LimitPassed, Trouble, is_bad, position
from .yaml_scalars import hint_of_plain, surprise

try:
    from yaml._yaml import CParser
except ImportError:  # PyYAML without libyaml
    HAS_LIBYAML = False
else:
    HAS_LIBYAML = True

LINE_BREAK = YAML_BREAK
_UNLIMITED = Limits(max_depth=2**31, max_nodes=2**63, max_keys=2**63, max_documents=2**63)
_LIMIT_OF_LIBYAML = re.compile(r"nest|depth", re.IGNORECASE)  # no other message of libyaml has one of these words
_HANDLE = re.compile("^%TAG|[\n\r\x85\u2028\u2029]%TAG")
_MOST_HANDLES = 1000
_LONGEST_KEY = 1024  # characters that a key without '?' may have: how far the scanner runs ahead of the events


def documents(data: bytes, *, file: str, limits: Limits) -> list[dict[Key, Any]]:
    """The tree of each document in `data`, an empty map for an empty one. Raises Invalid with every problem up to the
    first syntax error or passed limit."""
    if too_many := _too_many_handles(data):
        raise Invalid([too_many.at(file)])
    try:
        trees = build_quickly(data, limits)
    except yaml_quick.TooMuch:
        _tell_passed_limit(data, file, limits)
    except (YAMLError, UnicodeError, yaml_quick.Trouble):
        pass
    else:
        if not trees:
            return [{}]
        if all(isinstance(tree, dict) for tree in trees):
            return trees
    return _parse_carefully(data, file, limits)


def build_quickly(data: bytes, limits: Limits) -> list[Any]:
    """What `documents` tries first: raises yaml_quick.Trouble, UnicodeError and yaml.YAMLError at anything unusual."""
    if HAS_LIBYAML and yaml_native.is_there():
        return yaml_native.build(data, limits)
    return yaml_quick.build(_events(data), limits)


def _tell_passed_limit(data: bytes, file: str, limits: Limits) -> None:
    """Raises Invalid for the limit that a text passes, unless something else is wrong before."""
    builder = Builder(limits, careful=False)
    try:
        builder.run(_events(data))
    except LimitPassed:
        raise Invalid(in_order(builder.problems, file)) from None
    except (YAMLError, UnicodeError, Trouble):
        pass


def _too_many_handles(data: bytes) -> Fault | None:
    """More %TAG directives than anybody writes: libyaml compares each with all others, and each tag as well."""
    if len(data) < _MOST_HANDLES * 5:
        return None
    if encoding_of(data) != "utf-16" and data.count(b"%TAG") <= _MOST_HANDLES:
        return None
    text = data.decode(encoding_of(data), "replace")
    if next(islice(_HANDLE.finditer(text), _MOST_HANDLES, None), None) is None:
        return None
    return Fault(Code.YAML_TAG, f"more than {_MOST_HANDLES:,} %TAG directives")


def surprises(data: bytes) -> list[tuple[Position, Fault]]:
    """The plain scalars, keys too, that YAML 1.1 reads otherwise than they look; none that has a tag or quotes."""
    found: list[tuple[Position, Fault]] = []
    known: dict[str, Fault | None] = {}
    source: str | None = None
    events = _events(data)
    while (event := events.get_event()) is not None and not isinstance(event, StreamEndEvent):
        if type(event) is ScalarEvent and event.implicit[0]:
            text = event.value
            if text not in known:
                known[text] = surprise(text)
            if (fault := known[text]) is None:
                continue
            end: Any = event.end_mark
            line, column = end.line + 1, end.column + 1 - len(text)
            if (line, column) != position(event):  # behind an anchor, or the tag '!', which the parser keeps for itself
                source = source or data.decode(encoding_of(data))
                start: Any = event.start_mark
                if "!" in source[start.index : end.index - len(text)]:
                    continue
            found.append(((line, column), fault))
    return found


def hint(place: Place, wanted: AbstractSet[str]) -> str | None:
    """What to write where a value of one of the JSON types `wanted` was meant, if its spelling is why it is none."""
    return hint_of_plain(place.text, wanted) if place.plain else None


def place_trees(data: bytes) -> list[Place]:
    """The place tree of each document in `data`."""
    builder = Builder(_UNLIMITED, careful=True)
    builder.run(_events(data))
    return builder.places or [Place(START, START, {})]


def _events(data: bytes) -> Events:
    return CParser(data) if HAS_LIBYAML else SafeLoader(data)


def _parse_carefully(data: bytes, file: str, limits: Limits) -> list[dict[Key, Any]]:
    builder = Builder(limits, careful=True)
    problems = builder.problems
    trees: list[dict[Key, Any]] = []
    too_deep = None
    try:
        builder.run(_events(data))
    except ReaderError as error:
        problems.append(_unreadable(data, error))
    except MarkedYAMLError as error:
        problems.append(_syntax_error(error, data))
        too_deep = _where_libyaml_stops(error)
    except (YAMLError, UnicodeError) as error:
        problems.append((None, Fault(Code.YAML_SYNTAX, " ".join(str(error).split()))))
    except LimitPassed:
        pass
    for value, root in zip(builder.values, builder.places, strict=True):
        if value is None and root.text == "":
            trees.append({})  # a document marker, tags or comments with nothing after them
        elif isinstance(value, dict):
            trees.append(value)
        elif not is_bad(value):
            fault = Fault(Code.TOP_LEVEL, f"the top level is {_kind(value)}; it has to be a map")
            problems.append((root.value, fault))
    if too_deep is not None:  # here, where what was built so far is let go of, so that it is not in memory twice
        problems = _up_to_our_limit(data, too_deep, limits) or problems
    if problems:
        raise Invalid(in_order(problems, file))
    return trees


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "a list" if isinstance(value, list) else "a single value"


def _syntax_error(error: MarkedYAMLError, data: bytes) -> tuple[Position | None, Fault]:
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
    return at, Fault(Code.YAML_SYNTAX, " ".join(message.split()), _hint(error, data))


def _hint(error: MarkedYAMLError, data: bytes) -> str | None:
    """What is most often behind the parser's message."""
    problem, mark = error.problem or "", error.problem_mark
    if "cannot start any token" in problem and mark is not None:
        text = data.decode(encoding_of(data), "replace")
        if text[mark.index : mark.index + 1] == "\t":
            return "YAML is indented with spaces, not with tabs"
    if problem.startswith("mapping values are not allowed"):
        return "a value that holds ': ' has to be quoted"
    return None


def _where_libyaml_stops(error: MarkedYAMLError) -> int | None:
    """Offset, in characters, of what is nested deeper than libyaml itself allows since 0.2.6; None for other errors.

    The scanner raises it as far ahead of the events as a key may be long, and so, where brackets stand close together,
    before the builder has seen that our own limit is passed.
    """
    if HAS_LIBYAML and error.problem_mark and _LIMIT_OF_LIBYAML.search(error.problem or ""):
        return error.problem_mark.index
    return None


def _up_to_our_limit(data: bytes, too_deep: int, limits: Limits) -> list[tuple[Position | None, Fault]] | None:
    """The problems of a text that libyaml reads up to the offset `too_deep`, as they would be if it went on.

    What follows is replaced by as many commas as make the scanner give up that all this may be a key, and hand it out.
    None if our limit is not passed before.
    """
    text = data.decode(encoding_of(data), "replace")[:too_deep] + "," * (_LONGEST_KEY + 1)
    builder = Builder(limits, careful=True)
    try:
        builder.run(_events(text.encode()))
    except LimitPassed:
        return builder.problems
    except ScannerError as key_too_long:  # what stands where only a key may; commas alone bring the scanner no trouble
        return [*builder.problems, _syntax_error(key_too_long, text.encode())]
    except (YAMLError, UnicodeError):
        pass
    return None


def _unreadable(data: bytes, error: ReaderError) -> tuple[Position | None, Fault]:
    """The place of the first byte that is not text, or of the first character that YAML does not allow."""
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as undecodable:
        # An incremental decoder keeps back a sequence that is only incomplete, which is what remains to be read here.
        before = codecs.getincrementaldecoder(encoding)("ignore").decode(data[: undecodable.start])
        message = f"not {encoding.removesuffix('-sig').upper()}: {undecodable.reason}"
        return Lines(before).position(len(before)), Fault(Code.ENCODING, message)
    found = Reader.NON_PRINTABLE.search(text)
    if found is None:
        return None, Fault(Code.ENCODING, str(error.reason))
    message = f"character U+{ord(found.group()):04X} is not allowed in YAML"
    return Lines(text).position(found.start()), Fault(Code.ENCODING, message)
