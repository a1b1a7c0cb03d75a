"""What is published: the segment's own checksums, its agent and what that says, and the last known good on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import shmconf
from shmconf.attachment import Content
from shmconf.directories import SUFFIX, Directory
from shmconf.opening import Attached, open_attachment
from shmconf.reader import read_status
from shmconf.snapshot import Snapshot

from .doctor_finding import Finding, Level, Topic, of_words
from .doctor_places import user_name
from .history import History
from .kept_version import KeptVersion
from .render import UNPUBLISHABLE, duration, hold_text, let_through, to_resume

__all__ = ["examine_segment", "status_of"]


def status_of(segment: str, places: Sequence[Directory]) -> shmconf.Status | None:
    """The status of a segment that can be read; else None."""
    try:
        attachment = _open(segment, places)
        return None if attachment is None else read_status(segment, attachment)
    except shmconf.Error:
        return None


def examine_segment(segment: str, places: Sequence[Directory], state: Path) -> list[Finding]:
    """One segment. places: where a reader looks, in order. Nothing is written."""
    status = status_of(segment, places)  # before it is looked up what is kept, which may be newer, then
    return [*_published(segment, places), *_kept(segment, state, status)]


def _open(segment: str, places: Sequence[Directory]) -> Attached | None:
    """Raises shmconf.Error for a file that is there and cannot be used."""
    for place in places:
        try:
            return open_attachment(place, segment)
        except shmconf.SegmentNotFound as error:
            if isinstance(error.__cause__, PermissionError):
                raise
    return None


def _published(segment: str, places: Sequence[Directory]) -> list[Finding]:
    try:
        attachment = _open(segment, places)
    except shmconf.Error as error:
        advice = "start an agent: it replaces what is damaged; who may write the file and its directory is to be mended"
        return [_finding(Level.FAILURE, Topic.SEGMENT, segment, str(error), advice)]
    if attachment is None:
        return [_finding(Level.NOTE, Topic.AGENT, segment, "is not there yet", "start its agent with `shmconf run`")]
    status = read_status(segment, attachment)
    return [*_user(segment, attachment), *_agent(status), _verified(segment, attachment)]


def _verified(segment: str, attachment: Attached) -> Finding:
    where = attachment.path
    try:
        content = attachment.copy_latest()
        if content is None:
            return Finding(Level.NOTE, Topic.SEGMENT, where, "nothing was published yet", segment=segment)
        if (noted := Snapshot(content).digest) != (digest := hashlib.sha256(content.payload).hexdigest()):
            raise shmconf.SegmentCorrupt(f"version {content.version} has the digest {digest[:12]}, not {noted[:12]}")
    except shmconf.SegmentBusy as error:
        return Finding(Level.NOTE, Topic.SEGMENT, where, f"could not be verified: {error}", segment=segment)
    except shmconf.Error as error:
        advice = "restart the agent: it replaces the segment"
        return Finding(Level.FAILURE, Topic.SEGMENT, where, f"is damaged: {error}", advice, segment)
    return Finding(Level.OK, Topic.SEGMENT, where, _whole(content), segment=segment)


def _whole(content: Content) -> str:
    size = len(content.payload) + len(content.index) + len(content.metadata)
    return f"version {content.version} is whole: the checksums of its {size:,} bytes fit"


def _user(segment: str, attachment: Attached) -> list[Finding]:
    """Rights are judged as this user has them; the agent may be another."""
    try:
        owner = os.stat(attachment.directory.path / f"{segment}{SUFFIX}").st_uid
    except OSError:
        return []
    if owner == os.geteuid():
        return []
    message = f"its agent ran as {user_name(owner)}; what is said here of rights is about {user_name(os.geteuid())}"
    return [_finding(Level.WARNING, Topic.USER, segment, message, f"run doctor as {user_name(owner)}")]


def _agent(status: shmconf.Status) -> list[Finding]:
    segment, agent = status.name, status.agent
    found = []
    if status.agent_alive:
        age = duration(status.heartbeat_age or 0.0)
        found.append(_finding(Level.OK, Topic.AGENT, segment, f"its agent is alive, process {agent.pid}, {age} ago"))
    else:
        message = "its agent is not alive: changes are not seen, and readers keep what is published"
        found.append(_finding(Level.WARNING, Topic.AGENT, segment, message, "start it with `shmconf run`"))
    if status.hold is not None:
        message = f"the files are not published: held, {hold_text(status.hold)}"
        found.append(_finding(Level.WARNING, Topic.HELD, segment, message, f"to follow them: {to_resume(segment)}"))
    if status.held is not None:
        message = f"the guard holds a valid candidate: {status.last_error}"
        found.append(_finding(Level.WARNING, Topic.REJECTED, segment, message, let_through(segment, status.held)))
    elif status.last_error is not None and status.last_error.startswith(UNPUBLISHABLE):
        message = f"the newest files are not served: {status.last_error}"
        advice = "make room, or raise the segment's max_bytes where that is the limit; it is tried again by itself"
        found.append(_finding(Level.WARNING, Topic.REJECTED, segment, message, advice))
    elif status.last_error is not None:
        advice = "`shmconf check` shows every problem; once they are mended the files are taken"
        message = f"the files were refused: {status.last_error}"
        found.append(_finding(Level.WARNING, Topic.REJECTED, segment, message, advice))
    return found + [
        _finding(Level.WARNING, Topic.AGENT_WARNING, segment, f"its agent warns: {warning}")
        for warning in agent.warnings
    ]


def _kept(segment: str, state: Path, status: shmconf.Status | None) -> list[Finding]:
    history = History(state, segment)
    where = str(history.path)
    if not history.path.exists():
        return []
    if not os.access(where, os.R_OK | os.X_OK, effective_ids=True):
        message = f"{user_name(os.geteuid())} may not look into it, which is the agent's alone"
        return [Finding(Level.NOTE, Topic.LAST_KNOWN_GOOD, where, message, segment=segment)]
    kept, problem = _newest(history)
    if problem is not None:
        advice = "once the agent has published again, its newest version is kept whole; the damaged file may be removed"
        return [Finding(Level.WARNING, Topic.LAST_KNOWN_GOOD, where, problem, advice, segment)]
    if kept is None:
        return [Finding(Level.NOTE, Topic.LAST_KNOWN_GOOD, where, "holds no version yet", segment=segment)]
    message = f"version {kept.version} is kept whole, for a start with invalid files"
    if status is not None and status.version and (kept.epoch != status.epoch or kept.version < status.version):
        message += f"; version {status.version}, which is served, is not kept yet"
        advice = "it is, as soon as the agent and its disk get to it; where they cannot, the agent warns"
        return [Finding(Level.NOTE, Topic.LAST_KNOWN_GOOD, where, message, advice, segment)]
    return [Finding(Level.OK, Topic.LAST_KNOWN_GOOD, where, message, segment=segment)]


def _newest(history: History) -> tuple[KeptVersion | None, str | None]:
    """The newest version that is kept, if any, and what is wrong with it or with a newer one."""
    try:
        if history.path.stat().st_uid in (0, os.geteuid()):
            newest = history.newest()
            return (None if newest is None else newest[0]), history.problem
        for entry in history.entries():  # somebody else's, whom only the agent would not believe
            history.payload(entry)
            return entry.kept, None
    except OSError as error:
        return None, f"cannot be read: {of_words(error)}"
    except shmconf.Error as error:
        return None, str(error)
    return None, None


def _finding(level: Level, topic: Topic, segment: str, message: str, advice: str | None = None) -> Finding:
    return Finding(level, topic, f"segment {segment}", message, advice, segment)
