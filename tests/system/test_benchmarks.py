"""What the benchmarks measure against is real: every rival reads the value that was published. No speed here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import sample
from benchmarks.edits import percentile
from benchmarks.rivals import RIVALS, Rival
from benchmarks.row import Unavailable
from shmconf_agent.formats.yaml import HAS_LIBYAML

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", RIVALS, ids=lambda kind: kind.__name__)
def test_a_rival_reads_the_published_value(
    kind: type[Rival], tmp_path: Path, require: Callable[[object, str], None]
) -> None:
    tree = sample.tree(20)
    for size in (41, 42):  # prepared twice: nothing of the first is left to be read
        tree["db"]["pool"]["size"] = size
        place = tmp_path / str(size)
        place.mkdir()
        with closing(kind()) as rival:
            try:
                rival.prepare(tree, place)
            except Unavailable as reason:
                require(False, f"{rival.name}: {reason}")
            value = rival.read()
            assert (value, type(value)) == (size, int)
        rival.close()  # idempotent


def test_a_file_parsed_by_stat_is_parsed_again_once_replaced(tmp_path: Path) -> None:
    [kind] = [kind for kind in RIVALS if kind.name == "stat() plus cached parse"]
    tree = sample.tree(3)
    with closing(kind()) as rival:
        rival.prepare(tree, tmp_path)
        assert rival.read() == 10
        tree["db"]["pool"]["size"] = 11
        (tmp_path / "new.json").write_text(json.dumps(tree))
        (tmp_path / "new.json").rename(tmp_path / "tree.json")
        assert rival.read() == 11


def test_a_row_can_be_measured_alone_as_json() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.read", "--row", "memory", "--row", "c-read", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["memory", "c-read"]
    assert rows["memory"]["reference"] > 17_000_000, "what was decoded takes more room than its bytes"
    assert rows["memory"]["ratio"] == rows["memory"]["measured"] / rows["memory"]["reference"]
    assert rows["c-read"]["verdict"] in ("met", "missed") or rows["c-read"]["unavailable"]


def test_every_row_of_reloading_can_be_measured(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(HAS_LIBYAML, "PyYAML was built without libyaml, which the rows are measured against")
    require(sys.platform == "linux", "inotify, which a row is measured against, is Linux's")
    command = [sys.executable, "-W", "error", "-m", "benchmarks.reload", "--brief", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads(done.stdout)["rows"]}
    expected = ["parse", "parse-events", "parse-small", "reload-40", "reload-10k", "reload-10k-p99", "rest"]
    assert list(rows) == expected
    for row in rows.values():
        assert row["ratio"] == row["measured"] / row["reference"]
        assert row["measured"] > 0
    stages = ["read", "parse", "merge", "validate", "encode", "publish"]
    assert rows["reload-40"]["details"].keys() >= {f"stage {stage}" for stage in stages}


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values) == 198.0
    assert percentile(values[:1]) == 1.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
