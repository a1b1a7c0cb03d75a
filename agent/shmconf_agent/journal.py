"""Entries for systemd's journal, sent by its native protocol: fields in a datagram, or in a sealed memfd if too many.

The format is that of https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: `NAME=value` and a line end for each field; for a
value with line ends in it the name stands on a line of its own, then the length (64 bits, little-endian) and the value.
sd_journal_sendv(3) speaks the same, but its library needs a compiler and headers to be had from Python.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "/run/systemd/journal/socket"

_NO_JOURNAL = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL  # as it must have all of them


class Journal:
    """The way to the journal. For one thread. A fork should not use it."""

    def __init__(self, path: str = JOURNAL) -> None:
        """Nothing is opened yet; the socket need not be there."""
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, fields: Iterable[tuple[str, str]], seconds: float) -> None:
        """One entry. Raises OSError if the journal is not there; BlockingIOError if it takes none for `seconds`."""
        data = b"".join(_serialized(name, value) for name, value in fields)
        try:
            self._send(data, seconds)
        except OSError as error:
            if error.errno not in _NO_JOURNAL:
                raise
            self.close()  # it was another journal's; is there one now?
            self._send(data, seconds)

    def close(self) -> None:
        """Let go of the socket; the next `send` opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes, seconds: float) -> None:
        channel = self._connected()
        try:
            _send_in_time(channel, lambda: channel.send(data), seconds)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            memory = os.memfd_create("shmconf-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                with open(memory, "wb", closefd=False) as file:
                    file.write(data)
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
                _send_in_time(channel, lambda: socket.send_fds(channel, [b""], [memory]), seconds)
            finally:
                os.close(memory)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                channel.connect(self._path)
            except OSError:
                channel.close()
                raise
            self._socket = channel
        return self._socket


def _serialized(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _send_in_time(channel: socket.socket, send: Callable[[], int], seconds: float) -> None:
    """Raises OSError; BlockingIOError if there was no room in time."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(channel, select.POLLOUT)
    while True:
        try:
            send()
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            poll.poll(left * 1000)
