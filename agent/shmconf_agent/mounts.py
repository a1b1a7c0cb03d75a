"""What is mounted where, as far as it decides whether changes can be heard of."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Mount", "blind_type", "mounts"]


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    dev: int
    point: str
    type: str


# What another machine, or the host of a container or a virtual machine, changes there raises no event here.
_BLIND = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "prl_fs",
    "smb3", "smbfs", "vboxsf", "virtiofs",
}  # fmt: skip


def mounts(table: str = "/proc/self/mountinfo") -> tuple[Mount, ...]:
    """What is mounted where, as this process sees it; nothing where the system does not tell."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as lines:
            return tuple(filter(None, map(_mount, lines)))
    except OSError:
        return ()


def _mount(line: str) -> Mount | None:
    fields = line.split()
    try:
        major, minor = fields[2].split(":")
        kind = fields[fields.index("-", 6) + 1]
        point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), os.fsencode(fields[4]))
        return Mount(os.makedev(int(major), int(minor)), os.fsdecode(point), kind)
    except (IndexError, ValueError):
        return None


def blind_type(dev: int, table: Mapping[int, str]) -> str | None:
    """The type of the file system `dev` if changes made elsewhere raise no event here. `table`: types by device."""
    kind = table.get(dev, "")
    return kind if kind in _BLIND or kind == "fuse" or kind.startswith("fuse.") else None
