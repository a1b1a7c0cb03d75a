"""How the verb status tells of all segments: a row for each, then why those are not healthy that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from shmconf import Status

from .cli_table import Column, Styled, show
from .one_line import visible
from .render import DIGEST_DIGITS, age_seconds, duration, hold_text, status_fields, status_word, to_resume

UNREADABLE = "unreadable"
_STYLES = {
    "healthy": "green",
    "held by rollback": "bold yellow",
    "agent not alive": "bold red",
    "nothing published": "bold red",
}
_COLUMNS = (
    Column("segment"),
    Column("version", right=True, whole=True),
    Column("state"),
    Column("published", whole=True),
    Column("digest", whole=True),
    Column("agent", whole=True),
)


def overview(statuses: Mapping[str, Status | str]) -> None:
    """Print what is known of each segment, by name; a text instead of a status says why there is none."""
    show(_COLUMNS, [_row(name, status) for name, status in statuses.items()])
    reasons = [line for name, status in statuses.items() for line in _reasons(name, status)]
    if reasons:
        click.echo()
    for line in reasons:
        click.echo(visible(line))


def fields(statuses: Mapping[str, Status | str]) -> list[dict[str, Any]]:
    """For JSON. One that cannot be read has its name, its state and the reason as last_error."""
    return [
        status_fields(status) if isinstance(status, Status) else _unreadable(name, status)
        for name, status in statuses.items()
    ]


def _unreadable(name: str, why: str) -> dict[str, Any]:
    return {"segment": name, "state": UNREADABLE, "last_error": why}


def _row(name: str, status: Status | str) -> list[str | Styled]:
    if isinstance(status, str):
        return [name, "-", Styled(UNREADABLE, "bold red"), "-", "-", "-"]
    word, seconds = status_word(status), age_seconds(status.published_at)
    return [
        name,
        str(status.version),
        Styled(word, _STYLES.get(word, "yellow")),
        "-" if seconds is None else f"{duration(seconds)} ago",
        (status.digest or "-")[:DIGEST_DIGITS],
        _agent(status),
    ]


def _agent(status: Status) -> str:
    if status.agent_alive:
        return "alive"
    if status.agent.state == "stopped":
        return "stopped"
    return "silent" if status.heartbeat_age is None else f"silent {duration(status.heartbeat_age)}"


def _reasons(name: str, status: Status | str) -> list[str]:
    """In the order in which an operator asks."""
    if isinstance(status, str):
        return [f"{name}: {status}"]
    lines = []
    if status.hold is not None:
        lines.append(f"{name}: HELD: {hold_text(status.hold)}; to follow the files again: {to_resume(name)}")
    elif status.rollback_of is not None and status.last_error is not None:
        lines.append(f"{name}: served: a rollback of version {status.rollback_of}, not held any more")
    if status.last_error is not None:
        what = "rejected" if status.held is None else "held"
        lines.append(f"{name}: {what}: {status.last_error}")
    if status.agent.stale:
        lines.append(f"{name}: stale: the last known good from before the agent's start")
    return lines + [f"{name}: warning: {warning}" for warning in status.agent.warnings]
