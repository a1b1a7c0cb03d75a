"""The agent is killed at random moments while it publishes without pause; readers see whole versions that only go on.

The agents are forked from one process that has everything imported, so that a life begins in milliseconds; each runs
the command itself. SHMCONF_KILLS sets their number, SHMCONF_SEED the moments.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import pytest

KILLS = int(os.environ.get("SHMCONF_KILLS", "200"))
SEED = int(os.environ.get("SHMCONF_SEED", random.randrange(1 << 32)))

pytestmark = pytest.mark.timeout(400 + 3 * KILLS)

CONFIG = """[segment.web]
sources = ["payload.json"]
settle_ms = 0
"""

# Every field follows from n, so a mixture of two versions shows; the size differs from version to version as well.
PAYLOAD = """
def payload(n):
    fields = {f"field{i}": n * (i + 1) for i in range(200)}
    return {"n": n, "fields": fields, "text": f"{n:x}." * (n % 97 * 20), "last": n}
"""

# The next edit comes as soon as the last one is published: faster ones would be gathered into one version.
EDITOR = PAYLOAD + """
import json, os, sys, threading
import shmconf
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
config, n = None, 0
while True:
    n += 1
    with open("payload.tmp", "w") as file:
        json.dump(payload(n), file)
    before = config.version if config else 0
    os.rename("payload.tmp", "payload.json")
    config = config or shmconf.attach("web", wait=60, directory="run")
    config.wait_version(after=before, timeout=0.05)
"""

READER = PAYLOAD + """
import json, os, sys, threading, time
import shmconf
asked_to_stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), asked_to_stop.set()), daemon=True).start()
snapshots = versions = last = last_n = epoch = 0
errors = []
longest = 0.0
config = shmconf.attach("web", wait=60, directory="run")
stopping = False
while len(errors) < 5 and not stopping:
    stopping = asked_to_stop.is_set()  # and then once more
    began = time.monotonic()
    try:
        if snapshots % 4 == 0:  # the agent shall get on, too, so that there is something to see
            config.wait_version(after=last, timeout=0.002)
        snap = config.snapshot()
        tree = snap.to_dict()
        config.version, config.get("fields.field3"), config.status()
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
        continue
    longest = max(longest, time.monotonic() - began)
    snapshots += 1
    if tree != payload(tree["n"]):
        errors.append(f"torn: version {snap.version}")
    if snap.version < last or tree["n"] < last_n:
        errors.append(f"went back: version {snap.version}, n {tree['n']} after {last}, n {last_n}")
    if snap.epoch != epoch:
        if epoch:
            errors.append("another epoch, though nobody removed the segment")
        epoch = snap.epoch
    versions += snap.version != last
    last, last_n = snap.version, tree["n"]
print(json.dumps({"snapshots": snapshots, "versions": versions, "last": last, "last_n": last_n, "errors": errors,
                  "longest": longest}))
"""

KILLER = """
import json, os, random, select, signal, struct, sys, time
import shmconf_agent.inotify, shmconf_agent.service  # now, not in each life
from shmconf_agent.cli import main
from shmconf import layout

KILLS, SEED = int(sys.argv[1]), int(sys.argv[2])
random.seed(SEED)
lives, unfinished, strange = [], 0, []

def words():
    # latest, and the counters of the four slots, as they lie there after a death
    with open("run/web.shmconf", "rb") as file:
        data = file.read(layout.ROOMS_BASE)
    latest = struct.unpack_from("<Q", data, layout.LATEST)[0]
    return latest, [struct.unpack_from("<Q", data, layout.slot_offset(slot))[0] for slot in range(4)]

def latest():
    try:
        return words()[0]
    except FileNotFoundError:
        return 0

before = 0
for life in range(KILLS):
    pid = os.fork()
    if pid == 0:
        sink = os.open("agent.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        main(["--runtime-dir", "run", "--state-dir", "state", "run"], prog_name="shmconf")
    # Some die as they start, most while they publish.
    deadline = time.monotonic() + random.choice((0.05, 60, 60, 60))
    while latest() == before and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.07))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        strange.append(f"ended by itself: {status}")
    if not os.path.exists("run/web.shmconf"):
        continue
    now, counters = words()
    unfinished += any(counter % 2 or counter > 2 * now for counter in counters)
    lives.append(now - before)
    before = now
print(json.dumps({"lives": lives, "unfinished": unfinished, "strange": strange}))
"""


def python(source: str, home, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", source, *map(str, arguments)],
        cwd=home.root,
        env=home.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told_by(process: subprocess.Popen[str], seconds: float) -> dict:
    """What it reports, after its stdin is closed."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    return json.loads(output)


@pytest.fixture
def processes():
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_readers_see_whole_versions_only_while_the_agent_is_killed_at_random(home, processes, eventually):
    home.write("shmconf.toml", CONFIG)
    editor = python(EDITOR, home)
    processes.append(editor)
    eventually((home.root / "payload.json").exists, "a first edit")
    readers = [python(READER, home) for _ in range(4)]
    processes += readers
    killer = python(KILLER, home, KILLS, SEED)
    processes.append(killer)
    began = time.monotonic()
    killed = told_by(killer, 60 + 2 * KILLS)
    seconds = time.monotonic() - began
    told_by_editor = editor.communicate(timeout=120)
    assert told_by_editor == ("", None)

    # A last agent serves what the editor left, and every reader arrives there: none is stuck on an older version.
    agent = home.start()
    last_n = json.loads((home.root / "payload.json").read_text())["n"]
    reader = home.attach()
    eventually(lambda: reader.get("n") == last_n, lambda: f"n = {last_n}: {reader.get('n')}; {agent.text()}")
    reports = [told_by(each, 100) for each in readers]

    lives = killed["lives"]
    summary = (
        f"seed {SEED}: {len(lives)} lives in {seconds:.0f} s, {sum(lives)} versions, "
        f"{killed['unfinished']} kills within a publication; readers: {reports}"
    )
    print(summary)
    assert killed["strange"] == [], (home.root / "agent.out").read_text()[-2000:]
    for report in reports:
        assert report["errors"] == [], summary
        assert report["last_n"] == last_n, summary
        assert report["longest"] < 60, summary
    # The test is about publishing and reading while agents die: it must have seen that.
    assert len(lives) >= 0.9 * KILLS, summary
    assert all(life >= 0 for life in lives), summary
    assert sum(life > 0 for life in lives) >= KILLS / 3, summary
    assert sum(lives) >= KILLS / 2, summary
    for report in reports:
        assert report["versions"] >= KILLS / 4, summary
        assert report["snapshots"] >= 2 * KILLS, summary
