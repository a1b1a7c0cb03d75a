from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.problems import Invalid
from shmconf_agent.schema_view import view
from shmconf_agent.validate import BadSchema, Schema

Check = Callable[[Any, Any], list[tuple[tuple[Any, ...], str]]]


def told(schema: Schema, tree: Any) -> list[tuple[tuple[Any, ...], str]]:
    """Each violation's path and words."""
    return [(each.path, str(each.fault)) for each in schema.problems(tree)]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(schema: Any, tree: Any) -> list[tuple[tuple[Any, ...], str]]:
        file = tmp_path / "schema.json"
        file.write_text(json.dumps(schema))
        return told(Schema.load(file), tree)

    return run


def refused(file: Path) -> list[str]:
    with pytest.raises(BadSchema) as caught:
        Schema.load(file, shown=file.name)
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_tree_has_no_problems(check: Check) -> None:
    schema = {"type": "object", "properties": {"port": {"type": "integer"}}, "required": ["port"]}
    assert check(schema, {"port": 80, "more": [1.5, None, True, "x"]}) == []


def test_every_violation_is_listed_in_the_order_of_the_tree(check: Check) -> None:
    schema = {
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "a": {"type": "integer"},
            "hosts": {"items": {"type": "string"}},
            "pool": {"properties": {"size": {"maximum": 10}}, "required": ["timeout"]},
        },
    }
    tree = {"pool": {"size": 11}, "zzz": 1, "hosts": ["h", 7, "h", 8], "a": "one"}
    assert check(schema, tree) == [
        ((), "the required key 'name' is missing"),
        (("pool",), "the required key 'timeout' is missing"),
        (("pool", "size"), "11 is more than the maximum of 10"),
        (("zzz",), "unknown key 'zzz'"),
        (("hosts", 1), "7 is not of type string"),
        (("hosts", 3), "8 is not of type string"),
        (("a",), '"one" is not of type integer'),
    ]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": ["integer", "null"]}, "x", '"x" is not of type null or integer'),
        ({"type": "string"}, {"a": 1}, "a map of 1 key is not of type string"),
        ({"type": "string"}, [1, 2], "a list of 2 items is not of type string"),
        ({"type": "integer"}, b"abc", "binary of 3 bytes is not of type integer"),
        ({"type": "integer"}, date(2024, 2, 29), "2024-02-29 is not of type integer"),
        ({"type": "number"}, True, "true is not of type number"),
        (
            {"enum": ["debug", "info"]},
            "Debg",
            '"Debg" is not one of "debug", "info"; did you mean \'debug\'?',
        ),
        ({"enum": list(range(20))}, 21, "21 is not one of 0, 1, 2, 3, 4, 5, 6, 7, 12 more"),
        ({"const": 3}, 4, "4 is not 3"),
        ({"minimum": 3}, 2, "2 is less than the minimum of 3"),
        ({"exclusiveMinimum": 3}, 3, "3 is not more than 3"),
        ({"exclusiveMaximum": 3}, 3, "3 is not less than 3"),
        (
            {"maximum": 2**63},
            2**64 - 1,
            "18446744073709551615 is more than the maximum of 9223372036854775808",
        ),
        ({"multipleOf": 2}, 3, "3 is not a multiple of 2"),
        ({"minLength": 3}, "ab", '"ab" is shorter than 3 characters'),
        ({"maxLength": 1}, "ab", '"ab" is longer than 1 character'),
        ({"minItems": 2}, [1], "a list of 1 item is too short: 2 at least"),
        ({"maxItems": 0}, [1], "a list of 1 item is too long: 0 at most"),
        ({"minProperties": 1}, {}, "a map of 0 keys has too few: 1 at least"),
        ({"maxProperties": 0}, {"a": 1}, "a map of 1 key has too many: 0 at most"),
        ({"pattern": "^x"}, "y", '"y" does not match the pattern ^x'),
        ({"format": "ipv4"}, "10.0.0", "\"10.0.0\" is not a valid 'ipv4'"),
        ({"uniqueItems": True}, [1, 1], "a list of 2 items where all must differ: two are equal"),
        (False, 1, "1 is not allowed here"),
        ({"not": {"type": "string"}}, "x", '"x" is what the schema rules out (not)'),
        (
            {"contains": {"const": 1}},
            [2],
            "a list of 1 item does not hold the items that the schema asks for (contains)",
        ),
    ],
)
def test_what_is_said(check: Check, schema: Any, value: Any, message: str) -> None:
    assert check({"properties": {"v": schema}}, {"v": value}) == [(("v",), message)]


def test_unknown_keys_have_a_line_each_and_a_hint(check: Check) -> None:
    schema = {
        "properties": {"db": {"$ref": "#/$defs/db"}},
        "$defs": {"db": {"properties": {"pool": {}, "host": {}}, "additionalProperties": False}},
    }
    assert check(schema, {"db": {"pol": 1, "qwerty": 2}}) == [
        (("db", "pol"), "unknown key 'pol'; did you mean 'pool'?"),
        (("db", "qwerty"), "unknown key 'qwerty'"),
    ]
    assert check({"unevaluatedProperties": False}, {"a": 1, "b": 2}) == [
        (("a",), "unknown key 'a'"),
        (("b",), "unknown key 'b'"),
    ]
    closed = {"properties": {"empty": {"additionalProperties": False}}}
    assert check(closed, {"empty": {"a": 1, 2: 2}}) == [
        (("empty", "a"), "unknown key 'a'"),
        (("empty", 2), "unknown key '2'"),
    ]


def test_a_key_of_the_wrong_form_is_pointed_at(check: Check) -> None:
    assert check({"propertyNames": {"pattern": "^[a-z]+$"}}, {"ok": 1, "N0": 2}) == [
        (("N0",), 'not a key that is allowed here: "N0" does not match the pattern ^[a-z]+$')
    ]


def test_of_alternatives_the_one_that_was_meant_speaks(check: Check) -> None:
    listen = {
        "oneOf": [
            {"type": "string"},
            {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}},
        ]
    }
    schema = {"properties": {"listen": listen}}
    assert check(schema, {"listen": {"port": "80"}}) == [(("listen", "port"), '"80" is not of type integer')]
    [(path, message)] = check(schema, {"listen": 3})
    assert path == ("listen",)
    assert message == (
        "fits none of the schema's alternatives (oneOf): 3 is not of type string; 3 is not of type object"
    )
    both = {"properties": {"v": {"oneOf": [{"minimum": 1}, {"maximum": 5}]}}}
    assert check(both, {"v": 3}) == [(("v",), "3 fits more than one of the schema's alternatives (oneOf)")]


def test_a_huge_value_is_never_printed_whole(check: Check) -> None:
    huge = "x" * 2_000_000
    schema = {
        "properties": {
            "text": {"type": "integer"},
            "match": {"pattern": "^y"},
            "inside": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "list": {"contains": {"const": 1}},
        },
        "additionalProperties": False,
    }
    tree = {"text": huge, "match": huge, "inside": huge, "list": [huge], huge: 1}
    found = check(schema, tree)
    assert len(found) == 5
    assert max(len(message) for _, message in found) < 400


def test_what_json_does_not_know_is_seen_as_text(check: Check) -> None:
    schema = {
        "properties": {
            "day": {"type": "string", "format": "date"},
            "at": {"format": "date-time", "pattern": "^2024-02-29T12:00:00"},
            "noon": {"const": "12:00:00"},
            "key": {"const": "aGVsbG8="},
        },
        "patternProperties": {"^[0-9]+$": {"type": "string"}, "^(true|null)$": {"type": "array"}},
    }
    good = {
        "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, 12, tzinfo=UTC),
        "noon": time(12),
        "key": b"hello",
        1: "one",
        None: [],
    }
    assert check(schema, good) == []
    assert check(schema, {"day": "29.2.2024"}) == [(("day",), "\"29.2.2024\" is not a valid 'date'")]
    assert check(schema, {8080: 5, None: {"x": 1}, True: b""}) == [
        ((8080,), "5 is not of type string"),
        ((None,), "a map of 1 key is not of type array"),
        ((True,), "binary of 0 bytes is not of type array"),
    ]
    assert check({"properties": {"1": {"items": {"required": ["x"]}}}}, {1: [{2.5: date.min}]}) == [
        ((1, 0), "the required key 'x' is missing")
    ]


def test_keys_that_a_schema_cannot_tell_apart_are_refused(check: Check) -> None:
    assert check({}, {"m": {1: "a", "1": "b", 2: "c"}}) == [
        (("m", 1), "a schema cannot tell this key from '1' beside it; rename one of them")
    ]


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_are_numbers_beyond_every_limit(check: Check, value: float) -> None:
    def accepted(schema: Any) -> bool:
        return not check({"properties": {"v": schema}}, {"v": value})

    assert accepted({"type": "number"})
    assert accepted({})
    assert accepted({"maximum": 1.7e308}) == (value < 0)
    assert accepted({"minimum": -1.7e308}) == (value > 0)
    assert not accepted({"type": "integer"})
    assert not accepted({"type": ["null", "string"]})
    assert not accepted({"multipleOf": 1})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"type": "null"},
        {"type": "string"},
        {"type": ["null", "string"]},
        {"type": ["number", "null"]},
        {"minimum": 0},
        {"maximum": 0},
        {"const": None},
        {"minLength": 5},
    ],
)
def test_nan_passes_no_schema_that_asks_for_anything(check: Check, schema: Any) -> None:
    assert check({"properties": {"a": {"items": schema}}}, {"a": [math.nan]})[0][0] == ("a", 0)
    assert check({"properties": {"b": schema}}, {"a": [math.nan]}) == []


def test_a_tree_of_json_types_is_seen_as_it_is() -> None:
    tree = {"a": [1, 2.5, {"b": None}], "c": {"d": True}}
    assert view(tree).seen is tree
    changed = view({"a": tree, "day": date(2024, 1, 1)}).seen
    assert changed == {"a": tree, "day": "2024-01-01"}
    assert changed["a"] is tree


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes()
    | st.times()
)
KEYS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.dates() | st.floats(allow_nan=False)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def nothing_allowed(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    file = tmp_path_factory.mktemp("schema") / "schema.json"
    anything = {"type": ["object", "array"], "additionalProperties": {"$ref": "#"}, "items": {"$ref": "#"}}
    file.write_text(json.dumps(anything))
    return Schema.load(file)


@given(TREES)
def test_every_path_is_one_of_the_real_tree(nothing_allowed: Schema, tree: dict[Any, Any]) -> None:
    def scalars(node: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if isinstance(node, dict):
            return [leaf for key, item in node.items() for leaf in scalars(item, (*path, key))]
        if isinstance(node, list):
            return [leaf for index, item in enumerate(node) for leaf in scalars(item, (*path, index))]
        return [path]

    clashing = {clash.path for clash in view(tree).clashes}
    found = [each.path for each in nothing_allowed.problems(tree)]
    if clashing:
        assert clashing <= set(found)
    else:
        assert found == scalars(tree, ())


def test_keys_that_the_engine_spells_otherwise_are_found(check: Check) -> None:
    closed = {"type": ["object", "array"], "additionalProperties": {"$ref": "#"}, "items": {"$ref": "#"}}
    tree = {
        "8080": 1,
        "007": 2,
        "7": 3,
        "": 4,
        "p": {"": {"": {"+7": 5}}, "0": [6]},
        "a/b": 7,
        "~1": 8,
        9: {"09": 9},
    }
    assert check(closed, tree) == [
        (path, f"{number} is not of type array or object")
        for number, path in enumerate(
            [
                ("8080",),
                ("007",),
                ("7",),
                ("",),
                ("p", "", "", "+7"),
                ("p", "0", 0),
                ("a/b",),
                ("~1",),
                (9, "09"),
            ],
            start=1,
        )
    ]


def test_a_deep_tree_is_validated(check: Check) -> None:
    tree: Any = {"leaf": date(2024, 1, 1)}
    for _ in range(100):
        tree = {"in": [tree]}
    assert check({"type": "object"}, tree) == []


def test_a_schema_may_be_yaml_or_toml(tmp_path: Path) -> None:
    yaml = tmp_path / "schema.yaml"
    yaml.write_text("properties:\n  day: {const: 2024-02-29}\n  port: {type: integer}\n")
    assert told(Schema.load(yaml), {"day": date(2024, 2, 29), "port": "x"}) == [
        (("port",), '"x" is not of type integer')
    ]
    toml = tmp_path / "schema.toml"
    toml.write_text('[properties.port]\ntype = "integer"\n')
    assert Schema.load(toml).problems({"port": 1}) == []


def test_the_older_dialects_are_known(check: Check) -> None:
    old = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"p": {"type": "integer"}},
        "properties": {"port": {"$ref": "#/definitions/p"}},
    }
    assert check(old, {"port": "x"}) == [(("port",), '"x" is not of type integer')]


def test_a_schema_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    assert refused(file) == ["schema.json: cannot read the schema: No such file or directory"]
    file.write_text('{"type": "object",\n')
    [message] = refused(file)
    assert message.startswith("schema.json:2:1: ")
    other = tmp_path / "schema.xsd"
    other.write_text("<x/>")
    assert "the known suffixes are" in refused(other)[0]


def test_a_schema_that_is_none_is_told_with_every_place(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{\n  "required": "name",\n  "properties": {\n    "a": {"minimum": "x"}\n  }\n}\n')
    assert refused(file) == [
        'schema.json:2:3: not a valid JSON Schema: required: "name" is not of type array',
        'schema.json:4:11: not a valid JSON Schema: properties.a.minimum: "x" is not of type number',
    ]
    file.write_text('{"properties": {\n  "a": {"pattern": "("}}}')
    assert refused(file) == [
        "schema.json:2:9: not a valid JSON Schema: properties.a.pattern: \"(\" is not a valid 'regex'"
    ]
    file.write_text('{"$schema": "https://example.com/mine"}')
    [message] = refused(file)
    assert message.startswith("schema.json:1:2: an unknown dialect of JSON Schema")


def test_a_schema_may_refer_to_files_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "my schema.json"
    file.write_text(
        '{"properties": {"port": {"$ref": "parts/net.yaml#/$defs/port"}, "x": {"$ref": "#/$defs/x"}},'
        ' "$defs": {"x": {"type": "null"}}}'
    )
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "net.yaml").write_text(
        "$defs:\n  port: {properties: {number: {$ref: 'more.json'}}, additionalProperties: false}\n"
    )
    (parts / "more.json").write_text('{"type": "integer"}')
    schema = Schema.load(file)
    assert told(schema, {"port": {"number": "x", "nmber": 1}, "x": 1}) == [
        (("port", "number"), '"x" is not of type integer'),
        (("port", "nmber"), "unknown key 'nmber'; did you mean 'number'?"),
        (("x",), "1 is not of type null"),
    ]
    assert sorted(schema.files) == sorted([file, parts / "net.yaml", parts / "more.json"])


def test_every_broken_reference_is_told(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(
        """{"properties": {
  "a": {"$ref": "missing.json"},
  "b": {"$ref": "#/$defs/gone"},
  "c": {"$ref": "bad.json"},
  "d": {"$ref": "#/$defs/there"}},
  "$defs": {"there": true}}"""
    )
    (tmp_path / "bad.json").write_text("{,}")
    found = refused(file)
    assert [message.partition(": ")[0] for message in found] == [
        "bad.json:1:2",
        "missing.json",
        "schema.json:2:9",
        "schema.json:3:9",
        "schema.json:4:9",
    ]
    assert found[2] == "schema.json:2:9: it refers to 'missing.json', which cannot be used"
    assert found[3] == "schema.json:3:9: it refers to '#/$defs/gone', and there is no such place"
    with pytest.raises(BadSchema) as caught:
        Schema.load(file)
    assert {path.name for path in caught.value.files} == {"schema.json", "missing.json", "bad.json"}


@pytest.mark.parametrize("by_id", [False, True])
def test_nothing_is_fetched_over_a_network(tmp_path: Path, by_id: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        schema: dict[str, Any] = {"properties": {"a": {"$ref": "other.json" if by_id else url + "other.json"}}}
        if by_id:
            schema["$id"] = url + "schema.json"
        file = tmp_path / "schema.json"
        file.write_text(json.dumps(schema))
        (tmp_path / "other.json").write_text("{}")
        [message] = refused(file)
        assert f"which is {url}other.json; nothing is fetched over a network" in message or url in message
        assert message.startswith("schema.json:1:")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_reference_may_name_the_document_by_its_id(check: Check) -> None:
    schema = {
        "$id": "https://example.com/shop.json",
        "properties": {"port": {"$ref": "https://example.com/shop.json#/$defs/port"}},
        "$defs": {"port": {"type": "integer"}},
    }
    assert check(schema, {"port": "x"}) == [(("port",), '"x" is not of type integer')]


def test_bad_schema_is_invalid() -> None:
    assert issubclass(BadSchema, Invalid)


def test_what_a_schema_refers_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    file = tmp_path / "schema.json"
    file.write_text('{"properties": {"a": {"$ref": "pipe.json"}, "b": {"$ref": "device.json"}}}')
    told = refused(file)
    advice = "put a file in its place or take it out of the sources"
    assert f"pipe.json: cannot read the schema: is a named pipe, not a regular file; {advice}" in told
    assert f"device.json: cannot read the schema: is a device, not a regular file; {advice}" in told
