"""What an agent tells of itself: /metrics, /status and /config at the admin socket, and the file for node_exporter."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from shmconf_agent.reasons import REASONS

CHECK = "def check(tree):\n    return ['no b'] if 'b' in tree else None\n"
# Says that it began, ends when it is told to, and says so.
WAITS = """
import os, time
def check(tree):
    if "wait" in tree:
        open(f"began-{tree['wait']}", "w").close()
        while not os.path.exists(f"go-{tree['wait']}"):
            time.sleep(0.005)
        open(f"ended-{tree['wait']}", "w").close()
"""
# At most so much may a file's time be behind the clock.
TICK = 0.02


class Scrape:
    """One answer of /metrics, or a textfile."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, segment: str = "web", **labels: str) -> float:
        return self._samples[f"shmconf_{name}", frozenset({"segment": segment, **labels}.items())]

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels).get(label, "") for found, labels in self._samples if found == f"shmconf_{name}"}

    def failed(self, segment: str = "web") -> dict[str, float]:
        """The reasons that were counted at all."""
        counts = {reason: self.value("reloads_failed_total", segment, reason=reason) for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}


class UnixConnection(http.client.HTTPConnection):
    """HTTP at a socket of the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=100)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(100)
        self.sock.connect(os.path.relpath(self._path))  # a socket's address has room for 107 bytes


def ask(home, page: str, segment: str = "web", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = UnixConnection(home.runtime / f"{segment}.sock")
    try:
        connection.request("GET", page, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def scrape(home, segment: str = "web") -> Scrape:
    status, content_type, text = ask(home, "/metrics", segment)
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Scrape(text)


def told(home, page: str, segment: str = "web") -> Any:
    status, content_type, text = ask(home, page, segment)
    assert (status, content_type.partition(";")[0]) == (200, "application/json"), text
    return json.loads(text)


def reload(home, code: int) -> None:
    """Have the files judged once more; afterwards all of it is counted."""
    result = home.run("reload", "web")
    assert result.returncode == code, result.stdout + result.stderr


@pytest.fixture
def web(home):
    """A home with a running agent that serves base.yaml as web."""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.start().says("version 1 published")
    home.attach()
    return home


# --- /metrics ---------------------------------------------------------------------------------------------------------


def test_publications_are_counted_and_timed(web):
    before = time.time()
    found = scrape(web)
    assert found.value("version") == 1
    assert found.value("last_reload_successful") == 1
    assert before - 60 < found.value("last_reload_success_timestamp_seconds") <= time.time()
    assert found.value("reloads_total") == 1
    assert found.failed() == {}
    assert found.value("serving_last_known_good") == 0
    assert found.value("watch_errors_total") == 0
    assert found.value("segment_bytes") == (web.runtime / "web.shmconf").stat().st_size
    assert found.value("info", digest=web.readers[0].snapshot().digest) == 1
    assert found.value("edit_to_visible_seconds_count") == 0  # the first version shows no edit
    for version in (2, 3):
        began = time.time()
        web.write("base.yaml", f"a: {version}\n")
        assert web.readers[0].wait_version(after=version - 1, timeout=60) == version
        web.agents[0].says(f"version {version} published")
        found = scrape(web)
        assert found.value("version") == version
        assert found.value("reloads_total") == version
        assert found.value("edit_to_visible_seconds_count") == version - 1
        if version == 2:
            assert 0 < found.value("edit_to_visible_seconds_sum") <= time.time() - began + TICK
    stages = found.labels("reload_duration_seconds_count", "stage")
    assert stages >= {"read", "parse", "merge", "validate", "encode", "publish"}
    for stage in stages - {"check", "guard"}:
        assert found.value("reload_duration_seconds_count", stage=stage) == 3
        assert 0 < found.value("reload_duration_seconds_sum", stage=stage) < 60
    events = [line for line in web.agents[0].text().splitlines() if "published" in line]
    assert len(events) == found.value("reloads_total")


def test_every_refusal_is_counted_by_its_reason(home):
    home.write("schema.json", json.dumps({"properties": {"a": {"type": "integer"}}}))
    home.write("rules.py", CHECK)
    home.segment(
        "base.yaml", schema="schema.json", check="rules:check", max_bytes=1024 * 1024, substitute=True,
        guard={"frozen": ["keep"]}, limits={"max_depth": 20},
    )  # fmt: skip
    toml = (home.root / "shmconf.toml").read_text()
    for table in ("guard", "limits"):  # JSON's maps are no TOML
        line = next(line for line in toml.splitlines() if line.startswith(f"{table} = "))
        [(key, value)] = json.loads(line.partition(" = ")[2]).items()
        toml = toml.replace(line + "\n", "") + f"[segment.web.{table}]\n{key} = {json.dumps(value)}\n"
    home.write("shmconf.toml", toml)
    good = "a: 1\nkeep: 1\n"
    home.write("base.yaml", good)
    home.start().says("version 1 published")
    home.attach()
    edits = {
        "syntax": "a: [\n",
        "schema": good.replace("a: 1", "a: x"),
        "check": good + "b: 1\n",
        "guard": good.replace("keep: 1", "keep: 2"),
        "reference": good + "c: ${file:nowhere}\n",
        "limit": good + "c: " + "[" * 30 + "]" * 30 + "\n",
        "publish": good + f"c: {'x' * 1_044_000}\n",
        "source": "\n",
    }
    for reason, text in edits.items():
        home.write("base.yaml", text)
        reload(home, 1 if reason in ("guard", "publish") else 78)
        found = scrape(home)
        assert found.value("last_reload_successful") == 0, reason
        assert found.value("serving_last_known_good") == 1, reason
        assert found.value("version") == 1
        assert reason in found.failed()
        assert found.value("reloads_total") >= 1 + sum(found.failed().values())
    (home.root / "base.yaml").unlink()
    reload(home, 78)
    before = scrape(home)
    assert before.failed().keys() == edits.keys()
    home.write("base.yaml", good)
    reload(home, 0)
    after = scrape(home)
    assert (after.value("last_reload_successful"), after.value("serving_last_known_good")) == (1, 0)
    assert after.failed() == before.failed()
    assert after.value("reloads_total") > before.value("reloads_total")
    assert after.value("last_reload_success_timestamp_seconds") >= before.value(
        "last_reload_success_timestamp_seconds"
    )
    assert (after.value("version"), after.value("edit_to_visible_seconds_count")) == (1, 0)


def test_a_reload_that_changes_nothing_is_one(web):
    before = scrape(web)
    reload(web, 0)
    after = scrape(web)
    assert after.value("reloads_total") == before.value("reloads_total") + 1
    assert after.value("last_reload_success_timestamp_seconds") > before.value("last_reload_success_timestamp_seconds")
    assert after.value("reload_duration_seconds_count", stage="parse") == 1  # of publications


def test_the_reasons_are_there_before_anything_fails_and_nothing_is_served(home):
    home.segment("base.yaml")
    home.write("base.yaml", "a: [\n")
    home.start().says("rejected")
    found = scrape(home)
    assert found.labels("reloads_failed_total", "reason") == set(REASONS)
    assert found.failed() == {"syntax": 1}
    assert (found.value("version"), found.value("last_reload_successful")) == (0, 0)
    assert found.value("serving_last_known_good") == 0  # nothing is served at all
    assert found.value("last_reload_success_timestamp_seconds") == 0
    assert "shmconf_info{" not in found.text


def test_one_socket_tells_of_all_segments(home):
    home.segment("base.yaml")
    home.segment("jobs.yaml", name="jobs")
    home.write("base.yaml", "a: 1\n")
    home.write("jobs.yaml", "a: 1\n")
    agent = home.start()
    for name in ("web", "jobs"):
        agent.says(f"{name}: version 1 published")
        found = scrape(home, name)
    assert found.labels("version", "segment") == {"web", "jobs"}
    home.write("jobs.yaml", "a: 2\n")
    agent.says("jobs: version 2 published")
    found = scrape(home)
    assert (found.value("version", "jobs"), found.value("version")) == (2, 1)
    # Other settings of a segment reset no counter; a segment that goes takes its series along.
    home.write("shmconf.toml", '[segment.jobs]\nsources = ["jobs.yaml"]\nsettle_ms = 3\n')
    result = home.run("reload", "jobs")
    assert result.returncode == 0, result.stdout + result.stderr
    found = scrape(home, "jobs")
    assert found.labels("version", "segment") == {"jobs"}
    assert found.value("reloads_total", "jobs") >= 3
    assert found.value("version", "jobs") == 2
    assert found.value("edit_to_visible_seconds_count", "jobs") == 1


WORKER = """
import sys, shmconf
reader = shmconf.attach("web")
print("attached", flush=True)
for line in sys.stdin:
    print(reader.get("a"), reader.get("a"), flush=True)
"""


def test_attached_workers_are_counted_by_what_they_have_adopted(home, eventually):
    home.write("base.yaml", "a: 1\n")
    home.write("shmconf.toml", 'metrics_textfile = "web.prom"\n[segment.web]\nsources = ["base.yaml"]\n')
    home.start("run").says("version 1")

    def counted() -> tuple[float, float]:
        found = Scrape(ask(home, "/metrics")[2])
        return found.value("workers", state="current"), found.value("workers", state="behind")

    assert counted() == (0, 0)
    environment = {**os.environ, "SHMCONF_DIR": str(home.runtime)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "attached\n"
        assert counted() == (3, 0)
        home.write("base.yaml", "a: 2\n")
        eventually(lambda: counted() == (0, 3), "a version that nobody has looked at")
        workers[0].stdin.write("look\n")
        workers[0].stdin.flush()
        assert workers[0].stdout.readline() == "2 2\n"
        assert counted() == (1, 2)
        workers[1].kill()
        workers[1].wait()
        assert counted() == (1, 1)

        def written() -> bool:
            found = Scrape((home.root / "web.prom").read_text())
            return (found.value("workers", state="current"), found.value("workers", state="behind")) == (1, 1)

        eventually(written, "the textfile has it, with its next writing")
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert counted() == (0, 0)


def test_openmetrics_for_those_who_ask_for_it(web):
    wanted = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
    status, content_type, text = ask(web, "/metrics", Accept=wanted)
    assert status == 200
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    names = {family.name for family in parse_openmetrics(text)}
    assert {"shmconf", "shmconf_reloads", "shmconf_edit_to_visible_seconds", "process_cpu_seconds"} <= names


def test_trouble_with_watching_is_counted(home, limited):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.start("run", before=limited("instances", 0)).says("version 1 published")
    assert scrape(home).value("watch_errors_total") >= 1
    [status] = told(home, "/status")["segments"]
    assert any("inotify" in warning for warning in status["warnings"])


def test_the_last_known_good_is_told_after_a_restart(web):
    web.agents[0].stop()
    web.write("base.yaml", "a: [\n")
    web.start().says("rejected, still serving version 1")
    found = scrape(web)
    assert (found.value("version"), found.value("serving_last_known_good")) == (1, 1)
    assert (found.value("last_reload_successful"), found.failed()) == (0, {"syntax": 1})


def test_what_was_not_committed_is_a_reason(home, eventually):
    home.segment("base.yaml", commit="stamp")
    home.write("base.yaml", "a: 1\n")
    home.start().says("does not exist; nothing is published before it does")
    assert scrape(home).failed() == {"commit": 1}
    home.write("stamp", "")
    home.agents[0].says("version 1 published")
    assert scrape(home).value("last_reload_successful") == 1
    edited = home.write("base.yaml", "a: 2\n").stat().st_ctime
    home.agents[0].says("they wait for stamp to change")
    eventually(lambda: time.time() > edited + 5 * TICK, "some time has passed")
    committed = time.time()
    home.write("stamp", "")
    home.agents[0].says("version 2 published")
    assert 0 < scrape(home).value("edit_to_visible_seconds_sum") <= time.time() - committed + TICK


def test_a_scrape_during_a_reload_waits_for_nothing(home, eventually):
    home.segment("base.yaml", check="rules:check")
    home.write("rules.py", WAITS)
    home.write("base.yaml", "a: 1\n")
    home.start().says("version 1 published")
    overlapped = False
    for turn in range(5):  # a check is given 5 s, which may be too few for a busy machine
        home.write("base.yaml", f"wait: {turn}\n")
        eventually((home.root / f"began-{turn}").exists, "the check")
        found = scrape(home)
        [status] = told(home, "/status")["segments"]
        overlapped = not (home.root / f"ended-{turn}").exists() and status["last_error"] is None
        home.write(f"go-{turn}", "")
        if overlapped:
            break
    assert overlapped
    assert found.value("version") == status["version"] == 1
    assert found.value("last_reload_successful") == 1


# --- /status and /config ----------------------------------------------------------------------------------------------


def test_the_status_is_the_one_that_the_command_prints(web):
    code, printed = web.status()
    [status] = told(web, "/status")["segments"]
    moving = {"age_seconds", "heartbeat_age_seconds"}
    assert {key: status[key] for key in status.keys() - moving} == {
        key: printed[key] for key in printed.keys() - moving
    }
    assert (code, status["state"], status["agent_pid"]) == (0, "healthy", web.agents[0].pid)
    assert 0 <= status["heartbeat_age_seconds"] < 60
    web.write("base.yaml", "".join(f"a{number}: 1\na{number}: 1\n" for number in range(900)))
    web.agents[0].says("rejected")
    [status] = told(web, "/status")["segments"]
    assert (status["state"], status["rejections"]) == ("serving last known good", 1)
    assert len(web.status()[1]["problems"]) < 900  # what a segment has room for
    assert len(status["problems"]) == status["problem_count"] == 900
    assert status["last_error"].startswith("base.yaml:2:1: ")


def test_a_held_candidate_is_in_the_status(home):
    home.write("shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\n[segment.web.guard]\nfrozen = ["a"]\n')
    home.write("base.yaml", "a: 1\n")
    home.start().says("version 1 published")
    home.write("base.yaml", "a: 2\n")
    home.agents[0].says("held")
    [status] = told(home, "/status")["segments"]
    assert status["state"] == "candidate held"
    assert len(status["held"]) == 64
    found = scrape(home)
    assert (found.failed(), found.value("last_reload_successful")) == ({"guard": 1}, 0)
    assert home.run("reload", "web", "--accept", status["held"]).returncode == 0
    found = scrape(home)
    assert (found.value("last_reload_successful"), found.value("version")) == (1, 2)
    assert told(home, "/status")["segments"][0]["held"] is None


def test_the_configuration_is_what_is_served_without_its_secrets(home):
    home.write("secret", "tiger\n")
    home.segment("base.yaml", substitute=True, substitute_roots=["."])
    home.write("base.yaml", "db:\n  url: db://${file:secret}@x\n  port: 5432\nraw: !!binary aGk=\nodd: .nan\n")
    home.start().says("version 1 published")
    reader = home.attach()
    assert reader["db", "url"] == "db://tiger@x"
    found = told(home, "/config")
    assert found["config"] == {"db": {"url": "***", "port": 5432}, "raw": "aGk=", "odd": None}
    assert (found["segment"], found["version"], found["digest"]) == ("web", 1, reader.snapshot().digest)
    assert found["notes"] == ["JSON has no nan and no infinity: shown as null"]
    assert ask(home, "/config")[2] == ask(home, "/config")[2]
    home.write("base.yaml", "db: 1\n")
    home.agents[0].says("version 2 published")
    assert told(home, "/config")["config"] == {"db": 1}
    home.write("base.yaml", "db: [\n")
    home.agents[0].says("rejected")
    assert told(home, "/config")["config"] == {"db": 1}
    for page in ("/status", "/metrics", "/config"):
        assert "tiger" not in ask(home, page)[2]


def test_a_configuration_that_is_too_large_is_not_shown(home):
    home.segment("base.json")
    home.write("base.json", json.dumps({"a": "x" * 9_000_000}))
    home.start().says("version 1 published")
    status, _, text = ask(home, "/config")
    assert status == 413
    assert "see `shmconf get web`" in json.loads(text)["error"]
    home.write("base.json", json.dumps({"a": "x" * 3_000_000}))
    home.agents[0].says("version 2 published")
    assert len(told(home, "/config")["config"]["a"]) == 3_000_000


def test_nothing_published_is_nothing_shown(home):
    home.segment("base.yaml")
    home.write("base.yaml", "a: [\n")
    home.start().says("rejected")
    status, _, text = ask(home, "/config")
    assert (status, json.loads(text)["error"]) == (404, "segment 'web' has no published version")
    [found] = told(home, "/status")["segments"]
    assert (found["state"], found["version"]) == ("nothing published", 0)
    assert found["last_error"].startswith("base.yaml:2:1: ")


# --- the textfile -----------------------------------------------------------------------------------------------------


def written(path: Path, eventually, version: int) -> Scrape:
    """The textfile, once it knows of this version."""

    def look() -> Scrape | None:
        try:
            found = Scrape(path.read_text())
        except FileNotFoundError:
            return None
        return found if found.value("version") == version else None

    return eventually(look, f"version {version} in {path}")


def test_the_textfile_follows_publications_and_rejections(home, eventually):
    home.write("shmconf.toml", 'metrics_textfile = "out/shmconf.prom"\n[segment.web]\nsources = ["base.yaml"]\n')
    path = home.root / "out" / "shmconf.prom"
    path.parent.mkdir()
    home.write("base.yaml", "a: 1\n")
    home.start()
    assert not [name for name in written(path, eventually, 1).families if name.startswith("process_")]
    assert path.stat().st_mode & 0o777 == 0o644
    home.write("base.yaml", "a: 2\n")
    written(path, eventually, 2)
    home.write("base.yaml", "a: [\n")
    eventually(lambda: Scrape(path.read_text()).failed() == {"syntax": 1}, "the rejection")
    # SIGHUP takes another path from the agent's file, and takes the old one's file away.
    toml = (home.root / "shmconf.toml").read_text()
    home.write("shmconf.toml", toml.replace("shmconf.prom", "other.prom"))
    home.agents[0].process.send_signal(signal.SIGHUP)
    written(path.with_name("other.prom"), eventually, 2)
    assert not path.exists()
    assert home.agents[0].stop() == 0
    assert os.listdir(path.parent) == []


def test_a_textfile_without_an_agents_file(home, eventually):
    home.write("base.yaml", "a: 1\n")
    home.start("run", "--segment", "web", "base.yaml", "--metrics-textfile", "web.prom")
    written(home.root / "web.prom", eventually, 1)


def test_the_option_wins_over_the_agents_file(home, eventually):
    home.write("shmconf.toml", 'metrics_textfile = "file.prom"\n[segment.web]\nsources = ["base.yaml"]\n')
    home.write("base.yaml", "a: 1\n")
    home.start("run", "--metrics-textfile", "option.prom")
    written(home.root / "option.prom", eventually, 1)
    assert home.run("reload").returncode == 0  # also after the agent's file was read again
    home.write("base.yaml", "a: 2\n")
    written(home.root / "option.prom", eventually, 2)
    assert not (home.root / "file.prom").exists()


def test_a_disk_without_room_for_the_textfile_is_told_of_and_stops_nothing(home, eventually):
    home.write("shmconf.toml", 'metrics_textfile = "gone/web.prom"\n[segment.web]\nsources = ["base.yaml"]\n')
    home.write("base.yaml", "a: 1\n")
    agent = home.start()
    line = f"the metrics cannot be written to {home.root / 'gone/web.prom'}: No such file or directory"
    agent.says(line)
    agent.says("version 1 published")
    for version in (2, 3):
        home.write("base.yaml", f"a: {version}\n")
        agent.says(f"version {version} published")
    (home.root / "gone").mkdir()
    home.write("base.yaml", "a: 4\n")
    written(home.root / "gone/web.prom", eventually, 4)
    assert agent.text().count(line) == 1


def test_an_agent_that_is_killed_leaves_a_file_that_its_successor_replaces(home, eventually):
    home.write("shmconf.toml", 'metrics_textfile = "web.prom"\n[segment.web]\nsources = ["base.yaml"]\n')
    home.write("base.yaml", "a: 1\n")
    path = home.root / "web.prom"
    home.start()
    written(path, eventually, 1)
    home.agents[0].kill()
    assert Scrape(path.read_text()).value("version") == 1
    (home.root / ".web.prom.new").write_text("half a fi")
    home.write("base.yaml", "a: 2\n")
    home.start()
    written(path, eventually, 2)
    eventually(lambda: not (home.root / ".web.prom.new").exists(), "nothing is left beside it")
