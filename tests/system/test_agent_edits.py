"""Every way of editing arrives within 2 s and as one version each: with events, without, and with the watcher killed.

One agent serves all edits of a mode; each edit has a directory of its own. Between two edits, where that is quick, and
at the end a sentinel is edited, and the count of versions is kept over all of them, so a version too many is seen
whenever it comes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import shmconf
from shmconf.directories import writer_directory
from shmconf_agent.agents_file import load
from shmconf_agent.reconcile import Reconciler

# An exception set from outside is how these tests end a thread.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"), pytest.mark.timing,
]  # fmt: skip

PROMISED_SECONDS = 2.0
WATCHER = "shmconf-inotify"


def text_of(value: int) -> str:
    """Always of the same size, so that the size never shows a change; each part of it is a configuration of its own."""
    return f"# {'.' * 40}\nfirst: {100_000 + value}\nvalue: {100_000 + value}\n"


def value_of(text: str) -> int:
    return int(text.split()[-1])


# --- the ways of editing: each makes FOLDER/settings.yaml hold `text` -------------------------------------------------


def write_in_place(folder: Path, text: str) -> None:
    (folder / "settings.yaml").write_text(text)


def write_in_pieces(folder: Path, text: str) -> None:
    """Over 300 ms; the file is kept open for longer than the agent may take to see it."""
    file = (folder / "settings.yaml").open("r+")
    file.truncate()
    size = len(text) // 6 + 1
    for start in range(0, len(text), size):
        file.write(text[start : start + size])
        file.flush()
        time.sleep(0.05)  # the edit itself is slow
    kept_open.append(file)


def replace(folder: Path, text: str) -> None:
    (folder / "new.tmp").write_text(text)
    os.replace(folder / "new.tmp", folder / "settings.yaml")


def sed(folder: Path, text: str) -> None:
    command = f"s/: .*/: {value_of(text)}/"
    subprocess.run(["sed", "-i", command, str(folder / "settings.yaml")], check=True)


def backup_and_rename(folder: Path, text: str) -> None:
    file, backup = folder / "settings.yaml", folder / "settings.yaml~"
    os.rename(file, backup)
    with file.open("w") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    backup.unlink()


def through_a_mapping(folder: Path, text: str) -> None:
    with (folder / "settings.yaml").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = text.encode()
        mapped.flush()


def hard_link(folder: Path, text: str) -> None:
    """As `ln -f` does it: a link made aside takes the name."""
    kept = folder / "versions"
    kept.mkdir(exist_ok=True)
    new = kept / f"{value_of(text)}.txt"
    new.write_text(text)
    os.link(new, folder / "linked.tmp")
    os.rename(folder / "linked.tmp", folder / "settings.yaml")


def swap_data_link(folder: Path, text: str) -> None:
    """As Kubernetes updates a ConfigMap: settings.yaml leads to ..data/settings.yaml, ..data to a directory."""
    old = (folder / "..data").resolve()
    new = folder / f"..{value_of(text)}"
    new.mkdir()
    (new / "settings.yaml").write_text(text)
    os.symlink(new.name, folder / "..data_tmp")
    os.rename(folder / "..data_tmp", folder / "..data")
    shutil.rmtree(old)


def directory_made_again(folder: Path, text: str) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "settings.yaml").write_text(text)


def directory_replaced(folder: Path, text: str) -> None:
    new = folder.with_name(folder.name + ".new")
    new.mkdir()
    (new / "settings.yaml").write_text(text)
    os.rename(folder, folder.with_name(f"{folder.name}.{value_of(text)}"))
    os.rename(new, folder)


def moved_out_and_another_written(folder: Path, text: str) -> None:
    os.rename(folder / "settings.yaml", folder.with_name(f"taken-out-{value_of(text)}"))
    (folder / "settings.yaml").write_text(text)


def same_size_and_old_time(folder: Path, text: str) -> None:
    file = folder / "settings.yaml"
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert file.stat().st_mtime_ns == before.st_mtime_ns


EDITS = (
    write_in_place, write_in_pieces, replace, sed, backup_and_rename, through_a_mapping, hard_link, swap_data_link,
    directory_made_again, directory_replaced, moved_out_and_another_written, same_size_and_old_time,
)  # fmt: skip

kept_open = []


# --- one agent for each mode ------------------------------------------------------------------------------------------


class Site:
    """The directories, a reader, and the number that the version must have by now."""

    def __init__(self, home, eventually) -> None:
        self.home = home
        self.eventually = eventually
        self.sequence = 0
        self.version = 0
        self.prepare = lambda: None
        self.quick = True  # whether events make an edit a matter of milliseconds
        for edit in EDITS:
            self._first_content(home.root / edit.__name__)
        home.write("sentinel.yaml", "sentinel: 0\n")
        entries = [{"path": f"{edit.__name__}/settings.yaml", "at": edit.__name__} for edit in EDITS]
        # A directory as a source, too: it is listed anew each time.
        entries[EDITS.index(directory_replaced)]["path"] = "directory_replaced/"
        entries[EDITS.index(moved_out_and_another_written)]["path"] = "moved_out_and_another_written/*.yaml"
        sources = ", ".join(f'{{ path = "{entry["path"]}", at = "{entry["at"]}" }}' for entry in entries)
        home.write("shmconf.toml", f'[segment.web]\nsources = [{sources}, "sentinel.yaml"]\n')

    def _first_content(self, folder: Path) -> None:
        holder = folder
        folder.mkdir()
        if folder.name == swap_data_link.__name__:
            holder = folder / "..first"
            holder.mkdir()
            (folder / "..data").symlink_to("..first")
            (folder / "settings.yaml").symlink_to("..data/settings.yaml")
        (holder / "settings.yaml").write_text(text_of(0))

    def attach(self) -> None:
        self.reader = self.home.attach()
        self.version = self.reader.version

    def arrives(self, path: tuple[str, ...], value: int) -> None:
        """The value becomes visible, as exactly the next version."""
        began = time.monotonic()
        self.eventually(
            lambda: self.reader.get(path) == value,
            lambda: f"{path} = {value}: version {self.reader.version}, {self.reader.status()}",
        )
        seconds = time.monotonic() - began
        before, self.version = self.version, self.reader.version  # what fails once, fails one test
        assert self.version == before + 1, f"{path} = {value} came as version {self.version}, after {before}"
        assert seconds <= PROMISED_SECONDS

    def edit(self, edit: Callable[[Path, str], None]) -> None:
        self.sequence += 1
        text = text_of(self.sequence)
        self.prepare()
        edit(self.home.root / edit.__name__, text)
        self.arrives((edit.__name__, "value"), value_of(text))

    def edit_sentinel(self) -> None:
        self.sequence += 1
        self.home.write("sentinel.yaml", f"sentinel: {self.sequence}\n")
        self.arrives(("sentinel",), self.sequence)


def end_watcher(reconciler: Reconciler) -> None:
    """Set an exception in its inotify thread, which meets it at its next event."""
    thread = next(thread for thread in threading.enumerate() if thread.name == WATCHER)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(RuntimeError))
    ended.append(thread)


ended: list[threading.Thread] = []


@pytest.fixture(scope="module", params=["events", "no events", "watcher killed"])
def site(request, module_home, eventually, without_events) -> Iterator[Site]:
    home = module_home(request.param.replace(" ", "-"))
    site = Site(home, eventually)
    reconciler = None
    if request.param == "watcher killed":
        home.runtime.mkdir()
        segment = load(home.root / "shmconf.toml").segments[0]
        reconciler = Reconciler(segment, writer_directory(home.runtime), home.state, lambda event: None)
        reconciler.start()
        site.prepare = lambda: end_watcher(reconciler)
    else:
        site.quick = request.param == "events"
        home.start(before="" if site.quick else without_events)
    site.attach()
    if reconciler is None:
        told = eventually(lambda: site.reader.status().agent.state == "running" and site.reader.status(), "it runs")
        assert bool(told.agent.warnings) is (request.param == "no events"), told.agent.warnings
    yield site
    while kept_open:
        kept_open.pop().close()
    if reconciler is not None:
        reconciler.stop(60)
        assert reconciler.failure is None


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_arrives_as_one_version(site, edit):
    site.edit(edit)
    if site.quick:
        site.edit_sentinel()
    assert all(not thread.is_alive() for thread in ended), "the watcher's thread was to end"


def test_a_second_edit_of_each_kind_arrives_as_well(site):
    """What was watched before the first one may be gone by now."""
    for edit in (replace, swap_data_link, directory_made_again, directory_replaced, moved_out_and_another_written):
        site.edit(edit)
    site.edit_sentinel()


def test_nothing_more_came_of_any_edit(site):
    site.edit_sentinel()
    assert site.reader.snapshot().version == site.version
    assert site.reader.status().last_error is None
    assert site.reader.status().agent.rejections == 0


# --- many files at once -----------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    plain = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath=/dev/null")
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", *plain, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture
def repository(home, require) -> Path:
    """Two branches, of which the one has 200 files with other content than the other."""
    require(shutil.which("git"), "git")
    folder = home.root / "repository"
    (folder / "conf.d").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "blue")
    for branch in ("blue", "green"):
        for number in range(200):
            (folder / f"conf.d/{number:03}.yaml").write_text(f"keys:\n  key{number}: {branch} {number}\n")
        if branch == "green":
            git(folder, "checkout", "-q", "-b", "green")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", branch)
    return folder


@pytest.mark.parametrize("events", [True, False], ids=["events", "no events"])
def test_another_branch_of_200_files_is_three_versions_at_most(home, repository, eventually, without_events, events):
    home.segment("repository/conf.d/", "sentinel.yaml")
    home.write("sentinel.yaml", "sentinel: 0\n")
    home.start(before="" if events else without_events)
    reader = home.attach()
    for round_, branch in enumerate(("blue", "green"), start=1):
        before = reader.version
        git(repository, "checkout", "-q", branch)
        expected = {f"key{number}": f"{branch} {number}" for number in range(200)}
        eventually(lambda expected=expected: reader["keys"] == expected, f"branch {branch}")
        home.write("sentinel.yaml", f"sentinel: {round_}\n")
        eventually(lambda round_=round_: reader["sentinel"] == round_, "the sentinel")
        assert reader["keys"] == expected
        assert 1 <= reader.version - before - 1 <= 3


def test_files_that_follow_one_another_are_gathered(home, eventually):
    """A slow checkout: each file is whole at once and follows the one before after more than the settle time."""
    home.segment("conf.d/", settle_ms=1)
    for number in range(50):
        home.write(f"conf.d/{number:02}.yaml", f"key{number}: 0\n")
    home.start()
    reader = home.attach()
    before = reader.version
    moments = [time.monotonic()]
    for number in range(50):
        home.write(f"conf.d/{number:02}.yaml", f"key{number}: 1\n")
        time.sleep(0.006)  # the pace of the edits: more than the settle time, less than what ends a burst
        moments.append(time.monotonic())
    eventually(lambda: all(reader[f"key{number}"] == 1 for number in range(50)), "all files")
    # One version for each 500 ms, the first two files' own, and one for each pause that ended a burst.
    pauses = sum(later - earlier > 0.04 for earlier, later in pairwise(moments))
    most = 2 + int((moments[-1] - moments[0]) / 0.5) + pauses
    assert 1 <= reader.version - before <= most, (reader.version - before, most)
    assert most < 50, "this machine is too slow to show that anything is gathered"


def test_a_lone_edit_wakes_a_reader_that_waits(home):
    home.segment("base.yaml")
    home.write("base.yaml", "value: 1\n")
    home.start()
    reader = home.attach()
    seen: list[shmconf.Snapshot | None] = []
    waiting = threading.Thread(target=lambda: seen.append(reader.wait(after=reader.version, timeout=60)))
    waiting.start()
    home.write("base.yaml", "value: 2\n")
    waiting.join(60)
    assert [snapshot and snapshot["value"] for snapshot in seen] == [2]
