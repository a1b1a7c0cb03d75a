"""What would stop reloads from being seen here: every room of the doctor asked, with a running agent or without.

Nothing is published and nothing is changed, but for the self-tests of the directories with sources.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shmconf.directories import Directory

from .config import AgentConfig, resolve_group
from .doctor_finding import Finding, Level, Topic, unique
from .doctor_install import examine_installation
from .doctor_limits import Need, examine_limits
from .doctor_places import examine_places, runtime_directory
from .doctor_segment import examine_segment, status_of
from .doctor_sources import examine_sources
from .mounts import MOUNT_DIRECTORY, NEVER_CHANGES, Mount, mounted_files, mounts
from .trial import try_agent

__all__ = ["examine"]


def examine(
    config: AgentConfig, places: Sequence[Directory], state: Path, table: Sequence[Mount] | None = None
) -> list[Finding]:
    """Every finding, by what they are about. places: where the segments may be, in order. table: what is mounted.

    Raises Invalid for settings that cannot be used on this machine. Takes a moment, and some seconds where a directory
    is deaf.
    """
    try_agent(config)
    for segment in config.segments:
        if segment.group is not None:
            resolve_group(segment.group, segment.group_place)
    table = mounts() if table is None else table
    statuses = {segment.name: status_of(segment.name, places) for segment in config.segments}
    alive = {name: status for name, status in statuses.items() if status is not None and status.agent_alive}
    watching = examine_sources(
        config.segments, table, lambda name: name in alive and not alive[name].agent.warnings
    )
    need = Need(
        len(config.segments),
        watching.watches,
        len(alive) == len(config.segments),
        tuple(sorted({status.agent.pid for status in alive.values()})),
    )
    found = [*examine_installation(), *examine_limits(need), *_agents_file(config, table)]
    found += examine_places(runtime_directory(places), state)
    found += watching.findings
    for segment in config.segments:
        found += examine_segment(segment.name, places, state)
    return unique(found)


def _agents_file(config: AgentConfig, table: Sequence[Mount]) -> list[Finding]:
    if config.file is None:
        return []
    return [
        Finding(Level.WARNING, Topic.FILE_MOUNTED, point, NEVER_CHANGES, MOUNT_DIRECTORY)
        for point in mounted_files([os.path.realpath(config.file)], table)
    ]
