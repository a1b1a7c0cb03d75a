"""The quick way through a YAML text that is in order: events to trees, and nothing kept of where anything stands.

What it builds equals what the builder (`yaml_builder`) builds. At the first thing that it does not take it gives up
with `Trouble`, and the builder reads the text again: it finds out what is wrong, or that nothing is (a map that stands
for a scalar under its key '=', say). The limits hold while it streams.

Nearly all of an agent's time goes into this loop, so it is written out rather than cut into functions, and what the
text does not need is not counted: nodes are added up where a collection ends and after each few thousand events, and a
duplicate key shows in a map that has fewer entries than were put into it. agent/native/yaml_quick.c is the same loop
in C, step for step, and takes its rarer parts from here (`yaml_native`).
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from .limits import Limits
from .yaml_builder import Events
from .yaml_scalars import (
    FIRST_OF_RULED,
    MAP,
    MERGE,
    SEQ,
    STR,
    VALUE,
    Misfit,
    construct,
    has_lone_surrogate,
    tag_of_plain,
)

_STRIDE = 10_000  # events between two looks at the number of nodes


class Trouble(Exception):
    """There is something in the text that this way does not take; the builder will say what."""


class TooMuch(Trouble):
    """A limit was passed."""


class _Merge:
    """Stands for the key `<<`; without a hash, so that it can never become the key of an entry."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as snapshot.py: typeshed has every object hashable


MERGE_KEY = _Merge()


class Plain(dict[str, Any]):
    """The values of plain scalars by their text; each is found out once."""

    def __missing__(self, text: str) -> Any:
        tag = tag_of_plain(text)
        if tag == STR:
            value: Any = text
        elif tag in (MERGE, VALUE):
            return self.special(tag)
        else:
            value = construct(tag, text)
        self[text] = value
        return value

    def special(self, tag: str) -> Any:
        raise Trouble


class PlainKeys(Plain):
    """The same where a key stands: one object for each key, however many maps have it."""

    def special(self, tag: str) -> Any:
        if tag == MERGE:
            return MERGE_KEY
        raise Trouble


# A collection that waits for one within it to end: its items, whether it is a map, the key that waits and how many
# pairs were begun (of a map), what is merged into it, its anchor, the levels of collections from it down as far as they
# are known, and the nodes and the keys that were counted when it began.
_Frame = tuple[Any, bool, Any, int, list[Any] | None, str | None, int, int, int]


class Anchored(NamedTuple):
    """What an alias brings in: the value, its nodes and keys with all that aliases bring into it, and its levels."""

    value: Any
    nodes: int
    keys: int
    height: int


def build(events: Events, limits: Limits) -> list[Any]:
    """The tree of each document in the stream. Raises Trouble, and yaml.YAMLError at a syntax error."""
    try:
        return _build(events, limits)
    except (Misfit, TypeError) as error:  # TypeError: of a key that cannot be one
        raise Trouble from error


def _build(events: Events, limits: Limits) -> list[Any]:
    get_event, next_event = events.get_event, type(events).get_event
    max_nodes, max_keys, max_depth = limits.max_nodes, limits.max_keys, limits.max_depth
    scalar, map_end = ScalarEvent, MappingEndEvent
    plain_keys, plain, ruled = PlainKeys(), Plain(), FIRST_OF_RULED
    anchors: dict[str, Anchored | None] = {}  # None: not finished
    stack: list[_Frame] = []
    documents = nodes = keys = 0
    # Of the collection that is being filled:
    values: list[Any] = []
    items: Any = values
    is_map, key, pairs, height, nodes_before, keys_before = False, None, 0, 1, 0, 0
    merges: list[Any] | None = None
    anchor: str | None = None
    while True:
        if nodes + _waiting_nodes(stack) + (pairs * 2 if is_map else len(items)) > max_nodes:
            raise TooMuch
        if keys + _waiting_keys(stack) + (pairs if is_map else 0) > max_keys:
            raise TooMuch
        for event in map(next_event, repeat(events, _STRIDE)):
            # The next key of a map or item of a list, or its end.
            kind = type(event)
            if is_map:
                if kind is scalar:
                    is_bare = event.implicit[0] and event.anchor is None
                    key = plain_keys[event.value] if is_bare else scalar_of(event, anchors)
                    event = get_event()
                    kind = type(event)
                    pairs += 1
                elif kind is AliasEvent:
                    key = follow(event, anchors).value
                    event = get_event()
                    kind = type(event)
                    pairs += 1
                elif kind is not map_end:
                    raise Trouble  # a map or a list as a key
            if kind is scalar:
                if event.anchor is not None:
                    value = scalar_of(event, anchors)
                elif event.implicit[0]:
                    text = event.value
                    if text and text[0] not in ruled:
                        value = text
                    elif text.isdecimal() and text[0] != "0" and len(text) < 19 and text.isascii():
                        value = int(text)
                    else:
                        value = plain[text]
                else:
                    value = event.value
                    if not (event.implicit[1] and value.isascii()):
                        value = scalar_of(event, anchors)
                if is_map:
                    items[key] = value
                else:
                    items.append(value)
                continue
            if kind is MappingStartEvent or kind is SequenceStartEvent:
                stack.append((items, is_map, key, pairs, merges, anchor, height, nodes_before, keys_before))
                if len(stack) > max_depth:
                    raise TooMuch
                is_map = kind is MappingStartEvent
                if event.tag is not None and event.tag not in ("!", MAP if is_map else SEQ):
                    raise Trouble
                anchor = event.anchor
                if anchor is not None:
                    begin_anchor(anchor, anchors)
                items = {} if is_map else []
                pairs, merges, height, nodes_before, keys_before = 0, None, 1, nodes, keys
                continue
            if kind is map_end or kind is SequenceEndEvent:
                if is_map:
                    if len(items) != pairs and (merges is None or len(items) + len(merges) != pairs):
                        raise Trouble  # a duplicate key
                    nodes += 2 * pairs
                    keys += pairs
                    if merges is not None:
                        items = with_merged(merges, items)
                else:
                    nodes += len(items)
                if anchor is not None:
                    end_anchor(anchors, anchor, items, nodes - nodes_before + 1, keys - keys_before, height)
                value, below = items, height
                items, is_map, key, pairs, merges, anchor, height, nodes_before, keys_before = stack.pop()
            elif kind is AliasEvent:
                value, added, added_keys, below = follow(event, anchors)
                nodes += added - 1
                keys += added_keys
                if nodes > max_nodes or keys > max_keys or len(stack) + below > max_depth:
                    raise TooMuch
            elif kind is DocumentStartEvent:
                documents += 1
                if documents > limits.max_documents:
                    raise TooMuch
                anchors = {}
                continue
            elif kind is DocumentEndEvent or kind is StreamStartEvent:
                continue
            elif kind is StreamEndEvent or event is None:
                if nodes + len(values) > max_nodes or keys > max_keys:
                    raise TooMuch
                return values
            else:
                raise Trouble
            # A collection that has ended, or an alias.
            if not is_map:
                items.append(value)
            elif key is MERGE_KEY:
                merges = merges or []
                merges.append(value)
                below -= 2 if isinstance(value, list) else 1  # what is merged adds no level
            else:
                items[key] = value
            if below >= height:
                height = below + 1


def _waiting_nodes(stack: list[_Frame]) -> int:
    return sum(pairs * 2 if is_map else len(items) for items, is_map, _, pairs, *_ in stack)


def _waiting_keys(stack: list[_Frame]) -> int:
    return sum(pairs for _, is_map, _, pairs, *_ in stack if is_map)


def with_merged(merges: list[Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """A map with what is merged into it: that comes first, and the map's own entries replace it in its place."""
    merged: dict[Any, Any] = {}
    for source in merges:
        for each in reversed(source) if isinstance(source, list) else (source,):  # the first listed wins
            if not isinstance(each, dict):
                raise Trouble
            merged.update(each)
    merged.update(items)
    return merged


def scalar_of(event: Any, anchors: dict[str, Anchored | None]) -> Any:
    """The value of a scalar with a tag or an anchor, or in quotes."""
    text: str = event.value
    is_plain, is_quoted = event.implicit
    tag: str = tag_of_plain(text) if is_plain else STR if is_quoted or event.tag == "!" else event.tag
    if tag in (MERGE, VALUE):
        raise Trouble
    value = construct(tag, text)
    if isinstance(value, str) and has_lone_surrogate(value):
        raise Trouble
    if event.anchor is not None:
        begin_anchor(event.anchor, anchors)
        anchors[event.anchor] = Anchored(value, 1, 0, 0)
    return value


def begin_anchor(name: str, anchors: dict[str, Anchored | None]) -> None:
    """From here on the anchor names a value that is not finished. Raises Trouble where it names one already."""
    if name in anchors:
        raise Trouble
    anchors[name] = None


def end_anchor(
    anchors: dict[str, Anchored | None], name: str, value: Any, nodes: int, keys: int, height: int
) -> None:
    """What the anchor of a collection that has ended brings in from now on."""
    anchors[name] = Anchored(value, nodes, keys, height)


def follow(event: Any, anchors: dict[str, Anchored | None]) -> Anchored:
    """What an alias brings in. Raises Trouble where that is nothing, or not finished."""
    anchored = anchors.get(event.anchor)
    if anchored is None:  # there is none, or it stands inside the value that it names
        raise Trouble
    return anchored
