"""From files to a candidate or to every reason against it, each at its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shmconf import codec
from shmconf_agent import pipeline
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
    verdict = try_segment(config, Progress())
    assert isinstance(verdict, Invalid), verdict
    return [str(problem) for problem in verdict.problems]


def test_layers_of_three_formats_become_one_document(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="db: {size: 1, name: x}\nhosts: [a]\n", b_toml="[db]\nsize = 2\n", c_json='{"hosts": ["b"]}')
    candidate = try_segment(segment(tmp_path, "a.yaml", "b.toml", "c.json"), Progress())
    assert isinstance(candidate, Candidate)
    assert codec.unpack(candidate.payload) == candidate.tree == {"db": {"size": 2, "name": "x"}, "hosts": ["b"]}
    assert list(candidate.tree) == ["db", "hosts"]
    assert candidate.digest == hashlib.sha256(candidate.payload).hexdigest()
    assert candidate.files == ("a.yaml", "b.toml", "c.json")


def test_blank_files_are_noted(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="a: 1\n", b_yaml=" \n")
    candidate = try_segment(segment(tmp_path, "a.yaml", "b.yaml"), Progress())
    assert isinstance(candidate, Candidate)
    assert candidate.blank_files == ("b.yaml",)


def test_syntax_errors_of_all_files_come_together_in_the_order_of_the_layers(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="a: 1\na: 2\nb: 1\nb: 2\n", b_toml="x = \n", c_json='{"k": }')
    found = problems_of(segment(tmp_path, "c.json", "a.yaml", "b.toml", "missing.yaml"))
    assert [text.split(": ")[0] for text in found][:1] == ["missing.yaml"]
    assert [text.split(":")[:2] for text in found[1:]] == [
        ["c.json", "1"],
        ["a.yaml", "2"],
        ["a.yaml", "4"],
        ["b.toml", "1"],
    ]


def test_a_schema_violation_is_placed_in_the_layer_that_set_the_value(tmp_path: Path) -> None:
    write(tmp_path, schema_json=SCHEMA, a_yaml="db:\n  size: 1\n", b_toml='# top\n[db]\nsize = "ten"\n')
    (found,) = problems_of(segment(tmp_path, "a.yaml", "b.toml", schema="schema.json"))
    assert found.startswith("b.toml:3:1: db.size: ")


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
    real = pipeline.formats.parse

    def noting(data: bytes, *, file: str, limits: pipeline.Limits) -> dict[object, object]:
        parsed.append(file)
        return real(data, file=file, limits=limits)

    monkeypatch.setattr(pipeline.formats, "parse", noting)
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
