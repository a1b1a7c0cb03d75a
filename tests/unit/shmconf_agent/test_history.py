"""The history on disk: what is kept, for how long, and what becomes of what is damaged or does not belong there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shmconf import codec
from shmconf_agent.history import Entry, NotKept
from shmconf_agent.history_directory import HistoryDirectory
from shmconf_agent.history_keeping import WritableHistory
from shmconf_agent.kept_version import KeptVersion, SourceRef
from shmconf_agent.settle import digest_of
from shmconf_agent.view import SourceLayer


def layer(file: str, text: str) -> SourceLayer:
    data = text.encode()
    return SourceLayer(file, ("at",), data, digest_of(data), f"/etc/{file}", not data, ("segment", "web", 0))


def keep(
    history: WritableHistory, version: int, *texts: SourceLayer, epoch: int = 9, value: object = None, **more: Any
) -> None:
    payload = codec.pack({"value": version if value is None else value})
    kept = KeptVersion(
        epoch,
        version,
        version * 1000,
        hashlib.sha256(payload).hexdigest(),
        {"files": [text.file for text in texts]},
        sources=tuple(SourceRef.of(text) for text in texts) if texts else None,
        **more,
    )
    history.keep(kept, payload, {text.digest: text.data for text in texts})


def versions(history: WritableHistory) -> list[int]:
    return [entry.kept.version for entry in history.entries()]


def names(history: WritableHistory) -> list[str]:
    return sorted(os.listdir(history.path))


def values(history: WritableHistory) -> list[object]:
    return [codec.unpack(history.payload(entry))["value"] for entry in history.entries()]


def served(history: WritableHistory) -> int | None:
    newest = history.newest()
    return None if newest is None else newest[0].version


def file_of(history: WritableHistory, version: int) -> Path:
    return history.path / history.find(version).name


def test_what_is_kept_is_there_for_the_next_and_for_others(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    assert (history.entries(), history.newest(), history.problem) == ([], None, None)
    base, site = layer("base.yaml", "a: 1\n"), layer("site.yaml", "b: 2\n")
    keep(history, 1, base, site, changed=("base.yaml",), keys=2)
    keep(history, 2, base, layer("site.yaml", "b: 3\n"))
    other = WritableHistory(tmp_path, "web")
    assert versions(other) == [2, 1]
    assert values(other) == [2, 1]
    first = other.find(1)
    assert first.kept == history.find(1, epoch=9).kept
    assert (first.kept.changed, first.kept.keys, first.kept.files) == (("base.yaml",), 2, ("base.yaml", "site.yaml"))
    assert other.layers(first) == (base, site)
    assert other.layers(other.find(2))[1].data == b"b: 3\n"
    assert served(other) == 2
    for name, epoch in ((1, 8), (3, None)):
        with pytest.raises(NotKept, match=f"version {name} is not in"):
            other.find(name, epoch)


def test_only_its_owner_may_look(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    before = os.umask(0)
    try:
        keep(history, 1, layer("a.yaml", "a: 1\n"))
    finally:
        os.umask(before)
    assert history.path.stat().st_mode & 0o777 == 0o700
    assert {(history.path / name).stat().st_mode & 0o777 for name in names(history)} == {0o600}
    history.path.chmod(0o755)
    keep(history, 2)
    assert history.path.stat().st_mode & 0o777 == 0o700


def test_an_unchanged_source_is_kept_once(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    big = layer("big.yaml", "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(250)))
    keep(history, 1, big)
    once = sum(each.stat().st_size for each in history.path.iterdir())
    for version in range(2, 11):
        keep(history, version, big, layer("small.yaml", f"v: {version}\n"))
    assert sum(each.stat().st_size for each in history.path.iterdir()) < once + 10 * 800
    assert sum(name.endswith(".source") for name in names(history)) == 10


def test_sixty_versions_leave_the_last_fifty_and_their_sources(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    for version in range(1, 61):
        keep(history, version, layer("base.yaml", "same: 1\n"), layer("site.yaml", f"v: {version}\n"))
    assert versions(history) == list(range(60, 10, -1))
    assert sum(name.endswith(".source") for name in names(history)) == 51
    for entry in history.entries():
        assert history.layers(entry)[1].data == f"v: {entry.kept.version}\n".encode()


def test_bytes_are_bounded_sources_included_and_the_newest_stays_however_big(tmp_path: Path) -> None:
    def noise(count: int, salt: int) -> str:
        return "".join(hashlib.sha256(f"{salt} {number}".encode()).hexdigest() for number in range(count))

    history = WritableHistory(tmp_path, "web", most_bytes=30_000)
    for version in range(1, 10):
        keep(history, version, layer("a.yaml", noise(150, version)), value=noise(10, version))
    total = sum(each.stat().st_size for each in history.path.iterdir())
    assert 15_000 < total <= 30_000
    assert versions(history) == list(range(9, 9 - len(versions(history)), -1))
    keep(history, 10, value=noise(2000, 10))
    assert versions(history) == [10]
    assert len(names(history)) == 1
    assert (history.path / names(history)[0]).stat().st_size > 30_000
    keep(history, 11)
    assert versions(history) == [11]


def test_epochs_and_clocks_that_go_back_do_not_change_the_order(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1, epoch=99)
    keep(history, 1001, epoch=5)
    keep(history, 3, epoch=77)  # the reservation was lost, too, and the clock is that of version 3
    assert [(entry.kept.epoch, entry.kept.version) for entry in history.entries()] == [(77, 3), (5, 1001), (99, 1)]
    assert served(history) == 3
    keep(history, 3, epoch=78, value="another")
    assert history.find(3).kept.epoch == 78
    assert history.find(3, epoch=77).kept.epoch == 77


def test_what_comes_late_is_not_taken_for_the_newest(tmp_path: Path) -> None:
    """As what hung in a disk while the segment's settings were changed, and another writer went on."""
    history = WritableHistory(tmp_path, "web")
    for version in (1, 2, 9, 10, 5, 4):
        keep(history, version)
    assert versions(history) == [10, 9, 5, 4, 2, 1]
    assert served(history) == 10


def test_the_same_version_again_adds_what_was_missing(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1)
    with pytest.raises(NotKept, match="nobody has kept"):
        history.layers(history.find(1))
    source = layer("a.yaml", "a: 1\n")
    keep(history, 1, source, keys=3)
    keep(history, 1)
    entry = history.find(1)
    assert (history.layers(entry), entry.kept.keys, versions(history)) == ((source,), 3, [1])
    (history.path / f"{source.digest.hex()}.source").unlink()
    with pytest.raises(NotKept, match=r"a\.yaml, as version 1 has it"):
        history.layers(entry)
    keep(history, 1, source)
    assert history.layers(entry) == (source,)


def test_a_document_published_again_and_again_is_kept_twice_and_knows_its_sources(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    source = layer("a.yaml", "a: 1\n")
    keep(history, 1, source, value="x", keys=1)
    for version in (1001, 2001, 3001):  # as last known good, boot after boot
        keep(history, version, epoch=version, value="x")
    assert versions(history) == [3001, 1]
    again = history.entries()[0]
    assert (again.kept.republished, again.kept.keys, history.layers(again)) == (True, 1, (source,))
    keep(history, 3002, value="y")
    keep(history, 3003, value="x")
    assert versions(history) == [3003, 3002, 3001, 1]
    assert not history.entries()[0].kept.republished
    for version, noted in ((3004, "a.yaml"), (3005, "b.yaml"), (3006, "b.yaml")):  # what is said of it is another
        keep(history, version, layer(noted, "a: 1\n"), value="x")
    assert versions(history)[:3] == [3006, 3004, 3003]


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Give it the content of the version before."""
    shutil.copyfile(sorted(path.parent.glob("*.version"))[0], path)


def link(path: Path) -> None:
    """Replace it by a link to itself elsewhere."""
    elsewhere = path.parent.parent / "elsewhere"
    os.rename(path, elsewhere)
    path.symlink_to(elsewhere)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("harm", [corrupt, tear, empty, swap, open_to_all])
def test_a_damaged_version_is_passed_over_and_named(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1)
    keep(history, 2)
    path = file_of(history, 2)
    harm(path)
    for reader in (history, WritableHistory(tmp_path, "web")):
        assert served(reader) == 1
        assert reader.problem is not None
        assert str(path) in reader.problem
        assert "the last known good is version 1" in reader.problem
    keep(history, 3)
    assert served(history) == 3
    assert history.problem is None


@pytest.mark.parametrize("harm", [link, pipe])
def test_what_is_no_file_of_its_own_is_not_followed(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1)
    keep(history, 2)
    entry = history.entries()[0]
    harm(history.path / entry.name)
    assert served(history) == 1
    with pytest.raises(PermissionError):
        history.payload(entry)


def test_damage_is_told_to_who_asks_for_that_version(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    source = layer("a.yaml", "a: 1\n")
    keep(history, 1, source)
    entry = history.entries()[0]
    corrupt(history.path / f"{source.digest.hex()}.source")
    with pytest.raises(NotKept, match=r"\.source is damaged"):
        history.layers(entry)
    corrupt(history.path / entry.name)
    with pytest.raises(NotKept, match=r"\.version is damaged"):
        history.payload(entry)
    (history.path / entry.name).unlink()
    with pytest.raises(NotKept, match=r"not in .* any more"):
        history.payload(entry)
    WritableHistory(tmp_path, "web").keep(entry.kept, codec.pack({"value": 1}), {source.digest: source.data})
    assert history.layers(entry) == (source,)


def test_all_damaged_is_nothing(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    for version in (1, 2, 3):
        keep(history, version)
        corrupt(file_of(history, version))
    assert served(history) is None
    assert "so were 2 older ones: the last known good is nothing" in (history.problem or "")
    assert versions(history) == [3, 2, 1]  # their headers are whole


def test_left_overs_are_removed_and_unknown_files_are_not(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1, layer("a.yaml", "a: 1\n"))
    own = names(history)
    for name in own:
        (history.path / f"{name}.new").write_text("half of")
    (history.path / f"{'0' * 32}.source").write_text("of no version")
    strangers = ["notes.txt", "x.new", "1-2-3.version", "README.source", "web.lkg"]
    for name in strangers:
        (history.path / name).write_text("mine")
    (history.path / "a.version").mkdir()
    keep(history, 1, layer("a.yaml", "a: 1\n"))
    assert names(history) == sorted([*own, *strangers, "a.version"])


def test_a_link_in_the_place_of_a_file_or_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    history.path.mkdir()
    (history.path / "0000000001-0000000000000009-1.version.new").symlink_to(victim)
    (history.path / "0000000001-0000000000000009-1.version").symlink_to(victim)
    keep(history, 1)
    assert (victim.read_text(), served(history)) == ("precious", 1)
    os.rename(history.path, tmp_path / "real")
    history.path.symlink_to(tmp_path / "real")
    with pytest.raises(NotADirectoryError):
        keep(history, 2)
    assert served(history) is None
    assert "cannot read" in (history.problem or "")
    assert victim.read_text() == "precious"


def test_a_directory_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1)
    history.path.chmod(0o777)
    assert served(history) is None
    assert "writable by its group or by others" in (history.problem or "")
    with pytest.raises(PermissionError):
        history.entries()


def test_another_users_history_is_for_reading_only(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(os.geteuid() == 0, "only root may give a file away")
    history = WritableHistory(tmp_path, "web")
    keep(history, 1)
    for path in (history.path, *history.path.iterdir()):
        os.chown(path, 65534, 65534)
    assert values(history) == [1]  # as root, who looks at the history of an agent that has a user of its own
    assert served(history) is None  # as the agent
    assert "belongs to user 65534" in (history.problem or "")


# --- disks that refuse ------------------------------------------------------------------------------------------------


class FullDisk:
    """Lets so many bytes be put in the history's directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, history: WritableHistory, room: int) -> None:
        put = HistoryDirectory.put

        def limited(directory: HistoryDirectory, name: str, parts: Sequence[bytes]) -> None:
            used = sum(each.stat().st_size for each in history.path.iterdir() if each.name != name)
            if used + sum(map(len, parts)) > self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            put(directory, name, parts)

        self.room = room
        monkeypatch.setattr(HistoryDirectory, "put", limited)


def noise(version: int, count: int) -> str:
    return "".join(hashlib.sha256(f"{version} {number}".encode()).hexdigest() for number in range(count))


def test_where_there_is_no_room_the_oldest_give_way_to_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = WritableHistory(tmp_path, "web")
    base = layer("base.yaml", noise(0, 30))
    FullDisk(monkeypatch, history, 15_000)
    for version in range(1, 20):
        keep(history, version, base, layer("site.yaml", noise(version, 30)), value=noise(version, 20))
        newest = history.entries()[0]
        assert newest.kept.version == version
        assert history.layers(newest)[0] == base
        assert served(history) == version
    assert 2 <= len(versions(history)) < 10
    with pytest.raises(OSError, match="No space left"):
        keep(history, 20, value=noise(20, 2000))  # it would not help that the others went
    assert len(versions(history)) >= 2
    assert served(history) == 19


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
def test_what_fails_at_any_step_leaves_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    history = WritableHistory(tmp_path, "web")
    keep(history, 1, layer("a.yaml", "a: 1\n"))
    before = names(history)
    real = getattr(os, step)

    def refuse(*arguments: Any, **more: Any) -> Any:
        if step == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **more)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, refuse)
        with pytest.raises(OSError, match="Input/output"):
            keep(history, 2, layer("a.yaml", "a: 2\n"))
    assert names(history) == before
    assert served(history) == 1
    keep(history, 2, layer("a.yaml", "a: 2\n"))
    assert versions(history) == [2, 1]


class Killed(BaseException):
    """As SIGKILL would, it lets nobody clean up."""


class Killer:
    """Stops before the system call of that number which may change the directory; nothing behind it is run either."""

    STEPS = ("unlink", "open", "write", "fsync", "rename")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
        self.stopped_at: str | None = None
        self._left = stop
        for step in self.STEPS:
            monkeypatch.setattr(os, step, self._counting(step, getattr(os, step)))

    def _counting(self, step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            if self._left == 0:
                self.stopped_at = self.stopped_at or step
                raise Killed
            self._left -= 1
            return real(*arguments, **more)

        return counted


def test_a_kill_before_any_step_leaves_a_whole_version_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [layer("base.yaml", "same: 1\n"), layer("site.yaml", "v: 2\n")]
    stopped_at: list[str] = []
    for stop in itertools.count():
        root = tmp_path / str(stop)
        root.mkdir()
        history = WritableHistory(root, "web", most_versions=2)
        keep(history, 1, wanted[0], layer("site.yaml", "v: 1\n"))
        keep(history, 2, wanted[0], layer("site.yaml", "v: 1b\n"))
        with monkeypatch.context() as patched:
            killer = Killer(patched, stop)
            with contextlib.suppress(Killed):
                keep(history, 3, *wanted)
        successor = WritableHistory(root, "web", most_versions=2)
        assert served(successor) in (2, 3)
        assert successor.problem is None
        for entry in successor.entries()[1:]:
            successor.layers(entry)
        keep(successor, 3, *wanted)
        assert versions(successor) == [3, 2]
        assert successor.layers(successor.find(3)) == tuple(wanted)
        assert len(names(successor)) == 5  # two versions, the source of both, and one of each
        if killer.stopped_at is None:
            break
        stopped_at.append(killer.stopped_at)
    assert set(stopped_at) == set(Killer.STEPS)
    assert len(stopped_at) > 10


def test_it_can_be_read_while_it_is_written_and_pruned(tmp_path: Path) -> None:
    """Another history on the same directory, between any two steps of the writer: it never sees half of anything."""
    writer, reader = WritableHistory(tmp_path, "web", most_versions=3), WritableHistory(tmp_path, "web")
    seen: list[int] = []

    def look() -> None:
        entries: list[Entry] = reader.entries()
        for entry in entries:
            assert codec.unpack(reader.payload(entry))["value"] == entry.kept.version
        seen.append(len(entries))

    put, remove = HistoryDirectory.put, HistoryDirectory.remove
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HistoryDirectory, "put", lambda *arguments: (put(*arguments), look()))
        patched.setattr(HistoryDirectory, "remove", lambda *arguments: (remove(*arguments), look()))
        for version in range(1, 8):
            keep(writer, version, layer("a.yaml", f"v: {version}\n"))
    assert max(seen) == 4
    assert len(seen) > 20
