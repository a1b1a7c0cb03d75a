"""What is mounted where, as far as it decides whether changes can be heard of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "MOUNT_DIRECTORY",
    "NEVER_CHANGES",
    "Mount",
    "is_blind",
    "is_layered",
    "mount_of",
    "mounted_files",
    "mounts",
    "never_changes",
]


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    dev: int
    point: str
    type: str


# What another machine, or the host of a container or a virtual machine, changes there raises no event here.
_BLIND = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fakeowner", "gfs2", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "osxfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs",
}  # fmt: skip
# What is changed in the directories below it, past the file system itself, raises no event here.
_LAYERED = {"aufs", "ecryptfs", "overlay", "unionfs"}


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


def mount_of(path: str, table: Iterable[Mount]) -> Mount | None:
    """The mount that the real, absolute `path` is in: the last of those with the longest point, which covers others."""
    found: Mount | None = None
    for mount in table:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def mounted_files(reals: Iterable[str], table: Iterable[Mount]) -> list[str]:
    """Those of the files, by real path, that are mount points themselves, in order."""
    return sorted(set(reals) & {mount.point for mount in table})


NEVER_CHANGES = (
    "is mounted as a single file (subPath in Kubernetes): a new version put in its place on the host is never seen here"
)
"""What is so of a file that is a mount point, in words that go on from its name."""
MOUNT_DIRECTORY = "mount its directory instead"


def never_changes(point: str) -> str:
    """The same in sentences."""
    return f"{point} {NEVER_CHANGES}. {MOUNT_DIRECTORY.capitalize()}."


def is_blind(kind: str) -> bool:
    """Whether changes made elsewhere raise no event here, on a file system of this type."""
    return kind in _BLIND or kind == "fuse" or kind.startswith("fuse.")


def is_layered(kind: str) -> bool:
    """Whether it shows directories of another file system, changes to which, past it, raise no event here."""
    return kind in _LAYERED

