"""How the verb check tells what it found: each problem as a line on stdout, and the line that it is about on stderr."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from .cli_terminal import WIDEST, Waiting
from .events import problem_fields
from .excerpt import Excerpts
from .exits import DONE, INVALID
from .pipeline import Candidate
from .progress import Progress
from .trial import Trial


class Telling(Progress):
    """Tells whoever waits for `check` at what stage it is, and with which segment."""

    def __init__(self, told: Waiting, segment: str) -> None:
        """Begins with the reading of its files."""
        super().__init__()
        self._told, self._segment = told, segment
        told.text = f"checking {segment}: read"

    @contextmanager
    def stage(self, name: str, seconds: float) -> Iterator[None]:
        """See Progress."""
        self._told.text = f"checking {self._segment}: {name}"
        with super().stage(name, seconds):
            yield


def report(trials: Sequence[tuple[str, Trial]], form: str) -> int:
    """Prints the outcome of each segment, by name ("" for the agent's file), and returns the exit code."""
    problems = sum(len(trial.problems) for _, trial in trials)
    if form == "json":
        _as_json(trials)
    else:
        _as_text(trials)
        if problems:
            click.echo(f"shmconf: {problems} problem{'s' if problems > 1 else ''} found", err=True)
    return INVALID if problems else DONE


def _as_json(trials: Sequence[tuple[str, Trial]]) -> None:
    problems = [
        {"segment": name or None, **problem_fields(problem)} for name, trial in trials for problem in trial.problems
    ]
    warnings = [{"segment": name, **problem_fields(warning)} for name, trial in trials for warning in trial.warnings]
    told = {"valid": not problems, "problems": problems, "warnings": warnings}
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))


def _as_text(trials: Sequence[tuple[str, Trial]]) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
    for _, trial in trials:
        excerpts = Excerpts(trial.contents, trial.base, width)
        for problem in trial.problems:
            click.echo(str(problem))
            _show(excerpts.of(problem), "red")
        for warning in trial.warnings:
            click.echo(str(dataclasses.replace(warning, message=f"warning: {warning.message}")))
            _show(excerpts.of(warning), "yellow")
    for name, trial in trials:
        if isinstance(trial.verdict, Candidate):
            size = len(trial.verdict.document.payload)
            files = f"{len(trial.verdict.files)} file{'s' if len(trial.verdict.files) != 1 else ''}"
            click.echo(f"{name}: valid, {files}, {size:,} bytes packed", err=True)


def _show(excerpt: Sequence[str], colour: str) -> None:
    *line, mark = excerpt
    for text in line:
        click.echo(text, err=True)
    click.secho(mark, err=True, fg=colour)
