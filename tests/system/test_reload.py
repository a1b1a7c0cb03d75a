"""`shmconf reload`: blocks until the files as they are now were read, and cannot be fooled into saying OK too early."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shmconf.directories import Directory
from shmconf_agent.admin_client import Answer, reload_segment

# Its tree tells how long it takes: until a file of that name is there.
RULES = """
import os, time
def check(tree):
    with open("checks", "a") as file:
        file.write(f"{tree.get('a')}\\n")
    wait = tree.get("wait")
    while wait and not os.path.exists(wait):
        time.sleep(0.005)
"""
# Its checks may take as long as a test may take on a busy machine.
PATIENT = """
from shmconf_agent import check_process, pipeline
pipeline.DEADLINE, check_process._ORPHAN_SECONDS = 100.0, 200.0
check_process.Check.ask.__defaults__ = (100.0,)
"""
FIELDS = {
    "segment", "verdict", "version", "digest", "problems", "waited_for", "awaits_commit", "held", "hold", "released",
    "message",
}  # fmt: skip


def ask(home, name: str = "web", timeout: float = 60) -> Answer:
    """What `reload NAME` is told, without a process of its own."""
    return reload_segment(name, [Directory(home.runtime, named=True)], timeout)


class Asked:
    """`reload NAME`, asked so that the question has reached the agent's socket before anything else is done."""

    def __init__(self, home, name: str = "web") -> None:
        self._peer = socket.socket(socket.AF_UNIX)
        self._peer.settimeout(100)
        with path_by_number(home.runtime) as directory:
            self._peer.connect(f"{directory}/{name}.sock")
        self._peer.sendall(b"POST /-/reload?timeout=100 HTTP/1.1\r\nHost: x\r\n\r\n")

    def is_answered(self) -> bool:
        return bool(select.select([self._peer], [], [], 0)[0])

    def answer(self) -> dict[str, object]:
        with self._peer:
            _, _, body = b"".join(iter(lambda: self._peer.recv(65536), b"")).partition(b"\r\n\r\n")
        [fields] = json.loads(body)["segments"]
        return fields


def heard(home) -> Answer:
    """Once the agent has a question put before it, and with it all those before; what it answered as time was up."""
    for timeout in (0.2, 1, 5, 20, 60):
        answer = ask(home, timeout=timeout)
        assert answer.verdict == "timeout", answer
        if answer.fields["version"] is not None:  # else nobody answered at all, as on a machine that is too busy
            return answer
    raise AssertionError(f"not heard in time: {answer}")


def told(result: subprocess.CompletedProcess[str]):
    return json.loads(result.stdout)


def begin(home, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start `shmconf reload ARGUMENTS`."""
    return subprocess.Popen(
        home.command("reload", *arguments), cwd=home.root, env=home.environment(**settings), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def web(home):
    """A home with a running agent that serves base.yaml as web."""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    home.start()
    home.attach()
    return home


@pytest.fixture
def checked(home):
    """The same with a check."""
    home.segment("base.yaml", check="rules:check")
    home.write("rules.py", RULES)
    home.write("base.yaml", "a: 1\n")
    home.start(before=PATIENT)
    home.attach()
    return home


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_unchanged_rejected_and_repaired(web):
    result = web.run("reload")
    assert (result.returncode, result.stdout, result.stderr) == (0, "web: version 1, unchanged\n", "")
    web.write("base.yaml", "a: 1\nb: [\n")
    result = web.run("reload", "web")
    assert (result.returncode, result.stderr) == (78, "")
    first, second = result.stdout.splitlines()
    assert first == "web: rejected, still serving version 1"
    assert second.startswith("base.yaml:3:1: ")
    web.write("base.yaml", "a: 2\n")
    result = web.run("reload", "web")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout in ("web: version 2, published\n", "web: version 2, unchanged\n")
    assert web.readers[0]["a"] == 2


def test_json_has_the_same_fields_whatever_the_verdict(web):
    unchanged = web.run("reload", "web", "--format", "json")
    assert unchanged.returncode == 0
    fields = told(unchanged)
    assert set(fields) == FIELDS
    digest = web.readers[0].snapshot().digest
    assert fields | {"verdict": "unchanged", "version": 1, "digest": digest, "problems": [], "message": None} == fields
    web.write("base.yaml", "a: 1\na: 2\n")
    rejected = web.run("reload", "--format", "json")
    assert (rejected.returncode, rejected.stderr) == (78, "")
    [fields] = told(rejected)
    assert set(fields) == FIELDS
    assert (fields["segment"], fields["verdict"], fields["version"]) == ("web", "rejected", 1)
    [problem] = fields["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == ("base.yaml", 2, 1)
    assert "duplicate" in problem["message"]
    web.agents[0].stop()
    nobody = web.run("reload", "web", "--format", "json")
    assert (nobody.returncode, nobody.stderr) == (69, "")
    fields = told(nobody)
    assert set(fields) == FIELDS
    assert (fields["verdict"], fields["version"]) == ("unavailable", None)
    assert "no agent for segment 'web'" in fields["message"]


def test_what_is_valid_and_cannot_be_published_is_no_success(home):
    home.segment("base.yaml", max_bytes=1024 * 1024)
    home.write("base.yaml", "a: 1\n")
    home.start()
    home.attach()
    home.write("base.yaml", f"a: {'x' * 1_044_000}\n")
    result = home.run("reload")
    assert result.returncode == 1
    assert result.stdout.startswith("web: failed, still serving version 1\nvalid, but it cannot be published: ")


def test_a_first_version_and_none_at_all(home):
    home.segment("base.yaml")
    home.write("base.yaml", "a: [\n")
    home.start().says("rejected")
    result = home.run("reload")
    assert (result.returncode, result.stdout.splitlines()[0]) == (78, "web: rejected, nothing is served yet")
    (home.root / "base.yaml").unlink()
    result = home.run("reload")
    assert (result.returncode, "base.yaml: does not exist" in result.stdout) == (78, True)
    home.write("base.yaml", "a: 1\n")
    assert home.run("reload").returncode == 0
    assert home.attach()["a"] == 1


# --- as they are now --------------------------------------------------------------------------------------------------


def replaced(path: Path, text: str) -> None:
    aside = path.with_name("aside")
    aside.write_text(text)
    os.replace(aside, path)


def replaced_with_an_old_file(path: Path, text: str) -> None:
    aside = path.with_name("aside")
    aside.write_text(text)
    status = path.stat()
    os.utime(aside, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(aside, path)


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def in_place_with_the_same_times(path: Path, text: str) -> None:
    status = path.stat()
    with path.open("r+") as file:
        file.write(text)
        file.truncate()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def moved_away_and_made_again(path: Path, text: str) -> None:
    path.rename(path.with_name("base.yaml~"))
    path.write_text(text)


def through_a_link(path: Path, text: str) -> None:
    target = path.with_name(f"target-{time.monotonic_ns()}")
    target.write_text(text)
    link = path.with_name("link")
    link.symlink_to(target)
    os.replace(link, path)


@pytest.mark.parametrize("events", ["with events", "without events"])
def test_what_is_served_after_ok_is_what_was_written_before(home, events, without_events):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 100\n")
    home.start(before=without_events if events == "without events" else "")
    reader = home.attach()
    path = home.root / "base.yaml"
    number = 100
    kinds = (replaced, in_place, through_a_link, replaced_with_an_old_file, in_place_with_the_same_times,
             moved_away_and_made_again)  # fmt: skip
    for _ in range(4 if events == "with events" else 1):
        for edit in kinds:
            number += 1
            edit(path, f"a: {number}\n")
            answer = ask(home)
            assert answer.verdict in ("published", "unchanged"), (edit, answer)
            assert reader["a"] == number, (edit, answer)
            assert reader.version == answer.fields["version"]
            assert reader.snapshot().digest == answer.fields["digest"]


def test_a_write_through_a_mapping_which_nothing_shows_is_found(web):
    path = web.root / "base.yaml"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[3:4] = b"2"  # from here on the page is dirty, and further stores leave no trace
        assert ask(web).verdict in ("published", "unchanged")
        assert web.readers[0]["a"] == 2
        before = path.stat()
        memory[3:4] = b"3"
        assert (path.stat().st_mtime_ns, path.stat().st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
        answer = ask(web)
        assert answer.verdict in ("published", "unchanged")
        assert web.readers[0]["a"] == 3


@pytest.mark.timing
def test_a_file_that_is_being_written_is_waited_for_and_named(web, eventually):
    path = web.root / "base.yaml"
    stop = threading.Event()

    def write() -> None:
        with path.open("w") as file:
            number = 0
            while not stop.is_set():
                number += 1
                file.write(f"key{number}: {number}\n")
                file.flush()
                time.sleep(0.01)
            file.write("a: 2\n")

    writing = threading.Thread(target=write)
    writing.start()
    try:
        eventually(lambda: path.stat().st_size > 8, "a beginning")
        heard(web)
        late = web.run("reload", "web", "--timeout", "4", "--format", "json")
        assert late.returncode == 75
        assert (told(late)["verdict"], told(late)["waited_for"], told(late)["version"]) == ("timeout", ["base.yaml"], 1)
        assert told(late)["message"].endswith("not whole yet: base.yaml")
        result = web.run("reload", "--timeout", "4")
        assert (result.returncode, result.stdout) == (75, "")
        assert result.stderr == "shmconf: no verdict on segment 'web' in time; not whole yet: base.yaml\n"
        waiting = begin(web, "web")
        eventually(lambda: connections(web.agents[0].pid), "its connection")
        heard(web)
        assert waiting.poll() is None
    finally:
        stop.set()
        writing.join()
    output, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, errors) == (0, "")
    assert output == "web: version 2, published (waited for base.yaml)\n"
    assert web.readers[0]["a"] == 2


@pytest.mark.timing
def test_a_file_that_was_cut_off_is_not_taken_though_another_change_has_to_be_published(home, eventually):
    """After half a second the agent publishes what is whole without what is not: a reload may not be answered so."""
    home.segment("base.yaml", "more.yaml")
    home.write("base.yaml", "a: 1\n")
    home.write("more.yaml", "b: 1\n")
    home.start()
    reader = home.attach()
    stop = threading.Event()

    def write() -> None:
        with (home.root / "more.yaml").open("w") as file:
            while not stop.is_set():
                file.write("# not yet\n")
                file.flush()
                time.sleep(0.01)
            file.write("b: 2\n")

    writing = threading.Thread(target=write)
    writing.start()
    try:
        home.write("base.yaml", "a: 2\n")
        asked = Asked(home)
        eventually(lambda: reader["a"] == 2, "the change that is whole")
        heard(home)
        assert not asked.is_answered()
        assert reader["b"] == 1
    finally:
        stop.set()
        writing.join()
    answer = asked.answer()
    assert (answer["verdict"], answer["waited_for"]) == ("published", ["more.yaml"])
    assert reader["b"] == 2


def test_a_reload_during_a_long_check_is_answered_from_a_pass_of_its_own(checked, eventually):
    checks = checked.root / "checks"
    checked.write("base.yaml", "a: 2\nwait: go-2\n")
    eventually(lambda: checks.read_text().splitlines()[-1] == "2", "the check of the first edit")
    first = Asked(checked)
    checked.write("base.yaml", "a: 3\n")
    second = Asked(checked)
    heard(checked)  # the check goes on
    assert not first.is_answered()
    assert not second.is_answered()
    (checked.root / "go-2").touch()
    answer = second.answer()
    assert answer["verdict"] == "published"
    assert checked.readers[0]["a"] == 3
    assert first.answer()["verdict"] == "published"
    assert checked.readers[0].version == answer["version"]


def test_many_reloads_at_once_share_passes_and_none_gets_an_old_verdict(checked, eventually):
    checks = checked.root / "checks"
    checked.write("base.yaml", "a: 1000\nwait: go\n")
    eventually(lambda: checks.read_text().splitlines()[-1] == "1000", "the check that all of them meet")
    reader = checked.readers[0]
    number, lock = [1000], threading.Lock()

    def edit_and_ask(_: int) -> tuple[str, int, int]:
        with lock:
            number[0] += 1
            mine = number[0]
            checked.write("base.yaml", f"a: {mine}\n")
        answer = ask(checked)
        return answer.verdict, mine, reader["a"]

    with ThreadPoolExecutor(24) as pool:
        futures = [pool.submit(edit_and_ask, each) for each in range(24)]
        eventually(lambda: connections(checked.agents[0].pid) >= 24, "their connections")
        heard(checked)
        (checked.root / "go").touch()
        outcomes = [future.result() for future in futures]
    assert {verdict for verdict, _, _ in outcomes} <= {"published", "unchanged"}
    assert all(served >= mine for _, mine, served in outcomes), outcomes
    assert reader["a"] == 1024
    # With a pass for each, the check would have run for every one of them.
    assert len(checks.read_text().splitlines()) < 24


# --- the agent's own file ---------------------------------------------------------------------------------------------


def test_the_agents_file_is_read_as_well(web):
    web.write("more.yaml", "b: 1\n")
    (web.root / "shmconf.toml").unlink()
    web.segment("base.yaml", "more.yaml")
    result = web.run("reload", "web")
    assert (result.returncode, result.stdout.startswith("web: version 2, published")) == (0, True)
    assert web.readers[0].snapshot().to_dict() == {"a": 1, "b": 1}
    web.write("shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\nsettle = 3\n')
    result = web.run("reload")
    assert result.returncode == 78
    assert result.stdout.startswith("web: rejected, still serving version 2\nshmconf.toml:3:1: unknown key 'settle'")
    web.write("shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\ngroup = "no-such-group-here"\n')
    for _ in range(2):
        result = web.run("reload")
        assert result.returncode == 78
        assert "shmconf.toml:3:1: there is no group 'no-such-group-here'" in result.stdout
    (web.root / "shmconf.toml").unlink()
    result = web.run("--config", str(web.write("other.toml", '[segment.web]\nsources = ["base.yaml"]\n')), "reload")
    assert (result.returncode, "no shmconf.toml" in result.stdout) == (78, True)


def test_a_segment_that_comes_and_one_that_goes(web):
    web.write("jobs.yaml", "b: 1\n")
    web.segment("jobs.yaml", name="jobs")
    result = web.run("reload", "--format", "json")
    assert result.returncode == 0
    verdicts = [(each["segment"], each["version"], each["verdict"]) for each in told(result)]
    assert verdicts == [("jobs", 1, "published"), ("web", 1, "unchanged")]
    (web.root / "shmconf.toml").unlink()
    web.segment("jobs.yaml", name="jobs")
    result = web.run("reload", "web")
    assert (result.returncode, result.stdout) == (69, "")
    assert result.stderr == "shmconf: segment 'web' is not in the agent's file\n"
    result = web.run("reload")
    assert (result.returncode, result.stdout) == (0, "jobs: version 1, unchanged\n")
    assert not (web.runtime / "web.sock").exists()


def test_new_settings_that_have_to_wait_for_a_long_check_are_waited_for(checked, eventually):
    checked.write("base.yaml", "a: 2\nwait: go\n")
    eventually(lambda: (checked.root / "checks").read_text().splitlines()[-1] == "2", "the check")
    before = Asked(checked)  # its question is handed over to the segment's next reconciler
    heard(checked)
    checked.write("more.yaml", "b: 1\n")
    text = (checked.root / "shmconf.toml").read_text()
    checked.write("shmconf.toml", text.replace('["base.yaml"]', '["base.yaml", "more.yaml"]'))
    after = Asked(checked)
    heard(checked)
    (checked.root / "go").touch()
    assert after.answer()["verdict"] == "published"
    assert checked.readers[0]["b"] == 1
    assert before.answer()["verdict"] == "published"


# --- which agents -----------------------------------------------------------------------------------------------------


def test_every_agent_in_the_directory_is_asked_and_the_worst_counts(home, eventually):
    for name in ("one", "two", "three"):
        home.write(f"{name}.yaml", "a: 1\n")
    home.segment("one.yaml", name="one")
    home.segment("two.yaml", name="two")
    home.start()
    home.start("run", "--segment", "three", "three.yaml")
    readers = {name: home.attach(name) for name in ("one", "two", "three")}
    result = home.run("reload")
    lines = ["one: version 1, unchanged", "three: version 1, unchanged", "two: version 1, unchanged"]
    assert (result.returncode, result.stdout.splitlines()) == (0, lines)
    home.write("three.yaml", "a: [\n")
    home.write("two.yaml", "a: 2\n")
    result = home.run("reload", "--format", "json")
    assert result.returncode == 78
    assert [(each["segment"], each["version"]) for each in told(result)] == [("one", 1), ("three", 1), ("two", 2)]
    assert readers["two"]["a"] == 2
    home.agents[1].kill()
    result = home.run("reload")
    assert result.returncode == 69
    assert result.stdout.splitlines() == ["one: version 1, unchanged", "two: version 2, unchanged"]
    assert "no agent for segment 'three'" in result.stderr
    home.agents[0].process.send_signal(signal.SIGSTOP)
    try:
        assert home.run("reload", "one", "--timeout", "0.2").returncode == 75
        assert home.run("reload", "--timeout", "0.2").returncode == 69
    finally:
        home.agents[0].process.send_signal(signal.SIGCONT)
    assert home.run("reload", "one").returncode == 0


def test_no_agent(web):
    assert web.agents[0].stop() == 0
    assert not (web.runtime / "web.sock").exists()
    result = web.run("reload")
    assert (result.returncode, result.stdout) == (69, "")
    assert result.stderr == f"shmconf: no agent in {web.runtime}\n"
    result = web.run("reload", "absent")
    assert (result.returncode, result.stderr) == (69, f"shmconf: no agent for segment 'absent' in {web.runtime}\n")
    assert web.run("reload", "../web").returncode == 2
    assert web.run("reload", "--timeout", "nan").returncode == 2


@pytest.mark.timing
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_that_ends_during_a_reload(checked, eventually, number):
    checked.write("base.yaml", "a: 2\nwait: never\n")
    eventually(lambda: (checked.root / "checks").read_text().splitlines()[-1] == "2", "the check")
    waiting = begin(checked, "web")
    eventually(lambda: connections(checked.agents[0].pid), "its connection")
    heard(checked)
    assert waiting.poll() is None
    checked.agents[0].process.send_signal(number)
    output, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, output) == (69, "")
    why = "ended before it answered" if number == signal.SIGKILL else "the agent stops"
    assert why in errors
    checked.agents[0].process.wait()
    (checked.root / "never").touch()  # for the check of an agent that was killed


def connections(pid: int) -> int:
    """How many connections at its admin sockets this process has accepted."""
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:] if ".sock" in line]
    accepted = {f"socket:[{fields[6]}]" for fields in table if fields[3] == "00000000"}  # not those that listen
    held = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(entry))
    return len(accepted.intersection(held))


# --- the socket -------------------------------------------------------------------------------------------------------


def test_a_dead_agents_socket_is_replaced_and_a_wiped_directory_gets_it_again(web, eventually):
    path = web.runtime / "web.sock"
    before = path.stat()
    web.agents[0].kill()
    assert path.stat().st_ino == before.st_ino
    assert "no agent for segment 'web'" in web.run("reload", "web").stderr
    web.start()
    eventually(lambda: ask(web).verdict == "unchanged", "the new agent's answer")
    assert path.stat().st_mode & 0o777 == 0o660
    shutil.rmtree(web.runtime)
    eventually(path.exists, "the socket is back")
    eventually(lambda: ask(web).verdict in ("published", "unchanged"), "an answer")
    web.write("base.yaml", "a: 2\n")
    assert ask(web).verdict in ("published", "unchanged")
    assert web.attach()["a"] == 2
    path.unlink()
    eventually(path.exists, "the socket alone is back as well")
    assert ask(web).verdict == "unchanged"


@pytest.mark.parametrize("kind", ["directory", "link", "file", "socket"])
def test_what_stands_in_the_sockets_place_is_left_alone_and_told(home, kind, eventually, require, monkeypatch):
    home.runtime.mkdir()
    path = home.runtime / "web.sock"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/nowhere")
    elif kind == "file":
        path.write_text("mine\n")
    else:
        require(os.geteuid() == 0, "only root may give a socket to another user")
        with socket.socket(socket.AF_UNIX) as other:
            monkeypatch.chdir(home.runtime)  # for a short address
            other.bind("web.sock")
        os.chown(path, 65534, 65534)
    before = os.lstat(path)
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    agent = home.start()
    home.attach()
    agent.says(f"no admin socket, so that `reload` cannot ask: {path}: is ")
    code, status = home.status()
    assert code == 0
    assert any("no admin socket" in warning and "remove it" in warning for warning in status["warnings"])
    assert os.lstat(path).st_ino == before.st_ino
    for arguments in (["reload"], ["reload", "web"]):
        result = home.run(*arguments)
        assert (result.returncode, result.stdout) == (69, "")
    home.write("base.yaml", "a: 2\n")
    assert home.readers[0].wait(after=1, timeout=60)["a"] == 2  # publication goes on
    path.rmdir() if kind == "directory" else path.unlink()
    eventually(lambda: ask(home).verdict == "unchanged", "a socket")
    eventually(lambda: home.status()[1]["warnings"] == [], "no warning")


def test_a_directory_whose_path_is_too_long_for_a_sockets_address(home):
    home.runtime = home.root / ("long" * 40) / "run"
    home.runtime.parent.mkdir()
    home.segment("base.yaml", name="n" * 64)
    home.write("base.yaml", "a: 1\n")
    home.start()
    home.attach("n" * 64)
    result = home.run("reload")
    assert (result.returncode, result.stdout) == (0, f"{'n' * 64}: version 1, unchanged\n")


def test_workers_and_reading_verbs_load_nothing_of_it(home):
    script = (
        "import sys, shmconf, shmconf_agent.cli\n"
        "print([name for name in ('aiohttp', 'asyncio', 'http.client') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=home.environment(), capture_output=True, text=True, timeout=120
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


# --- rights -----------------------------------------------------------------------------------------------------------

POST = b"POST /-/reload HTTP/1.1\r\nHost: x\r\n\r\n"
AS_USER = """
import os, socket, sys
where, groups = sys.argv[1], [int(group) for group in sys.argv[2].split()]
os.setgroups(groups); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(where)
    peer.sendall(sys.argv[3].encode())
    answer = b""
    while piece := peer.recv(65536):
        answer += piece
print(answer.decode().splitlines()[0])
"""


def status_for(home, groups: str, request: bytes = POST) -> str:
    """The first line that nobody, as a member of these groups, gets for the request."""
    command = [sys.executable, "-c", AS_USER, str(home.runtime / "web.sock"), groups, request.decode()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return result.stdout.strip() or result.stderr.splitlines()[-1]


@pytest.fixture
def guarded(open_home, require):
    """An agent of root's, at a place that others may enter."""
    require(os.geteuid() == 0, "only root may become another user")
    os.chown(open_home.runtime, 0, 0)
    open_home.write("base.yaml", "a: 1\n")
    open_home.segment("base.yaml")
    return open_home


def test_only_those_with_rights_may_reload(guarded, as_nobody):
    guarded.start()
    guarded.attach()
    result = guarded.run("reload", before=as_nobody)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"no permission to ask at {guarded.runtime / 'web.sock'}" in result.stderr
    assert "Permission denied" in status_for(guarded, "")
    # Whoever may read the segment may connect, look, and change nothing.
    assert status_for(guarded, "0") == "HTTP/1.1 403 Forbidden"
    assert status_for(guarded, "0", POST.replace(b"reload", b"ready").replace(b"POST", b"GET")) == "HTTP/1.1 200 OK"


def test_members_of_the_admin_group_may_reload(guarded):
    text = (guarded.root / "shmconf.toml").read_text()
    guarded.write("shmconf.toml", f'admin_group = "4711"\n{text}')
    guarded.start()
    guarded.attach()
    assert (guarded.runtime / "web.sock").stat().st_gid == 4711
    assert status_for(guarded, "4711") == "HTTP/1.1 200 OK"
    assert status_for(guarded, "1 2 4711 5000") == "HTTP/1.1 200 OK"
    assert "Permission denied" in status_for(guarded, "4712")
    guarded.write("shmconf.toml", f'admin_group = "65534"\n{text}')  # nobody's own group
    assert guarded.run("reload").returncode == 0
    assert (guarded.runtime / "web.sock").stat().st_gid == 65534
    assert status_for(guarded, "") == "HTTP/1.1 200 OK"
    guarded.write("shmconf.toml", f'admin_group = "no-such-group"\n{text}')
    result = guarded.run("reload")
    assert result.returncode == 78
    assert "shmconf.toml:1:1: there is no group 'no-such-group'" in result.stdout
    assert "change 'admin_group'" in result.stdout
    assert guarded.run("check").stdout.startswith("shmconf.toml:1:1: there is no group 'no-such-group'")
    assert guarded.run("--runtime-dir", str(guarded.root / "other"), "run").returncode == 78


def test_a_group_that_the_agents_user_may_not_give_the_socket_to(open_home, as_nobody):
    open_home.write("base.yaml", "a: 1\n")
    open_home.segment("base.yaml")
    open_home.write("shmconf.toml", 'admin_group = "4711"\n' + (open_home.root / "shmconf.toml").read_text())
    agent = open_home.start(before=as_nobody)
    open_home.attach()
    agent.says("may not give the admin socket to the group 4711")
    assert open_home.run("reload", before=as_nobody).returncode == 0
    assert open_home.run("reload").returncode == 0  # root


def test_a_socket_of_somebody_who_is_not_to_be_trusted_is_not_believed(guarded):
    """In a directory that others may write, anybody can put a socket that says OK."""
    guarded.runtime.chmod(0o777)
    script = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(); print('up', flush=True)\n"
        "peer, _ = server.accept()\n"
        "print(peer.recv(65536))\n"
    )
    path = guarded.runtime / "web.sock"
    squatter = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert squatter.stdout.readline() == "up\n"
        result = guarded.run("reload", "web")
        assert (result.returncode, result.stdout) == (1, "")
        assert "is served by user 65534, who is not to be trusted" in result.stderr
        assert squatter.communicate(timeout=120)[0] == "b''\n"  # it was asked nothing
    finally:
        squatter.kill()
        squatter.communicate()


# --- peers that mean no good ------------------------------------------------------------------------------------------


def test_half_open_connections_cost_the_agent_nothing_and_end(web, eventually):
    path = web.runtime / "web.sock"
    held = []
    try:
        with path_by_number(web.runtime) as directory:
            for number in range(200):  # more than there are places
                peer = socket.socket(socket.AF_UNIX)
                held.append(peer)
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    peer.connect(f"{directory}/{path.name}")
                    peer.sendall(b"POST /-/reload HTTP/1.1\r\nHost: " if number % 2 else b"")
        eventually(lambda: connections(web.agents[0].pid) >= 60, "all places taken")
        assert ask(web).verdict == "busy"
        web.write("base.yaml", "a: 2\n")
        assert web.readers[0].wait(after=1, timeout=60)["a"] == 2
        assert web.readers[0].status().agent_alive
        eventually(lambda: connections(web.agents[0].pid) == 0, "they are closed, though their peers are not")
        assert web.run("reload", "web").returncode == 0
    finally:
        for peer in held:
            peer.close()


@contextlib.contextmanager
def path_by_number(directory: Path):
    """A short path of it, for a socket's address."""
    number = os.open(directory, os.O_PATH)
    try:
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
