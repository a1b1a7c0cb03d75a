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
from shmconf_agent.problems import Invalid, Problem
from shmconf_agent.service import Agent


def until(condition: Callable[[], Any], what: object) -> Any:
    deadline = time.monotonic() + 20
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
            acting.join(30)
            signal.signal(signal.SIGTERM, before)
        if failures:
            raise failures[0]
        return code

    def lines(self) -> list[str]:
        return [event.line() for event in self.said]

    def attach(self, name: str) -> shmconf.Reader:
        return shmconf.attach(name, directory=self.run_directory, wait=20)


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
            until(lambda: jobs.status().agent.state == "stopped", "one less")
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
