"""Every value of the three formats comes back through the agent equal and of the same type; what cannot is refused."""

from __future__ import annotations

import json
import math
import tomllib
from datetime import date, datetime, time
from typing import Any

import pytest

YAML = """
nested: {a: {b: {c: [1, [2, [3, {d: []}]]]}}}
empty map: {}
empty list: []
unicode: "Grüße, 世界 🌍, \\u00e9 \\0 end"
control: "tab\\t newline\\n"
multi: |
  two
  lines
integers: [0, -1, 127, 128, 65536, 4294967296, -9223372036854775808, 9223372036854775807, 18446744073709551615]
floats: [0.0, -0.0, 1.5, 1.0e+300, .inf, -.inf, .nan, 5.0e-324]
booleans: [true, false, yes, no]
nothing: null
tilde: ~
binary: !!binary AAECAwT/
date: 2024-02-29
local: 2024-02-29 12:30:45.123456
utc: 2024-02-29T12:30:45Z
offset: 2024-02-29T12:30:45+02:30
before: 1500-01-01
keys:
  3: integer
  -7: negative
  1.5: float
  true: boolean
  null: nothing
  2024-02-29: date
  2024-02-29T12:30:45Z: date-time
  !!binary AAE=: bytes
  text: text
  "": empty
  "1": the text 1
anchor: &a {x: 1, y: [2]}
alias: *a
merged: {<<: *a, y: 3}
sexagesimal: 12:34:56
octal: 010
long: "%s"
""" % ("x" * 70_000)

TOML = """
integers = [0, -9223372036854775808, 9223372036854775807, 0xff, 0o17, 0b11, 1_000]
floats = [1.0, -0.0, 1e300, inf, -inf, nan]
booleans = [true, false]
date = 2024-02-29
time = 12:30:45.123456
local = 2024-02-29T12:30:45.5
offset = 2024-02-29T12:30:45-07:00
utc = 2024-02-29T12:30:45Z
text = "Grüße \\U0001F30D"
literal = 'C:\\no\\escape'
multi = '''
two
lines'''
mixed = [1, "a", [true], {b = 1}]
"quoted.key" = 1
"" = "empty"
[empty]
[[tables]]
a = 1
[[tables]]
b.c.d = 2
"""

JSON = """
{"integers": [0, -1, 9223372036854775807, 18446744073709551615, -9223372036854775808],
 "floats": [1.0, -0.0, 1e300, 5e-324, 1E2], "booleans": [true, false], "nothing": null, "": {}, "list": [[], [{}]],
 "text": "Gr\\u00fc\\u00dfe \\ud83c\\udf0d \\u0000 end", "1": "text", "nested": {"a": {"b": {"c": {}}}}}
"""


def same(found: Any, expected: Any) -> bool:
    """Equal and of equal type, all the way down, in the same order; nan equals nan, and 0.0 is not -0.0."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return len(found) == len(expected) and all(map(same, found.items(), expected.items()))
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        equal = found == expected or (math.isnan(found) and math.isnan(expected))
        return equal and math.copysign(1, found) == math.copysign(1, expected)
    if isinstance(expected, datetime):
        return found == expected and found.utcoffset() == expected.utcoffset()
    return bool(found == expected)


def test_every_value_survives_in_all_three_formats(home, eventually):
    yaml = pytest.importorskip("yaml")
    for name, text in (("y.yaml", YAML), ("t.toml", TOML), ("j.json", JSON)):
        home.write(name, text)
    sources = ", ".join(f'{{ path = "{name}", at = "{name[0]}" }}' for name in ("y.yaml", "t.toml", "j.json"))
    home.write("shmconf.toml", f"[segment.web]\nsources = [{sources}]\n")
    home.start()
    reader = home.attach()
    expected = {"y": yaml.safe_load(YAML), "t": tomllib.loads(TOML), "j": json.loads(JSON)}
    assert {type(value) for value in expected["t"].values()} > {date, time, datetime}  # of all kinds, that is
    assert {type(key) for key in expected["y"]["keys"]} == {int, float, bool, type(None), date, datetime, bytes, str}
    for part, tree in expected.items():
        for key, value in tree.items():
            assert same(reader.get((part, key)), value), f"{part}.{key}: {reader.get((part, key))!r} is not {value!r}"
    assert same(reader.snapshot().to_dict(), expected)
    for key, value in expected["y"]["keys"].items():
        assert reader["y", "keys", key] == value


def test_the_documents_of_a_file_are_layers_in_order(home, eventually):
    home.segment("base.yaml", "over.toml")
    home.write("base.yaml", "a: 1\nm: {x: 1}\n---\n---\na: 2\nm: {y: 2}\nz: 1\n")
    home.write("over.toml", "z = 2\n")
    home.start()
    reader = home.attach()
    assert reader.snapshot().to_dict() == {"a": 2, "m": {"x": 1, "y": 2}, "z": 2}
    home.write("base.yaml", "a: 1\n---\nb: &b 1\n---\nc: *b\n")
    eventually(lambda: reader.status().last_error, "the rejection")
    assert reader.status().last_error == "base.yaml:5:4: alias '*b' has no anchor '&b' before it"
    assert reader.version == 1


REFUSED = {
    "an integer beyond 64 bits": ("a.yaml", "a: 1\nb: [1, 18446744073709551616]\n", "a.yaml:2:8: "),
    "an integer below 64 bits": ("a.toml", "a = 1\nb = -9223372036854775809\n", "a.toml:2:5: "),
    "an integer of a thousand digits": ("a.json", '{"a":\n ' + "1" * 1000 + "}", "a.json:2:2: "),
    "a set": ("a.yaml", "a: 1\nb: !!set {x, y}\n", "a.yaml:2:4: "),
    "pairs": ("a.yaml", "b: !!pairs [x: 1, x: 2]\n", "a.yaml:1:4: "),
    "an ordered map": ("a.yaml", "b: !!omap [x: 1]\n", "a.yaml:1:4: "),
    "a python object": ("a.yaml", "a: 1\nb: !!python/object/apply:os.system [id]\n", "a.yaml:2:4: "),
    "an own tag": ("a.yaml", "b: !secret x\n", "a.yaml:1:4: "),
    "a cycle": ("a.yaml", "b: &b [1, *b]\n", "a.yaml:1:"),
    "a lone surrogate": ("a.json", '{"a": "\\ud800"}', "a.json:1:7: "),
    "a list as the second document": ("a.yaml", "a: 1\n---\n- b\n", "a.yaml:3:1: "),
    "a bomb of aliases": (
        "a.yaml",
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "a.yaml:",
    ),
    "endless nesting": ("a.yaml", "a: " + "[" * 60_000, "a.yaml:1:"),
    "endless nesting in JSON": ("a.json", '{"a": ' + "[" * 60_000, "a.json:1:"),
    "endless nesting in TOML": ("a.toml", "a = " + "[" * 60_000, "a.toml:1:"),
    "a list as a key": ("a.yaml", "? [1]\n: x\n", "a.yaml:1:"),
}


WELL = {"a.yaml": "yaml: 1\n", "a.toml": "toml = 1\n", "a.json": '{"json": 1}'}


@pytest.fixture(scope="module")
def good(module_home):
    """A running agent on a directory with a good file."""
    home = module_home("good")
    home.segment("conf.d/")
    home.write("conf.d/0.yaml", "good: 0\n")
    for name, text in WELL.items():
        home.write(f"conf.d/{name}", text)
    home.start()
    return home, home.attach()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_published_is_refused_with_its_place(good, eventually, kind):
    home, reader = good
    name, text, place = REFUSED[kind]
    version = reader.version
    home.write(f"conf.d/{name}", text)
    error = eventually(lambda: reader.status().last_error, lambda: home.agents[0].text())
    assert error.startswith(f"conf.d/{place}"), error
    home.write(f"conf.d/{name}", WELL[name])
    eventually(lambda: reader.status().last_error is None, "the repair")
    home.write("conf.d/0.yaml", f"good: {version}\n")
    assert reader.wait(after=version, timeout=60).version == version + 1
