"""What a shell offers at the TAB key: names of segments, paths into what they hold, digests, files.

click speaks with the shells (bash, zsh and fish: `_SHMCONF_COMPLETE=bash_source shmconf` prints what a shell is to
evaluate); here are the kinds of arguments that it asks. They offer, and say nothing else: where there is no segment, or
a broken one, there are no offers. Offers show keys, never values, which may be secret.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

import shmconf
from shmconf.directories import SUFFIX, InvalidName, check_name, reader_directories
from shmconf.paths import format_path

from .options import Options
from .render import when

_MOST = 500  # offers; who has more types another letter first
_PLAIN = re.compile(r"[\w@%+,./:=-]*", re.ASCII)


def _offers(make: Callable[[click.Context, str], Iterator[CompletionItem[str]]]) -> Any:
    """A method that offers, made silent: whatever goes wrong at a TAB key must not write into the user's line."""

    def shell_complete(
        self: click.ParamType[Any], context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        with contextlib.redirect_stderr(io.StringIO()), context.scope(cleanup=False):
            try:
                found = [item for _, item in zip(range(_MOST), make(context, incomplete), strict=False)]
            except Exception:
                return []
        return found

    return shell_complete


def _segments(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    names: set[str] = set()
    for place in reader_directories(_options(context).reading_directory()):
        with contextlib.suppress(OSError):
            names.update(entry[: -len(SUFFIX)] for entry in os.listdir(place.path) if entry.endswith(SUFFIX))
    for name in sorted(names):
        with contextlib.suppress(InvalidName):
            if check_name(name).startswith(incomplete):
                yield CompletionItem(name)


def _paths(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    """The children of the longest path that is typed; and if just one fits and has children, those too.

    By this a shell goes on from `d` to `db`, shows what is in it, and puts no space behind it.
    """
    with shmconf.attach(_segment(context), directory=_options(context).reading_directory()) as reader:
        tree = reader.snapshot().to_dict()
    fitting = [each for each in _below(tree, (), incomplete) if format_path(each[0]).startswith(incomplete)]
    if len(fitting) == 1:
        path, value = fitting[0]
        fitting += _children(value, path)
    for path, value in fitting:
        yield CompletionItem(format_path(path), help=_kind(value))


def _below(value: Any, path: tuple[Any, ...], incomplete: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The candidates one level below what is typed already."""
    for each, child in _children(value, path):
        if incomplete.startswith(format_path(each) + "."):
            yield from _below(child, each, incomplete)
        else:
            yield each, child


def _children(value: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]]:
    """What a path's text can lead to: it addresses text keys and indices."""
    if isinstance(value, dict):
        return [((*path, key), child) for key, child in value.items() if isinstance(key, str)]
    return [((*path, index), child) for index, child in enumerate(value)] if isinstance(value, list) else []


def _kind(value: Any) -> str:
    if isinstance(value, dict | list):
        what = "map" if isinstance(value, dict) else "list"
        return f"{what} of {len(value)}"
    return "null" if value is None else type(value).__name__


def _held(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    """The digest of the one candidate that may be accepted."""
    with shmconf.attach(_segment(context), directory=_options(context).reading_directory()) as reader:
        held = reader.status().held
    if held is not None and held.startswith(incomplete):
        yield CompletionItem(held)


def _versions(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    """The kept ones, the newest first."""
    from .history import History  # at a TAB for a version alone

    for entry in History(_options(context).reading_state(), _segment(context)).entries():
        version = str(entry.kept.version)
        if version.startswith(incomplete):
            yield CompletionItem(version, help=when(entry.kept.published_at))


def _files(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    yield CompletionItem(incomplete, type="file")


def _directories(context: click.Context, incomplete: str) -> Iterator[CompletionItem[str]]:
    yield CompletionItem(incomplete, type="dir")


class SegmentName(click.types.StringParamType):
    """A segment's name; those that there are are offered."""

    shell_complete = _offers(_segments)


class TreePath(click.types.StringParamType):
    """A path into the segment that is named before it."""

    shell_complete = _offers(_paths)


class HeldDigest(click.types.StringParamType):
    """The digest of a held candidate of the segment that is named before it."""

    shell_complete = _offers(_held)


class KeptVersion(click.IntRange):
    """The number of a version that is kept of the segment that is named before it."""

    shell_complete = _offers(_versions)

    def __init__(self) -> None:
        """From the first to the last that there can be."""
        super().__init__(1, 2**63 - 1)


class SourceName(click.types.StringParamType):
    """A file, directory or pattern that is taken as it is written."""

    shell_complete = _offers(_files)


class DirectoryPath(click.Path):
    """A directory that need not be there."""

    shell_complete = _offers(_directories)


@add_completion_class
class QuotingBash(BashComplete):
    """bash takes an offer as it stands into the line: one that the shell would read otherwise is quoted for it."""

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """As click's script for bash reads it."""
        if item.type != "plain" or _PLAIN.fullmatch(item.value):
            return super().format_completion(item)
        words = os.environ.get("COMP_WORDS", "").split(" ")
        quoted = item.value if words[-1][:1] in ("'", '"') else shlex.quote(item.value)
        return f"{item.type},{quoted}".replace("\\", "\\\\")  # the script's `read` takes a backslash for an escape


def _segment(context: click.Context) -> str:
    """The one that is named before; click has not sorted the words yet if an option waits for its value."""
    return str(context.params.get("segment") or context.args[0])


def _options(context: click.Context) -> Options:
    """The options before the verb, which has not been called."""
    given = context.find_root().params
    return Options(given.get("config_file"), given.get("runtime_dir"), given.get("state_dir"))
