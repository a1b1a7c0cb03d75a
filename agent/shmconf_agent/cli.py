"""The command line: options, verbs, and every failure turned into one line and the right exit code."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import shmconf
from shmconf.directories import check_name, reader_directories, writer_directory

from . import cli_explain, cli_history, cli_read, cli_reload, config
from .cli_terminal import colourless, waiting
from .completion import DirectoryPath, SegmentName, SourceName
from .config import AgentConfig, SegmentConfig
from .exits import FAILED, INTERRUPTED, INVALID, UNAVAILABLE, USAGE
from .log_format import LogFormat
from .options import FORMAT, Options, UsageProblem, pass_options, state_directory
from .problems import Invalid

if TYPE_CHECKING:
    from .guard import Served

# Whoever uses one says what is wrong with it.
_FILE = click.Path(path_type=Path, readable=False)
_DIRECTORY = DirectoryPath(path_type=Path, readable=False)


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
        except UnicodeEncodeError as error:  # a value or a name that is not for this terminal
            wrong = error.object[error.start : error.end][:20]
            _fail(context, f"the output is in {error.encoding}, which has no {wrong!a}: choose a UTF-8 locale, or "
                  "set PYTHONIOENCODING=utf-8", FAILED)
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
@click.option("--config", "config_file", type=_FILE, metavar="FILE",
              help="The agent's file; else shmconf.toml here, then /etc/shmconf/shmconf.toml.")
@click.option("--runtime-dir", type=_DIRECTORY, metavar="D",
              help="Where segments live; else what the agent's file says, $SHMCONF_DIR, then /run/shmconf and the "
              "user's own places.")
@click.option("--state-dir", type=_DIRECTORY, metavar="D",
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
      3, 4  of status: serving last known good or holding a candidate; no agent

    \b
    Examples:
      shmconf run                          the agent, in the foreground
      shmconf check                        the files, before they are put in place
      shmconf get web db.pool.size         what workers read
      shmconf status                       all segments; `status web` tells more
    """
    context.obj = Options(config_file, runtime_dir, state_dir)
    context.color = False if colourless() else None  # for all that the verbs print by click; what rich prints asks, too


def _sources_arguments(command: Any) -> Any:
    """--segment NAME SOURCE...: an agent's file on the command line."""
    command = click.argument("sources", nargs=-1, type=SourceName(), metavar="[SOURCE]...")(command)
    return click.option(
        "--segment", type=SegmentName(), metavar="NAME", help="Do without an agent's file: this segment from SOURCE..."
    )(command)


@main.command(short_help="Run the agent in the foreground.")
@_sources_arguments
@click.option("--log-format", type=click.Choice([each.value for each in LogFormat]),
              help="Of the lines: text, json, or journal, for systemd's journal with fields. auto is journal where the "
              "output leads there, else text.  [default: auto]")
@click.option("--format", "form", type=click.Choice(["text", "json"]), help="The same as --log-format.")
@click.option("--metrics-textfile", "textfile", type=_FILE, metavar="FILE",
              help="Keep the metrics in FILE for node_exporter; else what the agent's file says.")
@pass_options
@click.pass_context
def run(
    context: click.Context,
    options: Options,
    segment: str | None,
    sources: tuple[str, ...],
    log_format: str | None,
    form: str | None,
    textfile: Path | None,
) -> None:
    """Run the agent in the foreground.

    Prints a line for each publication and each rejection. An invalid edit is never published: the last good version
    stays, and the line says which file, line and column to look at. SIGTERM and SIGINT stop the agent; the segments
    stay for their readers. SIGHUP reads the agent's file and all sources again; `shmconf reload` does, too, and waits
    for the outcome. As JSON, what happens is a line each, with the time that each stage of a publication took.

    \b
    Exit codes:
      0   stopped by SIGTERM or SIGINT
      1   it cannot go on: another agent has the segment, say
      2   usage
      78  the agent's file is invalid

    \b
    Examples:
      shmconf run
      shmconf --config /etc/shmconf/shmconf.toml run
      shmconf run --segment web base.yaml conf.d/
    """
    from .log_relay import relayed
    from .output import Output  # the verbs that only read start faster without these
    from .service import Agent

    if None not in (form, log_format) and form != log_format:
        raise click.UsageError("--format and --log-format are one option, and given with two values")
    chosen = _agent_config(options, segment, sources)
    directory = writer_directory(options.runtime_dir or chosen.runtime_dir)
    state = state_directory(options.state_dir or chosen.state_dir)
    if os.path.realpath(state) == os.path.realpath(directory.path):  # their files have the same names
        raise UsageProblem(f"{directory.path} is both the runtime and the state directory; choose a directory that "
                           "outlives a reboot with --state-dir")

    def with_textfile(config: AgentConfig) -> AgentConfig:
        return config if textfile is None else dataclasses.replace(config, metrics_textfile=textfile.absolute())

    output = Output(LogFormat(log_format or form or "auto"))
    try:
        reload = (lambda: with_textfile(options.load())) if segment is None else None
        with relayed(output.say):
            code = Agent(with_textfile(chosen), directory, state, output.say, reload).run()
    finally:
        output.close()
    context.exit(code)


@main.command(short_help="Try the files as they are now, publishing nothing.")
@_sources_arguments
@FORMAT
@pass_options
@click.pass_context
def check(context: click.Context, options: Options, segment: str | None, sources: tuple[str, ...], form: str) -> None:
    """Try the files as they are now, without an agent and without publishing anything.

    Prints every problem of every segment as file:line:col: message. The lines that they are about go to stderr, with
    the code of each problem, which docs/problems.md explains. Where a segment is served already, what its guard would
    hold is a warning, which does not change the exit code.

    \b
    Exit codes:
      0   valid
      2   usage, or there is no agent's file
      78  invalid

    \b
    Examples:
      shmconf check
      shmconf check --segment web base.yaml conf.d/
    """
    from .cli_check import Telling, report
    from .guard_trial import served_now
    from .trial import Trial, try_agent, try_segment

    notes: list[str] = []

    def served(each: SegmentConfig) -> Served | None:
        try:
            return None if each.guard is None else served_now(each.name, options.runtime_dir or chosen.runtime_dir)
        except shmconf.Error as error:
            notes.append(f"shmconf: the guard of segment {each.name!r} was left out: {error}")
            return None

    with waiting("reading the agent's file") as told:
        try:
            chosen = _agent_config(options, segment, sources)
            try_agent(chosen)
            trials = [
                (each.name, try_segment(each, Telling(told, each.name), served(each))) for each in chosen.segments
            ]
        except Invalid as invalid:
            trials = [("", Trial(invalid))]
    for note in notes:
        click.echo(note, err=True)
    context.exit(report(trials, form))


@main.command(short_help="Find what would stop reloads from being seen here.")
@_sources_arguments
@FORMAT
@pass_options
@click.pass_context
def doctor(context: click.Context, options: Options, segment: str | None, sources: tuple[str, ...], form: str) -> None:
    """Look for what would stop reloads from being seen here, with a running agent or without.

    Tries inotify and its limits, proves of each directory with sources that changes there are heard (by a dot-file that
    comes and goes), and looks at file systems, files that are mounted on their own, permissions, the runtime and the
    state directory, the agents' warnings and the segments' checksums. Each finding says what, where, and what to do;
    docs/doctor.md explains them. Run it as the agent's user: rights are judged as they are for whoever runs it.

    \b
    Exit codes:
      0   nothing found, or warnings alone
      1   something would stop reloads from being seen
      78  the agent's file is invalid

    \b
    Examples:
      shmconf doctor
      shmconf doctor --segment web base.yaml conf.d/
    """
    from .cli_doctor import of_problems, report
    from .doctor import examine

    try:
        chosen = _agent_config(options, segment, sources)
        places = reader_directories(options.runtime_dir or chosen.runtime_dir)
        with waiting("trying whether changes are heard of here"):
            findings = examine(chosen, places, state_directory(options.state_dir or chosen.state_dir))
    except Invalid as invalid:
        findings = of_problems(invalid.problems)
    context.exit(report(findings, form))


@main.command(short_help="See it work: edits, a bad one, a killed agent.")
@click.option("--workers", type=click.IntRange(1, 64), default=8, show_default=True, help="How many worker processes.")
@click.option("--plain", is_flag=True, help="No colours and no redrawing, as when the output is not a terminal.")
@FORMAT
@click.pass_context
def demo(context: click.Context, workers: int, plain: bool, form: str) -> None:
    """See it work: an agent, eight workers, a good edit, a bad one, and an agent killed and started again.

    Uses a copy of a sample in a temporary directory, takes some seconds and leaves nothing behind. Each line is printed
    after the thing was seen to happen.

    \b
    Exit codes:
      0   all of it happened
      1   something did not happen as it should: the reason is on stderr

    \b
    Examples:
      shmconf demo
      shmconf demo --workers 2 --plain
    """
    from .demo import run_demo

    context.exit(run_demo(workers, plain, as_json=form == "json"))


for verb in (
    cli_read.get, cli_read.watch, cli_read.status, cli_explain.explain_verb, cli_reload.reload, cli_history.diff,
    cli_history.history_verb, cli_reload.rollback, cli_reload.resume,
):  # fmt: skip
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

