"""Publication: what becomes a version, what the status block says, and what is kept for after a reboot."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf import codec
from shmconf.directories import Directory
from shmconf.document import Document
from shmconf.errors import SegmentLocked
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.events import Event, Published, Rejected, Said
from shmconf_agent.history import Entry, History
from shmconf_agent.log_kinds import Kind
from shmconf_agent.pipeline import Candidate
from shmconf_agent.problems import Invalid, Problem
from shmconf_agent.publish import Publisher
from shmconf_agent.repeats import Repeats
from shmconf_agent.settle import digest_of
from shmconf_agent.view import SourceLayer


def candidate(
    tree: dict[Any, Any],
    files: tuple[str, ...] = ("base.yaml",),
    blank: tuple[str, ...] = (),
    secrets: tuple[tuple[Any, ...], ...] = (),
) -> Candidate:
    payload = codec.pack(tree)
    return Candidate(tree, Document.of(payload), files, blank, secret_paths=secrets)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Bench:
    """Publishers of one segment, one after the other, and what they said."""

    def __init__(self, root: Path) -> None:
        self.run, self.state = root / "run", root / "state"
        self.run.mkdir(mode=0o755)
        self.said: list[Event] = []
        self.open: list[Publisher] = []
        self.settings: dict[str, Any] = {}

    def publisher(self) -> Publisher:
        config = SegmentConfig("web", self.run, (Source("base.yaml"),), **self.settings)
        made = Publisher(config, Directory(self.run, named=True), self.state, self.said.append)
        self.open.append(made)
        return made

    def publish(self, publisher: Publisher, tree: dict[Any, Any], **more: Any) -> bool:
        return publisher.publish(candidate(tree, **more), ["base.yaml"], time.monotonic())

    def kept(self) -> list[Entry]:
        return History(self.state, "web").entries()

    def status(self) -> shmconf.Status:
        with shmconf.attach("web", directory=self.run) as reader:
            return reader.status()

    def value(self) -> dict[Any, Any]:
        with shmconf.attach("web", directory=self.run) as reader:
            return reader.snapshot().to_dict()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for publisher in made.open:
        publisher.close()


def test_equal_content_publishes_nothing(bench: Bench) -> None:
    publisher = bench.publisher()
    assert publisher.version == 0
    assert bench.publish(publisher, {"a": 1})
    assert bench.publish(publisher, {"a": 1})
    assert publisher.version == 1
    assert bench.publish(publisher, {"a": 2})
    assert publisher.version == 2
    assert [event.version for event in bench.said] == [1, 2]
    assert all(isinstance(event, Published) for event in bench.said)


def test_order_and_type_are_content(bench: Bench) -> None:
    publisher = bench.publisher()
    for tree in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"b": 2.0, "a": 1}, {"b": 2.0, "a": True}):
        bench.publish(publisher, tree)
    assert publisher.version == 4


def test_the_same_content_after_a_restart_is_no_new_version(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    second = bench.publisher()
    assert second.version == 1
    bench.publish(second, {"a": 1})
    assert second.version == 1


def test_a_rejection_changes_nothing_but_the_status(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    publisher.reject([Problem("is odd", "base.yaml", 3, 7), Problem("is odder", "base.yaml", 4, 1)])
    status = bench.status()
    assert status.last_error == "base.yaml:3:7: is odd (and 1 more)"
    assert status.agent.problems == ("base.yaml:3:7: is odd", "base.yaml:4:1: is odder")
    assert (status.agent.problem_count, status.agent.rejections, status.version) == (2, 1, 1)
    assert status.serving_last_known_good
    assert bench.value() == {"a": 1}
    publisher.reject([Problem("is odd", "base.yaml", 3, 7), Problem("is odder", "base.yaml", 4, 1)])
    assert len([event for event in bench.said if isinstance(event, Rejected)]) == 1
    bench.publish(publisher, {"a": 1})
    status = bench.status()
    assert (status.last_error, status.agent.problems, status.version) == (None, (), 1)
    assert not status.serving_last_known_good
    assert isinstance(bench.said[-1], Said)
    assert "valid again and equal" in bench.said[-1].line()


def test_the_same_rejection_is_counted_and_in_all_at_its_end(bench: Bench) -> None:
    publisher, odd = bench.publisher(), [Problem("is odd", "base.yaml", 3, 7)]
    publisher._status._repeats = Repeats(lambda: 0.0)
    bench.publish(publisher, {"a": 1})
    publisher.reject(odd)
    publisher.reject(odd, asked=True)
    assert len(bench.said) == 2, "whoever asked is told"
    for _ in range(3):
        publisher.reject(odd)
    again = bench.said[2]
    assert again.line() == "web: rejected again, still serving version 1: the same problem for the 2nd time"
    assert again.kind is Kind.REPEATED
    bench.publish(publisher, {"a": 1})
    assert [event.line() for event in bench.said[3:]] == [
        "web: the problem before was found 4 times in all",
        "web: valid again and equal to what is served; still serving version 1",
    ]
    assert bench.status().agent.rejections == 1


def changed(event: Event) -> str | None:
    assert isinstance(event, Published)
    paths = event.comparison and event.comparison.result()
    return paths.text() if paths else None


def test_a_publication_is_compared_with_the_one_before(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    bench.publish(first, {"a": 2})
    first.close()
    second = bench.publisher()
    bench.publish(second, {"a": 2, "b": 1})
    bench.publish(second, {"b": 1})
    assert [changed(event) for event in bench.said] == [None, "changed a", "added b", "deleted a"]


def test_what_follows_the_last_known_good_is_compared_with_it(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    second = bench.publisher()
    second.reject([Problem("is odd", "base.yaml")])
    bench.publish(second, {"a": 2})
    assert [changed(event) for event in bench.said if isinstance(event, Published)] == [None, None, "changed a"]


def test_whoever_sees_a_repair_sees_no_error_any_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment that the version is visible: `status --wait-version` looks then."""
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    publisher.reject([Problem("is odd", "base.yaml")])
    seen: list[shmconf.Status] = []
    publish = publisher._writer.publish

    def publish_and_look(payload: bytes, metadata: Any) -> int:
        version = publish(payload, metadata)
        seen.append(bench.status())
        return version

    monkeypatch.setattr(publisher._writer, "publish", publish_and_look)
    bench.publish(publisher, {"a": 2})
    assert [(status.version, status.serving_last_known_good) for status in seen] == [(2, False)]


def test_whoever_sees_the_last_known_good_sees_that_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    second = bench.publisher()
    seen: list[shmconf.Status] = []
    publish = second._writer.publish

    def publish_and_look(payload: bytes, metadata: Any) -> int:
        version = publish(payload, metadata)
        seen.append(bench.status())
        return version

    monkeypatch.setattr(second._writer, "publish", publish_and_look)
    second.reject([Problem("is odd", "base.yaml")])
    assert [(status.agent.stale, status.last_error) for status in seen] == [(True, "base.yaml: is odd")]


def test_many_long_problems_fit_the_status_block_and_are_counted(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    publisher.reject([Problem(f"{number} " + "long " * 1000, "base.yaml") for number in range(500)])
    status = bench.status()
    assert status.agent.problem_count == 500
    assert status.agent.problems[0].startswith("base.yaml: 0 long")


def test_last_known_good_is_served_when_nothing_is_visible(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    second = bench.publisher()
    assert second.version == 0
    second.reject([Problem("is odd", "base.yaml")])
    assert second.version > 1
    assert bench.value() == {"a": 1}
    assert bench.status().agent.stale
    assert [type(event) for event in bench.said[-2:]] == [Published, Rejected]
    assert bench.said[-2].line().endswith("(last known good, from before this start)")
    served = second.version
    bench.publish(second, {"a": 1})
    assert second.version == served
    assert not bench.status().serving_last_known_good


@pytest.mark.parametrize("kept", ["an older one", "none"])
def test_what_a_predecessor_could_not_keep_is_kept_by_its_successor(bench: Bench, kept: str) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    history = bench.state / "web.history"
    before = set(history.iterdir())
    second = bench.publisher()
    bench.publish(second, {"a": 2}, files=("base.yaml", "empty.yaml"), blank=("empty.yaml",))
    second.close()
    for path in history.iterdir():  # as after a kill right behind the publication
        if kept == "none" or path not in before:
            path.unlink()
    third = bench.publisher()
    bench.publish(third, {"a": 2})  # the files did not change: no new version
    assert third.version == 2
    third.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    fourth = bench.publisher()
    assert fourth.nonblank_files() == {"base.yaml"}
    fourth.reject([Problem("is odd", "base.yaml")])
    assert bench.value() == {"a": 2}


def test_what_could_not_be_kept_is_kept_by_a_later_tick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmconf_agent.publish._RETRY_SECONDS", 0.0)
    publisher = bench.publisher()
    (bench.state / "web.history").touch()  # in the way of the directory
    bench.publish(publisher, {"a": 1})

    def warned() -> bool:
        publisher.tick()
        return any("version 1 cannot be kept" in warning for warning in bench.status().agent.warnings)

    until(warned)
    (bench.state / "web.history").unlink()
    until(lambda: not warned())
    assert [entry.kept.version for entry in bench.kept()] == [1]
    told = [event.line() for event in bench.said if "cannot be kept" in event.line()]
    assert len(told) == len(set(told)) > 0  # a try between the two states of the disk may have a reason of its own


def layers_of(text: str) -> tuple[SourceLayer, ...]:
    data = text.encode()
    return (SourceLayer("base.yaml", (), data, digest_of(data), "/etc/base.yaml", False),)


def sourced(tree: dict[Any, Any], text: str) -> Candidate:
    return dataclasses.replace(candidate(tree), layers=layers_of(text))


def test_a_publication_is_kept_with_all_that_is_known_of_it(bench: Bench) -> None:
    publisher = bench.publisher()
    publisher.publish(sourced({"a": {"b": 1}}, "a: {b: 1}\n"), ["base.yaml"], time.monotonic())
    publisher.close()
    (entry,) = bench.kept()
    with shmconf.attach("web", directory=bench.run) as reader:
        snapshot = reader.snapshot()
    kept = entry.kept
    assert (kept.epoch, kept.version, kept.published_at) == (snapshot.epoch, snapshot.version, snapshot.published_at)
    assert {**kept.metadata, "digest": kept.digest} == snapshot.metadata
    assert (kept.files, kept.changed, kept.keys, kept.stale) == (("base.yaml",), ("base.yaml",), 2, False)
    history = History(bench.state, "web")
    assert history.payload(entry) == snapshot.payload
    assert history.layers(entry) == layers_of("a: {b: 1}\n")


@pytest.mark.parametrize("lost", ["all of it", "the sources"])
def test_what_a_killed_predecessor_did_not_keep_gets_its_sources_with_the_next_look(bench: Bench, lost: str) -> None:
    first = bench.publisher()
    first.publish(sourced({"a": 1}, "a: 1\n"), [], time.monotonic())
    first.close()
    for path in (bench.state / "web.history").iterdir():
        if lost == "all of it" or path.suffix == ".source":
            path.unlink()
    second = bench.publisher()
    assert second.publish(sourced({"a": 1}, "a: 1\n"), [], time.monotonic())
    second.close()
    (entry,) = bench.kept()
    assert (entry.kept.version, entry.kept.keys) == (1, 1)
    assert History(bench.state, "web").layers(entry) == layers_of("a: 1\n")


def test_epochs_after_a_loss_are_all_in_the_history(bench: Bench) -> None:
    for number, tree in enumerate(({"a": 1}, {"a": 2}, {"a": 3})):
        publisher = bench.publisher()
        publisher.publish(sourced(tree, f"a: {number + 1}\n"), [], time.monotonic())
        publisher.close()
        shutil.rmtree(bench.run)
        bench.run.mkdir(mode=0o755)
    for _ in range(3):  # boots with invalid files
        stale = bench.publisher()
        stale.reject([Problem("is odd", "base.yaml")])
        stale.close()
        shutil.rmtree(bench.run)
        bench.run.mkdir(mode=0o755)
    entries = bench.kept()
    assert [entry.kept.version for entry in entries] == [5001, 2001, 1001, 1]
    assert len({entry.kept.epoch for entry in entries}) == 4
    assert [entry.kept.stale for entry in entries] == [True, False, False, False]
    assert History(bench.state, "web").layers(entries[0]) == layers_of("a: 3\n")


def test_a_segment_that_was_put_back_is_in_the_history(bench: Bench) -> None:
    publisher = bench.publisher()
    publisher.publish(sourced({"a": 1}, "a: 1\n"), [], time.monotonic())
    (bench.run / "web.shmconf").unlink()
    publisher.tick()
    publisher.close()
    entries = bench.kept()
    assert [entry.kept.version for entry in entries] == [2, 1]
    assert entries[0].kept.epoch != entries[1].kept.epoch
    assert History(bench.state, "web").layers(entries[0]) == layers_of("a: 1\n")


def test_a_damaged_version_is_passed_over_said_once_and_forgotten_with_the_next(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    bench.publish(first, {"a": 2})
    first.close()
    newest = bench.state / "web.history" / bench.kept()[0].name
    newest.write_bytes(newest.read_bytes()[:-1])
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    second = bench.publisher()
    second.reject([Problem("is odd", "base.yaml")])
    assert bench.value() == {"a": 1}
    assert any(f"{newest} is damaged" in warning for warning in bench.status().agent.warnings)
    bench.publish(second, {"a": 3})
    until(lambda: (second.tick(), not bench.status().agent.warnings)[1])
    assert sum("is damaged" in event.line() for event in bench.said) == 1


def test_valid_files_after_a_reboot_do_not_go_by_way_of_last_known_good(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    second = bench.publisher()
    bench.publish(second, {"a": 2})
    assert second.version == 1001  # beyond all that were reserved
    assert bench.value() == {"a": 2}


@pytest.mark.parametrize("wiped", [False, True], ids=["taken over", "after a reboot"])
def test_a_successor_knows_which_files_had_content(bench: Bench, wiped: bool) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1}, files=("base.yaml", "empty.yaml"), blank=("empty.yaml",))
    first.close()
    if wiped:
        shutil.rmtree(bench.run)
        bench.run.mkdir(mode=0o755)
    assert bench.publisher().nonblank_files() == {"base.yaml"}


SECRETS = (("a", "b"), (3, math.nan))


def secret_paths(bench: Bench) -> Any:
    with shmconf.attach("web", directory=bench.run) as reader:
        return repr(reader.snapshot().metadata.get("secret_paths"))


def test_where_the_secrets_are_outlives_restarts_and_a_reboot(bench: Bench) -> None:
    noted = repr([["a", "b"], [3, math.nan]])
    first = bench.publisher()
    bench.publish(first, {"a": {"b": "s3cret"}}, secrets=SECRETS)
    assert secret_paths(bench) == noted
    first.close()
    second = bench.publisher()
    assert bench.publish(second, {"a": {"b": "s3cret"}}, secrets=SECRETS)
    assert second.version == 1
    second.close()
    shutil.rmtree(bench.run)
    bench.run.mkdir(mode=0o755)
    third = bench.publisher()
    third.reject([Problem("bad", "base.yaml")])
    assert third.version > 1
    assert secret_paths(bench) == noted


def test_what_becomes_a_secret_is_a_new_version(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": {"b": "s3cret"}})
    assert secret_paths(bench) == "None"
    bench.publish(publisher, {"a": {"b": "s3cret"}}, secrets=SECRETS)
    bench.publish(publisher, {"a": {"b": "s3cret"}}, secrets=SECRETS)
    assert publisher.version == 2
    assert "a" in secret_paths(bench)


def test_a_rejection_right_after_a_take_over_marks_what_is_served_as_stale(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    first.close()
    second = bench.publisher()
    assert bench.status().agent.state == "starting"
    second.reject([Problem("is odd", "base.yaml")])
    assert bench.status().agent.stale
    assert second.version == 1


def test_what_does_not_fit_is_refused_and_something_smaller_taken(bench: Bench) -> None:
    bench.settings["max_bytes"] = 1 << 20
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    for _ in range(3):
        assert not bench.publish(publisher, {"a": "x" * (2 << 20)})
    assert len([event for event in bench.said if isinstance(event, Rejected)]) == 1
    assert bench.status().agent.rejections == 1
    assert publisher.version == 1
    assert "cannot be published" in bench.status().last_error
    assert bench.publish(publisher, {"a": 3})
    assert publisher.version == 2
    assert bench.status().last_error is None


def test_notes_are_warnings_and_said_once(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    for notes in (["one"], ["one"], ["one", "two"], ["one", "two"]):
        publisher.note(notes)
        publisher.tick()
    assert [event.text for event in bench.said if isinstance(event, Said)] == ["one", "two"]
    assert bench.status().agent.warnings == ("one", "two")
    publisher.note([])
    assert bench.status().agent.warnings == ()


def test_a_removed_segment_is_put_back_by_the_next_tick(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    publisher.tick()
    (bench.run / "web.shmconf").unlink()
    publisher.tick()
    assert bench.value() == {"a": 1}
    assert publisher.version == 2
    publisher.tick()
    assert [event.line() for event in bench.said if isinstance(event, Said)] == [
        "web: the segment file was removed; put back as version 2"
    ]


def test_a_segment_that_cannot_be_put_back_is_a_warning_and_said_once_at_most(bench: Bench, tmp_path: Path) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    with shmconf.attach("web", directory=bench.run) as reader:
        bench.run.rename(tmp_path / "away")
        bench.run.write_text("in the way")
        said = len(bench.said)
        for _ in range(3):
            publisher.note([])
            publisher.tick()
        assert any("cannot be put back" in warning for warning in reader.status().agent.warnings)
        assert len(bench.said) <= said + 1
        bench.run.unlink()
        (tmp_path / "away").rename(bench.run)
        publisher.tick()
        assert reader.status().agent.warnings == ()


def test_a_second_publisher_is_refused(bench: Bench) -> None:
    bench.publisher()
    with pytest.raises(SegmentLocked, match=f"process {os.getpid()}"):
        bench.publisher()


def test_an_unknown_group_is_refused_and_holds_no_lock(bench: Bench) -> None:
    bench.settings["group"] = "no-such-group-here"
    with pytest.raises(Invalid, match="no group 'no-such-group-here'"):
        bench.publisher()
    bench.settings.clear()
    bench.publisher()


def test_mode_is_that_of_the_configuration(bench: Bench) -> None:
    bench.settings["mode"] = 0o604
    bench.publish(bench.publisher(), {"a": 1})
    assert (bench.run / "web.shmconf").stat().st_mode & 0o777 == 0o604


def test_close_says_stopped_and_the_segment_stays(bench: Bench) -> None:
    publisher = bench.publisher()
    bench.publish(publisher, {"a": 1})
    publisher.beat()
    assert bench.status().agent_alive
    publisher.close()
    status = bench.status()
    assert (status.agent.state, status.agent_alive, status.heartbeat_age) == ("stopped", False, None)
    assert bench.value() == {"a": 1}


def test_whoever_lost_the_segment_writes_nothing_more_in_it(bench: Bench) -> None:
    first = bench.publisher()
    bench.publish(first, {"a": 1})
    for directory in (bench.run, bench.state):
        (directory / "web.lock").unlink()
    second = bench.publisher()
    bench.publish(second, {"a": 2})
    second.beat()
    with pytest.raises(SegmentLocked):
        bench.publish(first, {"a": 3})
    status = bench.status()
    first.beat()
    first.note(["of the first one"])
    first.close()
    assert bench.status().agent == status.agent
    assert bench.status().agent_alive
    assert bench.value() == {"a": 2}
