"""An acceptance is for one digest, until that is served; and what is served is compared with once it can be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf.directories import Directory
from shmconf.document import Document
from shmconf.errors import SegmentCorrupt
from shmconf_agent import gate
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.events import Event, Said
from shmconf_agent.gate import Gate
from shmconf_agent.guard import problems
from shmconf_agent.guard_settings import GuardSettings, Most
from shmconf_agent.pipeline import Candidate, Pipeline
from shmconf_agent.problems import Code
from shmconf_agent.progress import Progress
from shmconf_agent.publish import Publisher
from shmconf_agent.trial import look_now


def candidate(tree: dict[Any, Any]) -> Candidate:
    return Candidate(tree, Document.of(codec.pack(tree)), ("base.yaml",))


class Bench:
    """A publisher with a gate in front of it."""

    def __init__(self, root: Path, guard: GuardSettings | None) -> None:
        (root / "base.yaml").write_text("a: 1\n")
        self.config = SegmentConfig("web", root, (Source("base.yaml"),), guard=guard)
        self.said: list[Event] = []
        self.directory, self.state = Directory(root, named=True), root / "state"
        self.publisher = Publisher(self.config, self.directory, self.state, self.said.append)
        self.gate = Gate(self.config, self.publisher, Pipeline(self.config), self.said.append)

    def held(self, tree: dict[Any, Any], *accepted: str) -> list[Code]:
        found = self.gate.held(candidate(tree), look_now(self.config), accepted, Progress())
        return [problem.code for problem in found]

    def publish(self, tree: dict[Any, Any]) -> None:
        assert self.publisher.publish(candidate(tree), (), time.monotonic())
        self.gate.passed(candidate(tree))

    def texts(self) -> list[str]:
        return [event.text for event in self.said if isinstance(event, Said)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, GuardSettings(max_deleted_keys=Most("0", number=0), never_empty=("a",)))
    yield made
    made.publisher.close()


def test_an_acceptance_lasts_until_its_candidate_is_served(bench: Bench) -> None:
    bench.publish({"a": 1, "b": 2})
    digest = candidate({"a": 1}).document.digest
    assert bench.held({"a": 1}) == [Code.GUARD_DELETED]
    assert bench.held({"a": 1}, "0" * 64, digest[:7] + ("0" if digest[7] != "0" else "1")) == [Code.GUARD_DELETED]
    assert bench.held({"a": 1}, digest[:8]) == []
    assert bench.held({"a": 1}) == []  # it could not be published, say: nobody has to accept it again
    assert bench.held({"a": 2}) == [Code.GUARD_DELETED]
    assert len([text for text in bench.texts() if "was accepted by request" in text]) == 1
    bench.publish({"a": 1})
    bench.publish({"a": 1, "b": 2})
    assert bench.held({"a": 1}) == [Code.GUARD_DELETED]


def test_what_was_found_is_not_looked_for_again_until_something_is_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish({"a": 1, "b": 2})
    looked: list[int] = []
    monkeypatch.setattr(gate, "problems", lambda *found: looked.append(1) or problems(*found))
    assert bench.held({"a": 1}) == bench.held({"a": 1}) == [Code.GUARD_DELETED]
    assert len(looked) == 1
    (bench.config.base / "base.yaml").write_text("# a line more\na: 1\n")  # the places are other ones
    assert bench.held({"a": 1}) == [Code.GUARD_DELETED]
    assert len(looked) == 2
    bench.publish({"a": 1, "c": 3})
    assert bench.held({"a": 1}) == [Code.GUARD_DELETED]
    assert len(looked) == 3


def test_what_is_served_is_never_held(bench: Bench) -> None:
    bench.publish({"b": 2})
    assert bench.held({"b": 2}) == []
    assert bench.held({"b": 3}) == [Code.GUARD_EMPTY]


def test_without_a_guard_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, None)
    monkeypatch.setattr(bench.publisher, "served", lambda: pytest.fail("asked"))
    bench.publish({"a": 1})
    assert bench.held({}) == []
    bench.publisher.close()


def test_what_cannot_be_read_is_not_compared_with_and_said_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish({"a": 1, "b": 2})
    bench.gate.passed(candidate({}))  # the gate knows another tree than what is served now

    def damaged() -> None:
        raise SegmentCorrupt("a checksum does not fit")

    monkeypatch.setattr(bench.publisher._writer, "published", damaged)
    assert bench.held({"a": 1}) == bench.held({"a": 2}) == []
    assert bench.held({}) == [Code.GUARD_EMPTY]
    [text] = bench.texts()
    assert text == "what is served cannot be read (a checksum does not fit): of the guard, never_empty alone is asked"


def test_a_publisher_that_takes_over_knows_what_is_served(bench: Bench, tmp_path: Path) -> None:
    bench.publish({"a": 1, "b": 2})
    bench.publisher.close()
    after = Bench(tmp_path, bench.config.guard)
    try:
        assert after.held({"a": 1}) == [Code.GUARD_DELETED]
        assert after.held({"a": 1, "b": 3}) == []
        served = after.publisher.served()
        assert served is not None
        assert served.payload() == codec.pack({"a": 1, "b": 2})
        after.publisher._digest = None  # as where another writer noted none
        assert after.publisher.served().digest == candidate({"a": 1, "b": 2}).document.digest
    finally:
        after.publisher.close()
