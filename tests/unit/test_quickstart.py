from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf.paths import format_path, look_up
from shmconf_agent import formats
from shmconf_agent.agents_file import load
from shmconf_agent.config import SegmentConfig, source_kind
from shmconf_agent.merge import Layer, merge
from shmconf_agent.validate import Schema, run_check

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(QUICKSTART, tmp_path / "quickstart"))


def segment(folder: Path) -> SegmentConfig:
    [only] = load(folder / "shmconf.toml").segments
    return only


def layers(folder: Path) -> list[Layer]:
    found: list[Layer] = []
    for source in segment(folder).sources:
        path = folder / source.path
        if source_kind(source, folder) == "directory":
            files = sorted(path.iterdir())
        else:
            files = [path] if path.exists() or not source.optional else []
        for file in files:
            shown = str(file.relative_to(folder))
            found.append(Layer(shown, source.at, formats.parse(file.read_bytes(), file=shown)))
    return found


def problems(folder: Path) -> list[tuple[str, str]]:
    config = segment(folder)
    tree = merge(layers(folder))
    assert config.schema is not None
    assert config.check is not None
    found = [(each.path, str(each.fault)) for each in Schema.load(folder / config.schema).problems(tree)]
    found = found or run_check(config.check, codec.pack(tree), cwd=folder, deadline=30)
    return [(format_path(path), message) for path, message in found]


def test_it_shows_every_format_and_an_optional_overlay() -> None:
    assert {layer.file for layer in layers(QUICKSTART)} == {
        "base.yaml",
        "conf.d/10-features.toml",
        "conf.d/20-limits.yaml",
        "conf.d/30-payments.json",
    }
    assert [source.path for source in segment(QUICKSTART).sources if source.optional] == ["local.yaml"]
    assert not (QUICKSTART / "local.yaml").exists()


def test_it_merges_and_validates() -> None:
    assert problems(QUICKSTART) == []
    tree = merge(layers(QUICKSTART))
    assert tree["features"] == {"search": True, "recommendations": True, "new_checkout": True}


def test_what_the_readme_tells_to_write_is_accepted(copy: Path) -> None:
    (copy / "local.yaml").write_text("db:\n  pool:\n    size: 25\n")
    assert problems(copy) == []
    assert merge(layers(copy))["db"]["pool"] == {"size": 25, "timeout": 2.5}


@pytest.mark.parametrize(
    ("local", "path", "message"),
    [
        ({"log": {"level": "verbose"}}, "log.level", '"verbose" is not one of'),
        ({"db": {"pool": {"sise": 3}}}, "db.pool.sise", "unknown key 'sise'; did you mean 'size'?"),
        ({"db": {"pool": {"size": 0}}}, "db.pool.size", "0 is less than the minimum of 1"),
        ({"service": {"listen": 8080}}, "service.listen", "8080 is not of type string"),
        ({"limits": {"paths": {"login": 3}}}, "limits.paths.login", "not a key that is allowed here"),
        ({"payments": {"default": "cash"}}, "payments.default", "is 'cash', which is none of the providers"),
        ({"db": {"pool": {"timeout": 10}}}, "db.pool.timeout", "must be less than service.request_timeout"),
        (
            {"features": {"new_checkout": False}},
            "rollout.new_checkout",
            "is planned, but features.new_checkout",
        ),
    ],
)
def test_what_its_schema_and_its_check_refuse(copy: Path, local: Any, path: str, message: str) -> None:
    (copy / "local.yaml").write_text(json.dumps(local))
    [(where, what)] = problems(copy)
    assert where == path
    assert what.startswith(message)


def test_the_worker_asks_for_paths_that_are_there() -> None:
    tree = merge(layers(QUICKSTART))
    source = ast.parse((QUICKSTART / "worker.py").read_text())
    asked = [
        call.args[0].value
        for call in ast.walk(source)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "get"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]
    assert asked
    for path in asked:
        assert look_up(tree, path, default=None) is not None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with arguments, in the quickstart's copy and with a runtime directory of its own."""
    started: list[subprocess.Popen[str]] = []
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "SHMCONF_DIR": str(runtime), "STATE_DIRECTORY": str(tmp_path / "state")}
    if "PYTHONPATH" in environment:
        entries = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries)

    def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_the_worker_follows_the_files_until_it_is_interrupted(
    copy: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    worker = start(copy, "worker.py")
    agent = start(copy, "-m", "shmconf_agent", "run")
    assert worker.stdout is not None
    assert worker.stdout.readline() == (
        f"worker {worker.pid} has version 1: 10 connections to shop at db.internal:5432\n"
    )
    assert worker.stdout.readline() == "/login: welcome (at most 2 a second)\n"
    (copy / "local.yaml").write_text("service:\n  notice: back soon\ndb:\n  pool:\n    size: 25\n")
    assert worker.stdout.readline() == (
        f"worker {worker.pid} has version 2: 25 connections to shop at db.internal:5432\n"
    )
    assert worker.stdout.readline() == "/login: back soon (at most 2 a second)\n"
    worker.send_signal(signal.SIGINT)
    assert worker.communicate(timeout=120) == ("", "worker: stopped\n")
    assert worker.returncode == 0
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=120)
    assert agent.returncode == 0
