"""What the admin socket shows of segments: their status, and a segment's configuration without its secrets.

Both are read from the segment, as any reader would, so that nothing is told that is not served.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from shmconf.directories import Directory
from shmconf.errors import Error, SegmentNotFound
from shmconf.opening import open_attachment
from shmconf.reader import read_status
from shmconf.snapshot import Snapshot
from shmconf.status import AgentStatus

from .masking import masked, noted_paths
from .render import as_json, status_fields
from .tally import Totals

__all__ = ["MOST_BYTES", "Configuration", "Unserved", "statuses"]

MOST_BYTES = 8 << 20
"""Of a configuration's document: one that is larger would keep the agent busy for too long."""
_MOST_KEPT = 1 << 20


class Unserved(Exception):
    """There is nothing to show, or too much. status: of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def statuses(directory: Directory, totals: Mapping[str, Totals]) -> list[dict[str, Any]]:
    """Of each segment what `shmconf status --format json` prints, or `error`: why it cannot be had."""
    return [_status(directory, name, each) for name, each in totals.items()]


class Configuration:
    """The configurations of segments, as JSON without secrets. Belongs to one thread at a time."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._kept: tuple[tuple[str, int, int], bytes] | None = None  # the last answer, for those who ask all the time

    def body(self, segment: str) -> bytes:
        """Version, digest and the merged tree of what is served now. Raises Unserved."""
        try:
            attachment = open_attachment(self._directory, segment)
            note = attachment.copy_note()
            if note is not None and self._kept is not None:
                of, body = self._kept
                if of == (segment, attachment.epoch, note.version):
                    return body
            content = attachment.copy_latest()
        except SegmentNotFound as error:
            raise Unserved(404, str(error)) from None
        except Error as error:
            raise Unserved(500, str(error)) from None
        if content is None:
            raise Unserved(404, f"segment {segment!r} has no published version")
        snapshot = Snapshot(content)
        of = segment, snapshot.epoch, snapshot.version
        if len(content.payload) > MOST_BYTES:
            size = f"{len(content.payload):,} bytes"
            raise Unserved(413, f"the configuration has {size}, too many to be shown here: see `shmconf get {segment}`")
        tree, notes = as_json(masked(snapshot.to_dict(), noted_paths(snapshot.metadata)))
        head = {"segment": segment, "version": snapshot.version, "epoch": snapshot.epoch, "digest": snapshot.digest}
        told = json.dumps({**head, "notes": notes}, indent=2).removesuffix("\n}")
        body = f'{told},\n  "config": {tree}\n}}\n'.encode("utf-8", "backslashreplace")
        self._kept = (of, body) if len(body) <= _MOST_KEPT else None
        return body


def _status(directory: Directory, name: str, totals: Totals) -> dict[str, Any]:
    try:
        status = read_status(name, open_attachment(directory, name))
    except Error as error:
        return {"segment": name, "error": str(error)}
    whole = totals.standing.status
    if AgentStatus.decode(whole.encode()) == status.agent:  # the segment has what there is room for
        status = dataclasses.replace(status, agent=whole)
    return status_fields(status)
