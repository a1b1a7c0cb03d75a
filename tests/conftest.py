from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest


def pytest_configure() -> None:
    """A shell ignores SIGINT for what it runs in the background, and children inherit that: here Ctrl-C is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """`require(condition, reason)` skips a test that the machine cannot run; in CI, which must be able to, it fails."""

    def check(condition: object, reason: str) -> None:
        if condition:
            return
        if os.environ.get("CI") or os.environ.get("SHMCONF_CI"):
            pytest.fail(f"in CI this must be there: {reason}")
        pytest.skip(reason)

    return check
