"""The options before the verb, and what follows from them: the agent's file and the directories."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from shmconf.errors import Error

from . import agents_file
from .config import AgentConfig, SegmentConfig
from .problems import Invalid

DEFAULT_FILES = (Path("shmconf.toml"), Path("/etc/shmconf/shmconf.toml"))


class UsageProblem(Error):
    """The command was called for something that is not there; its text says what to do. Exit code 2."""


class Seconds(click.FloatRange):
    """A length of time, from 0 to `most`: what FloatRange alone would let through, nan, is no number of seconds."""

    def __init__(self, most: float | None = None) -> None:
        """most: in seconds; None for no limit."""
        super().__init__(min=0, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises click.BadParameter."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


@dataclass(frozen=True, slots=True)
class Options:
    """--config, --runtime-dir and --state-dir as given."""

    config: Path | None = None
    runtime_dir: Path | None = None
    state_dir: Path | None = None

    def agent_file(self) -> Path:
        """The agent's file to use. Raises UsageProblem where there is none."""
        if self.config is not None:
            if not self.config.exists():
                raise UsageProblem(f"there is no {self.config}; name the agent's file with --config")
            return self.config
        file = _default_file()
        if file is not None:
            return file
        tried = " or ".join(str(file) for file in DEFAULT_FILES)
        raise UsageProblem(f"no {tried}: give --config FILE, or --segment NAME and its sources")

    def load(self) -> AgentConfig:
        """The agent's configuration. Raises UsageProblem, or Invalid with every problem and its place."""
        return agents_file.load(self.agent_file())

    def reading_directory(self) -> Path | None:
        """Where a verb that only reads looks: --runtime-dir, or runtime_dir of the agent's file; None for the defaults.

        A broken agent's file must not keep anybody from looking at what is served.
        """
        if self.runtime_dir is not None:
            return self.runtime_dir
        agent = self._if_valid()
        return None if agent is None else agent.runtime_dir

    def reading_state(self) -> Path:
        """The state directory that a verb which only reads looks into; a broken agent's file is no obstacle either."""
        if self.state_dir is not None:
            return state_directory(self.state_dir)
        agent = self._if_valid()
        return state_directory(None if agent is None else agent.state_dir)

    def _if_valid(self) -> AgentConfig | None:
        """The agent's file, if there is one and it can be used; else, and once, why it was passed over on stderr."""
        file = self.config or _default_file()
        if file is None:
            return None
        try:
            return agents_file.load(file)
        except Invalid as invalid:
            text = f"shmconf: {file} is invalid and was passed over: {invalid.problems[0]}"
            if not click.get_current_context().meta.setdefault(text, False):
                click.get_current_context().meta[text] = True
                click.echo(text, err=True)
            return None


def _default_file() -> Path | None:
    """The agent's file where none is named. One that this user may not even look for is none: who becomes the agent's
    user in a directory of root's means the one in /etc."""
    for file in DEFAULT_FILES:
        with contextlib.suppress(PermissionError):
            if file.exists():
                return file
    return None


def segment_of(agent: AgentConfig, name: str, sources: str) -> SegmentConfig:
    """The segment of that name in the agent's file. sources: where the verb takes the sources of another one. Raises
    UsageProblem."""
    for segment in agent.segments:
        if segment.name == name:
            return segment
    known = ", ".join(segment.name for segment in agent.segments)
    raise UsageProblem(
        f"{agent.file} has no segment {name!r}, only {known}: name its file with --config, or its sources {sources}"
    )


def state_directory(named: Path | None) -> Path:
    """The state directory: `named` (--state-dir, else state_dir of the agent's file), $STATE_DIRECTORY, the default."""
    if named is not None:
        return named.absolute()
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/shmconf")
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state_home) / "shmconf"


pass_options = click.make_pass_decorator(Options, ensure=True)

FORMAT = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="For people, or for programs.",
)  # fmt: skip
"""The option of every verb that prints data."""
