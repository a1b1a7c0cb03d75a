"""One violation of a JSON Schema, put into words: short, with the value named but never printed whole.

The engine's own messages print the value as JSON, whatever its size, and gather unknown keys into one
sentence. Here each key has a line of its own, and of alternatives (`anyOf`, `oneOf`) the one that was meant
speaks.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, time
from typing import Any, NamedTuple

from jsonschema_rs import ValidationError

from shmconf.paths import MISSING, format_path, look_up

from .nearest import suggestion
from .problems import Code, Fault, Path
from .schema_view import View, key_text, real_key, real_path

_LONGEST = 80
_MOST_CHOICES = 8
_MOST_ALTERNATIVES = 3

_CODES = {
    "type": Code.SCHEMA_TYPE,
    "required": Code.SCHEMA_REQUIRED,
    "enum": Code.SCHEMA_CHOICE,
    "const": Code.SCHEMA_CHOICE,
    "pattern": Code.SCHEMA_PATTERN,
    "format": Code.SCHEMA_FORMAT,
    **dict.fromkeys(
        ("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf"), Code.SCHEMA_RANGE
    ),
    **dict.fromkeys(
        ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), Code.SCHEMA_SIZE
    ),
}


class Violation(NamedTuple):
    """What is wrong with the value at `path`; `wanted`: the types (`string`, `number`, ...) that would be right, where
    it is the type that is wrong."""

    path: Path
    fault: Fault
    wanted: frozenset[str] = frozenset()


KnownKeys = Callable[[ValidationError], list[str]]


def describe(error: ValidationError, shown: View, known_keys: KnownKeys) -> Iterator[Violation]:
    """`error` as one or several violations with their paths in the real tree. `known_keys` serves "did you mean"."""
    facts = error.kind.as_dict()
    path = real_path(shown, error.instance_path, lambda: error.instance)
    match error.kind.name:
        case "additionalProperties" | "unevaluatedProperties":
            known = known_keys(error)
            for key in facts["unexpected"]:
                yield Violation(_below(shown, path, key), _unknown(key, known))
        case "propertyNames":
            name = facts["error"].instance
            fault = Fault(Code.SCHEMA_KEY_NAME, _bad_name(name, facts["error"]))
            yield Violation(_below(shown, path, name), fault)
        case "anyOf" | "oneOf" if "context" in facts and not _several_fit(facts["context"]):
            yield from _alternatives(error, path, facts["context"], shown, known_keys)
        case keyword:
            value = look_up(shown.real, path)
            if keyword == "falseSchema" and isinstance(value, dict) and _is_about_keys(error):
                yield from (Violation((*path, key), _unknown(key_text(key), [])) for key in value)
            else:
                fault = Fault(_CODES.get(keyword, Code.SCHEMA_RULE), _sentence(keyword, facts, value, error))
                if keyword == "enum" and isinstance(value, str):
                    texts = [option for option in facts["options"] if isinstance(option, str)]
                    fault = dataclasses.replace(fault, hint=suggestion(value, texts))
                yield Violation(path, fault, _wanted(keyword, facts))


def show(value: Any) -> str:
    """A value in about 80 characters: scalars as JSON or YAML would write them, containers by their size."""
    if value is MISSING:
        return "the value"
    if isinstance(value, dict):
        return f"a map of {_count(len(value), 'key')}"
    if isinstance(value, list):
        return f"a list of {_count(len(value), 'item')}"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…", ensure_ascii=False)
    if isinstance(value, bytes):
        return f"binary of {_count(len(value), 'byte')}"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _cut(json.dumps(value, default=str))


def _sentence(keyword: str, facts: dict[str, Any], value: Any, error: ValidationError) -> str:
    shown = show(value)
    limit = facts.get("limit")
    match keyword:
        case "type":
            return f"{shown} is not of type {' or '.join(facts['types'])}"
        case "required":
            return f"the required key {facts['property']!r} is missing"
        case "enum":
            return _not_a_choice(shown, facts["options"])
        case "const":
            return f"{shown} is not {show(facts['expected_value'])}"
        case "maximum":
            return f"{shown} is more than the maximum of {limit}"
        case "minimum":
            return f"{shown} is less than the minimum of {limit}"
        case "exclusiveMaximum":
            return f"{shown} is not less than {limit}"
        case "exclusiveMinimum":
            return f"{shown} is not more than {limit}"
        case "multipleOf":
            return f"{shown} is not a multiple of {facts['multiple_of']}"
        case "maxLength":
            return f"{shown} is longer than {_count(facts['limit'], 'character')}"
        case "minLength":
            return f"{shown} is shorter than {_count(facts['limit'], 'character')}"
        case "maxItems":
            return f"{shown} is too long: {limit} at most"
        case "minItems":
            return f"{shown} is too short: {limit} at least"
        case "maxProperties":
            return f"{shown} has too many: {limit} at most"
        case "minProperties":
            return f"{shown} has too few: {limit} at least"
        case "pattern":
            return f"{shown} does not match the pattern {_cut(facts['pattern'])}"
        case "format":
            return f"{shown} is not a valid {facts['format']!r}"
        case "uniqueItems":
            return f"{shown} where all must differ: two are equal"
        case "contains":
            return f"{shown} does not hold the items that the schema asks for ({error.schema_path[-1]})"
        case "falseSchema":
            return f"{shown} is not allowed here"
        case "not":
            return f"{shown} is what the schema rules out (not)"
        case "oneOf":
            return f"{shown} fits more than one of the schema's alternatives (oneOf)"
    return _cut(error.message, 3 * _LONGEST)


def _not_a_choice(shown: str, options: list[Any]) -> str:
    choices = [show(option) for option in options[:_MOST_CHOICES]]
    if len(options) > _MOST_CHOICES:
        choices.append(f"{len(options) - _MOST_CHOICES} more")
    return f"{shown} is not one of {', '.join(choices)}"


def _wanted(keyword: str, facts: dict[str, Any]) -> frozenset[str]:
    match keyword:
        case "type":
            return frozenset(facts["types"])
        case "enum":
            return frozenset({"string"} if any(isinstance(option, str) for option in facts["options"]) else ())
        case "const":
            return frozenset({"string"} if isinstance(facts["expected_value"], str) else ())
    return frozenset()


def _below(shown: View, path: Path, text: str) -> Path:
    return *path, real_key(look_up(shown.real, path, {}), text)


def _unknown(key: str, known: list[str]) -> Fault:
    return Fault(Code.SCHEMA_UNKNOWN_KEY, f"unknown key {_cut(key)!r}", suggestion(key, known))


def _bad_name(name: Any, error: ValidationError) -> str:
    facts = error.kind.as_dict()
    return f"not a key that is allowed here: {_sentence(error.kind.name, facts, name, error)}"


def _alternatives(
    error: ValidationError,
    path: Path,
    branches: list[list[ValidationError]],
    shown: View,
    known_keys: KnownKeys,
) -> Iterator[Violation]:
    """The violations of the only alternative for this kind of value; otherwise a summary of them all."""
    meant = [branch for branch in branches if branch and not any(_other_kind(inner, error) for inner in branch)]
    if len(meant) == 1:
        for inner in meant[0]:
            yield from describe(inner, shown, known_keys)
        return
    reasons: list[str] = []
    for branch in branches[:_MOST_ALTERNATIVES]:
        for each in (each for inner in branch[:1] for each in describe(inner, shown, known_keys)):
            below = each.path[len(path) :]
            reasons.append(f"{format_path(below)}: {each.fault}" if below else str(each.fault))
    if len(branches) > _MOST_ALTERNATIVES:
        reasons.append(f"and {len(branches) - _MOST_ALTERNATIVES} more")
    summary = "; ".join(dict.fromkeys(reasons))
    message = f"fits none of the schema's alternatives ({error.kind.name}): {summary}"
    yield Violation(path, Fault(Code.SCHEMA_ALTERNATIVES, message))


def _other_kind(inner: ValidationError, outer: ValidationError) -> bool:
    return inner.kind.name in ("type", "const", "enum") and inner.instance_path == outer.instance_path


def _is_about_keys(error: ValidationError) -> bool:
    """Whether `false` stands for `additionalProperties: false` of a map without named keys: the engine's short cut."""
    keyword = ["additionalProperties"]
    return error.schema_path[-1:] == keyword and error.instance_path[-1:] != keyword


def _several_fit(branches: list[list[ValidationError]]) -> bool:
    return sum(not branch for branch in branches) > 1


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
