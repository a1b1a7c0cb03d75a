"""Kinds of events, their ids, and the catalog that explains them."""

from __future__ import annotations

import re
from pathlib import Path

from shmconf_agent.log_kinds import Kind

CATALOG = Path(__file__).parents[3] / "systemd/shmconf.catalog"


def entries() -> dict[str, tuple[dict[str, str], str]]:
    """By message id: the headers, and the text."""
    text = "".join(line for line in CATALOG.read_text().splitlines(keepends=True) if not line.startswith("#"))
    found = {}
    for entry in text.split("-- ")[1:]:
        head, _, body = entry.partition("\n\n")
        message_id, *headers = head.splitlines()
        assert message_id not in found
        found[message_id] = (dict(line.split(": ", 1) for line in headers), body.strip())
    return found


def test_each_kind_has_an_id_of_its_own() -> None:
    ids = [kind.message_id for kind in Kind]
    assert len(set(ids)) == len(Kind) > 10
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_ids_and_priorities_stay() -> None:
    """Alerts are made of them: the ones that matter most."""
    assert (Kind.PUBLISHED.message_id, Kind.PUBLISHED.priority) == ("94f872e7bd7d498abae931ce7f5559e2", 6)
    assert (Kind.REJECTED.message_id, Kind.REJECTED.priority) == ("ca86faceb9654070b68e3faa39017aac", 3)
    assert (Kind.HELD.message_id, Kind.HELD.priority) == ("cb1b3c599a844e8ba615305cc05db3b3", 4)


def test_the_catalog_explains_each_kind_and_no_other() -> None:
    explained = entries()
    assert list(explained) == [kind.message_id for kind in Kind]
    for headers, body in explained.values():
        assert headers.keys() == {"Subject", "Defined-By"}
        assert headers["Defined-By"] == "shmconf"
        assert body


def test_the_catalog_uses_fields_that_there_are() -> None:
    assert set(re.findall("@([A-Z_]+)@", CATALOG.read_text())) <= {"SEGMENT", "VERSION", "DIGEST"}
