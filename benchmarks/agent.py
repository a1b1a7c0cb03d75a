"""An agent in a process of its own, as it is started in production, over a directory of sources."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shmconf

_GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """runtime_dir: where the segment `web` is. sources: the directory that the agent watches."""

    pid: int
    runtime_dir: Path
    sources: Path
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """What it has said."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stages(self, last: int) -> dict[str, list[float]]:
        """Seconds of each stage of the last so many publications. Raises AssertionError if anything was rejected."""
        events = self.events()
        assert not [event for event in events if event["event"] == "rejected"], f"a rejection, see {self.log}"
        published = [event for event in events if event["event"] == "published"][-last:]
        stages: dict[str, list[float]] = {}
        for event in published:
            for stage, milliseconds in event["stages_ms"].items():
                stages.setdefault(stage, []).append(milliseconds / 1000)
        return stages


@contextmanager
def agent(directory: Path, files: dict[str, str]) -> Iterator[Running]:
    """An agent that has published these files (name: text), ended with its context."""
    sources, runtime_dir, log = directory / "sources", directory / "run", directory / "log"
    sources.mkdir(parents=True)
    runtime_dir.mkdir(mode=0o755)
    for name, text in files.items():
        (sources / name).write_text(text)
    where = ["--runtime-dir", str(runtime_dir), "--state-dir", str(directory / "state")]
    what = ["run", "--format", "json", "--segment", "web", "sources/"]
    command = [sys.executable, "-m", "shmconf_agent", *where, *what]
    with log.open("w") as out, subprocess.Popen(command, cwd=directory, stdout=out, stderr=out) as process:
        try:
            with shmconf.attach("web", directory=runtime_dir, wait=_GIVE_UP_SECONDS) as reader:
                until(lambda: reader.version > 0, "the first version")
            yield Running(process.pid, runtime_dir, sources, log)
            assert process.poll() is None, f"the agent ended: {log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once it holds. Raises TimeoutError."""
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.001)
