"""The traps of parsers and encoders, one test for each: first the usual way falls into it, then the agent does not.

- Deep nesting kills the process, or the parser (`test_deep_nesting`).
- A few bytes expand to many (`test_a_bomb_of_aliases`, `test_a_bomb_of_merge_keys`).
- The last of two equal keys is kept without a word (`test_a_duplicate_key`); what YAML 1.1 reads otherwise than it
  looks (`test_surprises`).
- Numbers that no reader of msgpack, or of JSON, can have (`test_numbers_...`).
- What msgpack refuses of what YAML and TOML give (`test_dates_...`); what the schema's validator refuses of it
  (`test_a_schema_...`).
- An empty read wipes the configuration (`test_an_empty_read`); one failure wedges what follows (`test_one_failure`);
  reloads without a change (`test_touching_a_file`).

That the garbage collector takes most of a large parse, and what that costs, is measured by `make bench-reload`.
"""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema_rs
import msgpack
import pytest
import tomli
import yaml
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

DEEP = 60_000


@pytest.fixture
def site(home):
    """An agent that serves conf/a.yaml."""
    home.segment("conf/")
    home.write("conf/a.yaml", "a: 1\n")
    home.start()
    home.reader = home.attach()
    assert home.reader["a"] == 1
    return home


def refused(site, eventually, code, name, text):
    """The file is refused for this reason, nothing else changes, and what comes after it is taken."""
    before = site.reader.version
    site.write(f"conf/{name}", text)
    answer = json.loads(site.run("reload", "web", "--format", "json").stdout)
    assert (answer["verdict"], answer["version"]) == ("rejected", before)
    assert {problem["code"] for problem in answer["problems"]} <= set(code.split())
    assert answer["problems"]
    (site.root / "conf" / name).unlink()
    site.write("conf/a.yaml", f"a: {before + 1}\n")
    eventually(lambda: site.reader["a"] == before + 1, lambda: f"what came after; {site.agents[0].text()}")
    assert site.agents[0].process.poll() is None


def published(site, eventually, name, text):
    """The file is taken."""
    before = site.reader.version
    site.write(f"conf/{name}", text)
    eventually(lambda: site.reader.version > before, lambda: f"{name}; {site.agents[0].text()}")
    return site.reader.snapshot()


def test_deep_nesting(site, eventually):
    load = f"import yaml; yaml.load('[' * {DEEP}, yaml.CSafeLoader)"
    result = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True)
    # A crash; the libyaml in PyYAML's newest wheels raises at a depth of its own, which nobody can set.
    assert result.returncode < 0 or "exceeded maximum nesting depth" in result.stderr, result.stderr
    with pytest.raises(RecursionError):
        yaml.load("[" * DEEP, yaml.SafeLoader)
    with pytest.raises(RecursionError):
        json.loads("[" * DEEP)
    with pytest.raises(RecursionError):
        tomli.loads("a = " + "[" * DEEP)
    for name, text in (("b.yaml", "[" * DEEP), ("b.json", "[" * DEEP), ("b.toml", "a = " + "[" * DEEP)):
        refused(site, eventually, "limit-depth", name, text)


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_a_bomb_of_aliases(site, eventually):
    small = bomb(4)
    assert len(msgpack.packb(yaml.safe_load(small))) > 100 * len(small)  # and ten times as much for each line more
    refused(site, eventually, "limit-nodes", "b.yaml", bomb(9))


def test_a_bomb_of_merge_keys(site, eventually):
    def text(levels: int) -> str:
        lines = ["m0: &m0 {" + ", ".join(f"k{n}: 1" for n in range(10)) + "}"]
        for level in range(1, levels):
            lines.append(f"m{level}: &m{level}")
            lines += [f"  c{n}: {{<<: *m{level - 1}, x{n}: 1}}" for n in range(8)]
        return "\n".join(lines) + "\n"

    small = text(4)
    assert len(msgpack.packb(yaml.safe_load(small))) > 20 * len(small)
    refused(site, eventually, "limit-keys limit-nodes", "b.yaml", text(8))


def test_a_duplicate_key(site, eventually):
    assert yaml.safe_load("b: 1\nb: 2\n") == {"b": 2}
    assert json.loads('{"b": 1, "b": 2}') == {"b": 2}
    refused(site, eventually, "duplicate-key", "b.yaml", "b: 1\nb: 2\n")
    refused(site, eventually, "duplicate-key", "b.json", '{"b": 1, "b": 2}')
    assert yaml.safe_load("1: a\ntrue: b\n") == {1: "b"}  # one key, of both
    refused(site, eventually, "duplicate-key", "b.yaml", "1: a\ntrue: b\n")


def test_surprises(site, eventually):
    text = "country: NO\ntime: 12:34:56\nmode: 010\nlimit: 1e3\n"
    usual = yaml.safe_load(text)
    assert usual == {"country": False, "time": 45296, "mode": 8, "limit": "1e3"}
    snapshot = published(site, eventually, "b.yaml", text)
    assert snapshot.to_dict() == {"a": 1, **usual}  # the values stay PyYAML's
    check = site.run("check")
    assert check.returncode == 0
    warned = [line for line in (check.stdout + check.stderr).splitlines() if "conf/b.yaml:" in line]
    for line, number in enumerate(("1:10", "2:7", "3:7", "4:8"), start=1):
        assert any(f"conf/b.yaml:{number}: warning: " in each for each in warned), (line, warned)


def test_numbers_that_not_every_reader_can_have(site, eventually):
    assert tomli.loads(f"b = {2**70}") == {"b": 2**70}
    with pytest.raises(OverflowError):
        msgpack.packb({"b": 2**70})
    assert json.loads('{"b": 1e400}') == {"b": float("inf")}
    assert json.dumps(json.loads('{"b": NaN}')) == '{"b": NaN}'  # which is no JSON
    refused(site, eventually, "number-range", "b.toml", f"b = {2**70}\n")
    refused(site, eventually, "number-range", "b.json", '{"b": 1e400}')
    assert math.isnan(published(site, eventually, "b.json", '{"b": NaN}')["b"])
    assert site.run("get", "web", "b", "--format", "json").stdout == "null\n"


def test_dates_and_keys_that_msgpack_refuses(site, eventually):
    usual = tomli.loads("at = 2001-02-03T04:05:06\nday = 2001-02-03\nhour = 04:05:06\n")
    for value in usual.values():
        with pytest.raises((TypeError, ValueError)):
            msgpack.packb(value, datetime=True)
    with pytest.raises(ValueError, match="int is not allowed for map key"):
        msgpack.unpackb(msgpack.packb({1: 2}))
    snapshot = published(site, eventually, "b.toml", "at = 2001-02-03T04:05:06\nday = 2001-02-03\nhour = 04:05:06\n")
    assert snapshot.to_dict() == {"a": 1, **usual}
    assert type(snapshot["at"]) is datetime.datetime
    assert published(site, eventually, "c.yaml", "numbers: {1: 2}\n")["numbers"] == {1: 2}


def test_a_schema_for_what_its_validator_does_not_know(home, eventually):
    for value in (datetime.date(2001, 2, 3), b"bytes", {1: 2}):
        with pytest.raises(ValueError, match=r"Unsupported type|must be"):
            jsonschema_rs.is_valid({}, value)
    home.segment("conf/", schema="schema.json")
    schema = {"properties": {"day": {"format": "date"}, "numbers": {"required": ["1"]}, "raw": {"type": "string"}}}
    home.write("schema.json", json.dumps(schema))
    home.write("conf/a.yaml", "a: 1\nday: 2001-02-03\nnumbers: {1: 2}\nraw: !!binary aGVsbG8=\n")
    home.start()
    home.reader = home.attach()
    tree = home.reader.snapshot().to_dict()
    assert tree == {"a": 1, "day": datetime.date(2001, 2, 3), "numbers": {1: 2}, "raw": b"hello"}
    home.write("conf/a.yaml", "a: 2\nday: 2001-02-03\nnumbers: {2: 2}\n")
    home.agents[0].says("rejected, still serving version 1: conf/a.yaml:3:1: numbers: ")


def test_an_empty_read(site, eventually):
    file = site.root / "conf" / "a.yaml"
    seen = []
    with file.open("w") as opened:  # as every in-place write begins
        seen.append(yaml.safe_load(file.read_text()) or {})
        opened.write("a: 2\n")
    assert seen == [{}]  # what a program that reads at the first event publishes
    eventually(lambda: site.reader["a"] == 2, "the write")
    file.write_text("")
    site.agents[0].says("is empty, which it was not before")
    assert site.reader["a"] == 2
    assert site.reader.status().serving_last_known_good


def test_one_failure_wedges_nothing(site, eventually):
    class Loader(threading.Thread):
        """Loads the file for each wake-up, as usual; the first error is its end, and nobody is told."""

        def __init__(self, file: Path) -> None:
            super().__init__(daemon=True)
            self.file, self.wake, self.loaded = file, threading.Semaphore(0), []

        def run(self) -> None:
            while self.wake.acquire(timeout=120):
                try:
                    self.loaded.append(yaml.safe_load(self.file.read_text()))
                except yaml.YAMLError:
                    return

    loader = Loader(site.root / "conf" / "a.yaml")
    loader.start()
    for number in range(2, 6):
        site.write("conf/a.yaml", f"a: [{number}\n")
        loader.wake.release()
        eventually(lambda number=number: f"rejected, still serving version {number - 1}" in site.agents[0].text(), "no")
        site.write("conf/a.yaml", f"a: {number}\n")
        loader.wake.release()
        eventually(lambda number=number: site.reader["a"] == number, "the repair")
    loader.join(60)
    assert loader.loaded == []
    assert site.reader.version == 5


def test_touching_a_file_reloads_nothing(site, eventually):
    heard = threading.Event()
    handler = FileSystemEventHandler()
    handler.on_modified = lambda event: heard.set()
    observer = Observer()
    observer.schedule(handler, str(site.root / "conf"))
    observer.start()
    try:
        file = site.root / "conf" / "a.yaml"
        file.touch()
        file.chmod(0o600)
        file.write_text(file.read_text())
        assert heard.wait(60)  # a reload, in a program that trusts events
    finally:
        observer.stop()
        observer.join(60)
    reload = json.loads(site.run("reload", "web", "--format", "json").stdout)
    assert (reload["verdict"], reload["version"]) == ("unchanged", 1)
    site.write("conf/b.yaml", "b: 1\n")
    eventually(lambda: site.reader.get("b") == 1, "the next change")
    assert site.reader.version == 2
