"""The quick way and the builder: one gives up where the other finds a problem, and else they build the same.

The quick way in C and in Python: they build the same or both give up, whatever the text."""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yaml import SafeLoader
from yaml.cyaml import CParser
from yaml.error import YAMLError

from shmconf_agent import native as native_room
from shmconf_agent.formats import DEFAULT_LIMITS, Limits, yaml_native, yaml_quick
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.formats.yaml_builder import Builder, LimitPassed
from shmconf_agent.formats.yaml_quick import TooMuch, Trouble

# Under sanitizers (tests/c/test_agent_native.py) everything takes many times as long.
SHARE = 10 if "SHMCONF_TEST_NATIVE" in os.environ else 1
CORPUS = Path(__file__).parent / "pyyaml_corpus" / "data"

SCALARS = st.sampled_from(
    [
        *("a", "b", "1", "1.0", "007", "true", "~", "", "2001-01-01", "'q'", '"\\u00e9"', '"\\ud800"', "é", "! a"),
        *("<<", "=", "'<<'", "99999999999999999999", "12345678901234567890", "1\u0663", "!!str 1", "!!int x"),
        *("&x s", "&y 5", "*x", "*y", "*z"),
    ]
)
KEYS = st.one_of(SCALARS, st.just("<<"), st.sampled_from("abcdefgh"))
FLOWS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.builds(
            lambda before, pairs: f"{before}{{{', '.join(f'? {key} : {value}' for key, value in pairs)}}}",
            st.sampled_from(["", "", "", "&x ", "&y ", "&z ", "!!map ", "!!set ", "! "]),
            st.lists(st.tuples(st.one_of(KEYS, inner), inner), max_size=4),
        ),
    ),
    max_leaves=14,
)
TEXTS = st.lists(FLOWS, min_size=1, max_size=3).map(lambda documents: "\n--- ".join(["--- a", *documents])[6:])


def quick(text: str, limits: Limits = DEFAULT_LIMITS) -> list[Any] | None:
    """What the quick way builds; None where it gives up."""
    try:
        return yaml_format.build_quickly(text.encode(), limits)
    except (Trouble, YAMLError):
        return None


def in_python(data: bytes, limits: Limits) -> tuple[str, str]:
    """What the quick way in Python comes to: the values, or how it gives up."""
    try:
        return "built", in_order(yaml_quick.build(CParser(data), limits))
    except TooMuch:
        return "gave up", "too much"
    except (Trouble, YAMLError, UnicodeError):
        return "gave up", "trouble"


def in_c(data: bytes, limits: Limits) -> tuple[str, str]:
    try:
        return "built", in_order(yaml_native.build(data, limits))
    except TooMuch:
        return "gave up", "too much"
    except (Trouble, UnicodeError):
        return "gave up", "trouble"


def careful(text: str, limits: Limits = DEFAULT_LIMITS) -> list[Any] | None:
    """What the builder builds; None where it finds a problem."""
    builder = Builder(limits, careful=True)
    try:
        builder.run(yaml_format._events(text.encode()))
    except (YAMLError, LimitPassed):
        return None
    return None if builder.problems else builder.values


def in_order(values: object) -> str:
    """Types and the order of maps are told apart by it, and NaN equals itself."""
    return repr(values)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\nb: [x, 'y', \"z\", ~, 1.5]\nc: {d: e}\n",
        "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\nf: {<<: [*x, {b: 3, g: 4}]}\n",
        "a: &x {b: 1}\n---\na: &x [1]\nc: *x\n",
        "&k key: value\nother: *k\n",
        "a: &e []\nb: *e\nc: &n ~\nd: *n\n*n : 5\n",
        "a: !!str 1\nb: !!binary aGk=\nc: ! x\nd: !!map {}\ne: !!seq []\n",
        '"é": "ü\\n"\n',
        "{1: a, 1.5: b, ~: c, 2001-01-01: d}",
    ],
)
def test_a_text_in_order_is_not_read_twice(text: str) -> None:
    built = quick(text)

    assert built is not None
    assert in_order(built) == in_order(careful(text))


@settings(max_examples=400 // SHARE, deadline=None)
@given(TEXTS)
def test_it_builds_what_the_builder_builds_or_gives_up(text: str) -> None:
    built = quick(text)

    if built is not None:
        assert in_order(built) == in_order(careful(text))


@settings(max_examples=400 // SHARE, deadline=None)
@given(TEXTS, st.integers(0, 25), st.integers(0, 12), st.integers(1, 4), st.integers(1, 3))
def test_what_passes_a_limit_is_left_to_the_builder(
    text: str, nodes: int, keys: int, depth: int, documents: int
) -> None:
    limits = Limits(max_nodes=nodes, max_keys=keys, max_depth=depth, max_documents=documents)
    built = quick(text, limits)

    if built is not None:
        assert in_order(built) == in_order(careful(text, limits))


@pytest.fixture(scope="module")
def native(require: Callable[[object, str], None]) -> None:
    require(yaml_native.is_there(), f"there is no native module, or no libyaml for it: {yaml_native.MISSING}")


@pytest.mark.usefixtures("native")
@settings(max_examples=600 // SHARE, deadline=None)
@given(TEXTS, st.integers(0, 25), st.integers(0, 12), st.integers(1, 4), st.integers(1, 3))
def test_c_and_python_do_the_same(text: str, nodes: int, keys: int, depth: int, documents: int) -> None:
    data = text.encode()
    limits = Limits(max_nodes=nodes, max_keys=keys, max_depth=depth, max_documents=documents)

    assert in_c(data, DEFAULT_LIMITS) == in_python(data, DEFAULT_LIMITS)
    assert in_c(data, limits) == in_python(data, limits)


@pytest.mark.usefixtures("native")
@settings(max_examples=400 // SHARE, deadline=None)
@given(st.binary(max_size=40) | st.text("a:-[]{}&*!,'\"|>#? \n\t\0\u00e9\ufeff", max_size=40).map(str.encode))
def test_c_and_python_do_the_same_with_any_bytes(data: bytes) -> None:
    assert in_c(data, DEFAULT_LIMITS) == in_python(data, DEFAULT_LIMITS)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_c_and_python_do_the_same_with_pyyaml_s_own_tests(path: Path) -> None:
    data = path.read_bytes()

    assert in_c(data, DEFAULT_LIMITS) == in_python(data, DEFAULT_LIMITS)


# What ends in all the ways there are, in C: built, and given up at each of what is given up at.
ENDS = [
    *(b"", b"a: [1, 'x', y, ~, 1.5]\n", b"a: &x {b: &y [c]}\nd: {<<: *x, e: *y}\n", b"!!str a: !!map {}\n"),
    *(b"a: 1\na: 2\n", b"a: *x\n", b"? {a: b}\n: c\n", b"a: !!set {b}\n", b"<<: 1\n", b"&x a: &x b\n"),
    *(b"a: {<<: [1]}", b"a: [b\n", b"a: \xff\n", b"a: !!int x\n", b"a: 99999999999999999999", b"- - - a\n"),
    *(b"a: {b: {c: {d: {e: f}}}}\n", b"--- a\n--- b\n--- c\n"),
]
NARROW = Limits(max_nodes=40, max_keys=30, max_depth=4, max_documents=2)


@pytest.mark.usefixtures("native")
def test_nothing_is_kept_however_it_ends() -> None:
    """Of Python's memory, by the number of its blocks; of libyaml's, by that of the process: a parser takes 100 KB."""
    texts = [*ENDS, *(path.read_bytes() for path in CORPUS.iterdir())]

    def round_of_all() -> tuple[int, int]:
        for data in texts:
            in_c(data, NARROW)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return sys.getallocatedblocks(), pages * resource.getpagesize()

    for _ in range(3):
        round_of_all()
    blocks, size = round_of_all()
    ends = [round_of_all() for _ in range(5)]

    assert min(end - blocks for end, _ in ends) < 50
    assert min(end - size for _, end in ends) < 20_000_000


@pytest.mark.usefixtures("native")
def test_want_of_memory_is_an_error_wherever_it_comes(require: Callable[[object, str], None]) -> None:
    """Each allocation of Python's fails once, in a process of its own."""
    require(importlib.util.find_spec("_testcapi"), "CPython's own test module is needed (it comes with most builds)")
    script = Path(__file__).with_name("yaml_without_memory.py")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=110)

    assert ran.returncode == 0, ran.stderr
    failed, built = map(int, ran.stdout.split())
    assert failed > 100
    assert built > 0


@pytest.mark.usefixtures("native")
def test_a_shared_object_without_libyaml_is_none() -> None:
    assert native_room.module is not None
    with pytest.raises(ImportError, match="has no libyaml"):
        native_room.module.libyaml(native_room.module.__file__)
    with pytest.raises(ImportError, match="has no libyaml"):
        native_room.module.libyaml("/nowhere.so")


@pytest.mark.usefixtures("native")
def test_a_text_may_be_as_deep_as_the_limit() -> None:
    deep = b"[" * 200 + b"a" + b"]" * 200
    limits = Limits(max_depth=200)

    assert in_c(deep, limits)[0] == "built"
    assert in_c(deep, limits) == in_python(deep, limits)
    assert in_c(b"[" + deep + b"]", limits) == ("gave up", "too much")
    assert in_c(b"[" * 60_000, limits) == in_python(b"[" * 60_000, limits)


@pytest.mark.usefixtures("native")
def test_other_threads_run_while_a_text_is_read() -> None:
    """The heartbeat's, for one, though there is hardly any code in Python to run."""
    data = b"".join(b"- a%d\n" % number for number in range(200_000))
    passes: list[float] = []
    ended = threading.Event()

    def pass_again_and_again() -> None:
        while not ended.wait(0.0005):
            passes.append(time.monotonic())

    thread = threading.Thread(target=pass_again_and_again)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        seen = 0
        while seen < 2:
            assert time.monotonic() < deadline, "no other thread ran while a text was read"
            began = time.monotonic()
            yaml_native.build(data, DEFAULT_LIMITS)
            until = time.monotonic()
            seen = len([at for at in passes if began < at < until])
    finally:
        ended.set()
        thread.join()


def test_nodes_are_counted_while_it_streams() -> None:
    class Endless:
        """The start of a list, and then the same item for ever."""

        def __init__(self) -> None:
            self._events = SafeLoader(b"[a]")
            self.given = 0

        def get_event(self) -> Any:
            self.given += 1
            if self.given <= 4:
                self._last = self._events.get_event()
            return self._last

    endless = Endless()

    with pytest.raises(Trouble):
        yaml_quick.build(endless, Limits(max_nodes=25_000))
    assert endless.given < 50_000


def test_a_key_is_one_object_in_all_maps() -> None:
    [tree] = quick("a: {hostname: x}\nb: {hostname: y}\n") or []
    [first], [second] = tree["a"], tree["b"]

    assert first is second
