from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import shmconf
import shmconf_agent
from shmconf import codec
from shmconf_agent.check_process import run_check

TREE: dict[Any, Any] = {
    "db": {"pool": {"size": 10}},
    "hosts": ["a", "b"],
    "day": date(2024, 2, 29),
    8080: {"open": True},
}
PATIENT = 100.0

Ask = Callable[..., list[tuple[tuple[Any, ...], str]]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Writes `settings.py` with the given code, whose `check(tree)` it then runs."""

    def run(code: str, name: str = "check", deadline: float = PATIENT) -> list[tuple[tuple[Any, ...], str]]:
        (tmp_path / "settings.py").write_text(code)
        return run_check(f"settings:{name}", codec.pack(TREE), cwd=tmp_path, deadline=deadline)

    return run


@pytest.fixture
def command(tmp_path: Path) -> Ask:
    def run(
        *argv: str, payload: bytes = codec.pack(TREE), deadline: float = PATIENT
    ) -> list[tuple[tuple[Any, ...], str]]:
        return run_check(argv, payload, cwd=tmp_path, deadline=deadline)

    return run


def script(code: str) -> Sequence[str]:
    return (sys.executable, "-c", code)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"  # an orphan that nobody in this container reaps is as good as gone


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("answer", ["None", "''", "[]", "()", "iter(())", "[None, '']"])
def test_a_good_tree(ask: Ask, answer: str) -> None:
    assert ask(f"def check(tree): return {answer}") == []


def test_the_tree_arrives_as_it_is(ask: Ask) -> None:
    assert ask(f"import datetime\ndef check(tree): return '' if tree == {TREE!r} else repr(tree)") == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("'too small'", [((), "too small")]),
        ("('db.pool.size', 'too small')", [(("db", "pool", "size"), "too small")]),
        ("(('db', 'pool'), 'too small')", [(("db", "pool"), "too small")]),
        ("((8080, 'open'), 'no')", [((8080, "open"), "no")]),
        ("((datetime.date(2024, 1, 1),), 'no')", [((date(2024, 1, 1),), "no")]),
        ("(('hosts', 1), 'no')", [(("hosts", 1), "no")]),
        ("('hosts.1', 'no')", [(("hosts", 1), "no")]),
        ("('hosts.7.x', 'no')", [(("hosts", 7, "x"), "no")]),
        ("('db.1', 'no')", [(("db", "1"), "no")]),
        ("('\"a.b\".c', 'no')", [(("a.b", "c"), "no")]),
        ("('not..a path', 'no')", [((), "not..a path: no")]),
        (
            "['one', ('db', 'two'), (('hosts', 0), 'three')]",
            [((), "one"), (("db",), "two"), (("hosts", 0), "three")],
        ),
        ("(text for text in ['one', 'two'])", [((), "one"), ((), "two")]),
        ("(('db', 'one'), ('hosts', 'two'))", [(("db",), "one"), (("hosts",), "two")]),
        ("'two\\n  lines \\x1b[31m'", [((), "two lines [31m")]),
        ("('db', '')", [(("db",), "(no text)")]),
        ("'\\ud800'", [((), "(no text)")]),
    ],
)
def test_problems(ask: Ask, answer: str, expected: list[tuple[tuple[Any, ...], str]]) -> None:
    assert ask(f"import datetime\ndef check(tree): return {answer}") == expected


@pytest.mark.parametrize(
    "answer", ["True", "False", "3", "{'db': 'bad'}", "b'bad'", "[3]", "[['db', 'bad']]", "[True]"]
)
def test_an_answer_in_no_known_form_is_a_problem(ask: Ask, answer: str) -> None:
    [(path, message)] = ask(f"def check(tree): return {answer}")
    assert path == ()
    assert message.startswith("the check settings:check returned ")
    assert "text" in message


def test_what_a_check_raises_is_a_problem_with_its_line(ask: Ask) -> None:
    code = "def check(tree):\n    inner(tree)\n\ndef inner(tree):\n    raise ValueError('size\\nis odd')\n"
    assert ask(code) == [((), "the check settings:check raised ValueError: size is odd (settings.py:5)")]
    code = "def check(tree):\n    yield 'one'\n    int('x')\n"
    [(_, message)] = ask(code)
    assert message.endswith("ValueError: invalid literal for int() with base 10: 'x' (settings.py:3)")
    code = "import json\ndef check(tree):\n    json.loads('{')\n"
    assert ask(code)[0][1].endswith("(settings.py:3)")
    code = "class Odd(Exception):\n    def __str__(self): raise RuntimeError\ndef check(tree): raise Odd\n"
    assert ask(code) == [((), "the check settings:check raised Odd (settings.py:3)")]


@pytest.mark.parametrize(
    ("leave", "message"),
    [
        ("sys.exit(3)", "the check settings:check raised SystemExit: 3 (settings.py:3)"),
        ("sys.exit()", "the check settings:check raised SystemExit (settings.py:3)"),
        ("raise KeyboardInterrupt", "the check settings:check raised KeyboardInterrupt (settings.py:3)"),
        ("os._exit(0)", "the check ended with exit status 0 without an answer"),
        (
            "print('dying', file=sys.stderr, flush=True); os._exit(4)",
            "the check ended with exit status 4 without an answer: dying",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the check was killed by SIGSEGV without an answer"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "the check was killed by signal 37 without an answer"),
    ],
)
def test_leaving_without_an_answer_is_a_problem(ask: Ask, leave: str, message: str) -> None:
    assert ask(f"import os, signal, sys\ndef check(tree):\n    {leave}\n") == [((), message)]


def test_a_check_that_is_not_there(ask: Ask, tmp_path: Path) -> None:
    assert ask("def check(tree): ...", name="chek") == [
        ((), "the check settings:chek is not there: settings.py has no 'chek'; did you mean 'check'?")
    ]
    assert ask("check = 3") == [((), "the check settings:check is a int, which cannot be called")]
    assert ask("import nosuchmodule") == [
        (
            (),
            "the check's module 'settings' cannot be imported: "
            "ModuleNotFoundError: No module named 'nosuchmodule' (settings.py:1)",
        )
    ]
    assert ask("x = 1\ndef check(tree:\n") == [
        (
            (),
            "the check's module 'settings' cannot be imported: SyntaxError: '(' was never closed (settings.py:2)",
        )
    ]
    assert run_check("no.such:check", codec.pack(TREE), cwd=tmp_path, deadline=PATIENT) == [
        ((), "the check's module 'no.such' cannot be imported: ModuleNotFoundError: No module named 'no'")
    ]


def test_a_method_or_a_module_in_a_package_may_be_named(ask: Ask, tmp_path: Path) -> None:
    assert ask("class Rules:\n    @staticmethod\n    def all(tree): return 'asked'\n", name="Rules.all") == [
        ((), "asked")
    ]
    package = tmp_path / "myapp"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rules.py").write_text("from . import __name__ as name\ndef check(tree): return name\n")
    assert run_check("myapp.rules:check", codec.pack({}), cwd=tmp_path, deadline=PATIENT) == [((), "myapp")]


def test_files_beside_the_configuration_do_not_stand_in_for_the_library(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = [Path(str(package.__file__)).resolve().parents[1] for package in (shmconf, shmconf_agent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, packages)))
    monkeypatch.chdir(tmp_path)
    for name in ("json", "traceback", "importlib", "msgpack", "shmconf", "encodings"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    assert ask("def check(tree): return 'asked'") == [((), "asked")]


def test_the_module_beside_the_configuration_is_the_one(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings.py").write_text("def check(tree): return 'elsewhere'")
    before = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(elsewhere), *before]))
    assert ask("def check(tree): return 'beside'") == [((), "beside")]


def test_nothing_is_written_beside_the_configuration(ask: Ask, tmp_path: Path) -> None:
    ask("def check(tree): return None")
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.py"]


def test_what_the_check_prints_or_reads_does_not_touch_the_verdict(ask: Ask) -> None:
    code = """
import os, subprocess, sys
print("importing")
def check(tree):
    print("[]" * 100_000)
    sys.stderr.write("x" * 1_000_000)
    os.write(1, b"\\x90")
    subprocess.run(["echo", "from a child"])
    return "read: " + repr(sys.stdin.read()) + repr(sys.argv)
"""
    assert ask(code) == [((), "read: ''['settings:check']")]


def test_commands_that_the_check_starts_do_not_get_the_way_to_the_verdict(ask: Ask) -> None:
    code = """
import os, subprocess
def check(tree):
    seen = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout.split()
    return [fd for fd in seen if int(fd) > 3]  # 3 is ls's own
"""
    assert ask(code) == []


def test_the_environment_passes_through(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMCONF_TEST_WORD", "heard")
    assert ask("import os\ndef check(tree): return os.environ['SHMCONF_TEST_WORD']") == [((), "heard")]


def test_answers_are_bounded(ask: Ask) -> None:
    found = ask("import itertools\ndef check(tree): return ('x' * 10_000_000 for _ in itertools.count())")
    assert len(found) == 101
    assert found[-1] == ((), "… and more")
    assert max(len(message) for _, message in found) <= 1000


def test_threads_and_exit_handlers_of_the_check_do_not_hold_the_answer(ask: Ask) -> None:
    code = """
import atexit, threading, time
def check(tree):
    threading.Thread(target=time.sleep, args=(600,)).start()
    atexit.register(time.sleep, 600)
    return "answered"
"""
    assert ask(code) == [((), "answered")]


@pytest.mark.parametrize(
    "stall",
    [
        "import time\ndef check(tree): time.sleep(600)",
        "def check(tree):\n    while True: print('x' * 65536)",
        "def check(tree):\n    while True: pass",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)",
        "import os, time\ndef check(tree):\n    os.closerange(0, 100)\n    time.sleep(600)",
    ],
)
def test_the_deadline_holds(ask: Ask, stall: str) -> None:
    assert ask(stall, deadline=0.7) == [((), "the check did not answer within 0.7 s")]


def test_a_check_that_hangs_ends_by_itself_when_nobody_is_left_to_kill_it(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ndef check(tree):\n    time.sleep(600)\n")
    own_end, childs_end = os.pipe()
    argv = [sys.executable, "-P", "-m", "shmconf_agent.checker", "hangs:check", str(tmp_path), str(childs_end), "0.5"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=(childs_end,))
    os.close(childs_end)
    try:
        child.communicate(codec.pack({}), timeout=PATIENT)
        assert child.returncode == -signal.SIGALRM
        assert os.read(own_end, 1) == b"", "no verdict"
    finally:
        child.kill()
        child.wait()
        os.close(own_end)


def test_at_the_deadline_the_whole_group_is_killed(ask: Ask, tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}\\n")
time.sleep(600)
"""
    pids = tmp_path / "pids"

    deadline = 0.5
    while not pids.exists() or not pids.read_text():  # a slow machine: the child had no time to start
        deadline *= 2
        assert deadline < PATIENT
        assert ask(code, deadline=deadline) == [((), f"the check did not answer within {deadline:g} s")]
    own, child = map(int, pids.read_text().split())
    assert not Path(f"/proc/{own}").exists(), "the child was reaped"
    wait_for(lambda: gone(child))


def test_what_a_check_leaves_behind_is_killed_and_not_waited_for(command: Ask, tmp_path: Path) -> None:
    started = time.monotonic()
    assert command("sh", "-c", "sleep 600 & echo $! > pid") == []
    assert time.monotonic() - started < PATIENT
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())))


def test_a_daemon_that_holds_the_pipes_is_not_waited_for(command: Ask, tmp_path: Path) -> None:
    assert (
        command(
            *script(
                "import os, time\nif os.fork() == 0:\n os.setsid()\n open('pid', 'w').write(str(os.getpid()))\n"
                " time.sleep(600)\nwhile not (os.path.exists('pid') and open('pid').read()): pass"
            )
        )
        == []
    )
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_no_zombie_and_no_descriptor_is_left(ask: Ask, command: Ask) -> None:
    def children() -> list[str]:
        return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()

    before = children(), len(os.listdir("/proc/self/fd"))
    ask("def check(tree): return 'x'")
    ask("import time\ntime.sleep(600)", deadline=0.3)
    command("no-such-command")
    command("true")
    assert (children(), len(os.listdir("/proc/self/fd"))) == before


def test_a_command_gets_the_tree_on_stdin(command: Ask) -> None:
    code = "import sys, msgpack; sys.exit(len(msgpack.unpackb(sys.stdin.buffer.read(), raw=False)['big']) != 5_000_000)"
    assert command(*script(code), payload=codec.pack({"big": "x" * 5_000_000})) == []


def test_a_command_need_not_read_the_tree(command: Ask) -> None:
    big = codec.pack({"big": "x" * 5_000_000})
    assert command("true", payload=big) == []
    assert command("sh", "-c", "exec <&-; echo no >&2; exit 1", payload=big) == [((), "no")]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("echo fine; exit 0", []),
        ("echo one >&2; echo >&2; echo two >&2; echo out; exit 1", ["one", "two"]),
        ("echo out; exit 1", ["out"]),
        ("exit 7", ["the check ended with exit status 7"]),
        ("echo last words >&2; kill -9 $$", ["the check was killed by SIGKILL", "last words"]),
        ("printf 'a\\033[31mb\\377\\n' >&2; exit 1", ["a [31mb\ufffd"]),
    ],
)
def test_a_command_answers_by_its_exit_status(command: Ask, shell: str, expected: list[str]) -> None:
    assert command("sh", "-c", shell) == [((), message) for message in expected]


def test_what_a_command_says_is_bounded(command: Ask) -> None:
    found = command(
        *script("import sys; sys.stderr.write('x' * 5000 + '\\n'); sys.stderr.write('line\\n' * 500_000); sys.exit(1)")
    )
    assert len(found) == 20
    assert found[0][1] == "x" * 499 + "…"
    assert found[-1] == ((), "… and more")
    tracemalloc.start()
    try:
        found = command("sh", "-c", "head -c 100000000 /dev/zero >&2; exit 1")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert found == [((), "… and more")]
    assert command("sh", "-c", "yes >&2", deadline=0.5) == [((), "the check did not answer within 0.5 s")]


def test_a_command_that_cannot_be_started(command: Ask, tmp_path: Path) -> None:
    assert command("./no-such-lint") == [
        ((), "the check './no-such-lint' cannot be started: No such file or directory")
    ]
    (tmp_path / "lint").write_text("#!/bin/sh\n")
    assert command("./lint") == [((), "the check './lint' cannot be started: Permission denied")]
    (tmp_path / "lint").chmod(0o755)
    assert command("./lint") == []


def test_checks_run_side_by_side_in_threads(ask: Ask, tmp_path: Path) -> None:
    ask("def check(tree): return tree['name']")

    def one(number: int) -> list[tuple[tuple[Any, ...], str]]:
        return run_check("settings:check", codec.pack({"name": f"n{number}"}), cwd=tmp_path, deadline=PATIENT)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(12))) == [[((), f"n{number}")] for number in range(12)]
