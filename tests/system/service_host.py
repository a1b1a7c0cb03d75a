"""A host that runs shmconf as a service, as systemd/README.md says: in a box, from wheels, by the units as shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from box import Box

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
CONFIG = "/etc/shmconf"
SHOP = "/srv/shop"
UNITS = "/etc/systemd/system"
MANUAL = (ROOT / "systemd/README.md").read_text()
_BUILT_FROM = ("agent", "shm", "examples", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
_QUICKSTART = ROOT / "examples" / "quickstart"


def unsuitable_python() -> str | None:
    """Why the system's own Python cannot run the agent; None if it can."""
    suits = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run([SYSTEM_PYTHON, "-c", suits], capture_output=True, check=False)
    return f"{SYSTEM_PYTHON} is not there, has no venv, or is older than 3.11" if done.returncode else None


def _run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def manual(section: str, number: int) -> list[str]:
    """The commands of a console block of systemd/README.md."""
    block = MANUAL.split(f"\n## {section}\n")[1].split("\n## ")[0].split("```console\n")[1 + number].split("```")[0]
    return [line.removeprefix("# ") for line in block.splitlines()]


def versions() -> list[str]:
    """Those that systemd/README.md installs: this one, and the one of the upgrade."""
    return list(dict.fromkeys(re.findall(r"shmconf\[agent\]==([0-9.]+)", MANUAL)))


def make_wheels(place: Path, newer: str) -> Path:
    """A directory of wheels for the system's Python: shmconf as it is and once more as version `newer`, and all that
    its agent needs."""
    wheels, builder = place / "wheels", place / "builder"
    _run(SYSTEM_PYTHON, "-m", "venv", "--without-pip", builder, cwd=place)
    own_pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    pip = [*own_pip, "--python", builder / "bin/python"]
    _run(*pip, "install", "setuptools>=77", "wheel", cwd=place)
    made = [*pip, "wheel", "--no-build-isolation", "--wheel-dir", wheels]
    for name, extra in (("older", "[agent]"), ("newer", "")):
        source = place / name
        source.mkdir()
        for part in _BUILT_FROM:
            if (ROOT / part).is_dir():
                ignored = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
                shutil.copytree(ROOT / part, source / part, ignore=ignored)
            else:
                shutil.copy(ROOT / part, source)
        if name == "newer":
            for file in ("pyproject.toml", "shm/shmconf/__init__.py"):
                text = (source / file).read_text()
                assert f'version = "{version()}"' in text or f'__version__ = "{version()}"' in text
                (source / file).write_text(text.replace(f'"{version()}"', f'"{newer}"'))
        _run(*made, *(["--no-deps"] if name == "newer" else []), f"{source}{extra}", cwd=place)
    return wheels


def version() -> str:
    """Of shmconf as it is."""
    import shmconf

    return shmconf.__version__


class ServiceHost:
    """The box with shmconf installed in it. `close` it in the end."""

    def __init__(self, wheels: Path) -> None:
        """Boots and installs; nothing is started."""
        self.box = Box()
        try:
            self.boot_seconds = self.box.boot()
            self._install(wheels)
        except BaseException:
            self.box.close()
            raise

    def _install(self, wheels: Path) -> None:
        # What the machine has there, whatever it is used for. The file is one that only a box has.
        leftovers = "/opt/* /root/* /etc/shmconf /var/lib/shmconf* /srv/shop"
        self.box.run("/bin/sh", "-ec", f"test -e /etc/box; rm -rf {leftovers}")
        shutil.copytree(wheels, self.box.path("/root/wheels"))
        shutil.copytree(ROOT / "systemd", self.box.path("/root/systemd"))
        self.box.write("/root/pip.conf", "[global]\nno-index = true\nfind-links = /root/wheels\n")
        self.sh(*manual("Install", 0))
        self.sh("install -m 0644 example-worker.service /etc/systemd/system")
        # An application with its own user and environment, and somebody who has no business here.
        self.sh(
            "useradd --system --user-group web",
            "useradd --system --user-group stranger",
            f"mkdir -p {SHOP}",
            f"python3 -m venv --without-pip {SHOP}/venv",
            f"/opt/shmconf/bin/pip --python {SHOP}/venv/bin/python install shmconf=={version()}",
        )
        shutil.copy(_QUICKSTART / "worker.py", self.box.path(f"{SHOP}/worker.py"))
        self.put_config()

    def put_config(self) -> None:
        """The quickstart's files as they are, in /etc/shmconf."""
        config = self.box.path(CONFIG)
        for file in _QUICKSTART.rglob("*"):
            if (file.is_file() and file.suffix in (".toml", ".yaml", ".json")) or file.name == "settings.py":
                self.box.write(f"{CONFIG}/{file.relative_to(_QUICKSTART)}", file.read_text())
        (config / "local.yaml").unlink(missing_ok=True)

    def sh(self, *lines: str, **properties: str) -> str:
        """Lines typed by root into a shell in a copy of systemd/, where pip knows the wheels. Their output; each must
        succeed."""
        start = ["set -e", "cd /root/systemd", "export PIP_CONFIG_FILE=/root/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1"]
        self.box.write("/root/typed.sh", "\n".join([*start, *(f"{{ {line}; }}" for line in lines)]) + "\n")
        return self.box.run("/bin/bash", "/root/typed.sh", **properties).stdout

    def shmconf(self, *arguments: str, user: str = "root", **properties: str) -> subprocess.CompletedProcess[str]:
        """`shmconf ARGUMENTS` of a user."""
        return self.box.run("/opt/shmconf/bin/shmconf", *arguments, check=False, User=user, **properties)

    def status(self, **properties: str) -> tuple[int, dict[str, Any]]:
        """What `shmconf status web --format json` exits with and prints."""
        done = self.shmconf("status", "web", "--format", "json", **properties)
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def version(self) -> int:
        """That the segment `web` has now."""
        return int(self.status()[1]["version"])

    def pool(self, size: int) -> None:
        """An edit: this machine's own value of db.pool.size."""
        self.box.write(f"{CONFIG}/local.yaml", f"db:\n  pool:\n    size: {size}\n")

    def break_files(self) -> None:
        """An edit that is refused."""
        self.box.write(f"{CONFIG}/local.yaml", "db: [\n")

    def drop_in(self, unit: str, text: str) -> None:
        """Settings of the operator's own, as `systemctl edit` makes them."""
        self.box.write(f"{UNITS}/{unit}.d/override.conf", text)
        self.box.systemctl("daemon-reload")

    def without_drop_ins(self) -> None:
        """The units as shipped again."""
        found = list(self.box.path(UNITS).glob("*.service.d"))
        for directory in found:
            shutil.rmtree(directory)
        if found:
            self.box.systemctl("daemon-reload")

    def main_pid(self, unit: str = "shmconf") -> int:
        """As it is numbered in the box; 0 if the unit is not running."""
        return int(self.box.show(unit, "MainPID"))

    def pid_outside(self, inside: int) -> int:
        """As this process of the box is numbered outside."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    status = (entry / "status").read_text()
                    same = (entry / "ns/pid").readlink() == Path(f"/proc/{self.box.leader}/ns/pid").readlink()
                except OSError:
                    continue
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if same and int(numbers[-1]) == inside:
                    return int(entry.name)
        raise ProcessLookupError(inside)

    def replace_systemd(self, packages: Path) -> None:
        """Reboot with the systemd of these Debian packages."""
        for package in packages.glob("*.deb"):
            shutil.copy(package, self.box.path("/root"))
            unpack = "tar --extract --keep-directory-symlink --directory=/"
            self.sh(f"dpkg-deb --fsys-tarfile /root/{package.name} | {unpack}")
        self.box.power_off()
        self.box.boot()

    def close(self) -> None:
        """The end of the box."""
        self.box.close()


