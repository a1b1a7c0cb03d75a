"""Whose file may be read, and what becomes of a reader that is given a bad one (acceptance 7)."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmconf
from shmconf import layout
from shmconf.directories import Directory
from shmconf.errors import SegmentCorrupt, SegmentIncompatible, SegmentNotFound, SegmentUntrusted
from shmconf.mapping import IMPLEMENTATION
from shmconf.status import AgentStatus
from shmconf.trust import is_link_to, open_trusted

SOMEBODY, ANYBODY = 54_321, 54_322
MODES = ["native", "pure"] if IMPLEMENTATION == "native" else ["pure"]


def attach(place: Any) -> shmconf.Reader:
    began = time.monotonic()
    try:
        return shmconf.attach("web", directory=place.run)
    finally:
        assert time.monotonic() - began < 30, "at once, the contract says"


@pytest.fixture
def segment(place: Any, publish: Callable[..., int]) -> Any:
    """A published segment, its agent gone."""
    with place.writer() as writer:
        publish(writer, {"n": 1})
    return place


def test_a_good_segment_is_read(segment: Any) -> None:
    assert attach(segment)["n"] == 1
    assert segment.file.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("squatter", ["directory", "fifo", "socket", "link", "dangling link", "link to a directory"])
def test_a_squatted_name_is_untrusted(segment: Any, squatter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = segment.run / "kept"
    segment.file.rename(kept)
    if squatter == "directory":
        segment.file.mkdir()
    elif squatter == "fifo":
        os.mkfifo(segment.file, 0o600)
    elif squatter == "socket":
        monkeypatch.chdir(segment.run)  # a socket's path has to be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("web.shmconf")
    else:
        segment.file.symlink_to({"link": kept, "dangling link": segment.run / "none"}.get(squatter, segment.run))
    with pytest.raises(SegmentUntrusted, match=r"web\.shmconf"):
        attach(segment)


@pytest.mark.parametrize("squatter", ["directory", "fifo", "link", "writable", "random"])
def test_an_agent_replaces_what_squats_on_its_name_once_it_has_something_to_publish(
    segment: Any, publish: Callable[..., int], squatter: str
) -> None:
    kept = segment.run / "kept"
    segment.file.rename(kept)
    if squatter == "directory":
        segment.file.mkdir()
    elif squatter == "fifo":
        os.mkfifo(segment.file, 0o600)
    elif squatter == "link":
        segment.file.symlink_to(kept)
    elif squatter == "writable":
        shutil.copy(kept, segment.file)
        segment.file.chmod(0o666)
    else:
        segment.file.write_bytes(os.urandom(20_000))
    before = kept.read_bytes()
    writer = segment.writer()
    assert any("not usable" in warning for warning in writer.warnings())
    assert writer.version == 0
    if squatter == "directory":  # nothing may be put over it, and nothing is left behind
        for _ in range(3):
            with pytest.raises(OSError, match=r"[Dd]irectory"):
                publish(writer, {"n": 2})
        assert not list(segment.run.glob(".*"))
        segment.file.rmdir()
    version = publish(writer, {"n": 2})
    assert version > 1  # reserved in the state directory
    assert attach(segment)["n"] == 2
    assert not any("not usable" in warning for warning in writer.warnings())
    assert kept.read_bytes() == before, "what the link led to was written"


def test_a_device_is_untrusted(segment: Any, require: Callable[[object, str], None]) -> None:
    segment.file.unlink()
    try:
        os.mknod(segment.file, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        require(False, "making a device needs root")
    with pytest.raises(SegmentUntrusted, match="not a regular file"):
        attach(segment)


@pytest.mark.parametrize("mode", [0o660, 0o642, 0o666, 0o777, 0o620])
def test_a_file_that_others_may_write_is_untrusted(segment: Any, mode: int) -> None:
    segment.file.chmod(mode)
    with pytest.raises(SegmentUntrusted, match=f"writable by its group or by others .mode 0{mode:o}"):
        attach(segment)


def test_a_directory_that_is_a_file_is_untrusted_and_one_that_is_missing_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SegmentUntrusted, match=r"cannot open the directory"):
        shmconf.attach("web", directory=tmp_path / "file")
    with pytest.raises(SegmentNotFound, match=r"no segment 'web' in .*none; is its agent running"):
        shmconf.attach("web", directory=tmp_path / "none")


def test_a_runtime_directory_may_be_a_link_where_it_was_named(segment: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(segment.run)
    with shmconf.attach("web", directory=tmp_path / "link") as reader:
        assert reader["n"] == 1
        (tmp_path / "link").unlink()
        assert reader["n"] == 1


@pytest.mark.parametrize("flaw", ["mode 0750", "link"])
def test_a_fallback_directory_must_be_private_and_no_link(segment: Any, tmp_path: Path, flaw: str) -> None:
    segment.run.chmod(0o700)
    open_fallback = Directory(segment.run, named=False)
    os.close(open_trusted(open_fallback, "web.shmconf").fd)
    if flaw == "link":
        (tmp_path / "link").symlink_to(segment.run)
        open_fallback = Directory(tmp_path / "link", named=False)
    else:
        segment.run.chmod(0o750)
    with pytest.raises(SegmentUntrusted):
        open_trusted(open_fallback, "web.shmconf")


def test_nothing_stays_open_after_a_refusal(segment: Any) -> None:
    for damage in (lambda: segment.file.chmod(0o666), segment.file.unlink, segment.file.mkdir):
        damage()
        with pytest.raises(shmconf.Error):
            attach(segment)
    segment.file.rmdir()
    segment.file.write_bytes(b"short")
    with pytest.raises(SegmentCorrupt):
        attach(segment)
    assert not segment.open_files()


def test_is_link_to(segment: Any) -> None:
    directory = Directory(segment.run, named=True)
    found = segment.file.stat()
    assert is_link_to(directory, "web.shmconf", found.st_dev, found.st_ino)
    assert not is_link_to(directory, "web.shmconf", found.st_dev, found.st_ino + 1)
    segment.file.rename(segment.run / "kept")
    assert not is_link_to(directory, "web.shmconf", found.st_dev, found.st_ino)
    segment.file.symlink_to(segment.run / "kept")
    assert not is_link_to(directory, "web.shmconf", found.st_dev, found.st_ino), "a link to the file is not the file"


# --- owners -------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_place(require: Callable[[object, str], None], publish: Callable[..., int]) -> Iterator[Path]:
    """A published segment in a directory that every user may enter."""
    require(os.geteuid() == 0, "files of several owners need root")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    from shmconf.writer import Settings, Writer

    with Writer(Directory(place, named=True), "web", Settings(mode=0o644)) as writer:
        publish(writer, {"n": 1})
    yield place
    shutil.rmtree(place)


ATTACH_AS = """
import os, sys, shmconf
user = int(sys.argv[2])
os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
try:
    with shmconf.attach("web", directory=sys.argv[1]) as reader:
        print(reader["n"])
except shmconf.Error as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("file_owner", "directory_owner", "directory_mode", "expected"),
    [
        (0, 0, 0o755, "1"),  # root's
        (ANYBODY, 0, 0o755, "1"),  # the caller's own
        (SOMEBODY, 0, 0o755, "SegmentUntrusted"),
        (SOMEBODY, SOMEBODY, 0o755, "1"),  # the owner of a directory that was named and that only they may write
        (SOMEBODY, SOMEBODY, 0o775, "SegmentUntrusted"),
        (SOMEBODY, SOMEBODY, 0o757, "SegmentUntrusted"),
        (SOMEBODY, ANYBODY, 0o755, "SegmentUntrusted"),
        (0, SOMEBODY, 0o1777, "1"),
        (ANYBODY, SOMEBODY, 0o1777, "1"),
        (0, 0, 0o711, "1"),
        (0, 0, 0o700, "SegmentNotFound"),
    ],
)
def test_owners(
    open_place: Path, child: Any, file_owner: int, directory_owner: int, directory_mode: int, expected: str
) -> None:
    os.chown(open_place / "web.shmconf", file_owner, -1)
    os.chown(open_place, directory_owner, -1)
    open_place.chmod(directory_mode)
    assert child(ATTACH_AS, open_place, ANYBODY).finish().strip() == expected


def test_root_does_not_trust_other_users_either(open_place: Path) -> None:
    os.chown(open_place / "web.shmconf", SOMEBODY, -1)
    with pytest.raises(SegmentUntrusted, match=f"belongs to user {SOMEBODY}"):
        shmconf.attach("web", directory=open_place)


def test_a_file_that_this_user_may_not_read_says_so(open_place: Path, child: Any) -> None:
    (open_place / "web.shmconf").chmod(0o600)
    assert child(ATTACH_AS, open_place, ANYBODY).finish().strip() == "SegmentUntrusted"


def test_an_agent_of_another_user_takes_its_predecessor_s_version_over(
    open_place: Path, publish: Callable[..., int], child: Any
) -> None:
    """An agent that ran as root once and now does not: the file is replaced, the version goes on."""
    os.chown(open_place, ANYBODY, -1)
    os.chown(open_place / "web.lock", ANYBODY, -1)
    code = """
import os, sys, pathlib
from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Writer, Settings
os.setgroups([]); os.setresgid(54322, 54322, 54322); os.setresuid(54322, 54322, 54322)
with Writer(Directory(pathlib.Path(sys.argv[1]), named=True), "web", Settings(mode=0o644)) as writer:
    print(writer.version, writer.publish(codec.pack({"n": 3})))
"""
    with shmconf.attach("web", directory=open_place) as reader:
        assert child(code, open_place).finish().split() == ["2", "3"]
        assert (open_place / "web.shmconf").stat().st_uid == ANYBODY
        assert reader.wait_version(after=2, timeout=60) == 3
        assert reader["n"] == 3


# --- what is inside -----------------------------------------------------------------------------------------------

HOSTILE = Path(__file__).with_name("hostile.py")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sweep", ["flips", "lengths", "noise", "crafted"])
def test_damage_gives_a_typed_error_or_the_right_value_and_soon(
    child: Any, tmp_path: Path, sweep: str, mode: str
) -> None:
    code = "import runpy, sys; sys.argv[0:1] = []; runpy.run_path(sys.argv[0], run_name='__main__')"
    process = child(code, HOSTILE, sweep, tmp_path, SHMCONF_PURE="1" if mode == "pure" else "")
    process.finish(seconds=250)


def test_a_named_slot_that_never_becomes_whole_is_damage_after_a_second(segment: Any) -> None:
    with open(segment.file, "r+b") as file:
        file.seek(layout.slot_offset(1))
        file.write((1).to_bytes(8, "little"))  # 2 * version - 1: its writer died, but `latest` names it
    began = time.monotonic()
    with pytest.raises(SegmentCorrupt, match=r"version 1 is named as .*latest,? but its slot is not whole"):
        attach(segment)
    assert 1.0 <= time.monotonic() - began < 30


def test_a_worker_s_end_leaves_the_segment_and_no_tracker_was_there(segment: Any, child: Any) -> None:
    """As multiprocessing's would be, which removes at the end of a process what that had open."""
    code = """
import sys, shmconf
reader = shmconf.attach("web", directory=sys.argv[1])
print(reader["n"], reader.snapshot()["n"], [name for name in sys.modules if name.startswith("multiprocessing")])
"""
    before = segment.file.stat()
    assert child(code, segment.run).finish() == "1 1 []\n"
    assert segment.file.stat().st_ino == before.st_ino
    assert attach(segment)["n"] == 1


def test_another_format_is_incompatible(segment: Any) -> None:
    with open(segment.file, "r+b") as file:
        file.seek(8)
        file.write((2).to_bytes(4, "little"))
    with pytest.raises(SegmentIncompatible, match=r"web\.shmconf: it has format 2; this library reads format 1"):
        attach(segment)


def test_a_segment_without_a_version_is_not_found_and_quotes_the_agent_s_reason(place: Any) -> None:
    with place.writer() as writer:
        with pytest.raises(SegmentNotFound, match="nothing published yet: its agent has not published"):
            attach(place)
        writer.set_status(AgentStatus(state="running", last_error="base.yaml:3:7: expected a value").encode())
        with pytest.raises(SegmentNotFound, match=r"nothing published yet: base\.yaml:3:7: expected a value"):
            attach(place)


def test_a_reader_with_little_address_space_gets_a_typed_error(
    place: Any, publish: Callable[..., int], child: Any
) -> None:
    with place.writer(max_bytes=4 << 30) as writer:
        publish(writer, {"n": 1})
    code = """
import resource, sys, shmconf
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    with shmconf.attach("web", directory=sys.argv[1]) as reader:
        print(reader["n"])
except shmconf.Error as error:
    print(error)
"""
    said = child(code, place.run, SHMCONF_PURE="").finish()
    assert said.strip() == "1" or "cannot be mapped: [Errno 12]" in said
