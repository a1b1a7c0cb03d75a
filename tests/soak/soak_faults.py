"""What the soak does to the agent and its machine, and takes back again.

As root everything happens in a user namespace and a mount namespace of its own, where every id is what it was: limits
of inotify are lowered for nobody else there, and the runtime directory is a small file system that can be filled. The
agent runs as nobody then, for whom permissions count. Without root, what needs it is left out.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from soak_edits import Site

from tests.system.conftest import AS_NOBODY, PACKAGES, RUN_MAIN

SECONDS = 120.0  # how long anything is waited for, on a machine that has much else to do
NOBODY = 65534
_NEWNS, _NEWUSER = 0x20000, 0x10000000
_LIMITS = Path("/proc/sys/user")


def fail(why: str) -> NoReturn:
    raise SystemExit(f"soak: {why}")


def until(condition: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() >= deadline:
            fail(f"not within {SECONDS:.0f} s: {what()}")
        time.sleep(0.01)


def enter_namespaces() -> str | None:
    """Leave the machine's own user and mount namespaces. Returns why that cannot be had, or None."""
    if os.geteuid() != 0:
        return "not root"
    libc = ctypes.CDLL(None, use_errno=True)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # what maps ids has to stay outside
        os.read(ready[0], 1)
        said = b"y"
        try:
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{os.getppid()}/{kind}").write_text("0 0 65536")
        except OSError as error:
            said = str(error).encode()
        os.write(done[1], said)
        os._exit(0)
    refused = libc.unshare(_NEWUSER | _NEWNS) != 0
    number = ctypes.get_errno()
    os.write(ready[1], b"x")
    said = os.read(done[0], 200)
    os.waitpid(child, 0)
    for end in (*ready, *done):
        os.close(end)
    if refused:
        return f"no user namespace: {os.strerror(number)}"
    return None if said == b"y" else f"ids cannot be mapped: {said.decode()}"


def mount_tmpfs(at: Path, size: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size},mode=755,uid={NOBODY},gid={NOBODY}".encode()
    if libc.mount(b"soak", os.fsencode(at), b"tmpfs", 0, options) != 0:
        fail(f"cannot mount on {at}: {os.strerror(ctypes.get_errno())}")


class Agent:
    """The agent, as it is started again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "agent.out"
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        # What this interpreter loads late, and keeps where nobody may read, is loaded before.
        as_nobody = f"import encodings.ascii, encodings.idna, shmconf_agent.reconcile\n{AS_NOBODY}"
        before = as_nobody if os.geteuid() == 0 else ""
        arguments = ["--runtime-dir", str(self.root / "run"), "--state-dir", str(self.root / "state"), "run"]
        command = [sys.executable, "-P", "-c", f"{before}\n{RUN_MAIN}", *arguments]
        self.starts += 1
        with self.output.open("ab") as sink:
            self._process = subprocess.Popen(
                command, cwd=self.root, env={**os.environ, "PYTHONPATH": PACKAGES}, stdin=subprocess.DEVNULL,
                stdout=sink, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, number: int) -> int:
        """Send the signal and wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(SECONDS)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def waits_to_say(self, what: str, since: int) -> None:
        until(lambda: what in self.text()[since:], lambda: f"{what!r}; the agent said\n{self.text()[since:]}")


class Fault:
    """Something that is wrong from `begin` to `end`."""

    name = ""
    needs_namespace = False

    def __init__(self, site: Site, agent: Agent) -> None:
        self.site, self.agent = site, agent

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError


class Unreadable(Fault):
    name = "permissions"

    def begin(self) -> None:
        since = len(self.agent.text())
        self._file = self.site.chance.choice([f for f in self.site.files if f.path.exists() and f.name != "base"])
        self.site.exclude.add(self._file.name)
        self._file.path.chmod(0)
        self.agent.waits_to_say("cannot be read: permission denied", since)

    def end(self) -> None:
        self._file.path.chmod(0o644)
        self.site.exclude.clear()


class Stopped(Fault):
    name = "SIGSTOP"

    def begin(self) -> None:
        self.agent.signal(signal.SIGSTOP)

    def end(self) -> None:
        self.agent.signal(signal.SIGCONT)


class Killed(Fault):
    name = "SIGKILL and another start"

    def begin(self) -> None:
        self.agent.end(signal.SIGKILL)

    def end(self) -> None:
        self.agent.start()


class NoDescriptors(Fault):
    """Nothing can be opened."""

    name = "no file descriptors"

    def begin(self) -> None:
        since = len(self.agent.text())
        self._before = resource.prlimit(self.agent.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.agent.pid, resource.RLIMIT_NOFILE, (8, self._before[1]))
        self.site.grow(self.site.chance.randrange(100, 900))
        self.agent.waits_to_say("too many open files", since)

    def end(self) -> None:
        resource.prlimit(self.agent.pid, resource.RLIMIT_NOFILE, self._before)


class ReadOnlyState(Fault):
    name = "read-only state directory"

    def begin(self) -> None:
        (self.agent.root / "state").chmod(0o555)

    def end(self) -> None:
        (self.agent.root / "state").chmod(0o755)


class DiskFull(Fault):
    name = "disk full"
    needs_namespace = True

    def begin(self) -> None:
        since = len(self.agent.text())
        with (self.agent.root / "run" / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        room = (self.agent.root / "run" / "soak.shmconf").stat().st_size
        if room < 1_500_000:  # what is larger than all of it cannot be published; from then on it has room for all
            self.site.grow(room + 50_000)
            self.agent.waits_to_say("cannot be published", since)

    def end(self) -> None:
        (self.agent.root / "run" / "fill").unlink()


class _Inotify(Fault):
    """A limit of inotify, for an agent that is started under it and for none else."""

    needs_namespace = True
    limit = ""
    least = 0
    says = ""

    def begin(self) -> None:
        since = len(self.agent.text())
        self._before = (_LIMITS / self.limit).read_text()
        (_LIMITS / self.limit).write_text(str(self.least))
        self.agent.end(signal.SIGTERM)
        self.agent.start()
        self.agent.waits_to_say(self.says, since)

    def end(self) -> None:
        (_LIMITS / self.limit).write_text(self._before)


class FewWatches(_Inotify):
    name = "inotify watches"
    limit, least, says = "max_inotify_watches", 2, "no more inotify watches are to be had"


class NoInstances(_Inotify):
    name = "inotify instances"
    limit, least, says = "max_inotify_instances", 0, "No more inotify instances"


FAULTS = (Unreadable, Stopped, Killed, NoDescriptors, ReadOnlyState, DiskFull, FewWatches, NoInstances)
