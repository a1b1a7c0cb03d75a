"""README.md: every example is run as it stands there, and every name and number in it is a real one.

Console blocks are typed into one shell, line by line, and must print what stands below them (`…` is anything). Python
blocks are run one after the other beside an agent on the quickstart, whose files go on being edited. TOML blocks must
be what the agent accepts. Blocks of plain text are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shmconf_agent import agents_file, cli, exits, segment_table
from shmconf_agent.metrics import Metrics
from shmconf_agent.reasons import REASONS
from shmconf_agent.tally import EDIT_BUCKETS, Histogram, Standing, Totals

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PACKAGES = os.pathsep.join(str(ROOT / part) for part in ("agent", "shm"))
SECONDS = 60.0
LANGUAGES = {"c", "console", "python", "toml", "text"}
# What is proved elsewhere (installing by test_packaging, the targets by .ci/run): here, that it names what exists.
SET_UP = ("make ", "pip install ", ".ci/run")


class Block(NamedTuple):
    """A fenced block: its language, its text, the heading that it stands under, and its line."""

    language: str
    text: str
    section: str
    line: int


def blocks() -> list[Block]:
    found, section, lines = [], "", README.splitlines()
    opened: tuple[str, int] | None = None
    for number, line in enumerate(lines, start=1):
        if line.startswith("```"):
            if opened is None:
                opened = (line.removeprefix("```"), number)
            else:
                found.append(Block(opened[0], "\n".join(lines[opened[1] : number - 1]), section, opened[1]))
                opened = None
        elif opened is None and line.startswith("#"):
            section = line.lstrip("# ")
    return found


def in_language(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """(command, the lines that it must print)."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def is_set_up(block: Block) -> bool:
    return all(command.startswith(SET_UP) for command, _ in commands(block))


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has shmconf installed and stands in a checkout."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    python = shlex.quote(sys.executable)
    for name, command in {"python": python, "shmconf": f"{python} -P -m shmconf_agent"}.items():
        (binaries / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (binaries / name).chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": PACKAGES,
        "SHMCONF_DIR": str(tmp_path / "run"),
        "STATE_DIRECTORY": str(tmp_path / "state"),
    }


class Shell:
    """A shell that is typed into; whatever its commands print comes out together, as on a terminal."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def prints(self, wanted: list[str]) -> None:
        """Wait until all of this was printed, and nothing else was."""
        mark = f"-- {time.monotonic_ns()} --"
        self.type(f"echo '{mark}'")
        deadline = time.monotonic() + SECONDS
        printed: list[str] = []
        while time.monotonic() < deadline:
            printed = [line for line in self._lines if line != mark]
            if mark in self._lines and len(printed) >= len(wanted):
                break
            time.sleep(0.01)
        assert len(printed) == len(wanted), printed
        for line, pattern in zip(printed, wanted, strict=True):
            assert re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line), line
        self._lines.clear()

    def close(self) -> None:
        """End it and everything that it started."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.kill()
        self._process.wait()
        self._reader.join(SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip("\n"))


@pytest.mark.parametrize(
    "block", [block for block in in_language("console") if not is_set_up(block)], ids=lambda block: f"line {block.line}"
)
def test_console_examples_print_what_stands_there(block, tmp_path, place, require):
    require("curl" not in block.text or shutil.which("curl"), "curl is not installed")
    shell = Shell(tmp_path, place)
    try:
        for command, output in commands(block):
            shell.type(command)
            shell.prints(output)
    finally:
        shell.close()


def test_set_up_commands_name_what_there_is():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    seen = [
        shlex.split(command, comments=True)
        for block in in_language("console")
        if is_set_up(block)
        for command, _ in commands(block)
    ]
    assert seen
    for words in seen:
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "pip":
            assert all(extra in extras for extra in re.findall(r"\[(\w+)\]", words[2]))
        else:
            assert os.access(ROOT / words[0], os.X_OK)


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(tmp_path: Path, place: dict[str, str]) -> Iterator[Callable[[], None]]:
    """An agent on the quickstart; a call edits one of its files."""
    subprocess.run(["cp", "-r", ROOT / "examples" / "quickstart", "shop"], cwd=tmp_path, check=True)
    shop = tmp_path / "shop"
    agent = subprocess.Popen(["shmconf", "run"], cwd=shop, env=place, stdout=subprocess.DEVNULL)
    size = 10

    def edit() -> None:
        nonlocal size
        size = size % 100 + 1
        aside = shop / ".local.yaml"
        aside.write_text(f"db:\n  pool:\n    size: {size}\n")
        aside.replace(shop / "local.yaml")

    yield edit
    agent.terminate()
    agent.wait(SECONDS)


def ends_by_itself(block: Block) -> bool:
    return "changes" not in block.text


def python_examples() -> list[tuple[Block, str]]:
    """Each block with those before it in its section, which it builds on, as far as they come to an end."""
    found, before = [], ""
    section = ""
    for block in in_language("python"):
        if block.section != section:
            section, before = block.section, ""
        found.append((block, before))
        if ends_by_itself(block):
            before += block.text + "\n"
    return found


@pytest.mark.parametrize(
    ("block", "before"), python_examples(), ids=[f"line {block.line}" for block, _ in python_examples()]
)
def test_python_examples_run(block, before, tmp_path, place, live):
    script = tmp_path / "example.py"
    script.write_text(before + "print('--', flush=True)\n" + block.text + "\n")
    output = tmp_path / "example.out"
    with output.open("wb") as sink:
        example = subprocess.Popen(
            [sys.executable, "-u", "-P", "-W", "error", script], env=place, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + SECONDS
        while example.poll() is None:
            assert time.monotonic() < deadline, output.read_text()
            printed = output.read_text().partition("--\n")[2].splitlines()
            if not ends_by_itself(block) and len(printed) >= 3:
                break
            if "--\n" in output.read_text():
                live()
            time.sleep(0.05)
        if not ends_by_itself(block):  # the examples that go on for ever are ended as a user would
            assert len(set(printed)) >= 3, "each change is another value"
            example.send_signal(signal.SIGINT)
            example.wait(SECONDS)
            assert "KeyboardInterrupt" in output.read_text()
        else:
            assert example.returncode == 0, output.read_text()
    finally:
        example.kill()
        example.wait()


# --- C ----------------------------------------------------------------------------------------------------------------


def test_c_examples_run(tmp_path, place, live, require):
    require(shutil.which("gcc"), "a C compiler, gcc")
    [block] = in_language("c")
    (tmp_path / "example.c").write_text(block.text + "\n")
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'shm/include'}"]
    subprocess.run(["gcc", *options, "example.c", "-o", "example"], cwd=tmp_path, check=True)

    def run() -> str:
        return subprocess.run([tmp_path / "example"], env=place, capture_output=True, text=True, check=False).stdout

    deadline = time.monotonic() + SECONDS
    while not re.fullmatch(r"the pool has \d+\n", run()):
        assert time.monotonic() < deadline, run()
        time.sleep(0.05)


# --- what is named ----------------------------------------------------------------------------------------------------


def table(section: str, column: str) -> list[list[str]]:
    """The rows of the table in a section whose first heading is this."""
    body = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = body.split(f"| {column} |")[1].splitlines()[2:]
    found = []
    for row in rows:
        if not row.startswith("|"):
            break
        found.append([cell.strip() for cell in row.strip("|").split(" | ")])
    return found


def test_every_block_is_of_a_kind_that_is_looked_at():
    assert {block.language for block in blocks()} == LANGUAGES


@pytest.mark.parametrize("block", in_language("toml"), ids=lambda block: f"line {block.line}")
def test_toml_examples_are_what_the_agent_accepts(block, tmp_path):
    file = tmp_path / "shmconf.toml"
    file.write_text(block.text)
    [segment] = agents_file.load(file).segments
    assert segment.name == "web"


def test_toml_examples_show_every_setting():
    shown = [key for block in in_language("toml") for key in tomllib.loads(block.text)["segment"]["web"]]
    assert set(shown) == set(segment_table.SEGMENT_KEYS)


def test_the_commands_are_those_that_there_are():
    named = {re.findall(r"`(\w+)", verb)[0] for verb, _ in table("Commands", "verb")}
    assert named == set(cli.main.list_commands(click.Context(cli.main)))


def test_the_exit_codes_are_those_that_there_are():
    named = {int(code) for code, _ in table("Commands", "exit code")}
    assert named == {value for name, value in vars(exits).items() if name.isupper()}


def test_the_metrics_are_those_that_there_are():
    made = Totals(Standing(1, "d"), stages={"parse": Histogram.empty(EDIT_BUCKETS)})
    found = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type): {
            label for sample in family.samples for label in sample.labels
        }
        - {"segment", "le"}
        for family in text_string_to_metric_families(Metrics(lambda: {"web": made}).of_segments().decode())
    }
    told = {}
    for metric, kind, _ in table("Observing", "metric"):
        [(name, labels)] = re.findall(r"`(\w+)(?:\{(\w+)\})?`", metric)
        told[name, kind] = {labels} - {""}
    assert told == found
    prose = README.split("The reason of a refusal is")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", prose.split("A file's times")[0]) == list(REASONS)


def test_the_states_are_those_of_the_status_command():
    source = (ROOT / "agent/shmconf_agent/render.py").read_text()
    word = source.split("def status_word(")[1].split("\ndef ")[0]
    assert {row[0] for row in table("What the states mean", "`shmconf status` says")} == set(
        re.findall(r'return "([^"]+)"', word)
    )


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    here = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    lost = [link for link in links if not (link.startswith("https://") or link in here or (ROOT / link).exists())]
    assert lost == []


def test_the_systemd_lines_name_files_that_there_are():
    named = [name for block in in_language("text") for name in re.findall(r" (systemd/[\w./-]+)", block.text)]
    assert len(named) == 4
    assert all((ROOT / name).is_file() for name in named)


def test_the_systemd_lines_are_those_of_the_manual_which_a_real_systemd_runs():
    """test_service types the manual's lines; README has the same ones as they are typed in a checkout."""
    manual = (ROOT / "systemd/README.md").read_text("utf-8").split("\n## Every day\n")[0]
    typed = {part for line in re.findall(r"^# (.*)$", manual, re.MULTILINE) for part in line.split(" && ")}
    typed |= {part.replace(" shmconf@.service", "") for part in typed}
    [block] = [each for each in in_language("text") if each.section == "Under systemd"]
    lines = [line.removeprefix("# ").split("    #")[0] for line in block.text.splitlines()]
    parts = [part.replace(" systemd/", " ") for line in lines for part in line.split(" && ")]
    others = [part for part in parts if part not in typed]
    assert others == ["cp -r examples/quickstart/. /etc/shmconf"]
    assert "`cp -r ../examples/quickstart/. /etc/shmconf`" in manual
    assert len(parts) > 10


def test_the_changelog_knows_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
