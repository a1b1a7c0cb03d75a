"""The `shmconf` command, also without the agent's extra: then it says in one line what to install and exits 1."""

from __future__ import annotations

import contextlib
import os
import sys

OWN = {"shmconf", "shmconf_agent"}


def main() -> None:
    """Runs the command line; SystemExit carries the exit code."""
    _open_closed_streams()
    try:
        _command()
    except KeyboardInterrupt:  # before or after what click looks after
        sys.exit(130)
    except OSError as error:  # outside of a verb: the help could not be written, say
        with contextlib.suppress(OSError):
            print(f"shmconf: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _open_closed_streams() -> None:
    """Standard streams that the caller has closed lead nowhere: no file of ours may get their numbers, and nothing that
    prints has to ask whether there is one."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as long as the process lives


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
