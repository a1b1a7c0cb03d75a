"""The verbs that look at a segment and need no agent's file: get, watch, status."""

from __future__ import annotations

import json
import time
from typing import Any

import click

import shmconf
from shmconf.directories import SUFFIX, check_name, reader_directories
from shmconf.paths import MISSING, as_path
from shmconf.reader import find, read_status

from .exits import DONE, FAILED, NOT_ALIVE, REJECTED, TIMED_OUT, UNAVAILABLE
from .options import Options, pass_options
from .render import as_json, as_raw, as_yaml, status_fields, status_text, when

_POLL_SECONDS = 0.05


@click.command()
@click.argument("segment")
@click.argument("path", required=False)
@click.option("--format", "form", type=click.Choice(["yaml", "json", "raw"]), default="yaml", show_default=True)
@pass_options
def get(options: Options, segment: str, path: str | None, form: str) -> None:
    """Print the value that is now in shared memory.

    PATH is a dotted path such as db.pool.size or hosts.0 (quote what has other characters: '"a.b".c'); without it
    the whole configuration is printed. Exits 1 where there is no such path and 69 where there is no such segment.

    \b
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
    write_value(value, form)


@click.command()
@click.argument("segment")
@click.argument("path", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--after", type=click.IntRange(min=0), help="Begin after this version; 0 begins with the current one.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many lines.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Exit with 75 after so many seconds without a version.")
@click.option("--wait", "wait", type=click.FloatRange(min=0), default=0.0, help="Wait so long for the segment.")
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
) -> None:
    """Print a line for each new version, or only when the value at PATH changes.

    Goes on until it is interrupted, whatever becomes of the agent.

    \b
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
                if _same(before, value):
                    continue
            click.echo(_line(snapshot, path, value, form))
            lines += 1
            if lines == count:
                return
    click.echo(f"no new version within {timeout:g} s", err=True)
    context.exit(TIMED_OUT)


@click.command()
@click.argument("segment", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--wait-version", type=click.IntRange(min=1), help="Block until this version or a later one is there.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Give up waiting after so many seconds (exit code 75).")
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
      3   serving the last known good: the files as they are now were rejected
      4   the agent is not alive (no heartbeat for 3 s, or stopped)
      69  no such segment, or nothing was published yet
      1   a segment's file is damaged or not to be trusted
      75  --wait-version: not within --timeout
    Of several segments the worst counts, in the order 1, 69, 4, 3, 0.
    """
    if wait_version is not None:
        if segment is None:
            raise click.UsageError("--wait-version needs a SEGMENT")
        _wait_for(options, segment, wait_version, timeout)
    elif timeout is not None:
        raise click.UsageError("--timeout goes with --wait-version")
    if segment is not None:
        statuses, unreadable = [_status_of(options, segment)], 0
    else:
        statuses, unreadable = _all_statuses(options)
    if not statuses and not unreadable:
        places = ", ".join(str(place.path) for place in reader_directories(options.reading_directory()))
        raise shmconf.SegmentNotFound(f"no segment in {places}; is an agent running?")
    if form == "json":
        fields = [status_fields(each) for each in statuses]
        click.echo(json.dumps(fields[0] if segment is not None else fields, indent=2))
    elif statuses:
        click.echo("\n".join(status_text(each) for each in statuses))
    codes = [_exit_code(each) for each in statuses] + [FAILED] * unreadable
    context.exit(max(codes, key=(DONE, REJECTED, NOT_ALIVE, UNAVAILABLE, FAILED).index))


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


def _line(snapshot: shmconf.Snapshot, path: str | None, value: Any, form: str) -> str:
    published = when(snapshot.published_at)
    if form == "json":
        fields: dict[str, Any] = {"version": snapshot.version, "published_at": published, "digest": snapshot.digest}
        if path is not None:
            fields |= {"path": path, "present": value is not MISSING, "value": None if value is MISSING else value}
        return as_json(fields)[0]
    if path is None:
        return f"{published}  version {snapshot.version}  {snapshot.digest[:12]}"
    shown = "(absent)" if value is MISSING else as_json(value)[0]
    return f"{published}  version {snapshot.version}  {path} = {shown}"


def _same(before: Any, value: Any) -> bool:
    """Whether the value did not change, types included (1, 1.0 and true differ)."""
    if before is MISSING or value is MISSING:
        return before is value
    return shmconf.codec.pack(before) == shmconf.codec.pack(value)


def _wait_for(options: Options, segment: str, version: int, timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        remaining = None if deadline is None else deadline - time.monotonic()
        try:
            with shmconf.attach(segment, directory=options.reading_directory()) as reader:
                if reader.wait_version(after=version - 1, timeout=remaining) is not None:
                    return
        except shmconf.SegmentNotFound:
            time.sleep(_POLL_SECONDS if remaining is None else max(0.0, min(_POLL_SECONDS, remaining)))
        if deadline is not None and time.monotonic() >= deadline:
            click.echo(f"segment {segment!r} did not reach version {version} within {timeout:g} s", err=True)
            raise click.exceptions.Exit(TIMED_OUT)


def _status_of(options: Options, segment: str) -> shmconf.Status:
    return read_status(segment, find(segment, options.reading_directory()))


def _all_statuses(options: Options) -> tuple[list[shmconf.Status], int]:
    """The status of each segment, and how many could not be had, each with its reason on stderr."""
    statuses: dict[str, shmconf.Status] = {}
    unreadable = 0
    for place in reader_directories(options.reading_directory()):
        try:
            names = sorted(entry.name for entry in place.path.iterdir())
        except OSError:
            continue
        for name in names:
            segment = name.removesuffix(SUFFIX)
            if segment == name or name.startswith(".") or segment in statuses:
                continue
            try:
                check_name(segment)
                statuses[segment] = _status_of(options, segment)
            except shmconf.Error as error:
                unreadable += 1
                click.echo(f"shmconf: {error}", err=True)
    return list(statuses.values()), unreadable


def _exit_code(status: shmconf.Status) -> int:
    if status.version == 0:
        return UNAVAILABLE
    if not status.agent_alive:
        return NOT_ALIVE
    return REJECTED if status.serving_last_known_good else DONE


