"""What a survey saw holds until something of it changes, whatever that is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shmconf_agent import native, sources
from shmconf_agent.config import SegmentConfig, Source
from shmconf_agent.reading import holds
from shmconf_agent.sources import SourceFiles
from shmconf_agent.stillness import Stillness
from shmconf_agent.survey import Survey


@pytest.fixture(autouse=True, params=["native", "pure"])
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, require: Callable[[object, str], None]
) -> None:
    """Files are asked for in C, and in Python."""
    if request.param == "native":
        require(native.module is not None, f"there is no native module: {native.MISSING}")
    else:
        monkeypatch.setattr(native, "module", None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """conf.d/ with two files, one of them a link into other/, and link/ that leads to conf.d/."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "conf.d" / "a.yaml").write_text("a: 1\n")
    (tmp_path / "other" / "real.yaml").write_text("b: 1\n")
    (tmp_path / "conf.d" / "b.yaml").symlink_to("../other/real.yaml")
    (tmp_path / "link").symlink_to("conf.d")
    return tmp_path


def survey(root: Path) -> Stillness:
    """As SourceFiles does it: link/, which is listed, and a file that is not there."""
    made = Survey()
    listing = made.listing(str(root), "link/")
    assert [shown for shown, _ in sorted(listing.found)] == ["link/a.yaml", "link/b.yaml"]
    for _, path in listing.found:
        assert made.resolve(path).stamp is not None
    assert made.resolve(str(root / "absent.yaml")).missing
    stillness = made.stillness()
    assert stillness is not None
    return stillness


def replace(root: Path) -> None:
    (root / "new").write_text("a: 1\n")
    (root / "new").rename(root / "conf.d" / "a.yaml")


def exchange(root: Path) -> None:
    (root / "conf.d").rename(root / "old")
    (root / "conf.d").mkdir()
    for name in ("a.yaml", "b.yaml"):
        (root / "old" / name).rename(root / "conf.d" / name)


def put_a_directory_there(root: Path) -> None:
    (root / "conf.d" / "a.yaml").unlink()
    (root / "conf.d" / "a.yaml").mkdir()


def lead_elsewhere(root: Path) -> None:
    (root / "third").write_text("b: 1\n")
    (root / "new").symlink_to("../third")
    (root / "new").rename(root / "conf.d" / "b.yaml")


CHANGES: dict[str, Callable[[Path], object]] = {
    "written in place, the size the same": lambda root: (root / "conf.d" / "a.yaml").write_text("a: 2\n"),
    "written behind a link": lambda root: (root / "other" / "real.yaml").write_text("b: 2\n"),
    "replaced": replace,
    "its mode": lambda root: (root / "conf.d" / "a.yaml").chmod(0o600),
    "its time set": lambda root: os.utime(root / "conf.d" / "a.yaml", ns=(0, 0)),
    "deleted": lambda root: (root / "conf.d" / "a.yaml").unlink(),
    "a file more": lambda root: (root / "conf.d" / "c.yaml").write_text(""),
    "a directory in its place": lambda root: (
        (root / "conf.d" / "a.yaml").unlink(),
        (root / "conf.d" / "a.yaml").mkdir(),
    ),
    "what was missing": lambda root: (root / "absent.yaml").write_text(""),
    "a link led elsewhere": lead_elsewhere,
    "the directory's link led elsewhere": lambda root: ((root / "link").unlink(), (root / "link").symlink_to("other")),
    "a link's end gone": lambda root: (root / "other" / "real.yaml").unlink(),
    "the directory exchanged": exchange,
    "the directory gone": lambda root: (root / "conf.d").rename(root / "gone"),
}


@pytest.mark.parametrize("listed_just_after_a_change", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(root: Path, change: Callable[[Path], object], listed_just_after_a_change: bool) -> None:
    settled = time.time_ns() + 30_000_000
    while time.time_ns() < settled:  # by then no two changes have the same time, however coarse the kernel's clock
        time.sleep(0.01)
    if listed_just_after_a_change:
        (root / "conf.d" / ".passing").touch()
        (root / "conf.d" / ".passing").unlink()
    stillness = survey(root)
    assert stillness.holds()
    assert stillness.holds()
    change(root)
    assert not stillness.holds()


@pytest.mark.parametrize("seconds", [-1, 0, 253_402_300_799, 15_032_385_535])  # some are beyond 64 bits of nanoseconds
def test_a_file_of_any_time_and_name(root: Path, seconds: int) -> None:
    odd = os.path.join(os.fsencode(root / "conf.d"), b"\xff \xc3\xa9\n\x01.yaml")
    with open(odd, "wb"):
        pass
    os.utime(odd, ns=(0, seconds * 10**9 + 999_999_999))
    made = Survey()
    for _, path in made.listing(str(root), "link/").found:
        assert made.resolve(path).stamp is not None
    stillness = made.stillness()
    assert stillness is not None
    assert stillness.holds()
    os.utime(odd, ns=(0, seconds * 10**9 + 999_999_998))
    assert not stillness.holds()


def test_many_files_of_which_the_last_is_written(tmp_path: Path) -> None:
    made = Survey()
    for number in range(300):
        (tmp_path / f"{number}.yaml").write_text("a: 1\n")
        assert made.resolve(str(tmp_path / f"{number}.yaml")).stamp is not None
    stillness = made.stillness()
    assert stillness is not None
    assert stillness.holds()
    (tmp_path / "299.yaml").write_text("a: 10\n")
    assert not stillness.holds()


def test_answers_that_are_not_for_those_names(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(native.module is not None or native.MISSING is None, f"there is no native module: {native.MISSING}")
    if native.module is None:
        return
    for names, answers in ((b"a\0b\0", bytes(48)), (b"a", bytes(48)), (b"", bytes(48)), (b"a\0", bytes(47))):
        with pytest.raises(ValueError, match="bytes of answers are not for"):
            native.module.still(str(tmp_path), names, answers)
    with pytest.raises(ValueError, match="null"):
        native.module.still("a\0b", b"", b"")
    assert native.module.still(str(tmp_path), b"", b"")
    assert not native.module.still(str(tmp_path / "absent"), b"", b"")
    assert not native.module.still(str(tmp_path), b"absent\0", bytes(48))


def test_what_does_not_concern_it_changes_nothing(root: Path) -> None:
    stillness = survey(root)
    (root / "elsewhere.yaml").write_text("")
    (root / "other" / "another.yaml").write_text("")
    (root / "conf.d" / "a.yaml").read_text()
    assert stillness.holds()


def test_nobody_can_know_where_the_disk_refused_an_answer(root: Path) -> None:
    made = Survey()
    assert made.listing(str(root), "conf.d/a.yaml/").failure == "is not a directory"
    assert made.stillness() is None


def test_the_bytes_of_a_file(root: Path) -> None:
    file = root / "conf.d" / "a.yaml"
    assert holds(str(file), b"a: 1\n")
    assert not holds(str(file), b"a: 2\n")
    assert not holds(str(file), b"a: 1")
    assert not holds(str(file), b"a: 1\n\n")
    assert not holds(str(root / "absent"), b"")
    assert not holds(str(root), b"")


def test_at_rest_no_path_is_followed_and_one_that_changed_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surveys: list[Survey] = []

    class Counted(Survey):
        def __init__(self) -> None:
            super().__init__()
            surveys.append(self)

    monkeypatch.setattr(sources, "Survey", Counted)
    clock = [100.0]
    config = SegmentConfig("web", root, (Source("conf.d/"),))
    later = time.time_ns() + 10**9  # by which nothing was read too shortly after its change
    files = SourceFiles(config, now=lambda: clock[0], wall_ns=lambda: later)

    def look() -> list[bytes]:
        clock[0] += 1
        return [layer.data for layer in files.look().layers]

    first = files.look()
    files.accept(first)
    look()
    whole = len(surveys)
    view = files.look()
    assert (view.ready, view.changed, view.fingerprint) == (True, (), first.fingerprint)
    for _ in range(3):
        assert look() == [b"a: 1\n", b"b: 1\n"]
    assert len(surveys) == whole, "paths were followed though nothing changed"
    (root / "new").write_text("a: 3\n")
    (root / "new").rename(root / "conf.d" / "a.yaml")
    look()
    assert look() == [b"a: 3\n", b"b: 1\n"]
    assert len(surveys) > whole
