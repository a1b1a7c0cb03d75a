"""`shmconf rollback` and `resume`: a kept version is served again and held, whatever happens to files and agent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import shmconf
from shmconf import codec
from shmconf.directories import Directory
from shmconf_agent.admin_client import Answer, reload_segment, resume, roll_back
from shmconf_agent.admin_socket import address
from shmconf_agent.history import History

GOOD, BAD = "level: info\nname: good\n", "level: debug\nname: bad\n"
GOOD_DIGEST = hashlib.sha256(codec.pack({"level": "info", "name": "good"})).hexdigest()
SCHEMA = '{"properties": {"level": {"enum": %s}}}'
ANY_LEVEL, NO_INFO = SCHEMA % '["info", "debug", "error"]', SCHEMA % '["debug", "error"]'

NO_URL = """
def check(tree):
    if 'url' in tree:
        return [('url', 'no ' + tree['url']), (tree['url'], 'nor ' + tree['url'])]
"""

WEAK = """
def check(tree):
    return ['weak: ' + tree['url'].split(':')[-1].split('@')[0]]
"""

# In the agent's process: it is killed before step STEP of what ORDER does, from its first system call to its last.
KILLED = """
import os, signal, threading
from shmconf.writer import Writer
from shmconf_agent.rollback import Rollbacks
left, armed = STEP, False
def step():
    global left
    if armed and threading.current_thread().name == 'shmconf-web':
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
def counted(real):
    def call(*arguments, **more):
        step()
        return real(*arguments, **more)
    return call
def arms(real):
    def call(*arguments, **more):
        global armed
        armed = True
        try:
            return real(*arguments, **more)
        finally:
            step()
            armed = False
    return call
for name in ('write', 'fsync', 'rename', 'unlink'):
    setattr(os, name, counted(getattr(os, name)))
Writer.publish = counted(Writer.publish)
Writer.set_status = counted(Writer.set_status)
Rollbacks.ORDER = arms(Rollbacks.ORDER)
"""
# In the agent's process: once SWITCH is there, the disk with the record of the hold is read-only.
READ_ONLY = """
import errno, os
def refusing(real):
    def call(name, *arguments, **more):
        flags = arguments[0] if real is os_open and arguments else os.O_WRONLY
        if name in ('hold', 'hold.new') and flags & os.O_WRONLY and os.path.exists('SWITCH'):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        return real(name, *arguments, **more)
    return call
os_open = os.open
for name in ('open', 'unlink', 'rename'):
    setattr(os, name, refusing(getattr(os, name)))
"""
# The thread that keeps versions never gets beyond its first fsync of a version after the first.
NEVER_KEPT = """
import os, threading, time
real, seen = os.fsync, []
def stuck(fd):
    name = os.readlink(f'/proc/self/fd/{fd}')
    if threading.current_thread().name == 'shmconf-history' and name.endswith('-2.version.new'):
        time.sleep(3600)
    return real(fd)
os.fsync = stuck
"""


def kept(home, version: int) -> bool:
    return version in History(home.state, "web").versions()


def ask(home, page: str, method: str = "GET") -> str:
    """What the admin socket answers."""
    with socket.socket(socket.AF_UNIX) as connection, address(home.runtime, "web") as where:
        connection.connect(where)
        connection.sendall(f"{method} {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def publish(home, eventually, text: str, version: int) -> None:
    """Put it in place, and wait until it is published and kept."""
    home.write("base.yaml", text)
    eventually(lambda: home.readers[0].version == version, f"version {version}")
    eventually(lambda: kept(home, version), f"version {version} is kept")


@pytest.fixture
def web(home, eventually):
    """The good version 1 was published, then the bad version 2; the agent goes on."""
    home.segment("base.yaml", schema="schema.json")
    home.write("schema.json", ANY_LEVEL)
    home.write("base.yaml", GOOD)
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    publish(home, eventually, BAD, 2)
    return home


def served(home) -> str:
    """The name in what is served now, to a reader that has just come."""
    with shmconf.attach("web", directory=home.runtime, wait=20) as reader:
        return str(reader["name"])


def hold(home) -> shmconf.Hold | None:
    with shmconf.attach("web", directory=home.runtime, wait=20) as reader:
        return reader.status().hold


def ok(result: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def fields(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


def alive(home, eventually) -> None:
    """Wait until the agent that was started last has judged the files."""
    eventually(lambda: reload_segment("web", places(home), 60).verdict != "unavailable", home.agents[-1].text)


def places(home) -> list[Directory]:
    return [Directory(home.runtime, named=True)]


def reboot(home, eventually, number: int = 9) -> None:
    """The agent is killed and what is in memory is lost; another one comes."""
    home.agents[-1].stop(number)
    shutil.rmtree(home.runtime)
    home.start()
    alive(home, eventually)


# --- what it is -------------------------------------------------------------------------------------------------------


def test_a_kept_version_is_published_again_and_held_until_resume(web, eventually):
    [agent], [reader] = web.agents, web.readers
    before = reader.snapshot()
    result = ok(web.run("rollback", "web", "1"))
    assert result.stdout == (
        "web: version 3, a rollback of version 1\n"
        "HELD: edits of the files will not be published before: shmconf resume web\n"
    )
    now = reader.snapshot()
    assert (now.version, now.to_dict()) == (3, {"level": "info", "name": "good"})
    assert now.version > before.version
    noted = now.metadata["rollback"]
    assert (noted["version"], noted["epoch"], noted["uid"]) == (1, now.epoch, os.geteuid())
    held = reader.status().hold
    assert (held.version, held.uid, held.forced, held.since) == (1, os.geteuid(), False, noted["since"])
    agent.says("web: version 3 published")
    agent.says("web: HELD: version 3 is a rollback of version 1, by ")

    # The files still make version 2; they are read, judged and told, and not published.
    eventually(lambda: reader.status().hold.candidate == before.digest, "the files' candidate is told")
    code, told = web.status()
    assert (code, told["state"], told["version"]) == (0, "held by rollback", 3)
    expected = {
        'shmconf_held_by_rollback{segment="web"} 1.0',
        'shmconf_last_reload_successful{segment="web"} 0.0',
        'shmconf_reloads_failed_total{reason="rollback",segment="web"} 1.0',
    }
    eventually(lambda: expected <= set(ask(web, "/metrics").splitlines()), lambda: ask(web, "/metrics"))
    found = fields(web.run("doctor", "--format", "json"))["findings"]
    assert [each["level"] for each in found if each["topic"] == "held"] == ["warning"]
    assert (told["hold"]["version"], told["hold"]["candidate"]) == (1, before.digest)
    shown = ok(web.run("status", "web")).stdout
    assert "web: version 3, held by rollback\n" in shown
    assert "\n  HELD       a rollback of version 1, since " in shown
    assert "what the files make now will not be published before: shmconf resume web\n" in shown
    web.write("base.yaml", BAD + "more: 1\n")
    agent.says("what the files make now (base.yaml) is valid and waits for: shmconf resume web")
    reload = web.run("reload", "web")
    assert reload.returncode == 1
    first, *_, last = reload.stdout.splitlines()
    assert first.startswith("web: held, still serving version 3, a rollback of version 1 since ")
    assert last == "to follow the files again: shmconf resume web"
    assert reader.version == 3

    web.write("base.yaml", "name: [\n")
    reload = web.run("reload", "web", "--format", "json")
    told = fields(reload)
    assert (reload.returncode, told["verdict"], told["hold"]["version"]) == (1, "held", 1)
    assert told["problems"][0]["file"] == "base.yaml"
    assert reader.status().hold.candidate is None
    code, told = web.status()
    assert (code, told["state"], told["problem_count"]) == (3, "held by rollback", 1)
    assert reader["name"] == "good"

    web.write("base.yaml", BAD + "more: 2\n")
    result = ok(web.run("resume", "web"))
    assert result.stdout == (
        "web: the rollback of version 1 is held no more; the files are followed\nweb: version 4, published\n"
    )
    assert reader.snapshot().to_dict() == {"level": "debug", "name": "bad", "more": 2}
    assert reader.status().hold is None
    assert web.status()[0] == 0
    web.write("base.yaml", BAD + "more: 3\n")
    eventually(lambda: reader.get("more") == 3, "the files are followed again")


def test_the_history_tells_of_rollbacks(web, eventually):
    ok(web.run("rollback", "web", "1"))
    eventually(lambda: kept(web, 3), "version 3 is kept")
    told = fields(ok(web.run("history", "web", "--format", "json")))
    assert [(each["version"], (each["rollback"] or {}).get("version")) for each in told["versions"]] == [
        (3, 1), (2, None), (1, None)
    ]  # fmt: skip
    newest, _, first = told["versions"]
    assert (newest["served"], newest["digest"], newest["changed_files"]) == (True, first["digest"], [])
    assert (newest["keys"], newest["files"]) == (first["keys"], first["files"])
    rows = ok(web.run("history", "web")).stdout.splitlines()
    assert "served, rollback of 1 by " in rows[1]
    web.write("base.yaml", "level: error\n")  # what made it is known as well
    explained = ok(web.run("explain", "web", "name")).stdout
    assert "set by    base.yaml:2:1" in explained
    same = ok(web.run("diff", "web", "1")).stdout
    assert same.endswith("nothing differs\n")


def test_another_rollback_takes_the_place_of_the_first(web, eventually):
    ok(web.run("rollback", "web", "1"))
    told = fields(ok(web.run("rollback", "web", "2", "--format", "json")))
    assert (told["verdict"], told["version"], told["hold"]["version"]) == ("rolled-back", 4, 2)
    assert (served(web), hold(web).version) == ("bad", 2)
    web.agents[0].kill()
    web.start()
    alive(web, eventually)
    assert (served(web), hold(web).version, web.readers[0].version) == ("bad", 2, 4)
    web.write("base.yaml", GOOD + "more: 1\n")
    assert web.run("reload", "web").returncode == 1
    told = fields(ok(web.run("resume", "web", "--format", "json")))
    assert (told["verdict"], told["version"], told["released"]["version"], told["hold"]) == ("published", 5, 2, None)


def test_resume_of_what_is_not_held_is_a_reload(web):
    result = ok(web.run("resume", "web"))
    assert result.stdout == "web: nothing was held; the files are followed\nweb: version 2, unchanged\n"


def test_resume_with_files_that_make_what_is_held_publishes_nothing(web):
    ok(web.run("rollback", "web", "1"))
    web.write("base.yaml", GOOD)
    assert web.run("reload", "web").returncode == 1  # held is held
    assert ok(web.run("resume", "web")).stdout.endswith("web: version 3, unchanged\n")


def test_resume_with_invalid_files_goes_on_with_what_is_served(web, eventually):
    ok(web.run("rollback", "web", "1"))
    web.write("base.yaml", "level: none\nname: new\n")
    result = web.run("resume", "web")
    assert result.returncode == 78
    first, second, third = result.stdout.splitlines()
    assert first == "web: the rollback of version 1 is held no more; the files are followed"
    assert second == "web: rejected, still serving version 3, a rollback of version 1"
    assert third.startswith("base.yaml:1:1: level: ")
    code, told = web.status()
    assert (code, told["state"], told["hold"], told["version"]) == (3, "serving last known good", None, 3)
    assert told["rollback_of"] == web.readers[0].status().rollback_of == 1
    assert "  rollback   of version 1, not held any more\n" in web.run("status", "web").stdout
    assert "web: served: a rollback of version 1, not held any more\n" in web.run("status").stdout
    web.write("base.yaml", "level: info\nname: new\n")
    eventually(lambda: web.readers[0].get("name") == "new", "the repair is taken")


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_a_version_that_is_not_valid_today_is_refused_unless_forced(web, eventually):
    web.write("base.yaml", "# another line\nlevel: error\nname: third\n")
    eventually(lambda: web.readers[0].version == 3, "version 3")
    web.write("schema.json", NO_INFO)
    assert ok(web.run("reload", "web")).stdout == "web: version 3, unchanged\n"
    result = web.run("rollback", "web", "1")
    assert result.returncode == 78
    first, problem, last = result.stdout.splitlines()
    assert first == "web: not rolled back, still serving version 3"
    assert problem.startswith('base.yaml:1:1: level: "info" is not one of ')  # in the file as it was then
    assert last == (
        "the places are those in the files of version 1; to go on all the same: shmconf rollback web 1 --force"
    )
    told = fields(web.run("rollback", "web", "1", "--format", "json"))
    assert (told["verdict"], told["problems"][0]["code"], told["hold"]) == ("rejected", "schema-choice", None)
    web.agents[0].says("web: rollback to version 1 refused, still serving version 3: base.yaml:1:1: ")
    assert (web.readers[0].version, web.status()[0], hold(web)) == (3, 0, None)

    forced = ok(web.run("rollback", "web", "1", "--force"))
    first, second, problem, last = forced.stdout.splitlines()
    assert (first, second) == ("web: version 4, a rollback of version 1", "FORCED, although:")
    assert "is not one of" in problem
    assert last.startswith("HELD: ")
    web.agents[0].says("by root; FORCED, though: " if os.geteuid() == 0 else "; FORCED, though: ")
    assert hold(web).forced
    assert "FORCED" in ok(web.run("status", "web")).stdout
    assert "forced" in ok(web.run("history", "web")).stdout.splitlines()[1]
    web.agents[0].kill()
    web.start()
    alive(web, eventually)
    assert (served(web), hold(web).forced, web.readers[0].version) == ("good", True, 4)
    ok(web.run("resume", "web"))
    assert ok(web.run("rollback", "web", "3", "--force")).stdout.splitlines()[1].startswith("HELD")  # nothing to force
    assert not hold(web).forced


def test_the_check_is_asked_as_well_and_secrets_are_not_shown(home, eventually):
    home.segment("base.yaml", substitute=True, substitute_roots=["s"], check="rules:check")
    home.write("s/db", "tiger-tiger\n")
    home.write("rules.py", "def check(tree):\n    return None\n")
    home.write("base.yaml", "name: good\nurl: ${file:s/db}\n")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    publish(home, eventually, "name: bad\n", 2)
    home.write("rules.py", NO_URL)
    result = home.run("rollback", "web", "1")
    assert result.returncode == 78, result.stdout
    assert "base.yaml:2:1: url: no ***" in result.stdout
    assert "nor ***" in result.stdout
    assert "tiger" not in result.stdout + home.agents[0].text()
    ok(home.run("rollback", "web", "1", "--force"))
    assert "tiger" not in home.agents[0].text()
    assert "***" in ok(home.run("get", "web", "url")).stdout
    assert home.readers[0]["url"] == "tiger-tiger"
    home.write("s/db", "lion\n")
    assert home.run("reload", "web").returncode == 1
    assert home.readers[0]["url"] == "tiger-tiger"


@pytest.mark.parametrize("is_made_from", ["kept", "lost"])
def test_a_secret_within_a_value_is_not_shown_though_it_is_another_by_now(home, eventually, is_made_from):
    home.segment("base.yaml", substitute=True, substitute_roots=["s"], check="rules:check")
    home.write("s/db", "tiger-tiger\n")
    home.write("rules.py", "def check(tree):\n    return None\n")
    home.write("base.yaml", "url: db://me:${file:s/db}@host\n")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    home.write("s/db", "lion-lion\n")
    eventually(lambda: home.readers[0].version == 2, "the other secret is published")
    eventually(lambda: kept(home, 2), "version 2 is kept")
    home.write("rules.py", WEAK)
    if is_made_from == "lost":
        for file in (home.state / "web.history").glob("*.source"):
            file.unlink()
    result = home.run("rollback", "web", "1")
    assert result.returncode == 78, result.stdout
    assert ("weak: ***" if is_made_from == "kept" else "may quote a secret") in result.stdout
    forced = ok(home.run("rollback", "web", "1", "--force"))
    assert home.readers[0]["url"] == "db://me:tiger-tiger@host"
    everything = [result.stdout, forced.stdout, forced.stderr, home.agents[0].text(), home.run("status", "web").stdout]
    assert "tiger" not in "".join(everything)


@pytest.mark.parametrize("damage", ["none", "header", "document"])
def test_a_version_that_is_not_kept_whole(web, damage):
    if damage != "none":
        [file] = (web.state / "web.history").glob("*-1.version")
        data = bytearray(file.read_bytes())
        data[40 if damage == "header" else -1] ^= 1
        file.write_bytes(data)
    number = "7" if damage == "none" else "1"
    result = web.run("rollback", "web", number, "--force")
    assert result.returncode == 1
    first, why = result.stdout.splitlines()
    assert first == "web: not rolled back, still serving version 2"
    assert ("kept: 1 to 2" if damage == "none" else "kept: 2" if damage == "header" else "is damaged") in why
    told = fields(web.run("rollback", "web", number, "--format", "json"))
    assert (told["verdict"], told["problems"][0]["code"]) == ("not-kept", "not-kept")
    assert (hold(web), web.readers[0].version) == (None, 2)


def test_it_takes_an_agent_and_the_right_to_ask(web, as_nobody):
    web.agents[0].stop()
    for verb in (("rollback", "web", "1"), ("resume", "web")):
        assert web.run(*verb).returncode == 69
    assert web.run("rollback", "web", "0").returncode == 2
    assert web.run("rollback", "web").returncode == 2
    assert web.run("rollback", "../web", "1").returncode == 2


def test_who_may_not_reload_may_not_roll_back(open_home, as_nobody, eventually):
    home = open_home
    home.segment("base.yaml", mode="0644")
    home.write("base.yaml", GOOD)
    for directory in (home.runtime, home.state):
        directory.rmdir()  # of nobody: here the agent is root
    home.start()
    home.attach()
    eventually(lambda: (home.runtime / "web.sock").exists(), "the socket")
    (home.runtime / "web.sock").chmod(0o666)  # whoever comes in is still asked who it is
    eventually(lambda: kept(home, 1), "version 1 is kept")
    for verb in (("rollback", "web", "1"), ("resume", "web")):
        result = home.run(*verb, before=as_nobody)
        assert result.returncode == 1, result.stderr
        assert "user 65534 may not" in result.stderr
    assert (home.readers[0].version, home.readers[0].status().hold) == (1, None)


def test_a_hold_that_the_disk_does_not_take(web, eventually):
    """Without it a restart would undo the rollback, which is refused unless somebody insists; it is written later."""
    place = web.state / "web.history" / "hold"
    place.mkdir()
    refused = web.run("rollback", "web", "1", "--format", "json")
    told = fields(refused)
    assert (refused.returncode, told["verdict"], told["problems"][0]["code"]) == (1, "failed", "hold-not-kept")
    assert (served(web), hold(web)) == ("bad", None)
    forced = ok(web.run("rollback", "web", "1", "--force"))
    assert f"the hold cannot be kept in {place}: Is a directory" in forced.stdout  # the place once
    assert (served(web), hold(web).version) == ("good", 1)
    eventually(
        lambda: any("an agent that starts anew may follow the files" in each for each in web.status()[1]["warnings"]),
        "a warning in status",
    )
    place.rmdir()
    eventually(place.is_file, "it is written")
    eventually(lambda: web.status()[1]["warnings"] == [], "the warning is gone")
    reboot(web, eventually)
    assert (served(web), hold(web).version) == ("good", 1)


def test_a_read_only_disk_does_not_keep_a_hold_that_it_never_took(web, eventually):
    """A rollback that was forced there can be resumed there."""
    web.agents[0].stop()
    web.start(before=READ_ONLY.replace("SWITCH", str(web.root / "read-only")))
    alive(web, eventually)
    web.write("read-only", "")
    assert web.run("rollback", "web", "1").returncode == 1
    assert "Read-only file system" in ok(web.run("rollback", "web", "1", "--force")).stdout
    assert (served(web), hold(web).version) == ("good", 1)
    assert ok(web.run("resume", "web")).stdout.splitlines()[-1].endswith(", published")
    assert (served(web), hold(web)) == ("bad", None)


def test_what_the_next_agent_will_hold_is_told_where_the_disk_refuses(web, eventually):
    """The record of an earlier rollback stands there still, and counts at the next start."""
    publish(web, eventually, "level: error\nname: third\n", 3)
    web.agents[0].stop()
    web.start(before=READ_ONLY.replace("SWITCH", str(web.root / "read-only")))
    alive(web, eventually)
    ok(web.run("rollback", "web", "1"))
    web.write("read-only", "")
    ok(web.run("rollback", "web", "2", "--force"))
    assert (served(web), hold(web).version) == ("bad", 2)
    text = "an agent that starts anew will go back to the rollback of version 1"
    eventually(lambda: any(text in each for each in web.status()[1]["warnings"]), lambda: web.status())
    web.agents[-1].stop(9)
    web.start()
    alive(web, eventually)
    assert (served(web), hold(web).version) == ("good", 1)


@pytest.mark.parametrize("what", ["web.history/hold", "web.history", ""])
def test_a_hold_outlives_the_removal_of_what_is_kept(web, eventually, what):
    """Who wipes the state directory under a live agent ends no hold by that: neither now nor at the next reboot."""
    ok(web.run("rollback", "web", "1"))
    eventually(lambda: kept(web, 3), "the rollback is kept")
    place = web.state / "web.history" / "hold"
    if (web.state / what).is_dir():
        shutil.rmtree(web.state / what)
    else:
        place.unlink()
    web.state.mkdir(exist_ok=True)
    eventually(lambda: place.is_file() and kept(web, 3), "record and version are put back")
    web.agents[-1].says("web.history/hold was removed; put back")
    assert (served(web), hold(web).version) == ("good", 1)
    reboot(web, eventually)
    assert (served(web), hold(web).version) == ("good", 1)
    assert web.run("reload", "web").returncode == 1


@pytest.mark.parametrize("order", ["reload?", "resume?", "rollback?version=2&"])
def test_an_answer_without_a_verdict_tells_what_is_served_all_the_same(web, order):
    """No verdict is there after no time at all; that is no reason to say that nothing is served."""
    reader = web.readers[0]
    for _ in range(100):  # now and then a verdict is faster than no time
        before = reader.snapshot()
        head, body = ask(web, f"/-/{order}timeout=0", "POST").split("\r\n\r\n", 1)
        if head.startswith("HTTP/1.1 504 "):
            break
    [told] = json.loads(body)["segments"]
    assert head.startswith("HTTP/1.1 504 ")
    assert told["verdict"] == "timeout"
    assert before.version <= told["version"] <= reader.version
    assert told["digest"] == before.digest  # each of the orders is about the very content that is served


# --- what it survives -------------------------------------------------------------------------------------------------


def test_a_hold_survives_kills_restarts_and_reboots(web, eventually):
    ok(web.run("rollback", "web", "1"))
    since = hold(web).since
    epoch = web.readers[0].snapshot().epoch
    for number in (9, 15):
        web.agents[-1].stop(number)
        assert web.run("reload", "web").returncode == 69
        web.write("base.yaml", BAD + f"while: {number}\n")
        web.start()
        web.agents[-1].says("web: HELD: version 3 is a rollback of version 1, since ")
        alive(web, eventually)
        assert web.run("reload", "web").returncode == 1
        assert (web.readers[0].version, web.readers[0].snapshot().epoch) == (3, epoch)
        assert (served(web), hold(web).since) == ("good", since)
    eventually(lambda: kept(web, 3), "version 3 is kept")
    for text in ("name: [\n", BAD):
        web.write("base.yaml", text)
        reboot(web, eventually)
        assert (served(web), hold(web).since, hold(web).version) == ("good", since, 1)
        code, told = web.status()
        assert (code, told["state"], told["stale"]) == (3 if text != BAD else 0, "held by rollback", False)
    with shmconf.attach("web", directory=web.runtime) as reader:
        eventually(lambda: kept(web, reader.version), "what is served is kept")
    told = fields(ok(web.run("history", "web", "--format", "json")))
    assert [(each["rollback"] or {}).get("version") for each in told["versions"]][-3:] == [1, None, None]
    assert ok(web.run("resume", "web")).stdout.splitlines()[-1].endswith(", published")
    assert (served(web), hold(web)) == ("bad", None)
    reboot(web, eventually)
    assert (served(web), hold(web)) == ("bad", None)


def test_a_rollback_that_was_never_kept_itself_is_served_after_a_reboot(home, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", GOOD)
    home.start(before=NEVER_KEPT)
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    ok(home.run("rollback", "web", "1"))
    assert not kept(home, 2)
    home.write("base.yaml", BAD)
    reboot(home, eventually)
    assert (served(home), hold(home).version) == ("good", 1)
    home.agents[-1].says("was completed at this start")


def victim(home, eventually, order: str, step: int) -> None:
    """Start an agent that is killed at this step of the order."""
    home.start(before=KILLED.replace("STEP", str(step)).replace("ORDER", order))
    alive(home, eventually)


def is_killed_by(home, eventually, ask: Callable[..., Answer], *arguments: Any, **more: Any) -> bool:
    """Whether the agent is, instead of an answer; every second time the machine goes down with it."""
    answer = ask("web", places(home), 60, *arguments, **more)
    if answer.verdict in ("rolled-back", "published", "unchanged"):
        return False
    assert answer.verdict == "unavailable", answer
    eventually(lambda: home.agents[-1].process.poll() is not None, "the agent's end")
    if len(home.agents) % 2:
        shutil.rmtree(home.runtime)
    return True


@pytest.mark.timeout(300)
def test_a_rollback_that_is_killed_at_any_step_is_whole_or_has_not_been(web, eventually, tell):
    web.agents[0].stop()
    outcomes = []
    for step in range(40):
        victim(web, eventually, "roll_back", step)
        found = served(web), hold(web) is not None
        assert found in (("good", True), ("bad", False)), step
        if step:
            outcomes.append(found[0])
        web.write("base.yaml", BAD + f"step: {step}\n")
        expected = ("held",) if found[1] else ("published", "unchanged")  # by itself, if it was quicker
        assert reload_segment("web", places(web), 60).verdict in expected
        assert served(web) == found[0]
        assert resume("web", places(web), 60).verdict == ("published" if found[1] else "unchanged")
        assert (served(web), hold(web)) == ("bad", None)
        [good, *_] = (each for each in History(web.state, "web").entries() if each.kept.digest == GOOD_DIGEST)
        if not is_killed_by(web, eventually, roll_back, good.kept.version, force=False):
            break
    else:
        pytest.fail("it was killed at every step")
    before, after = outcomes.count("bad"), outcomes.count("good")
    tell(f"a rollback was killed at {len(outcomes)} steps: {before} before it was decided, {after} after")
    assert outcomes == sorted(outcomes), "once it is decided it stays so"
    assert set(outcomes) == {"bad", "good"}


@pytest.mark.timeout(300)
def test_a_resume_that_is_killed_at_any_step_is_whole_or_has_not_been(web, eventually, tell):
    web.agents[0].stop()
    outcomes = []
    for step in range(40):
        victim(web, eventually, "resume", step)
        found = served(web), hold(web) is not None
        assert found in (("good", True), ("bad", False)), step
        if step:
            outcomes.append(found[0])
        assert roll_back("web", places(web), 60, 1, force=False).verdict == "rolled-back"
        assert (served(web), hold(web) is not None) == ("good", True)
        if not is_killed_by(web, eventually, resume):
            break
    else:
        pytest.fail("it was killed at every step")
    before, after = outcomes.count("good"), outcomes.count("bad")
    tell(f"a resume was killed at {len(outcomes)} steps: {before} while it was held, {after} after")
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {"bad", "good"}


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b'{"version": "1"}', b"[]", b"\xff" * 100, b"[" * 100_000]
    + [
        json.dumps({"version": 1, "epoch": 1, "since": 1, "uid": 0, "digest": "d", **damage}).encode()
        for damage in (
            {"version": 10**30},
            {"version": 0},
            {"epoch": -1},
            {"since": 10**20},
            {"uid": 2**33},
            {"candidate": "\ud800"},
        )
    ],
    ids=lambda content: content[:70].decode("ascii", "replace"),
)
def test_a_damaged_record_of_a_hold_is_read_from_what_is_served(web, eventually, content):
    ok(web.run("rollback", "web", "1"))
    web.agents[0].stop()
    (web.state / "web.history" / "hold").write_bytes(content)
    web.start()
    alive(web, eventually)
    assert web.run("reload", "web").returncode == 1
    assert (served(web), hold(web).version) == ("good", 1)
    assert any("what was published says what is held" in each for each in web.status()[1]["warnings"])
    ok(web.run("resume", "web"))
    assert (served(web), hold(web), web.status()[1]["warnings"]) == ("bad", None, [])


def test_other_settings_leave_the_hold_alone(web, eventually):
    ok(web.run("rollback", "web", "1"))
    text = (web.root / "shmconf.toml").read_text()
    web.write("shmconf.toml", text.replace('schema = "schema.json"', "settle_ms = 5"))
    assert web.run("reload", "web").returncode == 1
    assert (served(web), hold(web).version, web.readers[0].version) == ("good", 1, 3)
    web.write("shmconf.toml", "nonsense = 1\n")
    other = web.run("rollback", "web", "2")  # it goes by the settings that are in force
    assert ok(other).stdout.startswith("web: version 4, a rollback of version 2\n")


def test_a_segment_file_that_is_removed_is_put_back_held(web, eventually):
    ok(web.run("rollback", "web", "1"))
    (web.runtime / "web.shmconf").unlink()
    eventually((web.runtime / "web.shmconf").exists, "it is put back")
    assert (served(web), hold(web).version) == ("good", 1)


# --- beside the guard and the commit ----------------------------------------------------------------------------------


def test_a_held_candidate_and_a_rollback(web, eventually):
    """The guard judges what the files make once they are followed again, against what is served then."""
    text = (web.root / "shmconf.toml").read_text()
    web.write("shmconf.toml", text + '[segment.web.guard]\nfrozen = ["name"]\n')
    assert web.run("reload", "web").returncode == 0
    web.write("base.yaml", "level: debug\nname: held\n")
    eventually(lambda: web.readers[0].status().held, "the guard holds it")
    assert fields(ok(web.run("rollback", "web", "1", "--format", "json")))["hold"]["version"] == 1
    eventually(lambda: web.readers[0].status().hold.candidate, "the files' candidate waits")
    assert web.readers[0].status().held is None
    code, told = web.status()
    assert (code, told["state"], told["held"]) == (0, "held by rollback", None)
    digest = told["hold"]["candidate"]
    accepted = web.run("reload", "web", "--accept", digest)
    assert accepted.returncode == 1
    assert "to follow the files again: shmconf resume web" in accepted.stdout
    assert served(web) == "good"
    result = web.run("resume", "web")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "web: the rollback of version 1 is held no more; the files are followed"
    assert lines[1] == "web: held, still serving version 3, a rollback of version 1"
    assert "name is frozen, and would change" in lines[2]
    assert lines[3] == f"to let it through: shmconf reload web --accept {digest[:12]}"
    code, told = web.status()
    assert (code, told["state"], told["held"], told["hold"]) == (3, "candidate held", digest, None)
    ok(web.run("reload", "web", "--accept", digest))
    assert served(web) == "held"


@pytest.mark.parametrize("restart", [False, True])
def test_resume_takes_what_was_committed_and_nothing_else(home, eventually, restart):
    home.segment("base.yaml", commit="stamp")
    home.write("base.yaml", GOOD)
    home.write("stamp", "1")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    home.write("base.yaml", BAD)
    home.write("stamp", "2")
    eventually(lambda: kept(home, 2), "version 2 is kept")
    ok(home.run("rollback", "web", "1"))
    home.write("base.yaml", BAD.replace("bad", "committed"))
    home.write("stamp", "3")
    eventually(
        lambda: home.readers[0].status().hold.candidate not in (None, History(home.state, "web").find(2).kept.digest),
        "what was committed is judged",
    )
    if not restart:
        home.write("base.yaml", BAD.replace("bad", "not committed"))
    else:
        home.agents[0].kill()
        home.start()
        home.agents[-1].says("HELD: version 3")
        alive(home, eventually)
    assert (served(home), hold(home).version) == ("good", 1)
    result = ok(home.run("resume", "web"))
    assert "web: version 4, published" in result.stdout
    assert served(home) == "committed"


def test_resume_with_nothing_committed_waits_for_the_commit(home, eventually):
    home.segment("base.yaml", commit="stamp")
    home.write("base.yaml", GOOD)
    home.write("stamp", "1")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    ok(home.run("rollback", "web", "1"))
    home.agents[0].kill()
    home.write("base.yaml", BAD)
    home.start()
    home.agents[-1].says("HELD: version 2")
    alive(home, eventually)
    result = ok(home.run("resume", "web"))
    assert "web: version 2, unchanged; what changed since waits for stamp to change" in result.stdout
    assert (served(home), hold(home)) == ("good", None)
    home.write("stamp", "2")
    eventually(lambda: served(home) == "bad", "what is committed is served")
