"""`shmconf demo`: what it shows, that it leaves nothing behind however it ends, and that it fails when it should."""

from __future__ import annotations

import html
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf_agent import demo, demo_stage
from shmconf_agent.demo_stage import Child, DidNotHappen, Stage

ROOT = Path(__file__).parents[2]
PACKAGES = os.pathsep.join(str(ROOT / part) for part in ("agent", "shm"))
ROW = re.compile(r"(\d+) +(\d+) +(\d+\.\d) ms")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")


class Show:
    """A running demo, its output, and whatever processes and directories it made."""

    def __init__(self, root: Path, *arguments: str, terminal: bool = False, **settings: str) -> None:
        self.mark = f"SHMCONF_TEST_MARK={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        self.output = root / "output"
        self.directories: set[Path] = set()
        environment = os.environ | {"PYTHONPATH": PACKAGES, "TMPDIR": str(self.temporary), "TERM": "xterm"}
        self._screen, sink = pty.openpty() if terminal else (None, os.open(self.output, os.O_WRONLY | os.O_CREAT))
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "shmconf_agent", "demo", *arguments],
            env=environment | {name: value} | settings,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(sink)

    def text(self) -> str:
        """What it printed so far."""
        if self._screen is not None:
            os.set_blocking(self._screen, False)
            with self.output.open("ab") as output:
                try:
                    while data := os.read(self._screen, 65536):
                        output.write(data)
                except OSError:
                    pass  # nothing at the moment, or nothing any more
        return self.output.read_text("utf-8")

    def look(self) -> bool:
        """Note the directories that its processes are given; whether the demo still goes on."""
        for process in self.processes():
            try:
                arguments = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            self.directories |= {Path(each) for each in arguments if "/shmconf-demo-" in each}
        self.text()
        return self.process.poll() is None

    def processes(self) -> list[int]:
        """The demo and everything that it started, as far as it lives."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def end(self) -> int:
        """Its exit code, once it has ended and nothing of it is left."""
        deadline = self.began + 100
        while self.look():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)
        self.seconds = time.monotonic() - self.began
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        assert [each for each in self.directories if each.exists()] == []
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._screen is not None:
            os.close(self._screen)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Show]]:
    """Starts the demo in a process of its own."""
    shows: list[Show] = []

    def start_one(*arguments: str, **settings: Any) -> Show:
        shows.append(Show(tmp_path, *arguments, **settings))
        return shows[-1]

    yield start_one
    for show in shows:
        show.close()


def line_of(text: str) -> int:
    lines = (ROOT / "examples/quickstart/base.yaml").read_text().splitlines()
    [number] = [number for number, line in enumerate(lines, start=1) if line.strip().startswith(text)]
    return number


def acts(shown: str) -> list[str]:
    """What comes before the first heading, and what stands under each."""
    return re.split(r"(?m)^\d  ", shown)


@on_linux
@pytest.mark.parametrize(("workers", "pure"), [(8, "0"), (2, "1")])
def test_it_shows_the_main_job_and_leaves_nothing_behind(start, workers, pure):
    show = start("--plain", *([] if workers == 8 else ["--workers", str(workers)]), SHMCONF_PURE=pure)
    assert show.end() == 0, show.text()
    assert show.directories, "the test has seen where the demo's segment was"
    assert show.seconds < 30
    shown = show.text()
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    begun, edited, broken, repaired, killed, summed = acts(shown)[1:]
    size = line_of("size:")

    assert f"{workers} of {workers} read version 1: db.pool.size = 10" in begun
    workers_seen = []
    for act, version in ((edited, 2), (repaired, 3), (killed, 4)):
        assert f"base.yaml:{size}  size:" in act
        assert f"web: version {version}, healthy (exit code 0)" in act
        rows = ROW.findall(act)
        assert [row[1] for row in rows] == [str(version)] * workers
        assert all(float(row[2]) > 0 for row in rows)
        workers_seen.append({row[0] for row in rows})
    assert len(workers_seen[0]) == workers
    assert workers_seen[0] == workers_seen[1] == workers_seen[2]

    assert re.search(rf"base\.yaml:{size}:\d+: \w+", broken)
    assert "web: version 2, serving last known good (exit code 3)" in broken
    assert f"{workers} of {workers} keep version 2: db.pool.size = 20" in broken
    assert re.search(r"[1-9][0-9,]* reads meanwhile, 0 errors", broken)

    dead = re.search(r"SIGKILL to the agent, process (\d+)", killed)
    restarted = re.search(r"process (\d+) goes on from version 3, in the same epoch", killed)
    assert dead is not None
    assert restarted is not None
    assert dead[1] != restarted[1]
    assert re.search(rf"{workers} of {workers} go on: [1-9][0-9,]* reads without it, 0 errors", killed)
    assert "1 to 4" in summed
    assert "All of it happened" in summed


@on_linux
def test_as_json_it_tells_the_same(start):
    show = start("--format", "json", "--workers", "2")
    assert show.end() == 0, show.text()
    told = json.loads(show.text())
    assert (told["happened"], told["reason"]) == (True, None)
    assert [each["act"] for each in told["acts"]] == [1, 2, 3, 4, 5, 6]
    assert [[row["version"] for row in act["arrivals"]] for act in told["acts"]] == [[], [2, 2], [], [3, 3], [4, 4], []]
    assert all(row["seconds"] > 0 for act in told["acts"] for row in act["arrivals"])
    broken = {fact["about"]: fact["lines"] for fact in told["acts"][2]["facts"]}
    assert broken["status"] == ["web: version 2, serving last known good (exit code 3)"]
    assert broken["agent"][0] == "rejected, still serving version 2"


@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_halfway_it_leaves_nothing_behind_either(start, eventually, number):
    # As a terminal does on Ctrl-C: to the whole process group.
    show = start("--workers", "2", terminal=number == signal.SIGINT)
    eventually(lambda: show.look() and "visible after" in show.text(), show.text)
    assert ("\x1b" in show.text()) == (number == signal.SIGINT), "colours on a terminal, plain text elsewhere"
    os.killpg(show.process.pid, number)
    assert show.end() == 128 + number
    assert show.directories
    last = show.text().splitlines()[-1]
    assert last == f"shmconf: the demo was stopped by {number.name}"
    assert "Traceback" not in show.text()


# --- what must make it fail -------------------------------------------------------------------------------------------


@pytest.fixture
def failure(monkeypatch, capsys, tmp_path) -> Callable[[], str]:
    """Plays the demo in this process with two workers; the reason for which it failed."""
    monkeypatch.setenv("PYTHONPATH", PACKAGES)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    children: list[Child] = []
    usual = Child.__init__

    def start(child: Child, what: str, argv: list[str], log: Path) -> None:
        usual(child, what, argv, log)
        children.append(child)

    monkeypatch.setattr(Child, "__init__", start)

    def play() -> str:
        assert demo.run_demo(2, True) == 1
        assert all(child.process.returncode is not None for child in children), "no process is left"
        assert list(tmp_path.iterdir()) == [], "no directory is left"
        [line] = capsys.readouterr().err.splitlines()
        prefix = "shmconf: the demo failed: "
        assert line.startswith(prefix)
        return line.removeprefix(prefix)

    return play


def before(monkeypatch: pytest.MonkeyPatch, act: str, disturb: Callable[[demo.Play], object]) -> None:
    """Have the play disturbed just before one of its acts."""
    usual = getattr(demo.Play, act)

    def disturbed(play: demo.Play) -> None:
        disturb(play)
        usual(play)

    monkeypatch.setattr(demo.Play, act, disturbed)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", script)


def test_it_fails_when_the_agent_never_publishes(monkeypatch, failure):
    monkeypatch.setattr(demo_stage, "SHMCONF", python("import time; time.sleep(600)"))
    monkeypatch.setattr(demo_stage, "SECONDS", 1.0)
    assert failure() == "not within 1 s: the agent publishes"


def test_it_fails_when_the_agent_cannot_run(monkeypatch, failure):
    monkeypatch.setattr(demo_stage, "SHMCONF", python("import sys; sys.exit('no such thing here')"))
    assert failure() == "the agent ended with exit code 1: no such thing here"


def test_it_fails_when_there_is_no_sample(monkeypatch, failure):
    monkeypatch.setattr(demo_stage, "__file__", "/nowhere/agent/shmconf_agent/demo_stage.py")
    monkeypatch.setattr(demo_stage, "_installed_samples", lambda: [Path("/nowhere/share/shmconf/quickstart")])
    assert failure().startswith("the sample is missing: /nowhere/share/shmconf/quickstart")


def test_it_fails_when_a_worker_dies(monkeypatch, failure):
    before(monkeypatch, "edit", lambda play: play._stage.workers[1].process.kill())
    assert failure() == "worker 2 ended with SIGKILL"


def test_it_fails_when_a_worker_reads_something_wrong(monkeypatch, failure):
    script = """
import shmconf_agent.demo_worker as worker
usual = worker.Worker._read
def read(self):
    self._value = "something else" if self._version == 2 else self._value
    usual(self)
worker.Worker._read = read
worker.main()
"""
    monkeypatch.setattr(demo_stage, "WORKER", python(script))
    reason = failure()
    assert re.match(r"worker [12] had \d+ errors, the last one: db\.pool\.size was 20 at version 2, whose ", reason)


def test_it_fails_when_a_worker_does_not_see_the_new_version(monkeypatch, failure):
    script = """
import shmconf_agent.demo_worker as worker
usual = worker.Worker._adopt
worker.Worker._adopt = lambda self: usual(self) if self._version == 0 else None
worker.main()
"""
    monkeypatch.setattr(demo_stage, "WORKER", python(script))
    before(monkeypatch, "edit", lambda play: monkeypatch.setattr(demo_stage, "SECONDS", 5.0))
    assert failure() == "not within 5 s: worker 1 reads the new version"


def test_it_fails_when_a_broken_file_is_published(monkeypatch, failure):
    usual = demo.Play._write
    monkeypatch.setattr(demo.Play, "_write", lambda play, value: usual(play, value.partition(" ")[0]))
    assert failure() == "the agent published a broken file as version 3"


def test_it_fails_when_the_error_is_placed_elsewhere(monkeypatch, failure):
    usual = demo.Play._write

    def write(play: demo.Play, value: str) -> tuple[int, int]:
        number, at = usual(play, value)
        return number + 1, at

    monkeypatch.setattr(demo.Play, "_write", write)
    assert "is broken in line" in failure()


def test_it_fails_when_a_good_file_is_rejected(monkeypatch, failure):
    monkeypatch.setattr(demo, "_STEP", 1000)  # more than the sample's schema allows
    assert failure().startswith("the agent rejected a good file: base.yaml:")


def test_it_fails_when_the_restarted_agent_does_not_go_on_from_where_it_was(monkeypatch, failure):
    usual = Child.kill

    def kill(agent: Child) -> None:
        usual(agent)
        stage.runtime.joinpath("web.shmconf").unlink()

    def note(play: demo.Play) -> None:
        nonlocal stage
        stage = play._stage
        monkeypatch.setattr(Child, "kill", kill)

    stage: Stage
    before(monkeypatch, "kill_agent", note)
    assert failure() == "the restarted agent did not go on from version 3"


def test_it_fails_when_the_workers_do_not_go_on_reading(monkeypatch, failure):
    def stop(play: demo.Play) -> None:
        monkeypatch.setattr(demo_stage, "SECONDS", 5.0)
        play._stage.workers[0].process.send_signal(signal.SIGSTOP)

    def go_on(stage: Stage) -> None:
        for worker in stage.workers:
            worker.process.send_signal(signal.SIGCONT)
        end(stage)

    end = Stage._end_all
    monkeypatch.setattr(Stage, "_end_all", go_on)
    before(monkeypatch, "break_file", stop)
    assert failure() == "not within 5 s: every worker reports"


def test_a_condition_that_holds_is_returned_and_one_that_does_not_is_named(monkeypatch):
    monkeypatch.setattr(demo_stage, "SECONDS", 0.1)
    with Stage() as stage:
        assert stage.until(lambda: "found", "it is there") == "found"
        with pytest.raises(DidNotHappen, match=r"^not within 0.1 s: it is there$"):
            stage.until(lambda: None, "it is there")


# --- without the checkout ---------------------------------------------------------------------------------------------


@pytest.mark.registry
@pytest.mark.timeout(300)
def test_an_installed_package_brings_the_sample_along(tmp_path):
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    made = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    for part in ("agent", "shm", "examples"):
        shutil.copytree(ROOT / part, checkout / part, ignore=made)
    for part in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / part, checkout)
    ours = {"PYTHONPATH", "CC", "CFLAGS", "SHMCONF_BUILD_NOTE"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, checkout]
    subprocess.run(install, cwd=tmp_path, env=environment, check=True, timeout=200)
    shutil.rmtree(checkout)
    sample = site / "share/shmconf/quickstart"
    installed = {file.relative_to(sample) for file in sample.rglob("*.*") if "__pycache__" not in file.parts}
    original = ROOT / "examples" / "quickstart"
    assert installed == {
        file.relative_to(original)
        for file in original.rglob("*.*")
        if "__pycache__" not in file.parts and file.name != "local.yaml"
    }
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "shmconf_agent", "demo", "--workers", "1"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert shown.returncode == 0, shown.stderr


# --- the picture ------------------------------------------------------------------------------------------------------


def texts(picture: Path) -> str:
    """The text of the picture, line by line."""
    element = re.compile(r'<text class="demo-r\d+" x="[\d.]+" y="([\d.]+)"[^>]*>([^<]*)</text>')
    lines: dict[str, str] = {}
    for height, text in element.findall(picture.read_text("utf-8")):
        lines[height] = lines.get(height, "") + html.unescape(text).replace("\xa0", " ")
    return "\n".join(lines.values())


def is_a_picture_of_the_demo(picture: Path) -> None:
    source = picture.read_text("utf-8")
    assert re.findall(r"https?://[^\"') ]+", source) == ["http://www.w3.org/2000/svg"], "it loads nothing"
    assert "@font-face" not in source
    assert str(ROOT) not in source
    shown = texts(picture)
    assert "/tmp" not in shown
    assert "8 of 8 read version 1" in shown
    assert "serving last known good" in shown
    assert "All of it happened" in shown
    assert len(ROW.findall(shown)) == 3 * 8


def test_the_picture_in_the_readme_is_one_of_the_demo():
    assert "(docs/demo.svg)" in (ROOT / "README.md").read_text("utf-8")
    is_a_picture_of_the_demo(ROOT / "docs" / "demo.svg")


def test_the_picture_can_be_made_again(tmp_path):
    made = tmp_path / "made.svg"
    subprocess.run(
        [sys.executable, ROOT / "docs" / "picture.py", made],
        env=os.environ | {"PYTHONPATH": PACKAGES},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=250,
    )
    is_a_picture_of_the_demo(made)
    assert headings(made) == headings(ROOT / "docs" / "demo.svg"), "the picture is not of this demo: make it again"


def headings(picture: Path) -> list[str]:
    return [line.rstrip(" ─") for line in texts(picture).splitlines() if "───" in line]
