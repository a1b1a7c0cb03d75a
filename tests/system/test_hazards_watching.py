"""The traps of watching files on Linux, one test for each: first the usual way falls into it, then the agent does not.

The usual way is watchdog's Observer with a handler, as most programs that reload have it. Each test does the same thing
under both; an observer counts as deaf once the agent has published the edit and an event of a later edit elsewhere has
come through the same observer. The traps are those of

- a path moved out of the watched directory, behind which later events wait (`test_a_path_moved_out_...`);
- a watched directory that is deleted and made again, or replaced (`test_a_directory_made_again`, `..._replaced`);
- a watch on a single file, which ends with its first atomic replacement (`test_a_single_file_...`);
- symbolic links, which are not followed, and Kubernetes' `..data` (`test_a_link_...`, `test_a_volume_...`);
- an exception in the handler, which ends the thread (`test_a_handler_that_raises`); reading in it, which makes further
  events (`test_a_handler_that_reads`);
- events of a half-written file (`test_a_half_written_file`), none of a store through a mapping, no close of a hard link
  (`test_a_mapping_...`, `test_a_hard_link_...`);
- polling that compares size and mtime (`test_polling_...`);
- a queue that overflows (`test_a_queue_that_overflows`), an unmounted directory and one that is mounted over
  (`test_a_directory_unmounted...`), limits of inotify (`test_limits_...`);
- a file that is mounted by itself (`test_a_file_mounted_by_itself`), as a subPath of Kubernetes is.

File systems without events are in unit/shmconf_agent/test_watch.py: none can be mounted here without a server.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.inotify_c import WATCHDOG_ALL_EVENTS, CallbackId, InotifyFD
from watchdog.observers.polling import PollingObserver

# What a handler raises ends the observer's thread: that is one of the traps.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Usual(FileSystemEventHandler):
    """The usual way: an observer of one path, and what it said."""

    def __init__(self, path: Path, marker: Path, act: Callable[[FileSystemEvent], None] | None = None, **how: Any):
        self.events: list[FileSystemEvent] = []
        self._act = act
        self.observer: Any = how.pop("observer", Observer)(**how)
        self._marker = marker
        marker.mkdir()
        self._marked = threading.Event()
        self.observer.schedule(self, str(path), recursive=False)
        on_mark = FileSystemEventHandler()
        on_mark.on_any_event = lambda event: self._marked.set()  # type: ignore[method-assign]
        self.observer.schedule(on_mark, str(marker), recursive=False)
        self.observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        self.events.append(event)
        if self._act is not None:
            self._act(event)

    def kinds(self, name: str) -> list[str]:
        """The events of the file with this name so far, opening and reading apart."""
        kinds = [event for event in self.events if name in (os.path.basename(event.src_path), os.path.basename(
            event.dest_path))]  # fmt: skip
        return [event.event_type for event in kinds if event.event_type not in ("opened", "closed_no_write")]

    def catches_up(self) -> None:
        """An event that happens now comes through, and with it all before."""
        self._marked.clear()
        (self._marker / "mark").write_bytes(b"")
        assert self._marked.wait(60), "the observer is dead altogether"


@contextmanager
def usual(path: Path, tmp: Path, act: Callable[[FileSystemEvent], None] | None = None, **how: Any) -> Iterator[Usual]:
    made = Usual(path, tmp / "marker", act, **how)
    try:
        yield made
    finally:
        made.observer.stop()
        made.observer.join(60)


@pytest.fixture
def site(home):
    """An agent that serves conf/a.yaml and conf/b.yaml."""
    home.segment("conf/")
    home.write("conf/a.yaml", "a: 1\n")
    home.write("conf/b.yaml", "b: 1\n")
    home.start()
    home.reader = home.attach()
    assert home.reader.get("a") == 1
    return home


def serves(home, eventually, key, value):
    eventually(lambda: home.reader.get(key) == value, lambda: f"{key} = {value}; {home.agents[0].text()}")


def test_a_path_moved_out_does_not_delay_what_follows(site, tmp_path, eventually):
    conf = site.root / "conf"
    (conf / "c.yaml").write_text("c: 1\n")
    serves(site, eventually, "c", 1)
    with usual(conf, tmp_path) as observed:
        (conf / "c.yaml").rename(site.root / "c.away")
        (conf / "b.yaml").write_text("b: 2\n")
        eventually(lambda: "modified" in observed.kinds("b.yaml"), "the write, in the end")
        names = [os.path.basename(event.src_path) for event in observed.events]
        assert "c.yaml" in names[: names.index("b.yaml")]  # what was moved out came first: it was waited for
    serves(site, eventually, "b", 2)
    serves(site, eventually, "c", None)


@pytest.mark.parametrize("way", ["made again", "replaced"])
def test_a_directory(site, tmp_path, eventually, way):
    conf = site.root / "conf"
    with usual(conf, tmp_path) as observed:
        if way == "made again":
            shutil.rmtree(conf)
            conf.mkdir()
            (conf / "a.yaml").write_text("a: 2\n")
        else:
            new = site.root / "new"
            new.mkdir()
            (new / "a.yaml").write_text("a: 2\n")
            conf.rename(site.root / "old")
            new.rename(conf)
        serves(site, eventually, "a", 2)
        observed.catches_up()
        heard = len(observed.events)
        (conf / "a.yaml").write_text("a: 3\n")
        serves(site, eventually, "a", 3)
        observed.catches_up()
        assert observed.observer.is_alive()
        assert len(observed.events) == heard  # deaf, for good


class Raw:
    """A watch as the kernel has it. (7.1's Observer watches a single file by its directory; others, and 6.0, so.)"""

    def __init__(self):
        self.events = []
        self.ended = threading.Event()

    def on_event(self, event):
        self.events.append(event)

    def on_watch_deleted(self, wd):
        self.ended.set()

    def on_queue_overflow(self):
        raise AssertionError("of three events")


def test_a_single_file_is_watched_by_its_directory(home, eventually):
    home.segment("a.yaml")
    home.write("a.yaml", "a: 1\n")
    home.start()
    home.reader = home.attach()
    instance, raw, place = InotifyFD(), Raw(), Raw()
    instance.start()
    try:
        instance.add_callback(os.fsencode(home.root / "a.yaml"), WATCHDOG_ALL_EVENTS, raw, CallbackId(1))
        home.write("a.yaml", "a: 2\n")
        assert raw.ended.wait(60), "the file that was watched is gone"
        serves(home, eventually, "a", 2)
        heard = len(raw.events)
        instance.add_callback(os.fsencode(home.root), WATCHDOG_ALL_EVENTS, place, CallbackId(2))
        home.write("a.yaml", "a: 3\n")
        serves(home, eventually, "a", 3)
        eventually(lambda: b"a.yaml" in [event.name for event in place.events], "what its directory tells")
        assert len(raw.events) == heard
    finally:
        instance.stop()
        instance.join(60)


@pytest.mark.parametrize("root", ["a linked file", "a linked directory"])
def test_a_link_is_followed_to_where_it_leads(home, tmp_path, eventually, root):
    far = home.root / "far"
    far.mkdir()
    (far / "a.yaml").write_text("a: 1\n")
    (home.root / "conf").mkdir()
    if root == "a linked file":
        (home.root / "conf" / "a.yaml").symlink_to(far / "a.yaml")
    else:
        (home.root / "conf").rmdir()
        (home.root / "conf").symlink_to(far)
    home.segment("conf/")
    home.start()
    home.reader = home.attach()
    with usual(home.root / "conf", tmp_path) as observed:
        (far / "aside").write_text("a: 2\n")
        (far / "aside").rename(far / "a.yaml")
        serves(home, eventually, "a", 2)
        observed.catches_up()
        assert "a.yaml" not in [os.path.basename(event.src_path) for event in observed.events]


def test_a_volume_of_kubernetes_is_seen_to_change(home, tmp_path, eventually):
    volume = home.root / "volume"
    for number in (1, 2):
        (volume / f"..v{number}").mkdir(parents=True)
        (volume / f"..v{number}" / "a.yaml").write_text(f"a: {number}\n")
    (volume / "..data").symlink_to("..v1")
    (volume / "a.yaml").symlink_to("..data/a.yaml")
    home.segment("volume/a.yaml")
    home.start()
    home.reader = home.attach()
    with usual(volume, tmp_path) as observed:
        (volume / "..new").symlink_to("..v2")
        (volume / "..new").rename(volume / "..data")
        serves(home, eventually, "a", 2)
        observed.catches_up()
        assert observed.kinds("a.yaml") == []  # of the file itself nothing was ever said
        assert "..data" in {os.path.basename(event.dest_path) for event in observed.events}


def test_a_handler_that_raises(site, tmp_path, eventually):
    """The agent's callbacks only note what happened; what is wrong with a file is found by another thread."""

    def load(event):
        raise ValueError("this file is not valid")

    with usual(site.root / "conf", tmp_path, load) as observed:
        site.write("conf/a.yaml", "a: [\n")
        site.agents[0].says("rejected")
        eventually(lambda: not observed.observer.is_alive(), "the end of the thread that hands on events")
        heard = len(observed.events)
        site.write("conf/a.yaml", "a: 2\n")
        serves(site, eventually, "a", 2)
        assert len(observed.events) == heard


def test_a_handler_that_reads(site, tmp_path, eventually):
    """Reading raises events, which it reads for. The agent looks only for what changes something."""
    conf = site.root / "conf"
    enough = threading.Event()

    def load(event):
        if len(observed.events) > 200:
            enough.set()
        elif not event.is_directory and os.path.exists(event.src_path):
            Path(event.src_path).read_bytes()

    with usual(conf, tmp_path, load) as observed:
        (conf / "a.yaml").write_text("a: 2\n")
        assert enough.wait(60), "a loop that feeds itself"
    serves(site, eventually, "a", 2)
    site.agents[0].says("version 2 published")
    assert site.agents[0].text().count("published") == 2


def test_a_half_written_file(site, tmp_path, eventually):
    taken = []

    def load(event):
        if event.event_type == "modified" and os.path.basename(event.src_path) == "a.yaml":
            taken.append((site.root / "conf" / "a.yaml").read_text())

    with usual(site.root / "conf", tmp_path, load), (site.root / "conf" / "a.yaml").open("w") as file:
        file.write("a: [2,\n")  # which is nothing by itself, so that however slow this is, it is not taken
        file.flush()
        eventually(lambda: "a: [2,\n" in taken, "half a file, taken for a whole one")
        file.write("3]\nmore: 2\n")
        file.flush()
    serves(site, eventually, "more", 2)
    site.agents[0].says("version 2 published")
    versions = [line for line in site.agents[0].text().splitlines() if "published" in line]
    assert len(versions) == 2
    assert site.reader["a"] == [2, 3]


def test_a_store_through_a_mapping_is_found(site, tmp_path, eventually):
    """Without an msync and a descriptor that is closed nothing tells of it at all."""
    file = site.root / "conf" / "a.yaml"
    with file.open("r+b") as opened, usual(site.root / "conf", tmp_path) as observed:
        mapped = mmap.mmap(opened.fileno(), 0)
        mapped[:] = b"a: 2\n"
        serves(site, eventually, "a", 2)
        observed.catches_up()
        assert observed.kinds("a.yaml") == []
        mapped.close()


def test_a_hard_link_is_never_closed_and_is_taken(site, tmp_path, eventually):
    with usual(site.root / "conf", tmp_path) as observed:
        (site.root / "aside").write_text("c: 2\n")
        os.link(site.root / "aside", site.root / "conf" / "c.yaml")
        serves(site, eventually, "c", 2)
        observed.catches_up()
        assert "created" in observed.kinds("c.yaml")
        assert "closed" not in observed.kinds("c.yaml")


def test_polling_by_size_and_mtime_misses_what_keeps_both(home, tmp_path, eventually, without_events):
    home.segment("conf/")
    file = home.write("conf/a.yaml", "a: 1\n")
    home.start("run", before=without_events)
    home.reader = home.attach()
    before = file.stat()
    with usual(home.root / "conf", tmp_path, observer=PollingObserver, timeout=0.01) as observed:
        observed.catches_up()
        with file.open("r+") as opened:
            opened.write("a: 2\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        serves(home, eventually, "a", 2)
        (home.root / "marker" / "mark").unlink()
        observed.catches_up()
        assert "modified" not in observed.kinds("a.yaml")


OVERFLOW = """
import os, sys, threading
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

gate, marked, seen = threading.Event(), threading.Event(), set()

class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        if os.path.basename(event.src_path) == "mark":
            marked.set()
        seen.add(os.path.basename(event.src_path))

import watchdog.observers.inotify_c as module
read = module.InotifyFD.read_events
def slow(self, **how):   # a machine that gives the thread no turn
    gate.wait(60)
    return read(self, **how)
module.InotifyFD.read_events = slow
observer = Observer()
observer.schedule(Handler(), sys.argv[1])
observer.start()
limit = int(open("/proc/sys/fs/inotify/max_queued_events").read())
for number in range(limit // 2 + 1000):
    path = os.path.join(sys.argv[1], f"{number}.yaml")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
last = os.path.join(sys.argv[1], "last.yaml")
open(last, "w").close()
gate.set()
while not marked.wait(0.05):
    open(os.path.join(sys.argv[1], "mark"), "w").close()
print("last.yaml" in seen)
os._exit(0)
"""


def test_a_queue_that_overflows(tmp_path, require):
    """Events are lost, the newest. The agent's part, which looks again then, is in unit/.../test_watch.py."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    require(limit <= 100_000, "a queue of events that can be filled in a moment")
    (tmp_path / "watched").mkdir()
    command = [sys.executable, "-c", OVERFLOW, str(tmp_path / "watched")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert result.stdout == "False\n", result.stderr


# In a mount namespace of its own: an agent, and an observer, in one process tree; prints what each has seen.
MOUNTS = """
import ctypes, json, os, subprocess, sys, threading, time
from pathlib import Path
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
import shmconf
root, way, command = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
conf, seen, mark = root / "conf", [], threading.Event()
libc = ctypes.CDLL(None, use_errno=True)

def mount():
    assert libc.mount(b"test", os.fsencode(conf), b"tmpfs", 0, b"size=1m") == 0, ctypes.get_errno()

def unmount():
    assert libc.umount2(os.fsencode(conf), 2) == 0, ctypes.get_errno()

def write(text):
    aside = conf / ".aside"
    aside.write_text(text)
    aside.rename(conf / "a.yaml")

def wait_for(value, reader):
    deadline = time.monotonic() + 60
    while reader.get("a") != value:
        assert time.monotonic() < deadline, (value, reader.get("a"))
        time.sleep(0.005)

class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        seen.append(event.event_type)

class Mark(FileSystemEventHandler):
    def on_any_event(self, event):
        mark.set()

def catch_up():
    mark.clear()
    (root / "marker" / "mark").write_bytes(b"")
    return mark.wait(60)

conf.mkdir(), (root / "marker").mkdir()
if way == "unmounted":
    write("a: 3\\n")
    mount()
write("a: 1\\n")
observer = Observer()
observer.schedule(Handler(), str(conf))
observer.schedule(Mark(), str(root / "marker"))
observer.start()
agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
try:
    with shmconf.attach("web", directory=root / "run", wait=60) as reader:
        wait_for(1, reader)
        if way == "unmounted":
            unmount()
        else:
            mount()
            write("a: 3\\n")
        wait_for(3, reader)
        caught_up = catch_up()
        heard = len(seen)
        write("a: 4\\n")
        wait_for(4, reader)
        caught_up = catch_up() and caught_up
        print(json.dumps({"deaf": len(seen) == heard, "alive": observer.is_alive(), "caught_up": caught_up}))
finally:
    agent.terminate()
    agent.wait(60)
"""


@pytest.mark.parametrize("way", ["unmounted", "mounted over"])
def test_a_directory_unmounted_or_mounted_over(home, require, way):
    unshare = shutil.which("unshare")
    able = unshare and subprocess.run([unshare, "-m", "true"], capture_output=True).returncode == 0
    require(able, "unshare -m, to mount something where nobody else sees it")
    home.segment("conf/")
    command = [str(unshare), "-m", sys.executable, "-c", MOUNTS, str(home.root), way, *home.command("run")]
    environment = home.environment(PYTHONWARNINGS="error")
    result = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, cwd=home.root)
    assert result.returncode == 0, result.stderr
    assert '"deaf": true' in result.stdout, result.stdout + result.stderr


def test_a_file_mounted_by_itself_is_said_to_be(home, require, eventually):
    """Its source may be replaced on the host: what is mounted is the file that was there."""
    unshare = shutil.which("unshare")
    able = unshare and subprocess.run([unshare, "-m", "true"], capture_output=True).returncode == 0
    require(able, "unshare -m, to mount something where nobody else sees it")
    home.segment("a.yaml")
    home.write("a.yaml", "a: 0\n")
    home.write("host.yaml", "a: 1\n")
    script = 'mount --bind host.yaml a.yaml && exec "$@"'
    output = home.root / "mounted.out"
    with output.open("wb") as sink:
        command = [str(unshare), "-m", "sh", "-c", script, "sh", *home.command("run")]
        agent = subprocess.Popen(command, cwd=home.root, env=home.environment(), stdout=sink, stderr=sink)
    try:
        reader = home.attach()
        home.write("host.yaml", "a: 2\n")  # what the usual way would wait for in vain, and without a word
        eventually(lambda: "is mounted as a single file" in output.read_text(), "a word on it")
        eventually(
            lambda: any("is mounted as a single file" in text for text in reader.status().agent.warnings), "its status"
        )
        assert reader.get("a") == 1
    finally:
        agent.terminate()
        agent.wait(60)


LIMITS = """
import errno, os, resource
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
kept = []
try:
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    observer = Observer()
    observer.schedule(FileSystemEventHandler(), ".")
    observer.start()
    print("started")
except OSError as error:
    print(errno.errorcode[error.errno])
os._exit(0)
"""
FEW = """
import resource
from shmconf_agent import inotify
def refuse(cls):
    import errno, os
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
inotify.InotifyFD._create_inotify_fd = classmethod(refuse)
"""


def test_limits_of_inotify_end_the_usual_way_and_not_the_agent(home, eventually):
    command = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", sys.executable, "-c", LIMITS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=home.root)
    assert result.stdout == "EMFILE\n", result.stderr
    home.segment("a.yaml")
    home.write("a.yaml", "a: 1\n")
    home.start("run", before=FEW)
    home.reader = home.attach()
    home.agents[0].says("No more inotify instances or open files are to be had; changes are found by looking every")
    home.write("a.yaml", "a: 2\n")
    serves(home, eventually, "a", 2)
    assert any("inotify" in text for text in home.reader.status().agent.warnings)
