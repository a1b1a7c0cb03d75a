from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf.errors import Error, SegmentLocked
from shmconf.lock import WriterLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web.lock"


@pytest.fixture
def take(path: Path) -> Iterator[Callable[[], WriterLock]]:
    taken = []

    def one() -> WriterLock:
        taken.append(WriterLock(path, "segment 'web'", 0o755))
        return taken[-1]

    yield one
    for lock in taken:
        lock.release()


def is_free(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_it_excludes_and_names_the_holder(take: Any, path: Path) -> None:
    take()
    with pytest.raises(SegmentLocked) as caught:
        take()
    said = str(caught.value)
    assert f"segment 'web' already has an agent (process {os.getpid()}); stop that one first" in said
    assert str(path) in said


def test_a_holder_in_another_process_is_named(path: Path, take: Any, child: Any) -> None:
    code = """
import sys, pathlib
from shmconf.lock import WriterLock
lock = WriterLock(pathlib.Path(sys.argv[1]), "segment 'web'", 0o755)
print("held", flush=True)
sys.stdin.readline()
"""
    holder = child(code, path)
    holder.expect("held")
    with pytest.raises(SegmentLocked, match=rf"process {holder.pid}\b"):
        take()
    holder.process.kill()  # the kernel frees it
    holder.process.wait()
    take()


def test_release_frees_it_and_is_idempotent(take: Any, path: Path) -> None:
    lock = take()
    assert not is_free(path)
    lock.release()
    lock.release()
    assert is_free(path)
    assert path.exists(), "the file is never unlinked"
    with pytest.raises(Error, match="was released"):
        lock.confirm()


def test_only_its_owner_may_open_it(take: Any, path: Path) -> None:
    path.touch(mode=0o666)
    path.chmod(0o666)
    take()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("squatter", ["directory", "fifo", "link"])
def test_a_squatted_lock_is_an_error_and_not_a_hang(take: Any, path: Path, tmp_path: Path, squatter: str) -> None:
    if squatter == "directory":
        path.mkdir()
    elif squatter == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Error, match=r"the lock .*web\.lock"):
        take()
    assert not (tmp_path / "elsewhere").exists()


def test_a_foreign_lock_file_is_refused(take: Any, path: Path, require: Callable[[object, str], None]) -> None:
    require(os.geteuid() == 0, "files of several owners need root")
    path.touch(mode=0o600)
    os.chown(path, 54_321, -1)
    with pytest.raises(Error, match="not a regular file of this user"):
        take()


def test_a_replaced_lock_file_is_locked_anew(take: Any, path: Path) -> None:
    lock = take()
    path.unlink()
    lock.confirm()
    assert not is_free(path)
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(SegmentLocked):
        take()


def test_a_replaced_lock_file_that_another_holds_stops_this_one(take: Any, path: Path) -> None:
    lock = take()
    path.unlink()
    other = take()
    with pytest.raises(SegmentLocked):
        lock.confirm()
    other.confirm()
    other.release()
    lock.confirm()


def test_a_wiped_directory_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = WriterLock(folder / "web.lock", "segment 'web'", 0o700)
    (folder / "web.lock").unlink()
    folder.rmdir()
    lock.confirm()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not is_free(folder / "web.lock")
    lock.release()


def test_a_directory_that_is_missing_from_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"cannot open the lock .*No such file"):
        WriterLock(tmp_path / "none" / "web.lock", "segment 'web'", 0o755)


def test_children_do_not_hold_it(take: Any, path: Path, until: Callable[..., Any]) -> None:
    lock = take()
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    # A program that was started while the lock was held, closing nothing by itself, and that outlives the holder.
    sleeper = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.read({reading}, 1)"], close_fds=False, stdin=subprocess.DEVNULL
    )
    lock.release()
    try:
        # Not at once: the kernel lets the parent of a vfork go on just before it closes what exec is to close.
        until(lambda: is_free(path), "the lock is free while the child lives", 10)
        assert sleeper.poll() is None
    finally:
        os.write(writing, b"x")
        sleeper.wait()
        os.close(reading)
        os.close(writing)


def test_a_lock_without_a_number_still_excludes(take: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full file system the number cannot be written; the agent starts all the same."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        take()
    with pytest.raises(SegmentLocked, match="its process id is not known"):
        take()
