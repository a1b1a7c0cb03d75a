"""What life does to an agent: many files, odd names, checks that hang, clocks that jump, output that nobody reads."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

CONFIG = '[segment.web]\nsources = ["base.yaml"]\ncheck = "rules:check"\n[segment.jobs]\nsources = ["jobs.yaml"]\n'

# What the check does depends on the tree, so that each test can choose.
RULES = """
import os, sys, time
def note_process():
    with open("process.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("process.new", "process")
def check(tree):
    what = tree.get("check")
    if what == "hang":
        note_process()
        time.sleep(3600)
    elif what == "fork":
        if os.fork() == 0:
            note_process()
            time.sleep(3600)
        while not os.path.exists("process"):
            time.sleep(0.01)
    elif what == "talk":
        for _ in range(64):
            sys.stdout.write("x" * 65536)
            sys.stderr.write("y" * 65536)
    elif what == "die":
        os._exit(3)
    elif what == "signal":
        os.kill(os.getppid(), 0)
        os.kill(os.getpid(), 11)
    elif what == "exit":
        sys.exit(1)
"""


@pytest.fixture
def checked(home):
    """An agent with two segments, of which the one has a check."""
    home.write("shmconf.toml", CONFIG)
    home.write("rules.py", RULES)
    home.write("base.yaml", "a: 1\n")
    home.write("jobs.yaml", "a: 1\n")
    home.start()
    return home


def is_gone(process: Path) -> bool:
    """Whether the process with the number in this file has ended."""
    try:
        return "State:\tZ" in Path(f"/proc/{process.read_text()}/status").read_text()
    except FileNotFoundError:
        return True


def test_a_check_that_hangs_stops_neither_the_agent_nor_the_next_reload(checked, eventually):
    web, jobs = checked.attach("web"), checked.attach("jobs")
    checked.write("base.yaml", "a: 2\ncheck: hang\n")
    checked.write("jobs.yaml", "a: 2\n")
    assert jobs.wait(after=1, timeout=60)["a"] == 2
    eventually(lambda: web.status().last_error, "the deadline of the check")
    assert jobs.snapshot().published_at < web.status().agent.last_error_at
    assert "the check did not answer within 5 s" in web.status().last_error
    eventually(lambda: is_gone(checked.root / "process"), "the end of the check's process")
    assert web.status().agent_alive
    assert jobs.status().agent_alive
    assert web["a"] == 1
    checked.write("base.yaml", "a: 3\n")
    assert web.wait(after=1, timeout=60)["a"] == 3
    assert checked.run("status").returncode == 0


@pytest.mark.parametrize("what", ["fork", "talk"])
def test_a_check_that_leaves_a_process_or_talks_without_end_is_no_trouble(checked, eventually, what):
    web = checked.attach("web")
    checked.write("base.yaml", f"a: 2\ncheck: {what}\n")
    assert web.wait(after=1, timeout=60)["a"] == 2
    if what == "fork":
        eventually(lambda: is_gone(checked.root / "process"), "the end of what it left behind")


@pytest.mark.parametrize("what", ["die", "signal", "exit"])
def test_a_check_that_dies_is_a_rejection(checked, eventually, what):
    web = checked.attach("web")
    checked.write("base.yaml", f"a: 2\ncheck: {what}\n")
    error = eventually(lambda: web.status().last_error, "a rejection")
    assert "check" in error
    checked.write("base.yaml", "a: 3\n")
    assert web.wait(after=1, timeout=60)["a"] == 3


def test_stopping_while_a_check_hangs_is_quick_enough_and_clean(checked, eventually):
    web = checked.attach("web")
    checked.write("base.yaml", "a: 2\ncheck: hang\n")
    children = Path(f"/proc/{checked.agents[0].pid}/task")
    eventually(lambda: any((task / "children").read_text() for task in children.iterdir()), "the check's process")
    assert checked.agents[0].stop() == 0
    assert web["a"] == 1


def test_a_thousand_files(home, eventually):
    home.segment("conf.d/")
    for number in range(1000):
        home.write(f"conf.d/{number:04}.yaml", f"k{number}: 0\nlast: {number}\n")
    agent = home.start()
    reader = home.attach()
    assert (len(reader.snapshot()), reader["last"]) == (1001, 999)
    home.write("conf.d/0500.yaml", "k500: 1\n")
    assert reader.wait(after=1, timeout=60)["k500"] == 1
    agent.says("(conf.d/0500.yaml)")
    moments = [time.monotonic()]
    for number in range(1000):
        (home.root / f"conf.d/{number:04}.yaml").write_text(f"k{number}: 2\n")
        moments.append(time.monotonic())
    eventually(lambda: reader["k0"] == reader["k999"] == 2, "all of them")
    eventually(lambda: all(value == 2 for key, value in reader.snapshot().items() if key != "last"), "all of them")
    # One version for each 500 ms, for the first files, and for each pause that ended a burst.
    pauses = sum(later - earlier > 0.03 for earlier, later in pairwise(moments))
    most = 2 + 3 + int((moments[-1] - moments[0]) / 0.5) + pauses
    assert reader.version <= most < 500, (reader.version, most)
    for number in range(1, 1000):
        (home.root / f"conf.d/{number:04}.yaml").unlink()
    eventually(lambda: reader.snapshot().to_dict() == {"k0": 2}, "999 deleted")


def test_names_of_all_kinds(home, eventually):
    names = ["ünïcode-世界.yaml", "with space.yaml", "new\nline.yaml", "quote\"'.yaml", "-dash.yaml", "a:1:2: b.yaml"]
    home.segment("conf.d/")
    for number, name in enumerate(names):
        home.write(f"conf.d/{name}", f"k{number}: 1\n")
    raw = os.fsencode(home.root / "conf.d") + b"/\xff\xfe.yaml"
    Path(os.fsdecode(raw)).write_text("raw: 1\n")
    home.write("conf.d/.hidden.yaml", "hidden: 1\n")
    home.write("conf.d/other.txt", "other: 1\n")
    agent = home.start()
    reader = home.attach()
    assert reader.snapshot().to_dict() == {f"k{number}": 1 for number in range(len(names))} | {"raw": 1}
    for number, name in enumerate(names):
        version = reader.version
        home.write(f"conf.d/{name}", f"k{number}: 2\n")
        assert reader.wait(after=version, timeout=60)[f"k{number}"] == 2
    for number, name in enumerate(names):
        home.write(f"conf.d/{name}", "[\n")
        eventually(lambda: reader.status().last_error, "a rejection")
        home.write(f"conf.d/{name}", f"k{number}: 2\n")
        eventually(lambda: reader.status().last_error is None, "the repair")
    version = reader.version
    Path(os.fsdecode(raw)).write_text("raw: [\n")
    assert "\\xff\\xfe.yaml" in eventually(lambda: reader.status().last_error, "a rejection")
    Path(os.fsdecode(raw)).write_text("raw: 2\n")
    assert reader.wait(after=version, timeout=60)["raw"] == 2
    # Whatever is in a name, a line is a line.
    assert all(line.startswith("web: ") for line in agent.text().splitlines()), agent.text()


def test_links_in_a_circle_among_the_files_of_a_directory(home, eventually):
    home.segment("conf.d/")
    home.write("conf.d/good.yaml", "a: 1\n")
    home.start()
    reader = home.attach()
    (home.root / "conf.d/loop.yaml").symlink_to("loop.yaml")
    (home.root / "conf.d/up").symlink_to("..")
    error = eventually(lambda: reader.status().last_error, "a rejection")
    assert error.startswith("conf.d/loop.yaml: ")
    (home.root / "conf.d/loop.yaml").unlink()
    eventually(lambda: reader.status().last_error is None, "the repair")
    home.write("conf.d/good.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2


def test_the_directory_of_the_agents_file_disappears_and_comes_back(home, eventually):
    home.write("site/shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\n')
    home.write("site/base.yaml", "a: 1\n")
    agent = home.start(cwd=home.root / "site")
    reader = home.attach()
    shutil.rmtree(home.root / "site")
    error = eventually(lambda: reader.status().last_error, "a rejection")
    assert error.startswith("base.yaml: does not exist")
    agent.process.send_signal(signal.SIGHUP)
    agent.says("the agent's file was not taken, the one from before is in force")
    assert reader["a"] == 1
    assert home.status()[0] == 3
    home.write("site/base.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    eventually(lambda: reader.status().agent_alive, "the heartbeat")
    assert home.status()[0] == 0


@pytest.mark.parametrize("years", [-40, 40])
def test_files_from_another_time(home, eventually, years):
    """As when a clock jumped: what was written long ago, or will be, is taken like any other."""
    home.segment("base.yaml")
    file = home.write("base.yaml", "a: 1\n")
    at = time.time() + years * 365 * 86400
    os.utime(file, (at, at))
    home.start()
    reader = home.attach()
    for version, (step, how) in enumerate([(1, "in place"), (-1, "in place"), (1, "replaced")], start=2):
        if how == "in place":
            file.write_text(f"a: {version}\n")
            os.utime(file, (at + step, at + step))
        else:
            aside = home.root / "aside"
            aside.write_text(f"a: {version}\n")
            os.utime(aside, (at + step, at + step))
            os.replace(aside, file)
        eventually(lambda version=version: reader["a"] == version, "the edit")
        assert reader.version == version


def resources(pid: int) -> tuple[int, int, int]:
    """Open descriptors, threads, and kilobytes of memory of its own."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["RssAnon"].split()[0])


def test_200_edits_leave_nothing_behind(home, eventually):
    home.segment("base.yaml", "conf.d/")
    home.write("conf.d/a.yaml", "text: " + "x" * 20_000 + "\n")
    home.write("base.yaml", "a: 0\n")
    agent = home.start()
    reader = home.attach()

    def edit(first: int, last: int) -> None:
        for number in range(first, last):
            if number % 10 == 0:
                home.write("base.yaml", "a: [\n")
                eventually(lambda: reader.status().last_error, "a rejection")
            if number % 50 == 25:
                shutil.rmtree(home.root / "conf.d")
                home.write("conf.d/a.yaml", f"text: {number}" + "x" * 20_000 + "\n")
            home.write("base.yaml", f"a: {number}\n")
            eventually(lambda: reader["a"] == number, f"edit {number}")  # noqa: B023 - called at once

    edit(1, 50)
    eventually(lambda: reader.status().last_error is None, "calm")
    descriptors, threads, memory = resources(agent.pid)
    edit(50, 250)
    eventually(lambda: resources(agent.pid)[0] <= descriptors, lambda: f"{descriptors}: {resources(agent.pid)}")
    eventually(lambda: resources(agent.pid)[1] <= threads, lambda: f"{threads}: {resources(agent.pid)}")
    assert resources(agent.pid)[2] <= memory + 8192
    assert reader["a"] == 249
    segment = (home.runtime / "web.shmconf").stat()
    assert segment.st_blocks * 512 <= 6 * 40_000 + 65536


def test_an_agent_whose_output_nobody_reads_goes_on(home, eventually):
    """A full pipe: whatever is printed there would block for ever."""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, bytes(4096))
        except BlockingIOError:
            break
    fcntl.fcntl(writing, fcntl.F_SETFL, fcntl.fcntl(writing, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    try:
        agent = home.start(stdout=writing)
        reader = home.attach()
        for number in range(2, 12):
            home.write("base.yaml", f"a: {number}\n")
            assert reader.wait(after=number - 1, timeout=60)["a"] == number
        eventually(lambda: reader.status().agent_alive, "the heartbeat")
        assert agent.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_an_agent_whose_output_was_closed_goes_on(home, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        agent = home.start(stdout=writing)
        reader = home.attach()
        home.write("base.yaml", "a: [\n")
        eventually(lambda: reader.status().last_error, "a rejection")
        home.write("base.yaml", "a: 2\n")
        assert reader.wait(after=1, timeout=60)["a"] == 2
        assert home.status()[0] == 0
        assert agent.stop() == 0
    finally:
        os.close(writing)


def test_a_runtime_directory_that_cannot_be_made_again_is_told_and_waited_for(home, eventually):
    """Its parent is away for a while: readers go on, and the segment comes back with it."""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.runtime = home.root / "mnt" / "run"
    home.runtime.mkdir(parents=True)
    home.start()
    reader = home.attach()
    away = home.root / "away"
    (home.root / "mnt").rename(away)
    (home.root / "mnt").write_text("in the way")
    home.write("base.yaml", "a: 2\n")
    eventually(lambda: reader.status().last_error or reader.status().agent.warnings, "a note")
    assert reader.snapshot()["a"] == 1
    (home.root / "mnt").unlink()
    away.rename(home.root / "mnt")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    eventually(lambda: reader.status().last_error is None, "calm")
    assert home.status()[0] == 0
