"""A child of the check that is started ahead of its question answers as a fresh one does, once, and is never left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from shmconf import codec
from shmconf_agent.check_process import Check

PAYLOAD = codec.pack({"n": 3})


def rules(folder: Path, text: str) -> None:
    (folder / "rules.py").write_text(text)


def children() -> set[int]:
    return {int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_the_waiting_child_is_the_one_that_answers_and_each_answers_once(tmp_path: Path) -> None:
    rules(tmp_path, "import os\ndef check(tree):\n    return f'{os.getpid()}'\n")
    check = Check("rules:check", tmp_path)
    told = []
    for _ in range(3):
        before = children()
        check.prepare()
        (waiting,) = children() - before
        check.prepare()
        assert children() - before == {waiting}, "one is enough"
        told.append(check.ask(PAYLOAD))
        assert told[-1] == [((), str(waiting))]
        assert children() == before
    assert len({str(each) for each in told}) == 3


def test_the_users_code_is_imported_only_when_it_is_asked(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree):\n    return 'old'\n")
    check = Check("rules:check", tmp_path)
    check.prepare()
    rules(tmp_path, "def check(tree):\n    return 'new'\n")
    assert check.ask(PAYLOAD) == [((), "new")]


def test_a_waiting_child_that_died_is_replaced(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree):\n    return 'answered'\n")
    check = Check("rules:check", tmp_path)
    before = children()
    check.prepare()
    (waiting,) = children() - before
    os.kill(waiting, signal.SIGKILL)
    os.waitid(os.P_PID, waiting, os.WEXITED | os.WNOWAIT)
    assert check.ask(PAYLOAD) == [((), "answered")]
    assert children() == before


def test_without_preparation_it_answers_too_and_a_command_needs_none(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree):\n    return None if tree == {'n': 3} else 'other'\n")
    assert Check("rules:check", tmp_path).ask(PAYLOAD) == []
    command = Check([sys.executable, "-c", "import sys; sys.exit('no')"], tmp_path)
    before = children()
    command.prepare()
    assert children() == before
    assert command.ask(PAYLOAD) == [((), "no")]


def test_a_prepared_child_keeps_the_deadline(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree):\n    while True: pass\n")
    check = Check("rules:check", tmp_path)
    check.prepare()
    assert check.ask(PAYLOAD, deadline=0.5) == [((), "the check did not answer within 0.5 s")]


def test_close_ends_the_child_and_its_descriptors(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree): pass\n")
    before, open_before = children(), os.listdir("/proc/self/fd")
    check = Check("rules:check", tmp_path)
    check.prepare()
    check.close()
    check.close()
    assert children() == before
    assert os.listdir("/proc/self/fd") == open_before


def test_it_ends_by_itself_when_the_agent_is_killed(tmp_path: Path) -> None:
    rules(tmp_path, "def check(tree): pass\n")
    agent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\n"
            "from shmconf_agent.check_process import Check\n"
            f"check = Check('rules:check', pathlib.Path({str(tmp_path)!r})); check.prepare()\n"
            "print(check._waiting._process.pid, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    with agent, agent.stdout:
        waiting = os.pidfd_open(int(agent.stdout.readline()))
        agent.kill()
    try:
        assert select.select([waiting], [], [], 30)[0], "the child outlives its agent"
    finally:
        os.close(waiting)
