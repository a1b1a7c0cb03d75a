"""What the YAML reader is held to: PyYAML's safe loaders, and where the format departs from them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import yaml

from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.problems import Code


def same(left: Any, right: Any) -> bool:
    """Equal in value and type throughout, in the order of maps too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, datetime):
        return bool(left == right) and left.utcoffset() == right.utcoffset()
    return bool(left == right)


class MergesAsSpecified:
    """Gives PyYAML's safe loaders the merges of YAML's specification, which were PyYAML's own through 6.0.3.

    PyYAML 6.0.4 knows merged keys again by the identity of their text, which makes the last listed map win, or the
    first where CPython happens to keep the text only once.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        own, merged, node.value = node.value, [], []
        for key, value in own:
            if key.tag != "tag:yaml.org,2002:merge":
                if key.tag == "tag:yaml.org,2002:value":
                    key.tag = "tag:yaml.org,2002:str"
                node.value.append((key, value))
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):  # the pair that comes last wins, and so the map that is listed first
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(problem="no map to merge", problem_mark=source.start_mark)
                self.flatten_mapping(source)
                merged += source.value
        node.value = merged + node.value


class PureOracle(MergesAsSpecified, yaml.SafeLoader):
    pass


if yaml_format.HAS_LIBYAML:

    class Oracle(MergesAsSpecified, yaml.CSafeLoader):
        pass

else:
    Oracle = PureOracle


def departures(data: bytes, loader: Any) -> tuple[set[Code], bool]:
    """The documented reasons for which the format does not hold what the oracle `loader` takes, and whether there may
    be others: an anchored key `=` that is a value elsewhere, a merged map of another tag, or a map with a key `=` that
    stands for a scalar, beside which the oracle looks at nothing.
    """
    found: set[Code] = set()
    unsure = False
    for root in yaml.compose_all(data, loader):
        if not isinstance(root, yaml.MappingNode) and not (root.tag.endswith(":null") and root.value == ""):
            found.add(Code.TOP_LEVEL)
        for node, above in _nodes(root):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            if kind in ("set", "omap", "pairs"):
                found.add(Code.YAML_TAG)
            if id(node) in above:
                found.add(Code.YAML_ALIAS)
            elif isinstance(node, yaml.ScalarNode):
                if kind == "int" and not -(2**63) <= _constructed(node) < 2**64:
                    found.add(Code.NUMBER_RANGE)
                if any("\ud800" <= character <= "\udfff" for character in node.value):
                    found.add(Code.HALF_CHARACTER)
                unsure = unsure or kind == "value"
            elif isinstance(node, yaml.MappingNode):
                own = [_constructed(key) for key, _ in node.value if not key.tag.endswith(":merge")]
                if len(set(own)) < len(own):
                    found.add(Code.DUPLICATE_KEY)
                unsure = unsure or kind not in ("map", "set")
            else:
                unsure = unsure or kind not in ("seq", "omap", "pairs")
    return found, unsure


def _nodes(root: yaml.Node) -> Iterator[tuple[yaml.Node, set[int]]]:
    """Every node once, and each again that stands in itself, with the identities of what it stands in."""
    seen: set[int] = set()
    waiting: list[tuple[yaml.Node, frozenset[int]]] = [(root, frozenset())]
    while waiting:
        node, above = waiting.pop()
        if id(node) in seen and id(node) not in above:
            continue
        yield node, set(above)
        if id(node) in above:
            continue
        seen.add(id(node))
        inner = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            waiting += [(each, inner) for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(each, inner) for each in node.value]


def _constructed(node: yaml.Node) -> Any:
    if node.tag == "tag:yaml.org,2002:value":
        return "="
    return yaml.constructor.SafeConstructor().construct_document(node)
