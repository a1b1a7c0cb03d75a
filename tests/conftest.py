from __future__ import annotations

import os
from collections.abc import Callable

import pytest


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
