"""The quick way through YAML (`yaml_quick`) in C, on libyaml's own events instead of PyYAML's objects for them.

PyYAML makes four fifths of the time that it takes to read a text by making an object with two marks for each event. The
native module needs none of them: it calls the very libyaml that PyYAML's CParser calls, which is in PyYAML's extension
module or in a library that this is linked to. What it builds, and when it gives up, is what `yaml_quick` says, whose
functions do all that a text needs rarely. The layout of libyaml's events is the same in all its releases so far; others
are not taken, and neither is one by which a sample of everything comes out otherwise than by CParser.
"""

from __future__ import annotations

from typing import Any

from yaml.events import AliasEvent, ScalarEvent

from .. import native
from . import yaml_quick
from .limits import DEFAULT_LIMITS, Limits
from .yaml_quick import Trouble
from .yaml_scalars import FIRST_OF_RULED, MAP, SEQ, Misfit

__all__ = ["MISSING", "build", "is_there"]

_MOST = 2**62  # of a limit: what is counted in C is looked at before it has doubled
_ALL_RULED = not all(character.isascii() for character in FIRST_OF_RULED)  # of the first bytes beyond ASCII
_RULED = bytes(chr(first) in FIRST_OF_RULED if first < 128 else _ALL_RULED for first in range(256))


def _take_turns() -> None:
    """Nothing; but the interpreter lets other threads run and sees to signals where a function begins."""


_PARTS = (
    *(_RULED, MAP, SEQ, yaml_quick.MERGE_KEY, Trouble, yaml_quick.TooMuch, ScalarEvent, AliasEvent),
    *(yaml_quick.scalar_of, yaml_quick.follow, yaml_quick.begin_anchor, yaml_quick.end_anchor),
    *(yaml_quick.with_merged, _take_turns),
)
_SAMPLE = (
    b"a: &x {b: [1, 'c', \"d\", e\xc3\xa9], !!str f: ~, &y g: 1.5}\n"
    b"h: *x\ni: {<<: *x, b: *y}\n--- ! {}\n--- !!seq [2]\n"
)


def build(data: bytes, limits: Limits) -> list[Any]:
    """The tree of each document in `data`. Raises Trouble, also at a syntax error, and UnicodeError."""
    if native.module is None or _libyaml is None:
        raise Trouble
    most = (limits.max_nodes, limits.max_keys, limits.max_depth, limits.max_documents)
    try:
        return native.module.build(
            _libyaml, data, tuple(min(each, _MOST) for each in most), yaml_quick.PlainKeys(), yaml_quick.Plain(), _PARTS
        )
    except (Misfit, TypeError) as error:  # TypeError: of a key that cannot be one
        raise Trouble from error


def is_there() -> bool:
    """Whether `build` can be called."""
    return _libyaml is not None


def _find() -> tuple[object | None, str | None]:
    if native.module is None:
        return None, native.MISSING
    try:
        from yaml import _yaml

        return native.module.libyaml(_yaml.__file__), None
    except (ImportError, AttributeError) as error:
        return None, str(error)


#: Why there is nothing to build with, or None where there is.
MISSING: str | None
_libyaml, MISSING = _find()


def _differs() -> bool:
    from yaml import _yaml

    try:
        return repr(build(_SAMPLE, DEFAULT_LIMITS)) != repr(yaml_quick.build(_yaml.CParser(_SAMPLE), DEFAULT_LIMITS))
    except Trouble:
        return True


if _libyaml is not None and _differs():
    _libyaml, MISSING = None, "libyaml gives other events here than PyYAML's CParser"
