"""Asks agents to reload: finds their admin sockets, checks who is behind them, and gives an answer for each segment.

Every target gets exactly one `Answer`, also where nobody answers. Nothing here is loaded by the verbs that only read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shmconf.directories import SUFFIX as SEGMENT_SUFFIX
from shmconf.directories import Directory, InvalidName, check_name
from shmconf.errors import Error
from shmconf.opening import open_attachment
from shmconf.reader import read_status
from shmconf.trust import trusted_owners

from .admin_socket import SUFFIX, address
from .reload import BUSY, GONE, REFUSED, TIMEOUT, UNAVAILABLE

_MOST_BYTES = 64 << 20
_GRACE_SECONDS = 0.5  # beyond the timeout, for an answer that says what is waited for
_VERDICT_KEYS = {"segment", "verdict", "version", "digest", "problems", "waited_for"}
_PEER = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Answer:
    """For one segment. `fields` is the verdict as the agent gives it, or one in its place where there is none; then
    `message` says why."""

    fields: dict[str, Any]
    message: str | None = None

    @property
    def segment(self) -> str:
        """Its name."""
        return str(self.fields["segment"])

    @property
    def verdict(self) -> str:
        """One of those in `reload`."""
        return str(self.fields["verdict"])


def reload_segment(segment: str, places: Sequence[Directory], timeout: float, accept: str | None = None) -> Answer:
    """Asks the agent of one segment, and waits for at most `timeout` seconds. Raises InvalidName.

    accept: the digest, or its beginning, of the candidate to be published although the guard holds it.
    """
    return _order(segment, places, timeout, "reload" if accept is None else f"reload?accept={accept}")


def roll_back(segment: str, places: Sequence[Directory], timeout: float, version: int, *, force: bool) -> Answer:
    """Asks the agent of one segment to publish this version again and to hold it. Raises InvalidName.

    force: although it is not valid by today's schema and check.
    """
    return _order(segment, places, timeout, f"rollback?version={version}&force={force:d}")


def resume(segment: str, places: Sequence[Directory], timeout: float) -> Answer:
    """Asks the agent of one segment to follow its files again, and waits for the verdict. Raises InvalidName."""
    return _order(segment, places, timeout, "resume")


def _order(segment: str, places: Sequence[Directory], timeout: float, what: str) -> Answer:
    check_name(segment)
    deadline = time.monotonic() + timeout
    for place in places:
        if any(os.path.lexists(place.path / (segment + suffix)) for suffix in (SUFFIX, SEGMENT_SUFFIX)):
            target = f"/-/{what}{'&' if '?' in what else '?'}timeout={timeout!r}"
            [answer] = _ask(place, segment, deadline, target, alone=True)
            return answer
    where = ", ".join(str(place.path) for place in places)
    return _no_verdict(segment, UNAVAILABLE, f"no agent for segment {segment!r} in {where}")


def reload_all(places: Sequence[Directory], timeout: float) -> list[Answer]:
    """Asks every agent that has a socket in one of the directories, all at once, for all of its segments."""
    deadline = time.monotonic() + timeout
    answers: dict[tuple[str, str], Answer] = {}
    claimed: set[tuple[str, str]] = set()
    lock = threading.Lock()

    def ask(place: Directory, segment: str) -> None:
        agent, answer = _agent_of(place, segment, deadline)
        if agent is None:
            found: Iterable[Answer] = [answer]
        else:
            with lock:
                if (str(place.path), agent) in claimed:
                    return
                claimed.add((str(place.path), agent))
            remaining = max(0.0, deadline - time.monotonic())
            found = _ask(place, segment, deadline, f"/-/reload?all=1&timeout={remaining!r}", alone=False)
        with lock:
            for each in found:
                answers.setdefault((str(place.path), each.segment), each)

    threads = [
        threading.Thread(target=ask, args=(place, segment), daemon=True)
        for place in places
        for segment in _names(place, SUFFIX)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in places:  # an agent that has no socket must not go unnoticed
        for segment in _names(place, SEGMENT_SUFFIX):
            if (str(place.path), segment) not in answers and _is_alive(place, segment):
                text = f"segment {segment!r} has a live agent that cannot be asked: see `shmconf status {segment}`"
                answers[str(place.path), segment] = _no_verdict(segment, UNAVAILABLE, text)
    return [answers[key] for key in sorted(answers)]


class _Connection(http.client.HTTPConnection):
    """To the socket of one segment. connect() raises _NoAnswer for a peer that is not to be trusted."""

    def __init__(self, place: Directory, segment: str, deadline: float) -> None:
        super().__init__("localhost", timeout=max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS)
        self._place = place
        self._segment = segment

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with address(self._place.path, self._segment) as where:
            self.sock.connect(where)
        _, uid, _ = _PEER.unpack(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in trusted_owners(self._place, os.stat(self._place.path)):
            text = f"{self._place.path / (self._segment + SUFFIX)} is served by user {uid}, who is not to be trusted"
            raise _NoAnswer(REFUSED, text)


class _NoAnswer(Exception):
    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def _ask(place: Directory, segment: str, deadline: float, target: str, *, alone: bool) -> list[Answer]:
    """The answers to POST `target`; `alone`: for this segment only."""
    try:
        _, told = _request(place, segment, deadline, "POST", target)
        verdicts = told["segments"]
        if alone and [each["segment"] for each in verdicts] != [segment]:
            raise _NoAnswer(UNAVAILABLE, f"the agent of segment {segment!r} answered for another one")
        return [Answer(each, _message(each)) for each in verdicts]
    except _NoAnswer as error:
        return [_no_verdict(segment, error.verdict, str(error))]


def _agent_of(place: Directory, segment: str, deadline: float) -> tuple[str | None, Answer]:
    """What tells the agent behind this socket from others; else why nobody knows."""
    try:
        _, told = _request(place, segment, deadline, "GET", "/-/healthy")
        return str(told["agent"]), _no_verdict(segment, UNAVAILABLE, "")
    except _NoAnswer as error:
        return None, _no_verdict(segment, error.verdict, str(error))


def _request(place: Directory, segment: str, deadline: float, method: str, target: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer that has what it should. Raises _NoAnswer."""
    connection = _Connection(place, segment, deadline)
    path = place.path / (segment + SUFFIX)
    try:
        with contextlib.suppress(BrokenPipeError):  # a server that has no place says so, and closes
            connection.request(method, target)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except TimeoutError:
        raise _NoAnswer(TIMEOUT, f"the agent of segment {segment!r} did not answer in time") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise _NoAnswer(UNAVAILABLE, _nobody(place, segment)) from None
    except PermissionError:
        text = f"no permission to ask at {path}: be root, the agent's user, or a member of its admin_group"
        raise _NoAnswer(REFUSED, text) from None
    except (ConnectionError, http.client.HTTPException) as error:
        text = f"the agent of segment {segment!r} ended before it answered ({type(error).__name__})"
        raise _NoAnswer(UNAVAILABLE, text) from None
    except BlockingIOError:  # its backlog is full
        raise _NoAnswer(BUSY, f"the agent of segment {segment!r} has too many connections; try again") from None
    except OSError as error:
        raise _NoAnswer(UNAVAILABLE, f"{path}: {error.strerror or error}") from None
    finally:
        connection.close()
    return response.status, _checked(response.status, body, segment, method)


def _checked(status: int, body: bytes, segment: str, method: str) -> dict[str, Any]:
    if status == 503 and not body:
        raise _NoAnswer(BUSY, f"the agent of segment {segment!r} has too many connections; try again")
    try:
        told = json.loads(body)
        if "error" not in told:
            if not isinstance(told["agent"], str):
                raise TypeError
            if method == "POST" and not all(each.keys() >= _VERDICT_KEYS for each in told["segments"]):
                raise KeyError
            return dict(told)
        why = str(told["error"])
    except (ValueError, TypeError, KeyError, AttributeError):
        why = f"HTTP status {status}, which is no verdict"
    verdict = REFUSED if status == 403 else UNAVAILABLE
    raise _NoAnswer(verdict, f"the agent of segment {segment!r} answers: {why}")


def _no_verdict(segment: str, verdict: str, message: str) -> Answer:
    fields: dict[str, Any] = {"version": None, "digest": None, "problems": [], "waited_for": [],
                              "awaits_commit": None, "held": None, "hold": None, "released": None}
    return Answer({"segment": segment, "verdict": verdict, **fields}, message)


def _message(fields: dict[str, Any]) -> str | None:
    segment = fields["segment"]
    if fields["verdict"] == GONE:
        return f"segment {segment!r} is not in the agent's file"
    if fields["verdict"] != TIMEOUT:
        return None
    files = ", ".join(fields.get("waited_for", ()))
    why = f"not whole yet: {files}" if files else "the agent is still at it"
    return f"no verdict on segment {segment!r} in time; {why}"


def _nobody(place: Directory, segment: str) -> str:
    nobody = f"no agent for segment {segment!r} in {place.path}"
    if _is_alive(place, segment):
        return f"{nobody} answers, though one was alive just now: see `shmconf status {segment}`"
    return nobody


def _is_alive(place: Directory, segment: str) -> bool:
    try:
        attachment = open_attachment(place, segment)
        return read_status(segment, attachment).agent_alive
    except Error:
        return False


def _names(place: Directory, suffix: str) -> list[str]:
    """The segments that have something with this suffix there."""
    try:
        entries = sorted(os.listdir(place.path))
    except OSError:
        return []
    names = []
    for entry in entries:
        name = entry.removesuffix(suffix)
        try:
            if name != entry and check_name(name) and (suffix != SUFFIX or _is_socket(place, entry)):
                names.append(name)
        except InvalidName:
            continue
    return names


def _is_socket(place: Directory, entry: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(place.path / entry).st_mode)
    except OSError:
        return False
