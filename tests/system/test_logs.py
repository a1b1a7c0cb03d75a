"""What a running agent writes, and where: a terminal, a file, a pipe that nobody reads; as text and as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import re
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shmconf_agent.log_kinds import Kind

README = (Path(__file__).parents[2] / "README.md").read_text()
Eventually = Callable[..., Any]


def logs_section() -> str:
    return README.split("\n## Logs\n")[1].split("\n## ")[0]


def named(line: str) -> set[str]:
    """The names in backquotes."""
    return set(re.findall(r"`([\w-]+)`", line))


def test_a_publication_tells_files_and_paths_and_no_values(home: Any) -> None:
    home.segment("conf.d/")
    home.write("conf.d/a.yaml", "db: {host: hidden-1, size: 1}\nold: hidden-2\n")
    agent = home.start()
    assert agent.says("version 1").endswith(" (conf.d/a.yaml)")
    home.write("conf.d/a.yaml", "db: {host: hidden-3, size: 1}\n")
    home.write("conf.d/b.yaml", "new: {key: hidden-4}\n")
    home.attach().wait_version(after=1, timeout=60)
    agent.says("; deleted old")
    agent.says("added new.key")
    assert "changed db.host" in agent.text()
    assert "db.size" not in agent.text()
    assert "hidden" not in agent.text()


def test_after_a_restart_the_first_change_is_told_as_well(home: Any) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\nb: 1\n")
    agent = home.start()
    agent.says("version 1")
    agent.stop()
    home.write("base.yaml", "a: 1\nb: 2\n")
    assert home.start().says("version 2").endswith(" (base.yaml); changed b")


def test_a_secret_is_told_by_its_path(home: Any) -> None:
    home.segment("base.yaml", substitute=True, substitute_roots=[str(home.root)])
    home.write("password", "hidden-1")
    home.write("base.yaml", f"db: {{password: '${{file:{home.root}/password}}'}}\n")
    agent = home.start("run", "--log-format", "json")
    agent.says('"published"')
    home.write("password", "hidden-2")
    told = json.loads(agent.says('"version": 2'))
    assert told["changed_paths"]["changed"] == {"count": 1, "first": ["db.password"]}
    assert "hidden" not in agent.text()


def test_a_rejection_tells_every_problem(home: Any) -> None:
    keys = [f"key-{number}" for number in range(12)]
    home.write("schema.json", json.dumps({"additionalProperties": {"type": "integer"}}))
    home.segment("base.yaml", schema="schema.json")
    home.write("base.yaml", "ok: 1\n")
    agent = home.start()
    agent.says("version 1")
    home.write("base.yaml", "".join(f"{key}: text\n" for key in keys))
    line = agent.says("rejected, still serving version 1: ")
    assert [line.count(f"base.yaml:{number}:") for number in range(1, 13)] == [1] * 12


def test_the_same_problem_after_another_edit_is_counted(home: Any) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    agent = home.start()
    agent.says("version 1")
    home.write("base.yaml", "a: [\n")
    agent.says("rejected, still serving version 1: base.yaml:2:1")
    home.write("base.yaml", "b: [\n")
    told = "web: rejected again, still serving version 1: the same problem for the 2nd time"
    assert agent.says("again") == told
    home.write("base.yaml", "b: 1\n")
    assert agent.says("version 2").endswith("; added b; deleted a")
    assert agent.text().count("did not find expected node content") == 1


def test_on_a_terminal_names_do_nothing(home: Any, eventually: Eventually) -> None:
    name = "\x1b[2Jx\x9b2J\nweb: version 9 published.yaml"
    home.segment("conf.d/")
    home.write("conf.d/a.yaml", "a: 1\n")
    home.write(f"conf.d/{name}", '"\\e]0;title\\a": 1\n')
    terminal, inside = os.openpty()
    shown = b""

    def lines() -> list[str]:
        nonlocal shown
        while termios_waiting(terminal):
            shown += os.read(terminal, 65536)
        return shown.decode().split("\r\n")[:-1]

    agent = home.start(stdout=inside)
    os.close(inside)
    eventually(lambda: len(lines()) == 1, "version 1")
    (home.root / "conf.d" / name).unlink()
    eventually(lambda: len(lines()) == 2, "version 2")
    assert agent.stop() == 0
    first, second = lines()
    os.close(terminal)
    hostile = r"conf.d/\x1b[2Jx\x9b2J web: version 9 published.yaml"
    assert re.fullmatch(r"web: version 1 published in .* \(.*, conf\.d/a\.yaml\)", first), first
    assert f"({hostile}, " in first
    assert f"({hostile}); " in second
    assert second.endswith('; deleted "\\u001B]0;title\\u0007"')
    assert all(line.isprintable() for line in (first, second))


def termios_waiting(descriptor: int) -> int:
    """How many bytes can be read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little")


def test_json_is_as_readme_has_it(home: Any) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    agent = home.start("run", "--log-format", "json")
    agent.says('"published"')
    home.write("base.yaml", "a: [\n")
    agent.says('"rejected"')
    home.write("base.yaml", "a: 1\n")
    agent.says('"valid-again"')
    agent.stop()
    events = [json.loads(line) for line in agent.text().splitlines()]
    kinds = [each["kind"] for each in events]
    assert kinds[:4] == ["started", "published", "rejected", "valid-again"]
    assert kinds[4:] in (["stopped"], []), "an agent that ends waits for its log, but not for long"
    section = logs_section()
    always = named(section.split("Each has ")[1].split("; `event` says")[0])
    problem = named(section.split("`problems`: each with ")[1].split(" |")[0])
    for event in events:
        kind = next(kind for kind in Kind if kind.label == event["kind"])
        assert (event["priority"], event["message_id"]) == (kind.priority, kind.message_id)
        has = named(re.search(rf"^\| `{event['event']}` \| (.*)$", section, re.M)[1])  # type: ignore[index]
        assert always | {"kind"} <= event.keys()
        assert event.keys() - always <= has
        for each in event.get("problems", ()):
            assert each.keys() == problem


def test_a_reader_who_does_not_read_holds_up_nothing(home: Any, eventually: Eventually) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 0\n")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    agent = home.start(stdout=writing)
    os.close(writing)
    reader = home.attach()
    version = 0
    while termios_waiting(reading) < 4096 - 200:  # a line of less than 200 bytes is stuck, or soon will be
        version += 1
        home.write("base.yaml", f"a: {version}\n")
        assert reader.wait_version(after=version, timeout=60) == version + 1
    for _ in range(5):
        version += 1
        home.write("base.yaml", f"a: {version}\n")
        assert reader.wait_version(after=version, timeout=60) == version + 1
    assert reader["a"] == version
    assert home.run("reload", "web").stdout == f"web: version {version + 1}, unchanged\n"
    assert home.status()[0] == 0
    with os.fdopen(reading) as pipe:
        for expected in range(1, version + 2):
            assert pipe.readline().startswith(f"web: version {expected} published in ")
        assert agent.stop() == 0


def test_an_agent_whose_reader_sleeps_can_be_stopped(home: Any) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 0\n")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    agent = home.start(stdout=writing)
    os.close(writing)
    assert home.attach().version == 1
    assert agent.stop() == 0
    os.close(reading)


def test_what_a_library_warns_of_is_a_line_as_well(home: Any) -> None:
    warns = """
import logging
from shmconf_agent import watch
follow = watch.Watcher.follow
def warn_and_follow(self, directories):
    logging.getLogger("library").warning("overflow of\\n%s", "a directory")
    return follow(self, directories)
watch.Watcher.follow = warn_and_follow
"""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 0\n")
    agent = home.start("run", "--log-format", "json", before=warns)
    told = json.loads(agent.says("overflow"))
    assert (told["message"], told["kind"]) == ("library: overflow of\na directory", "warning")


def test_the_two_options_are_one(home: Any) -> None:
    home.segment("base.yaml")
    home.write("base.yaml", "a: 0\n")
    refused = home.run("run", "--format", "json", "--log-format", "text")
    assert refused.returncode == 2
    assert "--format and --log-format are one option" in refused.stderr


@pytest.mark.parametrize("where", ["JOURNAL_STREAM of somebody else", "--log-format journal without a journal"])
def test_without_a_journal_it_is_text(home: Any, where: str) -> None:
    """In a container, say, whose variables are those of the unit that started it all."""
    home.segment("base.yaml")
    home.write("base.yaml", "a: 0\n")
    if where.startswith("JOURNAL"):
        agent = home.start(JOURNAL_STREAM="9:9")
        assert agent.says("version 1").startswith("web: version 1 published")
        assert agent.text().count("\n") == 1
    else:
        nowhere = "import shmconf_agent.journal; shmconf_agent.journal.JOURNAL = '/nowhere/socket'"
        agent = home.start("run", "--log-format", "journal", before=nowhere)
        assert agent.says("version 1").startswith("web: version 1 published")
        assert agent.says("the journal").startswith("shmconf: the journal takes no entries (No such file or directory)")
