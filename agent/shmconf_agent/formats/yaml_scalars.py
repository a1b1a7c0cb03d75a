"""What a YAML scalar means: PyYAML's safe loader's reading, within the values that the format holds.

Tags, the rules by which a plain scalar gets one, and the conversions are PyYAML's own; this module only looks them up
and turns every way in which they fail into a ValueError whose text says what is wrong with the scalar.
"""

from __future__ import annotations

import re
from typing import Any

from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from shmconf.codec import INT_MAX, INT_MIN

PREFIX = "tag:yaml.org,2002:"
STR = PREFIX + "str"
INT = PREFIX + "int"
FLOAT = PREFIX + "float"
MAP = PREFIX + "map"
SEQ = PREFIX + "seq"
MERGE = PREFIX + "merge"
VALUE = PREFIX + "value"

OUT_OF_RANGE = "is beyond 64 bits (an integer is -2**63 to 2**64-1)"

_RULES: dict[str, list[tuple[str, Any]]] = Resolver.yaml_implicit_resolvers
_SAFE = SafeConstructor()
_CONSTRUCTORS: dict[str, Any] = {
    PREFIX + name: getattr(_SAFE, f"construct_yaml_{name}")
    for name in ("null", "bool", "int", "float", "binary", "timestamp", "str")
}
_REFUSED = {
    PREFIX + "set": "a set (!!set) cannot be a configuration value: write a list",
    PREFIX + "omap": "an ordered map (!!omap) cannot be a configuration value: plain maps keep their order",
    PREFIX + "pairs": "a list of pairs (!!pairs) cannot be a configuration value: write a list of lists",
}
_PLAIN_FLOAT = re.compile(r"-?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?", re.ASCII)
# The most digits that 64 bits can need, by base; longer texts are not converted, which would cost time without bound.
_MOST_DIGITS = {"0b": 64, "0x": 16, "0": 22}
_MOST_SEXAGESIMAL_PARTS = 11


def tag_of_plain(text: str) -> str:
    """The tag that a plain scalar without one gets from its text."""
    rules = _RULES.get(text[:1])
    if rules is not None:
        for tag, pattern in rules:
            if pattern.match(text):
                return tag
    return STR


def construct(tag: str, text: str) -> Any:
    """The value of a scalar. Raises ValueError with the reason if it has none or one outside the format."""
    if tag == STR:
        return text
    constructor = _CONSTRUCTORS.get(tag)
    if constructor is None:
        raise ValueError(refusal(tag) or f"{show_tag(tag)} does not fit a single value")
    if tag == INT:
        return _integer(text, constructor)
    if tag == FLOAT and _PLAIN_FLOAT.fullmatch(text):
        return float(text)  # what the constructor comes to, without its detours
    return _converted(tag, text, constructor)


def is_scalar_tag(tag: str) -> bool:
    """Whether `tag` is one of the scalar types."""
    return tag in _CONSTRUCTORS


def refusal(tag: str) -> str | None:
    """Why no value may have `tag`, or None if it is one of the core types."""
    if tag in _CONSTRUCTORS or tag in (MAP, SEQ):
        return None
    if tag in _REFUSED:
        return _REFUSED[tag]
    if tag in (MERGE, VALUE):
        return "'<<' and '=' have a meaning of their own in YAML: quote them where they are values"
    return f"unknown tag {show_tag(tag)}: only YAML's own types are read"


def show_tag(tag: str) -> str:
    """A tag as it is written in a document."""
    return "!!" + tag.removeprefix(PREFIX) if tag.startswith(PREFIX) else tag


def has_lone_surrogate(text: str) -> bool:
    """Whether `text` cannot be encoded: an escape can put half a character into a string."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def shorten(text: str) -> str:
    """`text` quoted for a message, cut to a readable length."""
    return repr(text if len(text) <= 60 else f"{text[:40]}…{text[-10:]}")


def _integer(text: str, constructor: Any) -> int:
    if text.isdecimal() and text.isascii() and text[0] != "0" and len(text) < 19:
        return int(text)
    if _too_long(text.replace("_", "").lstrip("+-")):
        raise ValueError(f"{shorten(text)} {OUT_OF_RANGE}")
    value = _converted(INT, text, constructor)
    if not INT_MIN <= value <= INT_MAX:
        raise ValueError(f"{shorten(text)} {OUT_OF_RANGE}")
    return int(value)


def _too_long(digits: str) -> bool:
    if ":" in digits:
        return digits.count(":") > _MOST_SEXAGESIMAL_PARTS
    for prefix, most in _MOST_DIGITS.items():
        if digits.startswith(prefix):
            return len(digits[len(prefix) :].lstrip("0")) > most
    return len(digits) > 20


def _converted(tag: str, text: str, constructor: Any) -> Any:
    try:
        return constructor(ScalarNode(tag, text))
    except ConstructorError as error:
        reason = error.problem
    except (KeyError, IndexError, AttributeError, TypeError):  # what PyYAML's conversions do to a text not theirs
        reason = None
    except (ValueError, OverflowError) as error:
        reason = str(error)
    kind = show_tag(tag)
    raise ValueError(f"{shorten(text)} is not a valid {kind}" + (f": {reason}" if reason else ""))
