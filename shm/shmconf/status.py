"""What the agent says of itself to every reader: the status block's body, and the Status that a reader makes of it.

The body is a small msgpack map of at most 4,080 bytes. Long texts are cut to fit, never dropped silently: a cut text
ends in '…', and problem_count says how many problems there were.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from . import codec, layout

ALIVE_SECONDS = 3.0  # without a heartbeat for longer the agent counts as dead
_OPTIONAL = {"last_error": str, "last_error_at": int}  # what may be None, and its type where it is not


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The agent's own account.

    state: 'starting', 'running' or 'stopped'. last_error and problems: why the newest files are not what is served;
    None and () while they are. Times in ns since 1970. stale: what is served is the last known good from before the
    agent's start. warnings: what an operator should know though nothing failed.
    """

    state: str = "starting"
    pid: int = 0
    agent_version: str = ""
    started_at: int = 0
    last_error: str | None = None
    last_error_at: int | None = None
    problems: tuple[str, ...] = ()
    problem_count: int = 0
    rejections: int = 0
    stale: bool = False
    warnings: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """At most 4,080 bytes of msgpack."""
        status = self
        texts = 4000
        while True:
            body = codec.pack(status._as_map(texts))
            if len(body) <= layout.STATUS_BODY_SIZE:
                return body
            if len(status.problems) > 1:
                status = dataclasses.replace(status, problems=status.problems[: len(status.problems) * 3 // 4])
            elif len(status.warnings) > 1:
                status = dataclasses.replace(status, warnings=status.warnings[: len(status.warnings) // 2])
            else:
                texts //= 2

    @classmethod
    def decode(cls, body: bytes) -> AgentStatus:
        """What `encode` wrote, by this release or another: unknown keys are passed over. Raises ValueError."""
        told = codec.unpack(body)
        if not isinstance(told, dict):
            raise ValueError("the status block is not a map")
        known = (entry for entry in dataclasses.fields(cls) if entry.name in told)
        return cls(**{entry.name: _checked(entry, told[entry.name]) for entry in known})

    def _as_map(self, texts: int) -> dict[str, Any]:
        told = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("problems", "warnings"):
            told[name] = [cut(text, texts) for text in told[name]]
        if self.last_error is not None:
            told["last_error"] = cut(self.last_error, texts)
        return told


@dataclass(frozen=True, slots=True)
class Status:
    """How a segment and its agent are, as one reader sees them.

    agent_alive: a heartbeat within 3 s and not stopped. heartbeat_age in seconds, None without a heartbeat. version 0:
    nothing published yet. published_at in ns since 1970. retries counts this reader's tries that a concurrent
    publication made worthless; reopened counts how often it moved to a replacement of the segment.
    """

    name: str
    path: str
    version: int
    epoch: int
    digest: str | None
    published_at: int | None
    agent_alive: bool
    heartbeat_age: float | None
    retired: bool
    retries: int
    reopened: int
    agent: AgentStatus = field(default_factory=AgentStatus)

    @property
    def last_error(self) -> str | None:
        """Why the newest files are not what is served; None while they are."""
        return self.agent.last_error

    @property
    def serving_last_known_good(self) -> bool:
        """Whether the files are invalid now, or what is served is from before the agent's start."""
        return self.agent.last_error is not None or self.agent.stale


def _checked(entry: dataclasses.Field[Any], value: Any) -> Any:
    kind = _OPTIONAL.get(entry.name, type(entry.default))
    if kind is tuple and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    if type(value) is kind or (value is None and entry.name in _OPTIONAL):
        return value
    raise ValueError(f"the status block's {entry.name} is of another type")


def cut(text: str, most: int) -> str:
    """`text` with at most `most` bytes of UTF-8, ending in '…' where something is missing."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most:
        return encoded.decode()
    return encoded[: max(0, most - 3)].decode("utf-8", "ignore") + "…"
