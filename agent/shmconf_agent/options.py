"""The options before the verb, and what follows from them: the agent's file and the directories."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from shmconf.errors import Error

from . import config
from .config import AgentConfig
from .problems import Invalid

DEFAULT_FILES = (Path("shmconf.toml"), Path("/etc/shmconf/shmconf.toml"))


class UsageProblem(Error):
    """The command was called for something that is not there; its text says what to do. Exit code 2."""


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
        for file in DEFAULT_FILES:
            if file.exists():
                return file
        tried = " or ".join(str(file) for file in DEFAULT_FILES)
        raise UsageProblem(f"no {tried}: give --config FILE, or --segment NAME and its sources")

    def load(self) -> AgentConfig:
        """The agent's configuration. Raises UsageProblem, or Invalid with every problem and its place."""
        return config.load(self.agent_file())

    def reading_directory(self) -> Path | None:
        """Where a verb that only reads looks: --runtime-dir, or runtime_dir of the agent's file; None for the defaults.

        A broken agent's file must not keep anybody from looking at what is served.
        """
        if self.runtime_dir is not None:
            return self.runtime_dir
        file = self.config or next((each for each in DEFAULT_FILES if each.exists()), None)
        if file is None:
            return None
        try:
            return config.load(file).runtime_dir
        except Invalid as invalid:
            click.echo(f"shmconf: {file} is invalid and was passed over: {invalid.problems[0]}", err=True)
            return None


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
