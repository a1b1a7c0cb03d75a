"""The `shmconf` command, also without the agent's extra: then it says in one line what to install and exits 1."""

from __future__ import annotations

import sys

OWN = {"shmconf", "shmconf_agent"}


def main() -> None:
    """Runs the command line; SystemExit carries the exit code."""
    try:
        _command()
    except KeyboardInterrupt:  # before or after what click looks after
        sys.exit(130)


def _command() -> None:
    try:
        from shmconf_agent.cli import main as command
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in OWN or package in sys.stdlib_module_names:
            raise  # a fault of ours or of the interpreter's: installing the extra would not help
        print(f"shmconf: {package} is missing; the command needs: pip install 'shmconf[agent]'", file=sys.stderr)
        sys.exit(1)
    command()


if __name__ == "__main__":
    main()
