"""The attached workers, as the kernel knows them: real processes on the native and the pure path."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf import layout, workers_file
from shmconf.directories import Directory
from shmconf.errors import SegmentNotFound, SegmentUntrusted
from shmconf.mapping import IMPLEMENTATION
from shmconf.workers import MOST, Worker, attached_workers

both = pytest.mark.parametrize("pure", ["", "1"] if IMPLEMENTATION == "native" else ["1"])

pytestmark = pytest.mark.skipif(not workers_file.OFFERED, reason="locks can be asked for on 64-bit Linux alone")

# A worker that does what it is told, and answers with the version that it looked up.
WORKER = """
import gc, os, signal, sys, shmconf
directory = sys.argv[1]
readers = [shmconf.attach("web", directory=directory)]
print("attached", flush=True)
for line in sys.stdin:
    order = line.strip()
    if order == "look":  # with the second look-up at a version it is adopted
        assert readers[-1].get("n") == readers[-1].get("n")
        print(readers[-1].get("n"), flush=True)
    elif order == "once":
        print(readers[-1].get("n"), flush=True)
    elif order == "snapshot":
        print(readers[-1].snapshot()["n"], flush=True)
    elif order == "attach":
        readers.append(shmconf.attach("web", directory=directory))
        print(len(readers), flush=True)
    elif order == "close":
        readers.pop().close()
        print(len(readers), flush=True)
    elif order == "forget":
        readers.pop()
        gc.collect()
        print(len(readers), flush=True)
    elif order == "fork":
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        print(pid, flush=True)
    elif order == "count":
        print(sum(os.fstat(file).st_rdev == os.stat("/dev/null").st_rdev for file in files), flush=True)
    elif order == "daemonize":  # as daemons do: whatever is open, but for the standard streams
        os.closerange(3, 256)
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        print("closed", flush=True)
"""


@pytest.fixture
def writer(place: Any, publish: Callable[..., int]) -> Any:
    writer = place.writer()
    publish(writer, {"n": 1})
    return writer


@pytest.fixture
def work(place: Any, child: Any) -> Callable[..., Any]:
    """`work(pure)` starts a worker that is attached."""

    def start(pure: str) -> Any:
        worker = child(WORKER, place.run, SHMCONF_PURE=pure)
        worker.expect("attached")
        return worker

    return start


def ask(worker: Any, order: str) -> str:
    worker.tell(order)
    return str(worker.line())


def seen(place: Any, writer: Any) -> set[tuple[int | None, int]]:
    return {(worker.pid, worker.version) for worker in attached_workers(place.directory, "web", writer.version)}


@both
def test_a_worker_is_seen_with_the_version_that_it_has_adopted(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str
) -> None:
    first, second = work(pure), work(pure)
    assert seen(place, writer) == {(first.pid, 1), (second.pid, 1)}
    publish(writer, {"n": 2})
    assert seen(place, writer) == {(first.pid, 1), (second.pid, 1)}  # a new version costs nothing before a look-up
    assert (ask(first, "once"), ask(first, "once")) == ("2", "2")
    assert seen(place, writer) == {(first.pid, 2), (second.pid, 1)}
    assert ask(first, "look") == "2"
    assert seen(place, writer) == {(first.pid, 2), (second.pid, 1)}
    assert ask(second, "snapshot") == "2"
    assert seen(place, writer) == {(first.pid, 2), (second.pid, 2)}
    for version in range(3, 30):
        publish(writer, {"n": version})
    assert ask(first, "look") == "29"
    assert seen(place, writer) == {(first.pid, 29), (second.pid, 2)}


@both
def test_a_worker_that_ends_in_any_way_is_seen_no_more(
    place: Any, writer: Any, work: Any, pure: str, until: Callable[..., Any]
) -> None:
    killed, ended, closed = work(pure), work(pure), work(pure)
    assert len(seen(place, writer)) == 3
    os.kill(killed.pid, signal.SIGKILL)
    killed.finish(check=False)
    assert seen(place, writer) == {(ended.pid, 1), (closed.pid, 1)}
    assert ask(closed, "close") == "0"
    assert seen(place, writer) == {(ended.pid, 1)}
    ended.finish()
    assert seen(place, writer) == set()


@both
def test_the_readers_of_a_process_are_one_worker_until_the_last_is_gone(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str
) -> None:
    worker = work(pure)
    assert (ask(worker, "attach"), ask(worker, "attach")) == ("2", "3")
    assert seen(place, writer) == {(worker.pid, 1)}
    publish(writer, {"n": 2})
    assert (ask(worker, "close"), ask(worker, "look"), ask(worker, "forget")) == ("2", "2", "1")
    assert seen(place, writer) == {(worker.pid, 2)}
    assert ask(worker, "forget") == "0"
    assert seen(place, writer) == set()
    assert ask(worker, "attach") == "1"
    assert seen(place, writer) == {(worker.pid, 2)}


@both
def test_a_forked_child_is_a_worker_of_its_own(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str, until: Callable[..., Any]
) -> None:
    """As with a server that attaches before it forks."""
    parent = work(pure)
    pid = int(ask(parent, "fork"))
    until(lambda: seen(place, writer) == {(parent.pid, 1), (pid, 1)}, "both are seen")
    publish(writer, {"n": 2})
    assert ask(parent, "look") == "2"
    assert seen(place, writer) == {(parent.pid, 2), (pid, 1)}
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: seen(place, writer) == {(pid, 1)}, "the child alone is seen")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not seen(place, writer), "nobody is seen")


@both
def test_descriptors_that_somebody_closed_are_left_alone(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str
) -> None:
    """A daemon closes what it did not open; the number may be another file's by then, whose locks are its own."""
    worker = work(pure)
    assert ask(worker, "daemonize") == "closed"
    assert seen(place, writer) == set()
    publish(writer, {"n": 2})
    assert ask(worker, "look") == "2"
    assert seen(place, writer) == {(worker.pid, 2)}
    publish(writer, {"n": 3, "fill": "x" * 500_000})  # the file grows, and its size is asked for
    assert ask(worker, "look") == "3"
    assert seen(place, writer) == {(worker.pid, 3)}
    assert ask(worker, "close") == "0"
    if not pure:  # what is open is the daemon's own; an mmap of CPython's closes the number that it had
        assert ask(worker, "count") == "20"
    null = Path("/dev/null").stat().st_ino
    assert f":{null} " not in Path("/proc/locks").read_text()


@both
def test_a_worker_goes_on_in_a_segment_that_was_put_in_the_place_of_the_first(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str
) -> None:
    worker = work(pure)
    (place.run / "web.workers").unlink()
    place.file.unlink()
    writer.keep_linked()
    assert writer.version == 2
    for _ in range(2000):  # every so often a look-up looks at the name
        publish(writer, {"n": 3})
        ask(worker, "snapshot")
        if seen(place, writer):
            break
    assert seen(place, writer) == {(worker.pid, writer.version)}


@both
def test_a_worker_whose_file_was_removed_is_seen_in_the_new_one_from_the_next_version_on(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str
) -> None:
    worker = work(pure)
    assert ask(worker, "attach") == "2"
    (place.run / "web.workers").unlink()
    publish(writer, {"n": 2})
    assert ask(worker, "look") == "2"  # there is none
    writer.keep_linked()
    assert seen(place, writer) == set()
    for version in (3, 4):
        publish(writer, {"n": version})
        assert ask(worker, "look") == str(version)
        assert seen(place, writer) == {(worker.pid, version)}
    (place.run / "web.workers").rename(place.run / "aside")
    (place.run / "aside").unlink()
    writer.keep_linked()
    publish(writer, {"n": 5})
    assert ask(worker, "snapshot") == "5"
    assert seen(place, writer) == {(worker.pid, 5)}
    assert (ask(worker, "close"), ask(worker, "close")) == ("1", "0")
    assert seen(place, writer) == set()


FORKS_IN_A_STEP = """
import os, sys, shmconf
from shmconf import registration
reader = shmconf.attach("web", directory=sys.argv[1])
pids = []
registration._do(lambda: pids.append(os.fork()))  # as a handler does, of a signal that comes just then
if pids == [0]:
    print("child", flush=True)
    sys.stdin.readline()
    assert reader.get("n") == reader.get("n") == 2
    print("looked", flush=True)
    sys.stdin.readline()
    os._exit(0)
assert os.waitpid(pids[0], 0)[1] == 0
print("ended", flush=True)
"""


@both
def test_a_child_that_was_forked_while_its_parent_registers_is_a_worker_as_any(
    place: Any, writer: Any, publish: Callable[..., int], child: Any, pure: str
) -> None:
    parent = child(FORKS_IN_A_STEP, place.run, SHMCONF_PURE=pure)
    parent.expect("child")
    found = seen(place, writer)
    assert len(found) == 2
    assert (parent.pid, 1) in found
    publish(writer, {"n": 2})
    parent.tell("look")
    parent.expect("looked")
    assert {version for pid, version in seen(place, writer) if pid != parent.pid} == {2}
    parent.tell("end")
    parent.expect("ended")


@both
@pytest.mark.parametrize("obstacle", ["none", "link", "fifo", "directory", "writable by all"])
def test_whatever_is_in_its_place_workers_read(
    place: Any, writer: Any, publish: Callable[..., int], work: Any, pure: str, obstacle: str
) -> None:
    file = place.run / "web.workers"
    file.unlink()
    if obstacle == "link":
        (place.run / "elsewhere").touch()
        file.symlink_to(place.run / "elsewhere")
    elif obstacle == "fifo":
        os.mkfifo(file)
    elif obstacle == "directory":
        file.mkdir()
    elif obstacle == "writable by all":
        file.touch()
        file.chmod(0o666)
    worker = work(pure)
    assert ask(worker, "look") == "1"
    with pytest.raises((SegmentNotFound, SegmentUntrusted)):
        seen(place, writer)
    publish(writer, {"n": 2})
    assert ask(worker, "look") == "2"
    writer.keep_linked()
    told = [warning for warning in writer.warnings() if "workers are not counted" in warning]
    if obstacle in ("none", "writable by all"):  # made anew, or mended
        assert ask(work(pure), "look") == "2"
        if obstacle == "none":
            assert not told
    else:
        assert f"{file}: " in told[0]
        file.rmdir() if obstacle == "directory" else file.unlink()
        writer.keep_linked()
        assert not [warning for warning in writer.warnings() if "workers" in warning]
    publish(writer, {"n": 3})
    if obstacle != "writable by all":
        assert ask(worker, "look") == "3"  # it joins with the next version
        assert (worker.pid, 3) in seen(place, writer)


def test_the_file_is_empty_and_readable_by_who_may_read_the_segment(place: Any, publish: Callable[..., int]) -> None:
    writer = place.writer(mode=0o644)
    publish(writer, {"n": 1})
    found = (place.run / "web.workers").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o444, 0)
    writer.close()
    place.writer(mode=0o640)
    assert stat.S_IMODE((place.run / "web.workers").stat().st_mode) == 0o440
    assert (place.run / "web.workers").stat().st_ino == found.st_ino  # workers hold their locks on it


LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "rb")
fd = file.fileno()
for at, length in [(5, 7), (1 << 40, 1 << 41), (3 << 40, 4), ((1 << 61) - 3, 9), (5 << 40, 0)]:
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, length, at)
print("locked", flush=True)
if len(sys.argv) > 2:
    fcntl.lockf(fd, fcntl.LOCK_UN)
    for at in range(int(sys.argv[2])):
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, at << 41)
    print("more", flush=True)
sys.stdin.read()
file.close()
"""


def test_locks_of_any_kind_are_survived(place: Any, writer: Any, child: Any, work: Any) -> None:
    """Whoever may read the segment may lock what it likes in the file; nothing but the count can suffer."""
    file = place.run / "web.workers"
    locker = child(LOCKER, file)
    locker.expect("locked")
    found = seen(place, writer)
    assert found <= {(locker.pid, layout.VERSION_MASK), (locker.pid, 3)} | {(locker.pid, n) for n in range(-3, 5)}
    locker.finish()
    many = child(LOCKER, file, MOST + 100)
    many.expect("locked")
    many.expect("more")
    assert seen(place, writer) == {(many.pid, 0)}  # one process, whatever it holds
    many.finish()
    assert seen(place, writer) == set()


def test_asking_ends_in_time_with_those_found_by_then(
    place: Any, writer: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_kernel, questions = workers_file.lock_in, []

    def slowly(fd: int, start: int, end: int) -> tuple[int, int, int] | None:
        questions.append(start)
        return ask_kernel(fd, start, end)

    started = [work("") for _ in range(3)]
    monkeypatch.setattr(workers_file, "lock_in", slowly)
    clock = iter([0.0, 0.1, 0.2, 99.0])
    monkeypatch.setattr("shmconf.workers.time.monotonic", lambda: next(clock))
    found = seen(place, writer)
    monkeypatch.undo()
    assert len(questions) == 2
    assert found < {(worker.pid, 1) for worker in started} == seen(place, writer)


ANOTHER_USER = """
import os, sys
from pathlib import Path
from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Settings, Writer
run = Path(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with Writer(Directory(run, named=True), "web", Settings(1 << 20)) as writer:
    writer.publish(codec.pack({"n": 1}))
    print(*writer.warnings(), sep="; ", flush=True)
    sys.stdin.readline()
    writer.publish(codec.pack({"n": 2}))
    print("published", flush=True)
    sys.stdin.readline()
"""


@both
def test_what_another_user_s_agent_left_is_replaced(
    child: Any, require: Callable[[object, str], None], pure: str
) -> None:
    """As of an agent that root started by hand, before the service had a user of its own."""
    require(os.geteuid() == 0, "only root may become another user")
    with tempfile.TemporaryDirectory(prefix="shmconf-test-") as root:
        run = Path(root)
        run.chmod(0o755)
        os.chown(run, 65534, 65534)
        left = run / "web.workers"
        left.touch()
        left.chmod(0o440)
        before = left.stat().st_ino
        agent = child(ANOTHER_USER, run)
        assert "workers" not in agent.line()
        assert left.stat().st_ino != before
        assert (left.stat().st_uid, stat.S_IMODE(left.stat().st_mode)) == (65534, 0o440)
        worker = child(WORKER, run, SHMCONF_PURE=pure)
        worker.expect("attached")
        found = attached_workers(Directory(run, named=True), "web", 1)
        assert found == [Worker(worker.pid, 1)]
        assert {path.name for path in run.iterdir()} == {"web.lock", "web.shmconf", "web.workers"}
        agent.tell("publish")
        agent.expect("published")
        assert ask(worker, "look") == "2"
        assert attached_workers(Directory(run, named=True), "web", 2) == [Worker(worker.pid, 2)]
        agent.finish()


def test_nobody_who_reads_waits_for_a_lock(place: Any, writer: Any, publish: Callable[..., int], work: Any) -> None:
    """Not even where the agent's user locks the file for itself, which nothing of this does."""
    fd = os.open(place.run / "web.workers", os.O_RDWR)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        worker = work("")
        publish(writer, {"n": 2})
        assert ask(worker, "look") == "2"
    finally:
        os.close(fd)
    publish(writer, {"n": 3})
    assert ask(worker, "look") == "3"
    assert seen(place, writer) == {(worker.pid, 3)}


@given(st.integers(1, (1 << 63) - 1), st.integers(0, (1 << 39) - 1))
def test_a_length_tells_its_version_as_long_as_the_worker_is_not_too_far_off(served: int, behind: int) -> None:
    for version in (served - behind, served + behind):
        length = workers_file.length_for(version)
        assert 1 <= length <= workers_file.PLACE_SIZE
        assert workers_file.version_of(length, served) == version


def test_without_a_segment_nobody_can_be_asked_for(place: Any) -> None:
    with pytest.raises(SegmentNotFound):
        attached_workers(place.directory, "absent", 0)
