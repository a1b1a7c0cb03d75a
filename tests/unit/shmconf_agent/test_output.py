"""The agent's lines: where they go, one line each, and nobody waits for whoever does not read them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from datetime import datetime
from typing import IO

import pytest

from shmconf_agent.changed_paths import Comparison
from shmconf_agent.events import Published, Rejected, Said
from shmconf_agent.log_format import LogFormat
from shmconf_agent.log_kinds import Kind
from shmconf_agent.output import Output
from shmconf_agent.problems import Code, Problem

PUBLISHED = Published("web", 3, "ab" * 32, 0.0031, ("base.yaml",), 100)
ODD = Problem("is odd", "base.yaml", 3, 7, Code.SCHEMA_TYPE, "make it even", ("db", "size"))
REJECTED = Rejected("web", 2, (ODD, Problem("two\nlines", "base.yaml")))
SAID = Said(None, "stopped")
STARTED = Said(None, "started", kind=Kind.STARTED)


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


def output_to(monkeypatch: pytest.MonkeyPatch, out: Pipe, err: Pipe, form: LogFormat = LogFormat.TEXT) -> Output:
    """In the test itself, as pytest puts streams of its own in place between its fixtures and the test."""
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", out.stream)
        patched.setattr("sys.stderr", err.stream)
        return Output(form)


def finish(output: Output) -> None:
    """All that was said is written, however long the machine takes for it."""
    output.close()
    output._thread.join(60)
    assert not output._thread.is_alive()


def test_text_to_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    for event in (STARTED, PUBLISHED, REJECTED, SAID):
        output.say(event)
    finish(output)
    assert out.text().splitlines() == [
        "web: version 3 published in 3.1 ms (base.yaml)",
        "web: rejected, still serving version 2: base.yaml:3:7: is odd; make it even; base.yaml: two lines",
    ]
    assert err.text() == "shmconf: stopped\n"


def test_json_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err, LogFormat.JSON)
    for event in (PUBLISHED, REJECTED, SAID):
        output.say(event)
    finish(output)
    published, rejected, said = map(json.loads, out.text().splitlines())
    assert (published["event"], published["version"], published["changed_files"]) == ("published", 3, ["base.yaml"])
    problem = {"file": "base.yaml", "line": 3, "column": 7, "message": "is odd"}
    problem |= {"code": "schema-type", "hint": "make it even", "path": "db.size"}
    assert (rejected["event"], rejected["problems"][0]) == ("rejected", problem)
    assert (said["event"], said["message"], said["segment"]) == ("message", "stopped", None)
    assert [each["kind"] for each in (published, rejected, said)] == ["published", "rejected", "warning"]
    assert [each["priority"] for each in (published, rejected, said)] == [6, 3, 4]
    assert published["message_id"] == Kind.PUBLISHED.message_id
    assert published["message"] == "web: version 3 published in 3.1 ms (base.yaml)"
    assert datetime.fromisoformat(published["at"]).tzinfo is not None
    assert err.text() == ""


def test_a_name_with_a_line_end_is_one_line_still(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    output.say(Published("web", 1, "", 0.1, ("new\nline.yaml", "half \udcff"), 1))
    finish(output)
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
    output._thread.join(60)
    told = err.text()
    out.stream.close()
    somebody.join(60)
    assert 1000 <= len(lines) < 5000
    assert told == f"shmconf: {5000 - len(lines)} lines were dropped here, as nobody read them\n"


def test_a_closed_pipe_and_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    os.close(pipe.reading)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe.stream)
        patched.setattr("sys.stderr", None)
        output = Output(LogFormat.TEXT)
    for event in (PUBLISHED, SAID, PUBLISHED):
        output.say(event)
    finish(output)
    pipe.stream.close()


class Unsayable:
    """An event with a mistake in it."""

    kind = Kind.WARNING
    segment = "web"

    def line(self) -> str:
        raise RecursionError("too deep")

    fields = line


def test_a_line_that_cannot_be_made_is_told_and_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    output.say(Unsayable())  # type: ignore[arg-type]
    output.say(PUBLISHED)
    finish(output)
    assert out.text() == "web: version 3 published in 3.1 ms (base.yaml)\n"
    assert err.text() == "web: internal error: a line about warning could not be made: RecursionError: too deep\n"


def test_comparisons_are_not_kept_for_a_reader_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Pipe(), Pipe()
    output = output_to(monkeypatch, out, err)
    out_is_full(out)
    comparisons = [Comparison({"a": number}, {"a": number + 1}) for number in range(100)]
    for comparison in comparisons:
        output.say(Published("web", 1, "", 0.1, (), 1, comparison=comparison))
    kept = [comparison for comparison in comparisons if comparison._contents is not None]
    assert 0 < len(kept) < 15
    output.close()
    os.close(out.reading)  # ends the writing
    output._thread.join(60)
    out.stream.close()
    err.text()


def out_is_full(pipe: Pipe) -> None:
    """Whoever writes to it now waits."""
    os.set_blocking(pipe.writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe.writing, b"x" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe.writing, b"x")
    os.set_blocking(pipe.writing, True)
