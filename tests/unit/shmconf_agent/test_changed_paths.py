"""Which paths a publication changed, as the log tells it."""

from __future__ import annotations

from typing import Any

import pytest

from shmconf import codec
from shmconf_agent import changed_paths
from shmconf_agent.changed_paths import ChangedPaths, Comparison, Lineage


def compared(before: Any, after: Any) -> ChangedPaths:
    found = Comparison(before, after).result()
    assert found is not None
    return found


def test_paths_by_kind_and_no_values() -> None:
    before = {"db": {"host": "hidden-1", "pool": {"size": 1}}, "old": "hidden-2", "same": [1]}
    after = {"db": {"host": "hidden-3", "pool": {"size": 2}}, "same": [1], "a.b": {"new": "hidden-4"}}
    found = compared(before, after)
    assert found.text() == 'changed db.host, db.pool.size; added "a.b".new; deleted old'
    assert found.fields() == {
        "all_counted": True,
        "changed": {"count": 2, "first": ["db.host", "db.pool.size"]},
        "added": {"count": 1, "first": ['"a.b".new']},
        "deleted": {"count": 1, "first": ["old"]},
    }
    assert "hidden" not in found.text() + str(found.fields())


def test_documents_are_compared_as_trees_are() -> None:
    before, after = {"a": 1, "b": {"c": 1}}, {"a": 1, "b": {"c": True}}
    wanted = compared(before, after)
    assert wanted.text() == "changed b.c"
    assert compared(codec.pack(before), codec.pack(after)) == compared(codec.pack(before), after) == wanted


def test_another_order_alone() -> None:
    assert compared({"a": 1, "b": 2}, {"b": 2, "a": 1}).text() == "no value changed"


def test_many_are_cut_and_each_kind_has_its_place() -> None:
    before = {"changed": {str(n): n for n in range(50)}, "deleted": {str(n): n for n in range(20)}}
    after = {"changed": {str(n): -1 - n for n in range(50)}, "deleted": {}, "added": {str(n): n for n in range(1000)}}
    found = compared(before, after)
    assert found.text() == (
        "changed changed.0, changed.1, changed.2, changed.3 and 46 more; added added.0 and 999 more; "
        "deleted deleted.0 and 19 more"
    )
    assert len(found.fields()["added"]["first"]) == 100


def test_a_long_path_is_cut_in_the_line_alone() -> None:
    found = compared({}, {"k" * 500: 1})
    assert found.text() == f"added {'k' * 79}…"
    assert found.fields()["added"]["first"] == ["k" * 500]


def test_counting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_paths, "_MOST_COUNTED", 10)
    before, after = {str(n): n for n in range(11)}, {str(n): -1 - n for n in range(11)}
    found = compared(before, after)
    assert found.text() == "changed 0, 1, 2, 3 and 6 more; and so on"
    assert found.fields()["all_counted"] is False
    assert compared(dict(list(before.items())[:10]), dict(list(after.items())[:10])).fields()["all_counted"] is True


def test_what_is_shared_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    big = {str(n): {"x": n} for n in range(1000)}
    looked: list[tuple[Any, ...]] = []
    below = changed_paths.changes.__globals__["_below"]

    def counting(path: Any, before: Any, after: Any) -> Any:
        looked.append(path)
        return below(path, before, after)

    monkeypatch.setitem(changed_paths.changes.__globals__, "_below", counting)
    assert compared({"big": big, "a": {"b": 1}}, {"big": big, "a": {"b": 2}}).text() == "changed a.b"
    assert looked == [(), ("a",), ("a", "b")]


def test_contents_are_let_go_of() -> None:
    forgotten = Comparison({"a": 1}, {"a": 2})
    forgotten.forget()
    assert forgotten.result() is None
    asked = Comparison({"a": 1}, {"a": 2})
    first = asked.result()
    asked.forget()
    assert asked.result() is first is not None
    assert asked._contents is None


def test_a_lineage_compares_each_with_the_one_before() -> None:
    lineage = Lineage()
    assert not lineage.is_known
    assert lineage.follow({"a": 1}) is None
    assert lineage.is_known
    second, third = lineage.follow({"a": 2}), lineage.follow({"b": 2})
    assert second is not None
    assert third is not None
    assert [each.text() for each in (second.result(), third.result()) if each] == ["changed a", "added b; deleted a"]
