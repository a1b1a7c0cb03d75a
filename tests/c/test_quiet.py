"""What a look-up asks of the kernel: nothing. Whoever reads has given up system calls, and is killed at the first."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Compile = Callable[..., Path]
ROUNDS = 8


def tree(number: int) -> dict[str, Any]:
    return {"list": [number] * 3000, "last": number}


@pytest.mark.parametrize(("gets", "ends"), [(40, 0), (1100, -signal.SIGKILL)], ids=["few", "the 1,024th as well"])
def test_a_look_up_makes_no_system_call(
    compile_c: Compile, place: Any, require: Any, gets: int, ends: int
) -> None:
    """At whatever version; only each 1,024th looks whether the file is still the one of that name."""
    writer = place.published(tree(1))
    for number in range(2, 9):
        place.publish(writer, tree(number))  # each slot has its room, so that the file does not grow meanwhile
    program = compile_c(HERE / "quiet.c", "-O2")
    with subprocess.Popen(
        [program, place.run, str(gets), str(ROUNDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        begun = 0
        for number in range(9, 9 + ROUNDS):
            if process.stdout.read(1) != b"?":
                break
            begun += 1
            place.publish(writer, tree(number))
            process.stdin.write(bytes([number]))
    require(process.returncode != 77, "seccomp")
    assert process.returncode == ends
    assert begun == (ROUNDS if ends == 0 else 1)
