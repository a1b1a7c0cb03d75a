from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmconf
from shmconf import codec, layout
from shmconf.attachment import Attachment
from shmconf.reader import find, read_status
from shmconf.status import AgentStatus, Hold, cut

FULL = AgentStatus(
    state="running",
    pid=42,
    agent_version="0.1.0",
    started_at=1_700_000_000_000_000_000,
    last_error="base.yaml:3:7: expected a value",
    last_error_at=1_700_000_000_000_000_001,
    problems=("base.yaml:3:7: expected a value", "conf.d/10.toml:1:1: unknown key 'é'"),
    problem_count=2,
    rejections=7,
    stale=True,
    warnings=("one", "two"),
    held="ab" * 32,
    hold=Hold(3, 7, 2**62, 1000, forced=True, candidate="cd" * 32),
)


def test_it_comes_back_as_it_was() -> None:
    assert AgentStatus.decode(FULL.encode()) == FULL
    assert AgentStatus.decode(AgentStatus().encode()) == AgentStatus()


def test_unknown_keys_are_passed_over_and_missing_ones_have_their_defaults() -> None:
    assert AgentStatus.decode(codec.pack({"new": [1], "pid": 3, "state": "running"})) == AgentStatus("running", 3)


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"state": 1},
        {"pid": "1"},
        {"pid": True},
        {"stale": 1},
        {"last_error": b"bytes"},
        {"last_error_at": "now"},
        {"held": True},
        {"hold": True},
        {"hold": {"version": "1", "epoch": 1, "since": 1, "uid": 0}},
        {"hold": {"version": 1, "epoch": 1, "since": 1}},
        {"hold": {"version": 1, "epoch": 1, "since": 1, "uid": 0, "forced": 1}},
        {"hold": {"version": 1, "epoch": 1, "since": 1, "uid": 0, "candidate": 1}},
        {"hold": {"version": 0, "epoch": 1, "since": 1, "uid": 0}},
        {"hold": {"version": 1, "epoch": -1, "since": 1, "uid": 0}},
        {"hold": {"version": 1, "epoch": 1, "since": 2**63, "uid": 0}},
        {"hold": {"version": 1, "epoch": 1, "since": 1, "uid": 2**32}},
        {"hold": {"version": 1, "epoch": 1, "since": 1, "uid": 0, "candidate": "é"}},
        {"state": None},
        {"problems": "text"},
        {"problems": 7},
        {"problems": [1]},
        {"warnings": [["nested"]]},
    ],
)
def test_other_types_are_a_value_error(told: Any) -> None:
    with pytest.raises(ValueError, match=r"status block|hold"):
        AgentStatus.decode(codec.pack(told))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6000)
many = st.lists(st.text(max_size=300), max_size=60).map(tuple)


@given(st.none() | text, many, many)
def test_it_always_fits_its_copy(error: str | None, problems: tuple[str, ...], warnings: tuple[str, ...]) -> None:
    status = dataclasses.replace(FULL, last_error=error, problems=problems, warnings=warnings)
    status = dataclasses.replace(status, problem_count=len(problems))
    body = status.encode()
    assert len(body) <= 4080 == layout.STATUS_BODY_SIZE
    told = AgentStatus.decode(body)
    assert told.problem_count == len(problems)
    assert (told.state, told.pid, told.rejections, told.stale) == ("running", 42, 7, True)
    assert len(told.problems) <= len(problems)
    assert bool(told.problems) == bool(problems)
    assert (told.last_error is None) == (error is None)


@pytest.mark.parametrize(
    "status",
    [
        dataclasses.replace(FULL, last_error="é" * 5000),
        dataclasses.replace(FULL, problems=tuple(f"file.yaml:{line}:1: bad" for line in range(5000))),
        dataclasses.replace(FULL, problems=("x" * 100_000,)),
        dataclasses.replace(FULL, warnings=("y" * 100_000, "z" * 100_000)),
        dataclasses.replace(FULL, last_error="a" * 9000, problems=("b" * 9000,), warnings=("c" * 9000,)),
        dataclasses.replace(FULL, last_error="\ud800" * 2000),
        dataclasses.replace(FULL, problems=("😀" * 4000,)),
    ],
)
def test_what_does_not_fit_is_cut_with_a_mark(status: AgentStatus) -> None:
    body = status.encode()
    assert len(body) <= 4080
    told = AgentStatus.decode(body)
    assert told.last_error is not None
    texts = [told.last_error, *told.problems, *told.warnings]
    whole = [status.last_error, *status.problems, *status.warnings]
    assert all(ours in whole or ours.endswith("…") for ours in texts)
    assert len(told.problems) < len(status.problems) or any(ours.endswith("…") for ours in texts)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(3, 50))
def test_cut_never_splits_a_character(text: str, most: int) -> None:
    short = cut(text, most)
    assert len(short.encode()) <= most
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


# --- as readers see it --------------------------------------------------------------------------------------------


def test_what_a_reader_sees(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    version = publish(writer, {"n": 1})
    with shmconf.attach("web", directory=place.run) as reader:
        status = reader.status()
        assert (status.agent_alive, status.heartbeat_age) == (False, None)
        assert status.agent == AgentStatus()
        writer.set_status(FULL.encode())
        writer.beat()
        status = reader.status()
        assert (status.name, status.path) == ("web", str(place.file))
        assert (status.version, status.epoch) == (version, writer.epoch)
        assert status.digest == reader.snapshot().digest
        assert status.published_at == reader.snapshot().published_at
        assert status.agent_alive
        assert status.heartbeat_age is not None
        assert 0 <= status.heartbeat_age < 3
        assert status.agent == FULL
        assert status.last_error == FULL.last_error
        assert status.serving_last_known_good
        assert not status.retired
        writer.set_status(dataclasses.replace(FULL, last_error=None, stale=False).encode())
        assert not reader.status().serving_last_known_good
        writer.set_status(dataclasses.replace(FULL, last_error=None, stale=True).encode())
        assert reader.status().serving_last_known_good
        writer.set_status(dataclasses.replace(FULL, state="stopped").encode())
        assert not reader.status().agent_alive
        writer.set_status(FULL.encode())
        assert reader.status().agent_alive
        writer.close()
        status = reader.status()
        assert (status.agent_alive, status.heartbeat_age) == (False, None)
        assert status.version == version


def test_an_old_heartbeat_is_a_dead_agent_and_one_from_the_future_none(
    place: Any, publish: Callable[..., int]
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    with shmconf.attach("web", directory=place.run) as reader:
        for since, alive, age in (
            (500_000_000, True, 0.5),
            (4_000_000_000, False, 4),
            (-(10**12), False, None),  # the machine was restarted under a file that outlived it
            (None, False, None),
            (math.inf, False, None),
        ):
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            beat = 0 if since is None else 2**64 - 1 if since == math.inf else max(1, now - since)
            writer._segment._mapping.store(layout.HEARTBEAT, beat)
            status = reader.status()
            assert status.agent_alive is alive
            assert status.heartbeat_age is None if age is None else age <= status.heartbeat_age < age + 2.5


def test_a_segment_without_a_version_has_a_status_too(place: Any) -> None:
    writer = place.writer()
    writer.set_status(FULL.encode())
    writer.beat()
    status = read_status("web", find("web", place.run))
    assert (status.version, status.digest, status.published_at) == (0, None, None)
    assert status.last_error == FULL.last_error
    assert status.agent_alive
    assert FULL.stale
    assert not status.serving_last_known_good, "nothing is served"


def test_a_writer_that_died_in_the_block_wedges_nobody(place: Any, publish: Callable[..., int]) -> None:
    """For both copies: the one being written is odd, the one that counts is whole."""
    writer = place.writer()
    publish(writer, {"n": 1})
    quickest = math.inf
    with shmconf.attach("web", directory=place.run) as reader:
        for number in range(1, 6):
            writer.set_status(dataclasses.replace(FULL, rejections=number).encode())
            mapping = writer._segment._mapping
            assert mapping.load(layout.STATUS_LATEST) == number
            mapping.store(layout.status_offset(number + 1), 2 * (number + 1) - 1)
            mapping.write(layout.status_offset(number + 1) + 8, b"\xff" * 4088)
            began = time.monotonic()
            assert reader.status().agent.rejections == number
            quickest = min(quickest, time.monotonic() - began)
        assert quickest < 0.9, "it waited for a dead writer"


@pytest.mark.parametrize("number", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_damaged_status_number_stops_neither_readers_nor_the_agent(
    place: Any, publish: Callable[..., int], kill: Callable[..., None], number: int
) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    writer.set_status(FULL.encode())
    writer._segment._mapping.store(layout.STATUS_LATEST, number)
    with shmconf.attach("web", directory=place.run) as reader:
        assert reader.status().agent.state == "unknown"
        kill(writer)
        successor = place.writer()
        for rejections in range(3):
            successor.set_status(dataclasses.replace(FULL, rejections=rejections).encode())
            assert reader.status().agent.rejections == rejections
        assert publish(successor, {"n": 2}) == 2


def test_damage_in_the_block_is_told_as_a_warning(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    writer.set_status(FULL.encode())
    writer._segment._mapping.write(layout.status_offset(1) + 16, b"\xff" * 8)
    with shmconf.attach("web", directory=place.run) as reader:
        status = reader.status()
        assert status.agent.state == "unknown"
        assert "the status block is unreadable" in status.agent.warnings[0]
        assert reader["n"] == 1


def test_status_survives_a_damaged_payload(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    writer.set_status(FULL.encode())
    attachment = Attachment.open(place.directory, "web")
    writer._segment._mapping.store(layout.slot_offset(1) + layout.DESCRIPTOR_OFFSET, 1)
    status = read_status("web", attachment)
    assert (status.version, status.digest) == (1, None)
    assert status.agent == FULL


def test_readers_see_whole_blocks_while_they_are_written(place: Any, publish: Callable[..., int], child: Any) -> None:
    writer = place.writer()
    publish(writer, {"n": 1})
    code = """
import sys, shmconf
seen = set()
with shmconf.attach("web", directory=sys.argv[1]) as reader:
    print("reading", flush=True)
    while True:
        agent = reader.status().agent
        if agent.state == "starting":
            continue
        assert agent.problems == (f"{agent.rejections}" * 50,) * 10, agent
        seen.add(agent.rejections)
        if agent.state == "stopped":
            break
assert len(seen) > 3, "there was no overlap"
"""
    reading = child(code, place.run)
    reading.expect("reading")
    number = 0
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        number = (number + 1) % 10
        writer.set_status(AgentStatus(state="running", problems=(f"{number}" * 50,) * 10, rejections=number).encode())
    writer.set_status(AgentStatus(state="stopped", problems=("0" * 50,) * 10).encode())
    reading.finish()


def test_the_body_is_one_msgpack_map(place: Any) -> None:
    told = msgpack.unpackb(FULL.encode())
    assert told["problems"] == list(FULL.problems)
