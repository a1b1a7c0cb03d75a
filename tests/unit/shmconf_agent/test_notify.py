"""The protocol of sd_notify(3): the address, the message, and silence where nobody listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmconf_agent.notify import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(60)
        yield made


def test_fields_are_lines(listener: socket.socket, tmp_path: Path) -> None:
    Notifier(str(tmp_path / "notify")).send(READY="1", STATUS="two\nlines  and ünïcode")
    assert listener.recv(4096).decode() == "READY=1\nSTATUS=two lines and ünïcode"


def test_the_address_comes_from_the_environment(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    Notifier().send(WATCHDOG="1")
    assert listener.recv(4096) == b"WATCHDOG=1"


def test_an_abstract_address(tmp_path: Path) -> None:
    name = f"shmconf-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(60)
        Notifier(f"@{name}").send(READY="1")
        assert listener.recv(4096) == b"READY=1"


def test_nobody_there_and_a_full_queue_are_no_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Notifier(str(tmp_path / "nobody")).send(READY="1")
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().send(READY="1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"))
        for _ in range(10_000):  # nobody reads them: the call would block
            notifier.send(STATUS="x" * 1000)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdogs_time(
    environment: dict[str, str], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Notifier().watchdog_seconds() == expected
