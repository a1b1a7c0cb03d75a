"""References in the text of a configuration, and how a tree looks once they are replaced: grammar and tree, no I/O.

    ${env:NAME}   ${file:/path}   ${credential:name}   ${env:NAME:-default}   $${ for a literal ${

A reference stands in a string value; keys are left alone, and a `$` that begins none of these is itself. A default is
what stands behind the first `:-`, up to the first `}`; what is put in a reference's place is never looked at again.

A value that is one reference and nothing else may become true, false, null or a number, where an environment variable
or a default is written just as JSON writes that (`typed`); what a file or a credential holds is always text. Around a
reference other text makes text of the whole.

What comes from a file or a credential is secret, and so is every value that it is a part of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from shmconf.codec import INT_MAX, INT_MIN

from .nearest import suggestion
from .problems import Code, Fault, Key, Path

KINDS = ("env", "file", "credential")
ENV_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
MOST_TEXT = 16 * 1024 * 1024
"""The most characters that the values of one segment which hold references may have, aliases expanded."""

_MARK = re.compile(r"\$\$\{|\$\{")
_WORDS = {"true": True, "false": False, "null": None}
_INTEGER = re.compile("-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
_LONGEST_SHOWN = 80
_KINDS_SHOWN = "a reference is ${env:NAME}, ${file:/path} or ${credential:name}, and $${ is a literal ${"


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference; `default` None where it has none."""

    kind: str
    name: str
    default: str | None = None

    def __str__(self) -> str:
        """As it was written, but for the default, and short."""
        return _shown(f"{self.kind}:{self.name}")


Part = str | Reference


@dataclass(frozen=True, slots=True)
class Found:
    """What takes a reference's place."""

    text: str
    secret: bool = False
    typed: bool = False


Resolve = Callable[[Reference], Found | Fault]


def split(text: str) -> tuple[tuple[Part, ...], tuple[Fault, ...]]:
    """The literal texts and references that `text` is made of, and what is wrong with what is neither."""
    parts: list[Part] = []
    faults: list[Fault] = []
    literal = ""
    at = 0
    while (mark := _MARK.search(text, at)) is not None:
        literal += text[at : mark.start()]
        at = mark.end()
        if mark.group() == "$${":
            literal += "${"
            continue
        end = text.find("}", at)
        if end < 0:
            faults.append(_malformed(f"{_shown(text[at:], closed=False)} has no closing }}"))
            break
        reference = _reference(text[at:end])
        at = end + 1
        if isinstance(reference, Fault):
            faults.append(reference)
            continue
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(reference)
    else:
        literal += text[at:]
    if literal:
        parts.append(literal)
    return tuple(parts), tuple(faults)


def escape(text: str) -> str:
    """The text that `split` reads as `text` itself."""
    return text.replace("${", "$${")


def typed(text: str) -> str | int | float | bool | None:
    """What a JSON scalar of this spelling is, where the spelling is the one that it would be written with again.

    So nothing is lost: `8080`, `-1`, `2.5`, `true` and `null` have their types; `0123`, `1.10`, `1e3`, `NO`, integers
    beyond 64 bits and all else stay text.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        number = int(text)
        return number if INT_MIN <= number <= INT_MAX and str(number) == text else text
    if _DECIMAL.fullmatch(text) and repr(real := float(text)) == text:
        return real
    return text


@dataclass(slots=True)
class Sites:
    """The string values of one tree that hold `${`.

    holders: by the identity of each map or list with such values in it, at whatever depth: its entries that are such
    values, as their parts, or lead to some, as None. Valid for as long as the tree is not changed.
    faults: what is malformed, by path. references: all that are named, in order, each once.
    """

    tree: dict[Key, Any]
    holders: dict[int, dict[Any, tuple[Part, ...] | None]] = field(default_factory=dict)
    faults: list[tuple[Path, Fault]] = field(default_factory=list)
    references: dict[Reference, None] = field(default_factory=dict)


def find_sites(tree: dict[Key, Any]) -> Sites:
    """One pass over the tree; what an alias repeats is looked at once."""
    sites = Sites(tree)
    _scan(tree, (), sites, set())
    return sites


@dataclass(frozen=True, slots=True)
class Replaced:
    """A tree with its references replaced; it shares with the one before every map and list without any.

    secrets: the paths of the values that hold a secret, or, of more than MOST_SECRETS, paths that cover them.
    texts: the secrets themselves.
    faults: why references could not be replaced, by the path of the value (the first, of one that an alias repeats).
    size: characters of the values that held references, aliases expanded.
    """

    tree: dict[Key, Any]
    secrets: tuple[Path, ...] = ()
    texts: frozenset[str] = frozenset()
    faults: tuple[tuple[Path, Fault], ...] = ()
    size: int = 0


def replace(sites: Sites, resolve: Resolve) -> Replaced:
    """The tree with what `resolve` gives for each of its references; it is asked once for each."""
    if not sites.holders:
        return Replaced(sites.tree)
    known: dict[Reference, Found | Fault] = {}
    for reference in sites.references:
        known[reference] = resolve(reference)
    replacing = _Replacing(sites, known)
    tree, size = replacing.container(sites.tree, ())
    if size > MOST_TEXT:
        replacing.faults.append(((), too_much(size)))
    found = known.values()
    texts = frozenset(each.text for each in found if isinstance(each, Found) and each.secret)
    secrets = _secret_paths(sites.tree, replacing.secret_entries)
    return Replaced(tree, secrets, texts, tuple(sites.faults + replacing.faults), size)


def too_much(size: int) -> Fault:
    """Of values that are `size` characters with their references replaced."""
    message = f"with its references replaced it has {size:,} characters of text; {MOST_TEXT:,} is the most"
    return Fault(Code.REFERENCE_LIMIT, message)


MOST_SECRETS = 10_000
"""The most paths of secrets; where there are more, shorter ones stand for all that is beneath them."""


def bounded(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths, each once; if they are too many, as few parts of each as it takes, for a path covers all beneath."""
    longest = 2**31
    kept: dict[Path, None] = {}
    for path in paths:
        kept[path[:longest]] = None
        while len(kept) > MOST_SECRETS:
            longest = min(longest, max(map(len, kept))) - 1
            kept = dict.fromkeys(path[:longest] for path in kept)
    return tuple(kept)


def _reference(body: str) -> Reference | Fault:
    """What stands between the braces."""
    kind, colon, rest = body.partition(":")
    if "${" in body:
        return _malformed(f"{_shown(body)}: a reference cannot hold another")
    if not colon or kind not in KINDS:
        hint = f"write ${{env:{body}}}, or $${{{body}}} for the text as it is" if ENV_NAME.fullmatch(body) else None
        near = suggestion(kind, KINDS) if colon else None
        return _malformed(f"{_shown(body)} is not a reference that is known: {_KINDS_SHOWN}", hint or near)
    name, dash, default = rest.partition(":-")
    reference = Reference(kind, name, default if dash else None)
    if not name:
        return _malformed(f"{reference} names nothing: {_KINDS_SHOWN}")
    if kind == "env" and not ENV_NAME.fullmatch(name):
        return _malformed(f"{reference}: the name of a variable is letters, digits and _, as in ${{env:DB_HOST}}")
    if "\0" in name:
        return _malformed(f"{reference}: a name cannot hold a null character")
    if kind == "credential" and ("/" in name or name in (".", "..")):
        return _malformed(f"{reference}: the name of a credential is that of a file, without slashes")
    return reference


def _malformed(message: str, hint: str | None = None) -> Fault:
    return Fault(Code.REFERENCE_SYNTAX, message, hint)


def _shown(body: str, *, closed: bool = True) -> str:
    """A reference for a message: short, and with nothing that moves a cursor."""
    text = body if len(body) <= _LONGEST_SHOWN else body[: _LONGEST_SHOWN - 1] + "…"
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return "${" + text + ("}" if closed else "")


def _scan(container: Any, path: Path, sites: Sites, done: set[int]) -> bool:
    """Whether there are sites beneath; takes note of them."""
    if id(container) in done:
        return id(container) in sites.holders
    done.add(id(container))
    entries: dict[Any, tuple[Part, ...] | None] = {}
    for key, value in container.items() if type(container) is dict else enumerate(container):
        kind = type(value)
        if kind is str:
            if "${" in value:
                parts, faults = split(value)
                entries[key] = parts
                sites.faults += [((*path, key), fault) for fault in faults]
                sites.references.update((part, None) for part in parts if isinstance(part, Reference))
        elif (kind is dict or kind is list) and _scan(value, (*path, key), sites, done):
            entries[key] = None
    if entries:
        sites.holders[id(container)] = entries
    return bool(entries)


class _Replacing:
    """One replacement. Each map and list is made anew once, however often aliases repeat it."""

    def __init__(self, sites: Sites, known: dict[Reference, Found | Fault]) -> None:
        self._holders = sites.holders
        self._known = known
        self._made: dict[int, tuple[Any, int]] = {}
        self.faults: list[tuple[Path, Fault]] = []
        # By the identity of a map or list, its entries that are secret, or (False) lead to some.
        self.secret_entries: dict[int, dict[Any, bool]] = {}

    def container(self, old: Any, path: Path) -> tuple[Any, int]:
        """The map or list anew, and the characters beneath it."""
        made = self._made.get(id(old))
        if made is not None:
            return made
        new = old.copy()
        size = 0
        secret_entries: dict[Any, bool] = {}
        for key, parts in self._holders[id(old)].items():
            if parts is None:
                new[key], below = self.container(old[key], (*path, key))
                size += below
                if id(old[key]) in self.secret_entries:
                    secret_entries[key] = False
                continue
            value, secret, length = self._value(parts, (*path, key))
            new[key] = value
            size += length
            if secret:
                secret_entries[key] = True
        if secret_entries:
            self.secret_entries[id(old)] = secret_entries
        self._made[id(old)] = new, size
        return new, size

    def _value(self, parts: tuple[Part, ...], path: Path) -> tuple[Any, bool, int]:
        """The value that the parts make, whether it is secret, and its length."""
        pieces: list[str] = []
        secret = whole = False
        for part in parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            found = self._known[part]
            if isinstance(found, Fault):
                self.faults.append((path, found))
                continue
            pieces.append(found.text)
            secret = secret or found.secret
            whole = found.typed and len(parts) == 1
        length = sum(map(len, pieces))
        if length > MOST_TEXT:  # before it is put together: a small text can name a large file many times
            return "", secret, length
        text = "".join(pieces)
        return typed(text) if whole else text, secret, length


def _secret_paths(tree: Any, entries: dict[int, dict[Any, bool]]) -> tuple[Path, ...]:
    """The path of each secret value, aliases expanded, level by level; where they become too many, what leads there."""
    found: list[Path] = []
    level: list[tuple[Any, Path]] = [(tree, ())] if id(tree) in entries else []
    while level:
        here: list[Path] = []
        below: list[tuple[Any, Path]] = []
        for container, path in level:
            for key, is_secret in entries[id(container)].items():
                if is_secret:
                    here.append((*path, key))
                else:
                    below.append((container[key], (*path, key)))
                if len(found) + len(here) + len(below) > MOST_SECRETS:
                    return (*found, *(path for _, path in level))
        found += here
        level = below
    return tuple(found)
