"""What references find on the disk and in the environment, and what is said when that is not what it should be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf_agent import reading, sources
from shmconf_agent.config import SegmentConfig, Source, Substitution
from shmconf_agent.disk import Reading
from shmconf_agent.formats.limits import DEFAULT_LIMITS, Limits
from shmconf_agent.pipeline import Candidate, Pipeline
from shmconf_agent.problems import Code, Invalid, Problem
from shmconf_agent.progress import Progress
from shmconf_agent.settle import GRACE_S, QUIET_S
from shmconf_agent.sources import SourceFiles, View
from shmconf_agent.trial import try_segment
from shmconf_agent.watch import Hint, Kind


class Bench:
    """One segment with substitution on a clock of the test's own. Files' own times never count as quiet."""

    rescan_s = 1.0

    def __init__(
        self,
        base: Path,
        text: str,
        *,
        env: tuple[str, ...] = (),
        roots: tuple[str, ...] = ("secrets",),
        limits: Limits = DEFAULT_LIMITS,
        also: tuple[str, ...] = (),
    ) -> None:
        self.base = base
        self.secrets = base / "secrets"
        self.secrets.mkdir(exist_ok=True)
        self.now = 1000.0
        self.hints: list[Hint] = []
        self.write(text)
        self.config = SegmentConfig(
            "web",
            base,
            tuple(map(Source, ("a.yaml", *also))),
            substitution=Substitution(env, roots),
            limits=limits,
        )
        self.pipeline = Pipeline(self.config)
        progress = Progress()
        self.files = SourceFiles(
            self.config,
            hints=self,
            references=lambda layers: self.pipeline.references(layers, progress),
            now=lambda: self.now,
            wall_ns=lambda: 0,
        )

    def write(self, text: str) -> None:
        aside = self.base / ".a"
        aside.write_text(text)
        aside.replace(self.base / "a.yaml")
        self.hints.append(Hint(Kind.MOVED_TO, os.path.realpath(self.base / "a.yaml"), self.now))

    def put(self, name: str, data: bytes) -> Path:
        """A secret, put in place at once."""
        path = self.secrets / name
        aside = self.secrets / ".aside"
        aside.write_bytes(data)
        aside.replace(path)
        self.hints.append(Hint(Kind.MOVED_TO, os.path.realpath(path), self.now))
        return path

    def drain(self) -> list[Hint]:
        hints, self.hints = self.hints, []
        return hints

    def look(self) -> View:
        return self.files.look()

    def all(self) -> View:
        return self.files.look(at_once=True)

    def run(self, view: View | None = None) -> Candidate:
        return self.pipeline.run(view or self.all(), Progress())

    def tree(self, view: View | None = None) -> dict[Any, Any]:
        return self.run(view).tree

    def problems(self, view: View | None = None) -> tuple[Problem, ...]:
        with pytest.raises(Invalid) as caught:
            self.run(view)
        return caught.value.problems

    def problem(self) -> Problem:
        [problem] = self.problems()
        return problem


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A few variables, and a directory of credentials."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, value in {"PORT": "8080", "TEXT": "0123", "EMPTY": "", "HIDDEN": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    return credentials


ALLOWED = ("PORT", "TEXT", "EMPTY", "UNSET", "BYTES")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:PORT}", 8080),
        ("http://h:${env:PORT}/", "http://h:8080/"),
        ("${env:TEXT}", "0123"),
        ("${env:UNSET:-7}", 7),
        ("${env:UNSET:-a b}", "a b"),
        ("${env:UNSET:-}", ""),
        ("${env:EMPTY:-true}", True),
        ("${env:EMPTY}", ""),
        ("${env:PORT:-1}", 8080),
    ],
)
@pytest.mark.usefixtures("environment")
def test_variables(tmp_path: Path, written: str, value: object) -> None:
    bench = Bench(tmp_path, f"a: '{written}'\n", env=ALLOWED)
    tree = bench.tree()
    assert tree == {"a": value}
    assert type(tree["a"]) is type(value)
    assert bench.run().secret_paths == ()


@pytest.mark.parametrize(
    ("written", "code", "said"),
    [
        ("${env:UNSET}", Code.REFERENCE_MISSING, "a: ${env:UNSET} is not set in the environment of this process"),
        ("${env:HIDDEN}", Code.REFERENCE_NOT_ALLOWED, "a: ${env:HIDDEN} is not named in 'substitute_env'"),
        ("${env:HIDDEN:-x}", Code.REFERENCE_NOT_ALLOWED, "a: ${env:HIDDEN} is not named in 'substitute_env'"),
        ("${env:BYTES}", Code.REFERENCE_TEXT, "a: ${env:BYTES} is not UTF-8 text"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_variables_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, code: Code, said: str
) -> None:
    monkeypatch.setitem(os.environ, "BYTES", "\udcff")
    problem = Bench(tmp_path, f"b: 1\na: '{written}'\n", env=ALLOWED).problem()
    assert (problem.code, problem.file, problem.line, problem.column) == (code, "a.yaml", 2, 4)
    assert problem.message == said
    assert problem.path == ("a",)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n"),
        (b" a \n", " a "),
        (b"12345\n", "12345"),
        (b"true", "true"),
        (b"0123", "0123"),
        (b"1e3", "1e3"),
        (b"NO", "NO"),
        (b"\xef\xbb\xbfbom\n", "bom"),
        (b"${env:PORT} $${", "${env:PORT} $${"),
        ("grüße".encode(), "grüße"),
        (b"x" * 65536, "x" * 65536),
    ],
)
@pytest.mark.parametrize("kind", ["file", "credential"])
def test_a_file_or_credential_is_text_and_secret(
    tmp_path: Path, environment: Path, kind: str, data: bytes, value: str
) -> None:
    name = "secrets/db" if kind == "file" else "db"
    bench = Bench(tmp_path, f"a: ${{{kind}:{name}:-default}}\nb: [1, 'x${{{kind}:{name}}}x']\n")
    (bench.secrets if kind == "file" else environment).joinpath("db").write_bytes(data)
    candidate = bench.run()
    assert candidate.tree == {"a": value, "b": [1, f"x{value}x"]}
    assert candidate.secret_paths == (("a",), ("b", 1))
    assert codec.unpack(candidate.document.payload) == candidate.tree


def test_an_absolute_path_under_a_root(tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"a: ${{file:{tmp_path}/secrets/../secrets/db}}\n", roots=(str(tmp_path / "secrets"),))
    bench.put("db", b"s3cret")
    assert bench.tree() == {"a": "s3cret"}


def test_a_default_is_used_where_nothing_is_there_or_it_is_empty_and_is_no_secret(
    tmp_path: Path, environment: Path
) -> None:
    text = "a: ${file:secrets/none:-5}\nb: ${credential:none:-x}\nc: ${file:secrets/empty:-}\n"
    bench = Bench(tmp_path, text + "d: ${file:secrets/link:-y}\n")
    bench.put("empty", b"\n")
    (bench.secrets / "link").symlink_to("nothing")
    candidate = bench.run()
    assert candidate.tree == {"a": 5, "b": "x", "c": "", "d": "y"}
    assert candidate.secret_paths == ()
    assert environment.exists()


def test_credentials_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert Bench(tmp_path, "a: ${credential:db:-x}\n").tree() == {"a": "x"}
    problem = Bench(tmp_path, "a: ${credential:db}\n").problem()
    assert problem.code is Code.REFERENCE_MISSING
    assert "$CREDENTIALS_DIRECTORY is not set for this process" in problem.message


def hostile(secrets: Path, name: str) -> None:
    path = secrets / name
    match name:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "directory":
            path.mkdir()
        case "large":
            path.write_bytes(b"x" * 65537)
        case "huge":
            path.touch()
            os.truncate(path, 2**40)
        case "binary":
            path.write_bytes(b"\xff\xfe")
        case "null":
            path.write_bytes(b"a\0b")
        case "empty":
            path.touch()
        case "circle":
            path.symlink_to("circle")
        case "outside":
            path.symlink_to("/etc/passwd")
        case "above":
            path.symlink_to("../a.yaml")
        case "dangling":
            path.symlink_to("nothing")
        case "dangling outside":
            path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("pipe", Code.REFERENCE_UNREADABLE, "is a named pipe, not a regular file"),
        ("device", Code.REFERENCE_NOT_ALLOWED, "leads to no place under 'substitute_roots'"),
        ("directory", Code.REFERENCE_UNREADABLE, "is a directory, not a regular file"),
        ("large", Code.REFERENCE_LIMIT, "has more than 65,536 bytes"),
        ("huge", Code.REFERENCE_LIMIT, "has more than 65,536 bytes"),
        ("binary", Code.REFERENCE_TEXT, "is not UTF-8 text"),
        ("null", Code.REFERENCE_TEXT, "is not text: it has a null character"),
        ("empty", Code.REFERENCE_EMPTY, "is empty"),
        ("circle", Code.REFERENCE_UNREADABLE, ": its symbolic links lead in a circle"),
        ("outside", Code.REFERENCE_NOT_ALLOWED, "leads to no place under 'substitute_roots'"),
        ("above", Code.REFERENCE_NOT_ALLOWED, "leads to no place under 'substitute_roots'"),
        ("dangling", Code.REFERENCE_MISSING, ": its symbolic link leads to nothing"),
        ("dangling outside", Code.REFERENCE_NOT_ALLOWED, "leads to no place under 'substitute_roots'"),
        ("missing", Code.REFERENCE_MISSING, "does not exist"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, code: Code, said: str) -> None:
    bench = Bench(tmp_path, f"b: 1\nlist:\n  - 'x ${{file:secrets/{name}}}'\n")
    hostile(bench.secrets, name)
    problem = bench.problem()
    assert (problem.code, problem.file, problem.line, problem.column) == (code, "a.yaml", 3, 5)
    assert f"list.0: ${{file:secrets/{name}}}" in problem.message
    assert said in problem.message


@pytest.mark.parametrize("default", [":-x", ""])
@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "secrets/../a.yaml", "/nowhere", "secrets"])
def test_a_path_that_leaves_the_roots_is_refused_whether_it_exists_or_not(
    tmp_path: Path, path: str, default: str
) -> None:
    assert Bench(tmp_path, f"a: ${{file:{path}{default}}}\n").problem().code is Code.REFERENCE_NOT_ALLOWED


@pytest.mark.parametrize("path", ["{outside}/a", "secrets/link", "{outside}/nothing"])
def test_what_may_not_be_read_chooses_no_directory_to_watch(tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("x")
    base = tmp_path / "base"
    base.mkdir()
    bench = Bench(base, f"a: ${{file:{path.format(outside=outside)}}}\n")
    (bench.secrets / "link").symlink_to(outside / "a")
    for _ in range(3):
        view = bench.all()
        assert [problem.code for problem in bench.problems(view)] == [Code.REFERENCE_NOT_ALLOWED]
        assert os.path.realpath(base) in view.directories
        assert os.path.realpath(outside) not in view.directories


def test_a_link_that_led_out_of_the_roots_and_does_no_more_is_seen_and_watched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n")
    (bench.secrets / "db").symlink_to("/nowhere/at/all")
    view = bench.all()
    assert [problem.code for problem in bench.problems(view)] == [Code.REFERENCE_NOT_ALLOWED]
    bench.files.reject(view)
    bench.look()
    (bench.secrets / "real").write_bytes(b"s3cret")
    (bench.secrets / "aside").symlink_to("real")
    (bench.secrets / "aside").rename(bench.secrets / "db")  # and nobody hears of it
    bench.look()
    bench.now += QUIET_S
    view = bench.look()
    assert bench.tree(view) == {"a": "s3cret"}
    assert view.directories[os.path.realpath(bench.secrets)].covers("db")


def test_a_source_that_is_also_named_where_it_may_not_be_is_watched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: ${file:a.yaml}\n")
    for _ in range(3):
        assert bench.all().directories[os.path.realpath(tmp_path)].covers("a.yaml")
    assert bench.problem().code is Code.REFERENCE_NOT_ALLOWED


def test_the_limit_of_sources_is_none_of_secrets(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n", limits=Limits(max_file_bytes=1024))
    bench.put("db", b"x" * 2000)
    assert bench.tree() == {"a": "x" * 2000}
    bench.put("db", b"x" * 65537)
    assert "has more than 65,536 bytes" in bench.problem().message


def test_a_source_beyond_its_limit_that_is_also_named_says_so(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("b: 1\n" + "#" * 2000)
    bench = Bench(tmp_path, "a: ${file:b.yaml}\n", roots=(".",), limits=Limits(max_file_bytes=1024), also=("b.yaml",))
    told = [str(problem) for problem in bench.problems()]
    assert len(told) == 2
    assert all("2,005 bytes, more than the limit max_file_bytes = 1,024" in each for each in told)


def test_without_roots_no_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n", roots=())
    bench.put("db", b"s3cret")
    opened: list[str] = []
    real = reading.read
    monkeypatch.setattr(sources, "read", lambda path, *more, **named: opened.append(path) or real(path, *more, **named))
    problem = bench.problem()
    assert problem.code is Code.REFERENCE_NOT_ALLOWED
    assert "name the directories that files may be taken from" in str(problem)
    assert {os.path.basename(path) for path in opened} == {"a.yaml"}


def test_a_credential_that_leads_out_of_their_directory_is_refused(tmp_path: Path, environment: Path) -> None:
    (environment / "db").symlink_to("/etc/passwd")
    problem = Bench(tmp_path, "a: ${credential:db}\n").problem()
    assert problem.code is Code.REFERENCE_NOT_ALLOWED
    assert "leads out of $CREDENTIALS_DIRECTORY" in problem.message


def test_a_secret_without_permission(nobody: Path) -> None:
    bench = Bench(nobody, "a: ${file:secrets/db}\n")
    bench.put("db", b"s3cret").chmod(0)
    problem = bench.problem()
    assert problem.code is Code.REFERENCE_UNREADABLE
    assert "permission denied" in problem.message


def test_a_directory_that_becomes_a_link_between_look_and_open_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/in/db}\n")
    inside, elsewhere = bench.secrets / "in", tmp_path / "elsewhere"
    for directory, data in {inside: "s3cret", elsewhere: "stolen"}.items():
        directory.mkdir()
        (directory / "db").write_text(data)
    real = reading.read
    readings: list[Reading] = []

    def read(path: str, *more: Any, **named: Any) -> Reading:
        if not path.endswith("/in/db"):
            return real(path, *more, **named)
        inside.rename(bench.secrets / "was")
        inside.symlink_to("../elsewhere")
        readings.append(real(path, *more, **named))
        inside.unlink()
        (bench.secrets / "was").rename(inside)
        return readings[-1]

    monkeypatch.setattr(sources, "read", read)
    view = bench.all()
    assert readings
    assert all(reading.data is None for reading in readings)
    assert not any(file.data for file in view.references.values())
    monkeypatch.undo()
    assert bench.tree() == {"a": "s3cret"}


def test_roots_that_lead_elsewhere_now(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n", roots=("root",))
    bench.put("db", b"s3cret")
    (tmp_path / "root").symlink_to("one")
    assert bench.problem().code is Code.REFERENCE_NOT_ALLOWED
    (tmp_path / "root").unlink()
    (tmp_path / "root").symlink_to("secrets")
    assert bench.tree() == {"a": "s3cret"}
    (tmp_path / "root").unlink()
    (tmp_path / "root").symlink_to("one")
    assert bench.problem().code is Code.REFERENCE_NOT_ALLOWED


def test_roots_that_lead_elsewhere_are_noticed_at_rest(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "root").symlink_to("secrets")
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n", roots=("root",))
    bench.put("db", b"s3cret")
    view = bench.all()
    assert bench.tree(view) == {"a": "s3cret"}
    bench.files.accept(view)
    bench.look()
    assert bench.look().fingerprint == view.fingerprint
    (tmp_path / "root").unlink()
    (tmp_path / "root").symlink_to("one")
    assert [problem.code for problem in bench.problems(bench.look())] == [Code.REFERENCE_NOT_ALLOWED]


def test_every_problem_of_every_file_is_told_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "z: ${env:NO}\na: ['${file:secrets/x}', '${foo}']\n")
    (tmp_path / "b.toml").write_text('c = "${credential:a/b}"\nd = "${env:NO}"\n')
    (tmp_path / "c.json").write_text('{\n "e": "${file:/etc/passwd}"}')
    config = SegmentConfig(
        "web",
        tmp_path,
        (Source("a.yaml"), Source("b.toml", at=("m", "n")), Source("c.json")),
        substitution=bench.config.substitution,
    )
    assert [(each.file, each.line, each.column, each.path) for each in try_segment(config, Progress()).problems] == [
        ("a.yaml", 1, 4, ("z",)),
        ("a.yaml", 2, 5, ("a", 0)),
        ("a.yaml", 2, 26, ("a", 1)),
        ("b.toml", 1, 5, ("m", "n", "c")),
        ("b.toml", 2, 5, ("m", "n", "d")),
        ("c.json", 2, 7, ("e",)),
    ]


def test_without_substitution_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: ${env:HOME} ${bad $${\n")
    config = SegmentConfig("web", tmp_path, (Source("a.yaml"),))
    verdict = try_segment(config, Progress()).verdict
    assert isinstance(verdict, Candidate)
    assert verdict.tree == {"a": "${env:HOME} ${bad $${"}


def test_more_files_than_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_NAMED", 2)
    bench = Bench(tmp_path, "a: ['${file:secrets/1}', '${file:secrets/2}', '${file:secrets/1}', '${file:secrets/3}']\n")
    for name in "123":
        bench.put(name, b"x")
    problem = bench.problem()
    assert (problem.code, problem.path) == (Code.REFERENCE_LIMIT, ("a", 3))


# --- followed like sources --------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, "a: ${file:secrets/db}\nb: 1\n")
    made.put("db", b"one\n")
    view = made.all()
    assert made.tree(view) == {"a": "one", "b": 1}
    made.files.accept(view)
    return made


def test_a_new_secret_is_a_change_of_that_file(bench: Bench) -> None:
    before = bench.look()
    bench.put("db", b"two\n")
    view = bench.look()
    assert view.fingerprint != before.fingerprint
    assert view.changed == ("secrets/db",)
    assert bench.tree(view) == {"a": "two", "b": 1}


def test_its_directories_are_watched(bench: Bench) -> None:
    assert bench.look().directories[os.path.realpath(bench.secrets)].covers("db")


def test_a_secret_written_in_place_is_taken_when_it_is_whole(bench: Bench) -> None:
    path = bench.secrets / "db"
    path.write_bytes(b"tw")
    bench.hints.append(Hint(Kind.MODIFIED, os.path.realpath(path), bench.now))
    view = bench.look()
    assert [flux.file for flux in view.in_flux] == ["secrets/db"]
    assert bench.tree(view) == {"a": "one", "b": 1}
    path.write_bytes(b"two")
    bench.hints.append(Hint(Kind.MODIFIED, os.path.realpath(path), bench.now))
    bench.now += QUIET_S / 2
    assert bench.tree(bench.look())["a"] == "one"
    bench.hints.append(Hint(Kind.CLOSED, os.path.realpath(path), bench.now))
    view = bench.look()
    assert view.in_flux == ()
    assert bench.tree(view)["a"] == "two"


def test_a_secret_that_vanishes_is_missed_after_a_grace(bench: Bench) -> None:
    (bench.secrets / "db").unlink()
    view = bench.look()
    assert [(flux.file, flux.vanished) for flux in view.in_flux] == [("secrets/db", True)]
    assert bench.tree(view)["a"] == "one"
    bench.now += GRACE_S
    assert [problem.code for problem in bench.problems(bench.look())] == [Code.REFERENCE_MISSING]
    bench.put("db", b"back")
    assert bench.tree(bench.look())["a"] == "back"


def test_a_directory_of_links_as_kubernetes_swaps_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n")
    for name, data in {"..1": "one", "..2": "two"}.items():
        (bench.secrets / name).mkdir()
        (bench.secrets / name / "db").write_text(data)
    (bench.secrets / "..data").symlink_to("..1")
    (bench.secrets / "db").symlink_to("..data/db")
    view = bench.all()
    assert bench.tree(view) == {"a": "one"}
    bench.files.accept(view)
    assert {f"{bench.secrets}", f"{bench.secrets}/..1"} <= view.directories.keys()
    (bench.secrets / "..tmp").symlink_to("..2")
    (bench.secrets / "..tmp").rename(bench.secrets / "..data")
    bench.hints.append(Hint(Kind.MOVED_TO, f"{os.path.realpath(bench.secrets)}/..data", bench.now))
    view = bench.look()
    assert view.in_flux == ()
    assert view.changed == ("secrets/db",)
    assert bench.tree(view) == {"a": "two"}


def test_a_reference_that_is_gone_is_followed_no_more(bench: Bench) -> None:
    bench.write("a: 2\nb: 1\n")
    view = bench.look()
    assert view.changed == ("a.yaml", "secrets/db")
    assert bench.tree(view) == {"a": 2, "b": 1}
    bench.files.accept(view)
    bench.put("db", b"unheeded")
    later = bench.look()
    assert later.fingerprint == view.fingerprint
    assert os.path.realpath(bench.secrets) not in later.directories


def test_a_new_reference_is_followed_in_the_look_that_finds_it(bench: Bench) -> None:
    bench.put("other", b"new")
    bench.write("a: ${file:secrets/db}\nb: ${file:secrets/other}\n")
    assert bench.tree(bench.all()) == {"a": "one", "b": "new"}


def test_a_file_that_is_a_source_and_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: 1\nb: '${file:a.yaml}'\n", roots=(".",))
    assert bench.tree() == {"a": 1, "b": "a: 1\nb: '${file:a.yaml}'"}


# --- nothing is done twice --------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, what: str) -> list[object]:
    calls: list[object] = []
    module, name = what.rsplit(".", 1)
    target = __import__(f"shmconf_agent.{module}", fromlist=[name])
    real = getattr(target, name)
    monkeypatch.setattr(target, name, lambda *more, **named: calls.append(more) or real(*more, **named))
    return calls


def test_a_new_secret_parses_nothing_and_replaces_only_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\n--- \nb: ${file:secrets/other}\nc: {d: 1}\n")
    bench.put("db", b"one")
    bench.put("other", b"other")
    view = bench.all()
    before = bench.tree(view)
    bench.files.accept(view)
    parsed = counted(monkeypatch, "formats.parse_documents")
    replaced = counted(monkeypatch, "replacement.replace")
    bench.put("db", b"two")
    after = bench.tree(bench.look())
    assert after == {"a": "two", "b": "other", "c": {"d": 1}}
    assert after["c"] is before["c"]
    assert parsed == []
    assert len(replaced) == 1
    bench.tree(bench.look())
    assert len(replaced) == 1


# --- told without the secret ------------------------------------------------------------------------------------------


def test_what_the_schema_says_names_no_secret(tmp_path: Path) -> None:
    text = "a: ${file:secrets/db}\nb: ['x${file:secrets/db}']\nc: plain\nd: ${file:secrets/db}\n"
    bench = Bench(tmp_path, text + "e: {f: '${file:secrets/db}'}\n")
    bench.put("db", b"hunter2hunter2")
    (tmp_path / "schema.json").write_text(
        '{"properties": {"a": {"type": "integer"}, "b": {"items": {"enum": ["hunter2hunter3", "y"]}}, '
        '"c": {"const": "other"}, "d": {"anyOf": [{"maxLength": 3}, {"pattern": "^x"}]}, '
        '"e": {"const": {"f": "g"}}}}'
    )
    config = SegmentConfig(
        "web", tmp_path, (Source("a.yaml"),), schema="schema.json", substitution=bench.config.substitution
    )
    told = "\n".join(str(problem) for problem in try_segment(config, Progress()).problems)
    assert 'a: "***" is not of type integer' in told
    assert 'b.0: "***" is not one of "hunter2hunter3", "y"' in told
    assert 'c: "plain" is not "other"' in told
    assert 'd: fits none of the schema\'s alternatives (anyOf): "***" is longer than 3 characters' in told
    assert "hunter2hunter2" not in told
    assert "did you mean" not in told


def test_what_the_check_says_names_no_secret(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "a: ${file:secrets/db}\nb: ${file:secrets/pem}\n")
    bench.put("db", b"hunter2")
    bench.put("pem", b"-----BEGIN-----\nAAAA\n-----END-----\n")
    (tmp_path / "own_check.py").write_text(
        "def check(tree):\n"
        "    yield f\"bad: {tree['a']}\"\n"
        "    yield 'a', repr(tree)\n"
        "    yield 'b', tree['b'].splitlines()[1]\n"
        "    yield tree['a'], 'a path that is none'\n"
        "    yield ('a', tree['a']), 'the same below'\n"
    )
    checked: Mapping[str, Any] = {"substitution": bench.config.substitution}
    config = SegmentConfig("web", tmp_path, (Source("a.yaml"),), check="own_check:check", **checked)
    problems = try_segment(config, Progress()).problems
    told = [str(problem) for problem in problems]
    assert "hunter2" not in repr(problems)
    assert sorted(told) == [
        "a.yaml:1:1: \"***\": a path that is none",
        "a.yaml:1:1: a.\"***\": the same below",
        "a.yaml:1:1: a: {'a': '***', 'b': '***'}",
        "a.yaml:1:1: bad: ***",
        "a.yaml:2:1: b: ***",
    ]
    script = "import msgpack, sys; sys.exit(str(msgpack.unpackb(sys.stdin.buffer.read())))"
    config = SegmentConfig("web", tmp_path, (Source("a.yaml"),), check=(os.sys.executable, "-c", script), **checked)
    told = [str(problem) for problem in try_segment(config, Progress()).problems]
    assert told == ["a.yaml:1:1: {'a': '***', 'b': '***'}"]
