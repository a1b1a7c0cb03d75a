"""The guard's settings, what trips it, and where it says that it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmconf import codec
from shmconf_agent import formats
from shmconf_agent.agents_file import load
from shmconf_agent.guard import Guard, Served, Trip, problems
from shmconf_agent.guard_settings import GuardSettings, Most
from shmconf_agent.merge import Layer, merge
from shmconf_agent.problems import Code, Fault, Invalid, Problem
from shmconf_agent.settle import digest_of
from shmconf_agent.view import SourceLayer

Write = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "shmconf.toml"
        file.write_text(f'[segment.web]\nsources = ["a.yaml"]\n[segment.web.guard]\n{text}\n')
        return file

    return write


def settings(written: Write, text: str) -> GuardSettings | None:
    return load(written(text)).segments[0].guard


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_whole_table(written: Write) -> None:
    text = 'max_deleted_keys = "10%"\nmax_changed_keys = 5\nnever_empty = ["a.b", \'"x.y".0\']\nfrozen = ["c", "c"]'
    assert settings(written, text) == GuardSettings(
        Most("10%", share=Fraction(1, 10)), Most("5", number=5), ("a.b", '"x.y".0'), ("c",)
    )
    assert settings(written, "") is None
    assert settings(written, "never_empty = []") is None


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0), ("100%", 1), ("12.5 %", Fraction(1, 8)), ("0.1%", Fraction(1, 1000))]
)
def test_shares_are_exact(written: Write, text: str, share: Fraction) -> None:
    found = settings(written, f'max_deleted_keys = "{text}"')
    assert found is not None
    assert found.max_deleted_keys == Most(text, share=Fraction(share))


WHAT = 'a number of keys, as in 20, or a share of those that are served, as in "10%", not'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_deleted_keys = -1", f"4:1: 'max_deleted_keys' is {WHAT} -1"),
        ("max_deleted_keys = 0.1", f"4:1: 'max_deleted_keys' is {WHAT} 0.1"),
        ("max_changed_keys = true", f"4:1: 'max_changed_keys' is {WHAT} true"),
        ('max_changed_keys = "10"', f"4:1: 'max_changed_keys' is {WHAT} '10'"),
        ('max_changed_keys = "101%"', f"4:1: 'max_changed_keys' is {WHAT} '101%'"),
        ('max_changed_keys = "-1%"', f"4:1: 'max_changed_keys' is {WHAT} '-1%'"),
        ('never_empty = "a.b"', "4:1: 'never_empty' is a list of paths, as in [\"db.hosts\"], not 'a.b'"),
        ('frozen = ["a", 3]', "4:16: an entry of 'frozen' is a path, as in \"db.hosts\", not 3"),
        ('frozen = ["a.", "b"]', "4:11: an entry of 'frozen' is a path of keys: path 'a.', column 3: expected a key"),
        ("frosen = []", "4:1: unknown key 'frosen' in [segment.web.guard]; did you mean 'frozen'?"),
        ("max_delete = 1", "4:1: unknown key 'max_delete' in [segment.web.guard]; did you mean 'max_deleted_keys'?"),
    ],
)
def test_mistakes_are_told_with_their_place(written: Write, text: str, problem: str) -> None:
    file = written(text)
    with pytest.raises(Invalid) as caught:
        load(file)
    [found] = [str(each).removeprefix(f"{file}:") for each in caught.value.problems]
    assert found.startswith(problem)


def test_what_is_no_table(tmp_path: Path) -> None:
    file = tmp_path / "shmconf.toml"
    file.write_text('[segment.web]\nsources = ["a.yaml"]\nguard = "10%"\n')
    with pytest.raises(Invalid, match=r"shmconf.toml:3:1: \[segment.web.guard\] is a table of the guard's keys"):
        load(file)


# --- the judgement ----------------------------------------------------------------------------------------------------


def digest(tree: Any) -> str:
    return hashlib.sha256(codec.pack(tree)).hexdigest()


def served(tree: Any) -> Served:
    return Served(digest(tree), lambda: codec.pack(tree))


def judge(guard: GuardSettings, before: Any, after: Any) -> list[tuple[Code, str]]:
    trips = Guard(guard).judge(digest(after), after, None if before is None else served(before))
    return [(trip.fault.code, trip.fault.message) for trip in trips]


TEN = {f"k{each}": each for each in range(10)}


def without(count: int) -> dict[str, int]:
    return {key: value for key, value in TEN.items() if value >= count}


@pytest.mark.parametrize(
    ("most", "deleted", "trips"),
    [
        (Most("0", number=0), 0, False),
        (Most("0", number=0), 1, True),
        (Most("3", number=3), 3, False),
        (Most("3", number=3), 4, True),
        (Most("10%", share=Fraction(1, 10)), 1, False),
        (Most("10%", share=Fraction(1, 10)), 2, True),
        (Most("9.9%", share=Fraction(99, 1000)), 1, True),
        (Most("0%", share=Fraction(0)), 1, True),
        (Most("100%", share=Fraction(1)), 10, False),
    ],
)
def test_how_many_keys_may_go(most: Most, deleted: int, trips: bool) -> None:
    found = judge(GuardSettings(max_deleted_keys=most), TEN, without(deleted) | {"new": 1})
    assert [code for code, _ in found] == [Code.GUARD_DELETED] * trips


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_a_share_is_one_of_what_is_served(total: int, changed: int, percent: int) -> None:
    before = {"in": {str(each): each for each in range(total)}} if total else {}
    after = {"in": {key: -1 if value < changed else value for key, value in before.get("in", {}).items()}}
    settings = GuardSettings(max_changed_keys=Most("x", share=Fraction(percent, 100)))
    found = judge(settings, before, after)
    assert bool(found) == (100 * min(changed, total) > percent * total)


def test_what_the_counts_say() -> None:
    both = GuardSettings(Most("1", number=1), Most("10%", share=Fraction(1, 10)))
    after = {key: value if value > 7 else str(value) for key, value in without(5).items()}
    assert judge(both, TEN, after) == [
        (Code.GUARD_DELETED, "would delete 5 of 10 keys, more than max_deleted_keys = 1; first: k0, k1, k2, …"),
        (Code.GUARD_CHANGED, "would change 3 of 10 keys, more than max_changed_keys = 10%: k5, k6, k7"),
    ]
    none = GuardSettings(Most("0", number=0))
    assert judge(none, {"a": {"b c": 1}}, {"a": 1}) == [
        (Code.GUARD_DELETED, 'would delete 1 of 1 key, more than max_deleted_keys = 0: a."b c"')
    ]
    [(_, text)] = judge(none, {"k" * 500: 1}, {})
    assert text.endswith(f": {'k' * 79}…")


def test_types_are_changes_though_python_has_them_equal_and_order_is_none() -> None:
    none = GuardSettings(Most("0", number=0), Most("0", number=0), frozen=("a", "l"))
    before = {"a": 1, "b": {"c": 2, "d": 3}, "l": [1]}
    assert judge(none, before, {"l": [1], "b": {"d": 3, "c": 2}, "a": 1}) == []
    codes = [code for code, _ in judge(none, before, {"a": True, "b": {"c": 2, "d": 3}, "l": [1.0]})]
    assert codes == [Code.GUARD_CHANGED, Code.GUARD_FROZEN, Code.GUARD_FROZEN]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({}, "an empty map"), ([], "an empty list"), ("", "empty"), (b"", "empty"), (None, "null"),
        (0, None), (False, None), (0.0, None), ([None], None), ({"x": None}, None), (" ", None),
    ],
)  # fmt: skip
def test_never_empty(value: Any, word: str | None) -> None:
    wanted = [] if word is None else [(Code.GUARD_EMPTY, f"a.b is never_empty, and would be {word}")]
    settings = GuardSettings(never_empty=("a.b",))
    for before in (None, {}, {"a": {"b": 1}}):
        assert judge(settings, before, {"a": {"b": value}}) == wanted


@pytest.mark.parametrize("after", [{}, {"a": 1}, {"a": []}, {"a": {"c": 1}}])
def test_never_empty_is_never_missing(after: Any) -> None:
    assert judge(GuardSettings(never_empty=("a.b",)), None, after) == [
        (Code.GUARD_EMPTY, "a.b is never_empty, and would be missing")
    ]


def test_frozen() -> None:
    guard = GuardSettings(frozen=("a.b", "l.0", '"x.y"'))
    before = {"a": {"b": 1}, "l": ["p", "q"]}
    assert judge(guard, before, {"a": {"b": 1, "c": 2}, "l": ["p", "r"], "z": 1}) == []
    assert judge(guard, before, {"a": {}, "l": ["r", "p"], "x.y": 0}) == [
        (Code.GUARD_FROZEN, "a.b is frozen, and would be deleted"),
        (Code.GUARD_FROZEN, "l.0 is frozen, and would change"),
        (Code.GUARD_FROZEN, '"x.y" is frozen, and would be added'),
    ]


def test_the_first_version_is_asked_for_emptiness_alone_and_what_is_served_for_nothing() -> None:
    guard = GuardSettings(Most("0", number=0), Most("0", number=0), ("a",), ("a",))
    assert judge(guard, None, {"a": 1}) == []
    assert [code for code, _ in judge(guard, None, {})] == [Code.GUARD_EMPTY]
    assert judge(guard, {"b": 1}, {"b": 1}) == []


def test_a_tree_that_was_published_is_not_decoded_and_another_is_once() -> None:
    guard = Guard(GuardSettings(Most("0", number=0)))
    reads: list[int] = []

    def payload() -> bytes:
        reads.append(1)
        return codec.pack({"a": 1, "b": 2})

    before = Served("one", payload)
    assert guard.judge("two", {"a": 1}, before)
    assert guard.judge("three", {"b": 2}, before)
    assert reads == [1]
    guard.published("four", {"x": 1})
    assert guard.judge("five", {}, Served("four", lambda: pytest.fail("read")))
    with pytest.raises(ValueError, match="not a map"):
        guard.judge("six", {}, Served("seven", lambda: codec.pack([])))


# --- places -----------------------------------------------------------------------------------------------------------


def placed(*trips: Trip, **files: str) -> list[str]:
    """The problems of layers that are given as name = text; a name with an underscore is mounted at `at.it`."""
    texts, layers = [], []
    for name, text in files.items():
        file, at = f"{name}.yaml", ("at", "it") if "_" in name else ()
        data = text.encode()
        texts.append(SourceLayer(file, at, data, digest_of(data), file, False))
        trees = formats.parse_documents(data, file=file, limits=formats.DEFAULT_LIMITS)
        layers += [Layer(file, at, tree, document) for document, tree in enumerate(trees)]
    merge(layers)
    found: tuple[Problem, ...] = problems(trips, layers, texts)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("a", "b"), "over.yaml:2:3: "),
        (("a", "l", 1), "base.yaml:3:10: "),
        (("a", "gone"), "over.yaml:1:1: "),
        (("gone", "c"), ""),
        (("at", "it", "x"), "m_.yaml:1:1: "),
        (("at", "it", "gone"), ""),
    ],
)
def test_the_place_is_that_of_the_value_or_of_the_map_that_lacks_it(path: tuple[Any, ...], where: str) -> None:
    trip = Trip(Fault(Code.GUARD_FROZEN, "it says"), path)
    files = {"base": "a:\n  b: 1\n  l: [1, 2]\n", "over": "a:\n  b: 2\n", "m_": "x: 1\n"}
    assert placed(trip, **files) == [f"{where}it says"]
