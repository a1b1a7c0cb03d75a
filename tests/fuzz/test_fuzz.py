"""A bounded run of the fuzzer (make fuzz is for long ones), and the proof that it would find what it is for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEADER = HERE.parents[1] / "shm/include/shmconf.h"
SECONDS = 20


@pytest.fixture(autouse=True)
def _clang(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    source = tmp_path / "probe.c"
    source.write_text(
        "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const unsigned char *, size_t);\n"
        "int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { (void)data; (void)size; return 0; }\n"
    )
    try:
        probe = ["clang", "-fsanitize=fuzzer,address", source, "-o", tmp_path / "probe"]
        found = subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        found = False
    require(found, "clang with libFuzzer is needed (Debian: clang libclang-rt-14-dev)")


def run(header: Path, seconds: int, found: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import run; from pathlib import Path;"
        "import subprocess; place = Path(sys.argv[2]);"
        "program = run.build(place, Path(sys.argv[3]));"
        "sys.exit(subprocess.run([*run.command(program, int(sys.argv[4]), place), run.HERE / 'corpus']).returncode)"
    )
    found.mkdir()
    arguments = [str(HERE), str(found), str(header), str(seconds)]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, errors="replace", timeout=250
    )


def test_hostile_segments_do_no_harm(tmp_path: Path) -> None:
    ran = run(HEADER.parent, SECONDS, tmp_path / "found")
    assert ran.returncode == 0, ran.stderr[-6000:]
    covered = [int(number) for number in re.findall(r" cov: (\d+) ", ran.stderr)]
    executed = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    assert executed is not None
    assert int(executed.group(1)) > 1000
    assert covered[-1] > 600  # of about 800 edges that can be reached: else the inputs stay at a checksum
    assert not [*(tmp_path / "found").glob("*-*")]


ABLATIONS = {
    "a bound of a private copy": (
        "    if (offset > view->length || count > view->length - offset) {\n        return false;\n    }\n",
        "",
    ),
    "the size of the file": (
        "    if (offset + length > atomic_load_explicit(&segment->known, memory_order_relaxed)) {",
        "    if (false) {",
    ),
    "the end of what a table tells": (
        "        return *end > offset && *end <= content->payload.length;",
        "        return true;",
    ),
}


@pytest.mark.parametrize("taken_out", ABLATIONS)
def test_what_is_taken_out_is_found(tmp_path: Path, taken_out: str) -> None:
    old, new = ABLATIONS[taken_out]
    text = HEADER.read_text()
    assert text.count(old) == 1
    (tmp_path / "shmconf.h").write_text(text.replace(old, new))
    ran = run(tmp_path, 60, tmp_path / "found")
    assert ran.returncode != 0
    assert re.search(r"ERROR: (AddressSanitizer|libFuzzer)|runtime error|differ|outside", ran.stderr), ran.stderr[
        -6000:
    ]
    assert [*(tmp_path / "found").glob("crash-*")]


def test_the_corpus_is_small() -> None:
    inputs = [*(HERE / "corpus").iterdir()]
    assert 20 <= len(inputs) <= 120
    assert sum(path.stat().st_size for path in inputs) < 200_000
