"""What the tests of the C reader share: compilers, the reader as a library, and a place with a writer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from c_reader import Library
from hypothesis import HealthCheck, settings

from shmconf import codec
from shmconf.directories import Directory
from shmconf.status import AgentStatus
from shmconf.writer import Settings, Writer

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "shm/include/shmconf.h"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")

SANITIZE = os.environ.get("SHMCONF_TEST_SANITIZE", "").split()  # then everything takes several times as long

settings.register_profile(
    "c", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25 if SANITIZE else 100
)
settings.load_profile("c")

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Compile:
    """`compile_c(source, *options, compiler="gcc", include=…)` is the program, or what -c or -shared make of it."""

    def compile_one(source: Path, *options: str, compiler: str = "gcc", include: Path = HEADER.parent) -> Path:
        require(shutil.which(compiler), f"{compiler} is needed to compile C")
        language = ("-std=c++11", "-x", "c++") if compiler.endswith("++") else ("-std=c11",)
        output = tmp_path_factory.mktemp("built") / source.stem
        command = [compiler, *language, *WARNINGS, f"-I{include}", str(source), *options, "-o", str(output)]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stderr}"
        assert not ran.stderr, ran.stderr
        return output

    return compile_one


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> Library:
    """The reader by ctypes; built with sanitizers, which this process has loaded, where the environment says so."""
    return Library(compile_c(ROOT / "tests/c/library.c", "-shared", "-fPIC", "-O2", "-g", *SANITIZE))


class Place:
    """A runtime directory and writers of the segment `web` in it."""

    def __init__(self, root: Path) -> None:
        self.run = root / "run"
        self.run.mkdir(mode=0o755)
        self.file = self.run / "web.shmconf"
        self.directory = Directory(self.run, named=True)
        self.opened: list[Writer] = []

    def writer(self, max_bytes: int = 1 << 20) -> Writer:
        writer = Writer(self.directory, "web", Settings(max_bytes))
        self.opened.append(writer)
        return writer

    def published(self, tree: dict[Any, Any]) -> Writer:
        """A writer that has published it."""
        writer = self.writer()
        self.publish(writer, tree)
        return writer

    @staticmethod
    def publish(writer: Writer, tree: dict[Any, Any]) -> int:
        return writer.publish(codec.pack(tree), {"files": ["base.yaml"]})

    @staticmethod
    def say(writer: Writer, **status: Any) -> None:
        writer.set_status(AgentStatus(**status).encode())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for writer in made.opened:
        writer.close()
