"""The admin server against peers of every kind: none of them keeps another one from being answered."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shmconf.directories import Directory
from shmconf.workers import Worker
from shmconf_agent import admin, admin_http
from shmconf_agent.admin import AdminServer
from shmconf_agent.admin_socket import AdminSocket
from shmconf_agent.events import Event
from shmconf_agent.hold import Resume, RollBack
from shmconf_agent.problems import Problem
from shmconf_agent.reload import Question, Reload
from shmconf_agent.tally import Totals


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


class FakeAgent:
    """Answers at once, or keeps the questions for the test to answer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keeps = False
        self.segments: dict[str, int] = {"web": 3, "jobs": 1}
        self.healthy = True
        self.reloads: list[Reload] = []
        self.questions: list[Question] = []

    def ask(self, reload: Reload) -> None:
        self.reloads.append(reload)
        names = self.segments if reload.segment is None else [reload.segment]
        questions = reload.begin({name: self.segments[name] for name in names}, ())
        if self.keeps:
            self.questions += questions
            return
        for question in questions:
            question.judged(self.segments[question.segment], "digest", (), invalid=False)

    def health(self) -> dict[str, bool]:
        return {"web": self.healthy, "jobs": True}

    def serving(self) -> dict[str, int]:
        return self.segments

    def totals(self) -> dict[str, Totals]:
        return {name: Totals(reloads=version) for name, version in self.segments.items()}

    def workers(self, segment: str, served: int) -> list[Worker]:
        return [Worker(100 + version, version) for version in range(1, served + 1)]

    def directory(self) -> Directory:
        return Directory(self.root, named=True)


class Bench:
    """A server at web.sock, with the agent behind it."""

    def __init__(self, root: Path) -> None:
        self.agent = FakeAgent(root)
        self.said: list[Event] = []
        self.server = AdminServer(self.agent, self.said.append)
        self.root = root
        self.socket = AdminSocket(root, "web", self.server.socket_gid, partial(self.server.listen, "web"))
        self.socket.keep()
        assert self.socket.problem is None

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(60)
        before = os.open(self.root, os.O_PATH)
        try:
            peer.connect(f"/proc/self/fd/{before}/web.sock")
        finally:
            os.close(before)
        return peer

    def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to what is sent; status 0 for a connection closed without one."""
        with self.connect() as peer:
            with contextlib.suppress(BrokenPipeError):  # it may be refused before
                peer.sendall(data)
            return received(peer)

    def ask(self, line: str, headers: str = "") -> tuple[int, Any]:
        status, found, body = self.send(f"{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert found["connection"] == "close"
        return status, json.loads(body)

    def connections(self) -> int:
        return len(self.server._connections)


def received(peer: socket.socket) -> tuple[int, dict[str, str], bytes]:
    answer = b""
    try:
        while piece := peer.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]) if first else 0, headers, body


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.server.close()
    assert not any(thread.name == "shmconf-admin" for thread in threading.enumerate())
    assert not [event.line() for event in made.said if "internal error" in event.line()]


def test_what_can_be_asked(bench: Bench) -> None:
    status, told = bench.ask("GET /-/healthy")
    assert (status, told["healthy"], told["segments"]) == (200, True, {"web": True, "jobs": True})
    assert (told["agent"], told["pid"]) == (bench.server.id, os.getpid())
    bench.agent.healthy = False
    assert bench.ask("GET /-/healthy")[0] == 503
    status, told = bench.ask("GET /-/ready")
    assert (status, told["ready"], told["segments"]) == (200, True, {"web": 3, "jobs": 1})
    status, told = bench.ask("GET /status")
    assert (status, [each["segment"] for each in told["segments"]]) == (200, ["web", "jobs"])
    assert all("no segment" in each["error"] for each in told["segments"])
    bench.agent.segments["jobs"] = 0
    status, told = bench.ask("GET /-/ready")
    assert (status, told["ready"]) == (503, False)
    status, told = bench.ask("POST /-/reload")
    assert status == 200
    assert told["segments"] == [
        {"segment": "web", "verdict": "unchanged", "version": 3, "digest": "digest", "problems": [], "waited_for": [],
         "awaits_commit": None, "held": None, "hold": None, "released": None}
    ]
    assert [each["segment"] for each in bench.ask("POST /-/reload?all=1&timeout=2")[1]["segments"]] == ["web", "jobs"]


@pytest.mark.parametrize(
    ("accept", "content_type", "last"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", ""),
        ("Accept: */*\r\n", "text/plain; version=0.0.4; charset=utf-8", ""),
        ("Accept: application/openmetrics-text; version=x\r\n", "text/plain; version=0.0.4; charset=utf-8", ""),
        ("Accept: application/openmetrics-text; version=1.0.0, \x01\r\n", None, ""),
        ("Accept: application/openmetrics-text; version=1.0.0; q=0.5, text/plain; version=0.0.4; q=0.3\r\n",
         "application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF"),
    ],
)  # fmt: skip
def test_metrics_of_the_whole_agent_in_the_format_that_is_asked_for(
    bench: Bench, accept: str, content_type: str | None, last: str
) -> None:
    status, headers, body = bench.send(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n".encode())
    if content_type is None:  # no header at all
        assert status == 400
        return
    assert (status, headers["content-type"].partition("; escaping=")[0]) == (200, content_type)
    text = body.decode()
    assert 'shmconf_reloads_total{segment="web"} 3.0\n' in text
    assert 'shmconf_reloads_total{segment="jobs"} 1.0\n' in text
    assert 'shmconf_workers{segment="web",state="current"}' in text
    assert text.endswith(f"{last}\n")


def test_metrics_without_their_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shmconf_agent.metrics", None)
    status, told = bench.ask("GET /metrics")
    assert status == 500
    assert "pip install 'shmconf[agent]'" in told["error"]


def test_a_page_that_takes_long_keeps_nobody_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, released = threading.Event(), threading.Event()

    def slow() -> dict[str, Totals]:
        reached.set()
        assert released.wait(60)
        return {}

    monkeypatch.setattr(bench.agent, "totals", slow)
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(bench.ask, "GET /status") for _ in range(3)]
        assert reached.wait(60)
        assert bench.ask("GET /-/ready")[0] == 200
        assert bench.ask("POST /-/reload")[0] == 200
        assert not any(future.done() for future in asked)
        released.set()
        assert [future.result()[0] for future in asked] == [200] * 3


def test_what_is_to_be_accepted_goes_with_the_question(bench: Bench) -> None:
    status, told = bench.ask("POST /-/reload?accept=ABCDEF012345")
    assert [reload.accept for reload in bench.agent.reloads] == ["abcdef012345"]
    [verdict] = told["segments"]
    assert (status, verdict["verdict"]) == (500, "failed")
    assert verdict["problems"][0]["message"] == "not accepted: nothing is held, not abcdef012345"
    bench.ask("POST /-/reload")
    assert bench.agent.reloads[-1].accept is None


def test_orders_say_who_asks(bench: Bench) -> None:
    bench.ask("POST /-/rollback?version=41&force=1&timeout=5")
    bench.ask("POST /-/rollback?version=9223372036854775807")
    bench.ask("POST /-/resume")
    orders = [reload.order for reload in bench.agent.reloads]
    uid = os.geteuid()
    assert orders == [RollBack(41, uid, force=True), RollBack(2**63 - 1, uid), Resume(uid)]
    assert [reload.segment for reload in bench.agent.reloads] == ["web", "web", "web"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 404),
        ("GET /-/nothing", 404),
        ("GET /-/reload", 405),
        ("POST /-/ready", 405),
        ("POST /metrics", 405),
        ("GET /config", 404),  # nothing is published
        ("DELETE /-/reload", 405),
        ("POST /-/reload?timeout=soon", 400),
        ("POST /-/reload?timeout=nan", 400),
        ("POST /-/reload?timeout=-1", 400),
        ("POST /-/reload?timeout=1e9", 400),
        ("POST /-/reload?segment=jobs", 400),
        ("POST /-/reload?accept=abcdef0", 400),
        ("POST /-/reload?accept=not-a-digest", 400),
        ("POST /-/reload?accept=abcdef01&all=1", 400),
        ("POST /-/reload?%ff%00=%zz", 400),
        ("POST //../-/reload", 404),
        ("GET /-/rollback?version=1", 405),
        ("POST /-/rollback", 400),
        ("POST /-/rollback?version=0", 400),
        ("POST /-/rollback?version=-1", 400),
        ("POST /-/rollback?version=1e3", 400),
        ("POST /-/rollback?version=%D9%A1", 400),
        ("POST /-/rollback?version=1&force=yes", 400),
        ("POST /-/rollback?version=1&all=1", 400),
        ("POST /-/rollback?version=1&version=2", 400),
        ("POST /-/reload?timeout=1&timeout=1", 400),
        ("GET /-/ready?a=1&a=2", 400),
        ("POST /-/rollback?version=1&timeout=nan", 400),
        ("GET /-/resume", 405),
        ("POST /-/resume?all=1", 400),
        ("POST /-/resume?timeout=-1", 400),
    ],
)
def test_what_cannot(bench: Bench, line: str, status: int) -> None:
    assert bench.ask(line)[0] == status
    assert bench.agent.reloads == []


@pytest.mark.parametrize(
    ("answer", "status", "verdict"),
    [
        (lambda question: question.judged(3, "d", (), invalid=False), 200, "unchanged"),
        (lambda question: question.judged(4, "d", (), invalid=False), 200, "published"),
        (lambda question: question.judged(3, "d", [Problem("odd", "a.yaml", 1, 2)], invalid=True), 422, "rejected"),
        (lambda question: question.judged(3, "d", [Problem("no room")], invalid=False), 500, "failed"),
        (lambda question: question.judged(3, "d", [Problem("x")], invalid=False, held="e"), 409, "held"),
        (lambda question: question.failed([Problem("a fault")]), 500, "failed"),
        (lambda question: question.gone(), 404, "gone"),
        (lambda question: question.settings_refused([Problem("x")]) or question.not_taken(), 422, "rejected"),
        (lambda question: question.waits_for(["a.yaml"], 3, "d"), 504, "timeout"),
    ],
)
def test_verdicts_and_their_status(
    bench: Bench, answer: Callable[[Question], object], status: int, verdict: str
) -> None:
    bench.agent.keeps = True
    timeout = "0.2" if verdict == "timeout" else "60"
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bench.ask, f"POST /-/reload?timeout={timeout}")
        answer(until(lambda: bench.agent.questions, "the question")[0])
        found, told = asked.result()
    assert found == status
    [told] = told["segments"]
    assert told["verdict"] == verdict
    assert told["waited_for"] == (["a.yaml"] if verdict == "timeout" else [])
    if verdict == "rejected" and told["problems"][0]["file"]:
        problem = {"file": "a.yaml", "line": 1, "column": 2, "code": "other", "message": "odd"}
        assert told["problems"] == [problem | {"hint": None, "path": None}]


def test_the_worst_verdict_counts_and_those_missing_are_timeouts(bench: Bench) -> None:
    bench.agent.keeps = True
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bench.ask, "POST /-/reload?all=1&timeout=0.3")
        until(lambda: bench.agent.questions, "the questions")[0].judged(3, "d", (), invalid=False)
        status, told = asked.result()
    assert status == 504
    assert [each["verdict"] for each in told["segments"]] == ["unchanged", "timeout"]
    assert bench.agent.reloads[0].abandoned
    assert not bench.agent.questions[1].is_wanted
    bench.agent.questions[1].judged(1, "d", (), invalid=False)  # too late, and no harm


def test_whoever_goes_away_is_not_waited_for(bench: Bench) -> None:
    bench.agent.keeps = True
    with bench.connect() as peer:
        peer.sendall(b"POST /-/reload HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: bench.agent.questions, "the question")
        assert bench.agent.questions[0].is_wanted
    until(lambda: not bench.agent.questions[0].is_wanted, "its end")
    until(lambda: bench.connections() == 0, "no connection")
    bench.agent.questions[0].judged(3, "d", (), invalid=False)


def test_those_who_wait_are_told_of_the_end(bench: Bench) -> None:
    bench.agent.keeps = True
    with ThreadPoolExecutor() as pool, bench.connect():
        asked = [pool.submit(bench.ask, "POST /-/reload") for _ in range(5)]
        until(lambda: len(bench.agent.questions) == 5, "the questions")
        began = time.monotonic()
        bench.server.close()
        assert time.monotonic() - began < 30  # also with a connection that asks nothing, and to which nothing is asked
        assert [future.result() for future in asked] == [(503, {"error": "the agent stops"})] * 5
    bench.agent.questions[0].judged(3, "d", (), invalid=False)
    bench.server.close()
    bench.socket.close()
    assert not (bench.root / "web.sock").exists()


# --- peers that mean no good ------------------------------------------------------------------------------------------

HEAD = b"POST /-/reload HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n\r\nnothing of the kind\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"POST /-/reload\r\n\r\n",
        b"POST /-/reload HTTP/9.9\r\n\r\n",
        b"POST /-/reload HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nxx",
        HEAD + b"Bad\0Name: x\r\n\r\n",
        b"POST /-/reload?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(500)) + b"\r\n",
        HEAD + b"Content-Length: 10\r\n\r\n0123456789",
        HEAD + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 20000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 20000,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n" + b"\x1f\x8b" + bytes(28),
    ],
)
def test_malformed_and_oversized_requests_are_refused(bench: Bench, data: bytes) -> None:
    status, _, _ = bench.send(data)
    assert 400 <= status < 500
    assert bench.agent.reloads == []
    until(lambda: bench.connections() == 0, "no connection")
    assert bench.ask("POST /-/reload")[0] == 200


def test_a_connection_is_for_one_request(bench: Bench) -> None:
    request = HEAD + b"\r\n"
    status, _, body = bench.send(request * 50)
    assert status == 200
    assert json.loads(body)["segments"][0]["segment"] == "web"
    assert len(bench.agent.reloads) == 1


def sent_until_cut_off(peer: socket.socket, data: bytes) -> int:
    sent = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < 50_000_000:
            sent += peer.send(data)
    return sent


def test_who_sends_without_end_is_cut_off(bench: Bench) -> None:
    with bench.connect() as peer:
        peer.sendall(b"GET /-/ready HTTP/1.1\r\nX: ")
        assert sent_until_cut_off(peer, b"a" * 65536) < 5_000_000
    bench.agent.keeps = True
    with bench.connect() as peer:  # and also behind a request that is being answered
        peer.sendall(HEAD + b"\r\n")
        until(lambda: bench.agent.questions, "the question")
        assert sent_until_cut_off(peer, HEAD * 500) < 5_000_000
    until(lambda: bench.connections() == 0, "no connection")


def test_half_open_and_slow_peers_are_closed_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "HEADER_SECONDS", 0.3)
    silent, half, slow = bench.connect(), bench.connect(), bench.connect()
    with silent, half, slow:
        half.sendall(b"POST /-/reload HTTP/1.1\r\nHo")
        began = time.monotonic()
        drops = 0
        try:
            while time.monotonic() < began + 60:
                slow.sendall(b"POST /-/reload HTTP/1.1\r\n" if not drops else b"X: y\r\n")
                drops += 1
                assert bench.ask("GET /-/ready")[0] == 200  # others are served meanwhile
                time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert drops > 1
        assert time.monotonic() - began < 60
        for peer in (silent, half):
            assert received(peer)[0] == 0
    assert bench.agent.reloads == []
    until(lambda: bench.connections() == 0, "no connection")


def test_who_does_not_read_the_answer_is_closed_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_http, "ANSWER_SECONDS", 0.2)
    bench.agent.keeps = True
    with bench.connect() as peer:
        peer.sendall(HEAD + b"\r\n")
        question = until(lambda: bench.agent.questions, "the question")[0]
        question.judged(3, "d", [Problem("x" * 5_000_000)], invalid=True)  # more than the socket holds
        until(lambda: bench.connections() == 0, "the end of the connection")
        assert len(received(peer)[2]) < 5_000_000


def test_answers_of_any_size_arrive(bench: Bench) -> None:
    bench.agent.keeps = True
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bench.ask, "POST /-/reload")
        question = until(lambda: bench.agent.questions, "the question")[0]
        question.judged(3, "d", [Problem("ü" * 500_000)], invalid=True)
        assert asked.result()[1]["segments"][0]["problems"][0]["message"] == "ü" * 500_000


def test_visitors_cannot_take_the_places_of_those_with_rights(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_peer", lambda connected, gid: (65534, False))
    visitors = [bench.connect() for _ in range(admin.MOST_VISITORS + 4)]
    until(lambda: bench.connections() == admin.MOST_VISITORS, "all places taken")
    refused = [received(peer)[0] for peer in visitors[admin.MOST_VISITORS :]]
    assert refused == [503] * 4
    monkeypatch.setattr(admin, "_peer", lambda connected, gid: (0, True))
    assert bench.ask("POST /-/reload")[0] == 200
    privileged = [bench.connect() for _ in range(admin.MOST_CONNECTIONS + 1)]
    assert received(privileged[-1])[0] == 503
    for peer in (*visitors, *privileged):
        peer.close()
    until(lambda: bench.connections() == 0, "free places")
    assert bench.ask("POST /-/reload")[0] == 200


def test_who_may_not_change_anything_may_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_peer", lambda connected, gid: (65534, False))
    status, told = bench.ask("POST /-/reload")
    assert (status, told["error"]) == (
        403, "user 65534 may not: be root, the agent's user, or a member of its admin_group"
    )  # fmt: skip
    assert bench.ask("POST /-/reload", "Content-Length: 0\r\n")[0] == 403
    assert bench.ask("GET /-/healthy")[0] == 200
    assert bench.ask("GET /status")[0] == 200
    assert bench.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
    assert bench.agent.reloads == []


def test_random_bytes(bench: Bench) -> None:
    source = random.Random(4)
    pieces = [b"GET ", b"POST ", b"/-/reload", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x", b"Content-Length: 5",
              b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Connection: upgrade", b"Expect: 100-continue",
              b"\0", b"\xff\xfe", b"?timeout=", b"%"]  # fmt: skip
    for _ in range(300):
        data = b"".join(source.choice([*pieces, source.randbytes(5)]) for _ in range(source.randrange(1, 30)))
        with bench.connect() as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            received(peer)
    until(lambda: bench.connections() == 0, "no connection")
    assert bench.ask("POST /-/reload")[0] == 200


def test_a_fault_of_ours_is_an_answer_and_a_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.agent, "health", lambda: 1 // 0)
    assert bench.ask("GET /-/healthy")[0] == 500
    assert bench.ask("GET /-/healthy")[0] == 500
    assert [event.line() for event in bench.said] == [
        "shmconf: internal error at the admin socket: ZeroDivisionError: integer division or modulo by zero"
    ]
    bench.said.clear()


def test_without_the_server_library_there_is_a_line_and_no_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shmconf_agent.admin_http", None)
    assert bench.send(HEAD + b"\r\n")[0] == 503
    assert any("pip install 'shmconf[agent]'" in event.line() for event in bench.said)


# --- the socket's place -----------------------------------------------------------------------------------------------


def test_a_socket_follows_its_group_and_ends_only_its_own(tmp_path: Path) -> None:
    handed: list[socket.socket | None] = []
    gid = [os.getegid()]
    path = tmp_path / "web.sock"
    place = AdminSocket(tmp_path, "web", lambda: gid[0], handed.append)
    place.keep()
    first = path.stat()
    place.keep()
    assert path.stat().st_ino == first.st_ino
    assert len(handed) == 1
    assert first.st_mode & 0o777 == 0o660
    path.unlink()
    path.write_text("of somebody else\n")
    place.keep()
    assert "is not a socket; remove it" in (place.problem or "")
    place.close()
    assert path.read_text() == "of somebody else\n"
    path.unlink()
    again = AdminSocket(tmp_path, "web", lambda: gid[0], handed.append)
    again.keep()
    again.close()
    again.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == []
    gone = AdminSocket(tmp_path / "gone", "web", lambda: gid[0], handed.append)
    gone.keep()
    assert (gone.problem or "").endswith("gone/web.sock: No such file or directory")
    (tmp_path / "gone").mkdir()
    gone.keep()
    assert gone.problem is None
    for each in handed:
        if each is not None:
            each.close()
