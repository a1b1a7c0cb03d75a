"""The codes of problems: each is documented, each is used, and each can be provoked."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmconf_agent import agents_file, sources
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.formats import Limits, parse_documents
from shmconf_agent.problems import Code, Invalid, Problem
from shmconf_agent.progress import Progress
from shmconf_agent.trial import try_segment

ROOT = Path(__file__).parents[3]
AGENT = ROOT / "agent/shmconf_agent"


def documented() -> list[str]:
    return re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/problems.md").read_text("utf-8"), re.MULTILINE)


def trees() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(AGENT.rglob("*.py")):
        yield str(file.relative_to(AGENT)), ast.parse(file.read_text("utf-8"))


def test_every_code_is_documented_once_and_nothing_else_is() -> None:
    assert sorted(documented()) == sorted(code.value for code in Code)


def test_every_code_is_used() -> None:
    used = {
        node.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    assert used == {code.name for code in Code}


def test_no_problem_is_made_without_a_code() -> None:
    made = [
        (name, node.lineno, node)
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem"
    ]
    assert made
    uncoded = [
        (name, line)
        for name, line, node in made
        if len(node.args) < 5
        and not any(keyword.arg == "code" for keyword in node.keywords)
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    assert uncoded == []


SCHEMA = """{
  "required": ["must"], "additionalProperties": false, "propertyNames": {"pattern": "^[a-z0-9]+$"},
  "properties": {
    "must": {}, "a": {"anyOf": [{"pattern": "^b"}, {"minLength": 9}]}, "c": {"enum": ["x", "y"]},
    "f": {"format": "date"}, "p": {"pattern": "^a"}, "r": {"maximum": 1}, "u": {"uniqueItems": true},
    "s": {"maxLength": 1}, "t": {"type": "string"}, "k": {}
  }
}"""
TEXTS = {
    Code.ENCODING: ("a.toml", b"a = '\xff'\n"),
    Code.YAML_SYNTAX: ("a.yaml", b"a: [\n"),
    Code.TOML_SYNTAX: ("a.toml", b"a =\n"),
    Code.JSON_SYNTAX: ("a.json", b"{,}"),
    Code.TOP_LEVEL: ("a.yaml", b"- a\n"),
    Code.DUPLICATE_KEY: ("a.toml", b"a = 1\na = 2\n"),
    Code.NUMBER_RANGE: ("a.json", b'{"a": 1e999}'),
    Code.HALF_CHARACTER: ("a.json", b'{"a": "\\ud800"}'),
    Code.YAML_ALIAS: ("a.yaml", b"a: *b\n"),
    Code.YAML_KEY: ("a.yaml", b"? [a]\n: b\n"),
    Code.YAML_MERGE: ("a.yaml", b"<<: 1\n"),
    Code.YAML_TAG: ("a.yaml", b"a: !own b\n"),
    Code.YAML_VALUE: ("a.yaml", b"a: 2001-02-30\n"),
    Code.FILE_SUFFIX: ("a.ini", b"a\n"),
    Code.LIMIT_BYTES: ("a.yaml", b"a: 1 # " + b"x" * 200),
    Code.LIMIT_DEPTH: ("a.yaml", b"a: [[[[[[]]]]]]\n"),
    Code.LIMIT_NODES: ("a.yaml", b"a: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"),
    Code.LIMIT_KEYS: ("a.yaml", b"{a: , b: , c: , d: , e: }"),
    Code.LIMIT_DOCUMENTS: ("a.yaml", b"---\n---\n---\n---\n"),
}
VALUES = {
    Code.SCHEMA_ALTERNATIVES: "a: short",
    Code.SCHEMA_CHOICE: "c: z",
    Code.SCHEMA_FORMAT: "f: never",
    Code.SCHEMA_KEY_NAME: "A_B: 1",
    Code.SCHEMA_PATTERN: "p: b",
    Code.SCHEMA_RANGE: "r: 2",
    Code.SCHEMA_REQUIRED: "k: 1",
    Code.SCHEMA_RULE: "u: [1, 1]",
    Code.SCHEMA_SIZE: "s: xx",
    Code.SCHEMA_TYPE: "t: 1",
    Code.SCHEMA_UNKNOWN_KEY: "unknown: 1",
    Code.SCHEMA_KEY_CLASH: "1: a\n'1': b",
}
FILES = {
    Code.FILE_MISSING,
    Code.FILE_UNREADABLE,
    Code.FILE_EMPTIED,
    Code.NO_FILES,
    Code.TOO_MANY_FILES,
    Code.BAD_SCHEMA,
    Code.SECOND_DOCUMENT,
    Code.CHECK,
    Code.GROUP,
    Code.AGENT_FILE,
    Code.AGENT_FILE_KEY,
}
SURPRISES = {
    Code.YAML_BOOL: "a: NO",
    Code.YAML_OCTAL: "a: 010",
    Code.YAML_SEXAGESIMAL: "a: 12:34",
    Code.YAML_EXPONENT: "a: 1e3",
    Code.YAML_EQUAL_KEYS: "true: b",
}
ELSEWHERE = {
    Code.TOO_MANY_PROBLEMS: "test_limits.py: texts in which everything is wrong",
    Code.LIMIT_TOTAL_BYTES: "test_sources.py: files that have no room beside one another",
    Code.LIMIT_PACKED_BYTES: "test_limits.py: a long text at many places",
    Code.REFERENCE_EMPTY: "test_references.py, and likewise those that follow",
    Code.REFERENCE_LIMIT: "a file that is too large",
    Code.REFERENCE_MISSING: "a variable that is not set",
    Code.REFERENCE_NOT_ALLOWED: "a variable that is not listed",
    Code.REFERENCE_SYNTAX: "test_substitution.py: what is no reference",
    Code.REFERENCE_TEXT: "bytes that are not UTF-8",
    Code.REFERENCE_UNREADABLE: "a named pipe",
    Code.FILE_CHANGING: "test_sources_editing.py makes such a file",
    Code.NOT_COMMITTED: "test_commit.py: nothing committed yet, and a repair",
    Code.GUARD_DELETED: "test_guard.py",
    Code.GUARD_CHANGED: "test_guard.py",
    Code.GUARD_EMPTY: "test_guard.py",
    Code.GUARD_FROZEN: "test_guard.py",
    Code.GUARD_ACCEPT: "tests/system/test_guard.py",
    Code.FILE_MOUNTED: "test_doctor.py mounts such a file",
    Code.NOT_KEPT: "tests/system/test_rollback.py: a version that is not kept whole",
    Code.HOLD_NOT_KEPT: "tests/system/test_rollback.py: a hold that the disk does not take",
    Code.NOT_PUBLISHED: "test_publish.py: what finds no room",
    Code.INTERNAL: "test_reconcile.py: a fault of the turn",
    Code.OTHER: "comes from agents of other versions",
}


def test_every_code_is_provoked_here_or_elsewhere() -> None:
    assert set(TEXTS) | set(VALUES) | set(SURPRISES) | FILES | set(ELSEWHERE) == set(Code)


@pytest.mark.parametrize("code", TEXTS)
def test_codes_of_texts(code: Code) -> None:
    file, data = TEXTS[code]
    limits = Limits(max_file_bytes=100, max_depth=6, max_nodes=12, max_keys=4, max_documents=3)
    with pytest.raises(Invalid) as caught:
        parse_documents(data, file=file, limits=limits)
    assert {problem.code for problem in caught.value.problems} == {code}


def problems_of(base: Path, *named: str, **more: object) -> tuple[Problem, ...]:
    return try_segment(SegmentConfig("web", base, tuple(map(Source, named)), **more), Progress()).problems


@pytest.mark.parametrize("code", VALUES)
def test_codes_of_values(tmp_path: Path, code: Code) -> None:
    (tmp_path / "s.json").write_text(SCHEMA)
    must = "" if code is Code.SCHEMA_REQUIRED else "must: 1\n"
    (tmp_path / "a.yaml").write_text(f"{must}{VALUES[code]}\n")
    found = problems_of(tmp_path, "a.yaml", schema="s.json")
    assert code in {problem.code for problem in found}
    problem = next(problem for problem in found if problem.code is code)
    assert problem.path is not None
    assert (problem.file, problem.line) == ("a.yaml", 1 if code is Code.SCHEMA_REQUIRED else problem.line)


@pytest.mark.parametrize("code", SURPRISES)
def test_codes_of_surprises(tmp_path: Path, code: Code) -> None:
    (tmp_path / "a.yaml").write_text("1: a\n")
    (tmp_path / "b.yaml").write_text(f"{SURPRISES[code]}\n")
    segment = SegmentConfig("web", tmp_path, (Source("a.yaml"), Source("b.yaml")))
    trial = try_segment(segment, Progress())
    assert trial.problems == ()
    assert [(warning.code, warning.file, warning.line) for warning in trial.warnings] == [(code, "b.yaml", 1)]


def test_codes_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    for name in ("1.json", "2.json", "3.json"):
        (tmp_path / name).write_text("{}")
    os.mkfifo(tmp_path / "pipe.yaml")
    few = Limits(max_files=4)
    found = problems_of(tmp_path, "gone.yaml", "pipe.yaml", "*.toml", "*.json", "a.yaml", limits=few)
    assert [(problem.file, problem.code) for problem in found] == [
        ("gone.yaml", Code.FILE_MISSING),
        ("pipe.yaml", Code.FILE_UNREADABLE),
        ("*.toml", Code.NO_FILES),
        ("*.json", Code.TOO_MANY_FILES),
    ]
    (tmp_path / "a.yaml").write_text(" \n")
    segment = SegmentConfig("web", tmp_path, (Source("a.yaml"),))
    view = sources.SourceFiles(segment, nonblank=["a.yaml"]).look(at_once=True)
    assert [problem.code for problem in view.problems] == [Code.FILE_EMPTIED]


def test_codes_of_schema_check_and_group(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "s.json").write_text('{"type": "none"}')
    assert [problem.code for problem in problems_of(tmp_path, "a.yaml", schema="s.json")] == [Code.BAD_SCHEMA]
    (tmp_path / "s.yaml").write_text("{}\n---\n{}\n")
    assert [problem.code for problem in problems_of(tmp_path, "a.yaml", schema="s.yaml")] == [Code.SECOND_DOCUMENT]
    assert [problem.code for problem in problems_of(tmp_path, "a.yaml", check=("false",))] == [Code.CHECK]
    assert [problem.code for problem in problems_of(tmp_path, "a.yaml", group="no such group")] == [Code.GROUP]


def test_codes_of_the_agents_file(tmp_path: Path) -> None:
    file = tmp_path / "shmconf.toml"
    file.write_text('[segment.web]\nsources = []\nsettle = 2\nmode = 5\n[[segment.api]]\n')
    with pytest.raises(Invalid) as caught:
        agents_file.load(file)
    found = [(problem.line, problem.code, problem.path) for problem in caught.value.problems]
    assert found == [
        (2, Code.AGENT_FILE, ("segment", "web", "sources")),
        (3, Code.AGENT_FILE_KEY, ("segment", "web", "settle")),
        (4, Code.AGENT_FILE, ("segment", "web", "mode")),
        (5, Code.AGENT_FILE, ("segment", "api")),
    ]
    assert caught.value.problems[1].hint == "did you mean 'settle_ms'?"
