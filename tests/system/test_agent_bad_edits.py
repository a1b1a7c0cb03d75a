"""A bad edit of any kind leaves every reader on the old version and says where it is; a repair is one new version."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import shmconf

BASE = 'server:\n  port: 8080\n  host: "localhost"\n'
GOOD = {
    "base.yaml": BASE,
    "conf.d/10-db.toml": "[db]\nurl = 'postgres://one'\npool = 5\n",
    "conf.d/20-flags.json": '{"flags": {"dark": true}}\n',
    "sentinel.yaml": "sentinel: 0\n",
}
SCHEMA = {
    "type": "object",
    "properties": {"server": {"properties": {"port": {"type": "integer", "maximum": 65535}}, "required": ["port"]}},
}
CONFIG = """[segment.web]
sources = ["base.yaml", "conf.d/", "sentinel.yaml"]
schema = "schema.json"
"""


def write_all(home) -> None:
    home.write("shmconf.toml", CONFIG)
    home.write("schema.json", json.dumps(SCHEMA))
    for name, text in GOOD.items():
        home.write(name, text)


class Bench:
    """One agent for all bad edits: breaks a file, looks at everything, repairs it."""

    def __init__(self, home, eventually) -> None:
        self.home = home
        self.eventually = eventually
        write_all(home)
        self.agent = home.start()
        self.reader = home.attach()
        self.sequence = 0

    def rejected(self, place: str) -> None:
        """Everybody says that the files are not what is served, and where to look."""
        before, digest = self.reader.version, self.reader.snapshot().digest
        error = self.eventually(
            lambda: self.reader.status().last_error, lambda: f"a rejection of {place}; {self.agent.text()}"
        )
        code, told = self.home.status()
        assert re.match(place, error), error
        assert code == 3
        assert re.match(place, told["last_error"])
        assert re.match(place, told["problems"][0])
        assert told["serving_last_known_good"] is True
        assert told["agent_alive"] is True
        assert told["state"] == "serving last known good"
        assert (told["version"], told["digest"]) == (before, digest)
        assert self.reader["server"] == {"port": 8080, "host": "localhost"}
        self.agent.says(f"rejected, still serving version {before}: {told['problems'][0][:40]}")

    def repaired(self, versions: int) -> None:
        """Healthy again with so many new versions, also once a later edit has come."""
        before = self.reader.version
        self.repair()
        self.eventually(lambda: self.reader.status().last_error is None, lambda: f"a repair; {self.agent.text()}")
        assert self.reader.version == before + versions
        assert not self.reader.status().serving_last_known_good
        self.sentinel()
        assert self.reader.version == before + versions + 1

    def repair(self) -> None:
        if (self.home.root / "base.yaml").is_dir():
            (self.home.root / "base.yaml").rmdir()
        write_all(self.home)
        self.home.write("sentinel.yaml", f"sentinel: {self.sequence}\n")

    def sentinel(self) -> None:
        self.sequence += 1
        self.home.write("sentinel.yaml", f"sentinel: {self.sequence}\n")
        self.eventually(lambda: self.reader["sentinel"] == self.sequence, "the sentinel")


@pytest.fixture(scope="module")
def bench(module_home, eventually) -> Bench:
    return Bench(module_home("bench"), eventually)


def instead(name: str, data: str | bytes) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return edit


def fifo(root: Path) -> None:
    (root / "base.yaml").unlink()
    os.mkfifo(root / "base.yaml")


def directory(root: Path) -> None:
    (root / "base.yaml").unlink()
    (root / "base.yaml").mkdir()


def link_in_a_circle(root: Path) -> None:
    (root / "base.yaml").unlink()
    (root / "base.yaml").symlink_to("base.yaml")


BAD = {
    "YAML syntax": (instead("base.yaml", "server:\n  port: [8080\n  host: x\n"), r"base\.yaml:[23]:\d+: "),
    "TOML syntax": (instead("conf.d/10-db.toml", "[db]\nurl = \n"), r"conf\.d/10-db\.toml:2:\d+: "),
    "JSON syntax": (instead("conf.d/20-flags.json", '{"flags": {"dark": tru}}\n'), r"conf\.d/20-flags\.json:1:20: "),
    "schema": (instead("base.yaml", "server:\n  host: x\n  port: 70000\n"), r"base\.yaml:3:3: server\.port: .*70000"),
    "schema, a key missing": (instead("base.yaml", "server:\n  host: x\n"), r"base\.yaml:1:1: server: .*port"),
    "duplicate key in YAML": (instead("base.yaml", BASE + "server: 1\n"), r"base\.yaml:4:1: .*(line 1|1:1)"),
    "duplicate key in TOML": (instead("conf.d/10-db.toml", "[db]\npool = 1\npool = 2\n"), r"conf\.d/10-db\.toml:3:1: "),
    "duplicate key in JSON": (instead("conf.d/20-flags.json", '{"a": 1,\n "a": 2}'), r"conf\.d/20-flags\.json:2:2: "),
    "truncated to zero bytes": (instead("base.yaml", ""), r"base\.yaml: is empty"),
    "white space only": (instead("base.yaml", " \n\n"), r"base\.yaml: is empty"),
    "deleted though required": (lambda root: (root / "base.yaml").unlink(), r"base\.yaml: does not exist"),
    "not UTF-8": (instead("base.yaml", b"server:\n  port: 8080\n  host: \xff\n"), r"base\.yaml:3:9: .*UTF-8"),
    "a named pipe": (fifo, r"base\.yaml: is a named pipe"),
    "a directory": (directory, r"base\.yaml/?: "),
    "a link in a circle": (link_in_a_circle, r"base\.yaml: .*link"),
    "top level a list": (instead("base.yaml", "- 1\n"), r"base\.yaml:1:1: "),
    "the directory emptied": (lambda root: shutil.rmtree(root / "conf.d"), r"conf\.d/: "),
    "the schema broken": (instead("schema.json", '{"type": 1}'), r"schema\.json:1:\d+: "),
    "the schema deleted": (lambda root: (root / "schema.json").unlink(), r"schema\.json: does not exist"),
    "an integer beyond 64 bits": (instead("base.yaml", BASE + f"big: {2**64}\n"), r"base\.yaml:4:6: "),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_edit_is_refused_with_its_place_and_a_repair_is_taken(bench, kind):
    edit, place = BAD[kind]
    edit(bench.home.root)
    bench.rejected(place)
    bench.repaired(versions=0)  # the same content as before the bad edit


def test_a_repair_with_another_content_is_one_new_version(bench):
    (bench.home.root / "base.yaml").write_text("server: [\n")
    bench.rejected(r"base\.yaml:")
    shown = bench.home.run("status", "web")
    assert shown.returncode == 3
    assert f"rejected   {bench.reader.status().last_error}" in shown.stdout
    before = bench.reader.version
    bench.home.write("base.yaml", BASE.replace("8080", "9090"))
    bench.eventually(lambda: bench.reader["server"]["port"] == 9090, "the repair")
    assert bench.home.status()[0] == 0
    bench.sentinel()
    assert bench.reader.version == before + 2
    bench.home.write("base.yaml", BASE)
    bench.eventually(lambda: bench.reader["server"]["port"] == 8080, "the first content again")


def test_a_second_bad_edit_replaces_the_reason_of_the_first(bench):
    (bench.home.root / "base.yaml").write_text("server: [\n")
    bench.rejected(r"base\.yaml:")
    (bench.home.root / "base.yaml").write_text("server:\n  port: 70000\n")
    bench.eventually(lambda: "70000" in bench.reader.status().last_error, "the second reason")
    bench.rejected(r"base\.yaml:2:3: server\.port")
    bench.repaired(versions=0)


def test_an_edit_of_another_file_waits_for_the_repair(bench):
    """All or nothing: a good file is not published beside a bad one."""
    (bench.home.root / "base.yaml").write_text("server: [\n")
    bench.rejected(r"base\.yaml:")
    before = bench.reader.version
    bench.home.write("conf.d/10-db.toml", "[db]\npool = [\n")
    bench.eventually(lambda: bench.reader.status().agent.problem_count == 2, "both problems")
    bench.home.write("conf.d/10-db.toml", "[db]\npool = 6\n")
    bench.eventually(lambda: bench.reader.status().agent.problem_count == 1, "the other problem alone")
    bench.home.write("base.yaml", BASE)
    bench.eventually(lambda: bench.reader["db"] == {"pool": 6}, "both edits")
    assert bench.reader.version == before + 1
    bench.home.write("conf.d/10-db.toml", GOOD["conf.d/10-db.toml"])
    bench.eventually(lambda: bench.reader["db"]["pool"] == 5, "the first content again")


def test_an_unreadable_file_is_refused_and_taken_when_it_is_readable_again(request, open_home, eventually):
    """As another user than root, who may read everything."""
    before = request.getfixturevalue("as_nobody") if os.geteuid() == 0 else ""
    write_all(open_home)
    agent = open_home.start(before=before)
    reader = open_home.attach()
    (open_home.root / "base.yaml").chmod(0)
    error = eventually(lambda: reader.status().last_error, "a rejection")
    assert error.startswith("base.yaml: cannot be read: permission denied")
    code, told = open_home.status()
    assert (code, told["version"]) == (3, 1)
    assert reader["server"]["port"] == 8080
    (open_home.root / "base.yaml").chmod(0o644)
    eventually(lambda: reader.status().last_error is None, lambda: f"the repair; {agent.text()}")
    assert open_home.status()[0] == 0
    assert reader.version == 1


def test_check_lists_all_problems_of_all_files_at_once(home):
    write_all(home)
    assert home.run("check").returncode == 0
    home.write("base.yaml", "server:\n  port: 1\n  port: 2\n")
    home.write("conf.d/10-db.toml", "a = 1\na = 2\n")
    home.write("conf.d/20-flags.json", "{")
    (home.root / "sentinel.yaml").unlink()
    result = home.run("check")
    assert result.returncode == 78
    found = [line.split(": ")[0] for line in result.stdout.splitlines()]
    assert sorted(found) == ["base.yaml:3:3", "conf.d/10-db.toml:2:1", "conf.d/20-flags.json:1:2", "sentinel.yaml"]
    assert "4 problems" in result.stderr
    told = json.loads(home.run("check", "--format", "json").stdout)
    assert told["valid"] is False
    problem = next(problem for problem in told["problems"] if problem["file"] == "base.yaml")
    assert (problem["segment"], problem["line"], problem["column"]) == ("web", 3, 3)


def test_check_shows_the_lines_on_stderr(home):
    home.segment("base.yaml", "gone.yaml", schema="schema.json")
    home.write("schema.json", '{"properties": {"country": {"type": "string"}, "log": {"additionalProperties": false}}}')
    home.write("base.yaml", "log: {}\n日本: {a: 1,\ta: 2}\n")
    result = home.run("check")
    assert result.returncode == 78
    assert result.stdout.splitlines() == [
        "base.yaml:2:12: duplicate key 'a', first set at line 2, column 6",
        "gone.yaml: does not exist; create it, or mark the source optional",
    ]
    assert result.stderr.splitlines() == [
        "    2 | 日本: {a: 1,    a: 2}",
        "      |                 ^ [duplicate-key]",
        "        [file-missing]",
        "shmconf: 2 problems found",
    ]
    home.write("gone.yaml", "country: NO\n")
    home.write("base.yaml", "log: {level: on}\n")
    told = json.loads(home.run("check", "--format", "json").stdout)
    assert told["problems"] == [
        {
            "segment": "web",
            "file": "base.yaml",
            "line": 1,
            "column": 7,
            "code": "schema-unknown-key",
            "message": "log.level: unknown key 'level'",
            "hint": None,
            "path": "log.level",
        },
        {
            "segment": "web",
            "file": "gone.yaml",
            "line": 1,
            "column": 1,
            "code": "schema-type",
            "message": "country: false is not of type string",
            "hint": "NO is false in YAML 1.1: quote it",
            "path": "country",
        },
    ]
    home.write("shmconf.toml", "[segment.web]\nsorces = []\n")
    result = home.run("check")
    assert result.stderr.splitlines()[:2] == ["    1 | [segment.web]", "      |          ^ [agent-file]"]
    assert "sorces" in result.stdout


def test_check_warns_of_what_yaml_reads_otherwise_than_it_looks(home):
    home.segment("base.yaml", "over.yaml")
    home.write("base.yaml", "country: NO\nname: 'NO'\n1: a\n---\nmode: 010\n")
    home.write("over.yaml", "true: b\n")
    result = home.run("check")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "base.yaml:1:10: warning: NO is false in YAML 1.1; write false, or quote it",
        "base.yaml:5:7: warning: 010 is 8 in YAML 1.1, octal; write 8, or quote it",
        "over.yaml:1:1: warning: the key true is equal to the key 1 of base.yaml:3:1, and they are one entry; "
        "quote them to keep them apart",
    ]
    assert "      |       ^ [yaml-octal]" in result.stderr
    assert "web: valid, 2 files" in result.stderr
    told = json.loads(home.run("check", "--format", "json").stdout)
    assert (told["valid"], told["problems"]) == (True, [])
    assert [(each["segment"], each["line"], each["code"]) for each in told["warnings"]] == [
        ("web", 1, "yaml-bool"),
        ("web", 5, "yaml-octal"),
        ("web", 1, "yaml-equal-keys"),
    ]
    home.write("over.yaml", "true: [\n")
    result = home.run("check")
    assert result.returncode == 78
    assert [line.split(" ")[0] for line in result.stdout.splitlines()] == [
        "over.yaml:2:1:",
        "base.yaml:1:10:",
        "base.yaml:5:7:",
    ]
    home.write("over.yaml", "true: b\n")
    home.start()
    assert home.attach().snapshot().to_dict() == {"country": False, "name": "NO", 1: "b", "mode": 8}


def test_check_lists_all_violations_of_the_schema_and_of_the_check(home):
    write_all(home)
    home.write("schema.json", json.dumps({"properties": {key: {"type": "string"} for key in ("a", "b")}}))
    home.write("base.yaml", "a: 1\nb: 2\n")
    result = home.run("check")
    assert result.returncode == 78
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == ["base.yaml:1:1", "base.yaml:2:1"]
    home.write("shmconf.toml", CONFIG.replace('schema = "schema.json"', 'check = "rules:check"'))
    home.write("rules.py", "def check(tree):\n    return ['not at all', ('b', 'b is odd')]\n")
    result = home.run("check")
    assert result.returncode == 78
    assert {line.split(": ", 1)[1] for line in result.stdout.splitlines()} == {"not at all", "b: b is odd"}
    assert "base.yaml:2:1: b: b is odd" in result.stdout


def test_first_start_with_invalid_files_serves_nothing_and_says_why(home, eventually):
    write_all(home)
    home.write("base.yaml", "server: [\n")
    agent = home.start()
    agent.says("web: rejected, nothing is served yet: base.yaml:2:1")
    with pytest.raises(shmconf.SegmentNotFound, match=r"nothing published yet: base\.yaml:2:1"):
        shmconf.attach("web", directory=home.runtime)
    code, told = home.status()
    assert (code, told["version"], told["state"]) == (69, 0, "nothing published")
    assert told["last_error"].startswith("base.yaml:2:1")
    result = home.run("get", "web")
    assert result.returncode == 69
    assert "base.yaml:2:1" in result.stderr
    home.write("base.yaml", BASE)
    reader = home.attach()
    assert reader.version == 1
    assert home.status()[0] == 0


def test_a_reader_may_be_there_before_the_agent_and_before_the_files_are_valid(home, eventually):
    write_all(home)
    home.write("base.yaml", "server: [\n")
    reading = f"""
import shmconf, sys
print("sees", shmconf.attach("web", wait=60, directory={str(home.runtime)!r})["server"]["port"])
sys.exit()
"""
    worker = home.start(before=reading)
    agent = home.start()
    agent.says("nothing is served yet")
    assert worker.process.poll() is None
    home.write("base.yaml", BASE)
    assert worker.ends() == 0
    assert "sees 8080" in worker.text()


@pytest.mark.parametrize("bad", ["server: [\n", ""], ids=["syntax", "truncated to zero bytes"])
def test_last_known_good_is_served_after_a_reboot_with_invalid_files(home, eventually, bad):
    write_all(home)
    first = home.start()
    version = home.attach().version
    assert first.stop() == 0
    shutil.rmtree(home.runtime)  # as a reboot does
    home.write("base.yaml", bad)
    agent = home.start()
    reader = home.attach()
    assert reader.version > version
    assert reader["server"]["port"] == 8080
    code, told = home.status()
    assert code == 3
    assert told["last_error"].startswith("base.yaml:")
    assert reader.status().agent.stale
    agent.says("last known good")
    served = reader.version
    home.write("base.yaml", BASE)
    eventually(lambda: not reader.status().serving_last_known_good, "the repair")
    assert home.status()[0] == 0
    assert reader.version == served  # equal to what is served: no new version


@pytest.mark.parametrize("bad", ["server: [\n", ""], ids=["syntax", "truncated to zero bytes"])
def test_what_a_predecessor_served_stays_when_the_files_are_invalid_at_the_start(home, eventually, bad):
    write_all(home)
    first = home.start()
    reader = home.attach()
    first.kill()
    home.write("base.yaml", bad)
    agent = home.start()
    agent.says("rejected, still serving version 1: base.yaml")
    code, told = home.status()
    assert (code, told["version"]) == (3, 1)
    assert reader["server"]["port"] == 8080


def test_a_damaged_last_known_good_is_passed_over_and_noted(home, eventually):
    write_all(home)
    assert (home.start(), home.attach())[0].stop() == 0
    shutil.rmtree(home.runtime)
    (kept,) = (home.state / "web.history").glob("*.version")
    kept.write_bytes(kept.read_bytes()[:-3] + b"xyz")
    home.write("base.yaml", "server: [\n")
    agent = home.start()
    agent.says("nothing is served yet")
    code, told = home.status()
    assert code == 69
    assert any(f"{kept} is damaged" in warning for warning in told["warnings"])
