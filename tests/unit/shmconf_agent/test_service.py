"""The agent's main loop, driven by real signals: stop, read again, and what the service manager hears."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf.directories import Directory
from shmconf.errors import SegmentLocked
from shmconf_agent.config import AgentConfig, SegmentConfig, Source
from shmconf_agent.events import Event
from shmconf_agent.log_kinds import Kind
from shmconf_agent.pipeline import Candidate, Pipeline
from shmconf_agent.problems import Invalid, Problem
from shmconf_agent.progress import Progress
from shmconf_agent.service import Agent
from shmconf_agent.view import View


def until(condition: Callable[[], Any], what: object) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


class Notes:
    """A notifier that keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []

    def send(self, **fields: str) -> None:
        self.sent.append(fields)

    def values(self, name: str) -> list[str]:
        return [fields[name] for fields in list(self.sent) if name in fields]

    def last(self, name: str) -> str:
        return ["", *self.values(name)][-1]


class Bench:
    """An agent in this process's main thread, while a script of the test runs in another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_directory = root / "run"
        self.run_directory.mkdir(mode=0o755)
        self.said: list[Event] = []
        self.notes = Notes()
        self.next: AgentConfig | Exception | None = None

    def config(self, *names: str, **settings: Any) -> AgentConfig:
        segments = [SegmentConfig(name, self.root, (Source(f"{name}.yaml"),), **settings) for name in names]
        return AgentConfig(None, None, None, tuple(segments))

    def write(self, name: str, text: str) -> None:
        aside = self.root / f"{name}.aside"
        aside.write_text(text)
        aside.rename(self.root / f"{name}.yaml")

    def agent(self, config: AgentConfig) -> Agent:
        def reload() -> AgentConfig:
            assert self.next is not None
            if isinstance(self.next, Exception):
                raise self.next
            return self.next

        directory = Directory(self.run_directory, named=True)
        return Agent(config, directory, self.root / "state", self.said.append, reload, self.notes)

    def run(self, config: AgentConfig, script: Callable[[], None]) -> int:
        """The agent's exit code; it is told to stop when the script is done or has failed."""
        failures: list[BaseException] = []
        agent = self.agent(config)

        def unheard(*_: object) -> None:
            """In force while no agent listens, so that the last signal never ends the test run."""

        def act() -> None:
            try:
                until(lambda: signal.getsignal(signal.SIGTERM) is not harmless, "the agent listens")
                script()
            except BaseException as failure:
                failures.append(failure)
            os.kill(os.getpid(), signal.SIGTERM)

        # A signal that comes when the agent has stopped already must not end the tests.
        def harmless(*_: object) -> None:
            pass

        before = signal.signal(signal.SIGTERM, harmless)
        acting = threading.Thread(target=act)
        acting.start()
        try:
            code = agent.run()
        finally:
            acting.join(60)
            signal.signal(signal.SIGTERM, before)
        if failures:
            raise failures[0]
        return code

    def lines(self) -> list[str]:
        return [event.line() for event in self.said]

    def attach(self, name: str) -> shmconf.Reader:
        return shmconf.attach(name, directory=self.run_directory, wait=60)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_ready_when_every_segment_has_something_to_serve(bench: Bench) -> None:
    bench.write("web", "a: 1\n")
    bench.write("jobs", "a: [\n")

    def script() -> None:
        bench.attach("web").close()
        why = "jobs: nothing to serve yet, rejected: "
        until(lambda: any(why in text for text in bench.notes.values("STATUS")), "why")
        until(lambda: len(bench.notes.values("WATCHDOG")) >= 2, "signs of life")
        assert bench.notes.values("READY") == []
        bench.write("jobs", "a: 1\n")
        until(lambda: bench.notes.values("READY") == ["1"], "READY")

    assert bench.run(bench.config("web", "jobs"), script) == 0
    assert bench.notes.values("MAINPID") == [str(os.getpid())]
    assert bench.notes.values("STOPPING") == ["1"]
    assert [bench.said[0].kind, bench.said[-1].kind] == [Kind.STARTED, Kind.STOPPED]
    started = f"shmconf: release {shmconf.__version__} started as process {os.getpid()}: web, new; jobs, new"
    assert bench.lines()[0] == started


def test_sighup_takes_another_file_and_keeps_the_old_one_on_error(bench: Bench) -> None:
    bench.write("web", "a: 1\n")
    bench.write("jobs", "a: 1\n")
    bench.write("more", "a: 1\n")

    def hang_up(config: AgentConfig | Exception) -> None:
        bench.next = config
        os.kill(os.getpid(), signal.SIGHUP)

    def script() -> None:
        with bench.attach("web") as web, bench.attach("jobs") as jobs:
            hang_up(bench.config("web", "more"))
            bench.attach("more").close()
            until(lambda: any("jobs: no longer in the agent's file" in line for line in bench.lines()), "one less")
            assert jobs.status().agent.state == "stopped"
            assert web.status().agent.state == "running"
            odd = Invalid([Problem("is odd", "shmconf.toml", 1, 1)])
            for error in (odd, shmconf.Error("not there"), OSError("no")):
                said = len(bench.said)
                hang_up(error)
                until(lambda said=said: len(bench.said) > said, "the error is said")
                assert "the one from before is in force" in bench.lines()[-1]
            bench.write("web", "a: 2\n")
            until(lambda: web["a"] == 2, "it goes on")
            assert "a" in jobs

    assert bench.run(bench.config("web", "jobs"), script) == 0
    assert "jobs: no longer in the agent's file; the segment stays as it is" in bench.lines()


def test_a_segment_whose_new_settings_cannot_be_used_goes_on_with_the_old(bench: Bench) -> None:
    bench.write("web", "a: 1\n")
    bench.write("jobs", "a: 1\n")

    def script() -> None:
        with bench.attach("web") as web, bench.attach("jobs") as jobs:
            segments = (
                *bench.config("web", group="no-such-group-here").segments,
                *bench.config("jobs", settle_ms=1.0).segments,
            )
            bench.next = AgentConfig(None, None, None, segments)
            os.kill(os.getpid(), signal.SIGHUP)
            until(lambda: any("not taken from the agent's file" in line for line in bench.lines()), "the reason")
            for name, reader in (("web", web), ("jobs", jobs)):
                bench.write(name, "a: 2\n")
                until(lambda reader=reader: reader["a"] == 2, f"{name} goes on")

    assert bench.run(bench.config("web", "jobs"), script) == 0


def test_sighup_waits_for_no_segment_and_loses_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("web", "a: 1\n")
    bench.write("jobs", "a: 1\n")
    busy, go_on = threading.Event(), threading.Event()
    run = Pipeline.run

    def slow(pipeline: Pipeline, view: View, progress: Progress) -> Candidate:
        if any(layer.file == "web.yaml" and layer.data == b"a: 2\n" for layer in view.layers) and not go_on.is_set():
            with progress.stage("check", 60.0):
                busy.set()
                assert go_on.wait(60)
        return run(pipeline, view, progress)

    def pulses(more: int) -> None:
        before = len(bench.notes.values("WATCHDOG"))
        until(lambda: len(bench.notes.values("WATCHDOG")) >= before + more, "the heartbeats go on")

    def script() -> None:
        with bench.attach("web") as web, bench.attach("jobs") as jobs:
            bench.write("web", "a: 2\n")
            assert busy.wait(60)
            for settle_ms in (1.0, 3.0):  # the second one comes while the first waits for its turn
                bench.next = bench.config("web", "jobs", settle_ms=settle_ms)
                os.kill(os.getpid(), signal.SIGHUP)
                pulses(3)
            bench.write("jobs", "a: 2\n")
            until(lambda: jobs["a"] == 2, "jobs is served meanwhile")
            assert web["a"] == 1
            assert web.status().agent_alive
            go_on.set()
            until(lambda: web["a"] == 2, "web goes on")
            bench.write("web", "a: 3\n")
            until(lambda: web["a"] == 3, "web goes on with the new settings")

    monkeypatch.setattr(Pipeline, "run", slow)
    monkeypatch.setattr("shmconf_agent.service._STOP_SECONDS", 0.2)
    try:
        assert bench.run(bench.config("web", "jobs"), script) == 0
    finally:
        go_on.set()
    assert not any("not taken" in line for line in bench.lines())


def test_a_segment_that_cannot_be_opened_again_is_tried_until_it_can(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_when_ready: list[int] = []
    send = bench.notes.send

    def note(**fields: str) -> None:
        send(**fields)
        if "READY" in fields:
            with shmconf.attach("web", directory=bench.run_directory) as reader:
                served_when_ready.append(reader.version)

    refused: list[SegmentConfig] = []
    make = Agent._make

    def refuse(agent: Agent, segment: SegmentConfig) -> Any:
        if bench.next is not None and len(refused) < 5:
            refused.append(segment)
            raise shmconf.Error("not just now")
        return make(agent, segment)

    def script() -> None:
        until(lambda: any("nothing is served yet" in line for line in bench.lines()), "the file is missing")
        bench.next = bench.config("web", "more", settle_ms=1.0)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(refused) == 5, "all attempts")
        bench.write("web", "a: 2\n")
        with bench.attach("web") as web:
            until(lambda: web["a"] == 2, "web goes on")
        until(lambda: bench.notes.values("READY"), "ready")

    monkeypatch.setattr(bench.notes, "send", note)
    monkeypatch.setattr(Agent, "_make", refuse)
    monkeypatch.setattr("shmconf_agent.service._RETRY_SECONDS", 0.0)
    assert bench.run(bench.config("web"), script) == 0
    assert served_when_ready == [1]
    assert [segment.name for segment in refused].count("more") == 1  # it never was: that is for the next SIGHUP
    said = sorted(line for line in bench.lines() if "not taken" in line)
    assert said == [f"{name}: not taken from the agent's file: not just now" for name in ("more", "web")]


def test_an_agent_that_lost_its_segment_exits_1_and_says_why(bench: Bench, tmp_path: Path) -> None:
    bench.write("web", "a: 1\n")
    other: list[Agent] = []

    def script() -> None:
        bench.attach("web").close()
        for directory in ("run", "state"):
            (tmp_path / directory / "web.lock").unlink()
        other.append(bench.agent(bench.config("web")))
        bench.write("web", "a: 2\n")
        until(lambda: bench.notes.values("STOPPING"), "the agent stops by itself")

    assert bench.run(bench.config("web"), script) == 1
    assert any("web: stopped: segment 'web' already has an agent" in line for line in bench.lines())
    other[0]._stop()


def test_of_several_segments_all_are_opened_or_none(bench: Bench) -> None:
    bench.write("web", "a: 1\n")
    bench.write("jobs", "a: 1\n")
    first = bench.agent(bench.config("jobs"))
    with pytest.raises(SegmentLocked):
        bench.agent(bench.config("web", "jobs"))
    bench.agent(bench.config("web"))._stop()  # its lock is free again
    first._stop()


def test_a_directory_that_changed_in_the_agents_file_is_not_passed_over_in_silence(bench: Bench) -> None:
    bench.write("web", "a: 1\n")
    config = bench.config("web")

    def script() -> None:
        bench.attach("web").close()
        bench.next = AgentConfig(None, bench.root / "elsewhere", None, config.segments)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: any("another runtime_dir" in line for line in bench.lines()), "a line about it")

    assert bench.run(config, script) == 0
