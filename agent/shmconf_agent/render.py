"""Values and statuses as text for people and as JSON for programs.

JSON has fewer types than a configuration: bytes become base64, dates and times RFC 3339 text, nan and the infinities
null, keys their text. `as_json` says what was lost, so that the command can note it on stderr.
"""

from __future__ import annotations

import base64
import json
import math
import pwd
from datetime import UTC, date, datetime, time
from typing import Any

import yaml

from shmconf import Hold, Status, codec

from .one_line import one_line
from .schema_view import key_text

DIGEST_DIGITS = 12
"""Of a digest that a person is shown, to type it again."""
_NS = 1_000_000_000


class _Dumper(yaml.SafeDumper):
    """Plain YAML; a time of day, which YAML has no type for, is quoted text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal values are written out: an alias would surprise whoever reads one part."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Line ends that only Unicode knows are written as escapes: plain, they would be read back as spaces."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(time, lambda dumper, value: dumper.represent_str(value.isoformat()))


def as_yaml(value: Any) -> str:
    """YAML text that ends in a newline; a lone scalar stands without document marks."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text if isinstance(value, dict | list) else text.removesuffix("...\n")  # a map may end in such a text


def as_json(value: Any, *, indent: int | None = None) -> tuple[str, list[str]]:
    """JSON text, and a note for each kind of thing that JSON could not hold."""
    notes: dict[str, None] = {}
    plain = _plain(value, notes)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=indent), list(notes)


def as_raw(value: Any) -> bytes:
    """A scalar without quotes and line end (bytes as they are); a map or list as its msgpack document."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict | list):
        return codec.pack(value)
    return key_text(value).encode()


def status_fields(status: Status) -> dict[str, Any]:
    """A status as a map for JSON output. Ages in seconds, times as RFC 3339."""
    return {
        "segment": status.name,
        "state": status_word(status),
        "version": status.version,
        "epoch": status.epoch,
        "digest": status.digest,
        "published_at": None if status.published_at is None else when(status.published_at),
        "age_seconds": age_seconds(status.published_at),
        "agent_alive": status.agent_alive,
        "agent_state": status.agent.state,
        "agent_pid": status.agent.pid or None,
        "agent_version": status.agent.agent_version or None,
        "heartbeat_age_seconds": status.heartbeat_age,
        "serving_last_known_good": status.serving_last_known_good,
        "held": status.held,
        "hold": hold_fields(status.hold),
        "rollback_of": status.rollback_of,
        "stale": status.agent.stale,
        "last_error": status.last_error,
        "last_error_at": None if status.agent.last_error_at is None else when(status.agent.last_error_at),
        "problems": list(status.agent.problems),
        "problem_count": status.agent.problem_count,
        "rejections": status.agent.rejections,
        "warnings": list(status.agent.warnings),
        "path": status.path,
    }


def status_word(status: Status) -> str:
    """How it is, in a word or a few: the same order of importance as the exit code."""
    if status.version == 0:
        return "nothing published"
    if not status.agent_alive:
        return "agent not alive"
    if status.held is not None:
        return "candidate held"
    if status.hold is not None:
        return "held by rollback"
    if status.serving_last_known_good:
        return "serving last known good"
    return "healthy"


def status_text(status: Status) -> str:
    """A status for people, in a few lines."""
    lines = [f"{status.name}: version {status.version}, {status_word(status)}"]
    if status.published_at is not None:
        seconds = age_seconds(status.published_at)
        lines.append(f"  published  {when(status.published_at)} ({duration(seconds or 0.0)} ago)")
    if status.digest:
        lines.append(f"  digest     {status.digest}")
    if status.hold is not None:
        lines.append(f"  HELD       {hold_text(status.hold)}")
        waits = "what the files make now" if status.hold.candidate else "edits"
        lines.append(f"             {waits} will not be published before: {to_resume(status.name)}")
    elif status.rollback_of is not None:
        lines.append(f"  rollback   of version {status.rollback_of}, not held any more")
    lines.append(f"  agent      {_agent_text(status)}")
    if status.last_error is not None:
        what = "rejected " if status.held is None else "held     "
        lines += [f"  {what}  {line}" for line in (status.agent.problems or (status.last_error,))]
        hidden = status.agent.problem_count - len(status.agent.problems)
        if status.agent.problems and hidden > 0:
            lines.append(f"  {what}  … and {hidden} more")
        if status.held is not None:
            lines.append(f"             {let_through(status.name, status.held)}")
    if status.agent.stale:
        lines.append("  stale      the last known good from before the agent's start")
    lines += [f"  warning    {warning}" for warning in status.agent.warnings]
    return "\n".join(map(one_line, lines))


UNPUBLISHABLE = "valid, but it cannot be published"
"""How the reason begins why valid files are not what is served."""


def let_through(segment: str, digest: str) -> str:
    """What a person does who has looked at a candidate that the guard holds, and wants it."""
    return f"to let it through: shmconf reload {segment} --accept {digest[:DIGEST_DIGITS]}"


def to_resume(segment: str) -> str:
    """What a person does who wants the files to be followed again."""
    return f"shmconf resume {segment}"


def hold_text(hold: Hold) -> str:
    """A rollback that is held, for people."""
    since = f"since {when(hold.since)} ({duration(age_seconds(hold.since) or 0.0)} ago)"
    forced = "; FORCED: it was not valid by the schema or check" if hold.forced else ""
    return f"a rollback of version {hold.version}, {since} by {user(hold.uid)}{forced}"


def hold_fields(hold: Hold | None) -> dict[str, Any] | None:
    """The same for JSON; None for none."""
    return None if hold is None else {**hold.as_map(), "since": when(hold.since), "candidate": hold.candidate}


def user(uid: int) -> str:
    """A user's name, else the number. Asks the user database."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"


def when(ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % _NS // 1_000_000:03d}Z"


def age_seconds(ns: int | None) -> float | None:
    """Seconds since a time in ns since 1970."""
    return None if ns is None else max(0.0, datetime.now(UTC).timestamp() - ns / _NS)


def duration(seconds: float) -> str:
    """A length of time to two figures or so."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s"


def _agent_text(status: Status) -> str:
    if status.agent_alive:
        return f"alive, process {status.agent.pid}, heartbeat {duration(status.heartbeat_age or 0.0)} ago"
    if status.agent.state == "stopped":
        return "stopped; readers go on with what is published"
    if status.heartbeat_age is None:
        return "no heartbeat; readers go on with what is published"
    return f"no heartbeat for {duration(status.heartbeat_age)}; readers go on with what is published"


def _plain(value: Any, notes: dict[str, None]) -> Any:
    if isinstance(value, dict):
        shown: dict[str, Any] = {}
        for key, item in value.items():
            text = key_text(key)
            if text in shown:
                notes[f"two keys of one map have the text {text!r}; the later one is shown"] = None
            shown[text] = _plain(item, notes)
        return shown
    if isinstance(value, list):
        return [_plain(item, notes) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        notes["JSON has no nan and no infinity: shown as null"] = None
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date | time):
        return value.isoformat()
    return value
