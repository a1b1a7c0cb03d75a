"""How much a merged tree holds, held to the segment's limits before anything walks it.

The same map may stand at many places of a tree, so that a file of a kilobyte can be a tree of billions of nodes, and a
handful of files, each within its limits, one beyond them. Sizes are therefore summed up over what is really there, each
map and list once, whatever number of places it stands at: the cost is that of the text, not of what it expands to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .formats import Limits
from .merge import Layer
from .problems import Code, Fault, Invalid


class Size(NamedTuple):
    """Of a map or list, with all that it holds, aliases expanded.

    nodes, keys, depth: as in Limits. packed: bytes of msgpack, or fewer: what is certain without packing it.
    """

    nodes: int
    keys: int
    depth: int
    packed: int


class MergedSize:
    """Holds merged trees to limits. Sizes of layers are kept from one check to the next. Not thread-safe."""

    def __init__(self, limits: Limits, max_bytes: int) -> None:
        """max_bytes: the segment's own, which its packed tree has to fit."""
        self._limits = limits
        self._max_bytes = max_bytes
        self._known: dict[int, tuple[Mapping[Any, Any], Size]] = {}  # the tree is held, so that its identity stays its

    def check(self, layers: Sequence[Layer], tree: Mapping[Any, Any]) -> None:
        """Raises Invalid if `tree`, which the layers make, passes a limit."""
        sizes = self._of_layers(layers)
        if self._fits(_together(sizes)):  # merged, they are no more than laid side by side
            return
        merged = size_of(tree)
        if self._fits(merged):
            return
        fault = self._fault(merged)
        deepest = fault.code is Code.LIMIT_DEPTH
        index = max(range(len(layers)), key=lambda each: sizes[each].depth if deepest else sizes[each].packed)
        whose = "mounted, it is" if deepest else "merged, the configuration has"
        found = Fault(fault.code, f"{whose} {fault.message}", fault.hint)
        raise Invalid([found.at(layers[index].file)])

    def _of_layers(self, layers: Sequence[Layer]) -> list[Size]:
        """Of each layer with the maps that its mounting adds."""
        known, self._known = self._known, {}
        sizes: list[Size] = []
        for layer in layers:
            found = known.get(id(layer.tree)) or (layer.tree, size_of(layer.tree))
            self._known[id(layer.tree)] = found
            size, mount = found[1], layer.at
            packed = size.packed + sum(1 + len(str(key)) for key in mount)
            sizes.append(Size(size.nodes + 2 * len(mount), size.keys + len(mount), size.depth + len(mount), packed))
        return sizes

    def _fits(self, size: Size) -> bool:
        return (
            size.nodes <= self._limits.max_nodes
            and size.keys <= self._limits.max_keys
            and size.depth <= self._limits.max_depth
            and size.packed <= self._max_bytes
        )

    def _fault(self, size: Size) -> Fault:
        """Of the limit that is passed."""
        if size.depth > self._limits.max_depth:
            return self._limits.too_deep()
        if size.nodes > self._limits.max_nodes:
            return self._limits.too_many_nodes()
        if size.keys > self._limits.max_keys:
            return self._limits.too_many_keys()
        message = f"more bytes, packed and aliases expanded, than the segment's max_bytes = {self._max_bytes:,}"
        hint = f"raise it in [{self._limits.table.removesuffix('.limits')}] of the agent's file"
        return Fault(Code.LIMIT_PACKED_BYTES, message, hint if self._limits.table else None)


def size_of(tree: Mapping[Any, Any]) -> Size:
    """The size of a tree, which may share maps and lists with itself but not contain itself."""
    done: dict[int, Size] = {}
    waiting: list[Any] = [tree]
    while waiting:
        container = waiting[-1]
        if id(container) in done:
            waiting.pop()
            continue
        values = container.values() if isinstance(container, dict) else container
        inner = [value for value in values if type(value) is dict or type(value) is list]
        if unknown := [value for value in inner if id(value) not in done]:
            waiting += unknown
            continue
        waiting.pop()
        done[id(container)] = _size(container, [done[id(value)] for value in inner])
    return done[id(tree)]


def _size(container: Any, inner: Sequence[Size]) -> Size:
    """Of a map or list that holds maps and lists of these sizes."""
    entries = len(container)
    is_map = isinstance(container, dict)
    packed = entries - len(inner)  # a byte at least for each value, and for each container and key
    for value in container.values() if is_map else container:
        if type(value) is str or type(value) is bytes:
            packed += len(value)
    if is_map:
        packed += entries + sum(len(key) for key in container if type(key) is str)
    nodes, keys = 1 + entries * (2 if is_map else 1) - len(inner), entries if is_map else 0
    depth = 0
    for size in inner:
        nodes += size.nodes
        keys += size.keys
        packed += size.packed
        depth = max(depth, size.depth)
    return Size(nodes, keys, depth + 1, packed + 1)


def _together(sizes: Sequence[Size]) -> Size:
    return Size(
        sum(size.nodes for size in sizes),
        sum(size.keys for size in sizes),
        max((size.depth for size in sizes), default=1),
        sum(size.packed for size in sizes),
    )
