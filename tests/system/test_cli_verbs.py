"""The command as people and scripts meet it: exit codes, what goes to stdout and to stderr, one line for a mistake."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
from datetime import UTC, datetime

import pytest

from shmconf_agent.cli import main

VERBS = tuple(sorted(main.commands))
TREE = """
name: "a: text # with marks"
"a.b": {c: 1}
hosts: [one, two]
none: null
port: 8080
ratio: 0.5
nan: .nan
inf: -.inf
day: 2024-02-29
at: 2024-02-29T12:30:00Z
blob: !!binary aGVsbG8A
umlaut: "Grüße"
1: whole
"""


@pytest.fixture(scope="module")
def served(module_home):
    """A home with a segment that a running agent serves; nothing here edits it."""
    home = module_home("served")
    home.segment("base.yaml")
    home.write("base.yaml", TREE)
    home.start()
    home.attach()
    return home


def one_line(result: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    """The exit code, and on stderr a line with what is wrong and what to do."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert text in result.stderr


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_worth_reading(home, verb):
    """On a terminal of 80 columns, with what it does, its options, its exit codes and examples that begin with it."""
    result = home.run(*verb.split(), "--help", COLUMNS="80")
    assert result.returncode == 0
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\n  Exit codes:\n    0 " in result.stdout
    examples = result.stdout.partition("\n  Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples
    words = [shlex.split(line.partition("   ")[0] if not verb else line) for line in map(str.strip, examples)]
    assert all(each[0] == "shmconf" for each in words)
    assert all(verb in each for each in words[:1] if verb)
    assert "--format" in result.stdout or not verb
    if not verb:
        listed = result.stdout.partition("\nCommands:\n")[2].splitlines()
        assert [line for line in listed if "..." in line] == []  # each is told whole
        assert len(listed) == len(VERBS)
        assert all(f"\n  {each} " in result.stdout for each in VERBS)
        assert "Exit codes" in result.stdout


def test_get_prints_yaml_that_reads_back_and_nothing_else(served):
    yaml = pytest.importorskip("yaml")
    result = served.run("get", "web")
    assert (result.returncode, result.stderr) == (0, "")
    shown, expected = yaml.safe_load(result.stdout), yaml.safe_load(TREE)
    assert str(shown.pop("nan")) == str(expected.pop("nan")) == "nan"
    assert shown == expected
    assert list(shown) == list(expected)
    assert shown["at"] == datetime(2024, 2, 29, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "form", "expected"),
    [
        ("hosts.1", "yaml", b"two\n"),
        ('"a.b".c', "yaml", b"1\n"),
        ("umlaut", "yaml", "Grüße\n".encode()),
        ("hosts", "json", b'[\n  "one",\n  "two"\n]\n'),
        ("at", "json", b'"2024-02-29T12:30:00+00:00"\n'),
        ("blob", "json", b'"' + base64.b64encode(b"hello\0") + b'"\n'),
        ("blob", "raw", b"hello\0"),
        ("name", "raw", b"a: text # with marks"),
        ("hosts", "raw", b"\x92\xa3one\xa3two"),
    ],
)
def test_get_formats(served, path, form, expected):
    command = served.command("get", "web", path, "--format", form)
    result = subprocess.run(command, cwd=served.root, env=served.environment(), capture_output=True, timeout=120)
    assert (result.returncode, result.stderr, result.stdout) == (0, b"", expected)


def test_get_notes_on_stderr_what_json_cannot_hold(served):
    result = served.run("get", "web", "--format", "json")
    assert result.returncode == 0
    shown = json.loads(result.stdout)
    assert (shown["nan"], shown["inf"], shown["1"], shown["day"]) == (None, None, "whole", "2024-02-29")
    assert "nan" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_get_of_what_is_not_there(served, home):
    one_line(served.run("get", "web", "db.pool"), 1, "has no db.pool")
    one_line(served.run("get", "web", "a b"), 2, "needs quotes")
    one_line(served.run("get", "absent"), 69, "no segment 'absent'")
    one_line(served.run("get", "../web"), 2, "is not a segment name")
    one_line(home.run("get", "web"), 69, "no segment 'web'")


def test_status_in_json_has_what_a_monitor_needs(served):
    result = served.run("status", "web", "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["segment"] == "web"
    assert told["version"] == 1
    assert told["state"] == "healthy"
    assert told["agent_alive"] is True
    assert told["agent_pid"] == served.agents[0].pid
    assert told["agent_state"] == "running"
    assert 0 <= told["heartbeat_age_seconds"] < 3
    assert told["age_seconds"] >= 0
    assert datetime.fromisoformat(told["published_at"]).tzinfo is not None
    assert len(told["digest"]) == 64
    assert (told["last_error"], told["problems"], told["warnings"], told["rejections"]) == (None, [], [], 0)
    assert told["path"] == str(served.runtime / "web.shmconf")
    of_all = json.loads(served.run("status", "--format", "json").stdout)
    assert [each["segment"] for each in of_all] == ["web"]


def test_status_waits_for_a_version(served):
    assert served.run("status", "web", "--wait-version", "1").returncode == 0
    one_line(served.run("status", "web", "--wait-version", "9", "--timeout", "0.1"), 75, "did not reach version 9")
    one_line(served.run("status", "absent", "--wait-version", "1", "--timeout", "0.1"), 75, "did not reach version 1")
    assert served.run("status", "--wait-version", "1").returncode == 2
    assert served.run("status", "web", "--timeout", "1").returncode == 2


def test_status_wait_version_returns_when_it_comes(home, eventually):
    home.segment("base.yaml")
    waiting = subprocess.Popen(
        home.command("status", "web", "--wait-version", "2", "--timeout", "100"),
        cwd=home.root, env=home.environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        home.write("base.yaml", "a: 1\n")
        home.start()
        home.attach()
        assert waiting.poll() is None
        home.write("base.yaml", "a: 2\n")
        output, _ = waiting.communicate(timeout=120)
        assert waiting.returncode == 0
        assert "web: version 2, healthy" in output
    finally:
        waiting.kill()
        waiting.communicate()


def test_of_several_segments_the_worst_counts(home, eventually):
    for name in ("healthy", "rejected", "empty"):
        home.segment(f"{name}.yaml", name=name)
        home.write(f"{name}.yaml", "a: 1\n" if name != "empty" else "a: [\n")
    home.start()
    rejected = home.attach("rejected")
    home.attach("healthy")
    assert home.run("status").returncode == 69
    home.write("empty.yaml", "a: 1\n")
    home.attach("empty")
    assert home.run("status").returncode == 0
    home.write("rejected.yaml", "a: [\n")
    eventually(lambda: rejected.status().last_error, "a rejection")
    assert home.run("status").returncode == 3
    (home.runtime / "damaged.shmconf").write_bytes(b"not a segment")
    result = home.run("status")
    assert (result.returncode, result.stderr) == (1, "")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["SEGMENT", "VERSION", "STATE", "PUBLISHED", "DIGEST", "AGENT"]
    assert [(*row.split()[:2], row.split("  ")[-1].split()[-1]) for row in rows[:4]] == [
        ("damaged", "-", "-"), ("empty", "1", "alive"), ("healthy", "1", "alive"), ("rejected", "1", "alive")
    ]  # fmt: skip
    assert "unreadable" in rows[0]
    assert " healthy " in rows[2]
    assert "serving last known good" in rows[3]
    damaged, rejection = rows[5:]
    assert damaged.startswith("damaged: ")
    assert "damaged.shmconf" in damaged
    assert rejection.startswith("rejected: rejected: rejected.yaml:2:1: ")
    of_all = json.loads(home.run("status", "--format", "json").stdout)
    assert [each["state"] for each in of_all] == ["unreadable", "healthy", "healthy", "serving last known good"]
    assert "damaged.shmconf" in of_all[0]["last_error"]
    one_line(home.run("status", "damaged"), 1, "damaged.shmconf")
    (home.runtime / "damaged.shmconf").unlink()
    home.agents[0].kill()
    eventually(lambda: not rejected.status().agent_alive, "no heartbeat for 3 s")
    assert home.run("status").returncode == 4


def test_watch_prints_a_line_for_each_version(home, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\nb: 1\n")
    home.start()
    reader = home.attach()
    output = home.root / "watch.out"
    commands = {
        "all": ["watch", "web", "--count", "2", "--timeout", "100"],
        "a": ["watch", "web", "a", "--count", "1", "--timeout", "100"],
        "json": ["watch", "web", "b", "--count", "2", "--after", "0", "--format", "json", "--timeout", "100"],
    }
    running = {}
    for name, command in commands.items():
        with (home.root / f"{name}.err").open("wb") as errors:
            running[name] = subprocess.Popen(
                home.command(*command), cwd=home.root, env=home.environment(), stdout=subprocess.PIPE, stderr=errors,
                text=True,
            )  # fmt: skip
    try:
        for name in ("all", "a"):
            eventually(lambda name=name: "watching web from version 1" in (home.root / f"{name}.err").read_text(), name)
        line = running["json"].stdout.readline()  # it began with the version that was there
        assert json.loads(line) | {"version": 1, "path": "b", "present": True, "value": 1} == json.loads(line)
        home.write("base.yaml", "a: 1\nb: 2\n")
        assert reader.wait(after=1, timeout=60)["b"] == 2
        assert " version 2 " in running["all"].stdout.readline()
        home.write("base.yaml", "a: 2\nb: 2\n")
        texts = {name: process.communicate(timeout=120)[0] for name, process in running.items() if name != "json"}
        assert [line.split()[1:3] for line in texts["all"].splitlines()] == [["version", "3"]]
        assert texts["a"].endswith("version 3  a = 2\n")
        assert len(texts["a"].splitlines()) == 1
        assert json.loads(running["json"].stdout.readline())["value"] == 2
        assert {name: process.wait(60) for name, process in running.items()} == {"all": 0, "a": 0, "json": 0}
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
    assert not output.exists()


def test_watch_ends_with_75_where_nothing_comes_and_with_130_when_interrupted(served, eventually):
    result = served.run("watch", "web", "--timeout", "0.1")
    assert result.returncode == 75
    assert result.stdout == ""
    assert served.run("watch", "absent").returncode == 69
    process = subprocess.Popen(
        served.command("watch", "web"), cwd=served.root, env=served.environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        assert "watching web" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (130, "")
    finally:
        process.kill()
        process.communicate()


def test_run_without_an_agents_file(home, eventually):
    home.write("base.yaml", "a: 1\nb: 1\n")
    home.write("conf.d/10.toml", "b = 2\n")
    agent = home.start("run", "--segment", "web", "base.yaml", "conf.d/")
    assert home.attach().snapshot().to_dict() == {"a": 1, "b": 2}
    assert agent.says("web: version 1 published").endswith("(base.yaml, conf.d/10.toml)")


def test_run_prints_a_line_of_json_for_each_event(home):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    agent = home.start("run", "--format", "json")
    reader = home.attach()
    home.write("base.yaml", "a: [\n")
    agent.says('"rejected"')
    home.write("base.yaml", "a: 2\n")
    assert reader.wait(after=1, timeout=60)["a"] == 2
    agent.says('"version": 2')
    assert agent.stop() == 0
    events = [json.loads(line) for line in agent.text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "message"] == ["published", "rejected", "published"]
    published, rejected = [event for event in events if event["event"] != "message"][:2]
    assert (published["segment"], published["version"], published["changed_files"]) == ("web", 1, ["base.yaml"])
    assert datetime.fromisoformat(published["at"]).tzinfo is not None
    problem = rejected["problems"][0]
    assert (rejected["serving_version"], problem["file"], problem["line"]) == (1, "base.yaml", 2)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_an_unknown_key_in_the_agents_file(home):
    home.write("shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\nsettle = 3\n')
    home.write("base.yaml", "a: 1\n")
    one_line(home.run("run"), 78, "shmconf.toml:3:1: unknown key 'settle' in [segment.web]; did you mean 'settle_ms'?")
    assert home.run("check").returncode == 78
    assert not (home.runtime / "web.shmconf").exists()


def test_a_missing_agents_file(home):
    one_line(home.run("--config", "nowhere.toml", "run"), 2, "there is no nowhere.toml")
    one_line(home.run("--config", "nowhere.toml", "check"), 2, "there is no nowhere.toml")
    one_line(home.run("run"), 2, "give --config FILE, or --segment NAME and its sources")
    one_line(home.run("--config", ".", "run"), 78, "Is a directory")


def test_a_bad_segment_name(home):
    one_line(home.run("run", "--segment", "a/b", "base.yaml"), 2, "'a/b' is not a segment name")
    home.write("shmconf.toml", '[segment."a b"]\nsources = ["base.yaml"]\n')
    one_line(home.run("run"), 78, "shmconf.toml:1:10: 'a b' is not a segment name")


def test_other_mistakes_on_the_command_line(home):
    for arguments in (
        ["run", "base.yaml"],
        ["run", "--segment", "web"],
        ["--config", "x.toml", "run", "--segment", "web", "a.yaml"],
        ["serve"],
        ["get"],
        ["status", "web", "--wait-version", "none"],
    ):
        result = home.run(*arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        assert "Error: " in result.stderr


def test_no_permission_on_the_runtime_directory(open_home, as_nobody):
    open_home.write("base.yaml", "a: 1\n")
    open_home.runtime.chmod(0o755)
    os.chown(open_home.runtime, 0, 0)
    result = open_home.run("run", "--segment", "web", "base.yaml", before=as_nobody)
    one_line(result, 1, f"cannot use the runtime directory {open_home.runtime}: no permission to write there")
    assert "--runtime-dir" in result.stderr


def test_a_group_that_there_is_not(home):
    home.write("base.yaml", "a: 1\n")
    home.segment("base.yaml", group="no-such-group")
    line = (home.root / "shmconf.toml").read_text().splitlines().index('group = "no-such-group"') + 1
    place = f"shmconf.toml:{line}:1: there is no group 'no-such-group' on this machine; create it"
    one_line(home.run("run"), 78, place)
    result = home.run("check")
    assert (result.returncode, result.stdout.splitlines()[0].partition(place)[:2]) == (78, ("", place))


def test_a_group_that_the_agent_s_user_may_not_give_a_file_to(open_home, as_nobody):
    open_home.write("base.yaml", "a: 1\n")
    open_home.segment("base.yaml", group="root")
    result = open_home.run("run", before=as_nobody)
    one_line(result, 78, "the agent's user may not give a file to the group 'root'; make it a member of that group")
    assert result.stderr.startswith("shmconf.toml:")


def test_one_directory_for_both_purposes(home):
    home.write("base.yaml", "a: 1\n")
    result = home.run("--state-dir", str(home.runtime / "../run/."), "run", "--segment", "web", "base.yaml")
    one_line(result, 2, f"{home.runtime} is both the runtime and the state directory")
    assert "--state-dir" in result.stderr


def test_no_permission_to_look_at_the_runtime_directory(open_home, as_nobody):
    open_home.runtime.chmod(0o700)
    os.chown(open_home.runtime, 0, 0)
    one_line(open_home.run("get", "web", before=as_nobody), 69, "which this user may not enter")


def test_called_in_a_directory_that_is_not_for_this_user(open_home, as_nobody):
    """As whoever becomes the agent's user in a directory of root's: there is no agent's file for it there."""
    private = open_home.root / "private"
    private.mkdir(mode=0o700)
    one_line(open_home.run("status", before=as_nobody, cwd=private), 69, f"no segment in {open_home.runtime}")
    one_line(open_home.run("check", before=as_nobody, cwd=private), 2, "no shmconf.toml or /etc/shmconf/shmconf.toml")


def test_no_permission_on_the_state_directory_is_a_warning(open_home, as_nobody):
    open_home.write("base.yaml", "a: 1\n")
    os.chown(open_home.state, 0, 0)
    open_home.start("run", "--segment", "web", "base.yaml", before=as_nobody)
    open_home.attach()
    code, told = open_home.status()
    assert code == 0
    assert any(f"cannot use {open_home.state}" in warning for warning in told["warnings"])


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", ["status", "get web", "doctor", "check", "watch web --after 0 --count 1"])
def test_streams_that_are_closed_are_no_reason_for_a_traceback(served, verb, closed):
    command = ["bash", "-c", f'"$@" {closed}', "bash", *served.command(*verb.split())]
    result = subprocess.run(
        command, cwd=served.root, env=served.environment(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr


@pytest.mark.parametrize("verb", ["-h", "--version", "status", "get web", "watch web --after 0 --count 1"])
def test_a_full_disk_for_the_output_is_one_line(served, verb):
    command = ["bash", "-c", '"$@" > /dev/full', "bash", *served.command(*verb.split())]
    result = subprocess.run(
        command, cwd=served.root, env=served.environment(), capture_output=True, text=True, timeout=60
    )
    one_line(result, 1, "No space left on device")


@pytest.mark.parametrize("verb", ["get web", "status", "check", "-h", "get web --format raw", "watch web --after 0"])
def test_a_closed_pipe_is_no_reason_for_a_traceback(served, verb):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = served.command(*verb.split())
        result = subprocess.run(
            command, cwd=served.root, env=served.environment(), stdout=writing, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert "BrokenPipe" not in result.stderr
