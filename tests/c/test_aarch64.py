"""The code that compilers make for aarch64, whose loads pass one another: the orders that the protocol needs are in it.

Looked at are the functions themselves. Each fence of the reader must be a barrier for loads, and what follows it must
load the counter and compare it; the words that pair with the writer's releases must be loaded by load-acquires.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "shm/include/shmconf.h"
GCC = ("aarch64-linux-gnu-gcc",)
CLANG = ("clang", "--target=aarch64-linux-gnu", "-isystem", "/usr/aarch64-linux-gnu/include")

UNIT = """
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"
int use_cell(shmconf_int_cell *cell, int64_t *value);
int use_cell(shmconf_int_cell *cell, int64_t *value)
{
    return shmconf_int_cell_get(cell, value);
}
"""
ATTEMPTS = ("sc_try_get", "sc_try_copy", "sc_try_verify", "sc_try_status")
CALLERS = ("shmconf_segment_get", "shmconf_segment_copy", "shmconf_segment_verify", "shmconf_segment_status")
LOAD_ACQUIRE = re.compile(r"ldap?u?r\s")
BARRIER = re.compile(r"dmb\s+(ishld|ish|ld|sy)\b")
LOAD = re.compile(r"ldu?r\s+(x\d+),")
COMPARE = re.compile(r"cmp\s+(x\d+), (x\d+)$")
ELSE = re.compile(r"(st|ld|cas|swp|b|cb|tb|ret)")  # another access, or a way out

Functions = dict[str, list[str]]


@pytest.fixture(scope="session")
def compile_aarch64(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]
) -> Callable[..., Functions]:
    """`compile_aarch64(header's text, compiler, level)` is the code of each function."""
    tools = ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump")
    for tool in (*tools, "clang"):
        found = subprocess.run(["which", tool], capture_output=True).returncode == 0
        require(found, f"{tool} is needed to look at code for aarch64")

    def compile_one(header: str, compiler: tuple[str, ...], level: str) -> Functions:
        place = tmp_path_factory.mktemp("aarch64")
        (place / "shmconf.h").write_text(header)
        (place / "unit.c").write_text(UNIT)
        options = ("-std=c11", level, "-Wall", "-Wextra", "-Werror", "-c", "unit.c", "-o", "unit.o")
        ran = subprocess.run([*compiler, *options], cwd=place, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        dump = ("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", "unit.o")
        return functions(subprocess.run(dump, cwd=place, capture_output=True, text=True, check=True).stdout)

    return compile_one


def functions(listing: str) -> Functions:
    """Instructions by function; the parts and clones that a compiler makes of one (sc_x.part.0) count as it."""
    found: Functions = defaultdict(list)
    name = ""
    for line in listing.splitlines():
        if begins := re.match(r"[0-9a-f]+ <([^.>]+).*>:$", line):
            name = begins.group(1)
        elif instruction := re.match(r"\s+[0-9a-f]+:\s+(.*)$", line):
            found[name].append(instruction.group(1))
    return found


def acquires(code: Functions, name: str) -> bool:
    """Whether the function, or the reading of the slot that it calls, has a load-acquire."""
    called = "sc_read_slot" if any(re.match(r"bl\s.*<sc_read_slot", line) for line in code[name]) else name
    return any(LOAD_ACQUIRE.match(line) for line in (*code[name], *code[called]))


def rechecks(instructions: list[str]) -> tuple[int, int]:
    """How many barriers there are, and behind how many a word is loaded and compared before all else."""
    barriers, good = 0, 0
    for number, instruction in enumerate(instructions):
        if not BARRIER.match(instruction):
            continue
        barriers += 1
        loaded: set[str] = set()
        for line in instructions[number + 1 : number + 12]:
            if load := LOAD.match(line):
                loaded.add(load.group(1))
            elif compare := COMPARE.match(line):
                good += bool(loaded & set(compare.groups()))
                break
            elif ELSE.match(line):
                break
    return barriers, good


def problems(code: Functions) -> set[str]:
    """What the protocol needs and this code lacks."""
    lacking = set()
    for name in ATTEMPTS:
        if name not in code:
            lacking.add(f"{name}: not there")
            continue
        barriers, good = rechecks(code[name])
        if barriers == 0:
            lacking.add(f"{name}: no barrier")
        if good < barriers:
            lacking.add(f"{name}: a barrier without a re-check")
        if not acquires(code, name):
            lacking.add(f"{name}: the counter is not acquired")
    for name, word in {
        "sc_insist": "latest or the status number",
        "shmconf_version": "latest",
        "use_cell": "latest",
        "shmconf_wait": "the wake word and latest",
        "shmconf_segment_wake_word": "the wake word",
        "shmconf_segment_heartbeat_age": "the heartbeat",
    }.items():
        places = CALLERS if name == "sc_insist" and name not in code else (name,)  # or it is part of each of them
        if not all(any(LOAD_ACQUIRE.match(line) for line in code.get(place, ())) for place in places):
            lacking.add(f"{name}: {word} is not acquired")
    return lacking


@pytest.mark.parametrize("level", ["-O2", "-O3"])
@pytest.mark.parametrize("compiler", [GCC, CLANG], ids=["gcc", "clang"])
def test_the_orders_are_in_the_code(
    compile_aarch64: Callable[..., Functions], compiler: tuple[str, ...], level: str
) -> None:
    assert problems(compile_aarch64(HEADER.read_text(), compiler, level)) == set()


ABLATIONS = {
    "the fence": ("    atomic_thread_fence(memory_order_acquire);\n", "", {f"{name}: no barrier" for name in ATTEMPTS}),
    "the fence before the re-check": (
        "    atomic_thread_fence(memory_order_acquire);\n"
        "    return atomic_load_explicit(sc_shared(segment, counter_offset), memory_order_relaxed) == stable;\n",
        "    bool same = atomic_load_explicit(sc_shared(segment, counter_offset), memory_order_relaxed) == stable;\n"
        "    atomic_thread_fence(memory_order_acquire);\n"
        "    return same;\n",
        {f"{name}: a barrier without a re-check" for name in ATTEMPTS},
    ),
    "the acquires of words": (
        "    return atomic_load_explicit(sc_shared(segment, offset), memory_order_acquire);\n",
        "    return atomic_load_explicit(sc_shared(segment, offset), memory_order_relaxed);\n",
        {
            *(f"{name}: the counter is not acquired" for name in ATTEMPTS),
            "sc_insist: latest or the status number is not acquired",
            "shmconf_version: latest is not acquired",
            "shmconf_segment_heartbeat_age: the heartbeat is not acquired",
        },
    ),
    "the acquire of a cell": (
        "__atomic_load_n(cell->latest, __ATOMIC_ACQUIRE)",
        "__atomic_load_n(cell->latest, __ATOMIC_RELAXED)",
        {"use_cell: latest is not acquired"},
    ),
    "the acquire of the wake word": (
        "atomic_load_explicit(sc_wake(segment), memory_order_acquire)",
        "atomic_load_explicit(sc_wake(segment), memory_order_relaxed)",
        {"shmconf_segment_wake_word: the wake word is not acquired"},
    ),
}


@pytest.mark.parametrize("taken_out", ABLATIONS)
@pytest.mark.parametrize("compiler", [GCC, CLANG], ids=["gcc", "clang"])
def test_what_is_taken_out_is_missed(
    compile_aarch64: Callable[..., Functions], compiler: tuple[str, ...], taken_out: str
) -> None:
    old, new, missed = ABLATIONS[taken_out]
    header = HEADER.read_text()
    assert header.count(old) == 1
    assert problems(compile_aarch64(header.replace(old, new), compiler, "-O2")) == missed
