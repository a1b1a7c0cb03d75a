"""Builds the fuzz target and lets libFuzzer run on it, from what corpus/ has and what earlier runs found.

    python tests/fuzz/run.py SECONDS [DIRECTORY]      # make fuzz FUZZ_SECONDS=3600

DIRECTORY (tests/fuzz/found) keeps inputs that reached something new, and what made the reader crash, leak or hang, as
crash-…, leak-… or timeout-… with a sanitizer's report on stderr. Exit code 0 where there was nothing of the kind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LARGEST = 8192  # bytes of an input
LONGEST = 20  # seconds for one input: far beyond any, and a hang all the same


def build(directory: Path, header: Path = ROOT / "shm/include") -> Path:
    """The target, in `directory`. Raises CalledProcessError."""
    program = directory / "fuzz_segment"
    options = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
    sanitizers = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    includes = [f"-I{header}", f"-I{ROOT / 'tests/c'}"]
    subprocess.run(["clang", *options, *sanitizers, *includes, HERE / "fuzz_segment.c", "-o", program], check=True)
    return program


def command(program: Path, seconds: int, found: Path, *options: str) -> list[str]:
    """A run of the target that ends after `seconds`."""
    limits = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-timeout={LONGEST}", "-rss_limit_mb=2000"]
    return [str(program), *limits, "-print_final_stats=1", f"-artifact_prefix={found}/", *options, str(found)]


def main(seconds: int, found: Path) -> int:
    if shutil.which("clang") is None:
        print("fuzz: clang is needed (Debian: clang libclang-rt-14-dev)", file=sys.stderr)
        return 1
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        # The segments: in memory where that can be had, as the target writes one for each input.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else place
        environment = {**os.environ, "TMPDIR": memory}
        return subprocess.run(
            [*command(build(Path(place)), seconds, found), HERE / "corpus"], env=environment
        ).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "found"))
