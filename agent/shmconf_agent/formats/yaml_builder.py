"""Builds a tree from YAML events, equal to what PyYAML's safe loader builds, within limits that hold while it streams.

A text that is in order is read by `yaml_quick`; the builder is run only after trouble there, or when a place is asked
for. It is a loop with a stack of its own, so that depth in the text is never depth in the interpreter, and has two
modes. Careful, it keeps a place tree beside the tree, gathers every problem and goes on to the end of the text. Plain,
it keeps no places, so that a text that passes a limit costs no more than its tree: it says which limit, and where, and
gives up with `Trouble` at anything else that is wrong.

Differences from `yaml.load(text, CSafeLoader)`: duplicate keys, cycles, sets, ordered maps, pairs and integers beyond
64 bits are refused; so are merging (`<<`) a map that bears a tag other than !!map, and an alias, as a value, to an
anchored key `=`. What stands beside the `=` in `!!str {=: x}` has to be valid although it is not used.
Merging follows the specification, as PyYAML did through 6.0.3: of a list of maps the first listed wins (6.0.4 takes
the last for most keys). Of two `<<` in one map, which the specification does not know, the later wins.
"""

from __future__ import annotations

from typing import Any, Protocol

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)

from ..problems import MOST_PROBLEMS, TOO_MANY, Code, Fault
from .limits import Limits
from .places import START, Place, Position
from .tree import HALF_A_PAIR
from .yaml_scalars import (
    MAP,
    MERGE,
    MISPLACED,
    SEQ,
    STR,
    VALUE,
    Misfit,
    construct,
    has_lone_surrogate,
    is_scalar_tag,
    refusal,
    show_tag,
    tag_of_plain,
)


class Trouble(Exception):
    """The plain mode met something wrong; the careful mode will say what."""


class LimitPassed(Exception):
    """A limit was passed, or more was wrong than is told, and building ended there; it is among the problems."""


class Events(Protocol):
    """A stream of PyYAML events."""

    def get_event(self) -> Any:
        """The next event."""


class _Mark:
    """A stand-in for a key or a value that is none; unhashable, so that it never enters a map by the common way."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:  # and so without a hash
        return self is other


_NO_KEY = _Mark()
_MERGE_KEY = _Mark()
_VALUE_KEY = _Mark()
_BAD = _Mark()
_MISSING = _Mark()


class _Frame:
    """A map or list that is being filled."""

    __slots__ = (
        "anchor", "height", "is_map", "items", "key", "key_at", "keys", "merges", "nodes", "place", "tag", "text"
    )

    def __init__(
        self, is_map: bool, anchor: str | None, tag: str | None, nodes: int, keys: int, place: Place | None
    ) -> None:
        self.is_map = is_map
        self.items: Any = {} if is_map else []
        self.key: Any = _NO_KEY
        self.key_at: Any = None
        self.anchor = anchor
        self.tag = tag
        self.nodes = nodes  # counted before this collection
        self.keys = keys  # likewise
        self.height = 1  # levels of collections from here down
        self.merges: list[tuple[dict[Any, Any], Any, Any]] = []  # a map, its places, and where the `<<` stands
        self.place = place
        self.text: str | None = None  # of the scalar under the key '=', which stands for the map under a scalar tag


class _Anchored:
    """What an alias brings in."""

    __slots__ = ("children", "height", "keys", "nodes", "text", "value")

    def __init__(self, value: Any, nodes: int, keys: int, height: int, text: str | None, children: Any) -> None:
        self.value = value
        self.nodes = nodes
        self.keys = keys
        self.height = height
        self.text = text
        self.children = children


class Builder:
    """Builds the documents of an event stream, each with anchors of its own.

    After `run`, `values` are their trees, in order; after an error, those of the documents before it. In careful mode
    `places` are the roots of their place trees, and `problems` holds what is wrong, in no order. Limits are for the
    stream as a whole.
    """

    def __init__(self, limits: Limits, *, careful: bool) -> None:
        self.values: list[Any] = []
        self.places: list[Place] = []
        self.problems: list[tuple[Position | None, Fault]] = []
        self._careful = careful
        self._limits = limits
        self._plain: dict[str, Any] = {}  # resolved plain scalars, by text
        self._anchors: dict[str, _Anchored | None] = {}  # None: not finished
        self._anchored_at: dict[str, Position] = {}
        self._starts: list[Position] = []

    def run(self, events: Events) -> None:
        """Read `events` to their end.

        Raises yaml.YAMLError at a syntax error, LimitPassed, and Trouble if not careful.
        """
        outer = _Frame(False, None, None, 0, 0, Place((1, 1), (1, 1), []) if self._careful else None)
        self.values = outer.items
        if outer.place is not None and isinstance(outer.place.children, list):
            self.places = outer.place.children
        self._fill(outer, events)
        for place, start in zip(self.places, self._starts, strict=self._careful):
            place.at = start

    def _fill(self, frame: _Frame, events: Events) -> None:
        get_event, careful = events.get_event, self._careful
        max_nodes, max_keys, max_depth = self._limits.max_nodes, self._limits.max_keys, self._limits.max_depth
        max_documents = self._limits.max_documents
        stack: list[_Frame] = []
        nodes = keys = documents = 0
        while True:
            event = get_event()
            as_key = frame.is_map and frame.key is _NO_KEY
            if isinstance(event, ScalarEvent):
                nodes += 1
                value = self._scalar(event, as_key)
                keys += as_key
                if keys > max_keys:
                    self._pass_limit(event, self._limits.too_many_keys())
                self._place(frame, value, event.value, self._scalar_place(event) if careful else None)
                if nodes > max_nodes:
                    self._pass_limit(event, self._limits.too_many_nodes())
            elif isinstance(event, CollectionStartEvent):
                stack.append(frame)
                if len(stack) > max_depth:
                    self._pass_limit(event, self._limits.too_deep())
                frame = self._open(event, nodes, keys)
                nodes += 1
                if nodes > max_nodes:
                    self._pass_limit(event, self._limits.too_many_nodes())
            elif isinstance(event, CollectionEndEvent):
                value = self._close(frame)
                closed, frame = frame, stack.pop()
                if closed.anchor is not None:
                    children = closed.place.children if closed.place else None
                    self._anchors[closed.anchor] = _Anchored(
                        value, nodes - closed.nodes, keys - closed.keys, closed.height, closed.text, children
                    )
                self._grow(frame, value, closed.height)
                self._place(frame, value, closed.text, closed.place)
            elif isinstance(event, AliasEvent):
                anchored = self._follow(event)
                nodes += anchored.nodes
                keys += anchored.keys + as_key
                if nodes > max_nodes:
                    self._pass_limit(event, self._limits.too_many_nodes())
                if keys > max_keys:
                    self._pass_limit(event, self._limits.too_many_keys())
                if len(stack) + anchored.height > max_depth:
                    self._pass_limit(event, self._limits.too_deep())
                value = self._alias_value(event, anchored, as_key)
                self._grow(frame, value, anchored.height)
                self._place(frame, value, anchored.text, self._alias_place(event, anchored) if careful else None)
            elif isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > max_documents:
                    self._pass_limit(event, self._limits.too_many_documents())
                if documents > 1:
                    self._anchors, self._anchored_at = {}, {}
                self._starts.append(position(event) if documents > 1 else START)
            elif isinstance(event, StreamEndEvent) or event is None:
                return

    # Scalars

    def _scalar(self, event: Any, as_key: bool) -> Any:
        text: str = event.value
        is_plain, is_quoted = event.implicit
        if event.anchor is not None or not (is_plain or is_quoted):
            return self._special_scalar(event, as_key)
        if is_plain:
            value = self._plain.get(text, _MISSING)
            return self._resolve(event, as_key) if value is _MISSING else value
        return self._bad(event, HALF_A_PAIR) if has_lone_surrogate(text) else text

    def _resolve(self, event: Any, as_key: bool) -> Any:
        """The value of a plain scalar that was not met before."""
        text: str = event.value
        tag = tag_of_plain(text)
        if tag == STR:
            self._plain[text] = text
            return text
        if tag in (MERGE, VALUE):
            return self._special_key(event, tag, as_key)
        value = self._construct(event, tag)
        if value is not _BAD:
            self._plain[text] = value
        return value

    def _special_scalar(self, event: Any, as_key: bool) -> Any:
        """The value of a scalar that has a tag or an anchor."""
        is_plain, is_quoted = event.implicit
        tag: str = tag_of_plain(event.value) if is_plain else STR if is_quoted or event.tag == "!" else event.tag
        value = self._special_key(event, tag, as_key) if tag in (MERGE, VALUE) else self._construct(event, tag)
        if isinstance(value, str) and has_lone_surrogate(value):
            value = self._bad(event, HALF_A_PAIR)
        if event.anchor is not None:
            self._new_anchor(event)
            self._anchors[event.anchor] = _Anchored(value, 1, 0, 0, event.value, None)
        return value

    def _special_key(self, event: Any, tag: str, as_key: bool) -> Any:
        if as_key:
            return _MERGE_KEY if tag == MERGE else _VALUE_KEY
        return self._bad(event, MISPLACED)

    def _construct(self, event: Any, tag: str) -> Any:
        try:
            return construct(tag, event.value)
        except Misfit as misfit:
            return self._bad(event, misfit.fault)

    def _scalar_place(self, event: Any) -> Place:
        at = position(event)
        return Place(at, at, None, event.value, plain=event.implicit[0])

    # Collections

    def _open(self, event: Any, nodes: int, keys: int) -> _Frame:
        is_map = isinstance(event, MappingStartEvent)
        tag: str | None = event.tag
        if tag is not None and tag in ("!", MAP if is_map else SEQ):
            tag = None
        if tag is not None and (reason := _misfit(tag, is_map)):
            self._bad(event, reason)
            tag = None
        if event.anchor is not None:
            self._new_anchor(event)
            self._anchors[event.anchor] = None
        at = position(event)
        place = Place(at, at, {} if is_map else []) if self._careful else None
        return _Frame(is_map, event.anchor, tag, nodes, keys, place)

    def _close(self, frame: _Frame) -> Any:
        """The finished value: merged entries come before the map's own, which replace them in their place."""
        if frame.merges:
            merged: dict[Any, Any] = {}
            places: dict[Any, Place] = {}
            for source, source_places, at in frame.merges:
                merged.update(source)
                for key, place in (source_places or {}).items():
                    places[key] = place.merged(at)
            merged.update(frame.items)
            frame.items = merged
            if frame.place is not None and isinstance(frame.place.children, dict):
                places.update(frame.place.children)
                frame.place.children = places
        if frame.tag is None:
            return frame.items
        try:  # a map under a scalar's tag stands for the value under its key '='
            if frame.text is None:
                raise Misfit(Code.YAML_TAG, f"{show_tag(frame.tag)} does not fit a map without the key '='")
            return construct(frame.tag, frame.text)
        except Misfit as misfit:
            return self._problem(frame.place.value if frame.place else None, misfit.fault)

    def _grow(self, frame: _Frame, value: Any, height: int) -> None:
        """Let `frame` be at least one level higher than what it holds; what is merged into it adds no level."""
        if frame.key is _MERGE_KEY:
            height -= 2 if isinstance(value, list) else 1
        frame.height = max(frame.height, height + 1)

    def _place(self, frame: _Frame, value: Any, text: str | None, place: Place | None) -> None:
        """Put a value into `frame`: as an item, a key, or the value of the waiting key."""
        if not frame.is_map:
            frame.items.append(value)
            if place is not None and frame.place is not None and isinstance(frame.place.children, list):
                frame.place.children.append(place)
        elif frame.key is _NO_KEY:
            frame.key = value
            frame.key_at = place.at if place else None
        else:
            key, frame.key = frame.key, _NO_KEY
            try:
                hash(key)
            except TypeError:
                self._odd_pair(frame, key, value, text, place)
            else:
                self._pair(frame, key, value, place)

    def _pair(self, frame: _Frame, key: Any, value: Any, place: Place | None) -> None:
        places = frame.place.children if frame.place else None
        if key in frame.items:
            first = places[key].at if isinstance(places, dict) else (0, 0)
            self._problem(frame.key_at, _duplicate(frame.items, key, first))
            return
        frame.items[key] = value
        if isinstance(places, dict) and place is not None:
            places[key] = place.at_key(frame.key_at)

    def _odd_pair(self, frame: _Frame, key: Any, value: Any, text: str | None, place: Place | None) -> None:
        if key is _MERGE_KEY:
            self._merge(frame, value, place)
        elif key is _VALUE_KEY:
            frame.text = text
            self._pair(frame, "=", value, place)
        elif key is not _BAD:
            kind = "map" if isinstance(key, dict) else "list"
            self._problem(frame.key_at, Fault(Code.YAML_KEY, f"a {kind} cannot be a key"))

    def _merge(self, frame: _Frame, value: Any, place: Place | None) -> None:
        children = place.children if place else None
        if isinstance(value, dict):
            frame.merges.append((value, children, frame.key_at))
        elif isinstance(value, list):
            items = children if isinstance(children, list) else [None] * len(value)
            for item, item_place in zip(reversed(value), reversed(items), strict=True):  # the first listed wins
                if isinstance(item, dict):
                    frame.merges.append((item, item_place.children if item_place else None, frame.key_at))
                elif item is not _BAD:
                    fault = Fault(Code.YAML_MERGE, "'<<' merges maps; this item is none")
                    self._problem(item_place.at if item_place else None, fault)
        elif value is not _BAD:
            fault = Fault(Code.YAML_MERGE, "'<<' merges a map or a list of maps; this is neither")
            self._problem(place.value if place else None, fault)

    # Anchors

    def _new_anchor(self, event: Any) -> None:
        name: str = event.anchor
        if name in self._anchored_at:
            line, column = self._anchored_at[name]
            message = f"anchor '&{name}' is set twice, first at line {line}, column {column}"
            self._bad(event, Fault(Code.YAML_ALIAS, message))
        self._anchored_at[name] = position(event)

    def _follow(self, event: Any) -> _Anchored:
        name: str = event.anchor
        if name not in self._anchors:
            fault = Fault(Code.YAML_ALIAS, f"alias '*{name}' has no anchor '&{name}' before it")
            return _Anchored(self._bad(event, fault), 1, 0, 0, None, None)
        anchored = self._anchors[name]
        if anchored is None:
            message = f"alias '*{name}' stands inside the value that it names, which would have no end"
            return _Anchored(self._bad(event, Fault(Code.YAML_ALIAS, message)), 1, 0, 0, None, None)
        return anchored

    def _alias_value(self, event: Any, anchored: _Anchored, as_key: bool) -> Any:
        """The alias's value; an anchored '<<' or '=' keeps its meaning only as a key."""
        value = anchored.value
        if (value is _MERGE_KEY or value is _VALUE_KEY) and not as_key:
            return self._bad(event, MISPLACED)
        return value

    def _alias_place(self, event: Any, anchored: _Anchored) -> Place:
        at = position(event)
        return Place(at, at, anchored.children, alias_of=self._anchored_at.get(event.anchor))

    # Problems

    def _bad(self, event: Any, fault: Fault) -> Any:
        return self._problem(position(event), fault)

    def _problem(self, at: Position | None, fault: Fault) -> Any:
        if not self._careful:
            raise Trouble
        if len(self.problems) >= MOST_PROBLEMS:
            self.problems.append((at, TOO_MANY))
            raise LimitPassed
        self.problems.append((at, fault))
        return _BAD

    def _pass_limit(self, event: Any, fault: Fault) -> None:
        self.problems.append((position(event), fault))
        raise LimitPassed


def is_bad(value: Any) -> bool:
    """Whether this stands for a value that is none, in careful mode; there is a problem that tells of it."""
    return value is _BAD


def show_key(key: Any) -> str:
    """A key for a message, as YAML would have it."""
    if key is None:
        return "null"
    if isinstance(key, bool):
        return str(key).lower()
    return repr(key) if isinstance(key, (str, bytes)) else str(key)


def _duplicate(items: dict[Any, Any], key: Any, first: Position) -> Fault:
    kept = next((known for known in items if known == key), key)
    equal = "" if type(kept) is type(key) else f", equal to {show_key(kept)}"
    message = f"duplicate key {show_key(key)}{equal}, first set at line {first[0]}, column {first[1]}"
    return Fault(Code.DUPLICATE_KEY, message)


def _misfit(tag: str, is_map: bool) -> Fault | None:
    """Why a collection may not have `tag`. A map under a scalar's tag may yet stand for its key '='."""
    if reason := refusal(tag):
        return reason
    if is_map and is_scalar_tag(tag):
        return None
    return Fault(Code.YAML_TAG, f"{show_tag(tag)} does not fit a {'map' if is_map else 'list'}")


def position(event: Any) -> Position:
    """Where an event begins."""
    mark = event.start_mark
    return mark.line + 1, mark.column + 1
