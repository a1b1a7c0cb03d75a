from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import shmconf
from shmconf import directories
from shmconf.directories import Directory, InvalidName, check_name, reader_directories, writer_directory


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default places, moved below tmp_path: nothing of the machine's own is touched."""
    monkeypatch.delenv("SHMCONF_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    system, shared = tmp_path / "run" / "shmconf", tmp_path / "dev-shm"
    (tmp_path / "run").mkdir()
    (tmp_path / "xdg").mkdir()
    shared.mkdir()
    real = directories.default_directories()
    assert [(place.path, place.named) for place in real] == [
        (Path("/run/shmconf"), True),
        (tmp_path / "xdg" / "shmconf", False),
        (Path(f"/dev/shm/shmconf-{os.getuid()}"), False),
    ]
    moved = [Directory(system, True), real[1], Directory(shared / "shmconf-1", False)]
    monkeypatch.setattr(directories, "default_directories", lambda: moved)
    return tmp_path


@pytest.mark.parametrize("name", ["web", "a", "Web-1.2_x", "0", "a" * 64])
def test_names(name: str) -> None:
    assert check_name(name) == name


BAD_NAMES = ["", ".", "..", ".web", "-web", "a/b", "../web", "a" * 65, "wéb", "web\n", "a b", "a\0"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_say_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidName, match="not a segment name: use letters"):
        check_name(name)
    with pytest.raises(ValueError, match="segment name"):
        shmconf.attach(name)


def test_without_xdg_the_user_s_run_directory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert directories.default_directories()[1].path == Path(f"/run/user/{os.getuid()}/shmconf")


def test_an_explicit_directory_comes_before_the_environment_and_that_before_all(
    defaults: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [place.path for place in reader_directories()] == [
        place.path for place in directories.default_directories()
    ]
    monkeypatch.setenv("SHMCONF_DIR", str(tmp_path / "environment"))
    assert reader_directories() == [Directory(tmp_path / "environment", named=True)]
    assert writer_directory().path == tmp_path / "environment"
    assert reader_directories(tmp_path / "argument") == [Directory(tmp_path / "argument", named=True)]
    assert writer_directory(str(tmp_path / "argument")).path == tmp_path / "argument"


def test_a_relative_directory_survives_a_change_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reader_directories("here")[0].path == tmp_path / "here"


def test_an_empty_environment_variable_is_none(defaults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMCONF_DIR", "")
    assert len(reader_directories()) == 3


def test_an_agent_makes_and_takes_the_first_that_it_may_write(defaults: Path) -> None:
    assert writer_directory() == Directory(defaults / "run" / "shmconf", named=True)
    assert (defaults / "run" / "shmconf").is_dir()


def test_a_fallback_is_made_private(defaults: Path) -> None:
    (defaults / "run").rmdir()
    assert writer_directory() == Directory(defaults / "xdg" / "shmconf", named=False)
    assert (defaults / "xdg" / "shmconf").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("squat", ["open", "link", "file"])
def test_a_fallback_that_is_not_private_is_passed_over(defaults: Path, squat: str) -> None:
    (defaults / "run").rmdir()
    taken = defaults / "xdg" / "shmconf"
    if squat == "open":
        taken.mkdir()
        taken.chmod(0o750)
    elif squat == "link":
        (defaults / "elsewhere").mkdir(mode=0o700)
        taken.symlink_to(defaults / "elsewhere")
    else:
        taken.touch()
    assert writer_directory().path == defaults / "dev-shm" / "shmconf-1"


def test_nothing_to_write_in_is_one_error_that_names_every_place(defaults: Path) -> None:
    for parent in ("run", "xdg", "dev-shm"):
        (defaults / parent).rmdir()
    with pytest.raises(shmconf.Error, match="--runtime-dir") as caught:
        writer_directory()
    for place in directories.default_directories():
        assert str(place.path) in str(caught.value)


@pytest.mark.parametrize("obstacle", ["missing parent", "a file"])
def test_an_unusable_explicit_directory_says_why_and_what_to_do(tmp_path: Path, obstacle: str) -> None:
    chosen = tmp_path / "a" / "b" if obstacle == "missing parent" else tmp_path / "file"
    if obstacle == "a file":
        chosen.touch()
    with pytest.raises(shmconf.Error, match="choose another with --runtime-dir") as caught:
        writer_directory(chosen)
    assert str(chosen) in str(caught.value)


def make_segment(directory: Directory, tree: dict[str, int], publish: Callable[..., int]) -> None:
    from shmconf.writer import Writer

    directory.path.mkdir(mode=0o700, exist_ok=True)
    with Writer(directory, "web") as writer:
        publish(writer, tree)


def test_a_reader_takes_the_first_place_that_holds_the_segment(defaults: Path, publish: Callable[..., int]) -> None:
    places = directories.default_directories()
    with pytest.raises(shmconf.SegmentNotFound, match="is its agent running"):
        shmconf.attach("web")
    for number, place in reversed(list(enumerate(places))):
        make_segment(place, {"place": number}, publish)
        with shmconf.attach("web") as reader:
            assert reader["place"] == number
    with shmconf.attach("web", directory=places[2].path) as reader:
        assert reader["place"] == 2


def test_a_reader_passes_over_the_fallbacks_that_an_agent_passes_over(
    defaults: Path, publish: Callable[..., int]
) -> None:
    """Else a directory that cannot hold the segment would hide the one that does."""
    (defaults / "run").rmdir()
    taken = defaults / "xdg" / "shmconf"
    taken.mkdir()
    taken.chmod(0o755)
    make_segment(writer_directory(), {"here": 1}, publish)
    with shmconf.attach("web") as reader:
        assert reader["here"] == 1
    make_segment(Directory(taken, named=True), {"squatted": 1}, publish)
    with pytest.raises(shmconf.SegmentUntrusted, match="mode 0700"):
        shmconf.attach("web")
