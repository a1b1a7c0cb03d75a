"""The files of the soak: what is written in them, in each format, valid and not, and what an independent reader makes
of it. Nothing of the agent is used here.

Each file has one map `data` with one entry for itself, and some of the keys of `shared`, over which the layers contend.
The entry carries the number of the edit, so that a published tree tells which edit of each file it shows; it has some
fields that depend on the number, so that no mixture of two edits looks like either. A text of the `flow` kind is one
line, of which no part but the whole is valid: what takes an unfinished file takes an error.
"""

from __future__ import annotations

import hashlib
import json
import random
import tomllib
from typing import Any

import yaml

Tree = dict[str, Any]
SUFFIXES = (".yaml", ".toml", ".json")
FIRST = 10_000_000  # the numbers of edits have eight digits, so that texts of the same size can be had


def tree_of(name: str, number: int, size: int, more: Tree | None = None) -> Tree:
    """What edit `number` of the file says: `size` characters of padding, and what its format can hold `more`."""
    digest = digest_of(name, number)
    entry: Tree = {
        "number": number,
        "pad": (digest * (size // 64 + 1))[: size + 1],
        "odd": number % 2 == 1,
        "list": [number, digest[:8], [number]],
        "deep": {"half": number + 0.5, "er": {"number": number}},
        "digest": digest,
        **(more or {}),
    }
    keys = random.Random(name).sample(range(12), 4)  # the same at each edit
    return {"data": {name: entry, "shared": {f"k{key}": f"{name}:{number}" for key in keys}}}


def digest_of(name: str, number: int) -> str:
    """Begins with a letter that no number has: YAML quotes what looks like one, and sizes have to be equal."""
    return "x" + hashlib.sha256(f"{name}:{number}".encode()).hexdigest()


def text_of(suffix: str, tree: Tree, *, flow: bool) -> bytes:
    """The tree as a file. flow: on one line, no part of which is valid."""
    if suffix == ".json":
        return json.dumps(tree, indent=None if flow else 1).encode()
    if suffix == ".toml":
        return "".join(f"{key} = {_inline(value)}\n" for key, value in tree.items()).encode()
    return yaml.safe_dump(tree, sort_keys=False, width=10**9, default_flow_style=flow).encode()


def parse(suffix: str, data: bytes) -> Tree:
    """What an independent reader makes of a file."""
    if suffix == ".json":
        tree = json.loads(data)
    elif suffix == ".toml":
        tree = tomllib.loads(data.decode())
    else:
        tree = yaml.safe_load(data)
    assert isinstance(tree, dict)
    return tree


def merge(layers: list[Tree]) -> Tree:
    """Later layers win; maps merge, all else is replaced; a key keeps its place."""
    merged: Tree = {}
    for layer in layers:
        _merge_into(merged, layer)
    return merged


def broken(suffix: str, text: bytes, chance: random.Random) -> bytes:
    """The text with a mistake for which it must be refused as a whole."""
    at_end = {
        ".json": (b"}", b",}", b' "more"', b"]"),
        ".toml": (b"data = 1\n", b"more = \n", b"[data]\n", b'more = "\n'),
        ".yaml": (b"\ndata: 1\n", b"\n[more\n", b"\nmore: *nowhere\n", b"\n\tmore: 1\n"),
    }
    return text.rstrip() + (b"" if suffix == ".json" else b"\n") + chance.choice(at_end[suffix])


def equal(left: Any, right: Any) -> bool:
    """Whether two trees are equal in values, types and order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


def _merge_into(below: Tree, above: Tree) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge_into(below[key], value)
        else:
            below[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value
