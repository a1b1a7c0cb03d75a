"""What stops events, met for real: limits reached, directories that are deaf; the agent says it and goes on."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmconf_agent.self_test import PREFIX

OWN_MOUNTS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    raise OSError(ctypes.get_errno(), "a mount namespace")
"""


def raise_limit(pid: int, limit: str, count: int) -> None:
    """For the process and all else in its user namespace."""
    command = f"echo {count} > /proc/sys/user/max_inotify_{limit}"
    subprocess.run(["nsenter", "--preserve-credentials", "-U", "-t", str(pid), "sh", "-c", command], check=True)


def warnings(home) -> str:
    return " ".join(home.status()[1]["warnings"])


@pytest.mark.parametrize(
    ("limit", "advice"), [("watches", "fs.inotify.max_user_watches"), ("instances", "fs.inotify.max_user_instances")]
)
def test_where_inotify_is_exhausted_the_agent_says_so_polls_and_recovers(home, limited, eventually, limit, advice):
    home.write("base.yaml", "a: 1\n")
    home.segment("base.yaml")
    agent = home.start(before=limited(limit, 0))
    reader = home.attach()
    agent.says(advice)
    eventually(lambda: advice in warnings(home), "a warning in status")
    assert home.status()[0] == 0
    home.write("base.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    raise_limit(agent.pid, limit, 1000)
    eventually(lambda: advice not in warnings(home), "the agent watches once it may")
    agent.says("every directory is watched again")
    assert inotify_watches(agent.pid)


def inotify_watches(pid: int) -> int:
    """How many watches the process has."""
    return sum(
        line.startswith("inotify ")
        for info in Path(f"/proc/{pid}/fdinfo").iterdir()
        for line in info.read_text().splitlines()
    )


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in which a store through a mapping shows in no stat and raises no event."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="shmconf-test-") as name:
        yield Path(name)


def test_polling_is_by_content(home, limited, memory, require):
    require(os.access("/dev/shm", os.W_OK), "a writable /dev/shm")
    source = memory / "base.yaml"
    source.write_text("a: 1\n")
    home.segment(str(source))
    agent = home.start(before=limited("instances", 0))
    reader = home.attach()
    agent.says("No more inotify instances")
    with source.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[3:4] = b"2"  # the first store through a mapping still changes the times
        assert reader.wait(after=1, timeout=60)["a"] == 2
        before = source.stat()
        mapping[3:4] = b"3"
        after = source.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
            before.st_size, before.st_mtime_ns, before.st_ctime_ns,
        )  # fmt: skip
        assert reader.wait(after=2, timeout=60)["a"] == 3


def test_a_change_of_the_same_size_at_the_same_time_is_found_without_events(home, limited):
    source = home.write("base.yaml", "a: 1\n")
    home.segment("base.yaml")
    home.start(before=limited("watches", 0))
    reader = home.attach()
    times = source.stat()
    with source.open("r+b") as file:
        file.write(b"a: 2\n")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reader.wait(after=1, timeout=60)["a"] == 2


def test_a_deaf_directory_is_found_out_told_and_polled(home, deaf, eventually):
    home.write("conf.d/a.yaml", "a: 1\n")
    home.segment("conf.d/")
    agent = home.start(before=deaf)
    reader = home.attach()
    where = str(home.root / "conf.d")
    agent.says(f"{where} raised no event within")
    eventually(lambda: f"{where} raised no event" in warnings(home), "a warning in status")
    home.write("conf.d/a.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    assert os.listdir(where) == ["a.yaml"]


def test_on_a_network_file_system_it_is_said_and_looked_at_more_often(home, deaf, eventually):
    home.write("conf.d/a.yaml", "a: 1\n")
    home.segment("conf.d/")
    device = os.stat(home.root).st_dev
    table = f"watch.mounts = lambda: [mounts.Mount({device}, '/', 'nfs4')]"
    agent = home.start(before=f"from shmconf_agent import mounts, watch; {table}\n{deaf}")
    reader = home.attach()
    told = f"{home.root}/conf.d is on nfs4, where changes made elsewhere raise no events; it is looked at every 0.25 s."
    agent.says(told)
    eventually(lambda: told in warnings(home), "a warning in status")
    home.write("conf.d/a.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    assert home.status()[0] == 0


def test_a_self_test_publishes_nothing_and_clears_up_after_killed_ones(home, eventually):
    home.write("conf.d/a.yaml", "a: 1\n")
    home.write(f"conf.d/{PREFIX}7-1-00000000", "")
    home.write("conf.d/.own.yaml", "own: 1\n")
    home.segment("conf.d/")
    home.segment("conf.d/*", "conf.d/.*", name="all")
    agent = home.start()
    readers = [home.attach(), home.attach("all")]
    eventually(lambda: sorted(os.listdir(home.root / "conf.d")) == [".own.yaml", "a.yaml"], "the left-over is gone")
    for reader in readers:
        reload = home.run("reload", reader.status().name)
        assert (reload.returncode, reader.version) == (0, 1), reload.stderr
    assert "rejected" not in agent.text()
    assert "raised no event" not in warnings(home)


def test_where_the_agent_may_not_write_it_says_so_in_a_line_and_warns_of_nothing(open_home, as_nobody, eventually):
    open_home.write("conf.d/a.yaml", "a: 1\n").parent.chmod(0o755)
    open_home.segment("conf.d/")
    agent = open_home.start(before=as_nobody)
    reader = open_home.attach()
    where = open_home.root / "conf.d"
    agent.says(f"web: {where} is watched, without a test that changes there are heard: none can be made (permission ")
    assert "without a test" not in warnings(open_home)
    open_home.write("conf.d/a.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    assert agent.text().count("without a test") == 1


# --- mounts that come and go under a running agent --------------------------------------------------------------------


@pytest.fixture(scope="session")
def own_mounts(require) -> str:
    """Python that gives the command that is run after it mounts of its own."""
    works = shutil.which("nsenter") and not subprocess.run(["unshare", "--mount", "true"], check=False).returncode
    require(os.geteuid() == 0 and works, "mount namespaces, and util-linux")
    return OWN_MOUNTS


def where_it_is(pid: int, command: str) -> None:
    """Runs a command among the mounts of this process."""
    subprocess.run(["nsenter", "--mount", "-t", str(pid), "sh", "-ec", command], check=True)


def test_a_file_that_is_mounted_on_its_own_is_told_of_whenever_that_happens(home, own_mounts, eventually):
    for name in ("a.yaml", "b.yaml", "other.yaml"):
        home.write(name, f"{name[0]}: 1\n")
    home.segment("a.yaml", "b.yaml")
    root = home.root
    bind = f"subprocess.run(['mount', '--bind', '{root}/other.yaml', '{root}/a.yaml'], check=True)"
    agent = home.start(before=f"{own_mounts}\nimport subprocess\n{bind}")
    home.attach()
    agent.says(f"{root}/a.yaml is mounted as a single file")
    eventually(lambda: f"{root}/a.yaml is mounted as a single file" in warnings(home), "a warning in status")
    assert f"{root}/b.yaml" not in warnings(home)
    where_it_is(agent.pid, f"mount --bind {root}/other.yaml {root}/b.yaml")
    eventually(lambda: f"{root}/b.yaml is mounted as a single file" in warnings(home), "another warning")
    where_it_is(agent.pid, f"umount {root}/a.yaml && umount {root}/b.yaml")
    eventually(lambda: "mounted" not in warnings(home), "no warning any more")


def test_a_mount_over_a_directory_is_seen_and_followed_and_so_is_its_end(home, own_mounts):
    home.write("conf.d/a.yaml", "a: 1\n")
    home.write("other.d/a.yaml", "a: 2\n")
    home.segment("conf.d/")
    agent = home.start(before=own_mounts)
    reader = home.attach()
    where_it_is(agent.pid, f"mount --bind {home.root}/other.d {home.root}/conf.d")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    home.write("other.d/a.yaml", "a: 3\n")
    assert reader.wait(after=2, timeout=60)["a"] == 3
    where_it_is(agent.pid, f"umount {home.root}/conf.d")
    assert reader.wait(after=3, timeout=60)["a"] == 1
    home.write("conf.d/a.yaml", "a: 4\n")
    assert reader.wait(after=4, timeout=60)["a"] == 4
