"""Self-tests prove that changes are heard, say where they are not, and leave nothing and nobody disturbed."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmconf_agent import self_test as module
from shmconf_agent import watch as watch_module
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.disk import Interest
from shmconf_agent.self_test import PREFIX, Outcome, Result, SelfTests, holders, make_change, untested
from shmconf_agent.sources import SourceFiles
from shmconf_agent.watch import POLL_S, RESCAN_S, Kind, Watcher

YAML = Interest(frozenset(), frozenset({"*.yaml"}), True)
ALL = Interest(frozenset(), frozenset({"*", ".*"}), True)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def tester() -> Iterator[Watcher]:
    with contextlib.closing(Watcher(self_test=True)) as made:
        yield made


def results(watcher: Watcher) -> dict[str, Result]:
    return {outcome.directory: outcome.result for outcome in watcher.self_tests}


def test_a_change_is_made_heard_and_gone(tester: Watcher, tmp_path: Path) -> None:
    tester.follow({str(tmp_path): YAML})
    wait_for(lambda: results(tester) == {str(tmp_path): Result.PROVED})
    [outcome] = tester.self_tests
    assert outcome.seconds is not None
    assert 0 < outcome.seconds < 20
    wait_for(lambda: os.listdir(tmp_path) == [])
    assert tester.rescan_s == RESCAN_S
    assert tester.notes == ()


def test_nobody_who_watches_the_directory_is_woken(tester: Watcher, tmp_path: Path) -> None:
    with contextlib.closing(Watcher()) as other:
        for watcher in (tester, other):
            watcher.follow({str(tmp_path): ALL})
        wait_for(lambda: Result.PROVED in results(tester).values())
        wait_for(lambda: os.listdir(tmp_path) == [])
        (tmp_path / "after").touch()  # whatever was queued before it has been heard then
        for watcher in (tester, other):
            hints: list[tuple[Kind, str]] = []

            def after(watcher: Watcher = watcher, hints: list[tuple[Kind, str]] = hints) -> bool:
                hints.extend((hint.kind, hint.path) for hint in watcher.drain())
                return (Kind.CREATED, str(tmp_path / "after")) in hints

            wait_for(after)
            assert not [path for _, path in hints if PREFIX in path]


def test_such_a_file_is_no_source_whatever_the_glob(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}1.yaml").write_text("a: 1")
    (tmp_path / ".hidden.yaml").write_text("b: 1")
    view = SourceFiles(SegmentConfig("web", tmp_path, (Source(".*"),))).look(at_once=True)
    assert [layer.file for layer in view.layers] == [".hidden.yaml"]


def test_each_directory_is_tested_once_and_another_in_its_place_again(tester: Watcher, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    tester.follow({str(conf): YAML})
    wait_for(lambda: results(tester) == {str(conf): Result.PROVED})
    first = tester.self_tests
    tester.follow({str(conf): YAML, str(tmp_path): YAML})
    wait_for(lambda: results(tester) == {str(conf): Result.PROVED, str(tmp_path): Result.PROVED})
    assert first[0] in tester.self_tests
    conf.rename(tmp_path / "old")
    conf.mkdir()
    tester.follow({str(conf): YAML})
    wait_for(lambda: results(tester) == {str(conf): Result.PROVED})
    assert first != tester.self_tests


def test_what_raises_no_event_is_deaf_told_and_polled_until_it_is_heard(
    tester: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.05)
    late: list[tuple[object, object]] = []
    hear = watch_module._Watched.on_event
    monkeypatch.setattr(watch_module._Watched, "on_event", lambda self, event: late.append((self, event)))
    tester.follow({str(tmp_path): YAML})

    def settled() -> bool:
        tester.follow({str(tmp_path): YAML})
        return results(tester) == {str(tmp_path): Result.DEAF}

    wait_for(settled)
    assert tester.rescan_s == POLL_S
    [note] = tester.notes
    assert note.startswith(f"{tmp_path} raised no event within ")
    assert tester.errors == 1
    assert os.listdir(tmp_path) == []
    wait_for(lambda: late)
    for watched, event in late:  # the machine was only very busy
        hear(watched, event)  # type: ignore[arg-type]
    assert results(tester) == {str(tmp_path): Result.PROVED}
    assert tester.rescan_s == RESCAN_S
    assert tester.notes == ()


def test_nothing_is_deaf_before_its_time_nor_while_events_are_being_handed_on(tmp_path: Path) -> None:
    clock = [100.0]
    tests = SelfTests(now=lambda: clock[0])
    tests.begin(str(tmp_path), (1, 1))
    wait_for(lambda: tests._worker is None)
    for seconds, caught_up, expected in (
        (module.DEADLINE_S - 0.1, True, Result.PENDING),
        (0.2, False, Result.PENDING),
        (0, True, Result.DEAF),
    ):
        clock[0] += seconds
        tests.settle(caught_up=caught_up)
        assert [outcome.result for outcome in tests.outcomes()] == [expected]
    tests.again(str(tmp_path))
    assert tests.outcomes() == ()
    tests.begin(str(tmp_path), (1, 1))
    assert [outcome.result for outcome in tests.outcomes()] == [Result.PENDING]


def test_a_test_that_loses_its_watch_is_made_again(
    tester: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(watch_module._Watched, "on_event", lambda self, event: None)
        tester.follow({str(tmp_path): YAML})
        wait_for(lambda: tester._tests._worker is None)
        tester.drain()
    assert results(tester) == {str(tmp_path): Result.PENDING}
    tester._record(Kind.OVERFLOW, "")  # the queue ran over, and what was lost may have been the event
    tester.follow({str(tmp_path): YAML})
    wait_for(lambda: results(tester) == {str(tmp_path): Result.PROVED})


def test_where_no_change_can_be_made_that_is_said_and_nothing_is_wrong(tester: Watcher) -> None:
    tester.follow({"/proc/sys": YAML})
    wait_for(lambda: Result.PENDING not in results(tester).values())
    [outcome] = tester.self_tests
    assert (outcome.result, outcome.seconds) == (Result.UNPROVED, None)
    assert outcome.why
    assert tester.rescan_s == RESCAN_S
    assert tester.notes == ()


def test_what_was_not_tested_is_one_sentence_once_all_is_known() -> None:
    proved = Outcome("/a", Result.PROVED, 0.001)
    unproved = [Outcome("/b", Result.UNPROVED, why="permission denied"), Outcome("/c", Result.UNPROVED, why="other")]
    assert untested([]) is None
    assert untested([proved]) is None
    assert untested([*unproved, Outcome("/d", Result.PENDING)]) is None
    text = untested([proved, *unproved])
    assert text is not None
    assert "/b and 1 more" in text
    assert "permission denied" in text


def test_what_a_killed_agent_left_behind_goes_and_nothing_else_does(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}99-1-abc"
    left.touch()
    kept = [tmp_path / f"{PREFIX}with-content", tmp_path / ".other", tmp_path / f"{PREFIX}directory"]
    kept[0].write_text("a user's, strange as the name is")
    kept[1].touch()
    kept[2].mkdir()
    assert make_change(str(tmp_path), f"{PREFIX}1-1-1") is None
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "conf").symlink_to("other")
    assert make_change(str(tmp_path / "conf"), f"{PREFIX}1-1-1") is not None
    assert make_change(str(tmp_path / "none"), f"{PREFIX}1-1-1") == "no such file or directory"


def test_a_file_system_that_hangs_holds_up_nobody(
    tester: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, gone_on = threading.Event(), threading.Event()

    def hang(directory: str, name: str) -> None:
        hanging.set()
        gone_on.wait(60)

    monkeypatch.setattr(module, "make_change", hang)
    tester.follow({str(tmp_path): YAML})
    assert hanging.wait(60)
    (tmp_path / "a.yaml").touch()
    wait_for(lambda: any(hint.path == str(tmp_path / "a.yaml") for hint in tester.drain()))
    assert results(tester) == {str(tmp_path): Result.PENDING}
    tester.close()
    gone_on.set()


def test_only_directories_with_sources_or_links_are_tested(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.yaml").write_text("a: 1")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "b.yaml").write_text("b: 1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b").symlink_to("../real")
    config = SegmentConfig("web", tmp_path, (Source("conf.d/"), Source("links/b/b.yaml")))
    directories = SourceFiles(config).look(at_once=True).directories
    assert str(tmp_path) in directories
    assert holders(directories) == {str(tmp_path / name) for name in ("conf.d", "real", "links")}


def test_the_files_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    unlink = os.unlink

    def look(name: str, *, dir_fd: int) -> None:
        seen.append(stat.S_IMODE(os.stat(name, dir_fd=dir_fd).st_mode))
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(module.os, "unlink", look)
    assert make_change(str(tmp_path), f"{PREFIX}1-1-1") is None
    assert seen == [0o600]
