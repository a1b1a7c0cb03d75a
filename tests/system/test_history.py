"""The history of a running agent: what is kept through kills, full and slow disks, and while others read it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from history_victim import document, keep, sources

from shmconf import codec
from shmconf_agent.history import History, NotKept

VICTIM = Path(__file__).parent / "history_victim.py"

# In the agent's process: the thread that keeps versions waits at its disk until the file `go` is there.
SLOW_DISK = """
import os, threading, time
real = os.fsync
def slow(fd):
    if threading.current_thread().name == 'shmconf-history':
        while not os.path.exists('go'):
            time.sleep(0.01)
    return real(fd)
os.fsync = slow
"""
# The agent is killed when it is about to put the second version in its place.
KILLED_AT_THE_SECOND = """
import os, signal
real = os.rename
renamed = []
def rename(source, target, **more):
    if str(target).endswith('.version'):
        renamed.append(target)
        if len(renamed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target, **more)
os.rename = rename
"""


@pytest.fixture
def web(home):
    home.segment("base.yaml")
    home.write("base.yaml", "value: 1\n")
    return home


@pytest.fixture
def small_state(web, require) -> Iterator[None]:
    """The same home, with a tmpfs of 512 KiB as its state directory."""
    require(os.geteuid() == 0 and shutil.which("mount"), "only root may mount a tmpfs")
    web.state.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", web.state], check=False)
    require(mounted.returncode == 0, "a tmpfs can be mounted")
    yield web
    for agent in web.agents:
        agent.kill()
    subprocess.run(["umount", "-l", web.state], check=True)


def versions(home) -> list[int]:
    return [entry.kept.version for entry in History(home.state, "web").entries()]


def is_kept(home, version: int):
    return lambda: versions(home)[:1] == [version]


def warnings(home) -> str:
    return "\n".join(home.status()[1]["warnings"])


def noise(size: int, salt: int = 0) -> str:
    """Text that does not compress below a half."""
    return random.Random(salt).randbytes(size // 2).hex()


def test_of_sixty_versions_the_last_fifty_are_kept_while_another_process_reads_them(web, eventually):
    web.start()
    reader = web.attach()
    seen: list[int] = []
    failures: list[str] = []
    stop = threading.Event()

    def read() -> None:
        history = History(web.state, "web")
        while not stop.is_set():
            try:
                entries = history.entries()
                for entry in (*entries[:1], *entries[-1:]):
                    if codec.unpack(history.payload(entry)) != {"value": entry.kept.version}:
                        failures.append(f"version {entry.kept.version} is another")
                seen.append(len(entries))
            except NotKept as gone:
                if "any more" not in str(gone):
                    failures.append(str(gone))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for version in range(1, 61):
            web.write("base.yaml", f"value: {version}\n")
            eventually(lambda version=version: reader.version == version, f"version {version}")
            eventually(is_kept(web, version), f"version {version} is kept")
    finally:
        stop.set()
        thread.join()
    eventually(lambda: versions(web) == list(range(60, 10, -1)), lambda: versions(web))
    assert failures == []
    assert len(set(seen)) > 5, "it was read while it grew"
    history = History(web.state, "web")
    for entry in history.entries():
        assert history.layers(entry)[0].data == f"value: {entry.kept.version}\n".encode()
        assert (entry.kept.changed, entry.kept.keys) == (("base.yaml",), 1)


def test_a_process_killed_at_any_step_leaves_what_was_good_and_its_successor_goes_on(tmp_path, home):
    killed = 0
    for step in range(1000):
        state = tmp_path / f"state-{step}"
        state.mkdir()
        keep(state, 1)
        keep(state, 2)
        command = [sys.executable, "-P", str(VICTIM), str(state), "3", str(step)]
        environment = home.environment()
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        newest = History(state, "web").newest()
        assert newest is not None
        assert newest[0].version in (2, 3)
        assert newest[1] == document(newest[0].version)
        keep(state, 3)
        history = History(state, "web")
        assert [entry.kept.version for entry in history.entries()] == [3, 2]
        for entry in history.entries():
            assert {text.file: text.data for text in history.layers(entry)} == sources(entry.kept.version)
        assert not list(history.path.glob("*.new"))
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        killed += 1
    assert killed > 10


def test_an_agent_killed_while_it_keeps_a_version_loses_neither_it_nor_the_one_before(web, eventually):
    first = web.start(before=KILLED_AT_THE_SECOND)
    reader = web.attach()
    eventually(is_kept(web, 1), "version 1 is kept")
    web.write("base.yaml", "value: 2\n")
    assert first.ends() == -signal.SIGKILL
    assert (reader.version, versions(web)) == (2, [1])
    assert list((web.state / "web.history").glob("*.new"))
    second = web.start()
    eventually(is_kept(web, 2), "the successor keeps what it found published")
    history = History(web.state, "web")
    eventually(lambda: history.has_layers(history.find(2).kept), "and what it was made from")
    assert history.layers(history.find(2))[0].data == b"value: 2\n"
    eventually(lambda: not list(history.path.glob("*.new")), "nothing half-written is left")
    second.stop()
    shutil.rmtree(web.runtime)
    web.write("base.yaml", "value: [\n")
    web.start().says("last known good")
    assert web.attach()["value"] == 2


def test_a_damaged_newest_version_is_passed_over_for_the_one_before(web, eventually):
    agent = web.start()
    reader = web.attach()
    eventually(is_kept(web, 1), "version 1 is kept")
    web.write("base.yaml", "value: 2\n")
    assert reader.wait_version(after=1, timeout=60) == 2
    eventually(is_kept(web, 2), "version 2 is kept")
    agent.stop()
    newest = web.state / "web.history" / History(web.state, "web").entries()[0].name
    newest.write_bytes(newest.read_bytes()[:-1])
    shutil.rmtree(web.runtime)
    web.write("base.yaml", "value: [\n")
    agent = web.start()
    agent.says(f"{newest} is damaged")
    agent.says("last known good")
    assert web.attach()["value"] == 1
    assert f"{newest} is damaged" in warnings(web)
    web.write("base.yaml", "value: 3\n")
    eventually(lambda: not warnings(web), "something newer is kept")
    assert agent.text().count("is damaged") == 1


def test_a_disk_that_hangs_delays_no_publication(web, eventually):
    agent = web.start(before=SLOW_DISK)
    reader = web.attach()
    for version in range(2, 31):
        web.write("base.yaml", f"value: {version}\n")
        eventually(lambda version=version: reader.version == version, f"version {version}")
    assert reader["value"] == 30
    assert versions(web) == []
    assert web.status()[0] == 0
    (web.root / "go").touch()
    eventually(is_kept(web, 30), "the newest is kept")
    eventually(lambda: len(versions(web)) > 5, "and those before it that memory had room for")
    there = versions(web)  # more of them come at any moment
    assert there == sorted(there, reverse=True)
    agent.stop()
    shutil.rmtree(web.runtime)
    web.write("base.yaml", "value: [\n")
    web.start().says("last known good")
    assert web.attach()["value"] == 30


def test_a_disk_that_hangs_does_not_keep_the_agent_from_stopping(web, eventually):
    agent = web.start(before=SLOW_DISK)
    web.attach()
    assert agent.stop() == 0


def test_on_a_small_disk_the_oldest_give_way_and_a_full_one_is_told_until_it_has_room(small_state, eventually):
    web = small_state
    agent = web.start()
    reader = web.attach()
    for version in range(2, 8):
        web.write("base.yaml", f"value: {version}\nfill: {noise(150_000, version)}\n")
        eventually(lambda version=version: reader.version == version, f"version {version}")
        eventually(is_kept(web, version), f"version {version} is kept")
    assert len(versions(web)) < 7
    assert warnings(web) == ""
    size = os.statvfs(web.state)
    other = web.state / "of-somebody-else"
    other.write_bytes(bytes(size.f_bavail * size.f_frsize))
    web.write("base.yaml", f"value: 8\nfill: {noise(450_000, 8)}\n")  # more than the history has to give
    eventually(lambda: reader.version == 8, "version 8")
    eventually(lambda: "version 8 cannot be kept: No space left on device" in warnings(web), lambda: warnings(web))
    agent.says("version 8 cannot be kept: No space left on device")
    assert versions(web)[0] == 7
    assert web.status()[0] == 0
    web.write("base.yaml", "value: 9\n")
    eventually(lambda: reader.version == 9, "version 9")
    other.unlink()
    eventually(is_kept(web, 9), "it is kept once there is room")
    eventually(lambda: not warnings(web), lambda: warnings(web))


def test_on_a_full_disk_the_oldest_give_way_to_the_record_of_a_hold(small_state, eventually):
    """A rollback is wanted most when something is wrong; a disk without a byte left is no reason to refuse it."""
    web = small_state
    agent = web.start()
    reader = web.attach()
    for version in range(2, 6):
        web.write("base.yaml", f"value: {version}\nfill: {noise(20_000, version)}\n")
        eventually(lambda version=version: reader.version == version, f"version {version}")
        eventually(is_kept(web, version), f"version {version} is kept")
    eventually(lambda: not list((web.state / "web.history").glob("*.new")), "nothing is being written")
    size = os.statvfs(web.state)
    (web.state / "of-somebody-else").write_bytes(bytes(size.f_bavail * size.f_frsize))
    assert os.statvfs(web.state).f_bavail == 0
    rolled_back = web.run("rollback", "web", "2")
    assert rolled_back.returncode == 0, rolled_back.stdout + rolled_back.stderr
    assert reader["value"] == 2
    assert 1 not in versions(web)
    agent.kill()
    web.start().says("HELD: version 6 is a rollback of version 2")
    assert reader["value"] == 2
    assert web.status()[1]["hold"]["version"] == 2


@pytest.fixture
def read_only(web, require):
    """`read_only(True)` mounts the history over itself so that nobody can write in it, `read_only(False)` undoes it."""
    require(os.geteuid() == 0 and shutil.which("mount"), "only root may mount")
    path = web.state / "web.history"
    mounted = []

    def change(to: bool) -> None:
        if not mounted:
            bound = subprocess.run(["mount", "--bind", path, path], check=False)
            require(bound.returncode == 0, "a directory can be mounted over itself")
            mounted.append(path)
        subprocess.run(["mount", "-o", f"remount,bind,{'ro' if to else 'rw'}", path], check=True)

    yield change
    for agent in web.agents:
        agent.kill()
    for each in mounted:
        subprocess.run(["umount", "-l", each], check=True)


def test_a_read_only_disk_is_told_and_used_again_once_it_is_not(web, eventually, read_only):
    agent = web.start()
    reader = web.attach()
    eventually(is_kept(web, 1), "version 1 is kept")
    eventually(lambda: not list((web.state / "web.history").glob("*.new")), "nothing is being written")
    read_only(True)
    web.write("base.yaml", "value: 2\n")
    eventually(lambda: reader.version == 2, "version 2")
    eventually(lambda: "version 2 cannot be kept: Read-only file system" in warnings(web), lambda: warnings(web))
    agent.says("version 2 cannot be kept: Read-only file system")
    assert web.status()[0] == 0
    read_only(False)
    eventually(is_kept(web, 2), "it is kept once it can be")
    eventually(lambda: not warnings(web), lambda: warnings(web))
