"""The system's limits against what the segments need: inotify's watches and instances, and open files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .doctor_finding import Finding, Level, Topic

__all__ = ["Need", "Usage", "examine_limits", "inotify_usage"]

_FILES_OF_AGENT, _FILES_OF_SEGMENT = 48, 8
"""Descriptors that an agent has open beside its segments (ten, and room for requests and a check), and for each."""


@dataclass(frozen=True, slots=True)
class Need:
    """Of an agent with these segments. running: whether it is alive, so that `Usage` has its part already.
    agents: the process numbers of agents that are alive, as far as they are known."""

    segments: int
    watches: int
    running: bool
    agents: tuple[int, ...] = ()

    @property
    def instances(self) -> int:
        """One for each segment."""
        return self.segments


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of one user have of inotify, as far as they can be looked into."""

    instances: int
    watches: int


def inotify_usage(user: int, processes: Path = Path("/proc")) -> Usage:
    """What this user's processes have now. Never raises; processes that may not be looked into do not count."""
    instances = watches = 0
    for process in _entries(processes):
        if not process.name.isdecimal():
            continue
        try:
            if process.stat().st_uid != user:
                continue
        except OSError:
            continue
        for descriptor in _entries(process / "fd"):
            try:
                if os.readlink(descriptor) != "anon_inode:inotify":
                    continue
                info = (process / "fdinfo" / descriptor.name).read_text()
            except OSError:
                continue
            instances += 1
            watches += sum(line.startswith("inotify ") for line in info.splitlines())
    return Usage(instances, watches)


def examine_limits(need: Need, system: Path = Path("/proc/sys"), usage: Usage | None = None) -> list[Finding]:
    """A finding for each limit. system, usage: where limits are read, and what this user has, for tests."""
    used = usage if usage is not None else inotify_usage(os.geteuid())
    return [
        *_inotify(Topic.INOTIFY_WATCHES, "max_user_watches", system, need.watches, used.watches, need.running),
        *_inotify(Topic.INOTIFY_INSTANCES, "max_user_instances", system, need.instances, used.instances, need.running),
        _open_files(need),
    ]


def _inotify(topic: Topic, name: str, system: Path, need: int, used: int, running: bool) -> list[Finding]:
    # A container's user namespace may have a lower limit of its own, under another name.
    files = (system / "fs/inotify" / name, system / "user" / name.replace("max_user_", "max_inotify_"))
    limits = [limit for limit in map(_number, files) if limit is not None]
    if not limits:
        return []
    limit, where = min(limits), f"fs.inotify.{name}"
    what = f"{limit:,} for this user, who has {used:,} already; {need:,} needed for these segments"
    if limit >= need and (running or limit - used >= need):
        return [Finding(Level.OK, topic, where, what)]
    more = max(2 * limit, used + 2 * need, 8192 if topic is Topic.INOTIFY_WATCHES else 128)
    return [Finding(Level.WARNING, topic, where, what, f"sysctl {where}={more} (and in /etc/sysctl.d to keep it)")]


def _open_files(need: Need) -> Finding:
    limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "this process"
    for agent in need.agents:
        found = _open_files_of(agent)
        if found is not None and (whose == "this process" or found < limit):
            limit, whose = found, f"the agent, process {agent}"
    least = _FILES_OF_AGENT + _FILES_OF_SEGMENT * need.segments
    told = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    what = f"{told} for {whose}; {least:,} are enough for these segments"
    if limit == resource.RLIM_INFINITY or limit >= least:
        return Finding(Level.OK, Topic.OPEN_FILES, "open files", what)
    advice = f"raise it: LimitNOFILE={max(1024, 2 * least)} in the agent's unit, or ulimit -n"
    return Finding(Level.WARNING, Topic.OPEN_FILES, "open files", what, advice)


def _open_files_of(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/limits").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Max open files"):
            soft = line.removeprefix("Max open files").split()[0]
            return resource.RLIM_INFINITY if soft == "unlimited" else int(soft)
    return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _entries(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return ()
