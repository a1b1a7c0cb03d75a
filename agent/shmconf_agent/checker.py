"""The child in which a user's check runs: `python -P -m shmconf_agent.checker NAME DIRECTORY VERDICT_FD SECONDS`.

NAME is `pkg.module:name`. Reads the merged tree as msgpack from stdin, calls the check with it, and writes the verdict
to the descriptor VERDICT_FD: a msgpack list of [path, message], empty for a good tree. Stdout and stderr stay the
user's own. After SECONDS without a verdict it ends by itself: who would have killed it at its deadline was killed.

A check answers with None, an empty text or an empty iterable if all is well; else with a text, a (path, text)
pair, or an iterable of these. A path is dotted text or a tuple. What it raises, sys.exit included, is a
problem too.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from shmconf import codec
from shmconf.errors import PathError
from shmconf.paths import parse_path

from .nearest import did_you_mean

Verdict = list[list[Any]]

_MOST_PROBLEMS = 100
_LONGEST_MESSAGE = 1000


class BadAnswer(Exception):
    """What the check returned is none of the forms that it may answer in."""


def main() -> None:
    """Runs the check that the arguments name; ends the process with status 0 once the verdict is written."""
    spec, here, descriptor, longest = sys.argv[1], os.path.abspath(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    os.set_inheritable(descriptor, False)
    payload = sys.stdin.buffer.read()
    if not payload:  # whoever was going to ask is gone
        os._exit(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, longest)
    tree = codec.unpack(payload)
    # The directory of the configuration is watched: no __pycache__ may appear there, and no stale one serve.
    sys.dont_write_bytecode = True
    sys.path.insert(0, here)
    sys.argv = [spec]
    _write_all(descriptor, codec.pack(_judge(spec, tree, here)))
    # Threads and exit handlers of the user's modules have no say any more.
    os._exit(0)


def _judge(spec: str, tree: Any, here: str) -> Verdict:
    try:
        os.chdir(here)
    except OSError as error:
        return [[[], f"the check's directory {here} cannot be entered: {error.strerror}"]]
    try:
        check = _find(spec, here)
    except BadAnswer as error:
        return [[[], str(error)]]
    except BaseException as error:
        module = spec.partition(":")[0]
        return [[[], _short(f"the check's module {module!r} cannot be imported: {_told(error, here)}")]]
    try:
        return _read(check(tree), tree)
    except BadAnswer as error:
        return [[[], f"the check {spec} {error}"]]
    except BaseException as error:
        return [[[], _short(f"the check {spec} raised {_told(error, here)}")]]


def _find(spec: str, here: str) -> Callable[[Any], Any]:
    module_name, _, names = spec.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in names.split("."):
        if not hasattr(found, name):
            known = [own for own in dir(found) if not own.startswith("_")]
            file = _shown_file(getattr(sys.modules[module_name], "__file__", None) or module_name, here)
            hint = did_you_mean(name, known)
            raise BadAnswer(f"the check {spec} is not there: {file} has no {name!r}{hint}")
        found = getattr(found, name)
    if not callable(found):
        raise BadAnswer(f"the check {spec} is a {type(found).__name__}, which cannot be called")
    check: Callable[[Any], Any] = found
    return check


def _read(answer: Any, tree: Any) -> Verdict:
    if answer is None:
        return []
    if isinstance(answer, str) or _is_pair(answer):
        return [_problem(answer, tree)] if answer != "" else []
    if isinstance(answer, bytes | dict) or not isinstance(answer, Iterable):
        raise BadAnswer(f"returned {_short(repr(answer), 80)}, not None, text, (path, text) or a list of these")
    problems: Verdict = []
    for item in answer:
        if item is None or item == "":
            continue
        if len(problems) == _MOST_PROBLEMS:
            problems.append([[], "… and more"])
            break
        problems.append(_problem(item, tree))
    return problems


def _is_pair(answer: Any) -> bool:
    return (
        isinstance(answer, tuple)
        and len(answer) == 2
        and isinstance(answer[0], str | tuple)
        and isinstance(answer[1], str)
    )


def _problem(item: Any, tree: Any) -> list[Any]:
    if isinstance(item, str):
        return [[], _short(item)]
    if not _is_pair(item):
        raise BadAnswer(f"returned {_short(repr(item), 80)} as a problem, which must be text or (path, text)")
    path, message = item
    if isinstance(path, str):
        try:
            return [_resolve(path, tree), _short(message)]
        except PathError:
            return [[], _short(f"{path}: {message}")]
    return [[_plain(part) for part in path], _short(message)]


def _resolve(text: str, tree: Any) -> list[Any]:
    """The parts of a dotted path, with an index instead of digits where the tree has a list."""
    parts: list[Any] = []
    for part in parse_path(text):
        if isinstance(tree, list) and part.isdecimal():
            index = int(part)
            parts.append(index)
            tree = tree[index] if index < len(tree) else None
        else:
            parts.append(part)
            tree = tree.get(part) if isinstance(tree, dict) else None
    return parts


def _plain(part: Any) -> Any:
    """A part of a path as it is where it could be a key or an index; else its text."""
    if isinstance(part, dict | list | tuple):
        return ascii(part)
    try:
        codec.pack(part)
    except (TypeError, ValueError, OverflowError):
        return ascii(part)
    return part


def _told(error: BaseException, here: str) -> str:
    """The exception's type and text, and the line of the user's code that it comes from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({_shown_file(error.filename, here)}:{error.lineno})"
    try:
        text = str(error)
    except Exception:
        text = ""
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error, here)
    return f"{told} ({place})" if place else told


def _place(error: BaseException, here: str) -> str:
    """The innermost line below `here` that the exception passed, else the innermost line of all."""
    machinery = (__file__, importlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in machinery]
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename.startswith(os.path.join(here, ""))]
    innermost = (own or frames)[-1:]
    return f"{_shown_file(innermost[0].filename, here)}:{innermost[0].lineno}" if innermost else ""


def _shown_file(file: str, here: str) -> str:
    inside = os.path.join(here, "")
    return file[len(inside) :] if file.startswith(inside) else file


def _short(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """`text` on one line, bounded, without what moves a cursor or cannot be encoded; never empty."""
    line = "".join(character if character.isprintable() else " " for character in text[: longest + 1])
    line = " ".join(line.split())
    if len(text) > longest:
        line = line[: longest - 1] + "…"
    return line or "(no text)"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
