"""Text and files made to hurt: the agent says what is wrong or serves what they mean, soon and in bounded memory, and
takes the next good edit. One agent meets all of them, in an address space that it could not get far with if it built
what they ask for."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCES = ["base.yaml", "conf.d/", {"path": "deep.yaml", "at": "m.n.o", "optional": True}]
ADDRESS_SPACE = 3 << 30
MOST_RSS = 512 << 20  # bytes; some 250 MB are what it takes
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({ADDRESS_SPACE}, {ADDRESS_SPACE}))"
DEEP = 60_000
DEPTH = "nested deeper than the limit max_depth = 128; raise it in [segment.web.limits] of the agent's file"
NODES = "more keys and values, aliases and merges expanded, than the limit max_nodes = 2,000,000"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 60))
MERGES = "m0: &m0 {k0: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 20)}], k{n}: 1}}\n" for n in range(1, 60)
)


class Text:
    """A file with this text."""

    def __init__(self, text: str | bytes) -> None:
        self.data = text if isinstance(text, bytes) else text.encode()

    def __call__(self, path: Path) -> None:
        aside = path.with_name(".aside")
        aside.write_bytes(self.data)
        aside.replace(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path.parent.parent / "s"))  # a short path, as sockets need
    (path.parent.parent / "s").rename(path)


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "60,000 brackets": ("x.yaml", Text("a: " + "[" * DEEP), DEPTH),
    "60,000 braces": ("x.yaml", Text("{a: " * DEEP), DEPTH),
    "60,000 brackets, closed": ("x.yaml", Text("a: " + "[" * DEEP + "]" * DEEP), DEPTH),
    "60,000 dashes": ("x.yaml", Text("- " * DEEP), DEPTH),
    "60,000 question marks": ("x.yaml", Text("? " * DEEP), DEPTH),
    "blocks within blocks": ("x.yaml", Text("".join(" " * n + "k:\n" for n in range(1000))), DEPTH),
    "60,000 brackets in JSON": ("x.json", Text('{"a": ' + "[" * DEEP + "]" * DEEP + "}"), DEPTH),
    "60,000 braces in JSON": ("x.json", Text('{"a":' * DEEP + "1" + "}" * DEEP), DEPTH),
    "60,000 brackets in TOML": ("x.toml", Text("a = " + "[" * DEEP + "]" * DEEP), DEPTH),
    "60,000 braces in TOML": ("x.toml", Text("a = " + "{a = " * DEEP + "1" + "}" * DEEP), DEPTH),
    "60,000 parts of a key in TOML": ("x.toml", Text("a." * DEEP + "a = 1"), DEPTH),
    "60,000 parts of a header in TOML": ("x.toml", Text("[" + "a." * DEEP + "a]"), DEPTH),
    "mounted too deep": ("../deep.yaml", Text("a: " + "[" * 127 + "]" * 127), f"mounted, it is {DEPTH}"),
    "a bomb of aliases": ("x.yaml", Text(BOMB), NODES),
    "a bomb of merge keys": ("x.yaml", Text(MERGES), NODES),
    "a long text at many places": (
        "x.yaml",
        Text(f"a: &a {'x' * 1_000_000}\nb: [{'*a, ' * 1000}]\n"),
        "more bytes, packed and aliases expanded, than the segment's max_bytes = 268,435,456",
    ),
    "two million empty lists": ("x.yaml", Text("a: [" + "[]," * 2_000_000 + "]"), NODES),
    "two million empty lists in JSON": ("x.json", Text('{"a": [' + "[]," * 2_000_000 + "[]]}"), NODES),
    "six million empty lists in TOML": ("x.toml", Text("a = [" + "[]," * 6_000_000 + "]"), NODES),
    "800,001 keys": (
        "x.yaml",
        Text("{" + "".join(f"{n:x}: ," for n in range(800_001)) + "}"),
        "more keys, aliases and merges expanded, than the limit max_keys = 800,000",
    ),
    "a million equal keys": ("x.yaml", Text("k: 1\n" * 1_000_000), "duplicate key 'k', first set at line 1, column 1"),
    "equal keys in JSON": ("x.json", Text('{"k": 1' + ', "k": 1' * 300_000 + "}"), "duplicate key 'k', first set at"),
    "equal keys in TOML": ("x.toml", Text("k = 1\n" * 100_000), "duplicate key 'k', first set at line 1, column 1"),
    "20,000 documents": ("x.yaml", Text("---\n" * 20_000), "more documents than the limit max_documents = 10,000"),
    "handles of tags": ("x.yaml", Text("%TAG !a! x:\n" * 500_000), "more than 1,000 %TAG directives"),
    "a million digits": ("x.yaml", Text("a: " + "1" * 1_000_000), "is beyond 64 bits"),
    "a million digits in JSON": ("x.json", Text('{"a": ' + "1" * 1_000_000 + "}"), "an integer beyond 64 bits"),
    "a million digits in TOML": ("x.toml", Text("a = " + "1" * 1_000_000), "an integer beyond 64 bits"),
    "a million parts of a number to the base 60": ("x.yaml", Text("a: 1" + ":59" * 1_000_000), "is beyond 64 bits"),
    "a key without end": ("x.yaml", Text("x" * 1_000_000 + ": 1"), "x.yaml:"),
    "a text without end": ("x.yaml", Text('a: "' + "\\n" * 1_000_000), "x.yaml:1:"),
    "a text without end in JSON": ("x.json", Text('{"a": "' + "\\n" * 5_000_000), "x.json:1:"),
    "a text without end in TOML": ("x.toml", Text('a = """' + "\\n" * 5_000_000), "x.toml:1:"),
    "a gigabyte": (
        "x.yaml",
        sparse,
        "the file has 1,073,741,824 bytes, more than the limit max_file_bytes = 67,108,864",
    ),
    "a named pipe": ("x.yaml", os.mkfifo, "x.yaml: is a named pipe"),
    "a socket": ("x.yaml", listening, "x.yaml: is a socket"),
    "/dev/zero": ("x.yaml", linked("/dev/zero"), "x.yaml: is a device"),
    "/dev/full": ("x.json", linked("/dev/full"), "x.json: is a device"),
    "/proc/self/mem": ("x.toml", linked("/proc/self/mem"), "x.toml: "),
    "a link to itself": ("x.yaml", linked("x.yaml"), "symbolic links lead in a circle"),
    "a dangling link": ("x.yaml", linked("nowhere"), "its symbolic link leads to nothing"),
    "bytes that are no text": ("x.yaml", Text(b"a: \xff\xfe\xfd"), "x.yaml:1:4: not UTF-8"),
    "bytes that are no text in JSON": ("x.json", Text(b'{"a": "\xff"}'), "x.json:1:8: not UTF-8"),
    "bytes that are no text in TOML": ("x.toml", Text(b'a = "\xc0\x80"'), "x.toml:1:6: not UTF-8"),
    "half characters": ("x.yaml", Text(b"a: \xed\xa0\x80"), "x.yaml:1:4: not UTF-8"),
    "UTF-16 without a mark": ("x.yaml", Text("a: 1\n".encode("utf-16-le")), "x.yaml:1:2: "),
    "UTF-16 in JSON": ("x.json", Text('{"a": 1}'.encode("utf-16")), "the file is UTF-16: save it as UTF-8"),
    "UTF-16 in TOML": ("x.toml", Text("a = 1".encode("utf-16")), "the file is UTF-16: save it as UTF-8"),
    "UTF-32": ("x.yaml", Text("a: 1\n".encode("utf-32")), "x.yaml:1:1: "),
    "UTF-32 in JSON": ("x.json", Text('{"a": 1}'.encode("utf-32-be")), "x.json:1:1: "),
    "null characters": ("x.yaml", Text(bytes(1_000_000)), "x.yaml:1:1: character U+0000 is not allowed in YAML"),
    "a null character in JSON": ("x.json", Text('{"a": "\0"}'), "x.json:1:8: invalid control character"),
    "a null character in TOML": ("x.toml", Text('a = "\0"'), "x.toml:1:6: "),
    "control characters": ("x.yaml", Text("a: \x9b31m\n"), "x.yaml:1:4: character U+009B is not allowed in YAML"),
    "a half surrogate pair": ("x.json", Text('{"a": "\\ud800"}'), "half a surrogate pair is not a character"),
}

LONG = "x" * 5_000_000
TAKEN: dict[str, tuple[str, Callable[[Path], None], Any]] = {
    "a mark": ("x.yaml", Text(b"\xef\xbb\xbfa: 1\n"), {"a": 1}),
    "a mark in JSON": ("x.json", Text(b'\xef\xbb\xbf{"a": 1}'), {"a": 1}),
    "a mark in TOML": ("x.toml", Text(b"\xef\xbb\xbfa = 1\n"), {"a": 1}),
    "UTF-16": ("x.yaml", Text("a: é\n".encode("utf-16")), {"a": "é"}),
    "UTF-16 from the other end": ("x.yaml", Text(b"\xfe\xff" + "a: é\n".encode("utf-16-be")), {"a": "é"}),
    "CRLF": ("x.yaml", Text("a: 1\r\nb: |\r\n  x\r\n  y\r\n"), {"a": 1, "b": "x\ny\n"}),
    "CRLF in TOML": ("x.toml", Text("a = 1\r\nb = 2\r\n"), {"a": 1, "b": 2}),
    "CRLF in JSON": ("x.json", Text('{"a": 1,\r\n"b": 2}\r\n'), {"a": 1, "b": 2}),
    "lone CR": ("x.yaml", Text("a: 1\rb: 2\r"), {"a": 1, "b": 2}),
    "NEL and U+2028": ("x.yaml", Text("a: 1\x85b: 2\u2028c: 3\n"), {"a": 1, "b": 2, "c": 3}),
    "U+2028 in JSON": ("x.json", Text('{"a": "\u2028"}'), {"a": "\u2028"}),
    "a text of five million characters": ("x.yaml", Text(f"a: {LONG}\n"), {"a": LONG}),
    "a key of five million characters": ("x.json", Text(json.dumps({LONG: 1})), {LONG: 1}),
    "20,000 anchors": (
        "x.yaml",
        Text("".join(f"k{n}: &a{n} {n}\n" for n in range(20_000)) + "last: *a0\n"),
        {**{f"k{n}": n for n in range(20_000)}, "last": 0},
    ),
    "keys with one hash": (
        "x.yaml",
        Text("".join(f"{n * (2**61 - 1)}: \n" for n in range(-4, 9))),
        {n * (2**61 - 1): None for n in range(-4, 9)},
    ),
    "9,000 documents": ("x.yaml", Text("---\na: 1\n" * 9_000), {"a": 1}),
    "a link around the directory": ("loop", linked("."), {}),
}


class Bench:
    """One agent for all of them."""

    def __init__(self, home, eventually) -> None:
        self.home, self.eventually = home, eventually
        self.conf = home.root / "conf.d"
        self.conf.mkdir()
        sources = ", ".join(
            "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items()) + " }"
            if isinstance(source, dict)
            else json.dumps(source)
            for source in SOURCES
        )
        home.write("shmconf.toml", f"[segment.web]\nsources = [{sources}]\nlimits.max_keys = 800_000\n")
        home.write("base.yaml", "good: 0\n")
        home.write("conf.d/good.json", "{}")
        self.agent = home.start(before=LIMITED)
        self.reader = home.attach()
        self.good = 0

    def place(self, file: str, make: Callable[[Path], Any]) -> Path:
        path = Path(os.path.normpath(self.conf / file))
        make(path)
        return path

    def takes_a_good_edit(self, rest: dict[Any, Any]) -> None:
        self.good += 1
        self.home.write("base.yaml", f"good: {self.good}\n")
        expected = {"good": self.good, **rest}
        self.eventually(
            lambda: self.reader.get("good") == self.good and self.reader.snapshot().to_dict() == expected,
            lambda: f"a good edit to be served; the agent said:\n{self.agent.text()[-2000:]}",
            60.0,
        )
        assert self.reader.status().last_error is None

    def peak(self) -> int:
        """The most bytes that the agent ever had in memory."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.agent.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture(scope="module")
def bench(module_home, eventually) -> Bench:
    return Bench(module_home("hostile"), eventually)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_hostile_is_refused_and_the_agent_goes_on(bench: Bench, what: str) -> None:
    file, make, message = REFUSED[what]
    path = bench.place(file, make)
    try:
        bench.eventually(
            lambda: message in (bench.reader.status().last_error or ""),
            lambda: f"{message!r}; last: {bench.reader.status().last_error}; {bench.agent.text()[-2000:]}",
            60.0,
        )
        assert bench.reader.get("good") == bench.good
        assert bench.reader.status().agent_alive
        assert len(bench.home.status()[1]["last_error"]) < 4096
    finally:
        path.unlink()
    bench.takes_a_good_edit({})
    assert bench.peak() < MOST_RSS


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_only_odd_is_served_as_it_is_meant(bench: Bench, what: str) -> None:
    file, make, value = TAKEN[what]
    path = bench.place(file, make)
    try:
        bench.takes_a_good_edit(value)
    finally:
        path.unlink()
    bench.takes_a_good_edit({})
    assert bench.peak() < MOST_RSS


def test_memory_is_bounded_over_all_of_them(bench: Bench, tell: Callable[[str], None]) -> None:
    assert bench.good >= len(REFUSED) + 2 * len(TAKEN) or bench.good == 0  # 0: nothing but this was asked for
    tell(f"hostile files: peak of the agent's memory {bench.peak() / 1e6:.0f} MB")
    assert bench.peak() < MOST_RSS
