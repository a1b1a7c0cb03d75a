"""What the tests of whole processes share: a home for an agent, the command run in it, and waiting for conditions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shmconf
from shmconf_agent.cli import main as command_line

SECONDS = 60.0  # long enough for a machine that has much else to do; what is waited for usually comes at once
PACKAGES = os.pathsep.join(str(Path(__file__).parents[2] / part) for part in ("agent", "shm"))
RUN_MAIN = "import sys; sys.argv[0] = 'shmconf'; from shmconf_agent.__main__ import main; main()"

# Python to be run in a command's process before the command itself.
WITHOUT_EVENTS = "import sys; sys.modules['watchdog.observers.inotify_c'] = None"
AS_NOBODY = """
import os, importlib
# What this interpreter's files allow only to their owner.
for name in ('admin_client', 'admin_http', 'cli', 'cli_doctor', 'cli_table', 'comparison', 'doctor', 'history_writer',
             'inotify', 'metrics', 'service', 'trial'):
    importlib.import_module('shmconf_agent.' + name)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""

DEAF = "from shmconf_agent import watch; watch._Watched.on_event = lambda self, event: None"
# A user namespace has inotify limits of its own; those of the machine are never touched.
NAMESPACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
if libc.unshare(0x10000000):  # CLONE_NEWUSER
    raise OSError(ctypes.get_errno(), "unshare")
for name, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
with open("/proc/sys/user/max_inotify_LIMIT", "w") as file:
    file.write("COUNT")
"""


def until(condition: Callable[[], Any], what: object, seconds: float = SECONDS) -> Any:
    """The first true value of `condition`; `what` is said if there is none in time (called, if it can be)."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            pytest.fail(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.005)
    return found


class Agent:
    """A running `shmconf ... run`, its output, and its end."""

    def __init__(
        self, command: list[str], cwd: Path, environment: dict[str, str], output: Path, stdout: int | None
    ) -> None:
        self.output = output
        with output.open("ab") as sink:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink if stdout is None else stdout,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        """All that it has printed."""
        return self.output.read_text(errors="replace")

    def says(self, text: str, seconds: float = SECONDS) -> str:
        """The first line with this text in it, once it is printed."""
        lines = until(
            lambda: [line for line in self.text().splitlines() if text in line],
            lambda: f"the agent says {text!r}; it said:\n{self.text()}",
            seconds,
        )
        return lines[0]

    def ends(self, seconds: float = SECONDS) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the agent did not end within {seconds} s; it said:\n{self.text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ends()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Home:
    """A directory with the files of segments, a runtime and a state directory, and what is run there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime, self.state = root / "run", root / "state"
        self.agents: list[Agent] = []
        self.readers: list[shmconf.Reader] = []

    def write(self, name: str, text: str | bytes) -> Path:
        """Put a file in place, atomically, as careful programs do."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.replace(aside, path)
        return path

    def segment(self, *sources: str, name: str = "web", **settings: Any) -> None:
        """Add a segment to shmconf.toml."""
        lines = [f"[segment.{name}]", f"sources = {json.dumps(sources)}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        file = self.root / "shmconf.toml"
        before = file.read_text() if file.exists() else ""
        self.write("shmconf.toml", before + "\n".join(lines) + "\n\n")

    def command(self, *arguments: str, before: str = "") -> list[str]:
        """The argument list of `shmconf --runtime-dir ... ARGUMENTS`; `before` is Python run in the process first."""
        directories = ["--runtime-dir", str(self.runtime), "--state-dir", str(self.state)]
        start = ["-m", "shmconf_agent"] if not before else ["-c", before + "\n" + RUN_MAIN]
        return [sys.executable, "-P", *start, *directories, *arguments]

    def environment(self, **settings: str) -> dict[str, str]:
        """What a command sees: nothing of this process's own choice of directories."""
        kept = {key: value for key, value in os.environ.items() if key != "SHMCONF_DIR" and not key.startswith("XDG_")}
        return kept | {"PYTHONPATH": PACKAGES} | settings

    def run(self, *arguments: str, before: str = "", **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Whatever it does, no traceback is ever shown."""
        result = subprocess.run(
            self.command(*arguments, before=before),
            cwd=settings.pop("cwd", self.root),
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
        )
        assert "Traceback" not in result.stdout + result.stderr, result.stderr
        return result

    def start(
        self, *arguments: str, before: str = "", cwd: Path | None = None, stdout: int | None = None, **settings: str
    ) -> Agent:
        """Start an agent; ARGUMENTS default to `run`. stdout: a descriptor instead of the file that is kept for it."""
        command = self.command(*(arguments or ("run",)), before=before)
        output = self.root / f"agent-{len(self.agents) + 1}.out"
        agent = Agent(command, cwd or self.root, self.environment(**settings), output, stdout)
        self.agents.append(agent)
        return agent

    def attach(self, name: str = "web", wait: float = SECONDS) -> shmconf.Reader:
        """A Reader of the segment, once it is there."""
        try:
            reader = shmconf.attach(name, wait=wait, directory=self.runtime)
        except shmconf.SegmentNotFound as error:
            pytest.fail(f"{error}\n" + "\n".join(agent.text() for agent in self.agents))
        self.readers.append(reader)
        return reader

    def status(self, name: str = "web") -> tuple[int, dict[str, Any]]:
        """What `shmconf status --format json` exits with and prints; without a process of its own, to save time."""
        arguments = ["--runtime-dir", str(self.runtime), "status", name, "--format", "json"]
        result = CliRunner().invoke(command_line, arguments)
        return result.exit_code, json.loads(result.stdout) if result.stdout else {}

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        for agent in self.agents:
            agent.kill()
        shown = "".join(agent.text() for agent in self.agents)
        assert "Traceback" not in shown, shown
        assert "internal error" not in shown, shown


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home for one test; its agents end with it, and none of them may have shown a traceback."""
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture
def open_home() -> Iterator[Home]:
    """A home that other users may enter; its runtime and state directories are nobody's, if this is root's test."""
    with tempfile.TemporaryDirectory(prefix="shmconf-test-") as root:
        made = Home(Path(root))
        made.root.chmod(0o755)
        for directory in (made.runtime, made.state):
            directory.mkdir(mode=0o755)
            if os.geteuid() == 0:
                os.chown(directory, 65534, 65534)
        yield made
        made.close()


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Home]]:
    """Makes homes that last as long as the test module."""
    made: list[Home] = []

    def make(name: str) -> Home:
        made.append(Home(tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(condition, what)`: waits for it, and returns what it gave."""
    return until


@pytest.fixture(scope="session")
def without_events() -> str:
    """Python that takes inotify away from the command that is run after it."""
    return WITHOUT_EVENTS


@pytest.fixture(scope="session")
def deaf() -> str:
    """Python that makes the command that is run after it watch directories and hear of nothing in them."""
    return DEAF


@pytest.fixture(scope="session")
def limited(require: Callable[[object, str], None]) -> Callable[[str, int], str]:
    """`limited("watches", 0)`: Python that sets this limit of inotify for the command that is run after it."""
    tried = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo 99 > /proc/sys/user/max_inotify_watches"]
    works = shutil.which("nsenter") and shutil.which("unshare") and not subprocess.run(tried, check=False).returncode
    require(works, "user namespaces with limits of their own, and util-linux")
    return lambda limit, count: NAMESPACE.replace("LIMIT", limit).replace("COUNT", str(count))


@pytest.fixture(scope="session")
def as_nobody(require: Callable[[object, str], None]) -> str:
    """Python that makes the command that is run after it another user's."""
    require(os.geteuid() == 0, "only root may become another user")
    return AS_NOBODY
