"""Whatever the order of edits, looks and pauses: nothing torn is published, and what stands at the end is, once.

Real files, but time is the test's own, and so are the hints. File times are never old enough to count as quiet, so
that only what was observed does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.settle import GRACE_S, QUIET_S
from shmconf_agent.sources import SourceFiles
from shmconf_agent.watch import Hint, Kind

FILES = ("a.yaml", "b.yaml", "c.yaml")
files = st.sampled_from(FILES)
LINE = 12


class Editing(RuleBasedStateMachine):
    """Some writers, and a reconciler that publishes whatever is ready."""

    @initialize(events=st.booleans())
    def begin(self, events: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="shmconf-"))
        self.events = events
        self.now = 1000.0
        self.hints: list[Hint] = []
        self.writers: dict[str, tuple[IO[bytes], bytes, float]] = {}  # with what is left, and since when
        self.counter = 0
        self.meanwhile: list[Callable[[], None]] = []
        for name in FILES:
            (self.directory / name).write_bytes(self.content())
        config = SegmentConfig("web", self.directory, (Source("./"),))
        self.files = SourceFiles(config, hints=self, now=lambda: self.now, wall_ns=self.wall_ns)
        self.published: list[dict[str, bytes]] = []
        self.judged = b""
        self.look(at_once=True)

    rescan_s = 1.0

    def drain(self) -> list[Hint]:
        hints, self.hints = self.hints, []
        return hints

    def wall_ns(self) -> int:
        """Asked for before each read, and before the looks at the files: other processes don't wait for that."""
        if self.meanwhile:
            self.meanwhile.pop()()
        return 0

    def content(self) -> bytes:
        self.counter += 1
        return b"%011d\n" % self.counter * 2

    def hint(self, kind: Kind, name: str) -> None:
        if self.events:
            self.hints.append(Hint(kind, str(self.directory.resolve() / name), self.now))

    def look(self, *, at_once: bool = False) -> float:
        view = self.files.look(at_once=at_once)
        if view.ready and view.fingerprint != self.judged and self.files.unchanged(view):
            content = {layer.file: layer.data for layer in view.layers}
            for data in content.values():
                assert len(data) == 2 * LINE, "torn"
                assert data[:LINE] == data[LINE:], "torn"
            self.judged = view.fingerprint
            if view.problems:
                assert not content
                self.files.reject(view)
            else:
                self.published.append(content)
                self.files.accept(view)
        return view.next_look

    # What a writer does.

    def start_writing(self, name: str, truncate: bool) -> None:
        path = self.directory / name
        existed = path.exists()
        file = open(path, "wb" if truncate or not existed else "r+b", buffering=0)  # noqa: SIM115 - left open
        if not existed:
            self.hint(Kind.CREATED, name)
        elif truncate:
            self.hint(Kind.MODIFIED, name)
        data = self.content()
        file.write(data[:LINE])
        self.hint(Kind.MODIFIED, name)
        self.writers[name] = (file, data[LINE:], self.now)

    def finish_writing(self, name: str) -> None:
        file, rest, _ = self.writers.pop(name)
        with file:
            file.write(rest)
            self.hint(Kind.MODIFIED, name)
        self.hint(Kind.CLOSED, name)

    def replace_file(self, name: str) -> None:
        (self.directory / "aside").write_bytes(self.content())
        (self.directory / "aside").replace(self.directory / name)
        self.hint(Kind.MOVED_TO, name)

    def remove_file(self, name: str) -> None:
        if (self.directory / name).exists():
            (self.directory / name).unlink()
            self.hint(Kind.GONE, name)

    def edit(self, name: str, how: str) -> None:
        if name in self.writers:
            self.finish_writing(name)
        elif how == "replace":
            self.replace_file(name)
        elif how == "remove":
            self.remove_file(name)
        else:
            self.start_writing(name, how == "truncate")

    how = st.sampled_from(["replace", "remove", "truncate", "overwrite"])

    @rule(name=files, how=how)
    def edits(self, name: str, how: str) -> None:
        self.edit(name, how)

    @rule(name=files, how=how, times=st.integers(1, 3))
    def edits_while_it_is_looked_at(self, name: str, how: str, times: int) -> None:
        self.meanwhile = [lambda: None] * (times - 1)
        self.meanwhile.insert(0, lambda: self.edit(name, how))
        self.look()
        self.meanwhile = []

    @rule()
    def looks(self) -> None:
        self.look()

    @rule(ms=st.sampled_from([1, 2, 30, 60, 300]))
    def waits(self, ms: int) -> None:
        later = self.now + ms / 1000
        if any(later >= since + QUIET_S for _, _, since in self.writers.values()):
            return  # a writer that pauses for longer is taken at its word
        self.now = later

    @precondition(lambda self: self.events)
    @rule()
    def loses_events(self) -> None:
        self.hints = [Hint(Kind.OVERFLOW, "", self.now)]

    def teardown(self) -> None:
        if not hasattr(self, "directory"):
            return
        for name in list(self.writers):
            self.finish_writing(name)
        expected = {f"./{path.name}": path.read_bytes() for path in self.directory.iterdir()}
        until = self.now + 1 + 2 * QUIET_S + GRACE_S
        while self.now < until:
            self.now = max(self.look(), self.now + 0.001)
        shutil.rmtree(self.directory)
        if expected:
            assert self.published[-1] == expected
            assert self.published.count(expected) == 1
        else:
            assert self.files.look().problems


TestEditing = Editing.TestCase
TestEditing.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
