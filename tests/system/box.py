"""A box: a real systemd as PID 1, over a throw-away copy of this machine's files, in namespaces of its own.

Its root is an overlay of `/` whose upper layer is in memory; it has its own mounts, processes, control groups, host
name, IPC and network (none). Nothing that is done in it is left behind, and it can be powered off and booted again with
what was written in it. `missing` says what this machine lacks for that.

What undoes a box, in the order of need: power-off; the death of its first process, which the kernel makes that of all
others; the death of the process that made it, which takes the first process along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INIT = Path(__file__).with_name("box_init.sh")
SYSTEMD = "/lib/systemd/systemd"
KINDS = ("mnt", "pid", "cgroup", "uts", "ipc", "net")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net", "--kill-child")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "systemd-run", "systemctl", "journalctl", "ip")
_POWER_OFF = signal.SIGRTMIN + 4
_BOOT_SECONDS = 60.0
_OFF_SECONDS = 60.0
_COMMAND_SECONDS = 120.0


def missing() -> str | None:
    """Why there can be no box on this machine; None if there can."""
    if os.geteuid() != 0:
        return "a box takes root"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not os.access(SYSTEMD, os.X_OK):
        return f"{SYSTEMD} is not installed"
    if _cgroups() is None:
        return "there is no cgroup2 file system"
    tried = subprocess.run([*UNSHARE, "--propagation", "private", "true"], capture_output=True, text=True, check=False)
    return f"no namespaces can be made: {tried.stderr.strip()}" if tried.returncode else None


def namespaces(process: int | str = "self") -> list[str]:
    """Those of a process, such as "mnt:[4026531841]"."""
    return [os.readlink(f"/proc/{process}/ns/{kind}") for kind in KINDS]


class Box:
    """One machine. `boot` it before anything else, and `close` it whatever happens."""

    def __init__(self) -> None:
        """Raises OSError, or CalledProcessError, where `missing` should have said so."""
        self.place = Path(tempfile.mkdtemp(prefix="shmconf-box-"))
        self.console = self.place / "console.txt"
        self.leader = 0
        """The box's PID 1, as it is numbered outside; 0 while it is off."""
        self._cgroup: Path | None = None
        self._power: subprocess.Popen[bytes] | None = None
        memory = self.place / "memory"
        memory.mkdir()
        # The upper layer lives in the mounts of this process, which ends when its input does: with us at the latest.
        script = f"mount -t tmpfs -o mode=755 box {memory} && cd {memory} && mkdir upper work root && echo && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            raise OSError("no memory for a box can be mounted")

    def boot(self) -> float:
        """Power on; the seconds until the system was up. Raises TimeoutError with the console's text."""
        assert self.leader == 0
        began = time.monotonic()
        cgroups = _cgroups()
        assert cgroups is not None
        self._cgroup = cgroups / self.place.name
        self._cgroup.mkdir()
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *UNSHARE, "--propagation", "private"]
        outside = {*namespaces(), *namespaces(self._holder.pid)}
        enter = 'echo $$ >"$0/cgroup.procs" && exec setpriv --pdeathsig KILL "$@"'
        with self.console.open("ab") as console:
            self._power = subprocess.Popen(
                ["sh", "-c", enter, self._cgroup, *inside, "bash", INIT, self.place / "memory", *sorted(outside)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self._until(self._find_leader, "systemd is PID 1", began)
        self._until(lambda: Path(f"/proc/{self.leader}/root/run/systemd/private").is_socket(), "systemd listens", began)
        state = self.systemctl("is-system-running", "--wait", check=False).stdout.strip()
        if state not in ("running", "degraded"):
            raise TimeoutError(f"the box is {state}\n{self.console.read_text(errors='replace')}")
        return time.monotonic() - began

    def path(self, name: str) -> Path:
        """A file of the box, from outside. An absolute symbolic link in it leads astray."""
        return Path(f"/proc/{self.leader}/root") / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a file of root's in place atomically, with the directories that lead there."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_text(text)
        aside.chmod(mode)
        os.replace(aside, path)

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl ARGUMENTS` in the box."""
        return self._enter("systemctl", *arguments, check=check)

    def journal(self, *arguments: str) -> str:
        """What the journal has of this boot."""
        return self._enter("journalctl", "--no-pager", "--boot", "--output=short-precise", *arguments).stdout

    def run(self, *command: str, check: bool = True, **properties: str) -> subprocess.CompletedProcess[str]:
        """Run it as a transient unit with these properties (User="web"). `$` in an argument is expanded by systemd."""
        given = [f"--property={name}={value}" for name, value in properties.items()]
        run = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *given)
        return self._enter(*run, "--", *command, check=check)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit; of systemd itself for ""."""
        return self.systemctl("show", "--value", f"--property={name}", *([unit] if unit else [])).stdout.strip()

    def power_off(self) -> None:
        """As an operator would; what is not gone in time is killed."""
        if self._power is None or self._cgroup is None:
            return
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, _POWER_OFF)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._power.wait(_OFF_SECONDS)
        self.leader = 0
        (self._cgroup / "cgroup.kill").write_text("1")
        self._power.wait()
        deadline = time.monotonic() + _OFF_SECONDS
        while self._cgroup.exists() and time.monotonic() < deadline:
            for directory, _, _ in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):  # what has just been killed is not gone at once
                    os.rmdir(directory)
            time.sleep(0.01)
        self._power = self._cgroup = None

    def close(self) -> None:
        """Power off, and forget everything."""
        self.power_off()
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()
        shutil.rmtree(self.place)

    def _enter(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "--wdns=/", "--", *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def _find_leader(self) -> bool:
        assert self._power is not None
        if self._power.poll() is not None:
            raise OSError(f"the box did not start:\n{self.console.read_text(errors='replace')}")
        pid = self._power.pid
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                # What is done in the box goes by this number: not one namespace of ours may be among those behind it.
                elsewhere = set(namespaces(child)).isdisjoint(namespaces())
                if elsewhere and Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self.leader = int(child)
        return self.leader != 0

    def _until(self, condition: Callable[[], Any], what: str, began: float) -> None:
        while not condition():
            if time.monotonic() - began > _BOOT_SECONDS:
                text = self.console.read_text(errors="replace")
                raise TimeoutError(f"not within {_BOOT_SECONDS:.0f} s: {what}\n{text}")
            time.sleep(0.01)


def _cgroups() -> Path | None:
    """Where control groups of version 2 are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None
