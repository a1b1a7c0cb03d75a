"""The TAB key: what shells are offered, by the protocol that each speaks, and the shells themselves at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shmconf_agent.cli import main
from tests.system.conftest import RUN_MAIN

VERBS = tuple(main.commands)
TREE = """
db: {pool: {size: completed-10}, host: db1, password: tiger}
dbs: [one, two]
"a.b": {c: 1}
1: no text leads here
limits: {paths: {/login: slashed, "it's": 1}}
"""
CODES = re.compile(r"\x1b(\[[0-9;?=>]*[A-Za-z]|[()][A-Z0-9]|[=>]|\][^\x07\x1b]*(\x07|\x1b\\))")
SOURCES = {
    "bash": 'eval "$(_SHMCONF_COMPLETE=bash_source shmconf)"',
    "zsh": 'autoload -Uz compinit; compinit -u; eval "$(_SHMCONF_COMPLETE=zsh_source shmconf)"',
    "fish": "_SHMCONF_COMPLETE=fish_source shmconf | source",
}
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}


@pytest.fixture(scope="module")
def served(module_home):
    """A home whose agent serves two segments, and a directory with the command `shmconf` for its runtime directory."""
    home = module_home("served")
    home.write("base.yaml", TREE)
    for name in ("web", "web-two"):
        home.segment("base.yaml", name=name)
    home.start()
    for name in ("web", "web-two"):
        home.attach(name)
    script = home.write("bin/shmconf", f"#!/bin/sh\nexec {sys.executable} -P -c {shlex.quote(RUN_MAIN)} \"$@\"\n")
    script.chmod(0o755)
    return home


def environment(home, **settings):
    path = f"{home.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return home.environment(PATH=path, SHMCONF_DIR=str(home.runtime), HOME=str(home.root), PYTHONUTF8="1", **settings)


def offers(home, line, shell="bash", **settings):
    """What the shell is told at a TAB behind the line, and nothing on stderr."""
    words = line.split(" ")
    told = {"_SHMCONF_COMPLETE": f"{shell}_complete", "COMP_WORDS": line}
    told["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words) - 1)
    settings = environment(home, **told, **settings)
    result = subprocess.run(["shmconf"], cwd=home.root, env=settings, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, ""), line
    return result.stdout.splitlines()


def plain(home, line, **settings):
    found = [each for each in offers(home, line, **settings) if each]
    assert all(each.startswith("plain,") for each in found), found
    return [each.removeprefix("plain,") for each in found]


def test_verbs_and_options(served):
    assert set(VERBS) <= set(plain(served, "shmconf "))
    assert plain(served, "shmconf rel") == ["reload"]
    assert plain(served, "shmconf get web --for") == ["--format"]
    assert plain(served, "shmconf get web --format ") == ["yaml", "json", "raw"]


@pytest.mark.parametrize("verb", ["get", "watch", "status", "explain", "reload", "diff", "history", "check --segment"])
def test_segments(served, verb):
    assert plain(served, f"shmconf {verb} w") == ["web", "web-two"]
    assert plain(served, f"shmconf {verb} web-") == ["web-two"]


def test_the_options_before_the_verb_say_where_segments_are(served, tmp_path):
    elsewhere = {"SHMCONF_DIR": str(tmp_path)}
    result = subprocess.run(
        ["shmconf"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        env=environment(served) | elsewhere | {
            "_SHMCONF_COMPLETE": "bash_complete", "COMP_CWORD": "4",
            "COMP_WORDS": f"shmconf --runtime-dir {served.runtime} get w",
        },
    )  # fmt: skip
    assert result.stdout.splitlines() == ["plain,web", "plain,web-two"]


@pytest.mark.parametrize("verb", ["watch", "explain"])
def test_verbs_with_a_path(served, verb):
    assert plain(served, f"shmconf {verb} web db.po") == ["db.pool", "db.pool.size"]


def test_paths(served):
    """One level at a time; where just one key fits, what is below it as well."""
    assert plain(served, "shmconf get web ") == ["db", "dbs", "'\"a.b\"'", "limits"]
    assert plain(served, "shmconf get web d") == ["db", "dbs"]
    assert plain(served, "shmconf get web db.p") == ["db.pool", "db.password"]
    assert plain(served, "shmconf get web db.po") == ["db.pool", "db.pool.size"]
    assert plain(served, "shmconf get web db.pool.size") == ["db.pool.size"]
    assert plain(served, "shmconf get web dbs") == ["dbs", "dbs.0", "dbs.1"]
    assert plain(served, "shmconf get web dbs.") == ["dbs.0", "dbs.1"]
    assert plain(served, "shmconf get web l") == ["limits", "limits.paths"]
    assert plain(served, "shmconf get web x") == []


def test_kept_versions(served, eventually):
    eventually(lambda: list((served.state / "web.history").glob("*.version")), "version 1 is kept")
    state = f"shmconf --state-dir {served.state}"
    assert plain(served, f"{state} diff web ") == ["1"]
    assert plain(served, f"{state} diff web 1 ") == ["1"]
    assert plain(served, f"{state} rollback web ") == ["1"]
    assert plain(served, f"{state} diff web 2") == []
    assert re.fullmatch(r"plain,1\t[-0-9]+T[0-9:.]+Z", offers(served, f"{state} diff web ", shell="fish")[0])


def test_values_are_not_shown(served):
    for shell in SHELLS:
        assert "tiger" not in "".join(offers(served, "shmconf get web db.", shell=shell))
    assert offers(served, "shmconf get web db.pa", shell="fish") == ["plain,db.password\tstr"]
    assert offers(served, "shmconf get web db.po", shell="zsh")[:3] == ["plain", "db.pool", "map of 1"]


def test_files_and_directories(served):
    assert offers(served, "shmconf check --segment web ba") == ["file,ba"]
    assert offers(served, "shmconf explain web db.host ba") == ["file,ba"]
    assert offers(served, "shmconf --config sh") == ["file,sh"]
    assert offers(served, "shmconf --state-dir st") == ["dir,st"]


def test_where_nothing_can_be_offered_nothing_is_said(served, home):
    """Not a word on stderr: it would stand in the line that is being typed."""
    (home.root / "shmconf.toml").write_text("not [ TOML")
    home.runtime.mkdir()
    (home.runtime / "web.shmconf").write_bytes(b"damaged")
    nothing = {"SHMCONF_DIR": str(home.runtime)}
    for line in ("shmconf get web ", "shmconf get absent d", "shmconf get ../x d", "shmconf reload web --accept "):
        command = subprocess.run(
            [str(served.root / "bin/shmconf")], cwd=home.root, capture_output=True, text=True, timeout=120,
            env=environment(served) | nothing | {
                "_SHMCONF_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1),
            },
        )  # fmt: skip
        assert (command.returncode, command.stdout.strip(), command.stderr) == (0, "", ""), line


def test_the_digest_that_may_be_accepted(home, served, eventually):
    home.write("base.yaml", "a: 1\nb: 2\n")
    home.segment("base.yaml")
    home.write("shmconf.toml", (home.root / "shmconf.toml").read_text() + "[segment.web.guard]\nfrozen = ['a']\n")
    home.start()
    reader = home.attach()
    home.write("base.yaml", "a: 2\nb: 2\n")
    held = eventually(lambda: reader.status().held, "a held candidate")
    settings = {"_SHMCONF_COMPLETE": "bash_complete", "COMP_WORDS": "shmconf reload web --accept ", "COMP_CWORD": "4"}
    command = [str(served.root / "bin/shmconf")]
    told = environment(served) | settings | {"SHMCONF_DIR": str(home.runtime)}
    shown = subprocess.run(command, cwd=home.root, env=told, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout == f"plain,{held}\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_readme_says_what_is_tried_here(shell):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (line,) = [line.partition("  #")[0] for line in readme.splitlines() if f"_SHMCONF_COMPLETE={shell}_source" in line]
    assert SOURCES[shell].endswith(line.strip())


class Typist:
    """An interactive shell at a terminal of its own, and who types there."""

    def __init__(self, command, cwd, environment):
        self._screen, end = pty.openpty()
        try:
            self.process = subprocess.Popen(  # the terminal is its own, or fish does not go on
                ["setsid", "--ctty", *command], cwd=cwd, env=environment, stdin=end, stdout=end, stderr=end
            )
        finally:
            os.close(end)
        os.set_blocking(self._screen, False)
        self._seen = ""

    def type(self, text):
        self._seen = ""
        os.write(self._screen, text.encode())

    def sees(self, text):
        """Waits until the text stands on the screen, since it was last typed."""
        deadline = time.monotonic() + 60
        while text not in self.shown():
            assert time.monotonic() < deadline, f"{text!r} was to come, but: {self._seen!r}"
            assert self.process.poll() is None, self._seen
            time.sleep(0.02)

    def shown(self):
        with contextlib.suppress(BlockingIOError):
            self._seen += os.read(self._screen, 65536).decode(errors="replace")
        return CODES.sub("", self._seen).replace("\r", "").replace("\b", "")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


@pytest.mark.parametrize("shell", SHELLS)
def test_in_the_shell_itself(served, require, shell):
    """A segment, a verb and a path are completed on the line, and the line does what it says."""
    require(shutil.which(shell), f"{shell} for its completion")
    typist = Typist(SHELLS[shell], served.root, environment(served, TERM="xterm", PS1="$ "))
    try:
        typist.type(SOURCES[shell] + "; echo read''y\n")
        typist.sees("ready")
        typist.type("shmconf ge\tweb db.pool.s\t")
        typist.sees("size")
        typist.type("\n")
        typist.sees("completed-10")
        typist.type("shmconf get web limits.paths.\t")
        if shell == "bash":  # it cannot go on from half a word without quotes: both offers begin with one
            typist.type("\x15shmconf get web 'limits.paths.\"/l\t")
        else:
            typist.type('"/l\t' if shell == "fish" else '\x15shmconf get web limits.paths.\\"/l\t')
        typist.sees("login")
        typist.type("\n")
        typist.sees("slashed")
    finally:
        typist.close()
