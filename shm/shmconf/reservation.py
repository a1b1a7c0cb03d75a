"""Versions reserved ahead in the state directory, so that none is given out twice when the segment is lost.

The file says up to which version numbers may have been published. It is renewed before they run out, in the
background; a new epoch begins beyond it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from pathlib import Path

AHEAD = 1000
RENEW_AT = 500
_NEVER_REACHED = 1 << 62


class Reservation:
    """The reservation of one segment, owned by its one writer. `ensure` never blocks on the disk."""

    def __init__(self, path: Path) -> None:
        """Read what is reserved. Never raises: a missing or damaged file reserves nothing, with a warning."""
        self._path = path
        self._durable = 0
        self._problem: str | None = None
        self.damage: str | None = None  # why what was reserved is not known; a file that never was is no damage
        self._wanted = 0
        self._renewal: threading.Thread | None = None
        self._read()

    @property
    def reserved_through(self) -> int:
        """The last version that may have been published by anybody, as the disk has it."""
        return self._durable

    def warning(self, version: int) -> str | None:
        """Why versions may go back after a loss of the segment, where `version` is the latest; else None."""
        if version <= self._durable:
            return None
        reason = self._problem or "the reservation is late"
        return f"versions may go back if the segment is lost: cannot reserve them in {self._path}: {reason}"

    def begin(self, version: int) -> None:
        """Reserve beyond `version` now, before the first publication; waits for the disk."""
        self.settle()  # of a segment that was taken over
        if self._durable - version < RENEW_AT:
            self._write(version + AHEAD)

    def ensure(self, version: int) -> None:
        """Renew in the background when fewer than 500 reserved versions are left beyond `version`."""
        if self._durable - version >= RENEW_AT or (self._renewal is not None and self._renewal.is_alive()):
            return
        if self._problem is not None and version < self._wanted:
            return  # a disk that refuses is asked again once in so many versions
        self._wanted = version + AHEAD // 10
        self._renewal = threading.Thread(
            target=self._write, args=(version + AHEAD,), name="shmconf-reservation", daemon=True
        )
        self._renewal.start()

    def retry(self, version: int) -> None:
        """Try again now, in the background, if the disk refused before or has lost what it had.

        For a caller that has time between versions.
        """
        if not os.path.exists(self._path) and not (self._renewal is not None and self._renewal.is_alive()):
            self._durable = 0
        self._wanted = 0
        self.ensure(version)

    def settle(self) -> None:
        """Wait for a renewal under way."""
        if self._renewal is not None:
            self._renewal.join()

    def _read(self) -> None:
        try:
            body, checksum = self._path.read_text("ascii").splitlines()
            if int(checksum, 16) != zlib.crc32(body.encode()):
                raise ValueError("its checksum does not fit")
            through = json.loads(body)["reserved_through"]
            if not isinstance(through, int) or not 0 <= through < _NEVER_REACHED:
                raise ValueError("its number is out of range")
            self._durable = through
        except FileNotFoundError:
            pass
        except OSError as error:
            self.damage = self._problem = error.strerror or str(error)
        except (ValueError, KeyError, TypeError) as error:
            self.damage = self._problem = f"it was damaged ({error})"

    def _write(self, through: int) -> None:
        body = json.dumps({"reserved_through": through})
        aside = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, f"{body}\n{zlib.crc32(body.encode()):08x}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(aside, self._path)
            with contextlib.suppress(OSError):  # the rename is atomic without it; this makes it last
                directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        except OSError as error:
            self._problem = error.strerror or str(error)
            return
        self._durable = max(self._durable, through)
        self._problem = None
