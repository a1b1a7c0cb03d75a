"""The admin server: who may come in at the admin sockets, how long they may stay, and nothing that the agent waits for.

One thread with an event loop of its own serves the sockets of all segments of an agent. What can be asked there is in
`admin_http`, which is loaded with the first connection: an agent that nobody asks pays for none of it. A connection is
for one request. It gets a few seconds for it and 64 KiB, then as long as its answer takes, then a few seconds to read
it. The kernel says who is at the other end; users without rights to change anything have few places, and cannot
take those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from shmconf.directories import Directory
from shmconf.workers import Worker

from .events import Said, Say
from .reload import Reload
from .tally import Totals

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.web_protocol import RequestHandler

HEADER_SECONDS = 5.0
"""For the request, from the connection on."""
ANSWER_SECONDS = 5.0
"""For the peer to take the answer."""
MOST_BYTES = 64 * 1024
"""Of all that a connection may send."""
MOST_CONNECTIONS = 64
"""Of those who may change something; besides these, as many as MOST_VISITORS of the others."""
MOST_VISITORS = 16
_STOP_SECONDS = 1.0
_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Asked(Protocol):
    """What the server needs of the agent. Called from its thread; returns at once."""

    def ask(self, reload: Reload) -> None:
        """Read the files again, soon."""

    def health(self) -> dict[str, bool]:
        """Whether the loop of each segment gets on."""

    def serving(self) -> dict[str, int]:
        """The version that each segment serves; 0 for none."""

    def totals(self) -> dict[str, Totals]:
        """What the reloads of each segment have come to, and how it stands."""

    def workers(self, segment: str, served: int) -> list[Worker]:
        """The workers that are attached to a segment, which serves this version."""

    def directory(self) -> Directory:
        """Where the segments are."""


class AdminServer:
    """Serves the sockets that it is given. Its methods may be called from any thread."""

    def __init__(self, agent: Asked, say: Say) -> None:
        """Starts the thread. Nobody is asked before the first socket is there."""
        self.agent = agent
        self.id = secrets.token_hex(8)
        """Tells this agent from every other one, and from itself before a restart."""
        self.admin_gid: int | None = None
        """The group whose members may change something."""
        self.stopping = False
        self.waiting: set[asyncio.Future[None]] = set()
        """Of requests that wait for a verdict. Of the loop's thread."""
        self._say = say
        self._told: set[str] = set()
        self._listeners: dict[str, asyncio.Server] = {}
        self._connections: dict[RequestHandler, Connection] = {}
        self._guests = {True: 0, False: 0}
        self._http: web.Server | None = None
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._on_trouble)
        self._turn = asyncio.Lock()
        self._thread = threading.Thread(target=self._run, name="shmconf-admin", daemon=True)
        self._thread.start()

    def socket_gid(self) -> int:
        """The group that a socket is to have."""
        return os.getegid() if self.admin_gid is None else self.admin_gid

    def listen(self, segment: str, bound: socket.socket | None) -> None:
        """Serve this socket, which already listens, instead of what was served for the segment before."""
        try:
            self._soon(lambda: self._listen(segment, bound))
        except RuntimeError:  # the loop has ended
            if bound is not None:
                bound.close()

    def close(self) -> None:
        """Answer those who wait that the agent stops, and end the thread. Idempotent."""
        self.stopping = True
        with contextlib.suppress(RuntimeError):
            self._soon(self._stop)
        self._thread.join(2 * _STOP_SECONDS)

    # --- in the loop's thread -----------------------------------------------------------------------------------------

    def connection_of(self, handler: RequestHandler) -> Connection | None:
        """Where a request came in; None if it is gone already."""
        return self._connections.get(handler)

    def admit(self, connection: Connection) -> RequestHandler | None:
        """What is to read the connection's request; None where no place is free."""
        if self.stopping or self._guests[connection.privileged] >= (
            MOST_CONNECTIONS if connection.privileged else MOST_VISITORS
        ):
            return None
        if self._http is None:
            try:
                from .admin_http import make_server
            except ImportError as error:
                self._tell(f"the admin socket cannot answer ({error}); pip install 'shmconf[agent]'")
                return None
            self._http = make_server(self)
        self._guests[connection.privileged] += 1
        handler = self._http()
        self._connections[handler] = connection
        return handler

    def leave(self, connection: Connection, handler: RequestHandler) -> None:
        """The connection is closed."""
        if self._connections.pop(handler, None) is not None:
            self._guests[connection.privileged] -= 1

    def fault(self, error: Exception) -> None:
        """A fault of ours in an answer."""
        self._tell(f"internal error at the admin socket: {type(error).__name__}: {error}")

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def _soon(self, make: Callable[[], Any]) -> None:
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(make()))

    async def _listen(self, segment: str, bound: socket.socket | None) -> None:
        async with self._turn:
            before = self._listeners.pop(segment, None)
            if before is not None:
                before.close()
            if bound is None:
                return
            if self.stopping:
                bound.close()
                return
            self._listeners[segment] = await self.loop.create_server(partial(Connection, self, segment), sock=bound)

    async def _stop(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        for future in list(self.waiting):
            if not future.done():
                future.set_result(None)
        give_up = self.loop.time() + _STOP_SECONDS
        while self.loop.time() < give_up and any(each.has_asked for each in self._connections.values()):
            await asyncio.sleep(0.005)  # their answers are on the way
        for connection in list(self._connections.values()):
            connection.abort()
        await asyncio.sleep(0)  # the connections are told of their end in the loop's next round
        self.loop.stop()

    def _on_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, ConnectionError):
            self._tell(f"admin socket: {context.get('message')}{f': {error}' if error else ''}")

    def _tell(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            self._say(Said(None, text))


class Connection(asyncio.Protocol):
    """One connection: hands what comes to the reader of requests, and closes when its time is over."""

    def __init__(self, server: AdminServer, segment: str) -> None:
        """segment: whose socket it came in at."""
        self.segment = segment
        self.privileged = False
        """Whether the peer may change something."""
        self.peer_uid = -1
        self.has_asked = False
        """Whether its request is there as a whole."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._handler: RequestHandler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel who is there, and begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        try:
            self.peer_uid, self.privileged = _peer(transport.get_extra_info("socket"), self._server.admin_gid)
        except OSError:
            transport.abort()
            return
        self._handler = self._server.admit(self)
        if self._handler is None:
            transport.write(_BUSY)
            transport.close()
            return
        self.end_within(HEADER_SECONDS)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Count, and hand on."""
        self._received += len(data)
        if self._received > MOST_BYTES:
            self.abort()
        elif self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        """The peer sends nothing more: it is gone, for all that concerns us."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """Free the place."""
        self.end_within(None)
        handler, self._handler = self._handler, None
        if handler is not None:
            self._server.leave(self, handler)
            handler.connection_lost(error)

    def pause_writing(self) -> None:
        """Hand on."""
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        if self._handler is not None:
            self._handler.resume_writing()

    def end_within(self, seconds: float | None) -> None:
        """Close the connection then; None for as long as it takes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._server.loop.call_later(seconds, self.abort)

    def abort(self) -> None:
        """Close at once, whatever was not sent yet."""
        if self._transport is not None:
            self._transport.abort()


def _peer(connected: Any, admin_gid: int | None) -> tuple[int, bool]:
    """The user at the other end, as of when it connected, and whether it may change something. Raises OSError."""
    pid_uid_gid = struct.Struct("3i")
    _, uid, gid = pid_uid_gid.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, pid_uid_gid.size))
    if uid in (0, os.geteuid()):
        return uid, True
    if admin_gid is None:
        return uid, False
    groups: set[int] = {gid}
    with contextlib.suppress(OSError):  # more groups than fit: the peer's own group counts
        found = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        groups.update(struct.unpack(f"{len(found) // 4}I", found))
    return uid, admin_gid in groups
