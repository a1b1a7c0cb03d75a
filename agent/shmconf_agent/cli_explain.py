"""The verb that says where a value comes from: explain."""

from __future__ import annotations

from pathlib import Path as FilePath

import click

import shmconf
from shmconf.paths import as_path, resolve

from . import config
from .cli_read import REVEAL
from .cli_terminal import waiting
from .completion import SegmentName, SourceName, TreePath
from .exits import FAILED, INVALID
from .options import FORMAT, Options, pass_options, segment_of, state_directory
from .render import as_json


@click.command("explain", short_help="Say which file, line and column set a value.")
@click.argument("segment", type=SegmentName())
@click.argument("path", type=TreePath())
@click.argument("sources", nargs=-1, type=SourceName(), metavar="[SOURCE]...")
@FORMAT
@REVEAL
@pass_options
@click.pass_context
def explain_verb(
    context: click.Context,
    options: Options,
    segment: str,
    path: str,
    sources: tuple[str, ...],
    form: str,
    reveal: bool,
) -> None:
    """Say which file, line and column set a published value, and what it shadows.

    The places are those in the files as they are now if these make what is published, else those in the files as they
    were when it was published, which the agent keeps in the state directory, and that is said. Who may not read them is
    told the places in the files as they are now, or their problems if they are invalid. SOURCE... are the sources of an
    agent that runs without an agent's file.

    \b
    Exit codes:
      0   explained
      1   there is no such path, or the files as they are now do not tell
      2   usage: PATH is no path, or there is no agent's file
      69  no such segment, or nothing was published yet
      78  the files as they are now are invalid, and nothing else can tell

    \b
    Examples:
      shmconf explain web db.pool.size
      shmconf explain web hosts.0 --format json
      shmconf explain web db base.yaml conf.d/
    """
    from .explain import explain  # the verbs that only read start faster without these
    from .explain_text import fields, lines

    as_path(path)
    with shmconf.attach(segment, directory=options.reading_directory()) as reader:
        snapshot = reader.snapshot()
    real = resolve(snapshot.to_dict(), path)
    if real is None:
        raise shmconf.Error(f"segment {segment!r}, version {snapshot.version}, has no {path}")
    agent = config.from_arguments(segment, sources, FilePath.cwd()) if sources else options.load()
    state = state_directory(options.state_dir or agent.state_dir)
    with waiting(f"looking through the files of {segment}"):
        told = explain(snapshot, real, path, agent, segment_of(agent, segment, "behind PATH"), state, reveal=reveal)
    if form == "json":
        text, notes = as_json(fields(segment, snapshot, told), indent=2)
        click.echo(text)
        for note in notes:
            click.echo(f"shmconf: {note}", err=True)
    elif told.origins:
        click.echo("\n".join(lines(segment, snapshot, told)))
    for problem in told.problems:
        click.echo(str(problem), err=True)
    if told.kept_problem is not None:
        click.echo(f"shmconf: the history cannot tell: {told.kept_problem}", err=True)
    if not told.origins:
        why = "are invalid" if told.digest is None else f"have no {path}"
        click.echo(
            f"shmconf: the files as they are now {why}, so that they cannot tell what set {path} in version "
            f"{snapshot.version} of {segment!r}",
            err=True,
        )
        context.exit(INVALID if told.digest is None else FAILED)
