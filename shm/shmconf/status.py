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
_OPTIONAL = {"last_error": str, "last_error_at": int, "held": str}  # what may be None, and its type where it is not
_HOLD_RANGES = {"version": (1, 2**64 - 1), "epoch": (0, 2**64 - 1), "since": (0, 2**63 - 1), "uid": (0, 2**32 - 1)}


@dataclass(frozen=True, slots=True)
class Hold:
    """A rollback that holds: the files are read and judged, and not published until somebody resumes.

    version and epoch: of the kept version that is served again, under a number of its own. since: in ns since 1970.
    uid: of the user who asked for it. forced: although it is not valid by today's schema or check. candidate: the
    digest of what the files make now, where that is valid and other than what is served; None otherwise.
    """

    version: int
    epoch: int
    since: int
    uid: int
    forced: bool = False
    candidate: str | None = None

    @classmethod
    def of(cls, told: Any) -> Hold:
        """What was told of it, as a map. Unknown keys are passed over. Raises ValueError for what is none."""
        if not isinstance(told, dict):
            raise ValueError("a hold is a map")
        known = {entry.name: told[entry.name] for entry in dataclasses.fields(cls) if entry.name in told}
        for name, value in known.items():
            kind = bool if name == "forced" else str if name == "candidate" else int
            if type(value) is not kind and not (name == "candidate" and value is None):
                raise ValueError(f"a hold's {name} is of another type")
            if name in _HOLD_RANGES and not _HOLD_RANGES[name][0] <= told[name] <= _HOLD_RANGES[name][1]:
                raise ValueError(f"a hold's {name} is out of range")
            if isinstance(value, str) and not value.isascii():
                raise ValueError(f"a hold's {name} is no digest")
        try:
            return cls(**known)
        except TypeError:
            raise ValueError("a hold lacks what it has to say") from None

    def as_map(self) -> dict[str, Any]:
        """For msgpack and JSON; without a candidate where there is none."""
        told = dataclasses.asdict(self)
        if self.candidate is None:
            del told["candidate"]
        return told


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The agent's own account.

    state: 'starting', 'running' or 'stopped'. last_error and problems: why the newest files are not what is served;
    None and () while they are. Times in ns since 1970. stale: what is served is the last known good from before the
    agent's start. warnings: what an operator should know though nothing failed. held: the digest of a valid candidate
    that the guard holds back, for the reasons in `problems`; None for none. hold: the rollback that is held; None for
    none.
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
    held: str | None = None
    hold: Hold | None = None

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
        if self.held is None:
            del told["held"]
        if self.hold is None:
            del told["hold"]
        else:
            told["hold"] = self.hold.as_map()
        return told


@dataclass(frozen=True, slots=True)
class Status:
    """How a segment and its agent are, as one reader sees them.

    agent_alive: a heartbeat within 3 s and not stopped. heartbeat_age in seconds, None without a heartbeat. version 0:
    nothing published yet. published_at in ns since 1970. retries counts this reader's tries that a concurrent
    publication made worthless; reopened counts how often it moved to a replacement of the segment. rollback_of: the
    kept version that this one is a rollback of, whether it is held (`hold`) or not any more; None for one of the files.
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
    rollback_of: int | None = None
    agent: AgentStatus = field(default_factory=AgentStatus)

    @property
    def last_error(self) -> str | None:
        """Why the newest files are not what is served; None while they are."""
        return self.agent.last_error

    @property
    def held(self) -> str | None:
        """The digest of a valid candidate that the guard holds back, for the reason in `last_error`; None for none."""
        return self.agent.held

    @property
    def hold(self) -> Hold | None:
        """The rollback that is held: the files are not published until somebody resumes; None for none."""
        return self.agent.hold

    @property
    def serving_last_known_good(self) -> bool:
        """Whether the files are invalid now, or what is served is from before the agent's start; False at version 0."""
        return self.version > 0 and (self.agent.last_error is not None or self.agent.stale)


def _checked(entry: dataclasses.Field[Any], value: Any) -> Any:
    if entry.name == "hold":
        return None if value is None else Hold.of(value)
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
