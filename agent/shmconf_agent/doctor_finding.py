"""What `shmconf doctor` finds, as data: what, where, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

__all__ = ["Finding", "Level", "Topic", "of_words", "together", "unique"]


class Level(enum.IntEnum):
    """How bad it is. A failure stops reloads from being seen, now or in time; a warning may."""

    OK = 0
    NOTE = 1
    WARNING = 2
    FAILURE = 3

    @property
    def word(self) -> str:
        """In one word."""
        return self.name.lower()


class Topic(enum.StrEnum):
    """What a finding is about; docs/doctor.md says what each means. A name stays, once it was in a release."""

    AGENT = "agent"
    AGENT_FILE = "agent-file"
    AGENT_WARNING = "agent-warning"
    EVENTS = "events"
    FILE_MOUNTED = "file-mounted"
    FILE_SYSTEM = "file-system"
    HELD = "held"
    INOTIFY_INSTANCES = "inotify-instances"
    INOTIFY_WATCHES = "inotify-watches"
    LAST_KNOWN_GOOD = "last-known-good"
    LIBYAML = "libyaml"
    NATIVE = "native"
    OPEN_FILES = "open-files"
    REJECTED = "rejected"
    RUNTIME_DIR = "runtime-dir"
    SEGMENT = "segment"
    SELF_TEST = "self-test"
    SOURCE = "source"
    STATE_DIR = "state-dir"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Finding:
    """where: a path, a setting or a segment. message: what is so, in words that go on from `where`. advice: what to do,
    where there is something to be done. segment: the one that it is about, if it is one alone."""

    level: Level
    topic: Topic
    where: str
    message: str
    advice: str | None = None
    segment: str | None = None

    def fields(self) -> dict[str, str | None]:
        """For JSON."""
        return {
            "level": self.level.word,
            "topic": self.topic.value,
            "segment": self.segment,
            "where": self.where,
            "message": self.message,
            "advice": self.advice,
        }


def unique(findings: Iterable[Finding]) -> list[Finding]:
    """Each once though several segments share what it is about, the worst of them, in the order of the first."""
    kept: dict[tuple[Topic, str, object], Finding] = {}
    for finding in findings:
        alone = finding.message if finding.topic in _MANY else None
        key = (finding.topic, finding.where, alone)
        if key not in kept or finding.level > kept[key].level:
            kept[key] = finding
    return list(kept.values())


_MANY = {Topic.AGENT_FILE, Topic.AGENT_WARNING, Topic.REJECTED, Topic.SOURCE, Topic.RUNTIME_DIR, Topic.STATE_DIR}


def together(findings: Iterable[Finding]) -> list[Finding]:
    """For people: what is well with one directory is one finding, in the place of the last."""
    findings = list(findings)
    systems = {
        finding.where: finding for finding in findings if finding.topic is Topic.FILE_SYSTEM and not finding.level
    }
    proved = {finding.where for finding in findings if finding.topic is Topic.SELF_TEST and not finding.level}
    shown = []
    for finding in findings:
        if finding.where in proved and finding is systems.get(finding.where):
            continue
        if finding.topic is Topic.SELF_TEST and not finding.level and finding.where in systems:
            finding = replace(finding, message=f"{finding.message}; it {systems[finding.where].message}")
        shown.append(finding)
    return shown


def of_words(error: OSError) -> str:
    """What the system says, as a part of a sentence."""
    words = error.strerror or type(error).__name__
    return words[:1].lower() + words[1:]


def count(findings: Iterable[Finding]) -> Mapping[Level, int]:
    """How many there are of each level."""
    counts = dict.fromkeys(Level, 0)
    for finding in findings:
        counts[finding.level] += 1
    return counts
