"""The index that is published leads a reader written from FORMAT.md alone to what a decoded dict holds."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from documents import Encoder, trees
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from second_reader import MISS, Damaged, LookUp, SecondReader, decode

from shmconf import codec
from shmconf.directories import Directory
from shmconf.index import build_index
from shmconf.writer import Settings, Writer

Parts = tuple[Any, ...]


def walk(tree: Any, path: Parts = ()) -> Iterator[tuple[Parts, Any]]:
    """Every path and its value; NaN as a key equals nothing, so no path leads there."""
    yield path, tree
    if isinstance(tree, dict):
        for key, inner in tree.items():
            if key == key:
                yield from walk(inner, (*path, key))
    elif isinstance(tree, list):
        for number, inner in enumerate(tree):
            yield from walk(inner, (*path, number))


def strangers(tree: Any) -> Iterator[Any]:
    """Parts that look as if they might lead into `tree`: of the same hash, or of the same look."""
    yield from ("no such key", -1, 10**6, None, b"", "", True, 0.5, float("nan"))
    if isinstance(tree, list):
        yield from (len(tree), str(len(tree) - 1), 0.0, True)
    if isinstance(tree, dict):
        for key in list(tree)[:20]:
            yield from (str(key), (key,))
            if isinstance(key, str):
                yield key.encode()
            elif isinstance(key, bytes):
                yield key.decode("utf-8", "replace")
            elif isinstance(key, (int, float)):
                yield from (key + 1, -key)


def step(tree: Any, part: Any) -> Any:
    """What Python's dict and list have there."""
    if isinstance(tree, dict):
        return tree.get(part, MISS)
    if isinstance(tree, list) and isinstance(part, int) and not isinstance(part, bool) and 0 <= part < len(tree):
        return tree[part]
    return MISS


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: their encodings are."""
    shortest = Encoder(random.Random(0), 1.0)
    return shortest.encode(one) == shortest.encode(other)


seeds = st.integers(0, 2**32)
forms = st.sampled_from([1.0, 0.5, 0.0])
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def test_every_path_leads_to_what_a_dict_holds_and_a_miss_is_a_miss() -> None:
    hits: list[int] = []

    @relaxed
    @example({"x" * 300: 0, 2**64 - 1: 1, 2.0**64: 2}, 0, 1.0)  # an integer of more than 64 bits may equal a float
    @given(trees, seeds, forms)
    def check(tree: dict[Any, Any], seed: int, shortest: float) -> None:
        payload = Encoder(random.Random(seed), shortest).encode(tree)
        index = build_index(payload)
        decoded = decode(payload)
        places = list(walk(decoded))
        if len(places) > 300:
            places = random.Random(seed).sample(places, 300)
        for path, value in places:
            found = LookUp(payload, index).find(path)
            assert found == LookUp(payload, b"").find(path), "with the index and without"
            assert found is not MISS
            assert same(decode(found), value), path
            for part in strangers(value):
                expected = step(value, part)
                told = LookUp(payload, index).find((*path, part))
                assert (told is MISS) is (expected is MISS), (path, part)
                assert told is MISS or same(decode(told), expected), (path, part)
        hits.append(len(places) if index else 0)

    check()
    assert sum(count >= 10 for count in hits) >= 10, "too few of the trees had an index to look through"


def test_a_look_up_costs_the_depth_of_its_path_and_not_the_size_of_the_configuration() -> None:
    """Counted in items and entries looked at: no time is measured."""
    counts = {}
    for services in (100, 10_000):
        tree = {
            "services": {f"service-{number:05d}": {"port": number, "tags": ["a"] * 5} for number in range(services)},
            "list": [{"number": number} for number in range(services)],
        }
        payload = codec.pack(tree)
        index = build_index(payload)
        worst = 0
        for number in range(0, services, 7):
            for path, value in (
                (("services", f"service-{number:05d}", "port"), number),
                (("list", number, "number"), number),
            ):
                looking = LookUp(payload, index)
                found = looking.find(path)
                assert isinstance(found, bytes)
                assert decode(found) == value
                worst = max(worst, looking.looked_at)
            looking = LookUp(payload, index)
            assert looking.find(("services", f"service-{number:05d}!")) is MISS
            worst = max(worst, looking.looked_at)
        counts[services] = worst
        without = LookUp(payload, b"")
        without.find(("list", services - 1, "number"))
        assert without.looked_at > 3 * services
    assert counts[10_000] <= counts[100] + 16, counts
    assert counts[10_000] < 150, counts


@relaxed
@given(trees, seeds)
def test_a_damaged_index_gives_an_answer_or_damage_and_never_a_wild_read(tree: dict[Any, Any], seed: int) -> None:
    chance = random.Random(seed)
    payload = codec.pack({"tree": Encoder(random.Random(seed), 1.0).encode(tree), "list": [[n] * 9 for n in range(40)]})
    index = bytearray(build_index(payload))
    for _ in range(20):
        changed = bytearray(index)
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(len(changed))] = chance.choice([0, 1, 255, chance.randrange(256)])
        looking = LookUp(payload, bytes(changed))
        with contextlib.suppress(Damaged):
            looking.find(("list", chance.randrange(42), 3))
        assert looking.looked_at < 2 * len(payload) + len(index), "it goes round in circles"


@pytest.mark.parametrize("kind", [0, 2, 255])
def test_an_index_of_another_kind_is_passed_over(kind: int) -> None:
    payload = codec.pack({"list": ["x"] * 400, "n": 7})
    other = kind.to_bytes(4, "little") + b"\xff" * 100
    assert LookUp(payload, other).find(("n",)) == b"\x07"
    assert LookUp(payload, other).find(("list", 400)) is MISS


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(trees, min_size=1, max_size=5), seeds)
def test_what_is_published_is_found_through_the_segment(
    tmp_path_factory: pytest.TempPathFactory, configurations: list[dict[Any, Any]], seed: int
) -> None:
    place = tmp_path_factory.mktemp("published")
    with Writer(Directory(place, named=True), "web", Settings(1 << 24)) as writer:
        for tree in configurations:
            payload = Encoder(random.Random(seed), 1.0).encode({"fill": "x" * 256, "tree": tree})
            writer.publish(payload)
            latest = SecondReader(place / "web.shmconf").latest()
            assert latest is not None
            assert latest.payload == payload
            assert latest.index == build_index(payload) != b""
            places = list(walk(decode(payload)))
            for path, value in random.Random(seed).sample(places, min(len(places), 100)):
                found = latest.find(path)
                assert isinstance(found, bytes)
                assert found == latest.find(path, through_index=False)
                assert same(decode(found), value)
