"""Every way of editing arrives within 2 s, with events and without, and as one version each.

A small reconciler publishes what `look` gives it; the edit runs in a thread of its own, as in life.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.sources import SourceFiles, View
from shmconf_agent.watch import Watcher

# An exception set from outside is how the tests end a thread.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"), pytest.mark.timing,
]  # fmt: skip

EVENTS = "events"
NO_EVENTS = "no events"
KILLED = "watcher's thread killed"


class Reconciler:
    """Publishes whatever is ready, without a pipeline. `published`: file names to contents, one map per version."""

    def __init__(self, base: Path, *sources: str, events: bool = True) -> None:
        self.watcher = Watcher(events=events)
        config = SegmentConfig("web", base, tuple(Source(source) for source in sources))
        self.files = SourceFiles(config, hints=self.watcher)
        self.published: list[dict[str, bytes]] = []
        self.rejected: list[tuple[str, ...]] = []
        self._judged = b""

    def turn(self, *, at_once: bool = False) -> View:
        view = self.files.look(at_once=at_once)
        self.watcher.follow(view.directories)
        if view.ready and view.fingerprint != self._judged and self.files.unchanged(view):
            self._judged = view.fingerprint
            content = {layer.file: layer.data for layer in view.layers}
            if view.problems:
                self.files.reject(view)
                self.rejected.append(tuple(str(problem) for problem in view.problems))
            else:
                if not self.published or content != self.published[-1]:
                    self.published.append(content)
                self.files.accept(view)
        return view

    def run_until(self, condition: Callable[[View], bool], within: float = 60.0) -> float:
        """Goes on until the condition holds after a turn. Returns how long that took, in seconds."""
        begun = time.monotonic()
        while True:
            view = self.turn()
            if condition(view):
                return time.monotonic() - begun
            left = begun + within - time.monotonic()
            assert left > 0, f"published {self.published[-1:]}, rejected {self.rejected[-1:]}, last {view}"
            self.watcher.wake.wait(max(min(view.next_look - time.monotonic(), left), 0))

    def settle(self) -> None:
        """Until nothing is in flux or unjudged."""
        self.run_until(lambda view: not view.in_flux and view.ready and view.fingerprint == self._judged)

    def after(self, edit: Callable[[], None], expected: dict[str, bytes]) -> tuple[int, float]:
        """How many versions the edit makes until all is calm, and how long after its end the last one took."""
        before = len(self.published)
        ended: list[float] = []

        def work() -> None:
            edit()
            ended.append(time.monotonic())

        thread = threading.Thread(target=work)
        thread.start()
        self.run_until(lambda _: bool(ended) and self.published[-1] == expected)
        took = time.monotonic() - ended[0]
        thread.join()
        self.settle()
        assert self.published[-1] == expected
        return len(self.published) - before, took

    def close(self) -> None:
        self.watcher.close()


def kill_thread(name: str) -> None:
    """Ends a thread as an error in it would, at its next step."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(data)
    aside.replace(path)


def write_in_place(conf: Path) -> None:
    (conf / "base.yaml").write_bytes(b"a: 2\n")


def write_in_pieces(conf: Path) -> None:
    with open(conf / "base.yaml", "wb", buffering=0) as file:
        for piece in (b"a", b": ", b"2", b"\n"):
            file.write(piece)
            time.sleep(0.075)


def atomic_replace(conf: Path) -> None:
    replace(conf / "base.yaml", b"a: 2\n")


def sed(conf: Path) -> None:
    subprocess.run(["sed", "-i", "s/1/2/", str(conf / "base.yaml")], check=True)


def backup_and_rename(conf: Path) -> None:
    file = conf / "base.yaml"
    file.rename(conf / "base.yaml~")
    file.write_bytes(b"a: 2\n")
    file.chmod(0o640)
    (conf / "base.yaml~").unlink()


def mmap_write(conf: Path) -> None:
    with open(conf / "base.yaml", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[3:4] = b"2"


def hard_link_replace(conf: Path) -> None:
    (conf / "other").write_bytes(b"a: 2\n")
    (conf / "link").hardlink_to(conf / "other")
    (conf / "link").replace(conf / "base.yaml")


def hard_link_anew(conf: Path) -> None:
    (conf / "other").write_bytes(b"a: 2\n")
    (conf / "base.yaml").unlink()
    (conf / "base.yaml").hardlink_to(conf / "other")


def directory_made_again(conf: Path) -> None:
    shutil.rmtree(conf)
    conf.mkdir()
    (conf / "base.yaml").write_bytes(b"a: 2\n")


def directory_replaced(conf: Path) -> None:
    new = conf.with_name("new")
    new.mkdir()
    (new / "base.yaml").write_bytes(b"a: 2\n")
    conf.rename(conf.with_name("old"))
    new.rename(conf)


def moved_out_and_written(conf: Path) -> None:
    (conf / "base.yaml").rename(conf.parent / "base.yaml")
    (conf / "base.yaml").write_bytes(b"a: 2\n")


def same_size_old_mtime(conf: Path) -> None:
    file = conf / "base.yaml"
    old = file.stat()
    file.write_bytes(b"a: 2\n")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))


EDITS = [
    write_in_place,
    write_in_pieces,
    atomic_replace,
    sed,
    backup_and_rename,
    mmap_write,
    hard_link_replace,
    hard_link_anew,
    directory_made_again,
    directory_replaced,
    moved_out_and_written,
    same_size_old_mtime,
]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    made = tmp_path / "conf"
    made.mkdir()
    return made


@pytest.fixture
def conf_in_memory(require: Callable[[object, str], None]) -> Iterator[Path]:
    """On tmpfs, a write through a mapping changes none of the times."""
    require(os.access("/dev/shm", os.W_OK), "a writable /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        made = Path(root) / "conf"
        made.mkdir()
        yield made


@pytest.fixture(params=[EVENTS, NO_EVENTS, KILLED])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start(base: Path, way: str, *sources: str) -> Reconciler:
    reconciler = Reconciler(base, *sources, events=way != NO_EVENTS)
    reconciler.turn(at_once=True)
    reconciler.settle()
    assert len(reconciler.published) == 1
    if way == KILLED:
        kill_thread("shmconf-inotify")
    return reconciler


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_each_way_of_editing_is_one_version_within_two_seconds(
    conf: Path, way: str, edit: Callable[[Path], None]
) -> None:
    (conf / "base.yaml").write_bytes(b"a: 1\n")
    os.utime(conf / "base.yaml", ns=(10**18, 10**18))
    reconciler = start(conf.parent, way, "conf/base.yaml")
    try:
        versions, took = reconciler.after(lambda: edit(conf), {"conf/base.yaml": b"a: 2\n"})
    finally:
        reconciler.close()
    assert versions == 1
    assert took < 2.0
    assert reconciler.rejected == []


def test_a_write_through_a_mapping_that_no_stat_shows(conf_in_memory: Path, way: str) -> None:
    file = conf_in_memory / "base.yaml"
    file.write_bytes(b"a: 1\n")
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:  # which is not closed
        mapping[3:4] = b"1"  # the first store still changes the times

        def edit() -> None:
            mapping[3:4] = b"2"

        reconciler = start(conf_in_memory, way, "base.yaml")
        before = file.stat()
        try:
            versions, took = reconciler.after(edit, {"base.yaml": b"a: 2\n"})
        finally:
            reconciler.close()
        after = file.stat()
        assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert versions == 1
    assert took < 2.0
    assert reconciler.rejected == []


@pytest.mark.parametrize("edit", [directory_made_again, directory_replaced], ids=lambda edit: edit.__name__)
def test_a_directory_as_source_may_be_exchanged_whole(conf: Path, way: str, edit: Callable[[Path], None]) -> None:
    for name in ("base.yaml", "more.yaml", "last.toml"):
        (conf / name).write_bytes(b"a: 1\n")

    def exchange() -> None:
        edit(conf)
        for number in range(20):
            (conf / f"{number:02}.json").write_bytes(b"{}")

    reconciler = start(conf.parent, way, "conf/")
    expected = {f"conf/{number:02}.json": b"{}" for number in range(20)} | {"conf/base.yaml": b"a: 2\n"}
    try:
        versions, took = reconciler.after(exchange, expected)
    finally:
        reconciler.close()
    assert versions == 1
    assert took < 2.0
    assert reconciler.rejected == []


def test_a_kubernetes_volume_is_swapped_as_one_change(conf: Path, way: str) -> None:
    def revision(name: str, value: int) -> None:
        (conf / name).mkdir()
        for file in ("base.yaml", "more.yaml"):
            (conf / name / file).write_bytes(b"a: %d\n" % value)

    def swap() -> None:
        revision("..2", 2)
        (conf / "..data_tmp").symlink_to("..2")
        (conf / "..data_tmp").replace(conf / "..data")
        shutil.rmtree(conf / "..1")

    revision("..1", 1)
    (conf / "..data").symlink_to("..1")
    for file in ("base.yaml", "more.yaml"):
        (conf / file).symlink_to(f"..data/{file}")
    reconciler = start(conf, way, "base.yaml", "more.yaml")
    try:
        versions, took = reconciler.after(swap, {"base.yaml": b"a: 2\n", "more.yaml": b"a: 2\n"})
    finally:
        reconciler.close()
    assert versions == 1
    assert took < 2.0
    assert reconciler.rejected == []


def test_a_file_moved_out_while_another_is_written_is_one_version(conf: Path, way: str) -> None:
    def edit() -> None:
        (conf / "10.yaml").rename(conf.parent / "10.yaml")
        (conf / "20.yaml").write_bytes(b"a: 2\n")

    (conf / "10.yaml").write_bytes(b"a: 1\n")
    reconciler = start(conf, way, ".")
    try:
        versions, took = reconciler.after(edit, {"./20.yaml": b"a: 2\n"})
    finally:
        reconciler.close()
    assert versions == 1
    assert took < 2.0
    assert reconciler.rejected == []


def test_a_checkout_of_another_branch_is_three_versions_at_most(conf: Path, way: str) -> None:
    def git(*arguments: str) -> None:
        environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(conf), *who, *arguments], check=True, env=environment, capture_output=True)

    def write(value: int, numbers: range) -> dict[str, bytes]:
        contents = {f"{number:03}.yaml": b"v%d: %d\n" % (number, value) for number in numbers}
        for name, data in contents.items():
            (conf / name).write_bytes(data)
        return {f"./{name}": data for name, data in contents.items()}

    git("init", "-q", "-b", "one")
    write(1, range(200))
    git("add", ".")
    git("commit", "-qm", "one")
    git("checkout", "-q", "-b", "two")
    for number in range(20):
        (conf / f"{number:03}.yaml").unlink()
    expected = write(2, range(20, 220))
    git("add", "-A")
    git("commit", "-qm", "two")
    git("checkout", "-q", "one")
    reconciler = start(conf, way, ".")
    try:
        versions, took = reconciler.after(lambda: git("checkout", "-q", "two"), expected)
    finally:
        reconciler.close()
    assert 1 <= versions <= 3
    assert took < 2.0
    assert reconciler.rejected == []
