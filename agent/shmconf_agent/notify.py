"""Telling systemd how the service is: READY, STATUS, WATCHDOG and STOPPING, as sd_notify(3) describes the protocol.

Without $NOTIFY_SOCKET every call does nothing. A message that cannot be delivered is not an error of the agent.
"""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """The service manager's socket. May be used from any thread."""

    def __init__(self, address: str | None = None) -> None:
        """address: as in $NOTIFY_SOCKET, the default; '@' begins an abstract one."""
        chosen = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + chosen[1:] if chosen.startswith("@") else chosen

    def watchdog_seconds(self) -> float | None:
        """Within how many seconds the manager wants to hear WATCHDOG=1; None where it does not."""
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        meant_for = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        if not microseconds.isdigit() or int(microseconds) == 0 or meant_for != str(os.getpid()):
            return None
        return int(microseconds) / 1e6

    def send(self, **fields: str) -> None:
        """One message, such as send(READY="1", STATUS="serving version 3")."""
        if not self._address:
            return
        message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(message.encode(), self._address)
