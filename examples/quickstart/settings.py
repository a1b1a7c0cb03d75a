"""What must hold between values, which a schema cannot say. The agent runs `check` before it publishes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Problem = tuple[str, str]


def check(config: dict[str, Any]) -> Iterator[Problem]:
    """Yields a (path, text) pair for everything that is wrong with the merged configuration."""
    payments = config["payments"]
    names = [provider["name"] for provider in payments["providers"]]
    if payments["default"] not in names:
        yield (
            "payments.default",
            f"is {payments['default']!r}, which is none of the providers: {', '.join(names)}",
        )
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"payments.providers.{number}.name", f"{name!r} is the name of an earlier provider too"

    timeout = config["service"].get("request_timeout")
    if timeout is not None and config["db"]["pool"]["timeout"] >= timeout:
        yield "db.pool.timeout", f"must be less than service.request_timeout, which is {timeout}"

    for feature in config.get("rollout", {}):
        if not config["features"].get(feature):
            yield f"rollout.{feature}", f"is planned, but features.{feature} is not switched on"
