"""A segment with `commit = "path"`: only a change of that file, or link, lets what stands in the sources be judged.

    files = CommittedFiles(SourceFiles(config), config.commit, record_file)     # in the place of SourceFiles
    view = files.look()                                       # what was committed last, or a view that is held

What is judged is a view that was frozen: once the commit path has changed and is whole itself, every file is read again
in a look that begins after that, so that no write before the commit is missed, however little the disk shows of it. As
soon as all are whole the view is frozen, without any time for settling: to say when a deployment is complete is what
the commit is for. It is handed out until the next commit, whatever happens to the files; so a candidate that found no
room is tried again as it was, and `reload` reads nothing that was not committed. A file that is still being written
10 s after the commit counts with its content before.

A `Record` of the last commit that was judged outlives the agent, in the state directory and in the metadata of the
version: an agent that starts, and finds the commit path as it was then, publishes nothing new. Without one, what stands
in the files is judged if the commit path exists.

What counts as a change: another content, another file in its place, a newer mtime (`touch`), a link on the way that was
made anew or leads elsewhere, and that it is there again after it was gone. That it vanishes, or becomes unreadable, is
none. CommittedFiles belongs to one thread, as SourceFiles does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from .commit_mark import Record
from .settle import digest_of
from .sources import SourceFiles
from .view import InFlux, View

__all__ = ["CommittedFiles", "Files", "RecordFile"]

LONGEST_S = 10.0
"""How long a file that is being written may hold what was committed."""
_RETRY_S = 5.0
_HELD = b"held"


class Files(Protocol):
    """What the reconciler needs of the sources, with or without a commit."""

    def look(self, *, anew: bool = False) -> View: ...

    def unchanged(self, view: View) -> bool: ...

    def accept(self, view: View) -> None: ...

    def reject(self, view: View) -> None: ...

    def withhold(self, view: View) -> None: ...


class RecordFile:
    """`NAME.commit` in the state directory. What it holds only saves a judgement; losing it loses no version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: Record | None = None
        self.problem: str | None = None

    def load(self) -> Record | None:
        """What was kept; None without anything whole."""
        try:
            return Record.of(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            return None

    def keep(self, record: Record) -> None:
        """Put it in the place of the one before. Never raises: `problem` says why it could not be done."""
        self._unwritten = record
        self.retry()

    def retry(self) -> None:
        """Ask a disk that refused again."""
        if self._unwritten is None:
            return
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(self._unwritten.fields(), file)
            os.rename(aside, self._path)
        except OSError as error:
            self.problem = (
                f"which commit was judged last cannot be kept in {self._path}: {error.strerror}; "
                "after a restart files may be published that were not committed"
            )
        else:
            self._unwritten = self.problem = None


class CommittedFiles:
    """See the module. commit: the path as the agent's file has it. records: of commits that an earlier agent judged."""

    def __init__(
        self,
        files: SourceFiles,
        commit: str,
        record_file: RecordFile,
        records: Iterable[Record] = (),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._commit = commit
        self._record_file = record_file
        self._records = {record.mark: record for record in records}
        self._now = now
        self._frozen: View | None = None  # as it was seen
        self._shown: View | None = None  # as it is handed out
        self._mark: str | None = None  # of what is frozen, or held since the start
        self._armed: str | None = None  # the mark of a commit whose files are being waited for
        self._armed_at = 0.0
        self._retry_at = 0.0
        self._awaited = False  # whether files differ from what was committed

    @property
    def path(self) -> str:
        """As the agent's file has it."""
        return self._commit

    @property
    def resumes(self) -> Record | None:
        """The commit that an earlier agent judged and that still stands, while nothing else was committed."""
        return self._records.get(self._mark) if self._mark is not None else None

    def look(self, *, anew: bool = False) -> View:
        """The view that was committed last, with everything that concerns watching and waiting as of now."""
        if self._now() >= self._retry_at:
            self._retry_at = self._now() + _RETRY_S
            self._record_file.retry()
        view = self._files.look(anew=anew)
        mark = view.commit.mark
        if view.commit.changing:
            return self._waiting(view)
        if mark is None:
            if view.commit.failure is None:
                self._mark = self._armed = None  # when it is there again, that is a change
                self._records.clear()
            return self._calm(view)
        if self._frozen is None and mark in self._records:
            return self._resumed(view, self._records[mark])
        if mark == self._mark:
            self._armed = None  # it was exchanged, and back again
            return self._calm(view)
        if mark != self._armed:
            self._armed_at = self._now() if self._armed is None else self._armed_at
            self._armed = mark
            view = self._files.look(anew=True)  # begins after the commit, and so sees all that was done before it
        if view.commit.mark != mark:
            return self._waiting(view, again=True)
        if view.whole or (self._now() >= self._armed_at + LONGEST_S and not view.waiting):
            return self._freeze(view, mark)
        return self._waiting(view)

    def unchanged(self, view: View) -> bool:
        """Always: what was committed stays as it is."""
        return True

    def accept(self, view: View) -> None:
        """The view that was committed last is served."""
        if self._frozen is not None and self._mark is not None:
            self._files.accept(self._frozen)
            self._record_file.keep(Record(self._mark, self._frozen.fingerprint.hex(), accepted=True))

    def reject(self, view: View) -> None:
        """It is not, and a repair has to be committed."""
        if self._frozen is not None and self._mark is not None:
            self._files.reject(self._frozen)
            self._record_file.keep(Record(self._mark, self._frozen.fingerprint.hex(), accepted=False))

    def withhold(self, view: View) -> None:
        """It is valid, and waits for the end of a hold; an agent that starts until then takes the files for what was
        committed if they are as they were then, and waits for another commit else."""
        if self._frozen is not None and self._mark is not None:
            self._files.withhold(self._frozen)
            self._record_file.keep(Record(self._mark, self._frozen.fingerprint.hex(), accepted=True))

    def _freeze(self, view: View, mark: str) -> View:
        self._mark, self._armed, self._frozen = mark, None, view
        self._records.clear()
        notes = tuple(
            f"{flux.file} was still being written {LONGEST_S:.0f} s after the commit; it counts with its content before"
            for flux in view.in_flux
        )
        self._shown = dataclasses.replace(
            view,
            # What was refused and is committed once more as it was is judged once more.
            fingerprint=digest_of(view.fingerprint + mark.encode()),
            notes=notes,
            in_flux=(),
            ready=True,
            overdue=True,
            committed=Record(mark, view.fingerprint.hex()),
        )
        return self._calm(view)

    def _resumed(self, view: View, record: Record) -> View:
        """Files that stand as they did when this commit was judged may be judged again, as they are what was
        committed; others are held."""
        self._mark = record.mark
        if not view.whole:
            return self._waiting(view)
        return self._freeze(view, record.mark) if view.fingerprint.hex() == record.inputs else self._calm(view)

    def _calm(self, view: View) -> View:
        """Nothing is to be waited for."""
        self._files.pass_over(view)
        shown, frozen = self._shown, self._frozen
        if shown is None or frozen is None:
            self._awaited = self.resumes is not None
            return self._held(view, ())
        self._awaited = view.fingerprint != frozen.fingerprint
        awaits = self._awaited or bool(view.in_flux and not frozen.in_flux)
        return dataclasses.replace(
            shown,
            next_look=view.next_look,
            directories=view.directories,
            notes=self._notes(view),
            look=view.look,
            awaits_commit=self._commit if awaits else None,
        )

    def _waiting(self, view: View, *, again: bool = False) -> View:
        """The commit, or a file that it is about, is not whole yet; what was committed before stays meanwhile."""
        self._files.pass_over(view)
        held = self._held(view, view.in_flux)
        return dataclasses.replace(held, waiting=True, next_look=self._now() if again else view.next_look)

    def _held(self, view: View, in_flux: tuple[InFlux, ...]) -> View:
        return dataclasses.replace(
            view,
            layers=(), schema=None, problems=(), changed=(), order=(),
            fingerprint=_HELD if self._shown is None else self._shown.fingerprint,
            in_flux=in_flux, notes=self._notes(view), waiting=False, ready=False, overdue=False,
            held=True, awaits_commit=self._commit,
        )  # fmt: skip

    def _notes(self, view: View) -> tuple[str, ...]:
        notes = [*view.notes, *(self._shown.notes if self._shown is not None else ())]
        if view.commit.failure is not None:
            notes.append(f"{self._commit} {view.commit.failure}; nothing new is published until it can be read")
        elif view.commit.mark is None and not view.commit.changing:
            notes.append(f"nothing new is published until {self._commit} exists")
        elif self._awaited:
            notes.append(f"the files changed since the last commit; they wait for {self._commit} to change")
        if self._record_file.problem is not None:
            notes.append(self._record_file.problem)
        return tuple(notes)
