"""`shmconf history` and `shmconf diff`: what is kept, what is served, and what differs, through a real agent."""

from __future__ import annotations

import json

import pytest

from shmconf_agent.history import History

FIRST = "db:\n  pool: 10\n  host: a\ncache:\n  ttl: 30\nhosts: [a, b]\n"
SECOND = "db:\n  pool: 20\n  host: a\n  name: shop\nhosts: [a, c]\n"
THIRD = SECOND.replace("20", "25")


def kept(home, *versions: int) -> bool:
    return {entry.kept.version for entry in History(home.state, "web").entries()} >= set(versions)


def publish(home, eventually, text: str, version: int, name: str = "base.yaml") -> None:
    """Put it in place, and wait until it is published and kept."""
    home.write(name, text)
    eventually(lambda: home.readers[0].version == version, f"version {version}")
    eventually(lambda: kept(home, version), f"version {version} is kept")


@pytest.fixture
def web(home, eventually):
    """Three versions of web, all of them kept; the agent goes on."""
    home.segment("base.yaml", "site.yaml")
    home.write("base.yaml", FIRST)
    home.write("site.yaml", "site: x\n")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    publish(home, eventually, SECOND, 2)
    publish(home, eventually, "site: y\n", 3, "site.yaml")
    return home


def as_json(result) -> dict:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def told(fields: dict) -> dict[str, tuple]:
    return {each["path"]: (each["kind"], each["before"], each["after"]) for each in fields["changes"]}


# --- history ----------------------------------------------------------------------------------------------------------


def test_the_history_lists_what_is_kept_the_newest_first(web):
    fields = as_json(web.run("history", "web", "--format", "json"))
    now = web.readers[0].snapshot()
    assert fields["segment"] == "web"
    assert fields["served"] == {"version": 3, "epoch": now.epoch}
    assert [(each["version"], each["served"]) for each in fields["versions"]] == [(3, True), (2, False), (1, False)]
    newest, before, first = fields["versions"]
    assert newest["digest"] == now.digest
    assert (newest["changed_files"], before["changed_files"]) == (["site.yaml"], ["base.yaml"])
    assert (first["keys"], before["keys"], newest["files"]) == (7, 6, ["base.yaml", "site.yaml"])
    assert fields["damaged"] == []
    heading, *rows = web.run("history", "web").stdout.splitlines()
    assert heading.split() == ["VERSION", "PUBLISHED", "DIGEST", "KEYS", "WHAT", "CHANGED", "FILES"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert ["served" in row for row in rows] == [True, False, False]
    assert rows[0].endswith("site.yaml")
    assert newest["digest"][:12] in rows[0]


def test_the_history_is_there_without_segment_and_agent(web):
    web.agents[0].stop()
    (web.runtime / "web.shmconf").unlink()
    fields = as_json(web.run("history", "web", "--format", "json"))
    assert fields["served"] is None
    assert [each["served"] for each in fields["versions"]] == [False, False, False]
    assert web.run("diff", "web", "1", "2").returncode == 0
    alone = web.run("diff", "web", "1")
    assert (alone.returncode, "no segment 'web'" in alone.stderr) == (69, True)


def test_a_segment_that_is_nowhere_is_told_as_such(web):
    for arguments in (["absent"], ["absent", "1"]):
        told = web.run("diff", *arguments)
        assert (told.returncode, "no segment 'absent'" in told.stderr) == (69, True), told.stderr


@pytest.mark.parametrize("where", ["header", "document"])
def test_a_damaged_version_is_told_and_the_others_are_listed(web, where):
    [file] = (web.state / "web.history").glob("*-2.version")
    data = bytearray(file.read_bytes())
    data[40 if where == "header" else -1] ^= 1
    file.write_bytes(data)
    result = web.run("history", "web")
    assert result.returncode == 0
    assert [row.split()[0] for row in result.stdout.splitlines()[1:]] == ["3", "1"]
    assert f"shmconf: version 2: {file} is damaged (" in result.stderr
    fields = as_json(web.run("history", "web", "--format", "json"))
    assert [each["version"] for each in fields["versions"]] == [3, 1]
    [damage] = fields["damaged"]
    assert damage.startswith("version 2: ")
    assert web.run("diff", "web", "1", "2").returncode == 1
    assert web.run("diff", "web", "1").returncode == 0


def test_no_such_segment(home):
    home.segment("base.yaml")
    assert home.run("history", "web").returncode == 69
    assert home.run("diff", "web").returncode == 69
    assert home.run("history", "../web").returncode == 2
    assert home.run("diff", "web", "0").returncode == 2
    assert home.run("diff", "web", "x").returncode == 2


def test_somebody_else_is_told_why_the_history_is_not_shown(open_home, as_nobody, eventually):
    home = open_home
    home.segment("base.yaml", mode="0644")
    home.write("base.yaml", FIRST)
    for directory in (home.runtime, home.state):
        directory.rmdir()  # of nobody: here the agent is root
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    for command in (("history", "web"), ("diff", "web", "1", "2")):
        result = home.run(*command, before=as_nobody)
        assert result.returncode == 1
        assert "only root and the agent's user may look into the history" in result.stderr


# --- diff -------------------------------------------------------------------------------------------------------------


def test_the_difference_between_two_versions(web):
    fields = as_json(web.run("diff", "web", "1", "2", "--format", "json"))
    assert told(fields) == {
        "db.pool": ("changed", 10, 20),
        "db.name": ("added", None, "shop"),
        "cache.ttl": ("deleted", 30, None),
        "hosts": ("changed", ["a", "b"], ["a", "c"]),
    }
    assert (fields["before"]["version"], fields["after"]["version"], fields["same"]) == (1, 2, False)
    text = web.run("diff", "web", "1", "2")
    first, *lines, last = text.stdout.splitlines()
    assert first.startswith("web: version 1 (kept, ")
    assert sorted(line.split(maxsplit=1)[0] for line in lines) == ["+", "-", "~", "~"]
    assert [line for line in lines if "db.pool" in line] == ["~ db.pool    10 -> 20"]
    assert [line for line in lines if "hosts" in line] == ['~ hosts      ["a", "b"] -> ["a", "c"]']
    assert last == "4 paths: 1 added, 2 changed, 1 deleted"
    backwards = told(as_json(web.run("diff", "web", "2", "1", "--format", "json")))
    assert backwards["db.name"] == ("deleted", "shop", None)


def test_the_difference_to_what_is_published(web):
    fields = as_json(web.run("diff", "web", "2", "--format", "json"))
    assert told(fields) == {"site": ("changed", "x", "y")}
    assert (fields["after"]["origin"], fields["after"]["version"]) == ("published", 3)


def test_the_difference_of_the_files_to_what_is_published(web):
    web.agents[0].stop()
    same = web.run("diff", "web", "--exit-code")
    assert (same.returncode, same.stdout.splitlines()[1:]) == (0, ["nothing differs"])
    web.write("base.yaml", THIRD)
    fields = as_json(web.run("diff", "web", "--format", "json"))
    assert told(fields) == {"db.pool": ("changed", 20, 25)}
    assert (fields["before"]["version"], fields["after"]["origin"], fields["after"]["version"]) == (3, "files", None)
    assert web.run("diff", "web").returncode == 0
    assert web.run("diff", "web", "--exit-code").returncode == 1
    assert web.run("diff", "web", "1", "2", "--exit-code").returncode == 1
    assert web.run("diff", "web", "2", "2", "--exit-code").returncode == 0
    named = web.run("diff", "web", "--source", "base.yaml", "--source", "site.yaml", cwd=web.root)
    assert "~ db.pool  20 -> 25" in named.stdout


def test_only_the_order_of_keys(web):
    web.agents[0].stop()
    web.write("base.yaml", "hosts: [a, c]\ndb:\n  pool: 20\n  host: a\n  name: shop\n")
    result = web.run("diff", "web", "--exit-code")
    assert (result.returncode, result.stdout.splitlines()[1:]) == (1, ["nothing differs but the order of keys"])


def test_invalid_files_have_no_difference(web):
    web.agents[0].stop()
    web.write("base.yaml", "db: [\n")
    result = web.run("diff", "web")
    assert result.returncode == 78
    assert result.stdout.startswith("base.yaml:")
    as_fields = web.run("diff", "web", "--format", "json")
    assert as_fields.returncode == 78
    assert json.loads(as_fields.stdout)["problems"][0]["file"] == "base.yaml"


def test_a_version_that_is_not_kept_is_told_with_those_that_are(web):
    for arguments in (("9",), ("1", "9"), ("9", "1")):
        result = web.run("diff", "web", *arguments)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.endswith("web.history; kept: 1 to 3\n")
        assert "version 9 is not in " in result.stderr


def test_long_values_are_shown_from_where_they_differ(web):
    web.agents[0].stop()
    long = ", ".join(f"host-{number}" for number in range(200))
    web.write("site.yaml", f"site: y\nmany: [{long}]\n")
    added = web.run("diff", "web").stdout.splitlines()[1]
    assert added.startswith('+ many  ["host-0", ')
    assert added.endswith("…")
    agent = web.start()
    agent.says("version 4 published")
    agent.stop()
    web.write("site.yaml", f"site: y\nmany: [{long.replace('host-150', 'other')}]\n")
    changed = web.run("diff", "web").stdout.splitlines()[1]
    assert '"host-149", "host-150"' in changed
    assert '"host-149", "other"' in changed
    assert len(changed) < 500


def test_secrets_are_differences_and_are_not_shown(home, eventually):
    home.write("shmconf.toml", '[segment.web]\nsources = ["base.yaml"]\nsubstitute = true\nsubstitute_roots = ["s"]\n')
    home.write("s/db", "tiger-tiger\n")
    home.write("base.yaml", "url: ${file:s/db}\nlist: [a, '${file:s/db}']\nold: plain-text\n")
    home.start()
    home.attach()
    eventually(lambda: kept(home, 1), "version 1 is kept")
    publish(home, eventually, "lion-lion\n", 2, "s/db")
    publish(home, eventually, "url: ${file:s/db}\nold: ${file:s/db}\n", 3)
    for arguments in (("1", "2"), ("1",), ("2", "3"), ()):
        for form in ("text", "json"):
            result = home.run("diff", "web", *arguments, "--format", form)
            assert result.returncode == 0
            for secret in ("tiger", "lion", "plain-text"):
                assert secret not in result.stdout + result.stderr
    fields = as_json(home.run("diff", "web", "1", "2", "--format", "json"))
    assert told(fields) == {"url": ("changed", "***", "***"), "list": ("changed", ["a", "***"], ["a", "***"])}
    assert all(each["secret"] for each in fields["changes"])
    assert '~ url   "***" -> "***"  (secret)' in home.run("diff", "web", "1", "2").stdout
    revealed = told(as_json(home.run("diff", "web", "1", "2", "--reveal", "--format", "json")))
    assert revealed["url"] == ("changed", "tiger-tiger", "lion-lion")
