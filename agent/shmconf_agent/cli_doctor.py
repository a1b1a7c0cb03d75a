"""How the verb doctor tells what it found: a line for each finding, or on a terminal a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

import click
from rich.table import Table
from rich.text import Text

from .cli_terminal import console
from .disk import printable
from .doctor_finding import Finding, Level, Topic, count, together
from .exits import DONE, FAILED, INVALID
from .one_line import one_line, visible
from .problems import Problem

_STYLES = {Level.OK: "green", Level.NOTE: "dim", Level.WARNING: "yellow", Level.FAILURE: "bold red"}


def of_problems(problems: Sequence[Problem]) -> list[Finding]:
    """An agent's file that is invalid, as findings."""
    return [
        Finding(Level.FAILURE, Topic.AGENT_FILE, _place(problem), problem.message, problem.hint) for problem in problems
    ]


def report(findings: Sequence[Finding], form: str) -> int:
    """Prints the findings, and returns the exit code."""
    findings = [_printable(finding) for finding in findings]
    counts = count(findings)
    invalid = any(finding.topic is Topic.AGENT_FILE for finding in findings)
    if form == "json":
        _as_json(findings, counts[Level.FAILURE] == 0)
    else:
        shown = together([_in_one_line(finding) for finding in findings])
        if sys.stdout.isatty():
            _as_table(shown)
        else:
            _as_lines(shown)
        told = [_many(counts[level], level.word) for level in (Level.FAILURE, Level.WARNING)]
        click.echo(f"shmconf: {', '.join(told)}", err=True)
    return INVALID if invalid else FAILED if counts[Level.FAILURE] else DONE


def _as_json(findings: Sequence[Finding], healthy: bool) -> None:
    told = {"healthy": healthy, "findings": [finding.fields() for finding in findings]}
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))


def _as_lines(findings: Sequence[Finding]) -> None:
    for finding in findings:
        advice = f"; {finding.advice}" if finding.advice else ""
        line = f"{finding.level.word}: {finding.where}: {finding.message}{advice}"
        click.echo(line)


def _printable(finding: Finding) -> Finding:
    """With the bytes of names that are not UTF-8 as codes."""
    advice = None if finding.advice is None else printable(finding.advice)
    return replace(finding, where=printable(finding.where), message=printable(finding.message), advice=advice)


def _in_one_line(finding: Finding) -> Finding:
    """Without what a terminal obeys: a name may have that, or a line end, in it."""
    advice = None if finding.advice is None else one_line(finding.advice)
    return replace(finding, where=visible(finding.where), message=one_line(finding.message), advice=advice)


def _as_table(findings: Sequence[Finding]) -> None:
    screen = console()
    table = Table.grid(padding=(0, 1))
    table.add_column(width=len(Level.FAILURE.word))
    table.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.level]
        text = Text.assemble((finding.where, "bold"), "  ", finding.message)
        table.add_row(Text(finding.level.word, style=style), text)
        if finding.advice:
            arrow = "->" if screen.options.ascii_only else "→"
            table.add_row("", Text(f"{arrow} {finding.advice}", style="dim" if finding.level is Level.OK else ""))
    screen.print(table)


def _place(problem: Problem) -> str:
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)
    return place or "the agent's file"


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
