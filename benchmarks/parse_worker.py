"""A process that parses files: `python -m benchmarks.parse_worker FILE...`. Each line on stdin names a way, and is
answered with the seconds that it took for all the files, in which the bytes are in memory already."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from yaml._yaml import CParser

from shmconf_agent import collector, formats


def agent(data: bytes) -> object:
    """As the agent does."""
    with collector.stands_aside():
        return formats.parse(data, file="sample.yaml")


def agent_with_collector(data: bytes) -> object:
    """As the agent would, if the garbage collector did not stand aside."""
    return formats.parse(data, file="sample.yaml")


def csafe(data: bytes) -> object:
    """As others do."""
    return yaml.load(data, yaml.CSafeLoader)


def csafe_without_collector(data: bytes) -> object:
    """The same, to see what the garbage collector takes of it."""
    gc.disable()
    try:
        return yaml.load(data, yaml.CSafeLoader)
    finally:
        gc.enable()


def events(data: bytes) -> object:
    """What libyaml and its binding take, with nothing made of it."""
    get_event = CParser(data).get_event
    while get_event() is not None:
        pass
    return None


WAYS: dict[str, Callable[[bytes], object]] = {
    "agent": agent,
    "agent-with-collector": agent_with_collector,
    "csafe": csafe,
    "csafe-without-collector": csafe_without_collector,
    "events": events,
}


def main(*files: str) -> None:
    """Answer until stdin ends."""
    texts = [Path(file).read_bytes() for file in files]
    for text in texts:
        assert agent(text) == csafe(text), "the two parsers do not agree"
    for line in sys.stdin:
        way = WAYS[line.strip()]
        gc.collect()
        seconds = 0.0
        kept = []
        for text in texts:
            began = time.perf_counter_ns()
            kept.append(way(text))  # its end is not timed
            seconds += (time.perf_counter_ns() - began) * 1e-9
        kept.clear()
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
