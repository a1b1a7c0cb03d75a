"""The segment at its limit: writers that are killed and stopped at any moment, one after the other, publish without a
pause; eight readers in Python (native and pure) and C check every byte that they read, and are stopped and killed too.

STRESS_SECONDS (15) is how long it lasts; `make stress STRESS_SECONDS=600` runs it for longer. It fails unless readers
saw what it is about: retries, lapping, growth of the file, writers that went on where another was killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import stress_progress

import shmconf
from shmconf.mapping import IMPLEMENTATION

SECONDS = float(os.environ.get("STRESS_SECONDS", "15"))
MOST_SECONDS = 8 * SECONDS + 60  # on a machine that is too slow to meet everything in that time
HERE = Path(__file__).parent
PYTHON = [sys.executable, "-W", "error"]
NICE = ["nice", "-n", "5"]  # what else is being tested goes first
MUST_BE_SEEN = ("retries", "lapped", "grown", "takeovers")
# way, and how: in C, in Python with the native module (where there is one), in pure Python
READERS = (
    ("points", "native"),
    ("points+points+snapshots", "native"),
    ("attach", "native"),
    ("points", "pure"),
    ("snapshots", "pure"),
    ("points", "C"),
    ("cells", "C"),
    ("snapshots", "C"),
)


@pytest.fixture(scope="session")
def stress_reader(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    built = tmp_path_factory.mktemp("stress") / "stress_reader"
    trial = built.with_suffix(".c")
    trial.write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
    works = compiler and subprocess.run([compiler, trial, "-o", built], capture_output=True).returncode == 0
    require(works, "a C compiler")
    source, include = HERE.parent / "c" / "stress_reader.c", HERE.parents[1] / "shm" / "include"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run([str(compiler), *flags, str(source), "-o", str(built)], check=True)
    return built


class Writers:
    """Starts one writer at a time, native and pure ones by turns."""

    def __init__(self, place: Path, pure: bool) -> None:
        self.process = subprocess.Popen(
            [*NICE, *PYTHON, str(HERE / "stress_writer.py"), str(place / "run"), str(place / "state")],
            env={**os.environ, "SHMCONF_PURE": "1" if pure else ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return int(answer or self.fail("it ended"))

    def fail(self, why: str) -> str:
        self.process.kill()
        pytest.fail(f"a writer failed, {why}: {self.process.communicate()[1]}")


class Reader:
    """One of the readers, in one process after the other."""

    def __init__(self, way: str, how: str, program: Path, place: Path) -> None:
        self.name = f"{how}-{way}"
        reader = [str(program)] if how == "C" else [*PYTHON, str(HERE / "stress_reader.py")]
        self.command = [*NICE, *reader, str(place / "run"), way]
        self.environment = {**os.environ, "SHMCONF_PURE": "1" if how == "pure" else ""}
        self.place = place
        self.files: list[Path] = []
        self.start()

    def start(self) -> None:
        self.files.append(self.place / f"{self.name}.{len(self.files)}")
        self.process = subprocess.Popen(
            [*self.command, str(self.files[-1])], env=self.environment, stderr=subprocess.PIPE, text=True
        )
        self.stopped = False
        self.last, self.moved_at = 0, time.monotonic()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)
        self.stopped = number == signal.SIGSTOP
        self.moved_at = time.monotonic()

    def check(self) -> None:
        """It lives, and gets on."""
        if self.process.poll() is not None:
            said = self.process.communicate()[1]
            pytest.fail(f"reader {self.name} ended with {self.process.returncode}: {said}")
        verified = self.seen()["verified"]
        if verified != self.last or self.stopped:
            self.last, self.moved_at = verified, time.monotonic()
        assert time.monotonic() - self.moved_at < 100, f"reader {self.name} is stuck"

    def seen(self) -> dict[str, int]:
        return stress_progress.seen(self.files[-1])

    def total(self) -> Counter[str]:
        return sum((Counter(stress_progress.seen(file)) for file in self.files), Counter())


class Stress:
    """Everything that runs, and what is done to it."""

    def __init__(self, place: Path, program: Path, cleanup: ExitStack) -> None:
        self.place, self.cleanup, self.program = place, cleanup, program
        self.segment = place / "run" / "web.shmconf"
        self.segment.parent.mkdir()
        can_write_pure = os.uname().machine == "x86_64"
        self.makers = [Writers(place, pure) for pure in ([False, True] if can_write_pure else [False])]
        for maker in self.makers:
            cleanup.callback(finish, maker.process)
        self.chance = random.Random(time.time_ns())
        self.writers = 0
        self.writer = 0
        cleanup.callback(lambda: self.writer and os.kill(self.writer, signal.SIGKILL))  # it holds its maker's pipes
        self.readers: list[Reader] = []
        self.done: Counter[str] = Counter()
        self.next_removal = 0.0

    @property
    def maker(self) -> Writers:
        return self.makers[self.writers % len(self.makers)]

    def start_writer(self) -> None:
        self.writers += 1
        self.writer = self.maker.ask(f"start {self.writers}")

    def end_writer(self) -> None:
        os.kill(self.writer, signal.SIGKILL)
        self.writer = 0
        ended = self.maker.ask("reap")
        if ended != -signal.SIGKILL:
            self.maker.fail(f"exit {ended}")

    def start_readers(self) -> None:
        for way, how in READERS:
            reader = Reader(way, how, self.program, self.place)
            self.cleanup.callback(lambda reader=reader: finish(reader.process))
            self.readers.append(reader)

    def pause(self, most: float) -> None:
        """Without sleeping where the moment matters: the next act falls anywhere."""
        ends = time.monotonic() + self.chance.uniform(0, most)
        time.sleep(max(0.0, ends - time.monotonic() - 0.002))
        while time.monotonic() < ends:
            pass

    def kill_writer(self) -> None:
        self.end_writer()
        self.pause(0.01)
        self.start_writer()

    def stop_writer(self) -> None:
        os.kill(self.writer, signal.SIGSTOP)
        self.pause(0.1)
        os.kill(self.writer, signal.SIGCONT)

    def kill_stopped_writer(self) -> None:
        os.kill(self.writer, signal.SIGSTOP)
        self.pause(0.05)
        self.kill_writer()

    def stop_reader(self) -> None:
        reader = self.chance.choice(self.readers)
        reader.signal(signal.SIGSTOP)
        self.pause(0.1)
        reader.signal(signal.SIGCONT)

    def kill_reader(self) -> None:
        reader = self.chance.choice(self.readers)
        reader.check()
        reader.process.kill()
        reader.process.communicate()
        reader.start()

    def remove_segment(self) -> None:
        """Somebody tidied up: the writer puts it back with its next version, in a new file."""
        if time.monotonic() >= self.next_removal:
            self.segment.unlink(missing_ok=True)
            self.next_removal = time.monotonic() + 2

    def act(self) -> None:
        acts = {
            self.kill_writer: 6,
            self.stop_writer: 3,
            self.kill_stopped_writer: 2,
            self.stop_reader: 8,
            self.kill_reader: 1,
            self.remove_segment: 1,
        }
        act = self.chance.choices(list(acts), list(acts.values()))[0]
        act()
        self.done[act.__name__] += 1
        self.pause(0.1)
        for reader in self.readers:
            reader.check()

    def seen(self) -> Counter[str]:
        return sum((reader.total() for reader in self.readers), Counter())

    def overlap(self) -> bool:
        """Whether what this is about has been seen, by readers of each kind."""
        return all(self.seen()[what] for what in MUST_BE_SEEN)


def finish(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def until(condition: Callable[[], Any], what: str, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def stress(tmp_path: Path, stress_reader: Path) -> Iterator[Stress]:
    with ExitStack() as cleanup:
        yield Stress(tmp_path, stress_reader, cleanup)


@pytest.mark.timeout(MOST_SECONDS + 400)
def test_readers_see_whole_versions_whatever_happens_to_both_sides(stress: Stress, tell: Callable[[str], None]) -> None:
    stress.start_writer()
    until(stress.segment.exists, "the first version")
    stress.start_readers()
    until(lambda: all(reader.seen()["verified"] for reader in stress.readers), "every reader has begun")
    began = time.monotonic()
    while time.monotonic() - began < SECONDS or (
        not stress.overlap() and time.monotonic() - began < MOST_SECONDS
    ):
        stress.act()

    # Every reader comes to the last version, which a writer that is gone has left.
    before = shmconf.attach("web", wait=60, directory=stress.segment.parent).version
    stress.kill_writer()
    until(lambda: shmconf.attach("web", wait=60, directory=stress.segment.parent).version > before, "one more version")
    stress.end_writer()
    last = shmconf.attach("web", directory=stress.segment.parent).version
    until(
        lambda: [reader.check() for reader in stress.readers] and all(r.seen()["last"] == last for r in stress.readers),
        "every reader comes to the last version, with no writer alive",
    )

    seen = stress.seen()
    kinds = Counter({how: 0 for _, how in READERS})
    for (_, how), reader in zip(READERS, stress.readers, strict=True):
        kinds[how] += reader.total()["verified"]
    tell(
        f"stress: {seen['verified']:,} reads verified in {time.monotonic() - began:.0f} s ("
        + ", ".join(f"{count:,} {how}" for how, count in kinds.items())
        + f"; {seen['points']:,} by point, {seen['snapshots']:,} whole) up to version {last:,}; "
        f"{seen['retries']:,} retries, {seen['lapped']:,} lapped, {seen['grown']:,} grown, "
        f"{seen['takeovers']:,} take-overs and {seen['epochs']:,} files seen; "
        + ", ".join(f"{count} × {what}" for what, count in sorted(stress.done.items()))
        + ("" if IMPLEMENTATION == "native" else "; no native module here")
    )
    missed = [what for what in MUST_BE_SEEN if not seen[what]]
    assert not missed, f"readers saw none of: {', '.join(missed)}"
    assert all(kinds.values())
    assert stress.done["kill_writer"] > 0
