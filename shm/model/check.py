"""Searches the models of the segment's protocol, whole and with a part taken away.

`python3 shm/model/check.py` prints one line per search and exits 1 if one came out otherwise than it must. It needs
Python 3.11, spin and gcc (which spin calls by that name), writes in a temporary directory only, and takes about 70 s of
processor time, two searches at a time, and at most 1.1 GB.

A search that must hold is exhaustive: every state is stored whole, without partial-order reduction. Some of them also
show that no statement of the model is idle. An ablation is searched for the one property that it must break.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).resolve().parent
PARALLEL = 2
_MEGABYTES = 900  # that one search may take
_DEPTH = 100_000
_SECONDS = 100


@dataclass(frozen=True, slots=True)
class Search:
    """One search.

    defines: macros of the model. breaks: the property that must be found broken; None: all must hold.
    every_statement: whether each statement must be reached; spin knows that of atomic sequences only, not of d_step.
    """

    title: str
    model: str
    defines: tuple[str, ...]
    breaks: str | None = None
    every_statement: bool = False

    @property
    def flags(self) -> list[str]:
        """What spin is given."""
        only = [f"ONLY_{self.breaks.upper()}"] if self.breaks else []
        apart = ["-o3", "-Dd_step=atomic"] if self.every_statement else []  # -o3: statements are not merged
        return [*apart, *(f"-D{macro}" for macro in (*self.defines, *only))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found. broken: the first property found broken, or spin's own words for another error.

    unfinished: why the search was not exhaustive, or None. unreached: statements of the model that no state led to.
    megabytes: peak memory of the search.
    """

    states: int
    broken: str | None
    unfinished: str | None
    unreached: tuple[str, ...]
    megabytes: float
    seconds: float

    def objection(self, search: Search) -> str | None:
        """What is not as `search` says that it must be, or None."""
        if search.breaks:
            return None if self.broken == search.breaks else f"must break {search.breaks!r}, but: {self.broken}"
        if self.broken:
            return f"must hold, but is broken: {self.broken}"
        if self.unfinished:
            return f"not exhaustive: {self.unfinished}"
        if search.every_statement and self.unreached:
            return "never reached: " + "; ".join(self.unreached)
        return None


def _latch(title: str, *defines: str, breaks: str | None = None, every_statement: bool = False) -> Search:
    return Search(title, "latch.pml", defines, breaks, every_statement)


def _replacement(title: str, *defines: str, breaks: str | None = None, every_statement: bool = False) -> Search:
    return Search(title, "replacement.pml", defines, breaks, every_statement)


HOLDS = (
    _latch("2 readers", "READERS=2"),
    _latch("a room for each slot", "READERS=1", "ROOMS=3"),
    _latch("3 lives, 6 versions", "READERS=1", "VERSIONS=6", "LIVES=3", every_statement=True),
    _latch("4 slots", "READERS=1", "SLOTS=4", "VERSIONS=6", "LIVES=3"),
    _latch("2 slots: the status block", "READERS=2", "SLOTS=2", "VERSIONS=3", "ODD_IS_RELEASE"),
    _replacement("2 readers, 3 lives", "READERS=2", "READS_AT_ONCE", "VERSIONS=3", "LIVES=3"),
    _replacement(
        "3 files, 3 lives", "READERS=1", "READS_AT_ONCE", "FILES=3", "LIVES=3", every_statement=True
    ),
    _replacement(
        "rooms and growth", "READERS=1", "VERSIONS=3", "FILES=3", "LIVES=3", every_statement=True
    ),
    _replacement("rooms and growth, 4 versions", "READERS=1"),
)

# What the protocol has twice: for what is modelled, each of these may be missing, and here all of a model's at once.
SPARES = (
    _latch(
        "nothing but latest orders the counter",
        "READERS=1", "ROOMS=3",
        "NO_RELEASE_OF_COUNTER", "NO_ACQUIRE_OF_COUNTER", "NO_FIRST_CHECK", "KEEP_UNFINISHED",
    ),
    _replacement("no wake at the retirement", "READERS=1", "READS_AT_ONCE", "LIVES=3", "NO_WAKE_AT_RETIRE"),
)

ABLATIONS = (
    _latch("no fence after the odd counter", "READERS=1", "ROOMS=3", "NO_WRITER_FENCE", breaks="mixture"),
    _latch("no fence before the second check", "READERS=1", "NO_READER_FENCE", breaks="mixture"),
    _latch("no second check", "READERS=1", "NO_SECOND_CHECK", breaks="mixture"),
    _latch("any even counter will do", "READERS=1", "ANY_EVEN_COUNTER", breaks="mixture"),
    _latch("no acquire of latest", "READERS=1", "NO_ACQUIRE_OF_LATEST", breaks="mixture"),
    _latch("no release of latest", "READERS=1", "NO_RELEASE_OF_LATEST", breaks="blocked"),
    _latch("no release at all", "READERS=1", "NO_RELEASE_OF_COUNTER", "NO_RELEASE_OF_LATEST", breaks="mixture"),
    _latch("latest before the slot", "READERS=1", "LATEST_FIRST", breaks="blocked"),
    _latch("a room used again without the zero", "READERS=1", "REUSE_WITHOUT_ZERO", breaks="mixture"),
    _latch("no fence after the zero", "READERS=1", "NO_GIVE_UP_FENCE", breaks="mixture"),
    _latch("latest's own slot given up", "READERS=1", "GIVE_UP_LATEST", breaks="blocked"),
    _latch("1 slot", "READERS=1", "SLOTS=1", breaks="blocked"),
    _latch("2 slots, the odd counter no release", "READERS=1", "SLOTS=2", breaks="blocked"),
    _latch("a successor that counts anew", "READERS=1", "NUMBERS_BEGIN_ANEW", breaks="going_back"),
    _replacement("no wake", "READERS=1", "READS_AT_ONCE", "NO_WAKE", breaks="asleep_for_good"),
    _replacement("no bump", "READERS=1", "READS_AT_ONCE", "NO_BUMP", breaks="asleep_for_good"),
    _replacement("wake before latest", "READERS=1", "READS_AT_ONCE", "WAKE_BEFORE_LATEST", breaks="asleep_for_good"),
    _replacement(
        "latest loaded before the wake word",
        "READERS=1", "READS_AT_ONCE", "LATEST_BEFORE_WAKE_WORD", breaks="asleep_for_good",
    ),
    _replacement(
        "compared, and only then asleep", "READERS=1", "READS_AT_ONCE", "WAIT_NOT_ATOMIC", breaks="asleep_for_good"
    ),
    _replacement(
        "no bump at takeover", "READERS=1", "READS_AT_ONCE", "NO_BUMP_AT_TAKEOVER", breaks="asleep_for_good"
    ),
    _replacement(
        "no wake at takeover", "READERS=1", "READS_AT_ONCE", "NO_WAKE_AT_TAKEOVER", breaks="asleep_for_good"
    ),
    _replacement(
        "no wake after the rename", "READERS=1", "READS_AT_ONCE", "NO_WAKE_AFTER_RENAME", breaks="asleep_for_good"
    ),
    _replacement(
        "a whole slice asleep on a retired file",
        "READERS=1", "READS_AT_ONCE", "LONG_SLEEP_WHEN_RETIRED", breaks="asleep_for_good",
    ),
    _replacement(
        "the name is not opened anew", "READERS=1", "READS_AT_ONCE", "NEVER_REOPEN", breaks="asleep_for_good"
    ),
    _replacement(
        "a successor without a version", "READERS=1", "READS_AT_ONCE", "EMPTY_SUCCESSOR", breaks="asleep_for_good"
    ),
    _replacement("a move to version 0", "READERS=1", "READS_AT_ONCE", "MOVE_TO_EMPTY", breaks="blocked"),
    _replacement("no retirement", "READERS=1", "READS_AT_ONCE", "NO_RETIRE", breaks="left_behind"),
    _replacement(
        "rename before retirement",
        "READERS=1", "READS_AT_ONCE", "LIVES=3", "RENAME_BEFORE_RETIRE", breaks="left_behind",
    ),
    _replacement(
        "a successor file that counts anew", "READERS=1", "READS_AT_ONCE", "NUMBERS_BEGIN_ANEW", breaks="going_back"
    ),
    _replacement("no reservation", "READERS=1", "READS_AT_ONCE", "NO_RESERVATION", breaks="going_back"),
    _replacement("the file grows after it is used", "READERS=1", "GROW_LATE", breaks="damage"),
    _replacement("the size is asked once", "READERS=1", "NO_FSTAT", breaks="damage"),
    _replacement("a room used again without the zero", "READERS=1", "REUSE_WITHOUT_ZERO", breaks="mixture"),
)

# Not a property but a sight: found, it shows that the searches above include it.
SIGHTS = (
    _latch("a lapped reader", "READERS=1", "ROOMS=3", breaks="lapped"),
    _latch("a lapped reader, rooms given up", "READERS=1", breaks="lapped"),
)

SEARCHES = HOLDS + SPARES + ABLATIONS + SIGHTS


def missing() -> str | None:
    """What the machine lacks for a search, or None."""
    lacking = [command for command in ("spin", "gcc") if shutil.which(command) is None]
    return f"needs {' and '.join(lacking)}" if lacking else None


def run(search: Search, directory: Path, depth: int = _DEPTH) -> Outcome:
    """Make the search in `directory`, which must be its own, to at most `depth` steps.

    Raises RuntimeError where it could not be made at all, subprocess.TimeoutExpired where it does not end.
    """
    began = time.monotonic()
    _call(directory, "spin", "-a", *search.flags, str(MODELS / search.model))
    # What breaks does so soon: compiling takes longer than searching. SAFETY: assertions and end states are all that
    # there is to check. NOREDUCE: no state is left out. -w23: the hash table's size, which limits nothing but speed.
    speed, table = ("-O0", "-w18") if search.breaks else ("-O1", "-w23")
    _call(directory, "gcc", "-w", speed, "-DSAFETY", "-DNOREDUCE", f"-DMEMLIM={_MEGABYTES}", "-o", "pan", "pan.c")
    told = _call(directory, "./pan", f"-m{depth}", table, may_fail=True)
    return _outcome(told, time.monotonic() - began)


def _call(directory: Path, *argv: str, may_fail: bool = False) -> str:
    done = subprocess.run(
        argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _outcome(told: str, seconds: float) -> Outcome:
    errors = re.search(r"errors: (\d+)$", told, re.MULTILINE)
    states = re.search(r"^\s*([\d.e+]+) states, stored", told, re.MULTILINE)
    memory = re.search(r"^\s*([\d.]+)\s+total actual memory usage", told, re.MULTILINE)
    if not errors or not states or not memory:
        raise RuntimeError(f"this is not what a search tells:\n{told}")
    broken = None
    if errors[1] != "0":
        first = re.search(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", told, re.MULTILINE)
        words = first[1] if first else "an error without words"
        violated = re.fullmatch(r"assertion violated\s+!\((\w+)\)", words)
        broken = violated[1] if violated else words
    return Outcome(
        states=round(float(states[1])),
        broken=broken,
        unfinished=_why_unfinished(told),
        unreached=tuple(re.findall(r'^\s*(\S+:\d+, state \d+, "(?!-end-").*")$', told, re.MULTILINE)),
        megabytes=float(memory[1]),
        seconds=seconds,
    )


def _why_unfinished(told: str) -> str | None:
    for sign in ("Search not completed", "max search depth too small", "out of memory", "memory limit", "VECTORSZ"):
        if sign.lower() in told.lower():
            return sign
    if "Full statespace search for:" not in told or "assertion violations\t+" not in told:
        return "spin does not call it a full search for violated assertions"
    return None


def main() -> int:
    """Make all searches and print their outcomes; 1 if one is not as it must be."""
    if lack := missing():
        print(f"shm/model/check.py {lack}", file=sys.stderr)
        return 1
    failures = 0
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(min(PARALLEL, os.cpu_count() or 1)) as pool:
        directories = [Path(root, str(number)) for number in range(len(SEARCHES))]
        for directory in directories:
            directory.mkdir()
        print(f"{'model':<16} {'search':<40} {'must':<22} {'states':>10} {'MB':>5} {'s':>5}")
        for search, outcome in zip(SEARCHES, pool.map(run, SEARCHES, directories), strict=True):
            must = f"break {search.breaks}" if search.breaks else "hold"
            print(
                f"{search.model:<16} {search.title:<40} {must:<22} {outcome.states:>10,} {outcome.megabytes:>5.0f} "
                f"{outcome.seconds:>5.1f}"
            )
            if objection := outcome.objection(search):
                failures += 1
                print(f"  {objection}")
            sys.stdout.flush()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
