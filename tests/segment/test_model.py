"""The protocol holds in the models of shm/model, and falls when any part of it is taken away."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.timeout(600)  # a search is minutes of work to a busy machine

MODEL_DIRECTORY = Path(__file__).parents[2] / "shm" / "model"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shmconf_model_check", MODEL_DIRECTORY / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


check = load()


def called(search) -> str:
    return f"{search.model.removesuffix('.pml')}: {search.title}"


@pytest.fixture(scope="module")
def possible(require: Callable[[object, str], None]) -> None:
    lack = check.missing()
    require(lack is None, f"searching the models {lack}")


@pytest.fixture(scope="module")
def outcomes(possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[object, Future]]:
    """Every search, under way: two at a time, since most of each is one processor's work."""
    with ThreadPoolExecutor(check.PARALLEL) as pool:
        yield {search: pool.submit(check.run, search, tmp_path_factory.mktemp("search")) for search in check.SEARCHES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("search", check.HOLDS, ids=called)
def test_the_protocol_holds_in_every_state(search, outcomes):
    outcome = outcomes[search].result()
    assert outcome.broken is None
    assert outcome.unfinished is None
    assert not search.every_statement or outcome.unreached == ()
    assert outcome.states > 1_000_000


@pytest.mark.parametrize("search", check.SPARES, ids=called)
def test_what_is_there_twice_may_be_missing_once(search, outcomes):
    outcome = outcomes[search].result()
    assert (outcome.broken, outcome.unfinished) == (None, None)
    assert outcome.states > 100_000


@pytest.mark.parametrize("search", check.ABLATIONS, ids=called)
def test_without_a_part_the_protocol_falls(search, outcomes):
    assert outcomes[search].result().broken == search.breaks


@pytest.mark.parametrize("search", check.SIGHTS, ids=called)
def test_the_models_show_what_is_hard(search, outcomes):
    assert outcomes[search].result().broken == search.breaks


# --- that these tests can fail ---------------------------------------------------------------------------------------


def test_a_search_that_breaks_is_objected_to(possible, tmp_path):
    search = next(search for search in check.ABLATIONS if search.breaks == "mixture")
    must_hold = replace(search, breaks=None)
    assert "broken: mixture" in check.run(must_hold, tmp_path).objection(must_hold)


def test_an_ablation_that_breaks_nothing_is_objected_to(possible, tmp_path):
    search = replace(check.SPARES[-1], breaks="asleep_for_good")
    assert "must break 'asleep_for_good'" in check.run(search, tmp_path).objection(search)


def test_a_search_that_is_cut_short_is_objected_to(possible, tmp_path):
    search = check.SPARES[-1]
    assert "not exhaustive" in check.run(search, tmp_path, depth=40).objection(search)


def test_a_model_that_does_not_do_what_it_says_is_objected_to(possible, tmp_path):
    """With one life there is no taking over."""
    search = check.Search("1 life", "latch.pml", ("READERS=1", "LIVES=1"), every_statement=True)
    assert "never reached: " in check.run(search, tmp_path).objection(search)


@pytest.mark.parametrize("model", ["latch.pml", "replacement.pml"])
def test_every_part_that_a_model_can_lose_is_searched_without(model):
    """An ablation that nobody runs is a claim that nobody checks."""
    text = (MODEL_DIRECTORY / model).read_text()
    known = {line.split()[1] for line in text.splitlines() if line.startswith(("#ifdef ", "#ifndef "))}
    defined = {line.split()[1] for line in text.splitlines() if line.startswith("#define ")}
    searches = [search for search in check.SEARCHES if search.model == model]
    assert any(search.every_statement for search in searches)
    searched = {macro.partition("=")[0] for search in searches for macro in search.defines}
    optional = {macro for macro in known if macro not in defined and not macro.startswith("ONLY_")}
    assert optional <= searched
    assert searched <= known
