"""The verbs on segments made for the purpose: what they print and what they exit with."""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import shmconf
from shmconf import AgentStatus, Hold, codec
from shmconf.directories import Directory
from shmconf.writer import Writer
from shmconf_agent import cli, options
from shmconf_agent.options import Options, UsageProblem, state_directory

TREE = {
    "db": {"pool": {"size": 10}},
    "a.b": {"c": 1},
    "hosts": ["one", "two"],
    "blob": b"\0\xff",
    "day": date(2024, 2, 29),
    "nan": float("nan"),
    "none": None,
    7: "seven",
}


class Shell:
    """A runtime directory, writers in the place of agents, and the command."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root, root / "run"
        self.run.mkdir(mode=0o755)
        self.writers: list[Writer] = []

    def writer(self, name: str = "web", *trees: dict[Any, Any], beat: bool = True, **status: Any) -> Writer:
        writer = Writer(Directory(self.run, named=True), name, state_directory=self.root / "state")
        self.writers.append(writer)
        for tree in trees:
            writer.publish(codec.pack(tree))
        writer.set_status(AgentStatus(**{"state": "running", "pid": 42, **status}).encode())
        if beat:
            writer.beat()
        return writer

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli.main, ["--runtime-dir", str(self.run), *arguments], prog_name="shmconf")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "DEFAULT_FILES", (Path("shmconf.toml"), tmp_path / "etc/shmconf.toml"))
    made = Shell(tmp_path)
    yield made
    for writer in made.writers:
        writer.close()


# --- get --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["db.pool.size"], b"10\n"),
        (["db"], b"pool:\n  size: 10\n"),
        (['"a.b".c'], b"1\n"),
        (["hosts.1"], b"two\n"),
        (["none"], b"null\n"),
        (["day", "--format", "json"], b'"2024-02-29"\n'),
        (["blob", "--format", "json"], b'"AP8="\n'),
        (["blob", "--format", "raw"], b"\0\xff"),
        (["hosts.0", "--format", "raw"], b"one"),
        (["none", "--format", "json"], b"null\n"),
        (["hosts", "--format", "raw"], codec.pack(["one", "two"])),
    ],
)
def test_get(shell: Shell, arguments: list[str], expected: bytes) -> None:
    shell.writer("web", TREE)
    result = shell("get", "web", *arguments)
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, expected, "")


def test_get_notes_nan_on_stderr(shell: Shell) -> None:
    shell.writer("web", TREE)
    result = shell("get", "web", "nan", "--format", "json")
    assert (result.exit_code, result.stdout) == (0, "null\n")
    assert result.stderr == "shmconf: JSON has no nan and no infinity: shown as null\n"


@pytest.mark.parametrize("arguments", [["get", "web"], ["get", "web", "--format", "json"], ["watch", "web", "name"]])
def test_what_the_output_cannot_encode_is_one_line(shell: Shell, arguments: list[str]) -> None:
    shell.writer("web", {"a": 1, "name": "日本"})
    more = ["--after", "0", "--count", "1"] if arguments[0] == "watch" else []
    runner = CliRunner(charset="latin-1")
    result = runner.invoke(cli.main, ["--runtime-dir", str(shell.run), *arguments, *more], prog_name="shmconf")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "shmconf: the output is in latin-1, which has no '\\u65e5\\u672c': choose a UTF-8 locale, or "
        "set PYTHONIOENCODING=utf-8\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["web", "nowhere"], 1, "segment 'web', version 1, has no nowhere"),
        (["web", "hosts.2"], 1, "has no hosts.2"),
        (["web", "7"], 1, "has no 7"),  # text matches text keys only
        (["web", ""], 2, "expected a key"),
        (["web", "a b"], 2, "needs quotes"),
        (["absent"], 69, "no segment 'absent'"),
        (["empty"], 69, "nothing published yet"),
        (["damaged"], 1, "damaged.shmconf"),
        ([".web"], 2, "is not a segment name"),
        (["web", "--format", "xml"], 2, "xml"),
    ],
)
def test_get_fails_with_a_reason_on_stderr_alone(shell: Shell, arguments: list[str], code: int, text: str) -> None:
    shell.writer("web", TREE)
    shell.writer("empty")
    (shell.run / "damaged.shmconf").write_bytes(b"no segment")
    result = shell("get", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trees", "more", "code"),
    [
        ([{}], {}, 0),
        ([{}], {"last_error": "base.yaml:1:1: no"}, 3),
        ([{}], {"stale": True}, 3),
        ([{}], {"beat": False}, 4),
        ([{}], {"beat": False, "last_error": "no"}, 4),
        ([{}], {"state": "stopped"}, 4),
        ([], {}, 69),
        ([], {"last_error": "no"}, 69),
    ],
)
def test_status_exit_codes(shell: Shell, trees: list[dict[Any, Any]], more: dict[str, Any], code: int) -> None:
    shell.writer("web", *trees, **more)
    assert shell("status", "web").exit_code == code
    assert shell("status").exit_code == code
    told = json.loads(shell("status", "web", "--format", "json").stdout)
    assert told["last_error"] == more.get("last_error")


def test_status_of_several_the_worst_wins(shell: Shell) -> None:
    shell.writer("a", {})
    assert shell("status").exit_code == 0
    shell.writer("b", {}, last_error="no")
    assert shell("status").exit_code == 3
    shell.writer("c", {}, beat=False)
    assert shell("status").exit_code == 4
    shell.writer("d")
    assert shell("status").exit_code == 69
    (shell.run / "e.shmconf").write_bytes(b"no segment")
    result = shell("status")
    assert (result.exit_code, result.stderr) == (1, "")
    rows, reasons = (part.splitlines() for part in result.stdout.split("\n\n"))
    assert [row.split()[0] for row in rows] == ["SEGMENT", *"abcde"]
    assert [reason.split(": ")[0] for reason in reasons] == ["b", "e"]
    assert "e.shmconf" in reasons[1]


def test_status_of_all_is_loud_about_a_rollback_that_is_held(shell: Shell) -> None:
    shell.writer("a", {}, hold=Hold(version=1, epoch=7, since=1, uid=os.getuid()))
    result = shell("status")
    assert result.exit_code == 0
    rows, reason = result.stdout.split("\n\n")
    assert "held by rollback" in rows
    assert reason.startswith("a: HELD: a rollback of version 1, ")
    assert reason.endswith("; to follow the files again: shmconf resume a\n")


def test_status_where_nothing_can_be_read_is_not_no_segment(shell: Shell) -> None:
    (shell.run / "e.shmconf").write_bytes(b"no segment")
    result = shell("status")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "e.shmconf" in result.stdout
    assert "is an agent running?" not in result.stdout
    (told,) = json.loads(shell("status", "--format", "json").stdout)
    assert (told["segment"], told["state"]) == ("e", "unreadable")


def test_status_without_any_segment(shell: Shell) -> None:
    result = shell("status")
    assert (result.exit_code, result.stdout) == (69, "")
    assert f"no segment in {shell.run}; is an agent running?" in result.stderr


def test_status_waits_for_a_version(shell: Shell) -> None:
    shell.writer("web", {}, {"a": 1})
    assert shell("status", "web", "--wait-version", "2").exit_code == 0
    result = shell("status", "web", "--wait-version", "3", "--timeout", "0.02")
    assert (result.exit_code, result.stdout) == (75, "")
    assert shell("status", "absent", "--wait-version", "1", "--timeout", "0.02").exit_code == 75
    assert shell("status", "--wait-version", "1").exit_code == 2
    assert shell("status", "web", "--timeout", "1").exit_code == 2


# --- watch ------------------------------------------------------------------------------------------------------------


def test_watch_begins_with_the_current_version_after_0(shell: Shell) -> None:
    shell.writer("web", {"a": 1}, {"a": 2})
    result = shell("watch", "web", "a", "--after", "0", "--count", "1", "--format", "json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["version"], told["path"], told["value"], told["present"]) == (2, "a", 2, True)


def test_watch_ends_with_75_on_timeout(shell: Shell) -> None:
    shell.writer("web", {"a": 1})
    result = shell("watch", "web", "--timeout", "0.02")
    assert (result.exit_code, result.stdout) == (75, "")
    assert "watching web from version 1" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "web", "--timeout", "nan"],
        ["watch", "absent", "--wait", "nan"],
        ["status", "web", "--wait-version", "9", "--timeout", "nan"],
        ["watch", "web", "--timeout", "-1"],
    ],
)
def test_no_number_of_seconds_is_a_usage_error(shell: Shell, arguments: list[str]) -> None:
    shell.writer("web", {"a": 1})
    result = shell(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{arguments[-2]}'" in result.stderr


@pytest.mark.parametrize(("path", "code"), [("a b", 2), ("", 2)])
def test_watch_refuses_a_malformed_path_at_once(shell: Shell, path: str, code: int) -> None:
    shell.writer("web", {"a": 1})
    assert shell("watch", "web", path).exit_code == code


def test_ctrl_c_is_130_without_a_word(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.writer("web", {"a": 1})

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(shmconf.Reader, "wait_version", interrupt)
    monkeypatch.setattr(shmconf.Reader, "changes", interrupt)
    assert shell("watch", "web").exit_code == 130
    result = shell("status", "web", "--wait-version", "9")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")


# --- check, run -------------------------------------------------------------------------------------------------------


def test_check(shell: Shell) -> None:
    (shell.root / "a.yaml").write_text("a: 1\n")
    (shell.root / "b.toml").write_text("b = 1\n")
    result = shell("check", "--segment", "web", "a.yaml", "b.toml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "web: valid, 2 files, 7 bytes packed\n"
    assert json.loads(shell("check", "--segment", "web", "a.yaml", "--format", "json").stdout) == {
        "valid": True,
        "problems": [],
        "warnings": [],
    }
    (shell.root / "a.yaml").write_text("a: 1\na: 2\n")
    result = shell("check", "--segment", "web", "a.yaml", "b.toml", "c.json")
    assert result.exit_code == 78
    assert len(result.stdout.splitlines()) == 2
    assert "a.yaml:2:1: " in result.stdout
    assert "c.json: does not exist" in result.stdout
    assert "2 problems found" in result.stderr
    assert list(shell.run.iterdir()) == []


def test_check_tells_the_problems_of_all_segments(shell: Shell) -> None:
    (shell.root / "shmconf.toml").write_text('[segment.a]\nsources = ["a.yaml"]\n[segment.b]\nsources = ["b.yaml"]\n')
    result = shell("check", "--format", "json")
    assert result.exit_code == 78
    assert [problem["segment"] for problem in json.loads(result.stdout)["problems"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run"], 2, "shmconf: no shmconf.toml or "),
        (["--config", "nowhere.toml", "run"], 2, "shmconf: there is no nowhere.toml"),
        (["run", "--segment", "a/b", "x.yaml"], 2, "shmconf: 'a/b' is not a segment name"),
        (["--runtime-dir", "file", "run", "--segment", "web", "x"], 1, "shmconf: cannot use the runtime directory"),
        (["--config", "bad.toml", "run"], 78, "bad.toml:1:2: unknown key 'segments' at the top level; did you mean"),
    ],
)
def test_a_mistake_is_one_line(shell: Shell, arguments: list[str], code: int, text: str) -> None:
    (shell.root / "file").touch()
    (shell.root / "bad.toml").write_text("[segments.web]\n")
    result = shell(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(text)
    assert len(result.stderr.splitlines()) == 1


def test_an_unexpected_fault_is_not_hidden(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("of ours")

    monkeypatch.setattr(shmconf, "attach", fail)
    assert isinstance(shell("get", "web").exception, ValueError)


def test_a_broken_agents_file_keeps_nobody_from_looking(shell: Shell) -> None:
    shell.writer("web", {"a": 1})
    (shell.root / "shmconf.toml").write_text("[segment.web\n")
    result = CliRunner().invoke(cli.main, ["get", "web", "a"], env={"SHMCONF_DIR": str(shell.run)})
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "shmconf.toml is invalid and was passed over" in result.stderr


def test_the_runtime_directory_of_the_agents_file_is_used(shell: Shell) -> None:
    shell.writer("web", {"a": 1})
    (shell.root / "shmconf.toml").write_text('runtime_dir = "run"\n[segment.web]\nsources = ["a.yaml"]\n')
    result = CliRunner().invoke(cli.main, ["get", "web", "a"])
    assert (result.exit_code, result.stdout) == (0, "1\n")


# --- options ----------------------------------------------------------------------------------------------------------


def test_which_agents_file(shell: Shell) -> None:
    with pytest.raises(UsageProblem):
        Options().agent_file()
    (shell.root / "etc").mkdir()
    (shell.root / "etc/shmconf.toml").touch()
    assert Options().agent_file() == shell.root / "etc/shmconf.toml"
    (shell.root / "shmconf.toml").touch()
    assert Options().agent_file() == Path("shmconf.toml")
    assert Options(config=Path("etc/shmconf.toml")).agent_file() == Path("etc/shmconf.toml")


def test_which_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert state_directory(tmp_path) == tmp_path
    assert state_directory(None) == Path("/var/lib/one")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_directory(None) == Path("/var/lib/shmconf")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert state_directory(None) == Path("/home/me/state/shmconf")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert state_directory(None) == Path("/home/me/.local/state/shmconf")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    for name in [name for name in sys.modules if name.startswith("shmconf_agent.cli")]:
        monkeypatch.delitem(sys.modules, name)
    main = importlib.import_module("shmconf_agent.__main__").main
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "shmconf: click is missing; the command needs: pip install 'shmconf[agent]'\n"


# --- reload -----------------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


VERDICT = {"segment": "web", "verdict": "unchanged", "version": 3, "digest": "d", "problems": [], "waited_for": [],
           "awaits_commit": None}


def verdict(**fields: Any) -> bytes:
    return answer(200, json.dumps({"agent": "x", "pid": 1, "segments": [VERDICT | fields]}).encode())


@pytest.mark.parametrize(
    ("reply", "code", "text"),
    [
        (verdict(), 0, "web: version 3, unchanged"),
        (verdict(awaits_commit="stamp"), 0, "web: version 3, unchanged; what changed since waits for stamp to change"),
        (verdict(waited_for=["a.yaml", "b.yaml"]), 0, "web: version 3, unchanged (waited for a.yaml, b.yaml)"),
        (verdict(verdict="failed", version=0), 1, "web: failed, nothing is served yet"),
        (verdict(verdict="held"), 1, "web: held, still serving version 3"),  # of a later release: no success
        (verdict(verdict="timeout"), 75, "no verdict on segment 'web' in time; the agent is still at it"),
        (verdict(verdict="gone"), 69, "segment 'web' is not in the agent's file"),
        (verdict(segment="jobs"), 69, "answered for another one"),
        (answer(503, b""), 75, "the agent of segment 'web' has too many connections; try again"),
        (answer(403, b'{"error": "you may not"}'), 1, "the agent of segment 'web' answers: you may not"),
        (answer(200, b"OK"), 69, "HTTP status 200, which is no verdict"),
        (answer(200, b"[]"), 69, "HTTP status 200, which is no verdict"),
        (answer(200, b'{"agent": "x", "segments": [{"segment": "web"}]}'), 69, "which is no verdict"),
        (answer(200, b'{"agent": "x", "segments": []}'), 69, "answered for another one"),
        (answer(200, b"\xff" * 100), 69, "which is no verdict"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK", 69, "which is no verdict"),
        (b"nothing of the kind\r\n\r\n", 69, "ended before it answered"),
        (b"", 69, "ended before it answered"),
    ],
)
def test_reload_takes_nothing_but_a_verdict_for_one(shell: Shell, reply: bytes, code: int, text: str) -> None:
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as here:
        here.chdir(shell.run)  # for a short address
        server.bind("web.sock")
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                asked.append(peer.recv(65536))
                peer.sendall(reply)

        serving = threading.Thread(target=serve)
        serving.start()
        result = shell("reload", "web")
        serving.join(60)
    assert asked[0].startswith(b"POST /-/reload?timeout=60.0 HTTP/1.1\r\n")
    assert (result.exit_code, text in (result.stdout if "web: " in text else result.stderr)) == (code, True)
    assert len((result.stdout + result.stderr).splitlines()) == 1
