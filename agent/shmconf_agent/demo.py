"""`shmconf demo`: the main job, played before the user's eyes on a copy of the quickstart.

Nothing of what it says is assumed: each line is printed after the thing was seen to happen, by the reports of the
agent and of the workers, and the first thing that does not happen ends the demo with exit code 1 and the reason.
`demo_stage` has the processes, `demo_worker` is one of the workers, `demo_screen` the looks, and this is the play.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from shmconf import Error, Status

from .cli_terminal import colourless, waiting
from .demo_screen import Arrival, Record, Screen
from .demo_stage import Child, DidNotHappen, Stage, Stopped
from .events import problem_from
from .exits import DONE, FAILED, REJECTED

FILE = "base.yaml"
KEY = "size"
PATH = "db.pool.size"
_STEP = 10

_WIDTH = 80
_PAUSE_SECONDS = 0.6  # between two acts, for whoever looks on
_OUTAGE_SECONDS = 1.0
_READS_EACH = 100  # how many more reads show that a worker goes on reading


def run_demo(workers: int, plain: bool, as_json: bool = False) -> int:
    """Play the demo with so many workers and return the exit code; in the main thread, because of the signals.

    as_json: what was seen is printed once it is over, as one document.
    """
    if as_json:
        return _play_as_json(workers)
    terminal = sys.stdout.isatty() and not plain
    console = Console(
        force_terminal=None if terminal else False, no_color=plain or None, highlight=False,
        color_system=None if colourless() else "auto",
    )  # fmt: skip
    console.width = min(console.width, _WIDTH) if terminal else _WIDTH
    try:
        perform(console, workers, terminal=terminal)
    except (DidNotHappen, Error, OSError) as reason:
        print(f"shmconf: the demo failed: {reason}", file=sys.stderr)
        return FAILED
    except Stopped as stopped:
        print(f"shmconf: the demo was stopped by {signal.Signals(stopped.signum).name}", file=sys.stderr)
        return 128 + stopped.signum
    return DONE


def _play_as_json(workers: int) -> int:
    record = Record()
    code, reason = FAILED, None
    try:
        with waiting("playing the demo"):
            _perform(record, workers)
        code = DONE
    except (DidNotHappen, Error, OSError) as error:
        reason = str(error)
    except Stopped as stopped:
        code, reason = 128 + stopped.signum, f"stopped by {signal.Signals(stopped.signum).name}"
    print(json.dumps({"happened": code == DONE, "reason": reason, "acts": record.acts}, indent=2))
    return code


def perform(console: Console, workers: int, *, terminal: bool) -> None:
    """Play it on this console, with spinners and pauses on a terminal.

    Raises DidNotHappen with the reason where anything did not go as it should, Stopped after a signal, Error, OSError.
    Whatever happens, no process and no file is left.
    """
    _perform(Screen(console, spinning=terminal), workers)


def _perform(screen: Screen | Record, workers: int) -> None:
    with Stage() as stage:
        play = Play(stage, screen, pause=_PAUSE_SECONDS)
        play.start(workers)
        play.edit()
        play.break_file()
        play.repair()
        play.kill_agent()
        play.finish()


@dataclass(frozen=True, slots=True)
class Served:
    """What every worker has now."""

    version: int
    epoch: int
    value: Any


class Play:
    """The acts, in their order."""

    def __init__(self, stage: Stage, screen: Screen | Record, pause: float) -> None:
        """Nothing is started yet."""
        self._stage = stage
        self._screen = screen
        self._pause = pause
        self._began = time.monotonic()
        self._served = Served(0, 0, None)
        self._latencies: list[float] = []
        self._deliveries: list[float] = []
        self._acts = 0

    def start(self, workers: int) -> None:
        """An agent, and workers that attach to what it publishes."""
        processes = "a worker process" if workers == 1 else f"{workers} worker processes"
        self._screen.title("shmconf demo", f"an agent and {processes} on a copy of the quickstart")
        self._act("Start an agent and its workers")
        agent = self._stage.start_agent()
        self._stage.start_workers(workers, PATH)
        with self._screen.waiting("they start"):
            published = self._publication(agent, mark=0)
            adopted = [self._adoption(worker, mark=0) for worker in self._stage.workers]
            self._stage.until(lambda: all(worker.last("count") for worker in self._stage.workers), "all workers read")
        served = {Served(each["version"], each["epoch"], each["value"]) for each in adopted}
        self._served = served.pop()
        if served or self._served.version != 1:
            raise DidNotHappen("the workers do not all read version 1")
        self._screen.fact("agent", _said(published), style="green")
        self._screen.fact("workers", f"{self._all()} read version 1: {self._value()}")

    def edit(self) -> None:
        """A good edit."""
        self._act("Edit a file")
        self._change()

    def break_file(self) -> None:
        """An edit that must not be taken: its place is told, and everybody stays on the version before."""
        self._act("Break it")
        agent = self._stage.agent
        mark = len(agent.reports)
        number, _ = self._write(f"{self._served.value + _STEP} timeout: 3")  # as if a line end were forgotten
        with self._screen.waiting("the agent looks at it"):
            rejected = self._rejection(agent, mark)
            problem = problem_from(rejected["problems"][0])
            if (problem.file, problem.line) != (FILE, number):
                raise DidNotHappen(f"{FILE} is broken in line {number}, but the agent says: {problem}")
            if rejected["serving_version"] != self._served.version:
                raise DidNotHappen(f"the agent serves version {rejected['serving_version']} after a bad edit")
            before = self._counts_from_now()
            self._await_reading(before, f"goes on with version {self._served.version}")
            self._await_reason(str(problem))
        self._screen.fact("agent", f"rejected, still serving version {rejected['serving_version']}", style="yellow")
        self._screen.fact("", str(problem), style="red")
        self._show_status(REJECTED, "serving last known good")
        self._screen.fact("workers", f"{self._all()} keep version {self._served.version}: {self._value()}")
        self._screen.fact("", f"{self._reads_since(before):,} reads meanwhile, 0 errors; all of them see the reason")

    def repair(self) -> None:
        """The edit that was meant."""
        self._act("Repair it")
        self._change()

    def kill_agent(self) -> None:
        """SIGKILL, an outage, another agent, another edit."""
        self._act("Kill the agent, start another")
        dead = self._stage.agent
        dead.kill()
        before = self._counts_from_now()
        self._screen.fact("kill", f"SIGKILL to the agent, process {dead.pid}", style="yellow")
        with self._screen.waiting("nobody serves"):
            self._stage.go_on(_OUTAGE_SECONDS)
            self._await_reading(before, "goes on reading without an agent")
        self._screen.fact("workers", f"{self._all()} go on: {self._reads_since(before):,} reads without it, 0 errors")
        agent = self._stage.start_agent()
        with self._screen.waiting("another agent starts"):
            status = self._stage.until(self._taken_over, "another agent takes over")
        if (status.version, status.epoch) != (self._served.version, self._served.epoch):
            raise DidNotHappen(f"the restarted agent did not go on from version {self._served.version}")
        taken_over = f"process {agent.pid} goes on from version {status.version}, in the same epoch"
        self._screen.fact("restart", taken_over, style="green")
        self._stage.go_on(self._pause)
        self._change()

    def finish(self) -> None:
        """An orderly end, and the sum."""
        self._act("Sum")
        reads = sum(count["reads"] for count in self._counts())
        self._stage.stop_agent()
        self._screen.fact("versions", f"1 to {self._served.version}, one after the other, in one epoch")
        self._screen.fact("reads", f"{reads:,} in all workers, 0 errors, no version went back")
        self._screen.fact("latency", f"edit to visible: {_spread(self._latencies)}")
        self._screen.fact("", f"publication to visible: {_spread(self._deliveries)}")
        if self._stage.config.check:
            self._screen.fact("", "between them: the agent, and the sample's check in a fresh process")
        self._screen.end(f"All of it happened, in {time.monotonic() - self._began:.1f} s.")

    # What the acts are made of.

    def _act(self, name: str) -> None:
        if self._acts:
            self._stage.go_on(self._pause)
        self._acts += 1
        self._screen.act(self._acts, name)

    def _change(self) -> None:
        """Raise the value, and see the next version arrive in every worker."""
        agent, value = self._stage.agent, self._served.value + _STEP
        mark, marks = len(agent.reports), [len(worker.reports) for worker in self._stage.workers]
        edited_at = self._write(str(value))[1]
        with self._screen.waiting("the edit is on its way"):
            published = self._publication(agent, mark)
            adopted = [
                self._adoption(worker, seen) for worker, seen in zip(self._stage.workers, marks, strict=True)
            ]
        wanted = Served(self._served.version + 1, self._served.epoch, value)
        arrivals = []
        for worker, each in zip(self._stage.workers, adopted, strict=True):
            if Served(each["version"], each["epoch"], each["value"]) != wanted:
                raise DidNotHappen(
                    f"{worker.what} has version {each['version']} with {PATH} = {each['value']}, "
                    f"where version {wanted.version} with {value} was to come"
                )
            arrivals.append(Arrival(worker.pid, each["version"], (each["at_ns"] - edited_at) / 1e9))
        self._served = wanted
        self._latencies += [arrival.seconds for arrival in arrivals]
        self._deliveries += [each["since_published_ns"] / 1e9 for each in adopted]
        self._screen.fact("agent", _said(published), style="green")
        self._show_status(DONE, "healthy")
        self._screen.arrivals(arrivals)

    def _write(self, value: str) -> tuple[int, int]:
        """Replace the file by one with this text as the value: the line's number, and when, by the monotonic clock."""
        file = self._stage.sample / FILE
        lines = file.read_text("utf-8").splitlines(keepends=True)
        found = [(number, line) for number, line in enumerate(lines) if line.lstrip().startswith(f"{KEY}:")]
        if len(found) != 1:
            raise DidNotHappen(f"the sample's {FILE} has {len(found)} lines with {KEY}, where there should be one")
        number, before = found[0]
        lines[number] = re.sub(rf"({KEY}: *).*?( *#.*)?$", rf"\g<1>{value}\g<2>", before)
        aside = file.with_name(f".{file.name}.new")  # an agent passes over names that start with a dot
        aside.write_text("".join(lines), "utf-8")
        self._screen.change(f"{FILE}:{number + 1}", _code(before), _code(lines[number]))
        at = time.monotonic_ns()
        aside.replace(file)
        return number + 1, at

    def _publication(self, agent: Child, mark: int) -> dict[str, Any]:
        """The agent's report of the version that it publishes next."""

        def look() -> dict[str, Any] | None:
            rejected = agent.since(mark, "rejected")
            if rejected is not None:
                raise DidNotHappen(f"the agent rejected a good file: {problem_from(rejected['problems'][0])}")
            return agent.since(mark, "published")

        return self._stage.until(look, "the agent publishes")

    def _rejection(self, agent: Child, mark: int) -> dict[str, Any]:
        """The agent's report of why it does not take what was written."""

        def look() -> dict[str, Any] | None:
            published = agent.since(mark, "published")
            if published is not None:
                raise DidNotHappen(f"the agent published a broken file as version {published['version']}")
            return agent.since(mark, "rejected")

        return self._stage.until(look, "the agent rejects the broken file")

    def _adoption(self, worker: Child, mark: int) -> dict[str, Any]:
        """The worker's report of the version that it adopts next."""
        return self._stage.until(lambda: worker.since(mark, "adopted"), f"{worker.what} reads the new version")

    def _counts(self) -> list[dict[str, Any]]:
        """Every worker's newest count of reads. Raises DidNotHappen where one had an error."""
        counts = [worker.last("count") or {} for worker in self._stage.workers]
        for worker, count in zip(self._stage.workers, counts, strict=True):
            if count.get("errors"):
                raise DidNotHappen(f"{worker.what} had {count['errors']} errors, the last one: {count['last_error']}")
        return counts

    def _counts_from_now(self) -> list[dict[str, Any]]:
        """Counts of which none was made before this call."""
        marks = [worker.number_of("count") for worker in self._stage.workers]

        def look() -> bool:  # one may have been under way already, two not
            return all(
                worker.number_of("count") >= mark + 2
                for worker, mark in zip(self._stage.workers, marks, strict=True)
            )

        self._stage.until(look, "every worker reports")
        return self._counts()

    def _await_reading(self, before: list[dict[str, Any]], what: str) -> None:
        """Until every worker has read on, with the version and the value that are served."""

        def look() -> bool:
            return all(
                (now["version"], now["value"]) == (self._served.version, self._served.value)
                and now["reads"] >= then["reads"] + _READS_EACH
                for then, now in zip(before, self._counts(), strict=True)
            )

        self._stage.until(look, f"every worker {what}")

    def _await_reason(self, reason: str) -> None:
        """Until every worker can see why the newest files are not served."""
        self._stage.until(
            lambda: all(count["rejection"] == reason for count in self._counts()), "every worker sees the reason"
        )

    def _reads_since(self, before: list[dict[str, Any]]) -> int:
        return sum(now["reads"] - then["reads"] for then, now in zip(before, self._counts(), strict=True))

    def _taken_over(self) -> Status | None:
        status = self._stage.segment_status()
        if status is None:
            return None
        alive = status.agent_alive and status.agent.pid == self._stage.agent.pid
        return status if alive and status.agent.state == "running" else None

    def _show_status(self, code: int, word: str) -> None:
        """What `shmconf status` says, which must be the version served, this word and this exit code."""
        found, said = self._stage.status()
        wanted = f"version {self._served.version}, {word}"
        if found != code or wanted not in said:
            raise DidNotHappen(f"`shmconf status` should say '{wanted}' (exit code {code}), but says: {said} ({found})")
        self._screen.fact("status", f"{said} (exit code {code})")

    def _all(self) -> str:
        return f"{len(self._stage.workers)} of {len(self._stage.workers)}"

    def _value(self) -> str:
        return f"{PATH} = {self._served.value}"


def _code(line: str) -> str:
    """A line of YAML without indentation and comment."""
    return line.partition("#")[0].strip()


def _spread(seconds: Sequence[float]) -> str:
    """Median and maximum in milliseconds."""
    return f"median {statistics.median(seconds) * 1000:.1f} ms, at most {max(seconds) * 1000:.1f} ms"


def _said(published: dict[str, Any]) -> str:
    """The agent's report of a publication, in a line."""
    files = published["changed_files"]
    return f"version {published['version']} published" + (f" ({', '.join(files)})" if len(files) < 3 else "")
