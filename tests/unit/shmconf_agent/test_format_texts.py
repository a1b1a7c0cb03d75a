"""Texts of every style, whole and damaged: the oracle's values, or an error in both, or a documented departure."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_oracle import Verdict, check
from texts import KEYS, JsonWriter, TomlWriter, YamlWriter, damaged

from shmconf_agent.formats import json as json_format
from shmconf_agent.formats import lines, locate_many, parse_documents, toml
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.problems import Invalid

WRITERS: dict[str, Callable[[Random], str]] = {
    "c.yaml": lambda random: YamlWriter(random).stream(),
    "c.toml": lambda random: TomlWriter(random).text(),
    "c.json": lambda random: JsonWriter(random).text(),
}
SEEDS = st.integers(0, 2**64 - 1)
# The same texts at each run: for others there is make fuzz-text.
MANY = settings(
    deadline=None, max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(file: str, seed: int, is_damaged: bool) -> bytes:
    random = Random(seed)
    text = WRITERS[file](random)
    return (damaged(random, text) if is_damaged else text).encode()


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("is_damaged", [False, True])
@MANY
@given(seed=SEEDS)
def test_yaml_is_what_pyyaml_reads(is_damaged: bool, seed: int) -> None:
    check(written("c.yaml", seed, is_damaged), "c.yaml")


@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("file", ["c.toml", "c.json"])
@MANY
@given(seed=SEEDS)
def test_toml_and_json_are_what_the_standard_library_reads(file: str, is_damaged: bool, seed: int) -> None:
    check(written(file, seed, is_damaged), file)


@pytest.mark.parametrize("file", list(WRITERS))
def test_texts_are_valid_often_enough_to_say_something(file: str) -> None:
    taken = sum(check(written(file, seed, False), file) for seed in range(200))
    damaged_and_taken = sum(check(written(file, seed, True), file) for seed in range(200))

    assert taken > 80
    assert 2 < damaged_and_taken < taken


@pytest.mark.parametrize(
    ("data", "file"),
    [(b"a: [1, 2]", "c.yaml"), (b"a = [1, 2]", "c.toml"), (b'{"a": [1, 2]}', "c.json")],
)
def test_a_wrong_value_would_be_told(data: bytes, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"c.yaml": yaml_format, "c.toml": toml, "c.json": json_format}[file]
    monkeypatch.setattr(module, "documents", lambda *_, **__: [{"a": [1, 2.0]}])

    with pytest.raises(Verdict, match="other values"):
        check(data, file)


# Places


def entries_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every entry of a map, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*path, key)
            yield from entries_of(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from entries_of(value, (*path, index))


def is_yaml_key(rest: str, key: Any) -> bool:
    rest = re.sub(r"^(?:[&!]\S* +)+", "", rest)
    if rest.startswith("*"):  # an alias is the key
        return True
    return any(rest.startswith(text) and repr(yaml.safe_load(text)) == repr(key) for text in KEYS)


def is_toml_key(rest: str, key: Any) -> bool:
    token = re.match(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[A-Za-z0-9_-]+', rest)
    return token is not None and key in tomllib.loads(f"{token.group()} = 1")


def is_json_key(rest: str, key: Any) -> bool:
    return bool(json.JSONDecoder().raw_decode(rest)[0] == key)


IS_KEY: dict[str, Callable[[str, Any], bool]] = {
    "c.yaml": is_yaml_key, "c.toml": is_toml_key, "c.json": is_json_key
}  # fmt: skip


def check_keys(file: str, seed: int, *, is_damaged: bool = False) -> int:
    """How many entries there are, each with its key's text at its place."""
    # A byte order mark is no character to PyYAML's own parser, wherever it stands, and one to libyaml.
    data = written(file, seed, is_damaged).replace("\ufeff".encode(), b"")
    count = 0
    with contextlib.suppress(Invalid):
        for document, tree in enumerate(parse_documents(data, file=file)):
            paths = list(entries_of(tree))
            for path, place in zip(paths, locate_many(data, paths, file=file, document=document), strict=True):
                assert place is not None, (path, data)
                line, column = place
                assert IS_KEY[file](lines(data, file=file)[line - 1][column - 1 :], path[-1]), (path, place, data)
                count += 1
    return count


@pytest.mark.usefixtures("parser")
@MANY
@given(seed=SEEDS)
def test_every_entry_of_yaml_is_placed_at_its_key(seed: int) -> None:
    check_keys("c.yaml", seed)


@pytest.mark.parametrize("file", ["c.toml", "c.json"])
@MANY
@given(seed=SEEDS, is_damaged=st.booleans())
def test_every_entry_of_toml_and_json_is_placed_at_its_key(file: str, seed: int, is_damaged: bool) -> None:
    check_keys(file, seed, is_damaged=is_damaged)


@pytest.mark.parametrize("file", list(WRITERS))
def test_there_are_entries_to_be_placed(file: str) -> None:
    assert sum(check_keys(file, seed) for seed in range(100)) > 200
