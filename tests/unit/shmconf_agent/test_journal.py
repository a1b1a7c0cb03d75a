"""What the journal is sent, read by a receiver that follows the protocol; and a journal that is full or gone."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from shmconf_agent.events import Event, Published, Rejected, Said
from shmconf_agent.journal import Journal
from shmconf_agent.log_format import LogFormat, goes_to_journal
from shmconf_agent.log_kinds import Kind
from shmconf_agent.output import Output
from shmconf_agent.problems import Code, Problem

SECONDS = 60.0
Entry = dict[str, list[str]]


def parsed(data: bytes) -> Entry:
    """An entry, by https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    entry: Entry = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        entry.setdefault(name.decode("ascii"), []).append(value.decode())
        data = rest
    return entry


class Receiver:
    """A socket in the place of the journal's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(SECONDS)

    def entry(self) -> Entry:
        """The next one, once it is there."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not ancillary:
            return parsed(data)
        assert data == b""
        ((_, kind, raw),) = ancillary
        assert kind == socket.SCM_RIGHTS
        (number,) = array.array("i", raw)
        with open(number, "rb") as memory:
            seals = fcntl.fcntl(number, fcntl.F_GET_SEALS)
            wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            assert seals & wanted == wanted
            memory.seek(0)
            return parsed(memory.read())

    def close(self) -> None:
        self.socket.close()
        self.path.unlink()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path / "socket")
    yield made
    made.socket.close()


def output(monkeypatch: pytest.MonkeyPatch, path: Path, errors: IO[str], form: LogFormat = LogFormat.JOURNAL) -> Output:
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", errors)
        patched.setattr("sys.stderr", errors)
        return Output(form, str(path))


ODD = Problem("is odd\x1b[2J", "base.yaml", 3, 7, Code.SCHEMA_TYPE, "make it even", ("db", "size"))
TYPO = Problem("two\nlines", "other.yaml", 1, 1, Code.YAML_SYNTAX)
EVENTS: list[tuple[Event, Entry]] = [
    (
        Published("web", 3, "ab" * 32, 0.0031, ("base.yaml", "a\nb.yaml"), 100),
        {
            "MESSAGE": ["web: version 3 published in 3.1 ms (base.yaml, a b.yaml)"],
            "PRIORITY": ["6"],
            "KIND": ["published"],
            "SEGMENT": ["web"],
            "VERSION": ["3"],
            "DIGEST": ["ab" * 32],
            "CHANGED_FILE": ["base.yaml", "a b.yaml"],
        },
    ),
    (
        Rejected("web", 2, (ODD, TYPO, ODD)),
        {
            "PRIORITY": ["3"],
            "KIND": ["rejected"],
            "SEGMENT": ["web"],
            "VERSION": ["2"],
            "REASON": ["schema-type", "yaml-syntax"],
            "PROBLEMS": ["3"],
            "PROBLEM": [
                "base.yaml:3:7: is odd\\x1b[2J; make it even",
                "other.yaml:1:1: two lines",
                "base.yaml:3:7: is odd\\x1b[2J; make it even",
            ],
        },
    ),
    (
        Rejected("web", 2, (Problem("too much", code=Code.GUARD_CHANGED),), held="cd" * 32),
        {"PRIORITY": ["4"], "KIND": ["held"], "DIGEST": ["cd" * 32], "REASON": ["guard-changed"], "VERSION": ["2"]},
    ),
    (
        Said(None, "started", kind=Kind.STARTED),
        {"MESSAGE": ["shmconf: started"], "PRIORITY": ["5"], "KIND": ["started"]},
    ),
]


@pytest.mark.parametrize(("event", "wanted"), EVENTS, ids=lambda each: each.kind.label if hasattr(each, "kind") else "")
def test_an_event_has_its_fields(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver, event: Event, wanted: Entry
) -> None:
    with (tmp_path / "errors").open("w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(event)
        entry = receiver.entry()
        writer.close()
    assert {name: entry[name] for name in wanted} == wanted
    assert (entry["MESSAGE_ID"], entry["SYSLOG_IDENTIFIER"]) == ([event.kind.message_id], ["shmconf"])
    assert (tmp_path / "errors").read_text() == ""
    if isinstance(event, Said):
        assert not {"SEGMENT", "VERSION", "DIGEST", "REASON"} & entry.keys()


def test_many_problems_are_all_counted_and_fit_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    many = tuple(Problem(f"number {number} " + "long " * 200, "a.yaml") for number in range(5000))
    with (tmp_path / "errors").open("w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(Rejected("web", 2, many))
        entry = receiver.entry()
        writer.close()
    assert entry["PROBLEMS"] == ["5000"]
    assert [text.split()[2] for text in entry["PROBLEM"]] == [str(number) for number in range(200)]
    assert sum(map(len, entry.values())) < 1000
    (message,) = entry["MESSAGE"]
    assert message.startswith("web: rejected, still serving version 2: a.yaml: number 0 long")
    assert message.endswith(" long; and 4,997 more")
    assert (tmp_path / "errors").read_text() == ""


def test_values_with_line_ends_and_odd_characters(receiver: Receiver) -> None:
    journal = Journal(str(receiver.path))
    journal.send([("MESSAGE", "one\nMESSAGE=two\n"), ("FILE", "half \udcff"), ("EMPTY", ""), ("FILE", "=")], SECONDS)
    assert receiver.entry() == {"MESSAGE": ["one\nMESSAGE=two\n"], "FILE": ["half \\udcff", "="], "EMPTY": [""]}
    journal.close()


def test_an_entry_too_large_for_a_datagram(receiver: Receiver) -> None:
    journal = Journal(str(receiver.path))
    large = "x" * (16 << 20)
    journal.send([("MESSAGE", "large"), ("PROBLEM", large)], SECONDS)
    assert receiver.entry() == {"MESSAGE": ["large"], "PROBLEM": [large]}
    before = len(os.listdir("/proc/self/fd"))
    journal.send([("PROBLEM", large)], SECONDS)
    assert len(os.listdir("/proc/self/fd")) == before
    assert receiver.entry() == {"PROBLEM": [large]}
    journal.close()


def fill(receiver: Receiver) -> int:
    """Entries until it takes no more; how many."""
    journal = Journal(str(receiver.path))
    for sent in range(100_000):
        try:
            journal.send([("MESSAGE", str(sent))], 0)
        except BlockingIOError:
            journal.close()
            return sent
    pytest.fail("it is never full")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_journal_that_is_busy_is_waited_for(receiver: Receiver) -> None:
    sent = fill(receiver)
    journal = Journal(str(receiver.path))
    waits = threading.Thread(target=journal.send, args=([("MESSAGE", "at last")], SECONDS))
    waits.start()
    read = [receiver.entry()["MESSAGE"][0] for _ in range(sent + 1)]
    waits.join(SECONDS)
    assert not waits.is_alive()
    assert read == [*map(str, range(sent)), "at last"]
    journal.close()


def test_where_the_journal_is_full_lines_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    fill(receiver)
    with (tmp_path / "errors").open("w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(Said("web", "first"))
        writer.say(Said("web", "second"))
        writer.close()
        writer._thread.join(SECONDS)
    told, first, second = (tmp_path / "errors").read_text().splitlines()
    assert told.startswith("shmconf: the journal takes no entries (")
    assert (first, second) == ("web: first", "web: second")


def test_a_journal_that_went_and_came_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    with (tmp_path / "errors").open("w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(Said("web", "before"))
        assert receiver.entry()["MESSAGE"] == ["web: before"]
        receiver.close()
        writer.say(Said("web", "meanwhile"))
        until(lambda: "meanwhile\n" in (tmp_path / "errors").read_text(), "it is told elsewhere")
        again = Receiver(receiver.path)
        writer.say(Said("web", "after"))
        assert again.entry()["MESSAGE"] == ["web: after"]
        writer.close()
        again.close()
    told, meanwhile = (tmp_path / "errors").read_text().splitlines()
    assert told.startswith("shmconf: the journal takes no entries (")
    assert meanwhile == "web: meanwhile"


def test_a_journal_made_anew_gets_the_next_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    with (tmp_path / "errors").open("w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(Said("web", "before"))
        receiver.entry()
        receiver.close()
        again = Receiver(receiver.path)
        writer.say(Said("web", "after"))
        assert again.entry()["MESSAGE"] == ["web: after"]
        writer.close()
        again.close()
    assert (tmp_path / "errors").read_text() == ""


def test_lines_that_nobody_took_are_told_of_in_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    """The journal is full and stderr is closed: as when both end in the same daemon."""
    sent = fill(receiver)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as errors:
        writer = output(monkeypatch, receiver.path, errors)
        writer.say(Said("web", "lost"))
        until(lambda: writer._dropped, "it is lost")
        for _ in range(sent):
            receiver.entry()
        writer.say(Said("web", "seen"))
        entries = [receiver.entry(), receiver.entry()]  # whichever comes first
        writer.close()
    messages = {entry["MESSAGE"][0]: entry["MESSAGE_ID"][0] for entry in entries}
    assert messages == {
        "web: seen": Kind.WARNING.message_id,
        "shmconf: 1 line was dropped here, as nobody read it": Kind.LINES_DROPPED.message_id,
    }


def test_which_streams_are_the_journals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    other, others = socket.socketpair()
    with (tmp_path / "file").open("w") as file, ours, theirs, other, others:
        found = os.fstat(ours.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not goes_to_journal(ours.fileno(), ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert goes_to_journal(ours.fileno(), ours.fileno())
        assert goes_to_journal(other.fileno(), ours.fileno()), "stdout is a stream of its own, stderr is the one named"
        assert not goes_to_journal(other.fileno(), file.fileno())
        assert not goes_to_journal(file.fileno(), ours.fileno())
        assert not goes_to_journal(-1, ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", "no numbers")
        assert not goes_to_journal(ours.fileno(), ours.fileno())


def test_auto_is_for_each_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver) -> None:
    """StandardOutput= is a file of the operator's: verdicts are written there, all else goes to the journal."""
    ours, theirs = socket.socketpair()
    found = os.fstat(ours.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    with (tmp_path / "file").open("w") as file, ours.makefile("w") as stream:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", file)
            patched.setattr("sys.stderr", stream)
            writer = Output(LogFormat.AUTO, str(receiver.path))
        writer.say(Published("web", 1, "", 0.1, ("base.yaml",), 1))
        writer.say(Said("web", "a warning"))
        assert receiver.entry()["MESSAGE"] == ["web: a warning"]
        writer.close()
    ours.close()
    theirs.close()
    assert (tmp_path / "file").read_text() == "web: version 1 published in 100 ms (base.yaml)\n"
