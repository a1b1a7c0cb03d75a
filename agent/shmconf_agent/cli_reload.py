"""The verbs that ask agents to do something now: reload, rollback, resume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

import shmconf
from shmconf.directories import reader_directories

from .cli_terminal import waiting
from .completion import HeldDigest, KeptVersion, SegmentName
from .events import problem_from, still_serving
from .exits import DONE, FAILED, INVALID, TIMED_OUT, UNAVAILABLE
from .one_line import visible
from .options import FORMAT, Options, Seconds, pass_options
from .reload import BUSY, GONE, HELD, PUBLISHED, REJECTED, ROLLED_BACK, TIMEOUT, UNCHANGED, digest_beginning
from .reload import UNAVAILABLE as UNAVAILABLE_AGENT
from .render import let_through, to_resume, user

if TYPE_CHECKING:
    from .admin_client import Answer

_CODES = {
    ROLLED_BACK: DONE,
    PUBLISHED: DONE,
    UNCHANGED: DONE,
    REJECTED: INVALID,
    TIMEOUT: TIMED_OUT,
    BUSY: TIMED_OUT,
    GONE: UNAVAILABLE,
    UNAVAILABLE_AGENT: UNAVAILABLE,
}  # whatever else there is, FAILED, HELD and REFUSED among it, is a failure
_WORST = (DONE, INVALID, TIMED_OUT, UNAVAILABLE, FAILED)
_TIMEOUT = click.option(
    "--timeout", type=Seconds(3600), default=60.0, show_default=True, help="Give up after so many seconds."
)


@click.command(short_help="Have the agent read its files now; tell the outcome.")
@click.argument("segment", type=SegmentName(), required=False)
@_TIMEOUT
@click.option("--accept", type=HeldDigest(), metavar="DIGEST", help="Publish this candidate, which the guard holds.")
@FORMAT
@pass_options
@click.pass_context
def reload(
    context: click.Context, options: Options, segment: str | None, timeout: float, accept: str | None, form: str
) -> None:
    """Have the agent read its files as they are now, and say what came of it; without SEGMENT, every agent here.

    Nothing is published while a rollback is held: that takes `shmconf resume`.

    Blocks until every file was read whole, the agent's own too, after this command was called. A file that is being
    written is waited for. Usually there is no need to: agents see changes by themselves.

    A candidate that the guard holds ([segment.NAME.guard] of shmconf.toml) is published with --accept and its digest,
    or the digest's first 8 digits or more: that content alone, and only if the files still make it.

    \b
    Exit codes:
      0   what is served is what the files say (published, or unchanged)
      78  the files are invalid: rejected, with every problem
      75  no verdict within --timeout
      69  no agent for the segment, or the agent does not know it
      1   a rollback is held; or valid but not served (held by the guard, say, or
          another digest than --accept); or no right to ask
    Of several segments the worst counts, in the order 1, 69, 75, 78, 0.

    \b
    Examples:
      shmconf reload
      shmconf reload web --timeout 10
      shmconf reload web --accept 3f9a12bc45de
    """
    from .admin_client import reload_all, reload_segment  # the verbs that only read start faster without it

    if accept is not None:
        if segment is None:
            raise click.UsageError("--accept needs a SEGMENT")
        beginning = digest_beginning(accept)
        if beginning is None:
            text = f"{accept!r} is not a digest, nor its first 8 hexadecimal digits or more."
            raise click.BadParameter(text, param_hint="--accept")
        accept = beginning
    places = reader_directories(options.reading_directory())
    with waiting("waiting for the agents' verdicts" if segment is None else f"waiting for the verdict on {segment}"):
        if segment is not None:
            answers = [reload_segment(segment, places, timeout, accept)]
        else:
            answers = reload_all(places, timeout)
    if not answers:
        raise shmconf.SegmentNotFound(f"no agent in {', '.join(str(place.path) for place in places)}")
    if form == "json":
        told = [{**answer.fields, "message": answer.message} for answer in answers]
        click.echo(json.dumps(told[0] if segment is not None else told, indent=2, ensure_ascii=False))
    else:
        for answer in answers:
            _print(answer)
    context.exit(max((_CODES.get(answer.verdict, FAILED) for answer in answers), key=_WORST.index))


@click.command(short_help="Serve a kept version again, and hold it.")
@click.argument("segment", type=SegmentName())
@click.argument("version", type=KeptVersion())
@click.option("--force", is_flag=True, help="Go on although the version is not valid today, or the disk is full.")
@_TIMEOUT
@FORMAT
@pass_options
@click.pass_context
def rollback(
    context: click.Context, options: Options, segment: str, version: int, force: bool, timeout: float, form: str
) -> None:
    """Have the agent publish a kept version again, and hold it until `shmconf resume`.

    VERSION is a number of `shmconf history`. Its content becomes a new version, with a number of its own; readers have
    it at once. From then on edits of the files are read, judged and told, and not published, across restarts of the
    agent and reboots too: `shmconf status`, the log and the metrics say so until somebody resumes.

    The version must be valid by the schema and the check as they are now; the guard is not asked. If it is not, nothing
    happens, and every problem is told at its place in the files as they were then; --force goes on all the same.

    \b
    Exit codes:
      0   it is served, and held
      78  not valid by today's schema or check: nothing was changed
      75  no answer within --timeout: `shmconf status` says what is served
      69  no agent for the segment
      1   the version is not kept, could not be published, or no right to ask

    \b
    Examples:
      shmconf rollback web 41
      shmconf rollback web 41 --force --format json
      shmconf history web
      shmconf diff web 41
    """
    from .admin_client import roll_back

    places = reader_directories(options.reading_directory())
    with waiting(f"waiting for {segment} to be rolled back"):
        answer = roll_back(segment, places, timeout, version, force=force)
    if form == "json":
        _print_json(answer)
    elif answer.verdict == ROLLED_BACK:
        fields = answer.fields
        click.echo(f"{segment}: version {fields['version']}, a rollback of version {version}")
        if fields["problems"]:
            click.echo("FORCED, although:")
            _print_problems(answer)
        click.echo(f"HELD: edits of the files will not be published before: {to_resume(segment)}")
    elif answer.message is not None:
        click.echo(f"shmconf: {answer.message}", err=True)
    else:
        click.echo(f"{segment}: not rolled back, {still_serving(answer.fields['version'])}")
        _print_problems(answer)
        if answer.verdict == REJECTED:
            click.echo(f"the places are those in the files of version {version}; to go on all the same: "
                       f"shmconf rollback {segment} {version} --force")
    context.exit(_CODES.get(answer.verdict, FAILED))


@click.command(short_help="Follow the files again after a rollback.")
@click.argument("segment", type=SegmentName())
@_TIMEOUT
@FORMAT
@pass_options
@click.pass_context
def resume(context: click.Context, options: Options, segment: str, timeout: float, form: str) -> None:
    """Have the agent follow the files again after a rollback, and say what came of it.

    The hold ends at once, whatever the files say; then they are read as they are now, as by `shmconf reload`, and this
    blocks for the verdict. If they are invalid, or the guard holds what they make, what is served stays until they are
    repaired, or let through. Of a segment with `commit`, what was committed last is taken. Where nothing is held it is
    a reload, and says so.

    \b
    Exit codes:
      0   what is served is what the files say, whether something was held or not
      78  resumed; the files are invalid, and what is served stays
      75  resumed; no verdict within --timeout
      69  no agent for the segment
      1   resumed, and the guard holds what the files make; or still held, for the
          reason told; or no right to ask

    \b
    Examples:
      shmconf resume web
      shmconf diff web
    """
    from .admin_client import resume

    places = reader_directories(options.reading_directory())
    with waiting(f"waiting for the verdict on {segment}"):
        answer = resume(segment, places, timeout)
    if form == "json":
        _print_json(answer)
    else:
        if answer.message is None and answer.fields.get("hold") is None:
            released = answer.fields.get("released")
            was = f"the rollback of version {released['version']} is held no more" if released else "nothing was held"
            click.echo(f"{segment}: {was}; the files are followed")
        _print(answer)
    context.exit(_CODES.get(answer.verdict, FAILED))


def _print_json(answer: Answer) -> None:
    click.echo(json.dumps({**answer.fields, "message": answer.message}, indent=2, ensure_ascii=False))


def _print_problems(answer: Answer) -> None:
    for problem in answer.fields["problems"]:
        click.echo(str(problem_from(problem)))


def _print(answer: Answer) -> None:
    if answer.message is not None:
        click.echo(f"shmconf: {answer.message}", err=True)
        return
    hold = answer.fields.get("hold")
    version, files = answer.fields["version"], answer.fields["waited_for"]
    if answer.verdict in (PUBLISHED, UNCHANGED):
        text = f"version {version}, {answer.verdict}"
    elif hold is not None:
        of = f"a rollback of version {hold['version']} since {hold['since']} by {user(hold['uid'])}"
        text = f"{answer.verdict}, {still_serving(version)}, {of}"
    else:
        text = f"{answer.verdict}, {still_serving(version)}"
        if (released := answer.fields.get("released")) is not None:
            text += f", a rollback of version {released['version']}"
    commit = answer.fields.get("awaits_commit")
    if commit and answer.verdict in (PUBLISHED, UNCHANGED, REJECTED):
        text += f"; what changed since waits for {commit} to change"
    waited = f" (waited for {visible(', '.join(files))})" if files else ""
    click.echo(f"{answer.segment}: {text}{waited}")
    _print_problems(answer)
    if hold is not None:
        click.echo(f"to follow the files again: {to_resume(answer.segment)}")
    elif answer.verdict == HELD and answer.fields.get("held"):
        click.echo(let_through(answer.segment, answer.fields["held"]))
