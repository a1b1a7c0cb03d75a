"""What a YAML scalar means: PyYAML's safe loader's reading, within the values that the format holds.

Tags, the rules by which a plain scalar gets one, and the conversions are PyYAML's own; this module only looks them up
and turns every way in which they fail into a Misfit whose text says what is wrong with the scalar.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Any

from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from shmconf.codec import INT_MAX, INT_MIN

from ..problems import Code, Fault

PREFIX = "tag:yaml.org,2002:"
STR = PREFIX + "str"
INT = PREFIX + "int"
FLOAT = PREFIX + "float"
BOOL = PREFIX + "bool"
MAP = PREFIX + "map"
SEQ = PREFIX + "seq"
MERGE = PREFIX + "merge"
VALUE = PREFIX + "value"

MISPLACED = Fault(
    Code.YAML_MERGE, "'<<' and '=' have a meaning of their own in YAML: quote them where they are values"
)
OUT_OF_RANGE = "is beyond 64 bits (an integer is -2**63 to 2**64-1)"

_RULES: dict[str, list[tuple[str, Any]]] = Resolver.yaml_implicit_resolvers
FIRST_OF_RULED = frozenset(_RULES)
"""The first characters of plain scalars that may be something other than text; "" for an empty one."""
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
_KINDS = {
    BOOL: "a truth value",
    INT: "a number",
    FLOAT: "a number",
    PREFIX + "null": "null",
    PREFIX + "timestamp": "a date",
}
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
# What JSON and later versions of YAML take for a number, or a reader would.
_NUMBER_ELSEWHERE = re.compile(r"([-+]?)(?=\.?[0-9])([0-9]*)(?:(\.)([0-9]*))?(?:[eE]([-+]?)([0-9]+))?", re.ASCII)
_EXPONENT = re.compile("[eE]")
_LONGEST_SURPRISE = 60  # characters; what is longer is no number that anybody writes
_PLAIN_FLOAT = re.compile(r"-?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?", re.ASCII)
# The most digits that 64 bits can need, by base; longer texts are not converted, which would cost time without bound.
_MOST_DIGITS = {"0b": 64, "0x": 16, "0": 22}
_MOST_SEXAGESIMAL_PARTS = 11


class Misfit(ValueError):
    """A scalar has no value, or one outside the format; `fault` says why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(code, message)


def tag_of_plain(text: str) -> str:
    """The tag that a plain scalar without one gets from its text."""
    rules = _RULES.get(text[:1])
    if rules is not None:
        for tag, pattern in rules:
            if pattern.match(text):
                return tag
    return STR


def construct(tag: str, text: str) -> Any:
    """The value of a scalar. Raises Misfit with the reason if it has none or one outside the format."""
    if tag == STR:
        return text
    constructor = _CONSTRUCTORS.get(tag)
    if constructor is None:
        refused = refusal(tag) or Fault(Code.YAML_TAG, f"{show_tag(tag)} does not fit a single value")
        raise Misfit(refused.code, refused.message)
    if tag == INT:
        return _integer(text, constructor)
    if tag == FLOAT and _PLAIN_FLOAT.fullmatch(text):
        return float(text)  # what the constructor comes to, without its detours
    return _converted(tag, text, constructor)


def surprise(text: str) -> Fault | None:
    """What a plain scalar is, if YAML 1.1 reads it otherwise than whoever wrote it is likely to; else None."""
    if len(text) > _LONGEST_SURPRISE:
        return None
    tag = tag_of_plain(text)
    if tag == BOOL and text.lower() not in ("true", "false"):
        value = str(construct(tag, text)).lower()
        return Fault(Code.YAML_BOOL, f"{text} is {value} in YAML 1.1", f"write {value}, or quote it")
    if tag == STR and (number := _as_number(text)):
        code = Code.YAML_EXPONENT if _EXPONENT.search(text) else Code.YAML_OCTAL
        return Fault(code, f"{text} is text in YAML 1.1", f"write {number} for the number, or quote it")
    if tag not in (INT, FLOAT):
        return None
    try:
        number = construct(tag, text)
    except Misfit:  # an error, which is told elsewhere
        return None
    if ":" in text:
        message = f"{text} is {number} in YAML 1.1, a number to the base 60"
        return Fault(Code.YAML_SEXAGESIMAL, message, f"write {number}, or quote it")
    if _OCTAL.fullmatch(text) and int(text.replace("_", "")) != number:
        return Fault(Code.YAML_OCTAL, f"{text} is {number} in YAML 1.1, octal", f"write {number}, or quote it")
    return None


def hint_of_plain(text: str, wanted: AbstractSet[str]) -> str | None:
    """What to write instead of a plain scalar to have one of the JSON types `wanted`, if its spelling is to blame."""
    if len(text) > _LONGEST_SURPRISE:
        return None
    tag = tag_of_plain(text)
    if "string" in wanted and tag != STR:
        if not text:
            return "nothing is null in YAML: write '' for an empty text"
        return f"{text} is {_meaning(tag, text)}: quote it" if tag in _KINDS else None
    if tag == STR and not wanted.isdisjoint(("number", "integer")) and (number := _as_number(text)):
        return f"{text} is text in YAML 1.1: write {number} for the number"
    return None


def _meaning(tag: str, text: str) -> str:
    """What a plain scalar is, for a message: with its value where the spelling would not tell."""
    if tag == BOOL:
        return f"{str(construct(tag, text)).lower()} in YAML 1.1"
    if tag in (INT, FLOAT) and (":" in text or _OCTAL.fullmatch(text)):
        return f"the number {construct(tag, text)} in YAML 1.1"
    return f"{_KINDS[tag]} in YAML"


def _as_number(text: str) -> str | None:
    """How YAML 1.1 wants a number that it takes for text as it is, such as 1e3 or 08; None for any other text."""
    found = _NUMBER_ELSEWHERE.fullmatch(text)
    if found is None:
        return None
    sign, whole, point, fraction, exponent_sign, exponent = found.groups()
    whole = whole.lstrip("0") or "0"
    if point is None and exponent is None:
        return f"{sign}{whole}"
    power = f"e{exponent_sign or '+'}{exponent}" if exponent else ""
    return f"{sign}{whole}.{fraction or '0'}{power}"


def is_scalar_tag(tag: str) -> bool:
    """Whether `tag` is one of the scalar types."""
    return tag in _CONSTRUCTORS


def refusal(tag: str) -> Fault | None:
    """Why no value may have `tag`, or None if it is one of the core types."""
    if tag in _CONSTRUCTORS or tag in (MAP, SEQ):
        return None
    if tag in _REFUSED:
        return Fault(Code.YAML_TAG, _REFUSED[tag])
    if tag in (MERGE, VALUE):
        return MISPLACED
    return Fault(Code.YAML_TAG, f"unknown tag {show_tag(tag)}: only YAML's own types are read")


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
        raise Misfit(Code.NUMBER_RANGE, f"{shorten(text)} {OUT_OF_RANGE}")
    value = _converted(INT, text, constructor)
    if not INT_MIN <= value <= INT_MAX:
        raise Misfit(Code.NUMBER_RANGE, f"{shorten(text)} {OUT_OF_RANGE}")
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
    raise Misfit(Code.YAML_VALUE, f"{shorten(text)} is not a valid {kind}" + (f": {reason}" if reason else ""))
