"""What the log has of an event, whichever way it goes: priority, id, fields, and one line of text. Pure.

Every event becomes a Record here and nowhere else. The writers know nothing of events: `output` prints a record's text
or its JSON, `journal` sends its fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .events import Event, Published, Rejected, problem_from
from .log_kinds import Kind, Priority
from .one_line import json_line, one_line

__all__ = ["Record", "record_of"]

_MOST_VALUES = 200  # of one name: the journal takes no entry with more than 1,024 fields in all
IDENTIFIER = "shmconf"
"""What the journal has in front of each line, and `journalctl --identifier` asks for."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event. at: seconds since 1970; text: one line that can be printed; fields: the event's own, for JSON."""

    at: float
    kind: Kind
    text: str
    fields: Mapping[str, Any]
    is_verdict: bool
    """Whether it is what `run` prints to stdout: a publication or a rejection."""

    @property
    def priority(self) -> Priority:
        """Of syslog."""
        return self.kind.priority

    def json_line(self) -> str:
        """One line of JSON, with the time in RFC 3339."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        kind = {"kind": self.kind.label, "priority": int(self.priority), "message_id": self.kind.message_id}
        return json_line({"at": at, "message": self.text, **self.fields, **kind})

    def journal_fields(self) -> Iterator[tuple[str, str]]:
        """Names and values for the journal, which holds a name as often as it is given. README lists them."""
        yield "MESSAGE", self.text
        yield "PRIORITY", str(int(self.priority))
        yield "MESSAGE_ID", self.kind.message_id
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "KIND", self.kind.label
        fields = self.fields
        for name, key in (("SEGMENT", "segment"), ("VERSION", "version"), ("DIGEST", "digest"), ("REASON", "reason")):
            if fields.get(key) is not None:
                yield name, str(fields[key])
        for name, key in (("SECONDS", "seconds"), ("EDIT_TO_VISIBLE_SECONDS", "edit_to_visible_seconds")):
            if fields.get(key) is not None:
                yield name, f"{fields[key]:.6f}"
        if "serving_version" in fields:
            yield "VERSION", str(fields["serving_version"])
        if fields.get("held") is not None:
            yield "DIGEST", fields["held"]
        for code in dict.fromkeys(problem["code"] for problem in fields.get("problems", ())):
            yield "REASON", code
        problems = [str(problem_from(problem)) for problem in fields.get("problems", ())]
        yield from _counted("PROBLEM", problems, len(problems))
        files = fields.get("changed_files", ())
        yield from _counted("CHANGED_FILE", files, len(files))
        paths = fields.get("changed_paths") or {}
        for kind in paths.keys() - {"all_counted"}:
            yield from _counted(f"{kind.upper()}_PATH", paths[kind]["first"], paths[kind]["count"])


def _counted(name: str, values: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    if count:
        yield f"{name}S", str(count)
    for value in values[:_MOST_VALUES]:
        yield name, one_line(value)


def record_of(event: Event, at: float) -> Record:
    """The record of what happened at that time, in seconds since 1970."""
    is_verdict = isinstance(event, Published | Rejected)
    return Record(at, event.kind, one_line(event.line()), event.fields(), is_verdict)
