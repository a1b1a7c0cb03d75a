"""Installs the `bench` extra into the environment that runs this: all at once, or what there is of it.

pip installs an extra whole or not at all; here a rival without a wheel for this machine must not cost the others.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path


def main(pyproject: Path) -> None:
    """Install what the extra lists; name on stderr what did not install."""
    wanted: list[str] = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]["bench"]
    print(f"installing {', '.join(wanted)} ...", flush=True)
    if _pip(wanted) is None:
        return
    for requirement in wanted:
        reason = _pip([requirement])
        if reason is not None:
            print(f"not installed: {requirement}: {reason}", file=sys.stderr)


def _pip(requirements: list[str]) -> str | None:
    """None, or the last line of why not."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
