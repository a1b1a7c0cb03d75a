"""examples/c: built as its README says and run as somebody who is not root, beside a writer that goes on publishing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf.directories import Directory
from shmconf.writer import Settings, Writer

ROOT = Path(__file__).parents[2]
NOBODY = 65534


class Place:
    """A directory that everybody may enter, with the built program and a runtime directory."""

    def __init__(self, root: Path) -> None:
        self.run, self.program = root / "run", root / "watch"
        self.run.mkdir()
        for directory in (root, self.run):
            directory.chmod(0o755)
        self.writer = self.open_writer(1 << 20)

    def open_writer(self, max_bytes: int) -> Writer:
        return Writer(Directory(self.run, named=True), "web", Settings(max_bytes, mode=0o644))

    def publish(self, **tree: Any) -> None:
        self.writer.publish(codec.pack(tree))

    def watch(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *arguments],
            env={**os.environ, "SHMCONF_DIR": str(self.run)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}),
        )

    def watched(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a run that ends by itself."""
        process = self.watch(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def built(require: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(shutil.which("make") and shutil.which("gcc"), "make and gcc are needed to build the example")
    source = tmp_path_factory.mktemp("example") / "c"
    shutil.copytree(ROOT / "examples/c", source, ignore=shutil.ignore_patterns("watch"))
    command = ["make", "CC=gcc", f"SHMCONF={ROOT / 'shm/include'}", "CFLAGS=-O2 -Wall -Wextra -Werror"]
    ran = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return source / "watch"


@pytest.fixture
def place(built: Path) -> Iterator[Place]:
    root = Path(tempfile.mkdtemp())  # pytest's own directories are for one user
    try:
        shutil.copy(built, root)
        made = Place(root)
        yield made
        made.writer.close()
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_value_is_printed_at_once_and_after_each_publication(place: Place, number: signal.Signals) -> None:
    place.publish(db={"pool": {"size": 20}})
    process = place.watch("web", "db.pool.size")
    assert process.stdout is not None
    assert process.stdout.readline() == "1 db.pool.size = 20\n"
    place.publish(db={"pool": {"size": 40}})
    assert process.stdout.readline() == "2 db.pool.size = 40\n"
    place.publish(db={})
    assert process.stdout.readline() == "3 db.pool.size = (nothing)\n"
    place.writer.close()
    place.writer = place.open_writer(2 << 20)  # a larger max_bytes: the segment is replaced
    assert process.stdout.readline() == "4 db.pool.size = (nothing)\n"
    place.publish(db={"pool": {"size": "many"}})
    assert process.stdout.readline() == "5 db.pool.size = many\n"
    process.send_signal(number)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("value", "printed"),
    [(-5, "-5"), (2**64 - 1, "18446744073709551615"), (0.1, "0.10000000000000001"), (True, "true"), (False, "false"),
     ("größer", "größer"), ([1, 2], "(3 bytes of msgpack)"), (None, "(1 bytes of msgpack)")],
)  # fmt: skip
def test_values_of_all_types(place: Place, value: Any, printed: str) -> None:
    place.publish(value=value)
    assert place.watched("web", "value", "1") == (0, f"1 value = {printed}\n", "")


def test_it_ends_after_a_number_of_lines(place: Place) -> None:
    place.publish(n=1)
    process = place.watch("web", "n", "2")
    assert process.stdout is not None
    assert process.stdout.readline() == "1 n = 1\n"
    place.publish(n=2)
    assert process.communicate(timeout=120) == ("2 n = 2\n", "")
    assert process.returncode == 0


def test_errors_are_explained_and_have_exit_codes(place: Place) -> None:
    code, out, err = place.watched("web", "n")
    assert (code, out) == (69, "")
    assert "nothing published yet: its agent has not published a first version" in err
    assert place.watched("other", "n") == (
        69, "", f"watch: no segment 'other' in {place.run}; is its agent running?\n"
    )  # fmt: skip
    place.publish(n=1)
    for arguments in ((), ("web",), ("web", "n", "x"), ("web", "n", "0"), ("web", "n", "1", "2")):
        assert place.watched(*arguments) == (2, "", "usage: watch SEGMENT PATH [COUNT]\n")
    code, out, err = place.watched(".web", "n")
    assert (code, out) == (2, "")
    assert "'.web' is not a segment name" in err
    assert place.watched("web", "a..b") == (2, "", "watch: 'a..b': not a dotted path\n")
    (place.run / "web.shmconf").chmod(0o600 if os.geteuid() == 0 else 0)
    code, out, err = place.watched("web", "n")
    assert (code, out) == (1, "")
    assert "web.shmconf: Permission denied" in err
