"""The verbs that look back: history, and diff between versions or with the files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeVar

import click

import shmconf
from shmconf import Hold
from shmconf.directories import check_name
from shmconf.paths import MISSING

from . import config
from .cli_read import REVEAL
from .cli_terminal import waiting
from .completion import KeptVersion, SegmentName, SourceName
from .difference import Kind
from .events import problem_fields
from .exits import DONE, FAILED, INVALID
from .options import FORMAT as _FORMAT
from .options import Options, pass_options, segment_of
from .problems import Invalid, Problem, format_path
from .render import DIGEST_DIGITS, as_json, hold_fields, user, when

if TYPE_CHECKING:
    from .comparison import Shown, Side
    from .history import Entry, History

_SIGNS = {Kind.ADDED: ("+", "green"), Kind.DELETED: ("-", "red"), Kind.CHANGED: ("~", "yellow")}
_T = TypeVar("_T")
_JUST_NOW_NS = 60_000_000_000  # after a publication so long ago it is kept, or will not be soon
_KEEPING_SECONDS = 5.0  # how long to wait for what may still be on its way to the disk
_POLL_SECONDS = 0.02
_MOST_SHOWN = 200  # characters of a value on a line; JSON has all of it
_BEFORE_SHOWN = 40  # of what two long values have in common, that many are shown before the first that differs


# --- history ----------------------------------------------------------------------------------------------------------


@click.command("history", short_help="List the kept versions, the newest first.")
@click.argument("segment", type=SegmentName())
@_FORMAT
@pass_options
def history_verb(options: Options, segment: str, form: str) -> None:
    """List the versions that the agent keeps in the state directory, the newest first.

    Of each: when it was published, its digest, how many keys it has, the files that made it differ from the version
    before, and whether it is the one that is served now, the last known good served again, or a rollback. Each is read
    whole; one that is damaged is told on stderr and stops nothing. Only root and the agent's user may look.

    \b
    Exit codes:
      0   done
      1   the history may not be read by this user
      69  no such segment

    \b
    Examples:
      shmconf history web
      shmconf diff web 41 42
      shmconf rollback web 41
    """
    from .history import History  # the verbs that only read a segment start faster without it

    check_name(segment)
    state = options.reading_state()
    history = History(state, segment)
    served = _served(options, segment, needed=not _told_whose(history.versions))
    _wait_until_kept(history, served)
    with waiting(f"reading the history of {segment}"):
        entries, damaged = _told_whose(history.verified)
    if form == "json":
        fields = {
            "segment": segment,
            "served": None if served is None else {"version": served.version, "epoch": served.epoch},
            "versions": [_version_fields(entry, served) for entry in entries],
            "damaged": damaged,
        }
        click.echo(as_json(fields, indent=2)[0])
    elif entries:
        _print_versions(entries, served)
    if not entries:
        hint = "--state-dir names another place"
        click.echo(f"shmconf: no version of {segment!r} is kept whole in {state} ({hint})", err=True)
    elif served is not None and served.version not in history.versions():
        click.echo(f"shmconf: version {served.version} is served, and not kept, or not yet", err=True)
    for text in damaged:
        click.echo(f"shmconf: {text}", err=True)


def _print_versions(entries: list[Entry], served: shmconf.Snapshot | None) -> None:
    from .cli_table import Column, Styled, show

    columns = (
        Column("version", right=True, whole=True), Column("published", whole=True), Column("digest", whole=True),
        Column("keys", right=True, whole=True), "what", "changed files",
    )  # fmt: skip
    rows = []
    for entry in entries:
        kept = entry.kept
        what = _what(entry, served)
        rows.append(
            (
                str(kept.version),
                when(kept.published_at)[:-5] + "Z",  # to the second
                kept.digest[:DIGEST_DIGITS],
                "" if kept.keys is None else f"{kept.keys:,}",
                Styled(what, "bold") if what.startswith("served") else what,
                ", ".join(kept.changed),
            )
        )
    show(columns, rows)


def _what(entry: Entry, served: shmconf.Snapshot | None) -> str:
    notes = ["served"] if _is(entry, served) else []
    rollback = _rollback(entry)
    if rollback is not None:
        forced = ", forced" if rollback.forced else ""
        notes.append(f"rollback of {rollback.version} by {user(rollback.uid)}{forced}")
    if entry.kept.stale:
        notes.append("last known good")
    return ", ".join(notes)


def _rollback(entry: Entry) -> Hold | None:
    """Of which version it is a rollback, and who asked; None for none, or what cannot be understood."""
    try:
        return Hold.of(entry.kept.metadata.get("rollback"))
    except ValueError:
        return None


def _is(entry: Entry, served: shmconf.Snapshot | None) -> bool:
    return served is not None and (entry.kept.epoch, entry.kept.version) == (served.epoch, served.version)


def _version_fields(entry: Entry, served: shmconf.Snapshot | None) -> dict[str, Any]:
    kept = entry.kept
    return {
        "version": kept.version,
        "epoch": kept.epoch,
        "published_at": when(kept.published_at),
        "digest": kept.digest,
        "keys": kept.keys,
        "files": list(kept.files),
        "changed_files": list(kept.changed),
        "payload_bytes": entry.payload_bytes,
        "served": _is(entry, served),
        "stale": kept.stale,
        "rollback": hold_fields(_rollback(entry)),
    }


# --- diff -------------------------------------------------------------------------------------------------------------


@click.command("diff", short_help="Show which paths differ between two versions.")
@click.argument("segment", type=SegmentName())
@click.argument("a", required=False, type=KeptVersion())
@click.argument("b", required=False, type=KeptVersion())
@click.option("--exit-code", "by_code", is_flag=True, help="Exit 1 if anything differs, as `git diff` does.")
@click.option("--source", "sources", multiple=True, type=SourceName(), metavar="SOURCE",
              help="A source of an agent that runs without an agent's file; may be repeated.")
@_FORMAT
@REVEAL
@pass_options
@click.pass_context
def diff(
    context: click.Context,
    options: Options,
    segment: str,
    a: int | None,
    b: int | None,
    by_code: bool,
    sources: tuple[str, ...],
    form: str,
    reveal: bool,
) -> None:
    """Show which paths differ, and their values before and after.

    With A and B, between these two versions; with A alone, between A and what is published; with neither, between what
    is published and the files as they are now, which go through the whole pipeline as in `check`, and through nothing
    else: nothing is published. A and B are numbers of `shmconf history`. A list is one value. Secrets are shown as ***.

    \b
      ~ db.pool.size   10 -> 20      changed
      + db.host        "db2"         added
      - cache.ttl      30            deleted

    \b
    Exit codes:
      0   done, whether anything differs or not
      1   a version is not kept; with --exit-code also: something differs
      69  no such segment, or nothing was published yet
      78  the files as they are now are invalid

    \b
    Examples:
      shmconf diff web
      shmconf diff web 41
      shmconf diff web 41 42 --format json
    """
    check_name(segment)
    if sources and a is not None:
        raise click.UsageError("--source is for a diff with the files: give no version with it")
    try:
        before, after = _sides(options, segment, a, b, sources)
    except Invalid as invalid:
        _print_invalid(segment, invalid.problems, form)
        context.exit(INVALID)
    from .comparison import compare

    found = compare(before, after, reveal=reveal)
    if form == "json":
        fields = {
            "segment": segment,
            "before": _side_fields(before),
            "after": _side_fields(after),
            "same": before.is_same(after),
            "changes": [_change_fields(each) for each in found],
            "problems": [],
        }
        text, notes = as_json(fields, indent=2)
        click.echo(text)
        for note in notes:
            click.echo(f"shmconf: {note}", err=True)
    else:
        _print_changes(segment, before, after, found)
    context.exit(FAILED if by_code and not before.is_same(after) else DONE)


def _sides(options: Options, segment: str, a: int | None, b: int | None, sources: tuple[str, ...]) -> tuple[Side, Side]:
    """What is to be compared. Raises Invalid for invalid files, NotKept, SegmentNotFound and others."""
    from .comparison import files_side, published_side
    from .history import History

    if a is not None:
        history = History(options.reading_state(), segment)
        served = _served(options, segment, needed=b is None)
        before = _version(history, a, served)
        if b is not None:
            return before, _version(history, b, served)
        assert served is not None
        return before, published_side(served)
    from .cli_check import Telling
    from .guard import Served
    from .trial import try_segment

    agent = config.from_arguments(segment, sources, FilePath.cwd()) if sources else options.load()
    served = _served(options, segment, needed=True)  # first: one that is nowhere is no mistake in the agent's file
    its = segment_of(agent, segment, "by --source")
    assert served is not None
    payload = served.payload
    with waiting(f"checking {segment}") as told:
        trial = try_segment(its, Telling(told, segment), Served(served.digest, lambda: payload))
    for warning in trial.warnings:
        click.echo(f"shmconf: warning: {warning}", err=True)
    if isinstance(trial.verdict, Invalid):
        raise trial.verdict
    return published_side(served), files_side(trial.verdict)


def _version(history: History, version: int, served: shmconf.Snapshot | None) -> Side:
    """A version by its number: the one that is served needs no history, and may not be in it yet."""
    from .comparison import kept_side, published_side

    if served is not None and served.version == version:
        return published_side(served)
    if served is not None and served.version > version:
        _wait_until_kept(history, served, version)
    return _told_whose(lambda: kept_side(history, version))


def _served(options: Options, segment: str, *, needed: bool) -> shmconf.Snapshot | None:
    """What is published; None where nothing is. Raises SegmentNotFound then if it is needed, and Error."""
    try:
        with shmconf.attach(segment, directory=options.reading_directory()) as reader:
            return reader.snapshot()
    except shmconf.Error as error:
        if needed:
            raise
        if not isinstance(error, shmconf.SegmentNotFound):
            click.echo(f"shmconf: what is served cannot be read: {error}", err=True)
        return None


def _wait_until_kept(history: History, served: shmconf.Snapshot | None, version: int | None = None) -> None:
    """Versions are kept behind their publication: give the disk a moment for the one that is served, or another one
    that was published just before it."""
    if served is None:
        return
    from .history_writer import MOST_WAITING

    version = served.version if version is None else version
    deadline = time.monotonic() + _KEEPING_SECONDS
    just_now = time.time_ns() - served.published_at < _JUST_NOW_NS
    if just_now and served.version - version <= MOST_WAITING:
        while version not in _told_whose(history.versions) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _told_whose(look: Callable[[], _T]) -> _T:
    """What `look` finds in the history. Raises Error where that is not for this user, and whatever it raises else."""
    try:
        return look()
    except PermissionError as error:
        text = f"{error.filename}: {error.strerror}: only root and the agent's user may look into the history"
        raise shmconf.Error(text) from None


def _print_invalid(segment: str, problems: Sequence[Problem], form: str) -> None:
    if form == "json":
        fields: dict[str, Any] = {"segment": segment, "before": None, "after": None, "same": None, "changes": []}
        fields["problems"] = [problem_fields(each) for each in problems]
        click.echo(as_json(fields, indent=2)[0])
        return
    for problem in problems:
        click.echo(str(problem))
    click.echo(f"shmconf: the files of {segment!r} as they are now are invalid, and make no version", err=True)


def _side_fields(side: Side) -> dict[str, Any]:
    published = None if side.published_at is None else when(side.published_at)
    return {
        "origin": side.origin,
        "version": side.version,
        "epoch": side.epoch,
        "published_at": published,
        "digest": side.digest,
    }


def _change_fields(shown: Shown) -> dict[str, Any]:
    change = shown.change
    return {
        "kind": change.kind.value,
        "path": format_path(change.path),
        "before": None if change.before is MISSING else change.before,
        "after": None if change.after is MISSING else change.after,
        "secret": shown.hidden,
    }


def _print_changes(segment: str, before: Side, after: Side, found: Sequence[Shown]) -> None:
    click.echo(f"{segment}: {before.name} ({_told_of(before)}) -> {after.name} ({_told_of(after)})")
    width = min(40, max((len(format_path(each.change.path)) for each in found), default=0))
    for each in found:
        sign, colour = _SIGNS[each.change.kind]
        click.secho(f"{sign} {format_path(each.change.path):<{width}}  {_values(each)}", fg=colour)
    counts = Counter(each.change.kind for each in found)
    if found:
        parts = ", ".join(f"{counts[kind]:,} {kind}" for kind in Kind if counts[kind])
        click.echo(f"{len(found):,} path{'s' if len(found) > 1 else ''}: {parts}")
    elif before.digest != after.digest:
        click.echo("nothing differs but the order of keys")
    elif not before.is_same(after):
        click.echo("nothing differs but which values are secret")
    else:
        click.echo("nothing differs")


def _told_of(side: Side) -> str:
    return f"{side.origin}, {side.digest[:DIGEST_DIGITS]}" if side.origin != "files" else side.digest[:DIGEST_DIGITS]


def _values(shown: Shown) -> str:
    """The values of a change, on one line."""
    sides = [value for value in (shown.change.before, shown.change.after) if value is not MISSING]
    texts = [as_json(value)[0] for value in sides]
    cut = _cut(texts)
    if len(cut) == 2 and cut[0] == cut[1] and not shown.hidden:  # a date and its text, say
        cut = [f"{text} ({type(value).__name__})" for text, value in zip(cut, sides, strict=True)]
    return " -> ".join(cut) + ("  (secret)" if shown.hidden else "")


def _cut(texts: Sequence[str]) -> list[str]:
    """Texts that are too long, from shortly before where they begin to differ."""
    begin = 0
    if len(texts) == 2 and max(map(len, texts)) > _MOST_SHOWN:
        least = min(map(len, texts))
        same = next((index for index in range(least) if texts[0][index] != texts[1][index]), least)
        begin = max(0, same - _BEFORE_SHOWN)
    shown = []
    for text in texts:
        part = text[begin : begin + _MOST_SHOWN]
        shown.append(("…" if begin else "") + part + ("…" if begin + _MOST_SHOWN < len(text) else ""))
    return shown
