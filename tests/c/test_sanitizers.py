"""The C reader under AddressSanitizer, UndefinedBehaviorSanitizer, LeakSanitizer and ThreadSanitizer."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from c_reader import Result

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GOLDEN = ROOT / "tests/segment/golden"
MEMORY = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def exercise(compile_c: Compile) -> Callable[[Path, list[str]], dict[str, tuple[Result, str]]]:
    """`exercise(directory, names)`: everything is asked of each segment; what opening them gave."""
    program = compile_c(HERE / "exercise.c", *MEMORY)

    def run(directory: Path, names: list[str]) -> dict[str, tuple[Result, str]]:
        ran = subprocess.run(
            [program, directory, *names], capture_output=True, text=True, errors="replace", timeout=250
        )
        assert ran.returncode == 0, ran.stderr
        assert not ran.stderr, ran.stderr
        told = (line.split(" ", 2) for line in ran.stdout.splitlines())
        return {name: (Result(int(result)), text) for name, result, text in told}

    return run


def put(directory: Path, name: str, data: bytes) -> None:
    path = directory / f"{name}.shmconf"
    path.write_bytes(data)
    path.chmod(0o640)


def test_golden_segments(tmp_path: Path, exercise: Any) -> None:
    stored = {path.name.removesuffix(".shmconf.gz"): path for path in GOLDEN.glob("*.shmconf.gz")}
    for name, path in stored.items():
        put(tmp_path, name, gzip.decompress(path.read_bytes()))
    results = exercise(tmp_path, [*stored])
    assert {name for name, (result, _) in results.items() if result is not Result.OK} == {"empty"}
    assert results["empty"][0] is Result.NOT_FOUND
    assert len(results) == len(stored) > 5


def hostile() -> ModuleType:
    """The segments that lie, of the tests of trust."""
    spec = importlib.util.spec_from_file_location("hostile", ROOT / "tests/unit/shmconf/hostile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_segments_that_lie(tmp_path: Path, exercise: Any) -> None:
    crafted = hostile().CRAFTED
    names = [f"crafted-{number}" for number in range(len(crafted))]
    for name, build in zip(names, crafted.values(), strict=True):
        put(tmp_path, name, build())
    results = exercise(tmp_path, names)
    assert [*results] == names
    assert {result for result, _ in results.values()} >= {Result.OK, Result.CORRUPT, Result.NOT_FOUND}


def test_segments_cut_short_and_flipped(tmp_path: Path, exercise: Any) -> None:
    whole = hostile().make(tmp_path)
    cut, flipped = range(0, len(whole), 1021), [*range(0, 1024, 9), *range(4096, 4160), *range(12288, 12588)]
    for length in cut:
        put(tmp_path, f"cut-{length}", whole[:length])
    for offset in flipped:
        data = bytearray(whole)
        data[offset] ^= 1 << offset % 8
        put(tmp_path, f"flipped-{offset}", bytes(data))
    names = [f"cut-{length}" for length in cut] + [f"flipped-{offset}" for offset in flipped]
    results = exercise(tmp_path, names)
    assert [*results] == names
    assert {result for result, _ in results.values()} >= {Result.OK, Result.CORRUPT, Result.INCOMPATIBLE}


def test_the_sanitizers_are_there(compile_c: Compile, tmp_path: Path) -> None:
    """One bound taken out of the header, and a payload that ends too early: they have to notice."""
    text = (ROOT / "shm/include/shmconf.h").read_text()
    bound = "    if (offset > view->length || count > view->length - offset) {\n        return false;\n    }\n"
    assert text.count(bound) == 1
    (tmp_path / "shmconf.h").write_text(text.replace(bound, ""))
    program = compile_c(HERE / "exercise.c", *MEMORY, include=tmp_path)
    put(tmp_path, "lying", hostile().craft(payload=b"\x81\xa1a\xcf\x00\x00"))  # a number cut short
    ran = subprocess.run([program, tmp_path, "lying"], capture_output=True, text=True, timeout=250)
    assert ran.returncode != 0
    assert "Sanitizer" in ran.stderr or "runtime error" in ran.stderr, ran.stderr


def test_the_tests_of_the_reader_under_sanitizers(require: Callable[[object, str], None], compile_c: Compile) -> None:
    """The same tests once more, in a Python that has loaded AddressSanitizer."""
    compile_c(HERE / "library.c", "-shared", "-fPIC", *MEMORY)  # asks for gcc
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    require(Path(found).is_absolute(), "gcc's AddressSanitizer is needed (Debian: libgcc-12-dev)")
    modules = [HERE / f"test_{name}.py" for name in ("open", "reading", "following", "values")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        "not for_ever",
        *map(str, modules),
    ]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": os.path.realpath(found),
            "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:allocator_may_return_null=1",
            "SHMCONF_TEST_SANITIZE": " ".join(MEMORY),
        },
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.returncode == 0, f"{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 140


RACE = ("-g", "-O2", "-pthread", "-fsanitize=thread")


def race(program: Path, place: Path, *arguments: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, place, *map(str, arguments)],
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1 history_size=7"},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_threads_that_read_while_another_publishes(compile_c: Compile, tmp_path: Path) -> None:
    """Silent under ThreadSanitizer, with reads that the writer overtook and lapped: the program demands both."""
    ran = race(compile_c(HERE / "race.c", *RACE, compiler="clang"), tmp_path, 90, 1000, 40)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr, ran.stderr
    verified, lapped, retries, versions = map(int, re.findall(r"\d+", ran.stdout))
    assert verified >= 1000
    assert retries >= 40
    assert lapped > 0
    assert versions > 4


def test_thread_sanitizer_notices_a_payload_that_is_no_atomic(compile_c: Compile, tmp_path: Path) -> None:
    """One process in forty never reports what it saw, as the other access has left ThreadSanitizer's history by then:
    a try ends at the first report, and the next one is another process."""
    program = compile_c(HERE / "race.c", *RACE, "-DPLAIN_PAYLOAD", compiler="clang")
    for number in range(8):
        place = tmp_path / str(number)
        place.mkdir(mode=0o750)
        ran = race(program, place, 10, 10**9, 10**9)
        assert ran.returncode != 0
        if "ThreadSanitizer: data race" in ran.stderr:
            return
    raise AssertionError(ran.stderr)
