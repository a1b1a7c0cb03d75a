"""Looking up: what the cache may hold and when it may answer, and that every way of asking gives the same answer."""

from __future__ import annotations

import ast
import gc
import itertools
import math
import random
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import documents
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmconf
from shmconf import codec, layout
from shmconf.directories import Directory
from shmconf.document import Document
from shmconf.mapping import IMPLEMENTATION
from shmconf.paths import MISSING, PathError, format_path, look_up
from shmconf.writer import Settings, Writer

native_only = pytest.mark.skipif(IMPLEMENTATION == "pure", reason="whole snapshots have no cache of scalars")

LONG = "long " * 200  # more than the buffer that a value is first copied into has
SCALARS: dict[str, Any] = {
    "text": "some text",
    "empty": "",
    "long": LONG,
    "unicode": "é\U0001f600\0é",
    "small": 7,
    "negative": -7,
    "most": 2**64 - 1,
    "least": -(2**63),
    "half": 0.5,
    "one": 1.0,
    "minus zero": -0.0,
    "nan": math.nan,
    "infinite": -math.inf,
    "true": True,
    "false": False,
    "null": None,
    "bytes": b"\0\xff",
    "long bytes": b"\xff" * 1000,
    "day": date(2026, 11, 22),
    "clock": time(1, 2, 3, 4),
    "local": datetime(2026, 11, 22, 1, 2, 3),
    "offset": datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-7))),
    "utc": datetime(2026, 11, 22, tzinfo=UTC),
}
CONTAINERS: dict[str, Any] = {
    "list": ["zero", "one", "two"],
    "map": {"a": {"b": 1}},
    "no list": [],
    "no map": {},
    "much": {f"key {number}": [number] * 20 for number in range(100)},
}


@pytest.fixture
def writer(place: Any, publish: Callable[..., int]) -> Any:
    writer = place.writer()
    publish(writer, {"n": 1, **SCALARS, **CONTAINERS})
    return writer


@pytest.fixture
def reader(place: Any, writer: Any) -> Iterator[Any]:
    with shmconf.attach("web", directory=place.run) as reader:
        yield reader


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types, also inside; a nan is itself, and no zero is another."""
    return type(left) is type(right) and repr(left) == repr(right)


def cache(reader: Any) -> list[dict[Any, Any]]:
    """Its dictionaries of scalars: by path, and by key."""
    return [held for held in gc.get_referents(reader) if type(held) is dict]


def cached(reader: Any) -> int:
    return sum(map(len, cache(reader)))


# --- what the cache holds -----------------------------------------------------------------------------------------


@native_only
def test_scalars_are_cached_and_nothing_else(reader: Any) -> None:
    assert reader["small"] == 7
    assert cached(reader) == 0  # of the first look-up at a version nothing is kept: the second has something to do
    for name in SCALARS:
        before = cached(reader)
        assert reader.get((name,)) is reader.get((name,)), name
        assert cached(reader) == before + 1
        assert reader[name] is reader[name], name
        assert cached(reader) == before + 2
    before = cached(reader)
    for name in CONTAINERS:
        assert reader.get((name,)) is not reader.get((name,))
        assert reader[name] is not reader[name]
        assert name in reader
    assert reader.get(("much", "key 7")) == [7] * 20
    assert cached(reader) == before


@native_only
def test_misses_are_never_cached(reader: Any) -> None:
    for _ in range(3):
        assert reader.get("missing") is None
        assert reader.get(("map", "missing"), MISSING) is MISSING
        assert reader.get("text.deeper", 5) == 5
        assert "missing" not in reader
        assert ("list", 3) not in reader
        with pytest.raises(KeyError):
            reader["missing"]
    assert cached(reader) == 0


@native_only
def test_at_most_4096_scalars_are_cached_and_all_are_right(
    reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    many = {f"k{number}": f"value {number}" for number in range(5000)}
    publish(writer, many)
    for _ in range(2):
        for key, value in many.items():
            assert reader.get(key) == reader[key] == reader.get((key,)) == value
    assert cached(reader) == 4096
    publish(writer, {"n": 2})
    assert reader["n"] == reader["n"] == 2
    assert cached(reader) == 1


@native_only
def test_the_dictionaries_are_replaced_and_never_cleared(
    reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    for _ in range(2):
        assert (reader.get("text"), reader["small"]) == ("some text", 7)
    old = cache(reader)
    publish(writer, {"text": "another", "small": 8})
    for _ in range(2):
        assert (reader.get("text"), reader["small"]) == ("another", 8)
    assert old == [{"text": "some text"}, {"small": 7}], "a look-up in another thread may be about to use them"
    new = cache(reader)
    assert new == [{"text": "another"}, {"small": 8}]
    assert not {id(held) for held in old} & {id(held) for held in new}


@native_only
def test_a_new_version_costs_nothing_until_something_is_looked_up(
    reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    reader.get("n")
    old = [id(held) for held in cache(reader)]
    publish(writer, {"n": 2})
    assert reader.version == 2
    assert [id(held) for held in cache(reader)] == old


# --- when it may answer -------------------------------------------------------------------------------------------


@native_only
def test_only_what_was_found_at_the_version_in_use_is_remembered(
    place: Any, tmp_path: Path, reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    publish(writer, {"n": 2})
    assert reader.get("n") == 2
    attachment = reader.attachment()
    for version in (0, 1):
        reader._remember(attachment, version, True, "late", "of an older version")
    assert reader.get("late") is None
    assert reader.get("n") == 2
    other = type(place)(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    elsewhere = other.writer()
    publish(elsewhere, {"n": "elsewhere"})
    publish(elsewhere, {"n": "elsewhere"})
    with shmconf.attach("web", directory=other.run) as stranger:
        reader._remember(stranger.attachment(), 2, True, "late", "of another segment")
    assert reader.get("late") is None
    reader._remember(attachment, 3, True, "n", "of a version that is not there yet")
    assert reader.get("n") == 2
    elsewhere.close()
    reader._remember(attachment, 2, True, ("n", True), "equal to another path")
    assert reader.get(("n", 1)) is None


@native_only
def test_an_answer_that_comes_late_is_not_remembered(
    reader: Any, writer: Any, publish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread publishes and looks up while this one has the older answer in its hands."""
    kind = type(reader.attachment())
    real = kind.find
    publish(writer, {"bytes": b"old"})

    def find_slowly(attachment: Any, path: Any) -> Any:
        found = real(attachment, path)
        monkeypatch.setattr(kind, "find", real)
        publish(writer, {"bytes": b"new"})
        assert reader.get("bytes") == b"new"
        return found

    monkeypatch.setattr(kind, "find", find_slowly)
    assert reader.get("bytes") == b"old", "what was published when it was asked"
    assert reader.get("bytes") == b"new"


@native_only
@pytest.mark.parametrize("event", ["another segment", "a newer version"])
def test_nothing_is_remembered_across_what_happens_while_the_cache_is_made(
    place: Any, tmp_path: Path, reader: Any, writer: Any, publish: Callable[..., int], event: str
) -> None:
    """Making the dictionaries of a new version may collect garbage, and with it run anything."""
    (tmp_path / "other").mkdir()
    other = type(place)(tmp_path / "other")
    elsewhere = other.writer()
    happened = []

    def happen(phase: str, info: object) -> None:
        if phase == "start" and not happened:
            happened.append(event)
            if event == "another segment":
                reader._attachment = stranger.attachment()
            else:
                publish(writer, {"n": "newer"})
                assert reader.get("n") == "newer"

    reader.get("n")
    for number in (1, 2):
        publish(elsewhere, {"n": f"elsewhere {number}"})
    publish(writer, {"n": "here"})
    with shmconf.attach("web", directory=other.run) as stranger:
        assert reader.version == stranger.version == 2
        thresholds = gc.get_threshold()
        gc.callbacks.append(happen)
        happened.append("not yet")
        gc.collect()  # dictionaries that wait to be used again go, too
        happened.clear()
        gc.set_threshold(1)
        try:
            first = reader.get("n")
            if not happened:  # from Python 3.12 on a collection waits for the interpreter's next step
                gc.collect()
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(happen)
        assert happened
        wanted = "elsewhere 2" if event == "another segment" else "newer"
        assert first in ("here", wanted)
        assert reader.get("n") == wanted
        assert reader["n"] == wanted
    elsewhere.close()


@native_only
def test_a_retired_segment_is_not_answered_from_the_cache(
    place: Any, reader: Any, writer: Any, publish: Callable[..., int], until: Callable[..., Any]
) -> None:
    assert reader.get("n") == 1
    place.file.unlink()
    publish(writer, {"n": 2})
    until(lambda: reader.get("n") == 2, "the next look-ups find the successor")


@pytest.mark.parametrize(
    ("ask", "old", "new"),
    [
        (lambda reader: reader.get("n"), 1, "anew"),
        (lambda reader: reader.get(("map", "a")), {"b": 1}, None),
        (lambda reader: reader.get("added"), None, 1),
        (lambda reader: reader["n"], 1, "anew"),
        (lambda reader: "added" in reader, False, True),
        (lambda reader: (("n",) in reader) and reader.get("n"), 1, "anew"),
    ],
    ids=["a cached scalar", "a container", "a miss", "brackets", "in", "two at a time"],
)
def test_the_1024th_look_up_follows_a_removed_file(
    place: Any, reader: Any, writer: Any, publish: Callable[..., int], kill: Callable[..., None], ask: Any, old: Any,
    new: Any,
) -> None:  # fmt: skip
    """Nobody retired it, and its agent is gone: only the file's name tells."""
    kill(writer)
    place.file.unlink()
    publish(place.writer(), {"n": "anew", "added": 1})
    before = ask(reader)
    asked = 1
    while ask(reader) == old and asked < 3000:
        asked += 1
    assert (before, ask(reader)) == (old, new)
    assert asked in (1023, 511), "one less for the look-up that followed; half where it asks twice"


def test_a_cached_value_is_found_without_a_python_frame(
    reader: Any, writer: Any, publish: Callable[..., int]
) -> None:
    if IMPLEMENTATION == "pure":
        pytest.skip("whole snapshots are looked up in Python")
    calls: list[str] = []

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    def python() -> None:
        pass

    def look() -> None:
        for _ in range(3):  # not there yet, then cached
            get("text")
            get(("map", "a", "b"), 5)
            get("map.a.b", default=5)
            get(path="small")
            reader["text"]
            reader["list", 1]
            "text" in reader  # noqa: B015
            ("map", "a", "b") in reader  # noqa: B015
            reader.version  # noqa: B018

    get = reader.get
    for watch in (sys.setprofile, sys.settrace):
        for tree in ({**SCALARS, **CONTAINERS}, {**CONTAINERS, **SCALARS}):
            publish(writer, tree)
            calls.clear()
            watch(note)
            try:
                python()
                look()
            finally:
                watch(None)
            assert calls == [python.__qualname__, look.__qualname__]


def test_a_subclass_keeps_the_get_of_its_own(reader: Any) -> None:
    class Other:
        def get(self, path: Any, default: Any = None) -> Any:
            return "other"

    class Own(shmconf.Reader):
        def get(self, path: Any, default: Any = None) -> Any:
            return "own", super().get(path, default)

    class Plain(shmconf.Reader):
        pass

    class Mixed(Other, shmconf.Reader):
        pass

    attachment = reader.attachment()
    assert Own("web", attachment, None).get("n") == ("own", 1)
    assert Plain("web", attachment, None).get("n") == 1
    assert Mixed("web", attachment, None).get("n") == "other"
    assert Mixed("web", attachment, None)["n"] == 1


# --- what is asked ------------------------------------------------------------------------------------------------

Named = namedtuple("Named", "first second")


class Text(str):
    __slots__ = ()


KEYS: dict[Any, Any] = {
    "hosts": ["zero", "one", "two", ["inner"]],
    "numbers": {0: "zero", 1: "one", 2.5: "two and a half", -1: "minus one", 2**64 - 1: "most", -(2**63): "least"},
    "digits": {"0": "text zero", "1": "text one", "01": "text 01", "-1": "text minus one"},
    "true": {True: "yes", False: "no"},
    "others": {None: "none", b"bytes": "bytes", "bytes": "text", date(2026, 1, 2): "a day", math.nan: "never"},
    "": {"": "empty"},
    "a.b": {"c": "dotted", "d e": {'q"uote': "quoted", "back\\slash": "slashed", "it's": "single"}},
    "n\0l": {"\0": "zeros"},
    "é": {"\U0001f600": "unicode"},
    "k" * 100_000: {"l" * 70_000: "long"},
    1: "top one",
    5: {"five": 5},
    None: "top none",
    b"b": "top bytes",
    2.5: "top float",
}
PATHS: list[Any] = [
    *itertools.product(["hosts", "numbers", "digits", "true"], [0, 1, True, 1.0, False, "1", "0", "01", -1, "-1", 1.5]),
    *[("numbers", key) for key in (2.5, 2**64 - 1, 2**64, 2**70, -(2**63), -(2**63) - 1, float(2**64 - 1), 10**400)],
    *[("hosts", key) for key in (2**63, 2**64, 2**70, -(2**70), None, b"1", 3, 4, "3", (1,))],
    *[("hosts", 3, key) for key in (0, False, 0.0, "0", 1)],
    *[("others", key) for key in (None, b"bytes", "bytes", date(2026, 1, 2), datetime(2026, 1, 2), math.nan, ())],
    *[(key,) for key in (1, True, 1.0, 5, None, b"b", "b", 2.5, "", "1", "k" * 100_000, "k" * 99_999, Text("hosts"))],
    ("", ""),
    (),
    ("n\0l", "\0"),
    ("n\0l", ""),
    ("n",),
    ("é", "\U0001f600"),
    ("\udc80",),
    ("hosts", "\udc80"),
    ("k" * 100_000, "l" * 70_000),
    Named("hosts", 1),
    Named("hosts", True),
    Named("a.b", "c"),
    (Text("hosts"), 1),
    Text("hosts.1"),
    ("hosts", ["unhashable"]),
    ("numbers", {}),
    *["hosts.1", "hosts.01", "hosts.-1", "hosts.4", "hosts.3.0", "digits.1", "digits.01", "numbers.1", "true.true"],
    *['"a.b".c', "'a.b'.c", "a.b.c", '"a.b"."d e"."q\\"uote"', "'a.b'.'d e'.'back\\slash'", '"a.b"."d e"."it\'s"'],
    *['""', '"".""', '"\\u00e9"."\\U0001F600"', "'é'.'\U0001f600'", '"n\\u0000l"."\\u0000"', '"\udc80"'],
    *["k" * 100_000 + "." + "l" * 70_000, "k" * 99_999, "hosts . 1", " hosts\t.\t1 ", "hosts." + "9" * 5000],
    *["", ".", "hosts.", ".hosts", "a b", '"open', "é", "hosts..1", "\udc80", '"\\q"', '"\\uD800"', "n\0l", "a\nb"],
]


def outcome(ask: Callable[[], Any]) -> str:
    """What it gave, with its type, or what it raised."""
    try:
        return f"{(value := ask())!r} of {type(value).__name__}"
    except (PathError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("seed", range(4))
def test_no_two_paths_are_confused_whatever_was_cached(place: Any, publish: Callable[..., int], seed: int) -> None:
    publish(place.writer(), KEYS)
    asked = PATHS * 2
    if seed == 1:
        asked.reverse()
    elif seed > 1:
        random.Random(seed).shuffle(asked)
    with shmconf.attach("web", directory=place.run) as reader:
        snapshot = reader.snapshot()
        tree = snapshot.to_dict()
        for path in asked:
            wanted = outcome(lambda path=path: look_up(tree, path, "nothing"))
            assert outcome(lambda path=path: reader.get(path, "nothing")) == wanted
            assert outcome(lambda path=path: snapshot.get(path, "nothing")) == wanted
            if isinstance(path, tuple):
                key = tuple(path)
                found = look_up(tree, key)
                wanted = f"KeyError: {path}" if found is MISSING else outcome(lambda path=path: look_up(tree, path))
                assert outcome(lambda path=path: reader[path]) == wanted
                assert (path in reader) is (found is not MISSING)
                assert outcome(lambda path=path: snapshot[path]) == wanted


def test_brackets_take_any_key_of_the_top_level_as_it_is(place: Any, publish: Callable[..., int]) -> None:
    publish(place.writer(), KEYS)
    keys = [*KEYS, *(path for path in PATHS if isinstance(path, str)), True, 1.0, 2**70, math.nan, "\udc80", Text("é")]
    with shmconf.attach("web", directory=place.run) as reader:
        tree = reader.snapshot().to_dict()
        for key in keys * 2:
            if key in tree:
                assert same(reader[key], tree[key])
            else:
                with pytest.raises(KeyError) as caught:
                    reader[key]
                assert caught.value.args == (key,)
            assert (key in reader) is (key in tree)
        for key in ([], {}, {1}):
            assert key not in reader
            with pytest.raises(KeyError) as caught:
                reader[key]
            assert caught.value.args == (key,)


def test_the_key_of_a_key_error_is_a_path_where_a_path_was_asked(reader: Any) -> None:
    for path in (("map", "x"), ("list", 3), ("list", True), Named("map", "x")):
        with pytest.raises(KeyError) as caught:
            reader[path]
        assert caught.value.args == (path,)


def test_get_takes_its_arguments_by_place_and_by_name(reader: Any) -> None:
    assert reader.get("n") == reader.get(path="n") == reader.get("n", 5) == reader.get("n", default=5) == 1
    assert reader.get(default=5, path="n") == reader.get(path="n", default=5) == 1
    assert reader.get("x", 5) == reader.get("x", default=5) == reader.get(default=5, path="x") == 5
    assert reader.get("x") is reader.get(path="x") is reader.get("x", None) is reader.get("x", default=None) is None
    fallback = object()
    assert reader.get("x", fallback) is reader.get(path="x", default=fallback) is fallback
    assert reader.get("null", fallback) is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda get: get(),
        lambda get: get(default=1),
        lambda get: get("n", 1, 2),
        lambda get: get("n", 1, default=2),
        lambda get: get("n", path="n"),
        lambda get: get("n", 1, path="n"),
        lambda get: get("n", fallback=1),
        lambda get: get("n", **{"": 1}),
        lambda get: get(path="n", default=1, more=2),
    ],
)
def test_wrong_arguments_are_a_type_error(reader: Any, ask: Any) -> None:
    for _ in range(2):
        with pytest.raises(TypeError):
            ask(reader.get)
        reader.get("n")


def test_paths_of_a_thousand_parts(place: Any) -> None:
    deep = 1000
    payload = b"\x81\xa1k" * deep + b"\xa6bottom"
    place.writer().publish(Document.of(payload), {})
    with shmconf.attach("web", directory=place.run) as reader:
        for _ in range(2):
            assert reader.get(".".join("k" * deep)) == "bottom"
            assert reader.get(("k",) * deep) == reader[("k",) * deep] == "bottom"
            assert reader.get(("k",) * (deep - 1)) == {"k": "bottom"}
            assert reader.get(".".join("k" * (deep + 1)), "nothing") == "nothing"
            assert reader.get(("k",) * (deep - 1) + ("x",), "nothing") == "nothing"
            assert reader.get((*("k",) * 500, "x", *("k",) * 499), "nothing") == "nothing"
        assert reader.snapshot().get(("k",) * deep) == "bottom"


# --- what is given ------------------------------------------------------------------------------------------------


def test_every_type_is_the_same_by_every_way(place: Any, reader: Any, child: Any) -> None:
    snapshot = reader.snapshot()
    whole = snapshot.to_dict()
    for name, value in (SCALARS | CONTAINERS).items():
        text = f'"{name}"'
        for _ in range(2):
            for found in (
                reader.get(text),
                reader.get((name,)),
                reader[name],
                reader[(name,)],
                snapshot.get(text),
                snapshot[name],
                whole[name],
            ):
                assert same(found, value), name
    code = """
import sys, shmconf
with shmconf.attach("web", directory=sys.argv[1]) as reader:
    for name in sys.stdin:
        print(ascii(repr(reader.get((name.rstrip("\\n"),)))), flush=True)
"""
    for pure in ("", "1"):
        other = child(code, place.run, SHMCONF_PURE=pure)
        for name, value in (SCALARS | CONTAINERS).items():
            other.tell(name)
            assert ast.literal_eval(other.line()) == repr(value)


def test_containers_are_fresh_whoever_has_changed_them(reader: Any) -> None:
    for _ in range(3):
        for take in (
            lambda: reader.get("map"),
            lambda: reader["map"],
            lambda: reader.get(("map",)),
            lambda: reader.snapshot().get("map"),
        ):
            taken = take()
            assert taken == {"a": {"b": 1}}
            taken["a"]["b"] = taken["a"]["c"] = 99
            taken.clear()
        assert reader.get("map.a.b") == 1
        inner = reader.get(("map", "a"))
        inner["b"] = 2
        reader["list"].append("three")
        assert reader["list"] == ["zero", "one", "two"]
        assert reader.get("map.a") == {"b": 1}


def test_a_look_up_that_insists_keeps_no_other_thread_waiting(
    place: Any, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published slot is not whole and never will be: it insists for as long as it may, and says so."""
    ticks = 0
    ended = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not ended.wait(0.001):
            ticks += 1

    monkeypatch.setattr(shmconf.attachment, "PATIENCE_SECONDS", 0.5)
    with shmconf.attach("web", directory=place.run) as reader:
        reader.snapshot()
        ticking = threading.Thread(target=tick)
        ticking.start()
        writer._segment._mapping.store(layout.slot_offset(1), 1)
        try:
            if IMPLEMENTATION == "pure":
                reader._cached = None  # it has the version already
            for ask in (lambda: reader.get("n"), lambda: reader["list"]):
                before = ticks
                with pytest.raises(shmconf.SegmentCorrupt, match="its slot is not whole"):
                    ask()
                assert ticks > before + 2
        finally:
            ended.set()
            ticking.join()


@pytest.mark.parametrize("way", ["text", "container"])
def test_a_value_that_grows_and_shrinks_while_it_is_read(
    place: Any, publish: Callable[..., int], until: Callable[..., Any], way: str
) -> None:
    """Below and above what a first try has room for, from one version to the next."""
    sizes = [1, 5, 100, 2_000, 60, 300, 9_000, 3, 40, 20_000]
    writer = place.writer()

    def tree(number: int) -> dict[str, Any]:
        words = [str(number)] * sizes[number % len(sizes)]
        return {"before": "x" * (number % 777), "value": " ".join(words) if way == "text" else words}

    publish(writer, tree(0))
    seen: set[int] = set()
    failures: list[BaseException] = []
    stop = threading.Event()
    with shmconf.attach("web", directory=place.run) as reader:

        def look() -> None:
            last = 0
            try:
                while not stop.is_set():
                    value = reader.get("value")
                    words = value.split(" ") if way == "text" else value
                    number = int(words[0])
                    assert words == [str(number)] * sizes[number % len(sizes)]
                    assert number >= last
                    last = number
                    seen.add(number)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        number = 0

        def enough() -> bool:
            lengths = {sizes[one % len(sizes)] for one in seen.copy()}
            return bool(failures) or (len(seen) > 100 and lengths == set(sizes))

        def publish_more() -> bool:
            nonlocal number
            number += 1
            publish(writer, tree(number))
            return enough()

        try:
            until(publish_more, "readers see versions of every size", 60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures


# --- any tree -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def any_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Writer, Path]]:
    run = tmp_path_factory.mktemp("look-ups")
    run.chmod(0o755)
    with Writer(Directory(run, named=True), "web", Settings(1 << 20)) as writer:
        writer.publish(codec.pack({"first": 1}))
        yield writer, run


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == key:  # a nan is found by who has that very object, and so by nobody else
                yield from paths_in(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:40]):
            yield from paths_in(inner, (*path, index))


def textual(tree: Any, path: tuple[Any, ...]) -> str | None:
    """The path as text, where text can address it."""
    value = tree
    for part in path:
        if isinstance(value, dict) and not isinstance(part, str):
            return None
        value = value[part]
    return format_path([str(part) for part in path]) if path else None


others = st.sampled_from(["", "0", "1", "x", 0.0, 1.0, True, False, None])
wrong_parts = documents.scalars | st.integers(0, 300) | others


@given(payload=documents.encoded(documents.trees), data=st.data())
def test_get_is_a_walk_through_the_decoded_tree(
    any_tree: tuple[Writer, Path], payload: bytes, data: st.DataObject
) -> None:
    writer, run = any_tree
    made = Document.of(payload)
    indexed = data.draw(st.booleans())
    writer.publish(made if indexed else Document(made.payload, made.digest, b""))
    tree = codec.unpack(payload)
    right = list(paths_in(tree))
    right = data.draw(st.permutations(right)) if len(right) < 30 else right
    wrong: list[Any] = []
    for _ in range(10):
        path = data.draw(st.sampled_from(right))
        at = data.draw(st.integers(0, len(path)))
        wrong.append((*path[:at], data.draw(wrong_parts), *path[at + data.draw(st.integers(0, 1)) :]))
    texts = [text for path in right if (text := textual(tree, path)) is not None]
    wrong += [f"{text}.{data.draw(st.sampled_from(['0', 'x', '01', '1']))}" for text in texts[:5]]
    with shmconf.attach("web", directory=run) as reader:
        for path in itertools.chain(right, wrong, texts, right[:5]):
            assert same(reader.get(path, MISSING), look_up(tree, path)), path
