from __future__ import annotations

import grp
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf_agent.agents_file import load
from shmconf_agent.config import AgentConfig, SegmentConfig, Source, from_arguments, resolve_group, source_kind
from shmconf_agent.problems import Invalid
from shmconf_agent.trial import try_agent

WEB = '[segment.web]\nsources = ["base.yaml"]\n'


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "shmconf.toml"
        file.write_text(text)
        return file

    return write


def problems(file: Path) -> list[str]:
    with pytest.raises(Invalid) as caught:
        load(file)
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


def test_the_whole_file(written: Callable[[str], Path], tmp_path: Path) -> None:
    file = written(
        """
runtime_dir = "/run/shmconf"
state_dir = "state"

[segment.web]
sources = [
  "base.yaml",
  "conf.d/",
  "site-*.toml",
  { path = "local.yaml", optional = true },
  { path = "limits.toml", at = 'service."a.b"' },
]
schema = "schema.json"
check  = "myapp.settings:check"
settle_ms = 5
max_bytes = "64 MiB"
mode  = "0644"
group = "web"

[segment."mail.queue"]
sources = ["mail.toml"]
check = ["./lint", "--strict"]
"""
    )
    web = SegmentConfig(
        "web",
        tmp_path,
        (
            Source("base.yaml"),
            Source("conf.d/"),
            Source("site-*.toml"),
            Source("local.yaml", optional=True),
            Source("limits.toml", at=("service", "a.b")),
        ),
        schema="schema.json",
        check="myapp.settings:check",
        settle_ms=5,
        max_bytes=64 * 1024 * 1024,
        mode=0o644,
        group="web",
    )
    mail = SegmentConfig("mail.queue", tmp_path, (Source("mail.toml"),), check=("./lint", "--strict"))
    assert load(file) == AgentConfig(file, Path("/run/shmconf"), tmp_path / "state", (web, mail))
    assert (mail.settle_ms, mail.max_bytes, mail.mode, mail.group) == (2, 256 * 1024 * 1024, 0o640, None)


def test_segments_keep_the_order_of_the_file(written: Callable[[str], Path]) -> None:
    names = ["zebra", "apple", "mango"]
    file = written("".join(f'[segment.{name}]\nsources = ["x.yaml"]\n' for name in names))
    assert [segment.name for segment in load(file).segments] == names


def test_paths_are_relative_to_the_file_wherever_the_process_stands(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(f'runtime_dir = "run"\n{WEB}')
    monkeypatch.chdir(tmp_path)
    config = load(Path("shmconf.toml"))
    assert config.runtime_dir == tmp_path / "run"
    assert config.segments[0].base == tmp_path


def test_every_problem_is_found_at_once_and_placed(written: Callable[[str], Path]) -> None:
    file = written(
        """\
runtimedir = "/run/shmconf"
state_dir = 7

[segment.web]
sources = ["base.yaml", { path = "local.yaml", optonal = true }, 3]
shcema = "schema.json"
settle_ms = "2"
mode = "0666"

[segment.".hidden"]
max_bytes = "12 parsecs"
"""
    )
    expected = [
        "1:1: unknown key 'runtimedir' at the top level; did you mean 'runtime_dir'?",
        "2:1: 'state_dir' is the path of a directory, not 7",
        "5:48: unknown key 'optonal' in a source; did you mean 'optional'?",
        '5:66: a source is a path or { path = "local.yaml", optional = true }, not 3',
        "6:1: unknown key 'shcema' in [segment.web]; did you mean 'schema'?",
        "7:1: 'settle_ms' is a number of milliseconds from 0 to 10000, not '2'",
        "8:1: mode '0666' lets group or others write; readers refuse such a segment",
        "10:10: '.hidden' is not a segment name",
        "10:10: [segment.\".hidden\"] has no 'sources'",
        "11:1: 'max_bytes' is a size, as in \"256MiB\" or a number of bytes, not '12 parsecs'",
    ]
    found = problems(file)
    assert len(found) == len(expected)
    for message, beginning in zip(found, expected, strict=True):
        assert message.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no segment: add [segment.NAME] and its sources"),
        ("[segment]\n", "there is no segment"),
        ('segment = "web"\n', "1:1: 'segment' is a table of tables: write [segment.NAME]"),
        ('[[segment]]\nname = "web"\n', "'segment' is a table of tables"),
        ("[segment]\nweb = 3\n", "2:1: [segment.web] is a table of a segment's keys, not 3"),
        ('sources = ["a.yaml"]\n' + WEB, "1:1: 'sources' belongs in a segment's table"),
        ("[segments.web]\n", "1:2: unknown key 'segments' at the top level; did you mean 'segment'?"),
        (
            'guard = "x"\n' + WEB,
            "unknown key 'guard' at the top level; the keys here are runtime_dir, state_dir, admin_group, "
            "metrics_textfile, segment",
        ),
        ('runtime_dir = ""\n' + WEB, "'runtime_dir' is the path of a directory, not ''"),
        ("[segment.web]\n", "1:10: [segment.web] has no 'sources': add a list of paths"),
        ("[segment.web]\nsources = []\n", "'sources' is empty"),
        (
            '[segment.web]\nsources = "base.yaml"\n',
            '\'sources\' is a list of paths, as in ["base.yaml", "conf.d/"], not',
        ),
        ('[segment.web]\nsources = [""]\n', "2:12: a source's path is empty"),
        ('[segment.web]\nsources = ["a\\u0000b"]\n', "a path cannot contain a null character"),
        ("[segment.web]\nsources = [{ optional = true }]\n", "2:12: this source has no 'path'"),
        (
            "[segment.web]\nsources = [{ path = 1 }]\n",
            "'path' is the path of a file or directory, or a glob, not 1",
        ),
        (
            '[segment.web]\nsources = [{ path = "a.yaml", optional = "yes" }]\n',
            "'optional' is true or false, not 'yes'",
        ),
        ('[segment.web]\nsources = [{ path = "a.yaml", at = "a..b" }]\n', "2:31: 'at' is a path of keys"),
        ('[segment.web]\nsources = [{ path = "a.yaml", at = "" }]\n', "'at' is a path of keys"),
        ('[segment.web]\nsources = [{ path = "a.yaml", at = ["x"] }]\n', "'at' is a path of keys"),
        (
            f'[segment.web]\nsources = [{{ path = "a.yaml", at = "{".".join("x" * 33)}" }}]\n',
            "'at' has 33 keys; 32 is",
        ),
        (WEB + "schema = true\n", "3:1: 'schema' is the path of a JSON Schema, not true"),
        (WEB + "group = 12\n", "3:1: 'group' is the name of a group, not 12"),
        (
            WEB + 'check = "myapp.settings"\n',
            "'check' is \"package.module:name\", or a command as a list of text, not",
        ),
        (WEB + 'check = "my app:check"\n', "'check' is"),
        (
            WEB + "check = []\n",
            "'check' is \"package.module:name\" or a command as a list of text, not an empty list",
        ),
        (WEB + 'check = ["lint", 3]\n', "'check' is"),
        (WEB + "settle_ms = -1\n", "'settle_ms' is a number of milliseconds from 0 to 10000, not -1"),
        (WEB + "settle_ms = 10001\n", "'settle_ms' is"),
        (WEB + "settle_ms = nan\n", "'settle_ms' is"),
        (WEB + "settle_ms = true\n", "'settle_ms' is a number of milliseconds from 0 to 10000, not true"),
        (WEB + "max_bytes = true\n", "'max_bytes' is a size"),
        (WEB + "max_bytes = 1.5\n", "'max_bytes' is a size"),
        (WEB + 'max_bytes = "256M"\n', "'max_bytes' is a size"),
        (WEB + f'max_bytes = "{"9" * 400}GiB"\n', "'max_bytes' is a size"),  # more than a float can hold
        (WEB + f'max_bytes = "{"9" * 5000}"\n', "'max_bytes' is a size"),  # more than int() reads
        (WEB + "max_bytes = -5\n", "'max_bytes' is -5 bytes; the least is 1MiB"),
        (WEB + 'max_bytes = "1000KiB"\n', "'max_bytes' is 1,024,000 bytes; the least is 1MiB"),
        (WEB + 'max_bytes = "2TiB"\n', "the most is 1TiB"),
        (WEB + "mode = 0o640\n", "'mode' is an octal file mode in quotes, as in \"0640\", not 416"),
        (WEB + 'mode = "rw-r-----"\n', "'mode' is an octal file mode in quotes"),
        (WEB + 'mode = "0660"\n', "mode '0660' lets group or others write"),
        (WEB + 'mode = "0642"\n', "mode '0642' lets group or others write"),
        (WEB + 'mode = "0750"\n', "mode '0750' does more than let read and write"),
        (WEB + 'mode = "4640"\n', "mode '4640' does more than let read and write"),
        (
            WEB + 'mode = "0440"\n',
            "mode '0440' keeps the agent, the file's owner, from reading and writing it",
        ),
        (WEB + 'mode = "0240"\n', "mode '0240' keeps the agent"),
    ],
)
def test_a_mistake_is_named(written: Callable[[str], Path], text: str, message: str) -> None:
    found = problems(written(text))
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1048576", 1048576),
        ('"1048576"', 1048576),
        ('"1MiB"', 1048576),
        ('"64 mib"', 64 * 1024**2),
        ('"1.5GiB"', 1536 * 1024**2),
        ('"10MB"', 10_000_000),
        ('"2000kB"', 2_000_000),
        ('"2000000 B"', 2_000_000),
        ('"1TiB"', 1024**4),
    ],
)
def test_sizes(written: Callable[[str], Path], size: str, expected: int) -> None:
    assert load(written(f"{WEB}max_bytes = {size}\n")).segments[0].max_bytes == expected


@given(mode=st.integers(0, 0o7777))
def test_a_mode_is_taken_only_if_the_agent_can_write_and_nobody_else(
    tmp_path_factory: pytest.TempPathFactory, mode: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "mode.toml"
    file.write_text(f'{WEB}mode = "{mode:04o}"\n')
    if mode in (0o600, 0o604, 0o640, 0o644):
        assert load(file).segments[0].mode == mode
    else:
        with pytest.raises(Invalid):
            load(file)


@given(st.text(max_size=80))
def test_no_text_is_answered_with_anything_but_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Invalid):
        load(file)


def test_a_syntax_error_has_its_place(written: Callable[[str], Path]) -> None:
    [message] = problems(written("[segment.web\n"))
    assert message.startswith("1:")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "shmconf.toml"
    with pytest.raises(Invalid) as caught:
        load(missing)
    [problem] = caught.value.problems
    assert str(problem) == (
        f"{missing}: cannot read it: No such file or directory; "
        "name the agent's file with --config, or give --segment NAME and its sources"
    )
    with pytest.raises(Invalid, match="Is a directory"):
        load(tmp_path)
    missing.symlink_to(missing.name)
    with pytest.raises(Invalid, match="Too many levels of symbolic links"):
        load(missing)


def test_any_file_name_is_read_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "agent.conf"
    file.write_text(WEB + "shcema = 1\n")
    assert problems(file) == ["3:1: unknown key 'shcema' in [segment.web]; did you mean 'schema'?"]


def test_arguments_make_the_same_as_a_file(
    written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written('[segment.web]\nsources = ["base.yaml", "conf.d/"]\n')
    monkeypatch.chdir(tmp_path)
    config = from_arguments("web", ["base.yaml", "conf.d/"], Path())
    assert config == AgentConfig(None, None, None, load(file).segments)


@pytest.mark.parametrize("name", ["", ".web", "-web", "a/b", "..", "a b", "ü", "x" * 65, "web\n"])
def test_a_bad_name_among_the_arguments_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="not a segment name"):
        from_arguments(name, ["base.yaml"], Path())


def test_arguments_without_a_source_are_told() -> None:
    with pytest.raises(ValueError, match="needs at least one source"):
        from_arguments("web", [], Path())
    with pytest.raises(ValueError, match="is empty"):
        from_arguments("web", ["a.yaml", ""], Path())


def test_what_a_source_means(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "odd[1]").mkdir()
    kinds = {
        path: source_kind(Source(path), tmp_path)
        for path in ["base.yaml", "conf.d", "conf.d/", "gone.d/", "*.yaml", "a?.toml", "a[12].json", "odd[1]"]
    }
    assert kinds == {
        "base.yaml": "file",
        "conf.d": "directory",
        "conf.d/": "directory",
        "gone.d/": "directory",
        "*.yaml": "glob",
        "a?.toml": "glob",
        "a[12].json": "glob",
        "odd[1]": "directory",
    }


def test_groups() -> None:
    some = grp.getgrall()[0]
    assert resolve_group(some.gr_name) == some.gr_gid
    assert resolve_group("4711") == 4711
    assert resolve_group(str(2**32 - 2)) == 2**32 - 2
    for name in ("no-such-group", str(2**32 - 1), "9" * 30, "9" * 5000):  # the kernel has 32 bits, and -1 is no group
        with pytest.raises(Invalid, match=f"^there is no group '{name}' on this machine"):
            resolve_group(name)


def test_a_group_keeps_its_place_which_is_no_part_of_the_settings(written: Callable[[str], Path]) -> None:
    text = '[segment.web]\nsources = ["base.yaml"]\n  group = "no-such-group"\n'
    segment = load(written(text)).segments[0]
    with pytest.raises(Invalid, match=r"shmconf\.toml:3:3: there is no group 'no-such-group'"):
        resolve_group(str(segment.group), segment.group_place)
    assert load(written(f"# a line more\n{text}")).segments[0] == segment


def test_the_textfile_is_relative_to_the_file(written: Callable[[str], Path]) -> None:
    file = written(f'metrics_textfile = "out/shmconf.prom"\n{WEB}')
    assert load(file).metrics_textfile == file.parent / "out/shmconf.prom"
    assert load(written(f'metrics_textfile = "/run/x.prom"\n{WEB}')).metrics_textfile == Path("/run/x.prom")
    assert load(written(WEB)).metrics_textfile is None
    assert problems(written(f"metrics_textfile = 4\n{WEB}")) == [
        "1:1: 'metrics_textfile' is the path of a file, not 4"
    ]


def test_the_admin_group_stands_at_the_top(written: Callable[[str], Path]) -> None:
    config = load(written(f'admin_group = "adm"\n{WEB}'))
    assert (config.admin_group, config.admin_group_place[1:]) == ("adm", (1, 1))
    assert load(written(WEB)).admin_group is None
    assert problems(written(f"admin_group = 4\n{WEB}")) == ["1:1: 'admin_group' is the name of a group, not 4"]
    [problem] = problems(written(f'{WEB}admin_group = "adm"\n'))
    assert "unknown key 'admin_group' in [segment.web]" in problem
    config = load(written(f'\n  admin_group = "no-such-group"\n{WEB}'))
    with pytest.raises(Invalid, match=r"shmconf\.toml:2:3: there is no group 'no-such-group' .* change 'admin_group'"):
        try_agent(config)
