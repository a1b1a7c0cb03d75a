"""The hundred files of the soak, and every kind of edit of them."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soak_model import ABSENT, NEVER, Model, Unit
from soak_texts import FIRST, SUFFIXES, Tree, broken, parse, text_of, tree_of

SOURCES = """
[segment.soak]
sources = [
  "base.yaml",
  "conf.d/",
  "site-*.toml",
  "current/",
  "swap.d/",
  { path = "extra.yaml", optional = true },
  { path = "mounted.json", at = "service.limits" },
]
"""


@dataclass
class File:
    """One file that is edited by itself; `current` are number, padding and kind of the text that it holds."""

    name: str
    path: Path
    unit: Unit
    stays: bool = False  # it is never taken away for long
    current: tuple[int, int, bool] | None = None

    @property
    def suffix(self) -> str:
        return self.path.suffix


class Site:
    """Writes the files. `exclude`: those that a fault has made unusable for whoever edits."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.exclude: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._numbers = itertools.count(FIRST)
        self._aside = root / "aside"
        self._store = root / "store"
        for directory in ("conf.d", "swap.d", "releases", "store", "aside"):
            (root / directory).mkdir()
        base = self._file("base", "base.yaml", required=True)
        conf = [self._file(f"c{n:02}", f"conf.d/{n:02}{SUFFIXES[n % 3]}", "conf.d") for n in range(50)]
        site = [self._file(f"t{n:02}", f"site-{n:02}.toml", "site-*", stays=n == 0) for n in range(20)]
        self._group = Unit(tuple(f"g{n:02}" for n in range(12)), required=True)
        self._swap = [
            self._file(f"s{n:02}", f"swap.d/{n:02}{SUFFIXES[n % 3]}", "swap.d", stays=n == 0) for n in range(15)
        ]
        extra = self._file("extra", "extra.yaml")
        mounted = self._file("mounted", "mounted.json", required=True, place=("service", "limits"))
        self.files = [base, *conf, *site, *self._swap, extra, mounted]
        order = [base, *conf, *site]
        self.model = Model(
            [*(file.unit for file in order), self._group, *(f.unit for f in self._swap), extra.unit, mounted.unit]
        )
        for file in self.files:
            self._put(file, *self._next(file), how=self._replace)
        self.symlink_swap()
        (root / "shmconf.toml").write_text(SOURCES)
        self._kinds: dict[str, Callable[[], bool]] = {
            "atomic replace": lambda: self._write(self._replace),
            "write in place": lambda: self._write(self._in_place),
            "slow write": lambda: self._write(self._slowly, flow=True),
            "truncate, then write": lambda: self._write(self._truncated),
            "a link in its place": lambda: self._write(self._linked),
            "delete and make again": self._delete_and_make,
            "rename and rename back": self._rename_and_back,
            "symlink swap of a directory": self.symlink_swap,
            "a directory replaced": self._replace_directory,
            "remove": self._remove,
            "add": self._add,
            "invalid YAML": lambda: self._break(".yaml"),
            "invalid TOML": lambda: self._break(".toml"),
            "invalid JSON": lambda: self._break(".json"),
            "write through a mapping": lambda: self._same_size(self._mapped),
            "same size and mtime": lambda: self._same_size(self._unnoticed),
            "touch": lambda: self._attributes(lambda path: os.utime(path)),
            "chmod": lambda: self._attributes(lambda path: path.chmod(self.chance.choice([0o644, 0o664, 0o604]))),
        }
        self.kinds = tuple(self._kinds)
        self._bag: list[str] = []

    def edit(self) -> None:
        """One edit, of each kind in turn, in an order of chance. One that finds no file for it waits for its turn."""
        if not self._bag:
            self._bag = list(self.kinds)
            self.chance.shuffle(self._bag)
        kind = self._bag.pop()
        if self._kinds[kind]():
            self.counts[kind] += 1

    def repair(self) -> None:
        """Make every file valid."""
        for file in self.files:
            if file.unit.states[-1] is NEVER:
                self._put(file, *self._next(file), how=self._replace)

    def grow(self, size: int) -> None:
        """Give the first file so much padding."""
        self._put(self.files[0], self._number(), size, False, how=self._replace)

    def read_all(self) -> list[tuple[tuple[str, ...], Tree]]:
        """What stands on the disk, by layers, as independent parsers read it: (place, tree)."""
        found: list[Path] = [self.root / "base.yaml"]
        found += sorted((self.root / "conf.d").iterdir(), key=os.fsencode)
        found += sorted(self.root.glob("site-*.toml"), key=os.fsencode)
        for directory in ("current", "swap.d"):
            found += sorted((self.root / directory).iterdir(), key=os.fsencode)
        layers = [((), path) for path in [*found, self.root / "extra.yaml"] if path.exists()]
        read = [(place, parse(path.suffix, path.read_bytes())) for place, path in layers if path.suffix in SUFFIXES]
        mounted = self.root / "mounted.json"
        return [*read, (("service", "limits"), parse(".json", mounted.read_bytes()))]

    def symlink_swap(self) -> bool:
        """Another release, of twelve files, in the place of the one before, which is deleted."""
        number = self._number()
        release = self.root / "releases" / str(number)
        release.mkdir()
        state: Tree = {}
        for order, name in enumerate(self._group.names):
            suffix = SUFFIXES[order % 3]
            text = text_of(suffix, tree_of(name, number, 100), flow=False)
            (release / f"{order:02}{suffix}").write_bytes(text)
            state[name] = parse(suffix, text)
        link = self.root / "current"
        before = link.resolve() if link.is_symlink() else None
        (self._aside / "current").symlink_to(f"releases/{number}")
        self.model.note(self._group, state)
        os.replace(self._aside / "current", link)
        if before is not None:
            shutil.rmtree(before)
        return True

    # --- which file, and what is to be in it -----------------------------------------------------------------------

    def _file(
        self,
        name: str,
        path: str,
        source: str = "",
        *,
        required: bool = False,
        stays: bool = False,
        place: tuple[str, ...] = (),
    ) -> File:
        return File(name, self.root / path, Unit((name,), place, required, source), stays or required)

    def _any(self, fits: Callable[[File], bool]) -> File | None:
        choice = [file for file in self.files if file.name not in self.exclude and fits(file)]
        return self.chance.choice(choice) if choice else None

    def _number(self, parity: int | None = None) -> int:
        number = next(self._numbers)
        return number if parity is None or number % 2 == parity else next(self._numbers)

    def _next(self, file: File, *, flow: bool | None = None) -> tuple[int, int, bool]:
        return self._number(), self.chance.randrange(20, 700), self.chance.random() < 0.5 if flow is None else flow

    def _put(
        self, file: File, number: int, size: int, flow: bool, *, how: Callable[[File, bytes], None]
    ) -> None:
        text = text_of(file.suffix, tree_of(file.name, number, size), flow=flow)
        self.model.note(file.unit, {file.name: parse(file.suffix, text)})
        file.current = number, size, flow
        how(file, text)

    def _pause(self) -> None:
        time.sleep(self.chance.uniform(0.0, 0.03))

    # --- the kinds of edits ----------------------------------------------------------------------------------------

    def _write(self, how: Callable[[File, bytes], None], *, flow: bool | None = None) -> bool:
        file = self._any(_is_there)
        if file is None:
            return False
        self._put(file, *self._next(file, flow=flow), how=how)
        return True

    def _same_size(self, how: Callable[[File, bytes], None]) -> bool:
        file = self._any(lambda file: file.current is not None and _is_valid(file))
        if file is None or file.current is None:
            return False
        number, size, flow = file.current
        self._put(file, self._number(number % 2), size, flow, how=how)
        return True

    def _break(self, suffix: str) -> bool:
        file = self._any(lambda file: file.suffix == suffix and _is_there(file))
        if file is None:
            return False
        number, size, flow = self._next(file)
        text = broken(suffix, text_of(suffix, tree_of(file.name, number, size), flow=flow), self.chance)
        self.model.note(file.unit, NEVER)
        file.current = None
        self.chance.choice([self._replace, self._in_place])(file, text)
        return True

    def _attributes(self, change: Callable[[Path], None]) -> bool:
        file = self._any(_is_there)
        if file is None:
            return False
        change(file.path)
        return True

    def _delete_and_make(self) -> bool:
        file = self._any(_is_there)
        if file is None:
            return False
        self.model.note(file.unit, ABSENT)
        file.path.unlink()
        self._pause()
        self._put(file, *self._next(file, flow=True), how=self._in_place)
        return True

    def _rename_and_back(self) -> bool:
        file = self._any(_is_valid)
        if file is None:
            return False
        state = file.unit.states[-1]
        self.model.note(file.unit, ABSENT)
        away = file.path.with_name(f"{file.path.name}.off")
        file.path.rename(away)
        self._pause()
        self.model.note(file.unit, state)
        away.rename(file.path)
        return True

    def _remove(self) -> bool:
        file = self._any(lambda file: _is_there(file) and not file.stays)
        if file is None:
            return False
        self.model.note(file.unit, ABSENT)
        file.current = None
        file.path.unlink()
        return True

    def _add(self) -> bool:
        file = self._any(lambda file: file.unit.states[-1] is ABSENT)
        if file is None:
            return False
        self._put(file, *self._next(file, flow=True), how=self.chance.choice([self._replace, self._slowly]))
        return True

    def _replace_directory(self) -> bool:
        if any(file.name in self.exclude for file in self._swap):
            return False
        new, old = self._aside / "new.d", self._aside / "old.d"
        new.mkdir()
        present = [file for file in self._swap if file.stays or self.chance.random() < 0.8]
        texts: list[tuple[File, tuple[int, int, bool], bytes]] = []
        for file in present:
            current = self._next(file)
            text = text_of(file.suffix, tree_of(file.name, current[0], current[1]), flow=current[2])
            (new / file.path.name).write_bytes(text)
            texts.append((file, current, text))
        for file in self._swap:
            self.model.note(file.unit, ABSENT)
            file.current = None
        for file, current, text in texts:
            self.model.note(file.unit, {file.name: parse(file.suffix, text)})
            file.current = current
        (self.root / "swap.d").rename(old)
        new.rename(self.root / "swap.d")
        shutil.rmtree(old)
        return True

    # --- the ways of writing ---------------------------------------------------------------------------------------

    def _replace(self, file: File, text: bytes) -> None:
        aside = self._aside / file.path.name
        aside.write_bytes(text)
        os.replace(aside, file.path)

    def _linked(self, file: File, text: bytes) -> None:
        target = self._store / f"{file.name}.{len(file.unit.states)}"
        target.write_bytes(text)
        (self._aside / file.path.name).symlink_to(target)
        os.replace(self._aside / file.path.name, file.path)

    def _in_place(self, file: File, text: bytes) -> None:
        with file.path.open("wb", buffering=0) as opened:
            opened.write(text)

    def _slowly(self, file: File, text: bytes) -> None:
        pieces = self.chance.randrange(2, 6)
        step = len(text) // pieces + 1
        with file.path.open("wb", buffering=0) as opened:
            for start in range(0, len(text), step):
                opened.write(text[start : start + step])
                self._pause()

    def _truncated(self, file: File, text: bytes) -> None:
        with file.path.open("r+b", buffering=0) as opened:
            opened.truncate(0)
        self._pause()
        with file.path.open("r+b", buffering=0) as opened:
            opened.write(text)

    def _mapped(self, file: File, text: bytes) -> None:
        with file.path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
            mapped[:] = text
            if self.chance.random() < 0.5:
                mapped.flush()

    def _unnoticed(self, file: File, text: bytes) -> None:
        before = file.path.stat()
        assert before.st_size == len(text)
        with file.path.open("r+b", buffering=0) as opened:
            opened.write(text)
        os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_there(file: File) -> bool:
    return file.unit.states[-1] is not ABSENT


def _is_valid(file: File) -> bool:
    return file.unit.states[-1] is not ABSENT and file.unit.states[-1] is not NEVER
