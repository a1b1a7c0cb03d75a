"""What stops file events from coming, or from telling everything, in sentences for the operator."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

from .mounts import is_blind, is_layered
from .self_test import DEADLINE_S

__all__ = ["POLL_S", "RESCAN_S", "cannot_be_watched", "is_deaf", "is_on", "no_events", "not_watched", "several"]

RESCAN_S = 1.0
"""How often the disk is looked at where events tell of changes, in seconds."""
POLL_S = 0.25
"""How often where they do not."""


def no_events(error: Exception) -> str:
    """Why there is no inotify instance."""
    polling = f"changes are found by looking every {POLL_S} s"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return (
            f"No more inotify instances or open files are to be had; {polling}. "
            "Raise fs.inotify.max_user_instances (sysctl) or the limit of open files."
        )
    if isinstance(error, ImportError):
        return f"File events need Linux and the package watchdog ({error}); {polling}."
    return f"File events cannot be had ({error}); {polling}."


def not_watched(error: OSError) -> str:
    """Why a directory has no watch."""
    polling = f"it is looked at every {POLL_S} s"
    if error.errno == errno.ENOSPC:
        return f"no more inotify watches are to be had; {polling}. Raise fs.inotify.max_user_watches (sysctl)."
    if error.errno == errno.EACCES:
        return f"that needs permission to read the directory; {polling}."
    return f"{error.strerror}; {polling}."


def cannot_be_watched(refused: Mapping[str, str]) -> list[str]:
    """A sentence for each reason. `refused`: directories, and why in the words of `not_watched`."""
    return [
        f"{several(path for path, why in refused.items() if why == reason)} cannot be watched: {reason}"
        for reason in dict.fromkeys(refused.values())
    ]


def is_deaf(directories: Iterable[str]) -> str:
    """These did not pass their self-test."""
    return (
        f"{several(directories)} raised no event within {DEADLINE_S:.0f} s of a change that was made there to test it; "
        f"it is looked at every {POLL_S} s."
    )


def is_on(types: Mapping[str, str]) -> list[str]:
    """A sentence for each type of file system that tells not everything. `types`: of each directory."""
    notes = []
    for kind in sorted(set(types.values())):
        where = several(path for path in types if types[path] == kind)
        if is_blind(kind):
            notes.append(
                f"{where} is on {kind}, where changes made elsewhere raise no events; it is looked at every {POLL_S} s."
            )
        elif is_layered(kind):
            notes.append(
                f"{where} is on {kind}, where changes made below it (on the host, in a lower layer) raise no events; "
                f"it is looked at every {RESCAN_S:.0f} s."
            )
    return notes


def several(paths: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    first, *others = sorted(paths, key=os.fsencode)
    return f"{first} and {len(others)} more" if others else first
