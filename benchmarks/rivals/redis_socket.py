"""Redis on a UNIX socket: a server of this benchmark's own, a request for each look-up."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..row import Unavailable
from .rival import Rival, leaves, require

_START_SECONDS = 20.0


class RedisSocket(Rival):
    """No TCP port and nothing saved; the client parses with hiredis where that is installed."""

    name = "Redis on a UNIX socket"
    expression = 'int(client.get("db.pool.size"))'

    def __init__(self) -> None:
        """Nothing is started before `prepare`."""
        self._server: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def prepare(self, tree: Mapping[str, Any], directory: Path) -> None:
        """Start the server, and set all leaves once it answers."""
        redis = require("redis")
        command = shutil.which("redis-server")
        if command is None:
            raise Unavailable("no redis-server here (Debian: redis-server)")
        socket = directory / "redis.sock"
        options = {"port": "0", "unixsocket": str(socket), "save": "", "appendonly": "no", "dir": str(directory)}
        arguments = [word for option, value in options.items() for word in (f"--{option}", value)]
        log = directory / "redis.log"
        with log.open("wb") as output:
            self._server = subprocess.Popen([command, *arguments], stdout=output, stderr=output)
        self._client = redis.Redis(unix_socket_path=str(socket))
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._client.ping()
                break
            except redis.exceptions.ConnectionError as error:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(f"redis-server does not answer: {log.read_text()[-500:]}") from error
            time.sleep(0.02)
        self._client.mset({path: str(value) for path, value in leaves(tree)})

    def names(self) -> Mapping[str, object]:
        """The client, connected."""
        return {"client": self._client}

    def close(self) -> None:
        """The client, then the server, by its own process."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            self._server = None
