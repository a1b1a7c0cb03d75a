"""One worker of `shmconf demo`: reads without end and reports what it saw, a line of JSON for each thing.

    python -P -m shmconf_agent.demo_worker SEGMENT DIRECTORY PATH NAP

It does what any worker would, with nothing but the package shmconf. `adopted` is reported at each new version, the
moment its value has been read; `count` every 50 ms, with all reads so far and how many of them went wrong: raised,
found no value, found another value than that of the version in force, or met a version that went back. It ends when
nobody reads its reports any more. NAP is how many seconds it sleeps after every few reads; a new version ends the
sleep at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import shmconf

_ATTACH_SECONDS = 20.0
_READS_PER_NAP = 10
_REPORT_SECONDS = 0.05
_ABSENT = object()


class Worker:
    """Reads one path of one segment."""

    def __init__(self, config: shmconf.Reader, path: str, nap: float) -> None:
        """Nothing is read yet."""
        self._config = config
        self._path = path
        self._nap = nap
        self._version = 0
        self._value: Any = None
        self._reads = 0
        self._errors = 0
        self._last_error: str | None = None

    def work(self) -> None:
        """Read and report until the reports' pipe is closed."""
        report_at = 0.0
        while True:
            try:
                self._adopt()
                self._read()
            except shmconf.Error as error:
                self._wrong(f"{type(error).__name__}: {error}")
            now = time.monotonic()
            if now >= report_at:
                report_at = now + _REPORT_SECONDS
                self._report_count()

    def _adopt(self) -> None:
        """Take over the version that is published now, if it is another one."""
        if self._config.wait_version(after=self._version, timeout=self._nap) is None:
            if self._config.version < self._version:
                self._wrong(f"version {self._config.version} after version {self._version}")
            return
        snapshot = self._config.snapshot()
        value = snapshot.get(self._path, _ABSENT)
        at, on_the_way = time.monotonic_ns(), time.time_ns() - snapshot.published_at
        if value is _ABSENT:
            self._wrong(f"version {snapshot.version} has no {self._path}")
            value = None
        if snapshot.version < self._version:
            self._wrong(f"version {snapshot.version} after version {self._version}")
        self._version, self._value = snapshot.version, value
        _report(
            event="adopted",
            version=snapshot.version,
            epoch=snapshot.epoch,
            value=value,
            at_ns=at,  # of the monotonic clock, which all processes share
            since_published_ns=on_the_way,
        )

    def _read(self) -> None:
        for _ in range(_READS_PER_NAP):
            value = self._config.get(self._path, _ABSENT)
            self._reads += 1
            if value != self._value and self._config.version == self._version:
                self._wrong(f"{self._path} was {value!r} at version {self._version}, whose value is {self._value!r}")

    def _wrong(self, what: str) -> None:
        self._errors += 1
        self._last_error = what

    def _report_count(self) -> None:
        _report(
            event="count",
            version=self._config.version,
            value=self._config.get(self._path),
            reads=self._reads,
            errors=self._errors,
            last_error=self._last_error,
            rejection=self._config.status().last_error,
        )


def _report(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The process."""
    segment, directory, path, nap = sys.argv[1:]
    try:
        with shmconf.attach(segment, wait=_ATTACH_SECONDS, directory=directory) as config:
            Worker(config, path, float(nap)).work()
    except BrokenPipeError:
        os._exit(0)  # whoever started this is gone; a usual exit would complain of the closed pipe once more
    except shmconf.Error as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
