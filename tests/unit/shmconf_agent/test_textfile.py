"""The metrics as a file: whole at any moment, never waited for, and a disk that refuses is told of once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf_agent import textfile
from shmconf_agent.events import Event
from shmconf_agent.textfile import MetricsTextfile, write


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


class Bench:
    """A textfile whose text is what `self.text` says."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.text = b"first\n"
        self.asked = 0
        self.textfile = MetricsTextfile(self._answer, self.said.append)

    def _answer(self) -> bytes:
        self.asked += 1
        return self.text

    def lines(self) -> list[str]:
        return [event.line() for event in self.said]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(textfile, "PAUSE_SECONDS", 0.01)
    made = Bench()
    yield made
    made.textfile.close()
    assert not any(thread.name == "shmconf-textfile" for thread in threading.enumerate())


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_it_follows_changes_and_goes_with_the_agent(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "shmconf.prom"
    old = os.umask(0o077)
    try:
        bench.textfile.write_to(path)
        until(lambda: content(path) == b"first\n", "the file")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644
    bench.text = b"second\n"
    bench.textfile.changed()
    until(lambda: content(path) == b"second\n", "the change")
    assert os.listdir(tmp_path) == ["shmconf.prom"]
    bench.textfile.close()
    bench.textfile.close()
    assert os.listdir(tmp_path) == []
    assert bench.lines() == []


def test_without_a_path_there_is_no_thread_and_no_file(bench: Bench) -> None:
    bench.textfile.write_to(None)
    bench.textfile.changed()
    assert not any(thread.name == "shmconf-textfile" for thread in threading.enumerate())
    assert bench.asked == 0


def test_its_age_tells_that_the_agent_lives(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "INTERVAL_SECONDS", 0.01)
    bench.textfile.write_to(tmp_path / "shmconf.prom")
    until(lambda: bench.asked >= 3, "it is written though nothing changes")


def test_a_burst_of_changes_is_few_writings(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "PAUSE_SECONDS", 30.0)
    bench.textfile.write_to(tmp_path / "shmconf.prom")
    until(lambda: bench.asked == 1, "the first one")
    for _ in range(1000):
        bench.textfile.changed()
    bench.textfile.close()  # waits for no pause
    assert bench.asked == 1


def test_another_path_is_another_file(bench: Bench, tmp_path: Path) -> None:
    bench.textfile.write_to(tmp_path / "one.prom")
    until((tmp_path / "one.prom").exists, "the first file")
    bench.textfile.write_to(tmp_path / "two.prom")
    until(lambda: os.listdir(tmp_path) == ["two.prom"], "the second one alone")
    bench.textfile.write_to(None)
    until(lambda: os.listdir(tmp_path) == [], "none")
    bench.textfile.write_to(tmp_path / "three.prom")
    until(lambda: os.listdir(tmp_path) == ["three.prom"], "and one again")


def test_a_disk_that_refuses_is_told_of_once_until_it_takes_the_file(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "shmconf.prom"
    bench.textfile.write_to(path)
    until(lambda: bench.said, "a line")
    for _ in range(3):
        asked = bench.asked
        bench.textfile.changed()
        until(lambda asked=asked: bench.asked > asked, "another try")  # type: ignore[misc]
    assert bench.lines() == [f"shmconf: the metrics cannot be written to {path}: No such file or directory"]
    path.parent.mkdir()
    bench.textfile.changed()
    until(path.exists, "the file")
    path.unlink()
    path.mkdir()
    bench.textfile.changed()
    until(lambda: len(bench.said) > 1, "another reason")
    assert bench.lines()[1:] == [f"shmconf: the metrics cannot be written to {path}: Is a directory"]
    assert os.listdir(path.parent) == ["shmconf.prom"]  # and nothing beside it


def test_a_fault_of_ours_ends_nothing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "text", None)
    bench.textfile.write_to(tmp_path / "shmconf.prom")
    until(lambda: bench.said, "a line")
    assert "internal error in the metrics: TypeError: " in bench.lines()[0]
    bench.text = b"well\n"
    bench.textfile.changed()
    until((tmp_path / "shmconf.prom").exists, "the file")


def test_nobody_waits_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "_STOP_SECONDS", 0.05)
    reached, released = threading.Event(), threading.Event()

    def hang(path: Path, text: bytes) -> None:
        reached.set()
        released.wait(120)

    monkeypatch.setattr(textfile, "write", hang)
    said: list[Event] = []
    hanging = MetricsTextfile(lambda: b"", said.append)
    hanging.write_to(tmp_path / "shmconf.prom")
    assert reached.wait(60)
    hanging.changed()
    hanging.write_to(tmp_path / "other.prom")
    hanging.close()
    assert not released.is_set()
    released.set()
    until(lambda: not any(thread.name == "shmconf-textfile" for thread in threading.enumerate()), "its end")


def test_a_reader_never_finds_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shmconf.prom"
    texts = [b"a" * 100_000, b"b" * 100_000]
    write(path, texts[0])
    done = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            write(path, texts[turn % 2])

    thread = threading.Thread(target=rewrite)
    thread.start()
    seen: set[bytes] = set()
    try:
        deadline = time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < deadline:
            for _ in range(200):
                found = path.read_bytes()
                assert found in texts
                seen.add(found)
    finally:
        done.set()
        thread.join()
    assert len(seen) == 2


def test_what_stands_in_the_way_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (tmp_path / ".shmconf.prom.new").symlink_to(victim)
    write(tmp_path / "shmconf.prom", b"text\n")
    assert victim.read_text() == "precious\n"
    assert sorted(os.listdir(tmp_path)) == ["shmconf.prom", "victim"]
