"""The header by itself: as C11 and as C++11, by both compilers, in programs of one and of several files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from c_reader import _SIGNATURES, Kind, Result

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "shm/include/shmconf.h"
STRICT = ("-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wstrict-prototypes", "-Wmissing-prototypes")

Compile = Callable[..., Path]

IMPLEMENTATION = """
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"
#include "shmconf.h"
"""

# Every way to name what the header declares must work in both languages.
USE = """
#include "shmconf.h"
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments)
{
    shmconf_fault fault;
    shmconf_reader *reader;
    shmconf_status status;
    shmconf_int_cell whole;
    shmconf_double_cell half;
    shmconf_bool_cell yes;
    shmconf_part part;
    int64_t size = 0;
    double real = 0;
    bool truth = false;
    if (count != 3) {
        return 2;
    }
    enum shmconf_part_kind kind = SHMCONF_INTEGER;
    memset(&part, 0, sizeof part);
    part.kind = SHMCONF_TEXT;
    if (part.kind == kind || SHMCONF_PAYLOAD + SHMCONF_INDEX + SHMCONF_METADATA != SHMCONF_ALL) {
        return 3;
    }
    if (shmconf_open(&reader, arguments[2], arguments[1], &fault) != SHMCONF_OK) {
        puts(fault.text);
        return fault.result;
    }
    shmconf_int_cell_init(&whole, reader, "n");
    shmconf_double_cell_init(&half, reader, "n");
    shmconf_bool_cell_init(&yes, reader, "n");
    int result = shmconf_int_cell_get(&whole, &size);
    shmconf_double_cell_get(&half, &real);
    if (shmconf_bool_cell_get(&yes, &truth) != SHMCONF_WRONG_TYPE) {
        return 4;
    }
    shmconf_cell_release(&whole.cell);
    printf("%d %lld %g %s\\n", result, (long long)size, real, shmconf_describe(shmconf_status_take(reader, &status)));
    shmconf_close(reader);
    return 0;
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_the_implementation_is_c11_without_a_warning(
    compile_c: Compile, source: Any, compiler: str, level: str
) -> None:
    compile_c(source("unit.c", IMPLEMENTATION), level, *STRICT, "-c", compiler=compiler)


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
@pytest.mark.parametrize("reading", ["gcc", "clang"])
def test_declarations_are_c_and_cpp(compile_c: Compile, source: Any, place: Any, compiler: str, reading: str) -> None:
    """One file uses it, in either language; another, in C, holds it."""
    place.published({"n": 5})
    strict = ("-Wshadow", "-Wconversion", *(() if compiler.endswith("++") else ("-Wstrict-prototypes",)))
    used = compile_c(source("use.c", USE), "-O2", "-c", *strict, compiler=compiler)
    held = compile_c(source("unit.c", IMPLEMENTATION), "-O2", "-c", compiler=reading)
    program = used.with_name("program")
    subprocess.run(["gcc", str(used), str(held), "-o", str(program)], check=True, capture_output=True)
    ran = subprocess.run([program, str(place.run), "web"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "0 5 5 done\n")
    ran = subprocess.run([program, str(place.run), "none"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout[:17]) == (Result.NOT_FOUND, "no segment 'none'")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_one_file_may_have_it_all_to_itself(compile_c: Compile, source: Any, place: Any, compiler: str) -> None:
    place.published({"n": 5})
    text = "#define SHMCONF_IMPLEMENTATION\n#define SHMCONF_API static __attribute__((unused))\n" + USE
    program = compile_c(source("alone.c", text), "-O2", compiler=compiler)
    symbols = subprocess.run(["nm", "-g", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    assert "main" in symbols
    assert "shmconf" not in symbols
    ran = subprocess.run([program, str(place.run), "web"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "0 5 5 done\n")


def refused(source: Path, *options: str, compiler: str = "gcc") -> str:
    command = [compiler, f"-I{HEADER.parent}", *options, "-c", str(source), "-o", "/dev/null"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode != 0
    return ran.stderr


def test_what_cannot_work_does_not_compile(source: Any, compile_c: Compile) -> None:
    compile_c(source("unit.c", IMPLEMENTATION), "-c")  # asks for gcc
    late = source("late.c", f"#include <stdio.h>\n{IMPLEMENTATION}")
    assert "or compile it with -D_GNU_SOURCE" in refused(late, "-std=c11")
    compile_c(late, "-c", "-D_GNU_SOURCE")
    assert "is C11: let one C file define" in refused(source("unit.cpp", IMPLEMENTATION), compiler="g++")


def test_the_tests_know_every_function_and_number() -> None:
    text = HEADER.read_text().split("/* === the implementation")[0]
    declared = set(re.findall(r"^SHMCONF_API [^;(]*?shmconf_(\w+)\(", text, re.MULTILINE))
    assert declared == {name for name in _SIGNATURES if not name.startswith("test_")} | {"cell_refresh"}

    def enumerators(enum: str) -> list[str]:
        body = re.search(rf"enum {enum} \{{(.*?)\}};", text, re.DOTALL)
        assert body is not None
        return re.findall(r"SHMCONF_(\w+)", re.sub(r"/\*.*?\*/", "", body.group(1), flags=re.DOTALL))

    assert enumerators("shmconf_result") == [result.name for result in Result]
    assert enumerators("shmconf_part_kind") == [kind.name for kind in Kind]


def test_only_names_of_the_library_are_exported(compile_c: Compile, source: Any) -> None:
    unit = compile_c(source("unit.c", IMPLEMENTATION), "-O2", "-c")
    listed = subprocess.run(["nm", "-g", "--defined-only", unit], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert names
    assert all(name.startswith("shmconf_") for name in names)


def test_nothing_but_libc_is_needed(compile_c: Compile, source: Any) -> None:
    library = compile_c(source("unit.c", IMPLEMENTATION), "-O2", "-shared", "-fPIC")
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED.*\[(.*?)\]", dynamic) == ["libc.so.6"]
