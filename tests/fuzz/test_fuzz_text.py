"""Any bytes under a format's name: the oracle's values, or Invalid, and never another exception or much time.

FUZZ_SECONDS (3, for each format) is how long it lasts; `make fuzz-text FUZZ_SECONDS=600` runs it for longer. What goes
wrong is kept in found/.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from text_oracle import Verdict, check
from texts import JsonWriter, TomlWriter, YamlWriter, damaged, damaged_bytes

from shmconf_agent.formats import parse_documents, place_trees
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.problems import Invalid

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
# The same texts at each run of make test; others at each long run.
SEED = int(os.environ.get("FUZZ_SEED", time.time_ns() if "FUZZ_SECONDS" in os.environ else 4))
FOUND = Path(__file__).parent / "found"
CORPUS = Path(__file__).parents[1] / "unit/shmconf_agent/pyyaml_corpus/data"
MOST_WAITING = 400  # inputs that are kept to go on from
# CPU time of this thread: far beyond what any text takes, and far below what would keep a reload waiting.
MOST_SECONDS, MOST_SECONDS_PER_KB = 1.0, 0.1

YAML = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
WRITERS: dict[str, Callable[[random.Random], str]] = {
    "c.yaml": lambda source: YamlWriter(source).stream(),
    "c.toml": lambda source: TomlWriter(source).text(),
    "c.json": lambda source: JsonWriter(source).text(),
}


class Slow(Exception):
    """A text took more time than its size excuses."""


def judge(data: bytes, file: str) -> str:
    """What kind of end it came to, for the choice of what to go on from. Raises whatever must not be."""
    began = time.thread_time()
    try:
        trees = parse_documents(data, file=file)
    except Invalid as invalid:
        end = " ".join(sorted({problem.code for problem in invalid.problems}))
    else:
        place_trees(data, file=file)
        end = f"taken {len(trees).bit_length()}"
    took = time.thread_time() - began
    if took > MOST_SECONDS + MOST_SECONDS_PER_KB * len(data) / 1024:
        raise Slow(f"{took:.1f} s for {len(data)} bytes")
    if len(data) <= 4096:  # the oracles are slower, and not meant for bombs
        check(data, file)
    return end


def fuzz(file: str, seconds: float, seed: int) -> tuple[int, set[str]]:
    """How many inputs were judged, and to what ends they came."""
    source = random.Random(seed)
    waiting: list[bytes] = list(YAML) if file == "c.yaml" else [b""]
    ends: set[str] = set()
    count = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = WRITERS[file](source).encode() if source.randrange(3) == 0 else source.choice(waiting)
        if source.randrange(2):
            text = damaged(source, data.decode("utf-8", "replace"))
            data = text.encode()
        else:
            data = damaged_bytes(source, data)
        count += 1
        try:
            end = judge(data, file)
        except Exception as error:
            FOUND.mkdir(exist_ok=True)
            kept = FOUND / f"text-{hashlib.sha256(data).hexdigest()[:16]}{file[1:]}"
            kept.write_bytes(data)
            raise AssertionError(f"seed {seed}, input {count}, kept as {kept}: {data[:400]!r}") from error
        if end not in ends or source.randrange(20) == 0:
            ends.add(end)
            if len(waiting) < MOST_WAITING:
                waiting.append(data)
            else:
                waiting[source.randrange(MOST_WAITING)] = data
    return count, ends


@pytest.mark.timeout(SECONDS * 4 + 120)
@pytest.mark.parametrize(
    ("file", "ways"),
    [
        ("c.yaml", {"taken 1", "yaml-syntax", "encoding", "duplicate-key", "yaml-alias", "top-level"}),
        ("c.toml", {"taken 1", "toml-syntax", "encoding", "duplicate-key", "number-range"}),
        ("c.json", {"taken 1", "json-syntax", "encoding", "duplicate-key", "number-range", "top-level"}),
    ],
)
def test_any_bytes_give_a_tree_or_invalid_soon(file: str, ways: set[str], tell: Callable[[str], None]) -> None:
    seed = SEED
    count, ends = fuzz(file, SECONDS, seed)
    while not ways <= ends:  # on a machine that is too slow to come to all of them in that time
        more, others = fuzz(file, 2.0, seed := seed + 1)
        count, ends = count + more, ends | others

    tell(f"{file[2:]}: {count:,} texts, {len(ends)} kinds of ends, seed {seed}")


@pytest.mark.timeout(SECONDS * 4 + 120)
def test_any_bytes_with_the_pure_parser(tell: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_format, "HAS_LIBYAML", False)
    seed = SEED
    count, ends = fuzz("c.yaml", SECONDS, seed)

    assert ends
    tell(f"yaml, pure parser: {count:,} texts, {len(ends)} kinds of ends, seed {seed}")


@pytest.mark.parametrize("error", [ValueError, RecursionError, Verdict])
def test_it_would_find_what_it_is_for(error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def faulty(data: bytes, file: str) -> bool:
        if b":" in data:
            raise error("planted")
        return True

    monkeypatch.setattr(f"{__name__}.check", faulty)
    monkeypatch.setattr(f"{__name__}.FOUND", tmp_path)

    with pytest.raises(AssertionError, match="seed 1, input"):
        fuzz("c.json", 60.0, 1)
    [kept] = tmp_path.iterdir()
    assert b":" in kept.read_bytes()
