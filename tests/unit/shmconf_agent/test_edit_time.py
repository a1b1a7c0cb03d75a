"""From which moment on a new version was awaited: the change of its files, never a moment before it could be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.edit_time import EditTime
from shmconf_agent.sources import SourceFiles
from shmconf_agent.view import View

TICK = 0.02
"""What a file's time may be behind the clock: the kernel takes it from its last tick."""


class Bench:
    """Looks at base.yaml and conf.d, and accepts what it finds."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.root = root
        sources = (Source("base.yaml"), Source("conf.d/"))
        config = SegmentConfig("web", root, sources, **settings)  # type: ignore[arg-type]
        self.files = SourceFiles(config)
        self.edit_time = EditTime(config)

    def put(self, name: str, text: str) -> None:
        aside = self.root / ".aside"
        aside.write_text(text)
        aside.rename(self.root / name)

    def accept(self) -> None:
        view = self.look()
        self.files.accept(view)
        self.edit_time.accepted(view)

    def look(self) -> View:
        began = time.time()
        view = self.files.look(at_once=True)
        self.edit_time.looked(view, began)
        return view


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Bench]:
    def begin(**settings: str) -> Bench:
        (tmp_path / "conf.d").mkdir()
        bench = Bench(tmp_path, **settings)
        bench.put("base.yaml", "a: 1\n")
        bench.put("conf.d/more.yaml", "b: 1\n")
        return bench

    return begin


def test_the_first_version_shows_no_edit(make: Callable[..., Bench]) -> None:
    bench = make()
    view = bench.look()
    assert view.changed == ("base.yaml", "conf.d/more.yaml")
    assert bench.edit_time.of(view) is None
    bench.accept()
    assert bench.edit_time.of(bench.look()) is None  # nothing changed


def test_an_edit_is_as_old_as_its_file(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.accept()
    before = time.time()
    bench.put("base.yaml", "a: 2\n")
    after = time.time()
    view = bench.look()
    assert view.changed == ("base.yaml",)
    edited = bench.edit_time.of(view)
    assert edited is not None
    assert before - TICK <= edited <= after


def test_the_last_of_several_counts(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.accept()
    bench.put("base.yaml", "a: 2\n")
    first = bench.edit_time.of(bench.look())
    bench.put("conf.d/more.yaml", "b: 2\n")
    while (bench.root / "conf.d/more.yaml").stat().st_ctime_ns == (bench.root / "base.yaml").stat().st_ctime_ns:
        bench.put("conf.d/more.yaml", "b: 2\n")
    last = bench.edit_time.of(bench.look())
    assert first is not None
    assert last is not None
    assert first < last


def test_an_old_file_that_is_newly_named_is_no_old_edit(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    bench.put("one.yml", "a: 1\n")
    bench.put("two.yml", "a: 2\n")
    os.unlink(tmp_path / "base.yaml")
    os.symlink("one.yml", tmp_path / "base.yaml")
    bench.accept()
    old = (tmp_path / "two.yml").stat().st_ctime_ns / 1e9
    while time.time() < old + 3 * TICK:
        bench.look()
    before = time.time()
    os.symlink("two.yml", tmp_path / ".link")
    os.rename(tmp_path / ".link", tmp_path / "base.yaml")
    after = time.time()
    edited = bench.edit_time.of(bench.look())
    assert edited is not None
    assert before - TICK <= edited <= after
    assert old < edited


def test_of_a_directory_put_into_place_the_last_look_before_counts(
    make: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make()
    (tmp_path / "next.d").mkdir()
    bench.put("next.d/more.yaml", "b: 3\n")
    old = (tmp_path / "next.d/more.yaml").stat().st_ctime_ns / 1e9
    bench.accept()
    while time.time() < old + 3 * TICK:
        bench.look()
    looked = time.time()
    bench.look()
    os.rename(tmp_path / "conf.d", tmp_path / "before.d")
    os.rename(tmp_path / "next.d", tmp_path / "conf.d")
    edited = bench.edit_time.of(bench.look())
    assert edited is not None
    assert looked <= edited <= time.time()


def test_a_deletion_has_its_time_in_the_directory(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    bench.accept()
    before = time.time()
    os.unlink(tmp_path / "conf.d/more.yaml")
    after = time.time()
    view = bench.look()
    assert view.changed == ("conf.d/more.yaml",)
    edited = bench.edit_time.of(view)
    assert edited is not None
    assert before - TICK <= edited <= after


def test_an_edit_that_waits_is_not_forgotten(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.accept()
    bench.put("base.yaml", "a: 2\n")
    first = bench.edit_time.of(bench.look())
    bench.files.reject(bench.look())
    assert first is not None
    assert bench.edit_time.of(bench.look()) == first


def test_of_files_that_are_committed_the_commit_counts(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make(commit="stamp")
    (tmp_path / "stamp").touch()
    bench.accept()
    bench.put("base.yaml", "a: 2\n")
    edit = (tmp_path / "base.yaml").stat().st_ctime_ns / 1e9
    while (tmp_path / "stamp").stat().st_ctime_ns / 1e9 <= edit:
        os.utime(tmp_path / "stamp")
    committed = (tmp_path / "stamp").stat().st_ctime_ns / 1e9
    assert bench.edit_time.of(bench.look()) == committed
