"""The verbs that look at a segment and need no agent's file: get, watch, status."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import shmconf
from shmconf.directories import SUFFIX, Directory, check_name, reader_directories
from shmconf.paths import MISSING, as_path, resolve
from shmconf.reader import find, read_status

from .cli_overview import fields, overview
from .cli_terminal import waiting
from .completion import SegmentName, TreePath
from .exits import DONE, FAILED, NOT_ALIVE, REJECTED, TIMED_OUT, UNAVAILABLE
from .masking import masked, noted_paths
from .options import FORMAT, Options, Seconds, pass_options
from .render import as_json, as_raw, as_yaml, status_fields, status_text, when

_POLL_SECONDS = 0.05
REVEAL = click.option("--reveal", is_flag=True, help="Show secrets, in the place of which *** stands otherwise.")


@click.command(short_help="Print the value that is now in shared memory.")
@click.argument("segment", type=SegmentName())
@click.argument("path", type=TreePath(), required=False)
@click.option("--format", "form", type=click.Choice(["yaml", "json", "raw"]), default="yaml", show_default=True,
              help="How the value is written.")
@REVEAL
@pass_options
def get(options: Options, segment: str, path: str | None, form: str, reveal: bool) -> None:
    """Print the value that is now in shared memory.

    PATH is a dotted path such as db.pool.size or hosts.0 (quote what has other characters: '"a.b".c'); without it
    the whole configuration is printed. JSON shows bytes as base64, dates and times as RFC 3339 text, and nan and the
    infinities as null; raw is a scalar without quotes and line end, or the msgpack document of a map or list.

    \b
    Exit codes:
      0   printed
      1   there is no such path, or the segment is damaged or not to be trusted
      2   usage: PATH is no path
      69  no such segment, or nothing was published yet

    \b
    Examples:
      shmconf get web
      shmconf get web db.pool.size
      shmconf get web db --format json
    """
    parsed = () if path is None else as_path(path)
    with shmconf.attach(segment, directory=options.reading_directory()) as reader:
        snapshot = reader.snapshot()
    value: Any = snapshot.to_dict() if path is None else snapshot.look_up(path if parsed else ())
    if value is MISSING:
        raise shmconf.Error(f"segment {segment!r}, version {snapshot.version}, has no {path}")
    write_value(value if reveal else _shown(snapshot, path, value), form)


@click.command(short_help="Print a line for each new version or value.")
@click.argument("segment", type=SegmentName())
@click.argument("path", type=TreePath(), required=False)
@FORMAT
@click.option("--after", type=click.IntRange(min=0), help="Begin after this version; 0 begins with the current one.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many lines.")
@click.option("--timeout", type=Seconds(), help="Exit with 75 after so many seconds without a version.")
@click.option("--wait", "wait", type=Seconds(), default=0.0, help="Wait so long for the segment.")
@REVEAL
@pass_options
@click.pass_context
def watch(
    context: click.Context,
    options: Options,
    segment: str,
    path: str | None,
    form: str,
    after: int | None,
    count: int | None,
    timeout: float | None,
    wait: float,
    reveal: bool,
) -> None:
    """Print a line for each new version, or only when the value at PATH changes.

    Goes on until it is interrupted, whatever becomes of the agent.

    \b
    Exit codes:
      0    --count lines were printed
      1    the segment's file is damaged or not to be trusted
      69   no such segment, or nothing was published yet
      75   --timeout: no new version came
      130  interrupted

    \b
    Examples:
      shmconf watch web
      shmconf watch web db.pool.size --format json
    """
    if path is not None:
        as_path(path)
    with shmconf.attach(segment, wait=wait, directory=options.reading_directory()) as reader:
        now = reader.snapshot()
        if after is None:
            after = now.version
            click.echo(f"watching {segment} from version {after}", err=True)
        value = MISSING if path is None or after < now.version else now.look_up(path)
        lines = 0
        for snapshot in reader.changes(after=after, timeout=timeout):
            if path is not None:
                before, value = value, snapshot.look_up(path)
                if same(before, value):
                    continue
            click.echo(_line(snapshot, path, value if reveal else _shown(snapshot, path, value), form))
            lines += 1
            if lines == count:
                return
    click.echo(f"no new version within {timeout:g} s", err=True)
    context.exit(TIMED_OUT)


@click.command(short_help="Say what is served, and whether the agent lives.")
@click.argument("segment", type=SegmentName(), required=False)
@FORMAT
@click.option("--wait-version", type=click.IntRange(min=1), help="Block until this version or a later one is there.")
@click.option("--timeout", type=Seconds(), help="Give up waiting after so many seconds (exit code 75).")
@pass_options
@click.pass_context
def status(
    context: click.Context,
    options: Options,
    segment: str | None,
    form: str,
    wait_version: int | None,
    timeout: float | None,
) -> None:
    """Say what is served, how old it is, and whether the agent lives; without SEGMENT, of all segments.

    \b
    Exit codes:
      0   healthy
      3   serving the last known good: the files as they are now were rejected,
          or the guard holds what they make
      4   the agent is not alive (no heartbeat for 3 s, or stopped)
      69  no such segment, or nothing was published yet
      1   a segment's file is damaged or not to be trusted
      75  --wait-version: not within --timeout
    Of several segments the worst counts, in the order 1, 69, 4, 3, 0.

    \b
    Examples:
      shmconf status
      shmconf status web --format json
      shmconf status web --wait-version 42 --timeout 10
    """
    directory = options.reading_directory()
    if wait_version is not None:
        if segment is None:
            raise click.UsageError("--wait-version needs a SEGMENT")
        check_name(segment)
        with waiting(f"waiting for version {wait_version} of {segment}"):
            there = _wait_for(directory, segment, wait_version, timeout)
        if not there:
            late = f"segment {segment!r} did not reach version {wait_version} within {timeout:g} s"
            click.echo(f"shmconf: {late}", err=True)
            context.exit(TIMED_OUT)
    elif timeout is not None:
        raise click.UsageError("--timeout goes with --wait-version")
    if segment is not None:
        only = read_status(segment, find(segment, directory))
        click.echo(json.dumps(status_fields(only), indent=2) if form == "json" else status_text(only))
        context.exit(_exit_code(only))
    statuses = _all_statuses(reader_directories(directory))
    if form == "json":
        click.echo(json.dumps(fields(statuses), indent=2))
    else:
        overview(statuses)
    context.exit(max(map(_exit_code, statuses.values()), key=(DONE, REJECTED, NOT_ALIVE, UNAVAILABLE, FAILED).index))


def write_value(value: Any, form: str) -> None:
    """A value on stdout; what its format cannot hold is noted on stderr."""
    if form == "raw":
        click.echo(as_raw(value), nl=False)
    elif form == "json":
        text, notes = as_json(value, indent=2)
        for note in notes:
            click.echo(f"shmconf: {note}", err=True)
        click.echo(text)
    else:
        click.echo(as_yaml(value), nl=False)


def _shown(snapshot: shmconf.Snapshot, path: str | None, value: Any) -> Any:
    """The value at the path without its secrets."""
    secrets = noted_paths(snapshot.metadata)
    if not secrets or value is MISSING:
        return value
    real = () if path is None else resolve(snapshot.to_dict(), path)
    return masked(value, secrets if real is not None else [()], real or ())


def _line(snapshot: shmconf.Snapshot, path: str | None, value: Any, form: str) -> str:
    published = when(snapshot.published_at)
    if form == "json":
        told: dict[str, Any] = {"version": snapshot.version, "published_at": published, "digest": snapshot.digest}
        if path is not None:
            told |= {"path": path, "present": value is not MISSING, "value": None if value is MISSING else value}
        return as_json(told)[0]
    if path is None:
        return f"{published}  version {snapshot.version}  {snapshot.digest[:12]}"
    shown = "(absent)" if value is MISSING else as_json(value)[0]
    return f"{published}  version {snapshot.version}  {path} = {shown}"


def same(before: Any, value: Any) -> bool:
    """Whether the value did not change, types included (1, 1.0 and true differ)."""
    if before is MISSING or value is MISSING:
        return before is value
    return shmconf.codec.pack(before) == shmconf.codec.pack(value)


def _wait_for(directory: Path | None, segment: str, version: int, timeout: float | None) -> bool:
    """Whether it is there in time."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        remaining = None if deadline is None else deadline - time.monotonic()
        try:
            with shmconf.attach(segment, directory=directory) as reader:
                if reader.wait_version(after=version - 1, timeout=remaining) is not None:
                    return True
        except shmconf.SegmentNotFound:
            time.sleep(_POLL_SECONDS if remaining is None else max(0.0, min(_POLL_SECONDS, remaining)))
        if deadline is not None and time.monotonic() >= deadline:
            return False


def _all_statuses(places: Sequence[Directory]) -> dict[str, shmconf.Status | str]:
    """The status of each segment by name, or why it cannot be had. Raises SegmentNotFound where there is none."""
    statuses: dict[str, shmconf.Status | str] = {}
    looked: list[str] = []
    for place in places:
        try:
            names = sorted(entry.name for entry in place.path.iterdir())
            looked.append(str(place.path))
        except OSError as error:
            why = "" if isinstance(error, FileNotFoundError) else f" ({(error.strerror or str(error)).lower()})"
            looked.append(f"{place.path}{why}")
            continue
        for name in names:
            segment = name.removesuffix(SUFFIX)
            if segment == name or name.startswith(".") or segment in statuses:
                continue
            try:
                statuses[segment] = read_status(check_name(segment), find(segment, place.path if place.named else None))
            except shmconf.Error as error:
                statuses[segment] = str(error)
    if not statuses:
        raise shmconf.SegmentNotFound(f"no segment in {', '.join(looked)}; is an agent running?")
    return statuses


def _exit_code(status: shmconf.Status | str) -> int:
    if isinstance(status, str):
        return FAILED
    if status.version == 0:
        return UNAVAILABLE
    if not status.agent_alive:
        return NOT_ALIVE
    return REJECTED if status.serving_last_known_good else DONE


