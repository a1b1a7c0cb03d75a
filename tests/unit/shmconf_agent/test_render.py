"""Values and statuses as people and programs get to see them."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shmconf import AgentStatus, Status, codec
from shmconf_agent.render import as_json, as_raw, as_yaml, duration, status_fields, status_text, status_word, when

STATUS = Status(
    name="web",
    path="/run/shmconf/web.shmconf",
    version=7,
    epoch=1,
    digest="ab" * 32,
    published_at=1_700_000_000_123_456_789,
    agent_alive=True,
    heartbeat_age=0.25,
    retired=False,
    retries=0,
    reopened=0,
    agent=AgentStatus(state="running", pid=42),
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.dates(min_value=date(1000, 1, 1))
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(trees)
def test_yaml_reads_back_equal(tree: Any) -> None:
    text = as_yaml(tree)
    assert text.endswith("\n")
    assert yaml.safe_load(text) == tree


@given(trees)
def test_json_is_always_json(tree: Any) -> None:
    text, _ = as_json(tree)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("value", ["wait...", {"message": "wait..."}, ["wait..."], {"map": {"list": ["...", "a ..."]}}])
def test_a_text_that_ends_in_dots_keeps_them_in_yaml(value: Any) -> None:
    text = as_yaml(value)
    assert yaml.safe_load(text) == value
    assert text.endswith("\n")
    assert "\n...\n" not in text


def test_json_of_what_json_does_not_know() -> None:
    offset = timezone(timedelta(hours=2, minutes=30))
    tree = {
        7: b"hi",
        None: date(2024, 2, 29),
        True: time(12, 30),
        1.5: datetime(2024, 2, 29, 12, 30, tzinfo=offset),
        "local": datetime(2024, 2, 29, 12, 30),
        "list": [float("nan"), float("inf"), {"deep": float("-inf")}],
    }
    text, notes = as_json(tree)
    assert json.loads(text) == {
        "7": "aGk=",
        "null": "2024-02-29",
        "true": "12:30:00",
        "1.5": "2024-02-29T12:30:00+02:30",
        "local": "2024-02-29T12:30:00",
        "list": [None, None, {"deep": None}],
    }
    assert notes == ["JSON has no nan and no infinity: shown as null"]


def test_json_notes_keys_with_the_same_text() -> None:
    text, notes = as_json({"1": "text", 1: "number"})
    assert json.loads(text) == {"1": "number"}
    assert notes == ["two keys of one map have the text '1'; the later one is shown"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text\n", b"text\n"),
        (b"\0\xff", b"\0\xff"),
        (True, b"true"),
        (None, b"null"),
        (1.0, b"1.0"),
        (date(2024, 2, 29), b"2024-02-29"),
        ([1, "a"], codec.pack([1, "a"])),
        ({}, codec.pack({})),
    ],
)
def test_raw(value: Any, expected: bytes) -> None:
    assert as_raw(value) == expected


def test_a_healthy_status() -> None:
    assert status_word(STATUS) == "healthy"
    lines = status_text(STATUS).splitlines()
    assert lines[0] == "web: version 7, healthy"
    assert "published  2023-11-14T22:13:20.123Z" in lines[1]
    assert "alive, process 42, heartbeat 250 ms ago" in lines[3]
    assert len(lines) == 4
    fields = status_fields(STATUS)
    assert (fields["published_at"], fields["agent_pid"]) == ("2023-11-14T22:13:20.123Z", 42)
    assert (fields["stale"], fields["agent_version"]) == (False, STATUS.agent.agent_version or None)
    json.dumps(fields, allow_nan=False)


def test_a_rejection_shows_every_problem_that_the_block_holds() -> None:
    agent = AgentStatus(
        state="running", last_error="a (and 4 more)", last_error_at=1, problems=("a", "b"), problem_count=5
    )
    lines = status_text(dataclasses.replace(STATUS, agent=agent)).splitlines()
    assert "serving last known good" in lines[0]
    assert [line.strip() for line in lines[-3:]] == ["rejected   a", "rejected   b", "rejected   … and 3 more"]


def test_a_candidate_that_is_held_is_shown_with_the_way_to_let_it_through() -> None:
    agent = AgentStatus(last_error="a", last_error_at=1, problems=("a",), problem_count=1, held="0123456789abcdef" * 4)
    lines = status_text(dataclasses.replace(STATUS, agent=agent)).splitlines()
    assert [line.strip() for line in lines[-2:]] == [
        "held       a",
        "to let it through: shmconf reload web --accept 0123456789ab",
    ]
    assert status_fields(dataclasses.replace(STATUS, agent=agent))["held"] == agent.held


def test_stale_is_told_beside_the_reason_and_without_one() -> None:
    for agent in (AgentStatus(stale=True), AgentStatus(stale=True, last_error="x", problems=("x",), problem_count=1)):
        status = dataclasses.replace(STATUS, agent=agent)
        assert "  stale      the last known good from before the agent's start" in status_text(status).splitlines()
        assert status_fields(status)["stale"] is True


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": 0, "agent_alive": False}, "nothing published"),
        ({"agent_alive": False, "agent": AgentStatus(last_error="x")}, "agent not alive"),
        ({"agent": AgentStatus(last_error="x")}, "serving last known good"),
        ({"agent": AgentStatus(stale=True)}, "serving last known good"),
        ({"agent": AgentStatus(last_error="x", held="ab")}, "candidate held"),
        ({"version": 0, "agent": AgentStatus(last_error="x", held="ab")}, "nothing published"),
        ({}, "healthy"),
    ],
)
def test_the_worst_word_counts(changes: dict[str, Any], word: str) -> None:
    assert status_word(dataclasses.replace(STATUS, **changes)) == word


def test_a_dead_agent_is_said_in_words() -> None:
    dead = dataclasses.replace(STATUS, agent_alive=False, heartbeat_age=12.0)
    assert "no heartbeat for 12.0 s; readers go on with what is published" in status_text(dead)
    stopped = dataclasses.replace(dead, agent=AgentStatus(state="stopped"), heartbeat_age=None)
    assert "stopped; readers go on" in status_text(stopped)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (119, "119.0 s"), (600, "10 min"), (3 * 86400, "3 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_when_is_rfc_3339_in_utc() -> None:
    now = datetime.now(UTC)
    shown = datetime.fromisoformat(when(int(now.timestamp() * 1e9)))
    assert abs(shown - now) < timedelta(seconds=1)
