"""The agent's native module: held to libyaml's header, and its tests once more under sanitizers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
UNITS = ROOT / "agent/native"
INCLUDE = Path(sysconfig.get_path("include"))
MEMORY = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

Require = Callable[[object, str], None]

LAYOUT = """
#include <stddef.h>
#include <yaml.h>
#include "libyaml.h"

#define SAME(ours, theirs) \\
    _Static_assert(offsetof(Event, ours) == offsetof(yaml_event_t, theirs), #ours); \\
    _Static_assert(sizeof(((Event *)0)->ours) == sizeof(((yaml_event_t *)0)->theirs), #ours)

SAME(type, type);
SAME(data, data);
SAME(start, start_mark);
SAME(end, end_mark);
SAME(data.alias.anchor, data.alias.anchor);
SAME(data.scalar.anchor, data.scalar.anchor);
SAME(data.scalar.tag, data.scalar.tag);
SAME(data.scalar.value, data.scalar.value);
SAME(data.scalar.length, data.scalar.length);
SAME(data.scalar.plain_implicit, data.scalar.plain_implicit);
SAME(data.scalar.quoted_implicit, data.scalar.quoted_implicit);
SAME(data.collection_start.anchor, data.mapping_start.anchor);
SAME(data.collection_start.tag, data.mapping_start.tag);
SAME(data.collection_start.anchor, data.sequence_start.anchor);
SAME(data.collection_start.tag, data.sequence_start.tag);
_Static_assert(sizeof(Event) == sizeof(yaml_event_t), "events");
_Static_assert(sizeof(Parser) >= 4 * sizeof(yaml_parser_t), "there is room for a parser");
_Static_assert(_Alignof(Parser) >= _Alignof(yaml_parser_t), "parsers are aligned");
_Static_assert(NO_EVENT == (int)YAML_NO_EVENT && STREAM_START == (int)YAML_STREAM_START_EVENT
               && STREAM_END == (int)YAML_STREAM_END_EVENT && DOCUMENT_START == (int)YAML_DOCUMENT_START_EVENT
               && DOCUMENT_END == (int)YAML_DOCUMENT_END_EVENT && ALIAS == (int)YAML_ALIAS_EVENT
               && SCALAR == (int)YAML_SCALAR_EVENT && SEQUENCE_START == (int)YAML_SEQUENCE_START_EVENT
               && SEQUENCE_END == (int)YAML_SEQUENCE_END_EVENT && MAPPING_START == (int)YAML_MAPPING_START_EVENT
               && MAPPING_END == (int)YAML_MAPPING_END_EVENT, "kinds of events");
void (*get_version)(int *, int *, int *) = yaml_get_version;
int (*initialize)(yaml_parser_t *) = yaml_parser_initialize;
void (*delete)(yaml_parser_t *) = yaml_parser_delete;
void (*set_input_string)(yaml_parser_t *, const unsigned char *, size_t) = yaml_parser_set_input_string;
int (*parse)(yaml_parser_t *, yaml_event_t *) = yaml_parser_parse;
void (*delete_event)(yaml_event_t *) = yaml_event_delete;
"""


def compile_c(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def gcc(require: Require) -> None:
    require(shutil.which("gcc"), "gcc is needed to compile C")


@pytest.mark.usefixtures("gcc")
def test_events_are_laid_out_as_libyaml_says(tmp_path: Path, require: Require) -> None:
    require(Path("/usr/include/yaml.h").exists(), "libyaml's header is needed (Debian: libyaml-dev)")
    source = tmp_path / "layout.c"
    source.write_text(LAYOUT)
    held = compile_c(f"-I{UNITS}", "-c", source, "-o", tmp_path / "layout.o")
    assert held.returncode == 0, held.stderr

    changed = (UNITS / "libyaml.h").read_text().replace("char *anchor, *tag, *value;", "char *anchor, *value, *tag;")
    (tmp_path / "libyaml.h").write_text(changed)
    unlike = compile_c(f"-I{tmp_path}", "-c", source, "-o", tmp_path / "layout.o")
    assert unlike.returncode != 0
    assert "data.scalar.tag" in unlike.stderr


@pytest.fixture(scope="module")
def run_sanitized(tmp_path_factory: pytest.TempPathFactory, require: Require, gcc: None) -> Callable[..., str]:
    """`run_sanitized(units, arguments)`: pytest's output with the module made of those units, and its exit code."""
    require((INCLUDE / "Python.h").exists(), "Python's headers are needed (Debian: python3-dev)")
    require(importlib.util.find_spec("yaml._yaml"), "PyYAML was built without libyaml")
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    require(Path(found).is_absolute(), "gcc's AddressSanitizer is needed (Debian: libgcc-12-dev)")

    def run(units: Path, *arguments: object) -> str:
        built = tmp_path_factory.mktemp("native") / "_native.so"
        made = compile_c(
            *MEMORY, "-shared", "-fPIC", f"-I{INCLUDE}", f"-I{units}", *sorted(units.glob("*.c")), "-o", built
        )
        assert made.returncode == 0, made.stderr
        command = [sys.executable, "-m", "pytest", "-qxs", "-p", "no:cacheprovider", "-p", "sanitized_native"]
        ran = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "LD_PRELOAD": os.path.realpath(found),
                "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
                "PYTHONMALLOC": "malloc",  # so that the sanitizer sees Python's own objects too
                "PYTHONPATH": str(HERE),
                "SHMCONF_TEST_NATIVE": str(built),
                "SHMCONF_PURE": "",
            },
            capture_output=True,
            text=True,
            timeout=550,
        )
        return f"{ran.stdout[-4000:]}\n{ran.stderr[-6000:]}\nexit {ran.returncode}"

    return run


QUICK = ROOT / "tests/unit/shmconf_agent/test_yaml_quick.py"
OTHERS = [
    ROOT / "tests/unit/shmconf_agent/test_stillness.py",
    f"{ROOT}/tests/unit/shmconf_agent/test_encode.py::test_the_same_objects_are_told_from_equal_ones",
]


@pytest.mark.timeout(600)
def test_its_tests_under_sanitizers(run_sanitized: Callable[..., str]) -> None:
    # The sanitizer keeps freed memory for a while, so that nothing can be said of the process's size.
    said = run_sanitized(UNITS, QUICK, *OTHERS, "-k", "not nothing_is_kept and not pure")
    assert said.endswith("exit 0"), said
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed.group(1)) > 450
    assert "skipped" not in said


@pytest.mark.timeout(600)
def test_the_sanitizers_notice_a_stack_that_does_not_grow(run_sanitized: Callable[..., str], tmp_path: Path) -> None:
    shutil.copytree(UNITS, tmp_path / "native")
    unit = tmp_path / "native/yaml_quick.c"
    bound = "if (loop->depth < loop->room) {"
    assert unit.read_text().count(bound) == 1
    unit.write_text(unit.read_text().replace(bound, "if (loop->room > 0) {"))

    said = run_sanitized(tmp_path / "native", QUICK, "-k", "deep")
    assert not said.endswith("exit 0")
    assert "heap-buffer-overflow" in said, said
