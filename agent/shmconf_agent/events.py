"""What the agent reports as it goes: one event, one line, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .problems import Problem
from .render import duration

_MOST_PROBLEMS = 3  # of a rejection's line; `shmconf status` and `shmconf check` show them all
_MOST_FILES = 4


@dataclass(frozen=True, slots=True)
class Published:
    """A new version is visible. seconds: the work from reading to publication; files: those that changed."""

    segment: str
    version: int
    digest: str
    seconds: float
    files: tuple[str, ...]
    size: int
    stale: bool = False

    def line(self) -> str:
        """`web: version 42 published in 3.1 ms (conf.d/10-db.yaml)`."""
        shown = ", ".join(self.files[:_MOST_FILES])
        if len(self.files) > _MOST_FILES:
            shown += f" and {len(self.files) - _MOST_FILES} more"
        what = "last known good, from before this start" if self.stale else shown
        suffix = f" ({what})" if what else ""
        return f"{self.segment}: version {self.version} published in {duration(self.seconds)}{suffix}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "event": "published",
            "segment": self.segment,
            "version": self.version,
            "digest": self.digest,
            "seconds": self.seconds,
            "changed_files": list(self.files),
            "payload_bytes": self.size,
            "stale": self.stale,
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """The files as they are now were refused; `version` is still served (0: nothing is)."""

    segment: str
    version: int
    problems: tuple[Problem, ...]

    def line(self) -> str:
        """`web: rejected, still serving version 41: base.yaml:3:7: …`."""
        shown = "; ".join(str(problem) for problem in self.problems[:_MOST_PROBLEMS])
        if len(self.problems) > _MOST_PROBLEMS:
            shown += f"; and {len(self.problems) - _MOST_PROBLEMS} more"
        return f"{self.segment}: rejected, {still_serving(self.version)}: {' '.join(shown.split())}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "event": "rejected",
            "segment": self.segment,
            "serving_version": self.version,
            "problems": [problem_fields(problem) for problem in self.problems],
        }


@dataclass(frozen=True, slots=True)
class Said:
    """Anything else worth a line: repaired, warnings, start and stop. segment None: of the agent itself."""

    segment: str | None
    text: str
    version: int | None = None

    def line(self) -> str:
        """The text behind whom it is about."""
        return f"{self.segment or 'shmconf'}: {self.text}"

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"event": "message", "segment": self.segment, "version": self.version, "message": self.text}


Event = Published | Rejected | Said
Say = Callable[[Event], None]


def still_serving(version: int) -> str:
    """What still holds after a rejection."""
    return f"still serving version {version}" if version else "nothing is served yet"


def problem_fields(problem: Problem) -> dict[str, Any]:
    """A problem for JSON."""
    return {"file": problem.file, "line": problem.line, "column": problem.column, "message": problem.message}


def as_json_line(event: Event) -> str:
    """One line of JSON, with the time in RFC 3339."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": now, **event.fields()}, ensure_ascii=False)
