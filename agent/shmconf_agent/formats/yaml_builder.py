"""Builds a tree from YAML events, equal to what PyYAML's safe loader builds, within limits that hold while it streams.

The builder is a loop with a stack of its own, so that depth in the text is never depth in the interpreter. It runs in
two modes. Plain, it keeps no places and gives up at the first trouble with `Trouble`; this is the way of every valid
file. Careful, it keeps a place tree beside the tree, gathers every problem and goes on to the end of the text; this is
run only after trouble, or when a place is asked for.

Differences from `yaml.load(text, CSafeLoader)`: duplicate keys, cycles, sets, ordered maps, pairs and integers beyond
64 bits are refused; so are merging (`<<`) a map that bears a tag other than !!map, and an alias, as a value, to an
anchored key `=`. What stands beside the `=` in `!!str {=: x}` has to be valid although it is not used. Two `<<` in one
map are taken as PyYAML takes them, in order.
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

from .limits import Limits
from .places import Place, Position
from .tree import HALF_A_PAIR
from .yaml_scalars import (
    MAP,
    MERGE,
    SEQ,
    STR,
    VALUE,
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
    """A limit was passed and building ended there; the reason is among the problems."""


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

    __slots__ = ("anchor", "height", "is_map", "items", "key", "key_at", "merges", "nodes", "place", "tag", "text")

    def __init__(self, is_map: bool, anchor: str | None, tag: str | None, nodes: int, place: Place | None) -> None:
        self.is_map = is_map
        self.items: Any = {} if is_map else []
        self.key: Any = _NO_KEY
        self.key_at: Any = None
        self.anchor = anchor
        self.tag = tag
        self.nodes = nodes  # counted before this collection
        self.height = 1  # levels of collections from here down
        self.merges: list[tuple[dict[Any, Any], Any]] = []
        self.place = place
        self.text: str | None = None  # of the scalar under the key '=', which stands for the map under a scalar tag


class _Anchored:
    """What an alias brings in."""

    __slots__ = ("children", "height", "nodes", "text", "value")

    def __init__(self, value: Any, nodes: int, height: int, text: str | None, children: Any) -> None:
        self.value = value
        self.nodes = nodes
        self.height = height
        self.text = text
        self.children = children


class Builder:
    """Builds the one document of an event stream.

    After `run`, `value` is its tree and `found` tells whether there was a document. In careful mode `place` is the
    root of the place tree and `problems` holds what is wrong, in no order.
    """

    def __init__(self, limits: Limits, *, careful: bool) -> None:
        self.value: Any = None
        self.found = False
        self.place: Place | None = None
        self.problems: list[tuple[Position | None, str]] = []
        self._careful = careful
        self._limits = limits
        self._plain: dict[str, Any] = {}  # resolved plain scalars, by text
        self._anchors: dict[str, _Anchored | None] = {}  # None: not finished
        self._anchored_at: dict[str, Position] = {}

    def run(self, events: Events) -> None:
        """Read `events` to their end.

        Raises yaml.YAMLError at a syntax error, LimitPassed if careful, and Trouble if not.
        """
        outer = _Frame(False, None, None, 0, Place((1, 1), (1, 1), []) if self._careful else None)
        self._fill(outer, events)
        if outer.items:
            self.found = True
            self.value = outer.items[0]
            if outer.place is not None and isinstance(outer.place.children, list):
                self.place = outer.place.children[0]

    def _fill(self, frame: _Frame, events: Events) -> None:
        # The hot loop: what happens to a plain or quoted scalar is written out here rather than called, and the
        # state of the frame at hand is kept in locals; `frame.key` is up to date only where a method may need it.
        get_event, plain, careful = events.get_event, self._plain, self._careful
        max_nodes, max_depth = self._limits.max_nodes, self._limits.max_depth
        stack: list[_Frame] = []
        nodes = documents = 0
        is_map, items, key = frame.is_map, frame.items, frame.key
        while True:
            event = get_event()
            if type(event) is ScalarEvent:
                nodes += 1
                text = event.value
                is_plain, is_quoted = event.implicit
                if event.anchor is not None or not (is_plain or is_quoted):
                    value = self._special_scalar(event, is_map and key is _NO_KEY)
                elif is_plain:
                    value = plain.get(text, _MISSING)
                    if value is _MISSING:
                        value = self._resolve(event, is_map and key is _NO_KEY)
                else:
                    value = text
                    if not text.isascii() and has_lone_surrogate(text):
                        value = self._bad(event, HALF_A_PAIR)
                if careful:
                    frame.key = key
                    self._place(frame, value, text, self._scalar_place(event))
                    key = frame.key
                elif not is_map:
                    items.append(value)
                elif key is _NO_KEY:
                    key = value
                else:
                    try:
                        if key in items:
                            raise Trouble
                        items[key] = value
                    except TypeError:  # an unhashable key
                        self._odd_pair(frame, key, value, text, None)
                    key = _NO_KEY
                if nodes > max_nodes:
                    self._pass_limit(event, self._limits.too_many_nodes())
                continue
            frame.key = key
            if isinstance(event, CollectionStartEvent):
                stack.append(frame)
                if len(stack) > max_depth:
                    self._pass_limit(event, self._limits.too_deep())
                frame = self._open(event, nodes)
                nodes += 1
            elif isinstance(event, CollectionEndEvent):
                value = self._close(frame)
                closed, frame = frame, stack.pop()
                if closed.anchor is not None:
                    children = closed.place.children if closed.place else None
                    self._anchors[closed.anchor] = _Anchored(
                        value, nodes - closed.nodes, closed.height, closed.text, children
                    )
                self._grow(frame, value, closed.height)
                self._place(frame, value, closed.text, closed.place)
            elif isinstance(event, AliasEvent):
                anchored = self._follow(event)
                nodes += anchored.nodes
                if nodes > max_nodes:
                    self._pass_limit(event, self._limits.too_many_nodes())
                if len(stack) + anchored.height > max_depth:
                    self._pass_limit(event, self._limits.too_deep())
                value = self._alias_value(event, anchored, is_map and key is _NO_KEY)
                self._grow(frame, value, anchored.height)
                at = _position(event)
                self._place(frame, value, anchored.text, Place(at, at, anchored.children) if careful else None)
            elif isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._bad(event, "a second document begins here: one document per file is read")
                    return
            elif isinstance(event, StreamEndEvent) or event is None:
                return
            is_map, items, key = frame.is_map, frame.items, frame.key

    # Scalars

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
        tag: str = tag_of_plain(event.value) if is_plain else STR if is_quoted else event.tag
        value = self._special_key(event, tag, as_key) if tag in (MERGE, VALUE) else self._construct(event, tag)
        if isinstance(value, str) and has_lone_surrogate(value):
            value = self._bad(event, HALF_A_PAIR)
        if event.anchor is not None:
            self._new_anchor(event)
            self._anchors[event.anchor] = _Anchored(value, 1, 0, event.value, None)
        return value

    def _special_key(self, event: Any, tag: str, as_key: bool) -> Any:
        if as_key:
            return _MERGE_KEY if tag == MERGE else _VALUE_KEY
        return self._bad(event, refusal(tag) or "")

    def _construct(self, event: Any, tag: str) -> Any:
        try:
            return construct(tag, event.value)
        except ValueError as error:
            return self._bad(event, str(error))

    def _scalar_place(self, event: Any) -> Place:
        at = _position(event)
        return Place(at, at, None, event.value)

    # Collections

    def _open(self, event: Any, nodes: int) -> _Frame:
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
        at = _position(event)
        place = Place(at, at, {} if is_map else []) if self._careful else None
        return _Frame(is_map, event.anchor, tag, nodes, place)

    def _close(self, frame: _Frame) -> Any:
        """The finished value: merged entries come before the map's own, which replace them in their place."""
        if frame.merges:
            merged: dict[Any, Any] = {}
            places: dict[Any, Place] = {}
            for source, source_places in frame.merges:
                merged.update(source)
                places.update(source_places or {})
            merged.update(frame.items)
            frame.items = merged
            if frame.place is not None and isinstance(frame.place.children, dict):
                places.update(frame.place.children)
                frame.place.children = places
        if frame.tag is None:
            return frame.items
        try:  # a map under a scalar's tag stands for the value under its key '='
            if frame.text is None:
                raise ValueError(f"{show_tag(frame.tag)} does not fit a map without the key '='")
            return construct(frame.tag, frame.text)
        except ValueError as error:
            return self._problem(frame.place.value if frame.place else None, str(error))

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
            places[key] = Place(frame.key_at, place.value, place.children, place.text)

    def _odd_pair(self, frame: _Frame, key: Any, value: Any, text: str | None, place: Place | None) -> None:
        if key is _MERGE_KEY:
            self._merge(frame, value, place)
        elif key is _VALUE_KEY:
            frame.text = text
            self._pair(frame, "=", value, place)
        elif key is not _BAD:
            kind = "map" if isinstance(key, dict) else "list"
            self._problem(frame.key_at, f"a {kind} cannot be a key")

    def _merge(self, frame: _Frame, value: Any, place: Place | None) -> None:
        children = place.children if place else None
        if isinstance(value, dict):
            frame.merges.append((value, children))
        elif isinstance(value, list):
            items = children if isinstance(children, list) else [None] * len(value)
            for item, item_place in zip(reversed(value), reversed(items), strict=True):  # the first listed wins
                if isinstance(item, dict):
                    frame.merges.append((item, item_place.children if item_place else None))
                elif item is not _BAD:
                    self._problem(item_place.at if item_place else None, "'<<' merges maps; this item is none")
        elif value is not _BAD:
            self._problem(place.value if place else None, "'<<' merges a map or a list of maps; this is neither")

    # Anchors

    def _new_anchor(self, event: Any) -> None:
        name: str = event.anchor
        if name in self._anchored_at:
            line, column = self._anchored_at[name]
            self._bad(event, f"anchor '&{name}' is set twice, first at line {line}, column {column}")
        self._anchored_at[name] = _position(event)

    def _follow(self, event: Any) -> _Anchored:
        name: str = event.anchor
        if name not in self._anchors:
            return _Anchored(self._bad(event, f"alias '*{name}' has no anchor '&{name}' before it"), 1, 0, None, None)
        anchored = self._anchors[name]
        if anchored is None:
            value = self._bad(event, f"alias '*{name}' stands inside the value that it names, which would have no end")
            return _Anchored(value, 1, 0, None, None)
        return anchored

    def _alias_value(self, event: Any, anchored: _Anchored, as_key: bool) -> Any:
        """The alias's value; an anchored '<<' or '=' keeps its meaning only as a key."""
        value = anchored.value
        if (value is _MERGE_KEY or value is _VALUE_KEY) and not as_key:
            return self._bad(event, refusal(MERGE) or "")
        return value

    # Problems

    def _bad(self, event: Any, message: str) -> Any:
        return self._problem(_position(event), message)

    def _problem(self, at: Position | None, message: str) -> Any:
        if not self._careful:
            raise Trouble
        self.problems.append((at, message))
        return _BAD

    def _pass_limit(self, event: Any, message: str) -> None:
        self._bad(event, message)
        raise LimitPassed


def show_key(key: Any) -> str:
    """A key for a message, as YAML would have it."""
    if key is None:
        return "null"
    if isinstance(key, bool):
        return str(key).lower()
    return repr(key) if isinstance(key, (str, bytes)) else str(key)


def _duplicate(items: dict[Any, Any], key: Any, first: Position) -> str:
    kept = next((known for known in items if known == key), key)
    equal = "" if type(kept) is type(key) else f", equal to {show_key(kept)}"
    return f"duplicate key {show_key(key)}{equal}, first set at line {first[0]}, column {first[1]}"


def _misfit(tag: str, is_map: bool) -> str | None:
    """Why a collection may not have `tag`. A map under a scalar's tag may yet stand for its key '='."""
    if reason := refusal(tag):
        return reason
    if is_map and is_scalar_tag(tag):
        return None
    return f"{show_tag(tag)} does not fit a {'map' if is_map else 'list'}"


def _position(event: Any) -> Position:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1
