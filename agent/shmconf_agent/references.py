"""What references may name and what they find: the environment, files under the allowed roots, credentials.

`SourceFiles` follows the files by the same rules as sources; `Places` says for it where a named file is and whether it
may be read. `Resolver` makes of what it found the text that takes a reference's place, or the reason why there is none.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .config import Substitution
from .disk import printable
from .problems import Code, Fault
from .settle import TrackedFile, digest_of
from .substitution import Found, Reference, Resolve

MOST_BYTES = 64 * 1024
"""The most that a file or credential may hold."""
MOST_NAMED = 1_000
"""The most files and credentials that the references of one segment may name."""
CREDENTIALS = "CREDENTIALS_DIRECTORY"
OWN_LACKS = (
    "is not set in the environment of this process",
    f"is not there: ${CREDENTIALS} is not set for this process",
)
"""What a message says of what another process may well have."""

FileKey = tuple[str, str]
"""Kind and name of a reference to a file: ("file", "secrets/db"), ("credential", "db")."""


@dataclass(frozen=True, slots=True)
class ReferencedFile:
    """A file that a reference names, as `View` has it. `file`: its name as the reference has it; `path`: absolute.

    data: its content, with its digest; else `fault` says why there is none, and `missing` if nothing is there.
    """

    file: str
    path: str
    data: bytes | None
    digest: bytes = b""
    fault: Fault | None = None
    missing: bool = False

    @property
    def state(self) -> tuple[bytes, str, bool]:
        """What differs where a judgement may."""
        return self.digest, self.fault.message if self.fault else "", self.missing


def file_keys(references: Iterable[Reference]) -> tuple[FileKey, ...]:
    """The files among them, each once."""
    return tuple(dict.fromkeys((each.kind, each.name) for each in references if each.kind != "env"))


class Places:
    """Where the files of references are, for one segment; relative ones are relative to `base`."""

    def __init__(self, substitution: Substitution, base: str, environ: Mapping[str, str] = os.environ) -> None:
        self._base = base
        self.roots = tuple(os.path.join(base, root.rstrip("/") or "/") for root in substitution.roots)
        directory = environ.get(CREDENTIALS)
        self._credentials = os.path.abspath(directory) if directory else None

    def path(self, key: FileKey) -> str | None:
        """The absolute path that is named; None for a credential where there are none."""
        kind, name = key
        if kind == "file":
            return os.path.join(self._base, name)
        return None if self._credentials is None else os.path.join(self._credentials, name)

    def refusal(self, key: FileKey, real: str) -> Fault | None:
        """Why the file with this real path may not be read for this reference; None if it may."""
        kind, _ = key
        if kind == "credential":
            if self._credentials is None or not _is_below(real, (self._credentials,)):
                return Fault(Code.REFERENCE_NOT_ALLOWED, f"leads out of ${CREDENTIALS}")
        elif not self.roots:
            hint = "name the directories that files may be taken from"
            return Fault(Code.REFERENCE_NOT_ALLOWED, "names a file, and there is no 'substitute_roots'", hint)
        elif not _is_below(real, self.roots):
            return Fault(Code.REFERENCE_NOT_ALLOWED, "leads to no place under 'substitute_roots'")
        return None


def referenced(key: FileKey, file: TrackedFile | None, places: Places) -> ReferencedFile:
    """What a reference finds in the file that is followed for it; None where no path can be named."""
    shown = printable(key[1] if key[0] == "file" else ":".join(key))
    if file is None:
        return ReferencedFile(shown, "", None, missing=True)
    real = file.stamp.real if file.stamp is not None else os.path.realpath(file.path)
    fault = places.refusal(key, real)
    missing = False
    if fault is None and file.absence is not None:
        missing = file.absence.missing
        why = (file.absence.absent or "").partition("; ")[0]
        fault = Fault(Code.REFERENCE_UNREADABLE, why)
    elif fault is None and file.failure is not None:
        fault = Fault(Code.REFERENCE_UNREADABLE, file.failure.message, file.failure.hint)
        if file.failure.code is Code.LIMIT_TOTAL_BYTES:
            fault = Fault(Code.REFERENCE_LIMIT, "finds no room: all files together have too many bytes")
        elif file.failure.code is Code.LIMIT_BYTES and (file.stamp is None or file.stamp.size > MOST_BYTES):
            fault = Fault(Code.REFERENCE_LIMIT, f"has more than {MOST_BYTES:,} bytes")
    if fault is not None or file.content is None:
        return ReferencedFile(shown, file.path, None, fault=fault, missing=missing)
    return ReferencedFile(shown, file.path, file.content, file.digest)


def resolver(
    substitution: Substitution, files: Mapping[FileKey, ReferencedFile], environ: Mapping[str, str] = os.environ
) -> Resolve:
    """What each reference stands for, by the files as they were found."""

    def resolve(reference: Reference) -> Found | Fault:
        if reference.kind == "env":
            return _variable(reference, substitution, environ)
        found = files.get((reference.kind, reference.name))
        if found is None:
            return _fault(Code.REFERENCE_LIMIT, reference, f"is one file too many; {MOST_NAMED:,} is the most")
        return _content(reference, found)

    return resolve


def _variable(reference: Reference, substitution: Substitution, environ: Mapping[str, str]) -> Found | Fault:
    if reference.name not in substitution.env:
        hint = "name it there to let configuration have it"
        return _fault(Code.REFERENCE_NOT_ALLOWED, reference, "is not named in 'substitute_env'", hint)
    value = environ.get(reference.name)
    if value is None or (value == "" and reference.default is not None):
        if reference.default is None:
            return _missing(reference, OWN_LACKS[0])
        return Found(reference.default, typed=True)
    try:
        value.encode()
    except UnicodeEncodeError:
        return _fault(Code.REFERENCE_TEXT, reference, "is not UTF-8 text")
    return Found(value, typed=True)


def _content(reference: Reference, found: ReferencedFile) -> Found | Fault:
    if found.missing:
        if reference.default is not None:
            return Found(reference.default, typed=True)
        if reference.kind == "credential" and not found.path:
            return _missing(reference, OWN_LACKS[1])
        return _missing(reference, found.fault.message if found.fault else "does not exist")
    if found.fault is not None or found.data is None:
        fault = found.fault or Fault(Code.REFERENCE_UNREADABLE, "cannot be read")
        return _fault(fault.code, reference, fault.message, fault.hint)
    if len(found.data) > MOST_BYTES:
        return _fault(Code.REFERENCE_LIMIT, reference, f"has {len(found.data):,} bytes; {MOST_BYTES:,} is the most")
    try:
        text = found.data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        return _fault(Code.REFERENCE_TEXT, reference, "is not UTF-8 text")
    if "\0" in text:
        return _fault(Code.REFERENCE_TEXT, reference, "is not text: it has a null character")
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    if text:
        return Found(text, secret=True)
    if reference.default is not None:
        return Found(reference.default, typed=True)
    hint = f"if it may be, give it an empty default: {_with_default(reference, '')}"
    return _fault(Code.REFERENCE_EMPTY, reference, "is empty", hint)


def environment_digest(substitution: Substitution, environ: Mapping[str, str] = os.environ) -> bytes:
    """Of the variables that references may name: equal in two processes in which they are."""
    return digest_of(repr([(name, environ.get(name)) for name in sorted(substitution.env)]).encode())


def _missing(reference: Reference, why: str) -> Fault:
    return _fault(Code.REFERENCE_MISSING, reference, why, f"or give it a default: {_with_default(reference, '…')}")


def _with_default(reference: Reference, default: str) -> Reference:
    """For a message."""
    return Reference(reference.kind, f"{reference.name}:-{default}")


def _fault(code: Code, reference: Reference, why: str, hint: str | None = None) -> Fault:
    return Fault(code, f"{reference}{':' if why.startswith('its ') else ''} {why}", hint)


def _is_below(real: str, roots: Iterable[str]) -> bool:
    return any(real.startswith(os.path.realpath(root).rstrip("/") + "/") for root in roots)
