"""A writer that is killed again and again while it publishes without a pause, under readers that check all they see.

Acceptance 4 at the level of the library. SHMCONF_KILLS raises the number of kills from 200, SHMCONF_SECONDS the time
that they may take from 60 s. Where there is a native module, writers and readers are native and pure by turns.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shmconf import layout
from shmconf.mapping import IMPLEMENTATION

KILLS = int(os.environ.get("SHMCONF_KILLS", "200"))
SECONDS = float(os.environ.get("SHMCONF_SECONDS", "60"))
LARGEST = 1_000_000
PROGRESS = struct.Struct("<QQQQ")  # looks, distinct versions, the last version, retries

# Every byte of a version follows from its number; sizes go from 100 bytes to 1 MB.
PAYLOAD = """
import random
from shmconf import codec
SIZES = [100, 900, 5_000, 20_000, 100_000, 400_000, 1_000_000]
def payload(version):
    size = random.Random(version).choice(SIZES)
    number = f"{version:020d}"
    return codec.pack({"version": version, "fields": [version] * 8, "fill": number * (size // 20), "last": version})
"""

# One process that forks writers on request, so that a restart does not cost an interpreter's start.
WRITERS = PAYLOAD + """
import os, pathlib, signal, sys
from shmconf.directories import Directory
from shmconf.writer import Settings, Writer
place = pathlib.Path(sys.argv[1])
def write():
    writer = Writer(Directory(place, named=True), "web", Settings(16 << 20), state_directory=place / "state")
    while True:
        version = writer.version + 1
        assert writer.publish(payload(version)) == version
        writer.beat()
running = 0
for line in sys.stdin:
    if line == "start\\n":
        running = os.fork()
        if not running:
            try:
                write()
            finally:
                os._exit(1)
    else:
        os.kill(running, signal.SIGKILL)
        _, status = os.waitpid(running, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit("a writer ended by itself")
    print("done", flush=True)
"""

READER = PAYLOAD + """
import struct, sys
import shmconf
place, way, progress = sys.argv[1:4]
looks = distinct = last = 0
epoch = None
def check(snapshot):
    global looks, distinct, last, epoch
    assert snapshot.version >= last, f"version {snapshot.version} after {last}"
    assert epoch in (None, snapshot.epoch), "the epoch changed, though nobody touched the file"
    assert snapshot.payload == payload(snapshot.version), f"version {snapshot.version} is torn"
    assert snapshot["fields"] == [snapshot.version] * 8
    looks, distinct, last, epoch = looks + 1, distinct + (snapshot.version > last), snapshot.version, snapshot.epoch
    retries = reader.status().retries
    file.seek(0)
    file.write(struct.pack("<QQQQ", looks, distinct, last, retries))
reader = shmconf.attach("web", directory=place, wait=60)
with open(progress, "r+b", buffering=0) as file:
    while True:
        if way == "snapshot":
            check(reader.snapshot())
        elif way == "attach":  # a fresh reader each time, also after each crash
            with shmconf.attach("web", directory=place) as fresh:
                assert fresh.get("version") <= fresh["last"] <= fresh.version
                check(fresh.snapshot())
        elif way == "wait":
            snapshot = reader.wait(after=last, timeout=60)
            if snapshot is not None:
                assert snapshot.version > last
                check(snapshot)
        elif way == "changes":
            for snapshot in reader.changes(after=0):
                check(snapshot)
"""


class Told:
    """A child that does what it is told, line by line."""

    def __init__(self, code: str, *arguments: object, pure: bool) -> None:
        environment = {**os.environ, "SHMCONF_PURE": "1" if pure else ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


def progress_of(file: Path) -> tuple[int, int, int, int]:
    looks, distinct, last, retries = PROGRESS.unpack(file.read_bytes())
    return looks, distinct, last, retries


def until(condition: Callable[[], Any], what: str, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.001)


@contextlib.contextmanager
def ended_after(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def odd_slots(file: Path) -> int:
    with open(file, "rb") as segment:
        header = segment.read(layout.PAGE)
    counters = (int.from_bytes(header[layout.slot_offset(slot) :][:8], "little") for slot in range(layout.SLOTS))
    return sum(counter % 2 for counter in counters)


def test_readers_see_whole_versions_in_order_while_the_writer_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    mixed = IMPLEMENTATION == "native"
    writers = [Told(WRITERS, place, pure=False)] + ([Told(WRITERS, place, pure=True)] if mixed else [])
    ways = ["snapshot", "attach", "wait", "changes"]
    files = [tmp_path / way for way in ways]
    readers = []
    for way, file in zip(ways, files, strict=True):
        file.write_bytes(bytes(PROGRESS.size))
        environment = {**os.environ, "SHMCONF_PURE": "1" if not mixed or way in ("attach", "changes") else ""}
        readers.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", READER, str(place), way, str(file)],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    chance = random.Random(time.time_ns())
    segment = place / "web.shmconf"
    kills = odd = 0
    with ended_after(*readers, *(writer.process for writer in writers)):

        def check_readers() -> None:
            for reader in readers:
                assert reader.poll() is None, f"a reader ended: {reader.communicate()[1]}"

        def have_moved(since: list[tuple[int, int, int, int]]) -> bool:
            check_readers()
            return all(progress_of(file)[0] > before[0] for file, before in zip(files, since, strict=True))

        ends = time.monotonic() + SECONDS
        while kills < KILLS and time.monotonic() < ends:
            writer = writers[kills % len(writers)]
            before = [progress_of(file) for file in files]
            writer.tell("start")
            # Every reader gets on in every writer's life: none is stuck on what the one before left.
            until(lambda before=before: have_moved(before), "every reader gets on")
            spins = time.monotonic() + chance.uniform(0, 0.02)
            while time.monotonic() < spins:
                pass
            writer.tell("kill")
            kills += 1
            odd += odd_slots(segment) > 0
            assert segment.stat().st_size <= 6 * (LARGEST + 300) + 65_536
        last = int.from_bytes(segment.read_bytes()[layout.LATEST : layout.LATEST + 8], "little")
        until(
            lambda: check_readers() or all(progress_of(file)[2] == last for file in files),
            "every reader comes to the last version, with no writer alive",
        )
    looks, distinct, _, retries = (sum(column) for column in zip(*map(progress_of, files), strict=True))
    print(f"{kills} kills, {odd} in a slot; {last:,} versions; {looks:,} looks at {distinct:,}; {retries:,} retries")
    assert kills >= min(KILLS, 50), "too slow a machine for this to say anything: raise SHMCONF_SECONDS"
    assert last > 2 * kills
    assert retries > 0 or distinct > 20 * kills, "readers and writers did not overlap"
    assert odd > 0 or kills < 200, "no writer was killed while it filled a slot"
