"""What the agent reports as it goes: one event, one line, for people or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .changed_paths import Comparison
from .log_kinds import Kind
from .problems import Code, Problem, format_path
from .render import duration, let_through

_LONGEST_LINE = 4000  # characters of a rejection's problems; those that would exceed it are counted
_MOST_FILES = 4


@dataclass(frozen=True, slots=True)
class Published:
    """A new version is visible. seconds: the work from reading to publication; files: those that changed; stages:
    seconds of each stage of that work, in order, which leave out what was waited for in between; edit_to_visible:
    seconds since the last edit that is in it, where that can be told; comparison: with the version before, where that
    is known, and made by the one who asks for `line` or `fields` first."""

    segment: str
    version: int
    digest: str
    seconds: float
    files: tuple[str, ...]
    size: int
    stale: bool = False
    stages: Mapping[str, float] = field(default_factory=dict)
    edit_to_visible: float | None = None
    comparison: Comparison | None = field(default=None, compare=False, repr=False)
    rollback_of: int | None = None

    @property
    def kind(self) -> Kind:
        """By which the log sorts it."""
        if self.rollback_of is not None:
            return Kind.ROLLED_BACK
        return Kind.LAST_KNOWN_GOOD if self.stale else Kind.PUBLISHED

    def line(self) -> str:
        """`web: version 42 published in 3.1 ms (conf.d/10-db.yaml); changed db.pool.size`."""
        shown = ", ".join(self.files[:_MOST_FILES])
        if len(self.files) > _MOST_FILES:
            shown += f" and {len(self.files) - _MOST_FILES} more"
        what = "last known good, from before this start" if self.stale else shown
        if self.rollback_of is not None:
            what = f"rollback of version {self.rollback_of}"
        suffix = f" ({what})" if what else ""
        paths = self.comparison and self.comparison.result()
        changed = f"; {paths.text()}" if paths else ""
        return f"{self.segment}: version {self.version} published in {duration(self.seconds)}{suffix}{changed}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        paths = self.comparison and self.comparison.result()
        return {
            "event": "published",
            "segment": self.segment,
            "version": self.version,
            "digest": self.digest,
            "seconds": self.seconds,
            "edit_to_visible_seconds": self.edit_to_visible,
            "changed_files": list(self.files),
            "changed_paths": paths.fields() if paths else None,
            "payload_bytes": self.size,
            "stale": self.stale,
            "rollback_of": self.rollback_of,
            "stages_ms": {stage: round(seconds * 1000, 3) for stage, seconds in self.stages.items()},
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """The files as they are now were refused; `version` is still served (0: nothing is).

    held: the digest of a candidate that is valid, and that the guard holds back for these reasons."""

    segment: str
    version: int
    problems: tuple[Problem, ...]
    held: str | None = None

    @property
    def kind(self) -> Kind:
        """By which the log sorts it."""
        return Kind.REJECTED if self.held is None else Kind.HELD

    def line(self) -> str:
        """`web: rejected, still serving version 41: base.yaml:3:7: …`."""
        shown = joined([" ".join(str(problem).split()) for problem in self.problems], "; ", _LONGEST_LINE)
        what = "rejected" if self.held is None else "held"
        if self.held is not None:
            shown += f"; {let_through(self.segment, self.held)}"
        return f"{self.segment}: {what}, {still_serving(self.version)}: {shown}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "event": "rejected",
            "segment": self.segment,
            "serving_version": self.version,
            "held": self.held,
            "problems": [problem_fields(problem) for problem in self.problems],
        }


@dataclass(frozen=True, slots=True)
class Said:
    """Anything else worth a line: repaired, warnings, start and stop. segment None: of the agent itself."""

    segment: str | None
    text: str
    version: int | None = None
    kind: Kind = Kind.WARNING

    def line(self) -> str:
        """The text behind whom it is about."""
        return f"{self.segment or 'shmconf'}: {self.text}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"event": "message", "segment": self.segment, "version": self.version, "message": self.text}


Event = Published | Rejected | Said
Say = Callable[[Event], None]


def joined(texts: Sequence[str], separator: str, longest: int) -> str:
    """As many of the texts as fit in so many characters, and at least one; the others are counted."""
    shown, room = 1, longest - len(texts[0])
    while shown < len(texts) and (room := room - len(separator) - len(texts[shown])) >= 0:
        shown += 1
    more = [f"and {len(texts) - shown:,} more"] if shown < len(texts) else []
    return separator.join([*texts[:shown], *more])


def still_serving(version: int) -> str:
    """What still holds after a rejection."""
    return f"still serving version {version}" if version else "nothing is served yet"


def problem_fields(problem: Problem) -> dict[str, Any]:
    """A problem for JSON; `path` as text."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "code": problem.code.value,
        "message": problem.message,
        "hint": problem.hint,
        "path": None if problem.path is None else format_path(problem.path),
    }


def problem_from(fields: dict[str, Any]) -> Problem:
    """What `problem_fields` wrote, without the path. Fields that it does not know are passed over."""
    code = fields.get("code")
    known = Code(code) if code in set(Code) else Code.OTHER
    return Problem(fields["message"], fields["file"], fields["line"], fields["column"], known, fields.get("hint"))
