"""The runtime and the state directory: whether the agent can use them, and whether readers may trust what is there.

Nothing is made or changed here. Rights are judged as this process has them.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

from shmconf.directories import Directory

from .doctor_finding import Finding, Level, Topic, of_words

__all__ = ["examine_places", "runtime_directory", "user_name"]

_OTHERS_MAY_WRITE = 0o022


def runtime_directory(places: Sequence[Directory]) -> Directory:
    """Which of the places an agent started now would take; the first where it can take none."""
    for place in places:
        if not _cannot_be_used(place):
            return place
    return places[0]


def examine_places(runtime: Directory, state: Path) -> list[Finding]:
    """Both directories."""
    found = [*_runtime(runtime), *_state(state)]
    if os.path.realpath(state) == os.path.realpath(runtime.path):
        advice = "choose a directory that outlives a reboot with --state-dir, or state_dir in the agent's file"
        both = Finding(Level.FAILURE, Topic.STATE_DIR, str(state), "is the runtime directory, too", advice)
        return [*found, both]
    return found


def user_name(uid: int) -> str:
    """The user's name, or number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _runtime(place: Directory) -> list[Finding]:
    where = str(place.path)
    advice = "give it to the agent's user, or choose another with --runtime-dir"
    if why := _cannot_be_used(place):
        return [Finding(Level.FAILURE, Topic.RUNTIME_DIR, where, f"cannot be used by {_me()}: {why}", advice)]
    try:
        status = os.stat(where)
    except OSError:
        return [Finding(Level.NOTE, Topic.RUNTIME_DIR, where, "is not there yet; an agent makes it")]
    found = []
    if status.st_mode & _OTHERS_MAY_WRITE and os.geteuid() != 0:
        message = f"may be written by others (mode {_mode(status)}): workers of other users refuse segments in it"
        found.append(Finding(Level.FAILURE, Topic.RUNTIME_DIR, where, message, f"chmod go-w {where}"))
    elif status.st_mode & _OTHERS_MAY_WRITE:
        message = f"may be written by others (mode {_mode(status)}), who can remove segments"
        found.append(Finding(Level.WARNING, Topic.RUNTIME_DIR, where, message, f"chmod go-w {where}"))
    elif status.st_uid != os.geteuid() != 0:
        message = f"belongs to {user_name(status.st_uid)}: workers of other users refuse the segments of {_me()} in it"
        found.append(Finding(Level.WARNING, Topic.RUNTIME_DIR, where, message, f"chown {_me()} {where}"))
    if place.named and not status.st_mode & 0o011:
        message = f"can be entered by its owner alone (mode {_mode(status)}): workers of other users find no segment"
        found.append(Finding(Level.WARNING, Topic.RUNTIME_DIR, where, message, f"chmod 0755 {where}"))
    return found or [Finding(Level.OK, Topic.RUNTIME_DIR, where, f"can be used by {_me()} (mode {_mode(status)})")]


def _cannot_be_used(place: Directory) -> str | None:
    """Why an agent of this user cannot use it, or make it."""
    try:
        status = os.stat(place.path, follow_symlinks=place.named)
    except FileNotFoundError:
        return _cannot_be_made(place.path, parents=False)
    except OSError as error:
        return of_words(error)
    if not stat.S_ISDIR(status.st_mode):
        return "not a directory"
    if not place.named and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
        return "its owner must be that user, and its mode 0700"
    if not os.access(place.path, os.W_OK | os.X_OK, effective_ids=True):
        return "no permission to write there"
    return None


def _state(state: Path) -> list[Finding]:
    where = str(state)
    advice = "give it to the agent's user, or choose another with --state-dir"
    nothing = "what is served does not outlive a reboot"
    try:
        status = os.stat(where)
    except FileNotFoundError:
        if why := _cannot_be_made(state, parents=True):
            message = f"is not there and cannot be made by {_me()} ({why}): {nothing}"
            return [Finding(Level.WARNING, Topic.STATE_DIR, where, message, advice)]
        return [Finding(Level.NOTE, Topic.STATE_DIR, where, "is not there yet; an agent makes it")]
    except OSError as error:
        return [Finding(Level.WARNING, Topic.STATE_DIR, where, f"{of_words(error)}: {nothing}", advice)]
    if not stat.S_ISDIR(status.st_mode):
        return [Finding(Level.WARNING, Topic.STATE_DIR, where, f"is not a directory: {nothing}", advice)]
    found = []
    if not os.access(where, os.W_OK | os.X_OK, effective_ids=True):
        message = f"cannot be written by {_me()} (mode {_mode(status)}): {nothing}"
        found.append(Finding(Level.WARNING, Topic.STATE_DIR, where, message, advice))
    if status.st_mode & _OTHERS_MAY_WRITE:
        message = f"may be written by others (mode {_mode(status)}): what is served after a reboot could be theirs"
        found.append(Finding(Level.WARNING, Topic.STATE_DIR, where, message, f"chmod go-w {where}"))
    if status.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        message = f"belongs to {user_name(status.st_uid)}, not to {_me()}"
        found.append(Finding(Level.WARNING, Topic.STATE_DIR, where, message, advice))
    return found or [Finding(Level.OK, Topic.STATE_DIR, where, f"can be used by {_me()} (mode {_mode(status)})")]


def _cannot_be_made(path: Path, *, parents: bool) -> str | None:
    parent = path.parent
    while parents and not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        return f"there is no directory {parent}"
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        return f"no permission to write in {parent}"
    return None


def _me() -> str:
    return user_name(os.geteuid())


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
