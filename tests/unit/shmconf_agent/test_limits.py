"""The limits of a segment: read from its table, reaching every stage, and holding for what the files make together."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shmconf import codec
from shmconf_agent.agents_file import load
from shmconf_agent.config import SegmentConfig, Source, from_arguments
from shmconf_agent.formats import DEFAULT_LIMITS, Limits, parse_documents
from shmconf_agent.limits_table import LIMIT_KEYS
from shmconf_agent.merge import Layer, merge
from shmconf_agent.merged_size import MergedSize, size_of
from shmconf_agent.problems import MOST_PROBLEMS, Code, Invalid
from shmconf_agent.progress import Progress
from shmconf_agent.trial import try_segment

WEB = '[segment.web]\nsources = ["base.yaml"]\n'
MIB = 1024 * 1024


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "shmconf.toml"
        file.write_text(text)
        return file

    return write


def test_every_limit_can_be_set(written: Callable[[str], Path]) -> None:
    text = """[segment.web.limits]
max_file_bytes = "2MiB"
max_total_bytes = 3145728
max_files = 4
max_depth = 5
max_nodes = 6
max_keys = 7
max_documents = 8
"""
    assert set(tomllib.loads(text)["segment"]["web"]["limits"]) == set(LIMIT_KEYS)
    config = load(written(WEB + text + '[segment.b]\nsources = ["b"]\n'))
    assert config.segments[0].limits == Limits(2 * MIB, 3 * MIB, 4, 5, 6, 7, 8)
    assert config.segments[1].limits == DEFAULT_LIMITS
    assert config.segments[1].limits.table == "segment.b.limits"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits = 3\n", "3:1: [segment.web.limits] is a table of limits, as max_depth = 64, not 3"),
        ("[segment.web.limits]\nmax_bytes = 1\n", "4:1: unknown key 'max_bytes' in [segment.web.limits]; "),
        (
            "limits = { max_dept = 1 }\n",
            "3:12: unknown key 'max_dept' in [segment.web.limits]; did you mean 'max_depth'?",
        ),
        ("limits.max_depth = true\n", "3:8: 'max_depth' is a whole number, not true"),
        ("limits.max_depth = 1.5\n", "3:8: 'max_depth' is a whole number, not 1.5"),
        ('limits.max_nodes = "1MiB"\n', "3:8: 'max_nodes' is a whole number, not '1MiB'"),
        ("limits.max_depth = 0\n", "3:8: 'max_depth' is 0; it may be 1 to 256"),
        ("limits.max_depth = 257\n", "3:8: 'max_depth' is 257; it may be 1 to 256"),
        (
            'limits.max_file_bytes = "much"\n',
            "3:8: 'max_file_bytes' is a size, as in \"16MiB\" or a number of bytes, not",
        ),
        ('limits.max_file_bytes = "2GiB"\n', "3:8: 'max_file_bytes' is 2,147,483,648; it may be 1 to 1,073,741,824"),
    ],
)
def test_what_is_no_limit_is_told(written: Callable[[str], Path], text: str, message: str) -> None:
    file = written(WEB + text)
    with pytest.raises(Invalid) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert str(problem).removeprefix(f"{file}:").startswith(message)


TOO_MUCH = {
    "max_file_bytes": ({"a.yaml": "a: " + "x" * 98}, 100, "a.yaml: the file has 101 bytes"),
    "max_total_bytes": ({"a.yaml": "a: 1 \n", "b.toml": "b = 1\n"}, 11, "b.toml: with the 6 bytes of this file"),
    "max_files": ({"a.yaml": "", "b.yaml": "", "c.yaml": ""}, 2, "c.yaml: with the 1 file of this source"),
    "max_depth": ({"a.yaml": "a:\n- - 1\n"}, 2, "a.yaml:2:3: nested deeper than"),
    "max_depth of JSON": ({"a.json": '{"a":\n [[1]]}'}, 2, "a.json:2:3: nested deeper than"),
    "max_depth of TOML": ({"a.toml": "a = [[1]]"}, 2, "a.toml:1:6: nested deeper than"),
    "max_nodes": ({"a.yaml": "a: [1, 2]\n"}, 4, "a.yaml:1:8: more keys and values"),
    "max_nodes of JSON": ({"a.json": '{"a": [1, 2]}'}, 4, "a.json:1:11: more keys and values"),
    "max_nodes of TOML": ({"a.toml": "a = [1, 2]"}, 4, "a.toml:1:5: more keys and values"),
    "max_keys": ({"a.yaml": "a:\n  b: 1\n  c: 1\n"}, 2, "a.yaml:3:3: more keys, aliases and merges expanded, than"),
    "max_keys of JSON": ({"a.json": '{"a": {"b": 1, "c": 1}}'}, 2, "a.json:1:7: more keys"),
    "max_keys of TOML": ({"a.toml": "a.b = 1\na.c = 1"}, 2, "a.toml:1:1: more keys"),
    "max_documents": ({"a.yaml": "---\n---\n---\n"}, 2, "a.yaml:3:1: more documents than"),
    "max_depth, mounted": ({"a.yaml": "a: []\n"}, 3, "a.yaml: mounted, it is nested deeper than"),
    "max_nodes, merged": (
        {"a.yaml": "a: [1, 2]\n", "b.yaml": "b: 1\n"},
        6,
        "a.yaml: merged, the configuration has more",
    ),
    "max_keys, merged": ({"a.yaml": "a: 1\n", "b.yaml": "b: long\nc: 1\n"}, 2, "b.yaml: merged, the configuration has"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_each_limit_is_named_with_its_value_and_where_to_raise_it(tmp_path: Path, what: str) -> None:
    files, value, beginning = TOO_MUCH[what]
    name, _, how = what.partition(",")
    name = name.split()[0]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    at = ("m", "n") if how == " mounted" else ()
    sources = tuple(Source(file, at) for file in files)
    limits = Limits(table="segment.web.limits")
    segment = SegmentConfig("web", tmp_path, sources, limits=dataclasses.replace(limits, **{name: value}))
    (problem,) = try_segment(segment, Progress()).problems
    assert str(problem).startswith(beginning)
    said = f"the limit {name} = {value:,}; raise it in [segment.web.limits] of the agent's file"
    assert str(problem).endswith(said)
    assert not try_segment(
        dataclasses.replace(segment, limits=dataclasses.replace(limits, **{name: value + 1})), Progress()
    ).problems


def test_a_segment_of_the_command_line_has_the_defaults_and_says_where_to_raise_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":' * 200 + "1" + "}" * 200)
    (segment,) = from_arguments("web", ["a.json"], tmp_path).segments
    (problem,) = try_segment(segment, Progress()).problems
    assert str(problem) == (
        "a.json:1:641: nested deeper than the limit max_depth = 128; "
        "raise it in [segment.web.limits] of the agent's file"
    )


# More that is wrong than is told

WRONG = {
    "keys in YAML": ("a.yaml", "k: 1\n" * 5000),
    "aliases": ("a.yaml", "a: [" + "*b ," * 5000 + "]"),
    "tags, and no end": ("a.yaml", "a: [" + "!x y," * 5000),
    "keys in JSON": ("a.json", '{"k": 1' + ', "k": 1' * 5000 + "}"),
    "keys in JSON, and no end": ("a.json", '{"k": 1' + ', "k": 1' * 5000),
    "numbers in JSON": ("a.json", '{"k": [1' + ", 1e999" * 5000 + "]}"),
    "half characters": ("a.json", '{"k": [1' + ', "\\ud800"' * 5000 + "]}"),
    "keys in TOML": ("a.toml", "k = 1\n" * 5000),
    "numbers in TOML": ("a.toml", f"k = [{f'{2**64}, ' * 5000}]"),
}


@pytest.mark.parametrize("what", WRONG)
def test_of_a_text_in_which_everything_is_wrong_the_beginning_is_told(what: str) -> None:
    file, text = WRONG[what]
    with pytest.raises(Invalid) as caught:
        parse_documents(text.encode(), file=file)
    *told, last = caught.value.problems
    assert len(told) == MOST_PROBLEMS
    assert Code.TOO_MANY_PROBLEMS not in {problem.code for problem in told}
    assert (last.code, last.file) == (Code.TOO_MANY_PROBLEMS, file)
    places = [(problem.line or 0, problem.column or 0) for problem in caught.value.problems]
    assert places == sorted(places)


def test_of_all_files_and_of_the_merged_tree_no_more_is_told(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.json").write_text('{"k": 1' + ', "k": 1' * 600 + "}")
    segment = SegmentConfig("web", tmp_path, (Source("*.json"),))
    *told, last = try_segment(segment, Progress()).problems
    assert last.code is Code.TOO_MANY_PROBLEMS
    assert {problem.file for problem in told} == {"0.json", "1.json"}
    (tmp_path / "schema.yaml").write_text("additionalProperties: {type: string}")
    (tmp_path / "0.json").write_text('{"a": 1}')
    (tmp_path / "1.json").write_text(json.dumps({f"k{number}": number for number in range(MOST_PROBLEMS - 1)}))
    segment = SegmentConfig("web", tmp_path, (Source("0.json"), Source("1.json")), schema="schema.yaml")
    found = try_segment(segment, Progress()).problems
    assert [problem.code for problem in found] == [Code.SCHEMA_TYPE] * MOST_PROBLEMS
    (tmp_path / "0.json").write_text('{"a": 1, "b": 2}')
    *told, last = try_segment(segment, Progress()).problems
    assert [problem.code for problem in told] == [Code.SCHEMA_TYPE] * MOST_PROBLEMS
    assert last.code is Code.TOO_MANY_PROBLEMS


def test_surprises_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [" + "NO, " * 5000 + "]")
    *told, last = try_segment(SegmentConfig("web", tmp_path, (Source("a.yaml"),)), Progress()).warnings
    assert [warning.code for warning in told] == [Code.YAML_BOOL] * MOST_PROBLEMS
    assert last.code is Code.TOO_MANY_PROBLEMS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tag_handles_that_would_take_libyaml_hours_are_refused(encoding: str) -> None:
    def text(count: int) -> bytes:
        return (
            "".join(f"%TAG !t{number}! tag:yaml.org,2002:\n" for number in range(count)) + "---\na: !t7!str 1\n"
        ).encode(encoding)

    assert parse_documents(text(1000), file="a.yaml") == [{"a": "1"}]
    with pytest.raises(Invalid) as caught:
        parse_documents(text(1001), file="a.yaml")
    assert [str(problem) for problem in caught.value.problems] == ["a.yaml: more than 1,000 %TAG directives"]
    quoted = {"a": "%TAG " * 2000}
    assert parse_documents(yaml.safe_dump(quoted).encode(encoding), file="a.yaml") == [quoted]


# What layers make together

BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 [x]\n" for n in range(7))


def test_files_that_are_bombs_only_together_are_refused_at_once(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"k{number}:\n" + "".join(f"  {line}\n" for line in BOMB.splitlines()))
    segment = SegmentConfig("web", tmp_path, (Source("*.yaml"),))
    (problem,) = try_segment(segment, Progress()).problems
    assert problem.code is Code.LIMIT_NODES
    one = size_of(parse_documents(BOMB.encode(), file="a.yaml")[0])
    assert one.nodes < DEFAULT_LIMITS.max_nodes < 40 * one.nodes


@pytest.mark.parametrize("merge", ["[{}]", "{{<<: [{}]}}"], ids=["aliases", "merge keys"])
def test_a_long_text_at_many_places_is_refused_before_it_is_packed(tmp_path: Path, merge: str) -> None:
    entries = "\n".join(f"- {merge.format(', '.join(['*a'] * 100))}" for _ in range(400))
    anchored = "'" + "x" * 10_000 + "'" if merge[0] == "[" else "{a: '" + "x" * 1_000_000 + "'}"
    (tmp_path / "a.yaml").write_text(f"a: &a {anchored}\nb:\n{entries}\n")
    segment = SegmentConfig("web", tmp_path, (Source("a.yaml"),), max_bytes=8 * MIB)
    (problem,) = try_segment(segment, Progress()).problems
    assert (problem.code, problem.file) == (Code.LIMIT_PACKED_BYTES, "a.yaml")
    assert problem.message == (
        "merged, the configuration has more bytes, packed and aliases expanded, "
        "than the segment's max_bytes = 8,388,608"
    )


def test_what_layers_share_counts_once(tmp_path: Path) -> None:
    """The sum of the layers passes the limit; what they make does not."""
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        (tmp_path / name).write_text("k: {a: 1, b: 2}\n")
    segment = SegmentConfig(
        "web", tmp_path, tuple(map(Source, ("a.yaml", "b.yaml", "c.yaml"))), limits=Limits(max_nodes=7)
    )
    assert not try_segment(segment, Progress()).problems


@st.composite
def shared_trees(draw: st.DrawFn) -> dict[Any, Any]:
    """Maps and lists that hold one another at several places."""
    scalars = st.none() | st.text(max_size=5) | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=5)
    pool: list[Any] = []
    for _ in range(draw(st.integers(1, 6))):
        values = scalars | st.sampled_from(pool) if pool else scalars
        pool.append(
            draw(
                st.lists(values, max_size=3)
                | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), values, max_size=3)
            )
        )
    return {"a": pool[-1], "b": pool[0]}


def counted(value: Any) -> tuple[int, int, int]:
    """Nodes, keys and depth, by walking everything."""
    if not isinstance(value, dict | list):
        return 1, 0, 0
    inner = [counted(each) for each in (value.values() if isinstance(value, dict) else value)]
    keys = len(value) if isinstance(value, dict) else 0
    return (
        1 + keys + sum(each[0] for each in inner),
        keys + sum(each[1] for each in inner),
        1 + max((each[2] for each in inner), default=0),
    )


@given(shared_trees())
def test_a_size_is_that_of_the_expanded_tree(tree: dict[Any, Any]) -> None:
    size = size_of(tree)
    assert (size.nodes, size.keys, size.depth) == counted(tree)
    assert size.packed <= len(codec.pack(tree))


@given(st.lists(shared_trees(), min_size=1, max_size=3), st.integers(1, 60), st.integers(1, 20), st.integers(1, 8))
def test_what_is_let_through_is_within_the_limits_and_nothing_else_is(
    trees: list[dict[Any, Any]], nodes: int, keys: int, depth: int
) -> None:
    layers = [Layer(f"{number}.yaml", ("m",) * number, tree) for number, tree in enumerate(trees)]
    tree = merge(layers)
    limits = Limits(max_nodes=nodes, max_keys=keys, max_depth=depth)
    within = all(found <= most for found, most in zip(counted(tree), (nodes, keys, depth), strict=True))
    sizes = MergedSize(limits, 2**40)
    for _ in range(2):  # the second time it knows the layers
        if within:
            sizes.check(layers, tree)
            continue
        with pytest.raises(Invalid) as caught:
            sizes.check(layers, tree)
        (problem,) = caught.value.problems
        assert problem.code in (Code.LIMIT_NODES, Code.LIMIT_KEYS, Code.LIMIT_DEPTH)


@given(shared_trees())
def test_yaml_counts_keys_as_they_are_in_the_tree(tree: dict[Any, Any]) -> None:
    text = yaml.safe_dump(tree).encode()
    [parsed] = parse_documents(text, file="a.yaml")
    nodes, keys, depth = counted(parsed)
    exact = Limits(max_nodes=nodes, max_keys=keys, max_depth=depth)
    assert parse_documents(text, file="a.yaml", limits=exact) == [parsed]
    for name, value, code in (
        ("max_nodes", nodes, Code.LIMIT_NODES),
        ("max_keys", keys, Code.LIMIT_KEYS),
        ("max_depth", depth, Code.LIMIT_DEPTH),
    ):
        with pytest.raises(Invalid) as caught:
            parse_documents(text, file="a.yaml", limits=dataclasses.replace(exact, **{name: value - 1}))
        assert caught.value.problems[0].code is code
