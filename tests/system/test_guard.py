"""An edit that goes too far is held by the guard, told once, and let through by nothing but its digest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import Any

import pytest
import yaml

import shmconf

GUARD = """
[segment.web.guard]
max_deleted_keys = "10%"
max_changed_keys = 5
never_empty = ["db.hosts"]
frozen = ["db.name"]
"""
TREE = {"db": {"name": "shop", "hosts": ["a", "b"]}, "limits": {f"k{each}": each for each in range(28)}}  # 30 keys


def tree(*without: str, **limits: Any) -> dict[str, Any]:
    """The tree without some of the limits, and with others."""
    kept = {key: value for key, value in TREE["limits"].items() if key not in without}
    return {"db": dict(TREE["db"]), "limits": kept | limits}


def put(home, content: Any) -> None:
    home.write("base.yaml", yaml.safe_dump(content, sort_keys=False))


TOO_FEW = tree("k0", "k1", "k2", "k3")
OTHER_TOO_FEW = tree("k0", "k1", "k2", "k4")


@pytest.fixture
def web(home):
    """A home with a running agent that serves the tree as web."""
    home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\n{GUARD}')
    put(home, TREE)
    home.start()
    home.attach()
    return home


def held(home, eventually, *, other_than: str | None = None) -> str:
    """The digest of the candidate that is held, once one is."""
    reader = home.readers[-1]
    return eventually(lambda: (now := reader.status().held) != other_than and now, "a candidate is held")


def accept(home, digest: str, *more: str) -> subprocess.CompletedProcess[str]:
    return home.run("reload", "web", "--accept", digest, *more)


def told(agent, text: str) -> int:
    return sum(text in line for line in agent.text().splitlines())


# --- held -------------------------------------------------------------------------------------------------------------


def test_a_candidate_that_goes_too_far_is_held_until_it_is_accepted(web, eventually):
    [agent], [reader] = web.agents, web.readers
    put(web, TOO_FEW)
    digest = held(web, eventually)
    line = agent.says("web: held, still serving version 1: ")
    assert "would delete 4 of 30 keys, more than max_deleted_keys = 10%; first: limits.k0, limits.k1, " in line
    assert line.endswith(f"; to let it through: shmconf reload web --accept {digest[:12]}")
    assert reader["limits", "k0"] == 0
    status = reader.status()
    assert status.serving_last_known_good
    assert "would delete 4 of 30 keys" in status.last_error
    code, fields = web.status()
    assert (code, fields["state"], fields["held"], fields["version"]) == (3, "candidate held", digest, 1)
    assert fields["last_error"] == status.last_error
    shown = web.run("status", "web")
    assert shown.returncode == 3
    assert "web: version 1, candidate held\n" in shown.stdout
    assert f"to let it through: shmconf reload web --accept {digest[:12]}" in shown.stdout

    for _ in range(2):
        asked = web.run("reload", "web")
        first, second, third = asked.stdout.splitlines()
        assert (asked.returncode, first) == (1, "web: held, still serving version 1")
        assert "would delete 4 of 30 keys" in second
        assert third == f"to let it through: shmconf reload web --accept {digest[:12]}"
    assert told(agent, "web: held") == 1

    assert web.run("reload").returncode == 1  # of every agent here, this one
    taken = accept(web, digest[:8].upper())
    assert (taken.returncode, taken.stdout) == (0, "web: version 2, published\n")
    assert reader.get("limits.k0") is None
    assert reader.snapshot().digest == digest
    code, fields = web.status()
    assert (code, fields["state"], fields["held"], fields["last_error"]) == (0, "healthy", None, None)
    agent.says(f"web: candidate {digest[:12]} was accepted by request, though: ")
    agent.says("web: version 2 published")
    again = accept(web, digest)
    assert (again.returncode, again.stdout) == (0, "web: version 2, unchanged\n")


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (tree(k0="0", k1=1.0, k2=True, k3=33, k4=[], k5={}), "guard-changed", "would change 6 of 30 keys"),
        (tree() | {"db": {"name": "shop", "hosts": []}}, "guard-empty", "would be an empty list"),
        (tree() | {"db": {"name": "other", "hosts": ["c"]}}, "guard-frozen", "db.name is frozen, and would change"),
        (tree() | {"limits": None}, "guard-deleted", "would delete 28 of 30 keys"),
    ],
    ids=["changed", "empty", "frozen", "deleted"],
)
def test_each_rule_has_its_code_and_its_place(web, content, code, text):
    put(web, content)
    result = web.run("reload", "web", "--format", "json")
    fields = json.loads(result.stdout)
    assert (result.returncode, fields["verdict"], fields["version"]) == (1, "held", 1)
    [problem] = fields["problems"]
    assert problem["code"] == code
    assert text in problem["message"]
    assert (problem["file"], problem["line"] is not None) == ("base.yaml", True)
    assert fields["held"] == web.readers[0].status().held
    assert fields["digest"] == web.readers[0].snapshot().digest != fields["held"]


def test_what_the_guard_allows_is_published(web):
    for content in (tree("k0", "k1", "k2"), tree("k0", "k1", "k2", k3="x", k4="x", **{f"n{n}": n for n in range(90)})):
        put(web, content)
        result = web.run("reload", "web")
        assert result.returncode == 0, result.stdout
        assert web.readers[0].snapshot().to_dict() == content


def test_the_log_as_json_names_the_candidate(home, eventually):
    home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\n{GUARD}')
    put(home, TREE)
    agent = home.start("run", "--format", "json")
    home.attach()
    put(home, TOO_FEW)
    event = json.loads(agent.says('"rejected"'))
    assert (event["segment"], event["serving_version"]) == ("web", 1)
    assert event["held"] == held(home, eventually)
    assert [problem["code"] for problem in event["problems"]] == ["guard-deleted"]


# --- not let through --------------------------------------------------------------------------------------------------


def test_another_digest_lets_nothing_through(web, eventually):
    put(web, TOO_FEW)
    first = held(web, eventually)
    wrong = accept(web, "0" * 64 if not first.startswith("0") else "1" * 64)
    assert wrong.returncode == 1
    assert f"not accepted: the files now make {first[:12]}, not " in wrong.stdout
    assert f"--accept {first[:12]}" in wrong.stdout
    put(web, OTHER_TOO_FEW)  # somebody was faster than the one who looked at the first
    late = accept(web, first, "--format", "json")
    fields = json.loads(late.stdout)
    assert (late.returncode, fields["verdict"], fields["version"]) == (1, "held", 1)
    assert [problem["code"] for problem in fields["problems"]] == ["guard-accept", "guard-deleted"]
    assert fields["held"] == held(web, eventually, other_than=first)
    assert fields["held"][:12] in fields["problems"][0]["message"]
    put(web, tree(k0="harmless"))
    late = accept(web, first)
    assert late.returncode == 1
    assert "not accepted: the files now make" in late.stdout
    assert web.readers[0]["limits", "k0"] == "harmless"  # as it is without anybody's asking


def test_an_acceptance_is_for_one_time(web, eventually):
    put(web, TOO_FEW)
    digest = held(web, eventually)
    assert accept(web, digest).returncode == 0
    put(web, TREE)
    assert web.run("reload", "web").returncode == 0
    assert web.readers[0].version == 3
    put(web, TOO_FEW)
    assert held(web, eventually) == digest
    assert web.run("reload", "web").returncode == 1
    assert web.readers[0].version == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("web", "--accept", "1234567"), "is not a digest"),
        (("web", "--accept", "web"), "is not a digest"),
        (("web", "--accept", "a" * 65), "is not a digest"),
        (("--accept", "a" * 64), "--accept needs a SEGMENT"),
    ],
)
def test_what_is_no_digest_of_a_segment(home, arguments, text):
    result = home.run("reload", *arguments)
    assert result.returncode == 2
    assert text in result.stderr


def test_only_those_with_rights_may_accept(open_home, as_nobody, require, eventually):
    require(os.geteuid() == 0, "only root may become another user")
    os.chown(open_home.runtime, 0, 0)
    open_home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\nmode = "0644"\n{GUARD}')
    put(open_home, TREE)
    agent = open_home.start()
    open_home.attach()
    put(open_home, TOO_FEW)
    digest = held(open_home, eventually)
    refused = open_home.run("reload", "web", "--accept", digest, before=as_nobody)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no permission to ask" in refused.stderr
    os.chmod(open_home.runtime / "web.sock", 0o666)  # who may connect may look, and change nothing
    refused = open_home.run("reload", "web", "--accept", digest, before=as_nobody)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "user 65534 may not" in refused.stderr
    assert open_home.readers[0].version == 1
    assert told(agent, "accepted") == 0
    assert accept(open_home, digest).returncode == 0


# --- how a hold ends --------------------------------------------------------------------------------------------------


def test_files_that_are_put_back_end_the_hold(web, eventually):
    put(web, TOO_FEW)
    digest = held(web, eventually)
    put(web, TREE)
    line = web.agents[0].says("is held no more")
    assert line == (
        f"web: candidate {digest[:12]} is held no more: the files are equal to what is served; still serving version 1"
    )
    assert web.status()[0] == 0
    assert web.readers[0].version == 1


def test_harmless_files_end_the_hold(web, eventually):
    [agent] = web.agents
    put(web, TOO_FEW)
    digest = held(web, eventually)
    put(web, tree(k0=1000))
    agent.says("web: version 2 published")
    assert told(agent, f"web: candidate {digest[:12]} is held no more: the files were changed") == 1
    assert web.status()[0] == 0


def test_a_hold_blocks_neither_a_rejection_nor_what_comes_after_it(web, eventually):
    put(web, TOO_FEW)
    held(web, eventually)
    web.write("base.yaml", "a: [\n")
    web.agents[0].says("web: rejected, still serving version 1: base.yaml:2:1")
    code, fields = web.status()
    assert (code, fields["held"], fields["state"]) == (3, None, "serving last known good")
    assert web.run("reload", "web").returncode == 78
    put(web, OTHER_TOO_FEW)
    held(web, eventually)
    put(web, tree(k9="fine"))
    eventually(lambda: web.readers[0]["limits", "k9"] == "fine", "what is harmless is published")


@pytest.mark.parametrize("how", ["reload", "SIGHUP"])
def test_the_settings_are_read_again(web, eventually, how):
    [agent], [reader] = web.agents, web.readers
    put(web, TOO_FEW)
    digest = held(web, eventually)
    text = (web.root / "shmconf.toml").read_text()
    web.write("shmconf.toml", text.replace('"10%"', '"20%"'))
    if how == "reload":
        assert web.run("reload", "web").returncode == 0
    else:
        agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: reader.snapshot().digest == digest, "what the new settings allow is published")
    web.write("shmconf.toml", text.replace('"10%"', '"200%"'))
    assert web.run("reload", "web").returncode == 78
    put(web, {"db": TREE["db"]})
    assert held(web, eventually)


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restarted_agent_compares_with_what_is_served(web, eventually, number):
    [reader] = web.readers
    put(web, TOO_FEW)
    digest = held(web, eventually)
    web.agents[0].stop(number)
    agent = web.start()
    agent.says("web: held, still serving version 1: base.yaml:6:1: would delete 4 of 30 keys")
    eventually(lambda: web.status()[0] == 3, "the status says so")
    assert reader["limits", "k0"] == 0
    assert accept(web, digest).returncode == 0
    assert reader.version == 2
    agent.stop(number)
    again = web.start()
    eventually(lambda: (now := reader.status().agent).pid == again.pid and now.state == "running", "it has judged")
    assert web.run("reload", "web").returncode == 0  # what was accepted is what is served
    assert told(again, "held") == 0
    assert (reader.version, reader.snapshot().digest) == (2, digest)
    eventually(lambda: web.status()[0] == 0, "the status is healthy")


def test_after_a_reboot_the_comparison_is_with_what_was_kept(web, eventually):
    web.agents[0].stop()
    shutil.rmtree(web.runtime)
    put(web, TOO_FEW)
    agent = web.start()
    reader = web.attach()
    assert reader["limits", "k0"] == 0
    digest = held(web, eventually)
    agent.says("last known good, from before this start")
    code, fields = web.status()
    assert (code, fields["held"]) == (3, digest)
    assert accept(web, digest).returncode == 0
    assert agent.stop() == 0
    shutil.rmtree(web.runtime)
    again = web.start()
    assert web.attach().snapshot().digest == digest
    assert web.run("reload", "web").returncode == 0
    assert told(again, "held") == told(again, "last known good") == 0


def test_the_first_version_is_asked_for_emptiness_alone(home, eventually):
    home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\n{GUARD}')
    put(home, {"db": {"hosts": []}})
    agent = home.start()
    line = agent.says("web: held, nothing is served yet: base.yaml:2:3: db.hosts is never_empty, and would be an empty")
    digest = line.rpartition(" ")[2]
    code, fields = home.status()
    assert (code, fields["state"], fields["held"][:12]) == (69, "nothing published", digest)
    with pytest.raises(shmconf.SegmentNotFound, match=r"db\.hosts is never_empty"):
        shmconf.attach("web", directory=home.runtime)
    assert accept(home, digest).returncode == 0
    assert home.attach()["db"] == {"hosts": []}


# --- with a commit path -----------------------------------------------------------------------------------------------


def test_what_was_committed_is_accepted_without_another_commit(home, eventually):
    home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\ncommit = "stamp"\n{GUARD}')
    put(home, TREE)
    home.write("stamp", "1")
    agent = home.start()
    home.attach()
    put(home, TOO_FEW)
    home.write("stamp", "2")
    digest = held(home, eventually)
    put(home, OTHER_TOO_FEW)  # nobody has committed this
    assert home.run("reload", "web").returncode == 1
    assert accept(home, "0123456789ab").returncode == 1
    assert accept(home, digest).returncode == 0
    assert home.readers[0].snapshot().to_dict() == TOO_FEW
    agent.says("web: version 2 published")
    assert told(agent, "web: held") == 1


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_warns_of_what_would_be_held(web):
    put(web, TREE)
    assert web.run("check").stdout == ""
    put(web, TOO_FEW)
    result = web.run("check")
    assert result.returncode == 0
    [line] = result.stdout.splitlines()
    assert line.startswith("base.yaml:6:1: warning: the agent would hold it: would delete 4 of 30 keys")
    digest = line.rpartition(" ")[2]
    [warning] = json.loads(web.run("check", "--format", "json").stdout)["warnings"]
    assert (warning["segment"], warning["code"], warning["path"]) == ("web", "guard-deleted", "limits.k0")
    assert accept(web, digest).returncode == 0  # who has looked at it before need not wait for the hold
    assert web.run("check").stdout == ""


def test_check_says_nothing_of_a_guard_without_a_segment(home):
    home.write("shmconf.toml", f'[segment.web]\nsources = ["base.yaml"]\n{GUARD}')
    put(home, {"a": 1})
    result = home.run("check")
    assert (result.returncode, result.stdout) == (0, "")
    assert "guard" not in result.stderr


def test_check_says_that_it_cannot_read_the_segment(web):
    web.agents[0].stop()
    web.write("run/web.shmconf", b"x" * 20_000)  # in its place: the reader here has the other one mapped
    put(web, TOO_FEW)
    result = web.run("check")
    assert (result.returncode, result.stdout) == (0, "")
    assert "shmconf: the guard of segment 'web' was left out: " in result.stderr
