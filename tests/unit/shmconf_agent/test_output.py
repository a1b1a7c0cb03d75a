"""The agent's lines: where they go, one line each, and nobody waits for whoever does not read them."""

from __future__ import annotations

import json
import os
import threading
from typing import IO

import pytest

from shmconf_agent.events import Published, Rejected, Said
from shmconf_agent.output import Output
from shmconf_agent.problems import Problem

PUBLISHED = Published("web", 3, "ab" * 32, 0.0031, ("base.yaml",), 100)
REJECTED = Rejected("web", 2, (Problem("is odd", "base.yaml", 3, 7), Problem("two\nlines", "base.yaml")))
SAID = Said(None, "stopped")


class Pipe:
    """A pipe in the place of a standard stream."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.stream: IO[str] = os.fdopen(self.writing, "w")

    def text(self) -> str:
        """All that was written; closes the writing end."""
        self.stream.close()
        with os.fdopen(self.reading) as reading:
            return reading.read()


def output_to(monkeypatch: pytest.MonkeyPatch, out: Pipe, err: Pipe, *, as_json: bool = False) -> Output:
    """In the test itself, as pytest puts streams of its own in place between its fixtures and the test."""
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", out.stream)
        patched.setattr("sys.stderr", err.stream)
        return Output(as_json)


def test_text_to_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    for event in (PUBLISHED, REJECTED, SAID):
        output.say(event)
    output.close()
    assert out.text().splitlines() == [
        "web: version 3 published in 3.1 ms (base.yaml)",
        "web: rejected, still serving version 2: base.yaml:3:7: is odd; base.yaml: two lines",
    ]
    assert err.text() == "shmconf: stopped\n"


def test_json_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err, as_json=True)
    for event in (PUBLISHED, REJECTED, SAID):
        output.say(event)
    output.close()
    published, rejected, said = map(json.loads, out.text().splitlines())
    assert (published["event"], published["version"], published["changed_files"]) == ("published", 3, ["base.yaml"])
    problem = {"file": "base.yaml", "line": 3, "column": 7, "message": "is odd"}
    assert (rejected["event"], rejected["problems"][0]) == ("rejected", problem)
    assert (said["event"], said["message"], said["segment"]) == ("message", "stopped", None)
    assert err.text() == ""


def test_a_name_with_a_line_end_is_one_line_still(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    output.say(Published("web", 1, "", 0.1, ("new\nline.yaml", "half \udcff"), 1))
    output.close()
    assert out.text() == "web: version 1 published in 100 ms (new line.yaml, half \\udcff)\n"
    err.text()


def test_a_pipe_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    for _ in range(5000):
        output.say(Published("web", 1, "", 0.1, ("x" * 100,), 1))
    output.close()  # returns, with the thread in its write
    assert output._thread.is_alive()
    lines: list[str] = []

    def read() -> None:
        with os.fdopen(out.reading) as reading:
            lines.extend(reading)

    somebody = threading.Thread(target=read)
    somebody.start()
    output.close()
    output._thread.join(20)
    told = err.text()
    out.stream.close()
    somebody.join(20)
    assert 1000 <= len(lines) < 5000
    assert told == f"shmconf: {5000 - len(lines)} lines were dropped here, as nobody read them\n"


def test_a_closed_pipe_and_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    os.close(pipe.reading)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe.stream)
        patched.setattr("sys.stderr", None)
        output = Output(as_json=False)
    for event in (PUBLISHED, SAID, PUBLISHED):
        output.say(event)
    output.close()
    assert not output._thread.is_alive()
    pipe.stream.close()
