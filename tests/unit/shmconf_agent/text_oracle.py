"""Holds what the formats make of a text to PyYAML, tomllib (for TOML 1.1 tomli) and json.

Where a format departs from its oracle is decided by rule from what the oracle found, never by what the format said.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import tomli
import yaml
from yaml_oracle import Oracle, PureOracle, departures, same

from shmconf_agent.formats import locate_many, parse_documents, surprises
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.problems import Code, Invalid

_DEEP = 60  # brackets and the like, from which on a text may pass the limit on depth
_LIMITS = {Code.LIMIT_DEPTH, Code.LIMIT_NODES, Code.LIMIT_KEYS, Code.LIMIT_DOCUMENTS}
# What the YAML reader may say where it looks at more than PyYAML does, or takes less (the builder's docstring); a map
# that stands for a scalar is none at the top, too.
_BEYOND_PYYAML = {Code.YAML_MERGE, Code.YAML_TAG, Code.YAML_KEY, Code.YAML_VALUE, Code.TOP_LEVEL}


class Verdict(Exception):
    """The format and its oracle are not of one mind."""


def check(data: bytes, file: str) -> bool:
    """Whether the oracle takes the text, if the format is of one mind with it. Raises Verdict, and whatever the format
    raises that is not Invalid."""
    try:
        trees = parse_documents(data, file=file)
    except Invalid as invalid:
        _require(bool(invalid.problems), "Invalid without a problem")
        found: list[Any] | set[Code] = {problem.code for problem in invalid.problems}
    else:
        _check_places(data, file, trees)
        found = trees
    oracle = {".yaml": _yaml, ".toml": _toml, ".json": _json}[file[file.rindex(".") :]]
    try:
        expected, reasons, unsure = oracle(data)
    except Exception as error:  # of whatever type: PyYAML's constructors raise many
        _require(isinstance(found, set), f"taken, but by the oracle refused: {error!r}")
        return False
    if isinstance(found, set):
        allowed = reasons | (_BEYOND_PYYAML if unsure else set())
        if re.search(rb"(?:[\[{?.-][^\[{?.-]*){%d}|\[{60}" % _DEEP, data) or len(data) > 10_000:
            allowed |= _LIMITS
        _require(found <= allowed, f"refused for {sorted(found)}, allowed are {sorted(allowed)}")
    else:
        _require(not reasons, f"taken, but it has {sorted(reasons)}")
        _require(same(found, expected), f"other values: {found!r}, by the oracle {expected!r}")
    return True


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Verdict(message)


def _yaml(data: bytes) -> tuple[list[Any], set[Code], bool]:
    loader = Oracle if yaml_format.HAS_LIBYAML else PureOracle
    trees = list(yaml.load_all(data, loader))
    return [{} if tree is None else tree for tree in trees] or [{}], *departures(data, loader)


def _toml(data: bytes) -> tuple[list[Any], set[Code], bool]:
    text = data.decode("utf-8-sig")
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        tree = tomli.loads(text)  # TOML 1.1 let more in, of which tomllib knows nothing before Python 3.15
    large = any(type(value) is int and not -(2**63) <= value < 2**64 for value in _leaves(tree))
    return [tree], {Code.NUMBER_RANGE} if large else set(), False


def _json(data: bytes) -> tuple[list[Any], set[Code], bool]:
    reasons: set[Code] = set()

    def to_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            reasons.add(Code.DUPLICATE_KEY)
        return dict(pairs)

    def to_float(text: str) -> float:
        if math.isinf(float(text)):
            reasons.add(Code.NUMBER_RANGE)
        return float(text)

    def to_int(text: str) -> int:
        if not -(2**63) <= int(text) < 2**64:
            reasons.add(Code.NUMBER_RANGE)
        return int(text)

    text = data.decode("utf-8-sig")
    if not text.strip(" \t\r\n"):
        return [{}], reasons, False
    tree = json.loads(text, object_pairs_hook=to_map, parse_float=to_float, parse_int=to_int)
    if not isinstance(tree, dict):
        reasons.add(Code.TOP_LEVEL)
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        reasons.add(Code.HALF_CHARACTER)
    # A number or half a pair whose key is set again is gone before anybody can see it.
    return [tree], reasons, False


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(each)
    else:
        yield tree


def _check_places(data: bytes, file: str, trees: list[Any]) -> None:
    """Every path has a place, and every surprise can be told."""
    surprises(data, file=file)
    for document, tree in enumerate(trees):
        paths = list(_paths(tree))[:2_000]
        places = locate_many(data, paths, file=file, document=document)
        _require(None not in places, "a path without a place")


def _paths(tree: Any) -> Iterator[tuple[Any, ...]]:
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(tree, ())]
    while waiting:
        value, path = waiting.pop()
        yield path
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [(each, (*path, part)) for part, each in entries]
