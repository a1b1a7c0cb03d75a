"""The soak's oracle accuses what it should, and nothing else."""

from __future__ import annotations

import random

import pytest
from soak_model import ABSENT, NEVER, Model, Unit, Wrong
from soak_texts import FIRST, SUFFIXES, Tree, broken, equal, merge, parse, text_of, tree_of

from shmconf_agent.formats import parse_documents
from shmconf_agent.problems import Invalid


def state(*names: str, number: int) -> Tree:
    return {name: tree_of(name, FIRST + number, 70) for name in names}


def tree(*states: Tree) -> Tree:
    return merge([each[name] for each in states for name in each])


@pytest.fixture
def model() -> Model:
    """A file with two edits between which it was away, and two files that were exchanged together, twice."""
    a, pair = Unit(("a",)), Unit(("p", "q"), required=True)
    made = Model([a, pair])
    made.note(a, state("a", number=1))
    made.note(a, ABSENT)
    made.note(a, state("a", number=2))
    made.note(pair, state("p", "q", number=3))
    made.note(pair, NEVER)
    made.note(pair, state("p", "q", number=4))
    return made


A1, A2, PQ3, PQ4 = (state(*names, number=n) for n, names in ((1, "a"), (2, "a"), (3, "pq"), (4, "pq")))


def test_each_state_may_be_published_in_order(model: Model) -> None:
    for shown in (tree(A1, PQ3), tree(PQ3), tree(PQ4), tree(A2, PQ4), tree(A2, PQ4)):
        model.check(shown, "it")
    assert equal(tree(A2, PQ4), model.expected())


def test_nothing_may_go_back(model: Model) -> None:
    model.check(tree(A2, PQ3), "it")
    for shown in (tree(A1, PQ4), tree(PQ4)):
        with pytest.raises(Wrong, match=r"\('a',\) went back from state 2 to"):
            model.check(shown, "it")


def test_what_is_exchanged_together_is_seen_together(model: Model) -> None:
    mixed = {"p": PQ3["p"], "q": PQ4["q"]}
    for shown in (tree(A1, mixed), tree(A1, {"p": PQ3["p"]})):
        with pytest.raises(Wrong, match=r"\('p', 'q'\) never were"):
            model.check(shown, "it")


def test_what_must_not_be_absent_is_missed(model: Model) -> None:
    with pytest.raises(Wrong, match="never were"):
        model.check(tree(A1), "it")


def test_a_source_without_any_file_is_missed() -> None:
    units = [Unit((name,), source="conf.d") for name in "ab"]
    model = Model([*units, Unit(("c",))])
    for unit in model.units:
        model.note(unit, state(unit.names[0], number=1))
        model.note(unit, ABSENT)
    model.check(tree(state("b", number=1)), "it")
    with pytest.raises(Wrong, match=r"conf\.d has no file at all"):
        model.check({}, "it")


@pytest.mark.parametrize("spoil", ["an edit of the future", "half an edit", "an order", "a merge", "an addition"])
def test_what_never_was_is_accused(model: Model, spoil: str) -> None:
    shown = tree(A1, PQ3)
    if spoil == "an edit of the future":
        shown = tree(state("a", number=5), PQ3)
    elif spoil == "half an edit":
        shown["data"]["a"]["list"] = A2["a"]["data"]["a"]["list"]
    elif spoil == "an order":
        shown["data"] = dict(reversed(shown["data"].items()))
    elif spoil == "a merge":
        key = next(key for key, value in shown["data"]["shared"].items() if value.startswith(("p:", "q:")))
        shown["data"]["shared"][key] = f"a:{FIRST + 1}"
    else:
        shown["more"] = 1
    with pytest.raises(Wrong):
        model.check(shown, "it")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("flow", [True, False])
def test_texts_say_what_they_should_and_broken_ones_nothing(suffix: str, flow: bool) -> None:
    for number in range(20):
        wanted = tree_of("a", FIRST + number, 10 * number)
        text = text_of(suffix, wanted, flow=flow)
        assert equal(parse(suffix, text), wanted)
        with pytest.raises(Invalid):
            parse_documents(broken(suffix, text, random.Random(number)), file=f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("flow", [True, False])
def test_texts_of_edits_that_are_both_odd_or_even_have_one_size(suffix: str, flow: bool) -> None:
    for parity in (0, 1):
        texts = [text_of(suffix, tree_of("a", FIRST + parity + 2 * n, 99), flow=flow) for n in range(500)]
        assert len({len(text) for text in texts}) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_part_of_a_text_on_one_line_is_valid(suffix: str) -> None:
    text = text_of(suffix, tree_of("a", FIRST, 20), flow=True).rstrip()
    for length in range(1, len(text)):
        try:
            trees = parse_documents(text[:length], file=f"a{suffix}")
        except Invalid:
            continue
        assert trees == [{}], text[:length]
