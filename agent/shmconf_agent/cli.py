"""The command line: options, verbs, and every failure turned into one line and the right exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import shmconf
from shmconf.directories import check_name, writer_directory

from . import cli_read, config
from .config import AgentConfig
from .events import problem_fields
from .exits import DONE, FAILED, INTERRUPTED, INVALID, UNAVAILABLE, USAGE
from .options import Options, UsageProblem, pass_options, state_directory
from .problems import Invalid
from .progress import Progress

_PATH = click.Path(path_type=Path, readable=False)  # whoever uses it says what is wrong with it
_FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


class Verbs(click.Group):
    """Turns what the verbs raise into one line on stderr (a line for each problem) and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run the verb."""
        try:
            return super().invoke(context)
        except Invalid as invalid:
            _fail(context, str(invalid), INVALID, prefix="")
        except shmconf.SegmentNotFound as error:
            _fail(context, str(error), UNAVAILABLE)
        except ValueError as error:
            if not isinstance(error, shmconf.InvalidName | shmconf.PathError):
                raise
            _fail(context, str(error), USAGE)
        except shmconf.Error as error:
            _fail(context, str(error), USAGE if isinstance(error, UsageProblem) else FAILED)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            where = f"{error.filename}: " if error.filename else ""
            _fail(context, f"{where}{error.strerror or error}", FAILED)
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)


def _fail(context: click.Context, message: str, code: int, prefix: str = "shmconf: ") -> None:
    click.echo(prefix + message, err=True)
    context.exit(code)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config_file", type=_PATH, metavar="FILE",
              help="The agent's file; else shmconf.toml here, then /etc/shmconf/shmconf.toml.")
@click.option("--runtime-dir", type=_PATH, metavar="D",
              help="Where segments live; else what the agent's file says, $SHMCONF_DIR, then /run/shmconf and the "
              "user's own places.")
@click.option("--state-dir", type=_PATH, metavar="D",
              help="Where the agent keeps what must outlive a reboot.")
@click.version_option(shmconf.__version__, package_name="shmconf", message="shmconf %(version)s")
@click.pass_context
def main(context: click.Context, config_file: Path | None, runtime_dir: Path | None, state_dir: Path | None) -> None:
    """Keep configuration files, validated and merged, in shared memory where every process reads them.

    An agent (run) watches the files of each segment and publishes them when, and only when, they are valid.
    Workers read with the Python package shmconf; get, watch and status show what they see.

    \b
    Exit codes:
      0   done                       69  no such segment, or no agent
      1   failed                     75  timed out, try again
      2   usage                      78  the configuration is invalid
      3, 4  of status: serving last known good, agent not alive
    """
    context.obj = Options(config_file, runtime_dir, state_dir)


def _sources_arguments(command: Any) -> Any:
    """--segment NAME SOURCE...: an agent's file on the command line."""
    command = click.argument("sources", nargs=-1, metavar="[SOURCE]...")(command)
    return click.option("--segment", metavar="NAME", help="Do without an agent's file: this segment from SOURCE...")(
        command
    )


@main.command()
@_sources_arguments
@_FORMAT
@pass_options
@click.pass_context
def run(context: click.Context, options: Options, segment: str | None, sources: tuple[str, ...], form: str) -> None:
    """Run the agent in the foreground.

    Prints a line for each publication and each rejection. An invalid edit is never published: the last good version
    stays, and the line says which file, line and column to look at. SIGTERM and SIGINT stop the agent; the segments
    stay for their readers. SIGHUP reads the agent's file and all sources again.

    \b
      shmconf run
      shmconf --config /etc/shmconf/shmconf.toml run
      shmconf run --segment web base.yaml conf.d/
    """
    from .output import Output  # the verbs that only read start faster without these
    from .service import Agent

    chosen = _agent_config(options, segment, sources)
    directory = writer_directory(options.runtime_dir or chosen.runtime_dir)
    state = state_directory(options.state_dir or chosen.state_dir)

    output = Output(as_json=form == "json")
    try:
        reload = options.load if segment is None else None
        code = Agent(chosen, directory, state, output.say, reload).run()
    finally:
        output.close()
    context.exit(code)


@main.command()
@_sources_arguments
@_FORMAT
@pass_options
@click.pass_context
def check(context: click.Context, options: Options, segment: str | None, sources: tuple[str, ...], form: str) -> None:
    """Try the files as they are now, without an agent and without publishing anything.

    Prints every problem of every segment as file:line:col: message and exits 78 if there is one, 0 otherwise.

    \b
      shmconf check
      shmconf check --segment web base.yaml conf.d/
    """
    from .trial import try_segment

    try:
        chosen = _agent_config(options, segment, sources)
        verdicts = [(each.name, try_segment(each, Progress())) for each in chosen.segments]
    except Invalid as invalid:
        verdicts = [("", invalid)]
    problems = [
        (name, problem) for name, verdict in verdicts if isinstance(verdict, Invalid) for problem in verdict.problems
    ]
    if form == "json":
        found = [{"segment": name or None, **problem_fields(problem)} for name, problem in problems]
        click.echo(json.dumps({"valid": not problems, "problems": found}, indent=2, ensure_ascii=False))
    else:
        for _, problem in problems:
            click.echo(str(problem))
        for name, verdict in verdicts:
            if not isinstance(verdict, Invalid):
                size = len(verdict.payload)
                files = f"{len(verdict.files)} file{'s' if len(verdict.files) != 1 else ''}"
                click.echo(f"{name}: valid, {files}, {size:,} bytes packed", err=True)
        if problems:
            click.echo(f"shmconf: {len(problems)} problem{'s' if len(problems) > 1 else ''} found", err=True)
    context.exit(INVALID if problems else DONE)


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), default=8, show_default=True, help="How many worker processes.")
@click.option("--plain", is_flag=True, help="No colours and no redrawing, as when the output is not a terminal.")
@click.pass_context
def demo(context: click.Context, workers: int, plain: bool) -> None:
    """See it work: an agent, eight workers, a good edit, a bad one, and an agent killed and started again.

    Uses a copy of a sample in a temporary directory, takes some seconds, leaves nothing behind, and exits 1 with the
    reason if anything did not happen as it should.
    """
    from .demo import run_demo

    context.exit(run_demo(workers, plain))


for verb in (cli_read.get, cli_read.watch, cli_read.status):
    main.add_command(verb)


def _agent_config(options: Options, segment: str | None, sources: tuple[str, ...]) -> AgentConfig:
    if segment is None:
        if sources:
            raise click.UsageError("sources on the command line go with --segment NAME")
        return options.load()
    if options.config is not None:
        raise click.UsageError("--config and --segment exclude each other")
    check_name(segment)
    try:
        return config.from_arguments(segment, sources, Path.cwd())
    except ValueError as error:
        raise click.UsageError(str(error)) from None

