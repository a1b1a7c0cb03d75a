from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ATTEMPTS = 3  # of a test with the mark `timing`, on a machine that has much else to do
LATE_SECONDS = 0.1  # a sleep that lasts longer by this: the test's process was given no turn


def pytest_configure() -> None:
    """A shell ignores SIGINT for what it runs in the background, and children inherit that: here Ctrl-C is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def measured_lateness() -> Iterator[list[float]]:
    """By how much the latest of many short sleeps came too late, in seconds, from beginning to end."""
    longest, ended = [0.0], threading.Event()

    def measure() -> None:
        while not ended.is_set():
            began = time.monotonic()
            time.sleep(0.01)
            longest[0] = max(longest[0], time.monotonic() - began - 0.01)

    thread = threading.Thread(target=measure, name="measured-lateness", daemon=True)
    thread.start()
    try:
        yield longest
    finally:
        ended.set()
        thread.join()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test of what must happen in some time says nothing where its processes are given no time: if it fails on a
    machine that was seen to be busy meanwhile, it is run again, which the end of the run tells. On an idle machine,
    and at the last attempt, a failure is one."""
    if item.get_closest_marker("timing") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, ATTEMPTS + 1):
        with measured_lateness() as late:
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = [report for report in reports if report.failed]
        busy = late[0] > LATE_SECONDS or os.getloadavg()[0] > (os.cpu_count() or 1)
        if not failed or not busy or attempt == ATTEMPTS:
            break
        why = str(failed[0].longreprtext).strip().splitlines()[-1]
        line = f"{item.nodeid}: run again on a busy machine (late by {late[0]:.2f} s), after: {why}"
        item.user_properties.append(("told", line))
        item._initrequest()  # its fixtures are made anew
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """`tell(line)` shows the line at the end of the run, also of a test that passes, in whatever process it ran."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for name, line in report.user_properties:
                if name == "told":
                    terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """`require(condition, reason)` skips a test that the machine cannot run; under .ci/run it fails."""

    def check(condition: object, reason: str) -> None:
        if condition:
            return
        if os.environ.get("SHMCONF_CI"):
            pytest.fail(f".ci/run must have it: {reason}")
        pytest.skip(reason)

    return check
