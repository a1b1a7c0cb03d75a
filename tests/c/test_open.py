"""Opening a segment from C: where it is looked for, what is refused and in which words."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from c_reader import Library, Result

from shmconf.layout import Header

TREE = {"db": {"pool": {"size": 20}}}


def refusal(library: Library, directory: Path | None, name: str = "web") -> tuple[Result, str, int]:
    opened, result, fault = library.try_open(name, directory)
    if result is Result.OK:
        library.close(opened)
    return result, str(fault), fault.system_error


def test_a_published_segment_opens_and_names_its_version_and_epoch(library: Library, place: Any) -> None:
    writer = place.published(TREE)
    with library.reader("web", place.run) as reader:
        assert (reader.version, reader.epoch) == (writer.version, writer.epoch)
        assert reader.value("db.pool.size") == 20


def test_every_result_has_words(library: Library) -> None:
    words = [library.describe(result).decode() for result in Result]
    assert len(set(words)) == len(Result)
    assert words[Result.OK] == "done"
    assert [library.describe(number) for number in (-1, len(Result), 2**31 - 1)] == [b"unknown result"] * 3


@pytest.mark.parametrize("name", ["", ".web", "-web", "_web", "a/b", "a b", "a" * 65, "wéb", "web\n", "..", "a\\b"])
def test_a_bad_name(library: Library, place: Any, name: str) -> None:
    result, text, _ = refusal(library, place.run, name)
    assert result is Result.BAD_NAME
    assert f"'{name}' is not a segment name" in text


def test_no_segment(library: Library, place: Any) -> None:
    assert refusal(library, place.run) == (
        Result.NOT_FOUND,
        f"no segment 'web' in {place.run}; is its agent running?",
        errno.ENOENT,
    )
    assert refusal(library, place.run / "nowhere")[0] is Result.NOT_FOUND


def test_nothing_published_yet_quotes_the_agent(library: Library, place: Any) -> None:
    writer = place.writer()
    result, text, _ = refusal(library, place.run)
    assert (result, text) == (
        Result.NOT_FOUND,
        "segment 'web' has nothing published yet: its agent has not published a first version",
    )
    place.say(writer, state="running", last_error="base.yaml:3:1: a tab")
    assert refusal(library, place.run)[1].endswith("nothing published yet: base.yaml:3:1: a tab")


def test_files_that_somebody_else_could_have_written(library: Library, place: Any) -> None:
    place.published(TREE)
    for mode in (0o660, 0o642):
        place.file.chmod(mode)
        assert refusal(library, place.run)[:2] == (
            Result.UNTRUSTED,
            f"{place.file} is writable by its group or by others (mode {mode:04o})",
        )
    place.file.chmod(0o640)
    moved = place.run / "real"
    place.file.rename(moved)
    place.file.symlink_to(moved)
    assert refusal(library, place.run)[:2] == (Result.UNTRUSTED, f"{place.file} is a symbolic link; a segment never is")
    place.file.unlink()
    os.mkfifo(place.file)
    assert refusal(library, place.run)[1] == f"{place.file} is not a regular file"
    place.file.unlink()
    place.file.mkdir()
    assert refusal(library, place.run)[1] == f"{place.file} is not a regular file"


def test_a_stranger_s_file(library: Library, place: Any, require: Any) -> None:
    require(os.geteuid() == 0, "root is needed to give files away")
    place.published(TREE)
    os.chown(place.file, 12345, 0)
    result, text, _ = refusal(library, place.run)
    assert result is Result.UNTRUSTED
    assert "belongs to user 12345, who is neither root, the caller nor the owner" in text
    os.chown(place.run, 12345, 0)
    assert refusal(library, place.run)[0] is Result.OK
    place.run.chmod(0o775)
    assert refusal(library, place.run)[0] is Result.UNTRUSTED


def test_the_fallbacks_must_be_private(library: Library, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHMCONF_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.run.parent))
    place.published(TREE)
    place.run.rename(place.run.parent / "shmconf")
    name = "web-of-a-test-of-the-c-reader"
    private = place.run.parent / "shmconf"
    (private / "web.shmconf").rename(private / f"{name}.shmconf")
    private.chmod(0o755)
    result, text, _ = refusal(library, None, name)
    assert result is Result.UNTRUSTED
    assert "must be this user's own, with mode 0700" in text
    private.chmod(0o700)
    with library.reader(name, None) as reader:
        assert reader.value("db.pool.size") == 20


def test_the_directory_is_the_argument_or_the_environment_s(
    library: Library, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.published(TREE)
    monkeypatch.setenv("SHMCONF_DIR", str(place.run))
    with library.reader("web", None) as reader:
        assert reader.value("db.pool.size") == 20
    assert refusal(library, tmp_path / "elsewhere")[0] is Result.NOT_FOUND
    monkeypatch.setenv("SHMCONF_DIR", "")  # as good as none
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 5000)))
    result, text, _ = refusal(library, None, "web-of-a-test-of-the-c-reader")
    assert result is Result.NOT_FOUND
    assert "in any of the default directories" in text
    assert refusal(library, Path("/" + "x" * 5000))[0] is Result.NOT_FOUND


def test_a_relative_directory_stays_where_it_was(
    library: Library, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that changes its directory after opening still follows the name."""
    place.published(TREE)
    monkeypatch.chdir(tmp_path)
    with library.reader("web", Path("run")) as reader:
        first = reader.epoch
        monkeypatch.chdir("/")
        place.opened.pop().close()
        place.file.unlink()
        place.published({"db": {"pool": {"size": 30}}})
        assert reader.status().reopened == 1
        assert reader.epoch != first
        assert reader.value("db.pool.size") == 30


def test_damaged_and_foreign_files(library: Library, place: Any) -> None:
    place.published(TREE)
    place.opened.pop().close()
    whole = place.file.read_bytes()

    def opened_with(data: bytes) -> tuple[Result, str]:
        place.file.write_bytes(data)
        return refusal(library, place.run)[:2]

    header = Header.decode(whole)
    later = header.encode()[:8] + (2).to_bytes(4, "little") + whole[12:]
    nothing = Header(0, header.max_bytes, 1, 0).encode() + whole[64:]
    odd_size = Header(1, header.max_bytes + 1, 1, 0).encode() + whole[64:]
    assert opened_with(b"") == (Result.CORRUPT, f"{place.file}: it does not begin like a shmconf segment")
    assert opened_with(b"SHMCONF\0" + whole[8:])[0] is Result.CORRUPT
    assert opened_with(later) == (Result.INCOMPATIBLE, f"{place.file}: it has format 2; this library reads format 1")
    assert "checksum" in opened_with(whole[:40] + b"\x01" + whole[41:])[1]
    assert opened_with(nothing) == (Result.CORRUPT, f"{place.file}: the header's numbers are out of range")
    assert opened_with(odd_size) == (Result.CORRUPT, f"{place.file}: the header's numbers are out of range")
    assert opened_with(whole[:12000])[1].endswith("12000 bytes, where its header area alone has 12288")
    assert "the room of version 1 is damaged" in opened_with(whole[:12288])[1]
    assert "checksum of version 1" in opened_with(whole[:12289] + b"\xff" + whole[12290:])[1]
    assert opened_with(whole)[0] is Result.OK


def test_a_directory_that_may_not_be_entered(library: Library, place: Any, require: Any) -> None:
    require(os.geteuid() == 0, "root is needed to become nobody")
    place.published(TREE)
    place.run.chmod(0o700)
    code = (
        "import os, sys; from pathlib import Path; from c_reader import Library;"
        "library = Library(Path(sys.argv[1])); os.setuid(65534);"
        "_, result, fault = library.try_open('web', Path(sys.argv[2]));"
        "print(result.name, fault.system_error)"
    )
    built = library.path
    for open_up in (built, *built.parents):  # nobody has to reach the library, and nothing else
        if open_up.stat().st_uid == os.geteuid() and open_up != Path("/"):
            open_up.chmod(open_up.stat().st_mode | 0o011)
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(built), str(place.run)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == ["NOT_FOUND", str(errno.ENOENT)], told.stderr
