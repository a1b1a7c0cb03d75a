"""What can be asked at the admin socket, in HTTP: POST /-/reload, /-/rollback and /-/resume, GET /-/healthy, /-/ready,
/status, /config, /metrics.

Bodies of answers are JSON, but for the metrics. `config` is that of the segment whose socket it is asked at; the rest
is about every segment of the agent, so that a scraper asks at one socket alone. Requests have no body; `reload` is for
the socket's own segment and takes `all=1` (every segment of the agent's file), `timeout` in seconds and `accept` (the
digest of a held candidate), as a query; `rollback` takes `version`, `force=1` and `timeout`, `resume` takes `timeout`,
both of the socket's segment. Only root, the agent's user and members of the admin group may change something; whoever
can connect may look.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import HttpVersion10, web

from .admin import ANSWER_SECONDS, HEADER_SECONDS, AdminServer, Connection
from .admin_views import Configuration, Unserved, statuses
from .hold import Order, Resume, RollBack
from .reload import (
    FAILED,
    GONE,
    HELD,
    NOT_KEPT,
    PUBLISHED,
    REJECTED,
    ROLLED_BACK,
    TIMEOUT,
    UNCHANGED,
    Reload,
    Verdict,
    digest_beginning,
)

if TYPE_CHECKING:
    from .metrics import Metrics

DEFAULT_TIMEOUT = 60.0
MOST_TIMEOUT = 3600.0
_MOST_HEADER_BYTES = 8190

# The worst verdict of a request makes its status.
_STATUS = {
    UNCHANGED: 200,
    PUBLISHED: 200,
    ROLLED_BACK: 200,
    REJECTED: 422,
    TIMEOUT: 504,
    GONE: 404,
    NOT_KEPT: 404,
    HELD: 409,
    FAILED: 500,
}
_WORST = [200, 422, 504, 404, 409, 500]

_OF_ROLLBACK = {"version", "force", "timeout"}
_T = TypeVar("_T")
_Page = Callable[[web.BaseRequest, Connection], Awaitable[web.Response]]


def make_server(admin: AdminServer) -> web.Server:
    """What makes a reader of requests for each connection. In the thread of the admin server's loop."""
    silent = logging.getLogger("shmconf_agent.admin")  # whatever a peer sends, it does not fill the agent's log
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    return web.Server(
        _Pages(admin).answer,
        handler_cancellation=True,
        loop=admin.loop,
        logger=silent,
        access_log=None,
        keepalive_timeout=HEADER_SECONDS,
        tcp_keepalive=False,
        max_line_size=_MOST_HEADER_BYTES,
        max_field_size=_MOST_HEADER_BYTES,
        lingering_time=0.0,
        auto_decompress=False,
    )


class _Pages:
    def __init__(self, admin: AdminServer) -> None:
        self._admin = admin
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shmconf-admin-page")  # what takes long, in turn
        self._exposition: Metrics | None = None
        self._configuration = Configuration(admin.agent.directory())
        self._pages: dict[str, tuple[str, _Page]] = {
            "/-/reload": ("POST", self._reload),
            "/-/rollback": ("POST", self._roll_back),
            "/-/resume": ("POST", self._resume),
            "/-/healthy": ("GET", self._healthy),
            "/-/ready": ("GET", self._ready),
            "/status": ("GET", self._status),
            "/config": ("GET", self._config),
            "/metrics": ("GET", self._metrics),
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The answer to any request; the connection's last."""
        connection = self._admin.connection_of(request.protocol)
        if connection is None:
            raise asyncio.CancelledError
        connection.has_asked = True
        connection.end_within(None)
        try:
            response = await self._page(request, connection)
        except ImportError as error:
            response = _json(500, {"error": f"{error}; pip install 'shmconf[agent]'"})
        except Exception as error:
            self._admin.fault(error)
            response = _json(500, {"error": "internal error; the agent's log has more"})
        connection.end_within(ANSWER_SECONDS)
        response.force_close()
        return response

    async def _page(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        if request.version < HttpVersion10:
            return _json(400, {"error": "this is no HTTP of today"})
        if request.can_read_body:
            return _json(413, {"error": "a request here has no body"})
        method, page = self._pages.get(request.path, ("", None))
        if page is None:
            return _json(404, {"error": f"there is {', '.join(self._pages)}"})
        if request.method != method:
            response = _json(405, {"error": f"{request.path} takes {method}"})
            response.headers["Allow"] = method
            return response
        twice = [name for name, count in Counter(name for name, _ in request.query.items()).items() if count > 1]
        if twice:
            return _json(400, {"error": f"{', '.join(map(repr, twice))} can be given once"})
        return await page(request, connection)

    async def _healthy(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        health = self._admin.agent.health()
        healthy = all(health.values())
        return self._json(200 if healthy else 503, {"healthy": healthy, "segments": health})

    async def _ready(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        versions = self._admin.agent.serving()
        ready = bool(versions) and all(versions.values())
        return self._json(200 if ready else 503, {"ready": ready, "segments": versions})

    async def _status(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        agent = self._admin.agent
        segments = await self._aside(lambda: statuses(agent.directory(), agent.totals()))
        return self._json(200, {"segments": segments})

    async def _config(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        try:
            body = await self._aside(lambda: self._configuration.body(connection.segment))
        except Unserved as error:
            return self._json(error.status, {"error": str(error)})
        return web.Response(body=body, content_type="application/json")

    async def _metrics(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, content_type = await self._aside(lambda: self._encoded_metrics(accept))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _encoded_metrics(self, accept: str) -> tuple[bytes, str]:
        if self._exposition is None:
            from .metrics import Metrics

            self._exposition = Metrics(self._admin.agent.totals, self._admin.agent.workers)
        return self._exposition.encoded(accept)

    async def _aside(self, work: Callable[[], _T]) -> _T:
        """In another thread, so that the others at the socket need not wait."""
        return await self._admin.loop.run_in_executor(self._worker, work)

    async def _reload(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        if not connection.privileged:
            return _refused(connection)
        timeout = _timeout(request.query.get("timeout"))
        accept, alone = request.query.get("accept"), request.query.get("all", "0") == "0"
        if accept is not None and (digest_beginning(accept) is None or not alone):
            return _json(400, {"error": "'accept' is a digest, or at least its first 8 digits, and goes without 'all'"})
        if timeout is None or set(request.query) - {"timeout", "all", "accept"}:
            return _json(400, {"error": f"'timeout' is a number of seconds up to {MOST_TIMEOUT:g}, 'all' is 1 or 0"})
        segment = connection.segment if alone else None
        return await self._verdict(timeout, segment, accept and digest_beginning(accept))

    async def _roll_back(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        if not connection.privileged:
            return _refused(connection)
        timeout, force = _timeout(request.query.get("timeout")), request.query.get("force", "0")
        written = request.query.get("version", "")
        version = int(written) if re.fullmatch("[1-9][0-9]{0,18}", written) else None
        if timeout is None or version is None or force not in ("0", "1") or set(request.query) - _OF_ROLLBACK:
            text = f"'version' is a number, 'force' is 1 or 0, 'timeout' a number of seconds up to {MOST_TIMEOUT:g}"
            return _json(400, {"error": text})
        order = RollBack(version, connection.peer_uid, force == "1")
        return await self._verdict(timeout, connection.segment, order=order)

    async def _resume(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        if not connection.privileged:
            return _refused(connection)
        timeout = _timeout(request.query.get("timeout"))
        if timeout is None or set(request.query) - {"timeout"}:
            return _json(400, {"error": f"'timeout' is a number of seconds up to {MOST_TIMEOUT:g}"})
        return await self._verdict(timeout, connection.segment, order=Resume(connection.peer_uid))

    async def _verdict(
        self, timeout: float, segment: str | None, accept: str | None = None, order: Order | None = None
    ) -> web.Response:
        """Ask the agent, and answer with what came of it."""
        loop = self._admin.loop
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(finish)

        reload = Reload(segment, tell, accept, order)
        self._admin.waiting.add(done)
        try:
            self._admin.agent.ask(reload)
            await asyncio.wait([done], timeout=timeout)
        finally:
            self._admin.waiting.discard(done)
            reload.abandoned = True
        verdicts = [self._with_what_is_served(verdict) for verdict in reload.verdicts()]
        if self._admin.stopping and (not verdicts or any(verdict.verdict == TIMEOUT for verdict in verdicts)):
            return _json(503, {"error": "the agent stops"})
        statuses = [_STATUS[verdict.verdict] for verdict in verdicts] or [504 if not done.done() else 200]
        fields = {"segments": [verdict.fields() for verdict in verdicts]}
        return self._json(max(statuses, key=_WORST.index), fields)

    def _with_what_is_served(self, verdict: Verdict) -> Verdict:
        """A verdict that is not known yet tells what is served all the same."""
        totals = self._admin.agent.totals().get(verdict.segment) if verdict.verdict == TIMEOUT else None
        if totals is None:
            return verdict
        return dataclasses.replace(verdict, version=totals.standing.version, digest=totals.standing.digest)

    def _json(self, status: int, fields: dict[str, Any]) -> web.Response:
        return _json(status, {"agent": self._admin.id, "pid": os.getpid(), **fields})


def _refused(connection: Connection) -> web.Response:
    text = f"user {connection.peer_uid} may not: be root, the agent's user, or a member of its admin_group"
    return _json(403, {"error": text})


def _json(status: int, fields: dict[str, Any]) -> web.Response:
    text = json.dumps(fields, indent=2) + "\n"  # in ASCII: names and texts may hold anything
    return web.Response(status=status, text=text, content_type="application/json")


def _timeout(written: str | None) -> float | None:
    """Seconds; None for what is no number of them."""
    if written is None:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(written)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= MOST_TIMEOUT else None
