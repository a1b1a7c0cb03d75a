"""The verbs on a terminal: within 80 columns, with colours only for who wants them, and a sign of life in a wait."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
from terminal import on_terminal

pytestmark = pytest.mark.timing  # a sign of life within the few seconds that a verb is made to take

SLOW = ["sh", "-c", "cat > /dev/null; sleep 3"]


@pytest.fixture
def slow(home):
    """A home whose segment's check takes three seconds."""
    home.segment("base.yaml", check=SLOW)
    home.write("base.yaml", "a: 1\n")
    return home


def environment(home, **settings):
    kept = home.environment(**settings)
    return {key: value for key, value in kept.items() if key not in ("COLUMNS", "NO_COLOR", "TERM")} | settings


def shown(home, *arguments, before="", **settings):
    return on_terminal(home.command(*arguments, before=before), home.root, environment(home, **settings))


def test_the_status_of_all_segments_fits(home, eventually):
    for name in ("checkout-service-production", "web"):
        home.segment(f"{name}.yaml", name=name)
        home.write(f"{name}.yaml", "a: 1\n")
    home.start()
    web = home.attach()
    home.attach("checkout-service-production")
    home.write("web.yaml", "a: [\n")
    eventually(lambda: web.status().last_error, "a rejection")
    told = shown(home, "status")
    assert told.code == 3
    heading, *rows = told.lines
    assert heading.split() == ["SEGMENT", "VERSION", "STATE", "PUBLISHED", "DIGEST", "AGENT"]
    assert max(map(len, [heading, *rows[:4]])) <= 80
    assert "\x1b[32mhealthy" in told.raw
    assert "\x1b[33mserving" in told.raw
    assert any(row.startswith("web: rejected: web.yaml:2:1: ") for row in rows)
    for settings in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in shown(home, "status", **settings).raw


def test_check_tells_at_what_stage_it_is(slow):
    told = shown(slow, "check")
    assert told.code == 0
    assert re.search(r"checking web: check … [1-9] s", told.raw)
    assert told.words.endswith("web: valid, 1 file, 4 bytes packed")
    assert "\x1b[?25h" in told.raw.rpartition("checking web")[2]  # the cursor is there again
    quiet = slow.run("check")
    assert (quiet.stdout, quiet.stderr.count("\n")) == ("", 1)
    assert "\x1b" not in shown(slow, "check", TERM="dumb").raw


def test_reload_tells_what_it_waits_for(home):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    agent = home.start()
    home.attach()
    agent.process.send_signal(signal.SIGSTOP)
    try:
        told = shown(home, "reload", "web", "--timeout", "3")
        quiet = home.run("reload", "--timeout", "3")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert told.code == 75
    assert re.search(r"waiting for the verdict on web … [1-9] s", told.raw)
    assert quiet.returncode == 75
    assert "waiting for" not in quiet.stderr
    assert len(quiet.stderr.splitlines()) == 1


def test_doctor_and_status_tell_what_they_wait_for(home, deaf):
    home.segment("base.yaml")
    home.write("base.yaml", "a: 1\n")
    assert "trying whether changes are heard of here … " in shown(home, "doctor", before=deaf).raw
    home.start()
    home.attach()
    told = shown(home, "status", "web", "--wait-version", "2", "--timeout", "3")
    assert told.code == 75
    assert re.search(r"waiting for version 2 of web … [1-9] s", told.raw)
    assert "did not reach version 2 within 3 s" in told.words


def test_what_is_piped_has_no_sign_of_life(slow):
    """Stdout in a pipe and stderr in another: not a byte of it, though it takes long."""
    command = slow.command("check", "--format", "json")
    result = subprocess.run(command, cwd=slow.root, env=environment(slow), capture_output=True, timeout=120, check=True)
    assert result.stderr == b""
    assert result.stdout.startswith(b"{")


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_excerpts_and_findings_without_colours(home, settings):
    home.segment("base.yaml")
    home.write("base.yaml", "a: [\n")
    for verb in ("check", "doctor"):
        assert "\x1b" in shown(home, verb).raw
        assert "\x1b[3" not in shown(home, verb, **settings).raw


@pytest.mark.parametrize("name", ["\x1b[31mred\nweb: version 9, healthy\n.yaml", "bell\x07\x9b2J\u202e.yaml"])
def test_a_name_of_a_file_begins_no_line_and_tells_the_terminal_nothing(home, eventually, name):
    home.segment("conf.d/")
    home.write("conf.d/a.yaml", "a: 1\n")
    home.write(f"conf.d/{name}", "b: 1\n")
    home.start()
    reader = home.attach()
    written = "conf.d/" + name.encode("unicode_escape").decode()
    verbs = [("explain", "web", "b")]
    told = [shown(home, *verb, NO_COLOR="1") for verb in verbs]
    assert f"set by {written}:1:1" in told[0].words
    home.write(f"conf.d/{name}", "b: 1\nb: 2\n")
    eventually(lambda: reader.status().last_error, "a rejection")
    verbs = [("check",), ("reload", "web"), ("status", "web"), ("status",), ("diff", "web"), ("explain", "web", "b")]
    told += [shown(home, *verb, NO_COLOR="1") for verb in verbs]
    assert all(f"{written}:2:1: duplicate key" in each.raw for each in told[1:]), [each.raw for each in told]
    told.append(shown(home, "doctor", NO_COLOR="1"))
    for each in told:
        assert "".join(each.raw.split("\r\n")).isprintable(), each.raw
        assert not any(line.startswith("web: version 9") for line in each.lines)
