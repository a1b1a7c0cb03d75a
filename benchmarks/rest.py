"""What an agent costs while nothing happens."""

from __future__ import annotations

import time

from . import sample
from .agent import agent
from .place import place
from .row import Outcome

_FILES = 1_000
_SETTLING_SECONDS = 5.0


def measure(seconds: float) -> Outcome:
    """Processor time of the agent's process, all of its threads, user and system, against the time that went by."""
    texts = {
        f"{number:04}.yaml": sample.yaml_text({"services": {sample.service_name(number): fields}})
        for number, fields in enumerate(sample.tree(_FILES)["services"].values())
    }
    with place() as directory, agent(directory, texts) as running:
        time.sleep(_SETTLING_SECONDS)
        clock = (~running.pid << 3) | 2  # clock_getcpuclockid(3) of that process
        began, used = time.monotonic(), time.clock_gettime(clock)
        time.sleep(seconds)
        used = time.clock_gettime(clock) - used
        wall = time.monotonic() - began
        assert len([event for event in running.events() if event["event"] == "published"]) == 1, "it was not at rest"
    return Outcome(used, wall, "s", {"a second": used / wall}, note=f"over {wall:.0f} s")
