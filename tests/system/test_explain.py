"""`shmconf explain`: which line of which file set a published value, and what is said when nobody can tell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from shmconf_agent.history import History

CONFIG = """\
[segment.web]
sources = [
  "base.yaml",
  "conf.d/",
  "site-*.json",
  { path = "local.yaml", optional = true },
  { path = "limits.toml", at = "service.limits" },
]
schema = "schema.json"
"""
FILES = {
    "base.yaml": "pool: &pool\n  size: 5\n  timeout: 3\ndb:\n  <<: *pool\n  size: 10\nhosts: [a, b]\nspare: *pool\n"
    "---\nlate: 1\n",
    "conf.d/10-db.toml": "[db]\nsize = 20\n",
    "conf.d/20-more.yaml": "db:\n  user: me\n",
    "site-a.json": '{\n  "hosts": [\n    "c"\n  ],\n  "k\\u00e9y": true\n}\n',
    "limits.toml": "rate = 1\n",
    "schema.json": '{"properties": {"db": {"properties": {"size": {"type": "integer"}}}}}',
}


def wait_until_kept(home, eventually):
    history = History(home.state, "web")
    eventually(lambda: [entry for entry in history.entries() if history.has_layers(entry.kept)], "it is kept")


@pytest.fixture
def served(home, eventually):
    """A home whose files are published, by an agent that is no more: whatever is edited from here on is not taken."""
    home.write("shmconf.toml", CONFIG)
    for name, text in FILES.items():
        home.write(name, text)
    agent = home.start()
    home.attach()
    wait_until_kept(home, eventually)
    agent.stop()
    return home


@pytest.fixture
def forgotten(served):
    """The same without its history, as if it were somebody else's to read."""
    shutil.rmtree(served.state / "web.history")
    return served


def lines(home, path, code=0):
    result = home.run("explain", "web", path)
    assert result.returncode == code, result.stderr
    return [line.rstrip() for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        (
            "db.size",
            [
                "db.size = 20  (web, version 1)",
                "  set by    conf.d/10-db.toml:2:1  20",
                "  shadows   base.yaml:6:3          10",
            ],
        ),
        (
            "db.timeout",
            [
                "db.timeout = 3  (web, version 1)",
                "  set by    base.yaml:3:3  3",
                "            merged in by the << at 5:3",
            ],
        ),
        (
            "db",
            [
                "db = a map of 3 keys  (web, version 1)",
                "  set by    conf.d/20-more.yaml:1:1  a map of 1 key",
                "  and by    conf.d/10-db.toml:1:2    a map of 1 key",
                "  and by    base.yaml:4:1            a map of 2 keys",
            ],
        ),
        (
            "hosts.0",
            [
                'hosts.0 = "c"  (web, version 1)',
                '  set by    site-a.json:3:5  "c"',
                '  shadows   base.yaml:7:9    "a"',
            ],
        ),
        (
            "spare",
            [
                "spare = a map of 2 keys  (web, version 1)",
                "  set by    base.yaml:8:1  a map of 2 keys",
                "            an alias of what stands at 1:7",
            ],
        ),
        (
            "spare.size",
            [
                "spare.size = 5  (web, version 1)",
                "  set by    base.yaml:2:3  5",
                "            used by the alias at 8:1",
            ],
        ),
        ("late", ["late = 1  (web, version 1)", "  set by    base.yaml:10:1  1"]),
        ('"kéy"', ['"kéy" = true  (web, version 1)', "  set by    site-a.json:5:3  true"]),
        (
            "service.limits.rate",
            [
                "service.limits.rate = 1  (web, version 1)",
                "  set by    limits.toml:1:1  1",
                "            mounted at service.limits by shmconf.toml:7:27",
            ],
        ),
        (
            "service",
            [
                "service = a map of 1 key  (web, version 1)",
                "  set by    shmconf.toml:7:27  mounts limits.toml at service.limits",
            ],
        ),
    ],
)
def test_who_set_it_and_what_that_shadows(served, path, printed):
    assert lines(served, path) == printed


def test_the_value_is_put_in_the_file_that_is_named(served):
    """The proof of an explanation: change what stands there, and the value changes."""
    told = json.loads(served.run("explain", "web", "db.size", "--format", "json").stdout)
    origin = told["origins"][0]
    file = served.root / origin["file"]
    text = file.read_text().splitlines()
    assert text[origin["line"] - 1][origin["column"] - 1 :] == "size = 20"
    text[origin["line"] - 1] = "size = 21"
    served.write(origin["file"], "\n".join(text))
    served.start()
    assert served.attach().wait_version(after=1, timeout=60) == 2
    assert lines(served, "db.size")[:2] == ["db.size = 21  (web, version 2)", "  set by    conf.d/10-db.toml:2:1  21"]


def test_json_for_programs(served):
    told = json.loads(served.run("explain", "web", "service.limits.rate", "--format", "json").stdout)
    assert {key: told[key] for key in ("segment", "version", "path", "value", "current", "kept", "problems")} == {
        "segment": "web",
        "version": 1,
        "path": "service.limits.rate",
        "value": 1,
        "current": True,
        "kept": False,
        "problems": [],
    }
    assert told["files"] == {"digest": told["digest"], "present": True, "value": 1}
    assert told["origins"] == [
        {
            "shadowed": False,
            "file": "limits.toml",
            "line": 1,
            "column": 1,
            "document": 1,
            "path": "service.limits.rate",
            "value": 1,
            "uses": [],
            "anchor": None,
            "mount": {"at": "service.limits", "file": "shmconf.toml", "line": 7, "column": 27},
        }
    ]
    told = json.loads(served.run("explain", "web", "db.timeout", "--format", "json").stdout)
    assert told["origins"][0]["uses"] == [{"kind": "merge", "line": 5, "column": 3}]
    told = json.loads(served.run("explain", "web", "late", "--format", "json").stdout)
    assert told["origins"][0]["document"] == 2
    told = json.loads(served.run("explain", "web", "service", "--format", "json").stdout)
    assert [told["origins"][0][key] for key in ("file", "line", "column")] == ["shmconf.toml", 7, 27]


def test_after_an_edit_the_places_are_those_in_the_files_as_they_were(served):
    served.write("local.yaml", "# new\ndb: {size: 30}\n")
    served.write("conf.d/10-db.toml", "\n\n[db]\nuser = 'x'\n")
    served.write("base.yaml", "# moved down\n" + FILES["base.yaml"])
    assert lines(served, "db.size") == [
        "db.size = 20  (web, version 1)",
        "  note      version 1 was not made from the files as they are now, which are valid and",
        "            not published, and where the value is 30; the places are those in the files as they",
        "            were then",
        "  set by    conf.d/10-db.toml:2:1  20",
        "  shadows   base.yaml:6:3          10",
    ]
    assert any("where the value is the same;" in line for line in lines(served, "late"))
    told = json.loads(served.run("explain", "web", "db.size", "--format", "json").stdout)
    assert (told["current"], told["kept"], told["value"], told["files"]["value"]) == (False, True, 20, 30)
    assert [(each["file"], each["line"]) for each in told["origins"]] == [("conf.d/10-db.toml", 2), ("base.yaml", 6)]
    served.write("local.yaml", "db: 5\n")
    assert lines(served, "db.size")[2:] == [
        "            not published, and have no such value; the places are those in the files as they were then",
        "  set by    conf.d/10-db.toml:2:1  20",
        "  shadows   base.yaml:6:3          10",
    ]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("conf.d/10-db.toml", "[db\n", "conf.d/10-db.toml:1:4: "),
        ("conf.d/10-db.toml", "[db]\nsize = 'x'\n", 'conf.d/10-db.toml:2:1: db.size: "x" is not of type integer'),
        ("base.yaml", None, "base.yaml: does not exist"),
    ],
    ids=["syntax", "schema", "deleted"],
)
def test_the_published_value_is_explained_while_the_files_are_invalid(served, file, text, problem):
    if text is None:
        (served.root / file).unlink()
    else:
        served.write(file, text)
    result = served.run("explain", "web", "db.size")
    assert result.returncode == 0
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "db.size = 20  (web, version 1)",
        "  note      version 1 was not made from the files as they are now, which are invalid",
        "            and not published; the places are those in the files as they were then",
        "  set by    conf.d/10-db.toml:2:1  20",
        "  shadows   base.yaml:6:3          10",
    ]
    assert result.stderr.startswith(problem)
    told = json.loads(served.run("explain", "web", "db.size", "--format", "json").stdout)
    assert (told["current"], told["kept"], told["files"]) == (False, True, None)
    assert told["problems"][0]["file"] == file


def test_a_mount_is_told_from_the_history_as_long_as_the_agents_file_has_it(served):
    served.write("limits.toml", "\nrate = 2\n")
    assert lines(served, "service.limits.rate")[-2:] == [
        "  set by    limits.toml:1:1  1",
        "            mounted at service.limits by shmconf.toml:7:27",
    ]
    served.write("shmconf.toml", CONFIG.replace('at = "service.limits"', 'at = "service.caps"'))
    assert lines(served, "service.limits.rate")[-1] == "  set by    limits.toml:1:1  1"
    assert lines(served, "service")[-1] == "  set by    limits.toml  mounts limits.toml at service.limits"


def test_last_known_good_is_explained_by_what_made_it_before_the_reboot(served, eventually):
    shutil.rmtree(served.runtime)
    served.write("conf.d/10-db.toml", "[db\n")
    served.start().says("rejected")
    version = served.attach().version
    assert version > 1
    told = lines(served, "db.size")
    assert told[0] == f"db.size = 20  (web, version {version})"
    assert told[-2:] == ["  set by    conf.d/10-db.toml:2:1  20", "  shadows   base.yaml:6:3          10"]


def test_a_damaged_history_is_said_and_the_files_are_told(served):
    source = max((served.state / "web.history").glob("*.source"), key=os.path.getsize)  # of base.yaml
    source.write_bytes(source.read_bytes()[:-1])
    served.write("local.yaml", "db: {size: 30}\n")
    result = served.run("explain", "web", "db.size")
    assert result.returncode == 0
    assert "the places are those in these files, where the value is 30" in result.stdout
    assert result.stderr == f"shmconf: the history cannot tell: {source} is damaged (its checksum does not fit)\n"


def test_who_may_not_read_the_history_is_told_the_files(open_home, as_nobody, eventually):
    os.chown(open_home.state, 0, 0)
    os.chown(open_home.runtime, 0, 0)
    open_home.state.chmod(0o700)
    open_home.write("base.yaml", "a: 1\n")
    open_home.segment("base.yaml", mode="0644")
    agent = open_home.start()
    open_home.attach()
    wait_until_kept(open_home, eventually)
    agent.stop()
    open_home.write("base.yaml", "\na: 2\n")
    for before, place in (("", "base.yaml:1:1  1"), (as_nobody, "base.yaml:2:1  2")):
        result = open_home.run("explain", "web", "a", before=before)
        assert (result.returncode, result.stdout.splitlines()[-1]) == (0, f"  set by    {place}"), result.stderr
    assert result.stderr == (
        f"shmconf: the history cannot tell: cannot read {open_home.state}/web.history: Permission denied\n"
    )


def test_without_a_history_an_edit_is_told_with_what_it_says(forgotten):
    forgotten.write("local.yaml", "# new\ndb: {size: 30}\n")
    result = forgotten.run("explain", "web", "db.size")
    assert result.returncode == 0
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "db.size = 20  (web, version 1)",
        "  note      version 1 was not made from the files as they are now, which are valid and",
        "            not published; the places are those in these files, where the value is 30",
        "  set by    local.yaml:2:6         30",
        "  shadows   conf.d/10-db.toml:2:1  20",
        "  shadows   base.yaml:6:3          10",
    ]
    told = json.loads(forgotten.run("explain", "web", "db.size", "--format", "json").stdout)
    assert (told["current"], told["value"], told["files"]["value"]) == (False, 20, 30)
    assert told["files"]["digest"] != told["digest"]
    assert "where the value is the same" in forgotten.run("explain", "web", "late").stdout
    forgotten.write("local.yaml", "db: 5\n")
    assert lines(forgotten, "db.size", 1) == []
    told = forgotten.run("explain", "web", "db.size", "--format", "json")
    assert told.returncode == 1
    assert (json.loads(told.stdout)["files"]["present"], json.loads(told.stdout)["origins"]) == (False, [])


def test_bytes_that_make_the_same_are_what_is_published(served):
    served.write("conf.d/10-db.toml", "# a comment\n\n[db]\nsize = 20\n")
    assert lines(served, "db.size")[:2] == ["db.size = 20  (web, version 1)", "  set by    conf.d/10-db.toml:4:1  20"]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("conf.d/20-more.yaml", "db: [\n", "conf.d/20-more.yaml:2:1: "),
        ("conf.d/20-more.yaml", "db: {size: x}\n", 'conf.d/20-more.yaml:1:6: db.size: "x" is not of type integer'),
        ("base.yaml", None, "base.yaml: does not exist"),
    ],
)
def test_invalid_files_without_a_history_cannot_tell(forgotten, file, text, problem):
    if text is None:
        (forgotten.root / file).unlink()
    else:
        forgotten.write(file, text)
    result = forgotten.run("explain", "web", "db.size")
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith(problem), result.stderr
    assert result.stderr.splitlines()[-1] == (
        "shmconf: the files as they are now are invalid, so that they cannot tell what set db.size "
        "in version 1 of 'web'"
    )
    result = forgotten.run("explain", "web", "db.size", "--format", "json")
    assert result.returncode == 78
    told = json.loads(result.stdout)
    assert (told["value"], told["current"], told["files"], told["origins"]) == (20, False, None, [])
    assert told["problems"][0]["file"] == file


def test_what_is_not_there(served):
    result = served.run("explain", "web", "db.nothing")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "shmconf: segment 'web', version 1, has no db.nothing\n"
    assert served.run("explain", "other", "db").returncode == 69
    assert served.run("explain", "web", "a b").returncode == 2
    served.write("shmconf.toml", CONFIG.replace("segment.web", "segment.api"))
    result = served.run("explain", "web", "db")
    assert (result.returncode, result.stdout) == (2, "")
    assert "shmconf.toml has no segment 'web', only api" in result.stderr
    served.write("shmconf.toml", "[segment.web\n")
    result = served.run("explain", "web", "db")
    assert result.returncode == 78
    assert "shmconf.toml:1:13: " in result.stderr


def test_the_sources_of_an_agent_without_a_file(home):
    home.write("a.yaml", "x: 1\n")
    home.write("b.yaml", "y: 2\nx: 2\n")
    agent = home.start("run", "--segment", "web", "a.yaml", "b.yaml")
    home.attach()
    agent.stop()
    result = home.run("explain", "web", "x", "a.yaml", "b.yaml")
    assert result.stdout == (
        "x = 2  (web, version 1)\n  set by    b.yaml:2:1  2\n  shadows   a.yaml:1:1  1\n"
    )


def test_the_verbs_that_only_read_load_nothing_of_it(home):
    script = (
        "import sys, shmconf_agent.cli; heavy = ('jsonschema_rs', 'http.client', 'shmconf_agent.pipeline', "
        "'shmconf_agent.explain'); print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=home.environment(), capture_output=True, text=True, timeout=120
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
