"""Hints come in order and in time, watching mends itself, and trouble with it is told and never raised."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

import shmconf_agent.inotify as inotify_module
from shmconf_agent import watch as watch_module
from shmconf_agent.disk import Interest
from shmconf_agent.mounts import Mount, is_blind, mount_of, mounted_files, mounts
from shmconf_agent.watch import POLL_S, RESCAN_S, Hint, Kind, Watcher

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

YAML = Interest(frozenset(), frozenset({"*.yaml"}), True)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    monkeypatch.setattr(watch_module, "_CATCH_UP_S", 10)  # however busy the machine is
    with contextlib.closing(Watcher()) as made:
        yield made


def follow(watcher: Watcher, *directories: Path, interest: Interest = YAML) -> None:
    watcher.follow({str(directory): interest for directory in directories})


def heard(watcher: Watcher) -> list[tuple[Kind, str]]:
    return [(hint.kind, hint.path) for hint in watcher.drain()]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shmconf-inotify"]


def test_a_directory_newly_watched_asks_for_another_look(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    assert watcher.wake.is_set()
    assert heard(watcher) == [(Kind.WATCHED, str(tmp_path))]
    assert not watcher.wake.is_set()
    follow(watcher, tmp_path)
    assert not watcher.wake.is_set()


def test_drain_holds_all_that_happened_before_it_in_order(watcher: Watcher, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    follow(watcher, tmp_path)
    watcher.drain()
    for _ in range(200):
        file.write_bytes(b"a: 1")
        file.rename(tmp_path / "b.yaml")
        assert heard(watcher) == [
            (Kind.CREATED, str(file)),
            (Kind.MODIFIED, str(file)),
            (Kind.CLOSED, str(file)),
            (Kind.GONE, str(file)),
            (Kind.MOVED_TO, str(tmp_path / "b.yaml")),
        ]


def test_hints_wake(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    watcher.drain()
    (tmp_path / "a.yaml").touch()
    assert watcher.wake.wait(60)


def test_looking_and_what_is_of_no_interest_raise_no_hint(watcher: Watcher, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1")
    follow(watcher, tmp_path)
    watcher.drain()
    file.read_bytes()
    os.listdir(tmp_path)
    (tmp_path / "app.log").write_bytes(b"noise")
    assert watcher.drain() == []
    assert not watcher.wake.is_set()


def test_of_a_place_only_coming_and_going_is_heard(watcher: Watcher, tmp_path: Path) -> None:
    file = tmp_path / "conf"
    follow(watcher, tmp_path, interest=Interest(frozenset({"conf"}), frozenset(), False))
    watcher.drain()
    file.write_bytes(b"data")
    assert heard(watcher) == [(Kind.CREATED, str(file))]
    follow(watcher, tmp_path, interest=Interest(frozenset({"conf"}), frozenset(), True))
    assert heard(watcher) == [(Kind.WATCHED, str(tmp_path))]
    file.write_bytes(b"data")
    assert (Kind.CLOSED, str(file)) in heard(watcher)


def test_a_long_write_is_one_hint(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    with open(tmp_path / "a.yaml", "wb", buffering=0) as file:
        watcher.drain()
        for number in range(100):
            file.write(b"%d" % number)
        assert heard(watcher) == [(Kind.MODIFIED, str(tmp_path / "a.yaml"))]


def test_a_directory_made_again_is_watched_again(watcher: Watcher, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    follow(watcher, conf)
    watcher.drain()
    for _ in range(20):  # often with the same inode number
        conf.rmdir()
        assert (Kind.GONE, str(conf)) in heard(watcher)
        conf.mkdir()
        follow(watcher, conf)
        assert (Kind.WATCHED, str(conf)) in heard(watcher)
        (conf / "a.yaml").touch()
        assert (Kind.CREATED, str(conf / "a.yaml")) in heard(watcher)
        (conf / "a.yaml").unlink()
        watcher.drain()


def test_a_directory_replaced_is_watched_instead(watcher: Watcher, tmp_path: Path) -> None:
    conf, old, new = tmp_path / "conf", tmp_path / "old", tmp_path / "new"
    conf.mkdir()
    new.mkdir()
    follow(watcher, conf)
    conf.rename(old)
    new.rename(conf)
    follow(watcher, conf)
    watcher.drain()
    (old / "a.yaml").touch()
    assert watcher.drain() == []
    (conf / "a.yaml").touch()
    assert (Kind.CREATED, str(conf / "a.yaml")) in heard(watcher)


def test_two_watched_directories_may_change_places(watcher: Watcher, tmp_path: Path) -> None:
    one, two, aside = tmp_path / "one", tmp_path / "two", tmp_path / "aside"
    one.mkdir()
    two.mkdir()
    follow(watcher, one, two)
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    follow(watcher, one, two)
    watcher.drain()
    for directory in (one, two):
        (directory / "a.yaml").mkdir()
        assert heard(watcher) == [(Kind.CREATED, str(directory / "a.yaml"))]


def test_a_directory_no_longer_followed_is_silent(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    follow(watcher)
    watcher.drain()
    (tmp_path / "a.yaml").touch()
    assert watcher.drain() == []


def test_a_directory_that_is_not_there_is_no_trouble(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path / "missing")
    assert watcher.notes == ()
    assert watcher.rescan_s == RESCAN_S


def test_a_link_is_not_followed_in_a_directory_s_place(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    follow(watcher, tmp_path / "link")
    (tmp_path / "a.yaml").touch()
    assert watcher.drain() == []


def test_a_killed_thread_is_replaced_and_its_loss_told(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    watcher.drain()
    (thread,) = threads()
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    (tmp_path / "a.yaml").touch()  # what it waits for, and dies at
    assert watcher.wake.wait(60)
    follow(watcher, tmp_path)
    assert {Kind.OVERFLOW, Kind.WATCHED} <= {kind for kind, _ in heard(watcher)}
    wait_for(lambda: not thread.is_alive())
    (tmp_path / "b.yaml").touch()
    assert (Kind.CREATED, str(tmp_path / "b.yaml")) in heard(watcher)
    assert watcher.errors == 1


def test_a_stopped_thread_is_replaced(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    (thread,) = threads()
    assert isinstance(thread, inotify_module.Inotify)
    thread.stop()
    wait_for(lambda: not thread.is_alive())
    assert watcher.wake.wait(60)
    follow(watcher, tmp_path)
    watcher.drain()
    (tmp_path / "b.yaml").touch()
    assert (Kind.CREATED, str(tmp_path / "b.yaml")) in heard(watcher)


def test_a_queue_that_overflowed_is_told_and_everything_watched_anew(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    watcher.drain()
    (thread,) = threads()
    assert isinstance(thread, inotify_module.Inotify)
    overflow = InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b"")
    thread.handle_event(overflow)
    assert heard(watcher) == [(Kind.OVERFLOW, "")]
    follow(watcher, tmp_path)
    assert heard(watcher) == [(Kind.WATCHED, str(tmp_path))]
    assert watcher.errors == 1


def test_hints_that_nobody_drains_are_bounded(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_MOST_HINTS", 100)
    follow(watcher, tmp_path)
    for number in range(400):
        (tmp_path / f"{number}.yaml").touch()
    hints = watcher.drain()
    assert len(hints) <= 100
    assert Kind.OVERFLOW in {hint.kind for hint in hints}


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EMFILE, "fs.inotify.max_user_instances"), (errno.ENOSYS, "cannot be had")],
)
def test_without_an_instance_it_polls_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse() -> int:
        raise OSError(number, os.strerror(number))

    clock = [100.0]
    with contextlib.closing(Watcher(now=lambda: clock[0])) as watcher:
        with monkeypatch.context() as patched:
            patched.setattr(inotify_module.Inotify, "_create_inotify_fd", staticmethod(refuse))
            follow(watcher, tmp_path)
            (note,) = watcher.notes
            assert advice in note
            assert watcher.rescan_s == POLL_S
            assert watcher.drain() == []
        follow(watcher, tmp_path)
        assert watcher.notes
        clock[0] += 5
        follow(watcher, tmp_path)
        assert watcher.notes == ()
        assert watcher.rescan_s == RESCAN_S
        assert watcher.errors == 1


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "fs.inotify.max_user_watches"), (errno.EACCES, "permission to read")],
)
def test_directories_without_a_watch_are_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(descriptor: int, path: bytes, mask: int) -> int:
        ctypes.set_errno(number)
        return -1

    clock = [100.0]
    (tmp_path / "conf").mkdir()
    with contextlib.closing(Watcher(now=lambda: clock[0])) as watcher:
        with monkeypatch.context() as patched:
            patched.setattr("watchdog.observers.inotify_c.inotify_add_watch", refuse)
            follow(watcher, tmp_path, tmp_path / "conf")
            (note,) = watcher.notes
            assert note.startswith(f"{tmp_path} and 1 more cannot be watched: ")
            assert advice in note
            assert watcher.rescan_s == POLL_S
        clock[0] += 5
        follow(watcher, tmp_path, tmp_path / "conf")
        assert watcher.notes == ()
        (tmp_path / "conf" / "a.yaml").touch()
        assert (Kind.CREATED, str(tmp_path / "conf" / "a.yaml")) in heard(watcher)


def test_events_can_be_switched_off(tmp_path: Path) -> None:
    before = threading.active_count()
    with contextlib.closing(Watcher(events=False)) as watcher:
        follow(watcher, tmp_path)
        assert threading.active_count() == before
        assert watcher.rescan_s == POLL_S
        assert watcher.drain() == []
        assert len(watcher.notes) == 1


def test_the_event_may_be_shared() -> None:
    wake = threading.Event()
    watcher = Watcher(wake)
    wake.set()
    watcher.drain()
    assert not wake.is_set()


def test_closing_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for kill in (False, True):
        watcher = Watcher()
        follow(watcher, tmp_path)
        (thread,) = threads()
        assert thread.ident is not None
        if kill:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
            (tmp_path / "a.yaml").touch()
            wait_for(lambda thread=thread: not thread.is_alive())
        watcher.close()
        watcher.close()
        follow(watcher, tmp_path)
        assert threads() == []
        assert descriptors() == before


def test_programs_that_are_started_do_not_inherit_the_descriptor(watcher: Watcher, tmp_path: Path) -> None:
    follow(watcher, tmp_path)
    opened = {int(name): os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
    (descriptor,) = (number for number, target in opened.items() if "inotify" in target)
    assert not os.get_inheritable(descriptor)


def test_hints_carry_the_time_at_which_they_came(tmp_path: Path) -> None:
    with contextlib.closing(Watcher(now=lambda: 7.0)) as watcher:
        follow(watcher, tmp_path)
        assert watcher.drain() == [Hint(Kind.WATCHED, str(tmp_path), 7.0)]


def test_mounts_are_read_with_their_types(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:45 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "23 22 0:46 / /mnt/with\\040space rw - nfs4 server:/ rw,vers=4\n"
        "nonsense\n"
        "24 22 0:47 / /mnt/f rw shared:3 master:1 - fuse.sshfs h:/ rw\n"
    )
    found = mounts(str(table))
    assert [(mount.point, mount.type) for mount in found] == [
        ("/", "ext4"),
        ("/mnt/with space", "nfs4"),
        ("/mnt/f", "fuse.sshfs"),
    ]
    assert [is_blind(mount.type) for mount in found] == [False, True, True]
    assert mounts(str(tmp_path / "missing")) == ()


def test_file_systems_without_events_are_polled(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = tmp_path.stat().st_dev
    monkeypatch.setattr(watch_module, "mounts", lambda: [Mount(dev, "/", "nfs4")])
    follow(watcher, tmp_path)
    assert watcher.rescan_s == POLL_S
    assert watcher.notes[0].startswith(f"{tmp_path} is on nfs4")
    follow(watcher)
    assert watcher.rescan_s == RESCAN_S


@pytest.mark.parametrize("looked", [True, False])
def test_the_mount_table_is_read_again_when_another_directory_is_there(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked: bool
) -> None:
    """The number of a device that was unmounted may be that of a network file system a moment later."""
    conf = tmp_path / "conf"
    conf.mkdir()
    dev = conf.stat().st_dev
    monkeypatch.setattr(watch_module, "mounts", lambda: [Mount(dev, "/", "tmpfs")])
    follow(watcher, conf)
    assert watcher.rescan_s == RESCAN_S
    conf.rename(tmp_path / "away")
    if looked:
        follow(watcher, conf)
    conf.mkdir()
    monkeypatch.setattr(watch_module, "mounts", lambda: [Mount(dev, "/", "nfs4")])
    follow(watcher, conf)
    assert watcher.rescan_s == POLL_S


def test_of_an_overlay_it_is_said_that_not_everything_is_heard(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "mounts", lambda: [Mount(tmp_path.stat().st_dev, "/", "overlay")])
    conf = tmp_path / "conf"
    conf.mkdir()
    parent = Interest(frozenset({"conf"}), frozenset(), True)
    watcher.follow({str(tmp_path): parent, str(conf): YAML})
    assert watcher.rescan_s == RESCAN_S
    [note] = watcher.notes
    assert note.startswith(f"{conf} is on overlay, where changes made below it")


def test_a_file_is_in_the_last_of_the_deepest_mounts() -> None:
    table = [Mount(1, "/", "ext4"), Mount(2, "/srv", "xfs"), Mount(3, "/srv/a.yaml", "xfs"), Mount(4, "/srv", "nfs")]
    found = {path: mount_of(path, table) for path in ("/", "/srv", "/srvs", "/srv/b/c", "/srv/a.yaml")}
    assert [mount.dev for mount in found.values() if mount] == [1, 4, 1, 4, 3]
    assert mount_of("/", []) is None
    assert mounted_files(["/srv/a.yaml", "/srv/b.yaml"], table) == ["/srv/a.yaml"]
