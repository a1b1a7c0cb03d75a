"""References in a real agent's files: what workers get, what nobody is shown, and how a new secret arrives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from shmconf import codec

SECRET = "hunter2-very-secret"
BASE = """\
db:
  host: ${env:DB_HOST:-localhost}
  port: ${env:DB_PORT}
  password: ${file:secrets/db}
  url: db://me:${file:secrets/db}@${env:DB_HOST:-localhost}/
tokens:
  - plain
  - ${credential:token}
shadowed: ${file:secrets/db}
literal: $${env:DB_PORT}
"""
LOCAL = '{"shadowed": "plain"}'


@pytest.fixture
def secretive(home):
    """A home whose files name a file and a credential."""
    home.write("base.yaml", BASE)
    home.write("local.json", LOCAL)
    home.write("secrets/db", SECRET + "\n")
    home.write("credentials/token", SECRET + "-token")
    home.segment(
        "base.yaml",
        "local.json",
        substitute=True,
        substitute_env=["DB_HOST", "DB_PORT"],
        substitute_roots=["secrets"],
    )
    return home


def environment(home):
    return {"DB_PORT": "5432", "CREDENTIALS_DIRECTORY": str(home.root / "credentials")}


def start(home):
    return home.start(**environment(home))


def printed(home, *arguments, code=0):
    result = home.run(*arguments, **environment(home))
    assert result.returncode == code, result.stderr
    return result.stdout + result.stderr


def test_workers_get_the_values(secretive):
    start(secretive)
    reader = secretive.attach()
    assert reader.snapshot().to_dict() == {
        "db": {
            "host": "localhost",
            "port": 5432,
            "password": SECRET,
            "url": f"db://me:{SECRET}@localhost/",
        },
        "tokens": ["plain", f"{SECRET}-token"],
        "shadowed": "plain",
        "literal": "${env:DB_PORT}",
    }
    assert reader.get("db.password") == SECRET
    noted = reader.snapshot().metadata["secret_paths"]
    assert sorted(noted) == [["db", "password"], ["db", "url"], ["tokens", 1]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "web"),
        ("get", "web", "--format", "json"),
        ("get", "web", "db"),
        ("get", "web", "db.password"),
        ("get", "web", "db.password", "--format", "raw"),
        ("get", "web", "tokens.1", "--format", "json"),
        ("watch", "web", "db.password", "--after", "0", "--count", "1"),
        ("watch", "web", "db", "--after", "0", "--count", "1", "--format", "json"),
        ("explain", "web", "db.password"),
        ("explain", "web", "db"),
        ("explain", "web", "db", "--format", "json"),
        ("explain", "web", "tokens.1", "--format", "json"),
        ("explain", "web", "shadowed"),
        ("explain", "web", "shadowed", "--format", "json"),
    ],
    ids=" ".join,
)
def test_no_verb_shows_a_secret_unless_it_is_to(shown, arguments):
    hidden = printed(shown, *arguments)
    assert SECRET not in hidden
    assert ("***" in hidden) or arguments == ("explain", "web", "db")
    revealed = printed(shown, *arguments, "--reveal")
    assert (SECRET in revealed) or arguments == ("explain", "web", "db")
    assert "***" not in revealed


@pytest.fixture(scope="module")
def shown(module_home):
    """A served home for tests that only look."""
    made = module_home("secretive")
    secretive.__wrapped__(made)
    start(made)
    made.attach()
    return made


def test_a_raw_map_or_list_has_no_secret_in_it(shown):
    command = shown.command("get", "web", "tokens", "--format", "raw")
    for arguments, token in {(): "***", ("--reveal",): f"{SECRET}-token"}.items():
        told = subprocess.run([*command, *arguments], env=shown.environment(), capture_output=True, timeout=120)
        assert codec.unpack(told.stdout) == ["plain", token]


def test_what_no_reference_made_is_shown(shown):
    assert printed(shown, "get", "web", "db.host") == "localhost\n"
    assert printed(shown, "get", "web", "shadowed") == "plain\n"
    assert printed(shown, "get", "web", "literal") == "${env:DB_PORT}\n"
    told = json.loads(printed(shown, "get", "web", "--format", "json"))
    assert told["db"] == {"host": "localhost", "port": 5432, "password": "***", "url": "***"}
    assert told["tokens"] == ["plain", "***"]


def test_a_new_secret_is_a_new_version(secretive):
    agent = start(secretive)
    reader = secretive.attach()
    secretive.write("secrets/db", "second")
    assert reader.wait(after=1, timeout=60)["db", "password"] == "second"
    assert "secrets/db" in agent.says("version 2 published")
    secretive.write("credentials/token", "third")
    assert reader.wait(after=2, timeout=60)["tokens", 1] == "third"
    assert "credential:token" in agent.says("version 3 published")
    secretive.write("secrets/db", "second\n")
    told = json.loads(printed(secretive, "reload", "--format", "json"))
    assert (told[0]["version"], told[0]["verdict"]) == (3, "unchanged")
    assert not {"second", "third"} & set(agent.text().split())


def test_a_secret_behind_links_as_kubernetes_swaps_it(secretive):
    mounted = secretive.root / "secrets"
    (mounted / "db").unlink()
    for number in ("1", "2"):
        secretive.write(f"secrets/..{number}/db", f"swapped {number}")
    (mounted / "..data").symlink_to("..1")
    (mounted / "db").symlink_to("..data/db")
    start(secretive)
    reader = secretive.attach()
    assert reader.get("db.password") == "swapped 1"
    (mounted / "..tmp").symlink_to("..2")
    os.replace(mounted / "..tmp", mounted / "..data")
    assert reader.wait(after=1, timeout=60)["db", "url"] == "db://me:swapped 2@localhost/"


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda path: path.unlink(), "reference-missing", "does not exist"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "reference-unreadable", "is a named pipe"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "reference-not-allowed", "leads to no place"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "reference-not-allowed", "leads to no place"),
        (lambda path: os.truncate(path, 1 << 40), "reference-limit", "has more than 65,536 bytes"),
        (lambda path: os.truncate(path, 0), "reference-empty", "is empty"),
        (lambda path: path.write_bytes(b"\xff"), "reference-text", "is not UTF-8 text"),
        (lambda path: path.write_bytes(b"a\0b"), "reference-text", "is not text: it has a null character"),
    ],
    ids=["missing", "pipe", "device", "outside", "huge", "empty", "binary", "null"],
)
def test_a_secret_that_is_none_is_a_problem_with_its_place_and_the_last_one_stays(secretive, spoil, code, said):
    agent = start(secretive)
    reader = secretive.attach()
    spoil(secretive.root / "secrets/db")
    assert f"base.yaml:4:13: db.password: ${{file:secrets/db}} {said}" in agent.says("rejected")
    exit_code, status = secretive.status()
    assert exit_code == 3
    assert said in status["problems"][0]
    told = json.loads(printed(secretive, "check", "--format", "json", code=78))
    assert {(each["code"], each["line"]) for each in told["problems"]} == {(code, 4), (code, 5), (code, 9)}
    assert reader.get("db.password") == SECRET
    path = secretive.root / "secrets/db"
    path.unlink(missing_ok=True)
    secretive.write("secrets/db", "mended")
    assert reader.wait(after=1, timeout=60)["db", "password"] == "mended"


def test_no_problem_shows_a_secret(secretive):
    secretive.write(
        "schema.json", '{"properties": {"db": {"properties": {"password": {"maxLength": 30, "pattern": "^h"}}}}}'
    )
    check = "def check(tree):\n    return [] if len(tree['db']['password']) < 25 else repr(tree)\n"
    secretive.write("own_check.py", check)
    file = secretive.root / "shmconf.toml"
    secretive.write("shmconf.toml", file.read_text().rstrip() + '\nschema = "schema.json"\ncheck = "own_check:check"\n')
    agent = start(secretive)
    secretive.attach()
    secretive.write("secrets/db", "x" + SECRET)
    line = agent.says('db.password: "***" does not match the pattern ^h')
    secretive.write("secrets/db", SECRET + "-and-more")
    agent.says("'password': '***'")
    outputs = [line, agent.text(), json.dumps(secretive.status()), printed(secretive, "status", "web", code=3)]
    outputs.append(printed(secretive, "check", code=78))
    outputs.append(printed(secretive, "reload", code=78))
    assert "***" in outputs[-1]
    assert not [text for text in outputs if "hunter2" in text]


def test_secrets_stay_secret_over_restarts_and_a_reboot(secretive, eventually):
    agent = start(secretive)
    secretive.attach()
    agent.kill()
    agent = start(secretive)

    def goes_on():
        status = secretive.status()[1]
        return (status["agent_pid"], status["agent_state"]) == (agent.pid, "running")

    eventually(goes_on, "the second agent goes on")
    assert secretive.status()[1]["version"] == 1
    assert agent.stop() == 0
    shutil.rmtree(secretive.runtime)
    (secretive.root / "secrets/db").unlink()
    agent = start(secretive)
    agent.says("last known good")
    assert secretive.attach().get("db.password") == SECRET
    assert printed(secretive, "get", "web", "db.password") == "'***'\n"
