"""From files to a candidate or to every reason against it, each at its place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf_agent import formats, origins, pipeline
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.pipeline import Candidate, Pipeline
from shmconf_agent.problems import Invalid
from shmconf_agent.progress import Progress
from shmconf_agent.sources import SourceFiles, View
from shmconf_agent.trial import try_segment

SCHEMA = """{
  "type": "object",
  "required": ["db"],
  "properties": {
    "db": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}}},
    "limits": {"type": "object", "additionalProperties": {"type": "integer"}}
  },
  "additionalProperties": false
}"""


def segment(base: Path, *sources: str | Source, **more: object) -> SegmentConfig:
    made = tuple(Source(each) if isinstance(each, str) else each for each in sources)
    return SegmentConfig("web", base, made, **more)


def write(base: Path, **files: str) -> None:
    for name, text in files.items():
        (base / name.replace("_", ".")).write_text(text)


def look(config: SegmentConfig) -> View:
    return SourceFiles(config).look(at_once=True)


def problems_of(config: SegmentConfig) -> list[str]:
    verdict = try_segment(config, Progress()).verdict
    assert isinstance(verdict, Invalid), verdict
    return [str(problem) for problem in verdict.problems]


def test_layers_of_three_formats_become_one_document(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="db: {size: 1, name: x}\nhosts: [a]\n", b_toml="[db]\nsize = 2\n", c_json='{"hosts": ["b"]}')
    candidate = try_segment(segment(tmp_path, "a.yaml", "b.toml", "c.json"), Progress()).verdict
    assert isinstance(candidate, Candidate)
    assert candidate.tree == {"db": {"size": 2, "name": "x"}, "hosts": ["b"]}
    assert codec.unpack(candidate.document.payload) == candidate.tree
    assert list(candidate.tree) == ["db", "hosts"]
    assert candidate.document.digest == hashlib.sha256(candidate.document.payload).hexdigest()
    assert candidate.files == ("a.yaml", "b.toml", "c.json")


def test_blank_files_are_noted(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="a: 1\n", b_yaml=" \n")
    candidate = try_segment(segment(tmp_path, "a.yaml", "b.yaml"), Progress()).verdict
    assert isinstance(candidate, Candidate)
    assert candidate.blank_files == ("b.yaml",)


def test_the_documents_of_a_file_are_layers_in_order(tmp_path: Path) -> None:
    write(
        tmp_path,
        schema_json=SCHEMA,
        a_yaml="db: {size: 1}\n---\n---\ndb:\n  size: 2\n  name: y\n",
        l_yaml="a: 1\n---\n\nb: x\n",
    )
    mounted = Source("l.yaml", at=("limits",))
    candidate = try_segment(segment(tmp_path, "a.yaml", mounted), Progress()).verdict
    assert isinstance(candidate, Candidate)
    assert candidate.tree == {"db": {"size": 2, "name": "y"}, "limits": {"a": 1, "b": "x"}}
    assert (candidate.files, candidate.blank_files) == (("a.yaml", "l.yaml"), ())
    write(tmp_path, a_yaml="db: {size: 1}\n---\ndb:\n  size: two\n---\n---\nextra: 1\n")
    found = problems_of(segment(tmp_path, "a.yaml", mounted, schema="schema.json"))
    assert [text.split(": ")[:2] for text in found] == [
        ["a.yaml:4:3", "db.size"],
        ["a.yaml:7:1", "extra"],
        ["l.yaml:4:1", "limits.b"],
    ]


def test_a_schema_is_one_document(tmp_path: Path) -> None:
    write(tmp_path, s_yaml="type: object\n---\ntype: object\n", a_yaml="a: 1\n")
    (found,) = problems_of(segment(tmp_path, "a.yaml", schema="s.yaml"))
    assert found == "s.yaml:2:1: a second document begins here, in a file that has to be one"


def test_syntax_errors_of_all_files_come_together_in_the_order_of_the_layers(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="a: 1\na: 2\nb: 1\nb: 2\n", b_toml="x = \n", c_json='{"k": }')
    found = problems_of(segment(tmp_path, "c.json", "a.yaml", "missing.yaml", "b.toml", "*.txt"))
    assert [text.split(":")[:2] for text in found] == [
        ["c.json", "1"],
        ["a.yaml", "2"],
        ["a.yaml", "4"],
        ["missing.yaml", " does not exist; create it, or mark the source optional"],
        ["b.toml", "1"],
        ["*.txt", " matches no file; add one, or mark the source optional"],
    ]


def test_a_schema_violation_is_placed_in_the_layer_that_set_the_value(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="db:\n  size: 1\n", b_toml='# top\n[db]\nsize = "ten"\n')
    (found,) = problems_of(segment(tmp_path, "a.yaml", "b.toml", schema="schema.json"))
    assert found.startswith("b.toml:3:1: db.size: ")


HINTED = """{"properties": {
  "text": {"type": "string"}, "one": {"enum": ["on", "off"]}, "just": {"const": "12:34"}, "number": {"type": "number"},
  "whole": {"type": ["integer", "null"]}, "list": {"items": {"type": "string"}}
}}"""


@pytest.mark.parametrize(
    ("file", "text", "hint"),
    [
        ("a.yaml", "text: NO", "NO is false in YAML 1.1: quote it"),
        ("a.yaml", "text: yes # really", "yes is true in YAML 1.1: quote it"),
        ("a.yaml", "text: 010", "010 is the number 8 in YAML 1.1: quote it"),
        ("a.yaml", "text: 1.10", "1.10 is a number in YAML: quote it"),
        ("a.yaml", "text: 2024-02-29", None),  # a date is text to a schema
        ("a.yaml", "text: ~", "~ is null in YAML: quote it"),
        ("a.yaml", "text:", "nothing is null in YAML: write '' for an empty text"),
        ("a.yaml", "list: [a, off]", "off is false in YAML 1.1: quote it"),
        ("a.yaml", "one: on", "on is true in YAML 1.1: quote it"),
        ("a.yaml", "just: 12:34", "12:34 is the number 754 in YAML 1.1: quote it"),
        ("a.yaml", "number: 1e3", "1e3 is text in YAML 1.1: write 1.0e+3 for the number"),
        ("a.yaml", "whole: -.5E-2", "-.5E-2 is text in YAML 1.1: write -0.5e-2 for the number"),
        ("a.yaml", "whole: 08", "08 is text in YAML 1.1: write 8 for the number"),
        ("a.yaml", "number: '1e3'", None),
        ("a.yaml", "number: one", None),
        ("a.yaml", "text: !!bool NO", None),
        ("a.yaml", "text: [NO]", None),
        ("a.toml", "text = 1", None),
        ("a.json", '{"text": false}', None),
    ],
)
def test_a_spelling_that_yaml_takes_for_another_type_is_hinted_at(
    tmp_path: Path, file: str, text: str, hint: str | None
) -> None:
    (tmp_path / "schema.json").write_text(HINTED)
    (tmp_path / file).write_text(text + "\n")
    problems = try_segment(segment(tmp_path, file, schema="schema.json"), Progress()).problems
    if text.startswith("text: 2024"):
        assert problems == ()
        return
    [problem] = problems
    assert problem.hint == hint
    assert str(problem).endswith(f"; {problem.hint}" if problem.hint else problem.message)


def test_all_violations_come_at_once(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml='db: {name: x}\nextra: 1\nlimits:\n  a: "1"\n  b: []\n')
    found = problems_of(segment(tmp_path, "a.yaml", schema="schema.json"))
    assert [text.split(": ")[0] for text in found] == ["a.yaml:1:1", "a.yaml:2:1", "a.yaml:4:3", "a.yaml:5:3"]
    assert "size" in found[0]


def test_a_violation_under_a_mount_is_placed_in_the_mounted_file(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="db: {size: 1}\n", l_toml='a = 1\nb = "x"\n')
    (found,) = problems_of(
        segment(tmp_path, "a.yaml", Source("l.toml", at=("limits",)), schema="schema.json")
    )
    assert found.startswith("l.toml:2:1: limits.b: ")


def test_what_nothing_set_is_placed_at_the_nearest_map_that_lacks_it(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="limits: {a: 1}\n")
    (found,) = problems_of(segment(tmp_path, "a.yaml", schema="schema.json"))
    assert found.startswith("a.yaml:1:1: ")
    assert "db" in found


def test_a_tree_that_lacks_files_is_not_judged_by_the_schema(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="limits: {a: 1}\n")
    (found,) = problems_of(segment(tmp_path, "a.yaml", "gone.yaml", schema="schema.json"))
    assert found.startswith("gone.yaml: ")


def test_a_check_speaks_of_paths_and_gets_places(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="db:\n  size: 3\n")
    (tmp_path / "rules.py").write_text("def check(tree):\n    return [('db.size', 'must be even'), 'and more']\n")
    assert problems_of(segment(tmp_path, "a.yaml", check="rules:check")) == [
        "a.yaml:1:1: and more",
        "a.yaml:2:3: db.size: must be even",
    ]


def test_an_unchanged_file_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_yaml="a: 1\n", b_yaml="b: 1\n")
    parsed: list[str] = []
    real = pipeline.formats.parse_documents

    def noting(data: bytes, *, file: str, limits: pipeline.Limits) -> list[dict[object, object]]:
        parsed.append(file)
        return real(data, file=file, limits=limits)

    monkeypatch.setattr(pipeline.formats, "parse_documents", noting)
    config = segment(tmp_path, "a.yaml", "b.yaml")
    line = Pipeline(config)
    line.run(look(config), Progress())
    write(tmp_path, b_yaml="b: [\n")
    with pytest.raises(Invalid):
        line.run(look(config), Progress())
    write(tmp_path, b_yaml="b: 2\n")
    assert line.run(look(config), Progress()).tree == {"a": 1, "b": 2}
    assert parsed == ["a.yaml", "b.yaml", "b.yaml", "b.yaml"]


def test_a_changed_schema_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="db: {size: 1}\nnew: 1\n")
    config = segment(tmp_path, "a.yaml", schema="schema.json")
    line = Pipeline(config)
    with pytest.raises(Invalid):
        line.run(look(config), Progress())
    write(tmp_path, schema_json="{}")
    assert line.run(look(config), Progress()).tree == {"db": {"size": 1}, "new": 1}


def test_stages_are_timed(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="a: 1\n")
    progress = Progress()
    try_segment(segment(tmp_path, "a.yaml"), progress)
    assert progress.timings.keys() >= {"parse", "merge", "validate", "encode"}


def test_no_place_is_looked_for_where_nobody_asks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def watched(reader: Any) -> Any:
        place_trees = reader.place_trees
        return lambda data: read.append(reader) or place_trees(data)

    for reader in {*formats.SUFFIXES.values()}:
        monkeypatch.setattr(reader, "place_trees", watched(reader))
    write(tmp_path, a_yaml="db: {size: 1}\n", b_toml="[limits]\nrate = 2\n", c_json='{"limits": {"burst": 3}}')
    write(tmp_path, schema_json=SCHEMA)
    config = segment(tmp_path, "a.yaml", "b.toml", "c.json", schema="schema.json")
    at_work = Pipeline(config)
    for size in (1, 2):
        write(tmp_path, a_yaml=f"db: {{size: {size}}}\n")
        assert at_work.run(look(config), Progress()).tree["db"] == {"size": size}
    assert read == []
    write(tmp_path, a_yaml="db: {size: x}\n")
    with pytest.raises(Invalid, match=r"a\.yaml:1:6: "):
        at_work.run(look(config), Progress())
    assert {*read} == {formats.SUFFIXES[".yaml"]}


def test_in_files_that_are_very_large_problems_have_a_file_and_a_path_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, a_yaml="db: {size: x}\n", b_toml="limits.rate = 'y'\n", schema_json=SCHEMA)
    (tmp_path / "b.toml").write_text("limits.rate = 'y'\n" + "# , :\n" * 20)
    config = segment(tmp_path, "a.yaml", "b.toml", schema="schema.json")
    monkeypatch.setattr(origins, "MOST_MARKS", 100)
    assert [line.partition(" is ")[0] for line in problems_of(config)] == [
        "a.yaml:1:6: db.size: \"x\"", "b.toml:1:8: limits.rate: \"y\""
    ]  # fmt: skip
    monkeypatch.setattr(origins, "MOST_MARKS", 60)  # of which a.yaml has three
    assert [line.partition(" is ")[0] for line in problems_of(config)] == [
        "a.yaml:1:6: db.size: \"x\"", "b.toml: limits.rate: \"y\""
    ]  # fmt: skip
    monkeypatch.setattr(origins, "MOST_MARKS", 2)
    assert [line.partition(" is ")[0] for line in problems_of(config)] == [
        "a.yaml: db.size: \"x\"", "b.toml: limits.rate: \"y\""
    ]  # fmt: skip
