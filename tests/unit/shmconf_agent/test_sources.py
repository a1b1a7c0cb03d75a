"""Which files the sources name, in which order, and what is said when they are not what they should be."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shmconf_agent import sources as sources_module
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.disk import Reading
from shmconf_agent.formats import Limits
from shmconf_agent.mounts import Mount
from shmconf_agent.problems import Code, Fault
from shmconf_agent.settle import BURST_S, GRACE_S, LONGEST_S, QUIET_S
from shmconf_agent.sources import SourceFiles, View
from shmconf_agent.watch import Hint, Kind, Watcher


class Bench:
    """The sources of one segment on a clock of the test's own. Files' own times never count as quiet."""

    rescan_s = 1.0

    def __init__(self, base: Path, *sources: str | Source, limits: Limits | None = None, schema: str | None = None):
        self.now = 1000.0
        self.hints: list[Hint] = []
        layers = tuple(Source(source) if isinstance(source, str) else source for source in sources)
        self.files = SourceFiles(
            SegmentConfig("web", base, layers, schema=schema, limits=limits or Limits()),
            hints=self,
            now=lambda: self.now,
            wall_ns=lambda: 0,
        )

    def drain(self) -> list[Hint]:
        hints, self.hints = self.hints, []
        return hints

    def replace(self, path: Path, data: bytes) -> None:
        aside = path.parent / ".aside"
        aside.write_bytes(data)
        aside.replace(path)
        self.hints.append(Hint(Kind.MOVED_TO, os.path.realpath(path), self.now))

    def all(self) -> View:
        return self.files.look(at_once=True)

    def accepted(self) -> View:
        view = self.all()
        assert view.problems == ()
        self.files.accept(view)
        return view

    def later(self, seconds: float) -> View:
        self.now += seconds
        return self.files.look()


def write(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"name: %s\n" % os.fsencode(name))


def layers(view: View) -> list[str]:
    return [layer.file for layer in view.layers]


def problems(view: View) -> list[str]:
    return [str(problem) for problem in view.problems]


def test_layers_are_in_the_order_of_the_sources_and_names_as_written(tmp_path: Path) -> None:
    write(tmp_path, "z.yaml", "conf.d/b.toml", "conf.d/a.yaml", "conf.d/B.json", "site-2.toml", "site-10.toml")
    absolute = str(tmp_path / "z.yaml")
    bench = Bench(tmp_path, "./z.yaml", "conf.d/", "site-*.toml", absolute, Source("conf.d", at=("x", "y")))
    view = bench.all()
    assert problems(view) == []
    assert [(layer.file, layer.at) for layer in view.layers] == [
        ("./z.yaml", ()),
        ("conf.d/B.json", ()),
        ("conf.d/a.yaml", ()),
        ("conf.d/b.toml", ()),
        ("site-10.toml", ()),
        ("site-2.toml", ()),
        (absolute, ()),
        ("conf.d/B.json", ("x", "y")),
        ("conf.d/a.yaml", ("x", "y")),
        ("conf.d/b.toml", ("x", "y")),
    ]
    assert view.layers[0].data == b"name: z.yaml\n"
    assert view.layers[0].path == os.path.join(tmp_path, "./z.yaml")
    assert view.layers[0].digest == view.layers[6].digest != view.layers[1].digest


def test_a_directory_is_not_recursive_and_passes_over_other_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        "c/a.yaml",
        "c/b.yml",
        "c/c.toml",
        "c/d.json",
        "c/.hidden.yaml",
        "c/a.yaml~",
        "c/README",
        "c/sub/x.yaml",
    )
    (tmp_path / "c" / "folder.yaml").mkdir()
    view = Bench(tmp_path, "c/").all()
    assert layers(view) == ["c/a.yaml", "c/b.yml", "c/c.toml", "c/d.json"]


def test_a_glob_may_have_wildcards_in_directories_and_gives_files_only(tmp_path: Path) -> None:
    write(tmp_path, "b/app.yaml", "a/app.yaml", "a/app.yaml.d/x", ".c/app.yaml", "app.yaml", "a/app.yml~")
    assert layers(Bench(tmp_path, "*/app.*ml").all()) == ["a/app.yaml", "b/app.yaml"]
    assert layers(Bench(tmp_path, f"{tmp_path}/[ab]/*").all()) == [
        f"{tmp_path}/a/app.yaml",
        f"{tmp_path}/a/app.yml~",
        f"{tmp_path}/b/app.yaml",
    ]
    assert layers(Bench(tmp_path, ".?/*.yaml").all()) == [".c/app.yaml"]


def test_order_is_by_bytes_and_names_need_not_be_text(tmp_path: Path) -> None:
    for name in (b"\xff.yaml", "é.yaml".encode(), b"z.yaml"):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"{}")
    view = Bench(tmp_path, "*.yaml").all()
    assert layers(view) == ["z.yaml", "é.yaml", "\\xff.yaml"]
    for name in layers(view):
        name.encode()


def test_what_matches_nothing_is_a_problem_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bench = Bench(tmp_path, "base.yaml", "conf.d/", "empty/", "site-*.toml", "none/*.yaml")
    assert problems(bench.all()) == [
        "base.yaml: does not exist; create it, or mark the source optional",
        "conf.d/: does not exist; add one, or mark the source optional",
        "empty/: holds no *.yaml, *.yml, *.toml, *.json file; add one, or mark the source optional",
        "site-*.toml: matches no file; add one, or mark the source optional",
        "none/*.yaml: matches no file; add one, or mark the source optional",
    ]


def test_optional_sources_may_match_nothing(tmp_path: Path) -> None:
    names = ("base.yaml", "conf.d/", "site-*.toml", "gone/*.yaml")
    view = Bench(tmp_path, *(Source(name, optional=True) for name in names)).all()
    assert (problems(view), view.layers, view.ready) == ([], (), True)


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{here}/socket.yaml")
        finally:
            os.close(here)
        (tmp_path / "device.yaml").symlink_to("/dev/zero")
        view = Bench(tmp_path, Source("pipe.yaml", optional=True), "socket.yaml", "device.yaml").all()
    advice = "not a regular file; put a file in its place or take it out of the sources"
    assert problems(view) == [
        f"pipe.yaml: is a named pipe, {advice}",
        f"socket.yaml: is a socket, {advice}",
        f"device.yaml: is a device, {advice}",
    ]


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "x.yaml").symlink_to("nowhere")
    found = problems(Bench(tmp_path, "a.yaml", "loop/", "conf.d/").all())
    assert [problem.split(";")[0] for problem in found] == [
        f"a.yaml: its symbolic links lead in a circle ({tmp_path}/a.yaml)",
        f"loop/: its symbolic links lead in a circle ({tmp_path}/loop)",
        f"conf.d/x.yaml: its symbolic link leads to nothing ({tmp_path}/conf.d/nowhere)",
    ]


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml")
    with open(tmp_path / "base.yaml", "wb") as file:
        file.truncate(1 << 40)
    (problem,) = problems(Bench(tmp_path, "base.yaml").all())
    assert problem == "base.yaml: the file has 1,099,511,627,776 bytes, more than the limit max_file_bytes = 67,108,864"
    assert problems(Bench(tmp_path, "base.yaml", limits=Limits(max_file_bytes=1 << 10)).all())


def test_a_directory_with_too_many_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, *(f"{number}.yaml" for number in range(4)))
    view = Bench(tmp_path, "0.yaml", "./", "1.yaml", limits=Limits(max_files=4)).all()
    assert problems(view) == [
        "./: with the 4 files of this source all sources together name more than the limit max_files = 4"
    ]
    assert [layer.file for layer in view.layers] == ["0.yaml", "1.yaml"]
    assert not problems(Bench(tmp_path, "0.yaml", "./", "1.yaml", limits=Limits(max_files=6)).all())


def test_files_that_are_too_large_together_are_refused_until_there_is_room(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml", "c.yaml")
    for name, size in (("a.yaml", 400), ("b.yaml", 601), ("c.yaml", 500)):
        (tmp_path / name).write_bytes(b"#" * size)
    bench = Bench(tmp_path, "a.yaml", "b.yaml", "c.yaml", limits=Limits(max_total_bytes=1000))
    refused = "with the {} bytes of this file all sources together have more than the limit max_total_bytes = 1,000"
    view = bench.all()
    assert problems(view) == [f"b.yaml: {refused.format(601)}"]
    assert [layer.file for layer in view.layers] == ["a.yaml", "c.yaml"]  # what was read before and fits
    bench.files.reject(view)
    bench.replace(tmp_path / "a.yaml", b"#")
    view = bench.files.look()  # 601 + 500 are too many still
    assert problems(view) == [f"b.yaml: {refused.format(601)}"]
    bench.files.reject(view)
    bench.replace(tmp_path / "c.yaml", b"#" * 398)
    assert problems(bench.files.look()) == []  # in the very look that finds the room
    bench.now += BURST_S
    view = bench.files.look()
    assert view.ready
    assert problems(view) == []
    assert sum(len(layer.data) for layer in view.layers) == 1000
    bench.files.accept(view)
    bench.replace(tmp_path / "c.yaml", b"#" * 399)
    assert problems(bench.files.look()) == [f"c.yaml: {refused.format(399)}"]


def test_what_may_not_be_read_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "base.yaml", "conf.d/a.yaml")
    really_open, really_scan = os.open, os.scandir

    def refuse_open(path: str, *rest: int) -> int:
        if str(path).endswith("base.yaml"):
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, *rest)

    def refuse_scan(path: str) -> object:
        if str(path).endswith("conf.d"):
            raise PermissionError(13, "Permission denied", path)
        return really_scan(path)

    bench = Bench(tmp_path, "base.yaml", Source("conf.d/", optional=True))
    bench.accepted()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse_open)
        patched.setattr(os, "scandir", refuse_scan)
        assert problems(bench.all()) == [
            "base.yaml: cannot be read: permission denied; let the agent's user read it",
            f"conf.d/: cannot be reached: permission denied at {tmp_path}/conf.d; let the agent's user read it",
        ]
    assert problems(bench.all()) == []


def test_a_file_that_became_blank_is_doubted_until_it_says_that_it_is_meant(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.json", "c.toml", "d.yaml"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.yaml").write_bytes(b"a: 1\n")
    (tmp_path / "b.json").write_bytes(b'{"a": 1}')
    (tmp_path / "c.toml").write_bytes(b"a = 1\n")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    for name in ("a.yaml", "b.json", "c.toml"):
        bench.replace(tmp_path / name, b"\xef\xbb\xbf \n\t\n")
    view = bench.later(0)
    for name, remedy in (("a.yaml", "{}"), ("b.json", "{}"), ("c.toml", "a comment")):
        wrong = f"./{name}: is empty, which it was not before; if it is meant to be, write {remedy} into it"
        assert wrong in problems(view)
    bench.files.reject(view)
    assert len(problems(bench.later(100))) == 3
    for name, content in (("a.yaml", b"{}"), ("b.json", b"{}"), ("c.toml", b"# none\n")):
        bench.replace(tmp_path / name, content)
    assert problems(bench.later(0)) == []


def test_what_was_not_blank_is_remembered_from_one_agent_to_the_next(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    first = Bench(tmp_path, "a.yaml")
    first.accepted()
    (tmp_path / "a.yaml").write_bytes(b"\n")
    config = SegmentConfig("web", tmp_path, (Source("a.yaml"),))
    assert problems(SourceFiles(config, nonblank=first.files.nonblank).look(at_once=True))
    assert not problems(SourceFiles(config).look(at_once=True))


def test_a_view_is_equal_to_another_by_its_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "*.yaml")
    view = bench.accepted()
    assert view.changed == ("a.yaml", "b.yaml")
    same = bench.later(5)
    assert (same.fingerprint, same.changed, same.ready) == (view.fingerprint, (), True)
    old = (tmp_path / "a.yaml").read_bytes()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    other = bench.later(0)
    assert other.fingerprint != view.fingerprint
    assert other.changed == ("a.yaml",)
    bench.replace(tmp_path / "a.yaml", old)
    back = bench.later(0)
    assert (back.fingerprint, back.changed) == (view.fingerprint, ())


def test_a_lone_change_can_be_built_at_once_and_is_ready_after_settling(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    view = bench.later(0)
    assert (view.ready, view.worth_building, view.layers[0].data) == (False, True, b"a: 2\n")
    assert view.next_look == pytest.approx(bench.now + 0.002)
    view = bench.later(0.002)
    assert view.ready
    assert bench.files.unchanged(view)


def test_what_was_taken_at_once_may_be_published_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./")
    view = bench.all()
    assert view.ready
    assert bench.files.unchanged(view)
    (tmp_path / "b.yaml").write_bytes(b"b")
    assert not bench.files.unchanged(view)


def test_a_file_that_goes_between_its_listing_and_its_turn_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./", "*.yaml")
    bench.files._wall_ns = lambda: (tmp_path / "a.yaml").unlink(missing_ok=True) or 0
    view = bench.all()
    assert problems(view) == []
    assert layers(view) == ["./b.yaml", "b.yaml"]


def test_a_change_that_was_taken_back_leaves_nothing_to_judge(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    judged = bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    bench.later(0)
    bench.replace(tmp_path / "a.yaml", judged.layers[0].data)
    assert bench.later(0).ready
    bench.replace(tmp_path / "a.yaml", b"a: 3\n")
    view = bench.later(10)
    assert (view.ready, view.overdue) == (False, False)


def test_a_burst_waits_for_quiet(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    bench.later(0)
    bench.replace(tmp_path / "b.yaml", b"a: 2\n")
    assert not bench.later(0.001).ready
    assert not bench.later(BURST_S - 0.001).ready
    assert bench.later(0.002).ready


def test_a_change_just_before_publication_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    bench.later(0)
    view = bench.later(0.002)
    (tmp_path / "a.yaml").write_bytes(b"a")
    assert not bench.files.unchanged(view)


def test_a_file_in_flux_holds_the_others_for_so_long_and_no_longer(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    begun = bench.now
    bench.files.look()
    number = 0
    while bench.now < begun + LONGEST_S - 0.025:
        number += 1
        (tmp_path / "b.yaml").write_bytes(b"b" * number)
        view = bench.later(0.02)
        assert (view.ready, view.overdue, view.worth_building) == (False, False, False)
        assert [(flux.file, flux.vanished) for flux in view.in_flux] == [("./b.yaml", False)]
        assert view.next_look <= bench.now + 0.025
    (tmp_path / "b.yaml").write_bytes(b"b")
    view = bench.later(0.05)
    assert (view.ready, view.overdue, view.worth_building) == (True, True, True)
    assert [layer.data for layer in view.layers] == [b"a: 2\n", b"name: b.yaml\n"]
    bench.replace(tmp_path / "a.yaml", b"a: 3\n")
    assert bench.files.unchanged(view)  # or it would never be published while others go on writing
    bench.files.accept(view)
    assert not bench.later(0.02).overdue


def test_a_change_found_after_an_overdue_view_is_a_batch_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    bench.files.look()
    (tmp_path / "b.yaml").write_bytes(b"b")
    view = bench.later(LONGEST_S)
    bench.replace(tmp_path / "b.yaml", b"b: 2\n")
    bench.later(0)
    bench.files.accept(view)
    later = bench.later(0.02)
    assert later.changed == ("./b.yaml",)
    assert not later.ready
    assert bench.later(BURST_S).ready


def test_nothing_is_ready_before_all_that_was_there_at_the_start_is_whole(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "./")
    view = bench.files.look()
    assert (view.waiting, view.ready, view.worth_building) == (True, False, False)
    for number in range(200):
        (tmp_path / "b.yaml").write_bytes(b"b" * number)
        view = bench.later(0.1)
        assert (view.waiting, view.ready, view.overdue) == (True, False, False)
    assert layers(view) == ["./a.yaml"]
    assert bench.now - view.in_flux[0].since >= 19
    view = bench.later(QUIET_S)
    assert (view.waiting, layers(view)) == (False, ["./a.yaml", "./b.yaml"])
    assert bench.later(0.002).ready


def test_a_new_file_that_is_never_whole_does_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    (tmp_path / "b.yaml").write_bytes(b"b")
    assert not bench.later(0).waiting
    bench.replace(tmp_path / "a.yaml", b"a: 2\n")
    bench.later(0)
    for number in range(2, 30):
        (tmp_path / "b.yaml").write_bytes(b"b" * number)
        view = bench.later(0.02)
    assert view.ready
    assert layers(view) == ["./a.yaml"]


def test_a_required_file_that_comes_back_half_written_is_waited_for(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    bench.accepted()
    (tmp_path / "a.yaml").unlink()
    bench.later(0)
    view = bench.later(GRACE_S)
    assert problems(view) == ["a.yaml: does not exist; create it, or mark the source optional"]
    bench.files.reject(bench.later(0.002))
    (tmp_path / "a.yaml").write_bytes(b"a")
    assert bench.later(0).waiting
    (tmp_path / "a.yaml").write_bytes(b"a: 2\n")
    assert not bench.later(0.1).ready
    assert bench.later(QUIET_S).layers[0].data == b"a: 2\n"


@pytest.mark.parametrize("name", ["conf.d", "conf.d/", "conf.d/*.yaml"])
def test_what_vanishes_counts_after_its_grace_and_together(tmp_path: Path, name: str) -> None:
    write(tmp_path, "conf.d/a.yaml", "conf.d/b.yaml", "conf.d/c.yaml")
    bench = Bench(tmp_path, name)
    bench.accepted()
    (tmp_path / "conf.d" / "a.yaml").unlink()
    (tmp_path / "conf.d" / "b.yaml").rename(tmp_path / "conf.d" / "d.yaml")
    bench.hints = [Hint(Kind.MOVED_TO, f"{tmp_path.resolve()}/conf.d/d.yaml", bench.now)]
    view = bench.files.look()
    assert layers(view) == [f"conf.d/{letter}.yaml" for letter in "abcd"]
    assert {flux.file for flux in view.in_flux if flux.vanished} == {"conf.d/a.yaml", "conf.d/b.yaml"}
    assert not bench.later(GRACE_S - 0.01).ready
    view = bench.later(0.011)
    assert (layers(view), view.ready) == (["conf.d/c.yaml", "conf.d/d.yaml"], True)
    bench.files.accept(view)
    for file in (tmp_path / "conf.d").iterdir():
        file.unlink()
    (tmp_path / "conf.d").rmdir()
    assert problems(bench.later(0.1)) == []
    (problem,) = problems(bench.later(GRACE_S))
    assert problem.startswith(f"{name}: ")


def test_a_temporary_file_that_matches_leaves_no_trace(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "./")
    bench.accepted()
    for taken in (False, True):
        (tmp_path / "tmp.yaml").write_bytes(b"a: %d\n" % taken)
        if taken:
            bench.hints = [Hint(Kind.CLOSED, f"{tmp_path.resolve()}/tmp.yaml", bench.now)]
        assert ("./tmp.yaml" in layers(bench.later(0))) is taken
        (tmp_path / "tmp.yaml").replace(tmp_path / "a.yaml")
        bench.hints = [Hint(Kind.MOVED_TO, f"{tmp_path.resolve()}/a.yaml", bench.now)]
        view = bench.later(0)
        assert (layers(view), view.layers[0].data, view.in_flux) == (["./a.yaml"], b"a: %d\n" % taken, ())


def test_one_file_may_be_named_twice_and_be_a_source_of_both_kinds(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "a.yaml", "./", "a.yaml")
    assert layers(bench.accepted()) == ["a.yaml", "./a.yaml", "./b.yaml", "a.yaml"]
    (tmp_path / "a.yaml").unlink()
    bench.later(0)
    view = bench.later(GRACE_S)
    assert layers(view) == ["./b.yaml"]
    assert len(view.problems) == 2


def test_a_source_without_a_slash_may_become_a_directory(tmp_path: Path) -> None:
    write(tmp_path, "conf")
    bench = Bench(tmp_path, "conf")
    assert layers(bench.accepted()) == ["conf"]
    (tmp_path / "conf").unlink()
    write(tmp_path, "conf/a.yaml")
    bench.files.look()
    view = bench.later(QUIET_S)
    assert layers(view) == ["conf/a.yaml"]


def test_the_schema_is_followed_but_is_no_layer(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml", schema="schema.json")
    assert problems(bench.all())[0] == "schema.json: does not exist; create it, or take 'schema' out"
    (tmp_path / "schema.json").write_bytes(b"{}")
    view = bench.accepted()
    assert layers(view) == ["a.yaml"]
    assert view.schema is not None
    assert (view.schema.file, view.schema.data) == ("schema.json", b"{}")
    bench.replace(tmp_path / "schema.json", b"true")
    later = bench.later(0)
    assert later.fingerprint != view.fingerprint
    assert later.changed == ("schema.json",)


def test_the_directories_to_watch_are_those_where_anything_could_change(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    write(root, "real/..1/base.yaml", "real/conf.d/a.yaml")
    (root / "real" / "..data").symlink_to("..1")
    (root / "real" / "base.yaml").symlink_to("..data/base.yaml")
    (root / "etc").symlink_to("real")
    watches = Bench(root, "etc/base.yaml", "etc/conf.d/", "etc/none/x-*.toml").all().directories
    assert set(watches) == {
        str(root.parent),
        str(root),
        f"{root}/real",
        f"{root}/real/..1",
        f"{root}/real/conf.d",
    }
    assert watches[str(root)].names == {"etc", "real"}
    assert watches[f"{root}/real"].names == {"base.yaml", "..data", "..1", "conf.d", "none"}
    assert watches[f"{root}/real/..1"].covers("base.yaml")
    assert not watches[f"{root}/real/..1"].covers("other.yaml")
    assert watches[f"{root}/real/conf.d"].covers("new.json")
    assert not watches[f"{root}/real/conf.d"].covers("app.log")
    assert watches[f"{root}/real/conf.d"].writes
    assert not watches[str(root.parent)].writes


def test_the_patrol_reads_a_budget_s_worth_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "PATROL_BYTES", 40_000)
    for letter in "abcde":
        (tmp_path / f"{letter}.yaml").write_bytes(b"1234567890")
    bench = Bench(tmp_path, "./")
    bench.files._wall_ns = lambda: 2 * 10**18  # long after the files were written
    bench.accepted()
    seen: list[str] = []
    holds = sources_module.holds

    def spy(path: str, data: bytes) -> bool:
        seen.append(os.path.basename(path)[0])
        return holds(path, data)

    monkeypatch.setattr(sources_module, "holds", spy)
    for _ in range(5):
        bench.later(0.5)
        bench.later(0.5)
    assert len(seen) == 15
    for first in (0, 5, 10):
        assert set(seen[first : first + 5]) == set("abcde")


def test_what_was_read_soon_after_its_last_change_is_read_again_at_the_next_rescan(
    monkeypatch: pytest.MonkeyPatch, require: Callable[[object, str], None]
) -> None:
    require(os.access("/dev/shm", os.W_OK), "a writable /dev/shm, where a write through a mapping shows in no stat")
    monkeypatch.setattr(sources_module, "PATROL_BYTES", 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        write(Path(name), "a.yaml", "b.yaml", "c.yaml")
        with open(f"{name}/b.yaml", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            mapping[6:7] = b"b"  # the first store still changes the times
            bench = Bench(Path(name), "./")
            bench.accepted()  # by the bench's clocks, all were read before they were written
            mapping[6:7] = b"B"
            assert bench.later(1).in_flux[0].file == "./b.yaml"
            assert bench.later(QUIET_S).layers[1].data == b"name: B.yaml\n"


def test_a_file_mounted_on_its_own_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.yaml")
    monkeypatch.setattr(sources_module, "mounts", lambda: [Mount(1, str(tmp_path.resolve() / "a.yaml"), "ext4")])
    (note,) = Bench(tmp_path, "a.yaml").all().notes
    assert "subPath" in note


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "conf.d/b.yaml")
    os.mkfifo(tmp_path / "conf.d" / "c.yaml")
    before = len(os.listdir("/proc/self/fd"))
    bench = Bench(tmp_path, "*.yaml", "conf.d/", "none.yaml")
    for _ in range(10):
        bench.later(1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_real_denial_is_told_as_such(nobody: Path) -> None:
    write(nobody, "a.yaml", "closed/b.yaml", "unlistable/c.yaml")
    (nobody / "a.yaml").chmod(0)
    (nobody / "closed").chmod(0)
    (nobody / "unlistable").chmod(0o300)
    try:
        bench = Bench(nobody, "a.yaml", "closed/b.yaml", "closed/", "unlistable/c.yaml", "unlistable/")
        with contextlib.closing(Watcher()) as watcher:
            view = bench.all()
            watcher.follow(view.directories)
            notes = watcher.notes
    finally:
        (nobody / "closed").chmod(0o700)
        (nobody / "unlistable").chmod(0o700)
    assert layers(view) == ["unlistable/c.yaml"]
    assert [problem.split(":")[0] for problem in problems(view)] == [
        "a.yaml",
        "closed/b.yaml",
        "closed/",
        "unlistable/",
    ]
    assert all("permission denied" in problem for problem in problems(view))
    (note,) = notes
    assert note.startswith(f"{nobody}/closed and 1 more cannot be watched: that needs permission")


def test_a_look_anew_takes_nothing_for_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:03}.yaml" for number in range(100)]
    write(tmp_path, *names)
    bench = Bench(tmp_path, "./")
    bench.accepted()
    read: list[str] = []
    real_read = sources_module.read

    def noted(path: str, limits: Limits, *, besides: int) -> Reading:
        read.append(os.path.basename(path))
        return real_read(path, limits, besides=besides)

    monkeypatch.setattr(sources_module, "read", noted)
    bench.later(0.01)
    assert read == []
    view = bench.files.look(anew=True)
    assert sorted(read) == names  # each once
    assert view.whole
    assert bench.files.unchanged(view)


def test_a_look_anew_waits_for_what_is_being_written_and_for_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "b.yaml")
    bench = Bench(tmp_path, "a.yaml", "b.yaml")
    bench.accepted()
    (tmp_path / "a.yaml").write_bytes(b"cut off: ")
    bench.hints.append(Hint(Kind.MODIFIED, os.path.realpath(tmp_path / "a.yaml"), bench.now))
    view = bench.files.look(anew=True)
    assert not view.whole
    assert [flux.file for flux in view.in_flux] == ["a.yaml"]
    assert view.layers[0].data == b"name: a.yaml\n"
    bench.hints.append(Hint(Kind.CLOSED, os.path.realpath(tmp_path / "a.yaml"), bench.now))
    view = bench.files.look(anew=True)
    assert view.whole
    assert view.layers[0].data == b"cut off: "


def test_what_could_not_be_read_is_tried_again_at_each_rescan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of open files that was reached and lifted, or a disk that failed, leaves no trace in the file's times."""
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    bench.accepted()
    real_read = sources_module.read
    broken = Reading(None, Fault(Code.FILE_UNREADABLE, "cannot be read: too many open files"), None, True)
    monkeypatch.setattr(sources_module, "read", lambda path, limits, **_: broken)
    view = bench.all()
    assert problems(view) == ["a.yaml: cannot be read: too many open files"]
    bench.files.reject(view)
    monkeypatch.setattr(sources_module, "read", real_read)
    bench.later(1)
    view = bench.later(QUIET_S)
    assert view.whole
    assert problems(view) == []


def test_a_look_anew_tries_again_what_could_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change of the file nothing else would: an error of the disk leaves no trace in its times."""
    write(tmp_path, "a.yaml")
    bench = Bench(tmp_path, "a.yaml")
    real_read = sources_module.read
    broken = Reading(None, Fault(Code.FILE_UNREADABLE, "cannot be read: input/output error"), None, True)
    monkeypatch.setattr(sources_module, "read", lambda path, limits, **_: broken)
    view = bench.all()
    assert problems(view) == ["a.yaml: cannot be read: input/output error"]
    bench.files.reject(view)
    monkeypatch.setattr(sources_module, "read", real_read)
    bench.files._rescan_at = bench.now + 1  # which would try it again as well
    assert problems(bench.later(0.01)) == ["a.yaml: cannot be read: input/output error"]
    assert not bench.files.look(anew=True).whole
    view = bench.later(QUIET_S)
    assert view.whole
    assert problems(view) == []
