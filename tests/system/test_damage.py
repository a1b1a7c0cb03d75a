"""A segment's file that something has written over: who reads goes on, who comes is told, the next agent mends it."""

from __future__ import annotations

import json


def test_a_damaged_segment_is_told_and_replaced_at_the_next_start(home, eventually):
    home.segment("base.yaml")
    home.write("base.yaml", "value: 1\n")
    first = home.start()
    reader = home.attach()
    assert reader["value"] == 1
    version, epoch = reader.version, reader.epoch
    first.kill()
    with (home.runtime / "web.shmconf").open("r+b") as file:
        file.write(b"garbage!")

    assert reader["value"] == 1  # what is mapped and was checked stays
    shown = home.run("status", "web")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "web.shmconf: it does not begin like a shmconf segment" in shown.stderr
    of_all = home.run("status")
    assert of_all.returncode == 1
    assert of_all.stdout.splitlines()[1].split()[:3] == ["web", "-", "unreadable"]
    assert home.run("get", "web").returncode == 1
    findings = json.loads(home.run("doctor", "--format", "json").stdout)["findings"]
    assert [each["level"] for each in findings if each["topic"] == "segment"] == ["failure"]

    home.start()
    snapshot = reader.wait(after=version, timeout=60)
    assert snapshot is not None
    assert (snapshot["value"], snapshot.version > version, snapshot.epoch != epoch) == (1, True, True)
    assert home.status()[0] == 0
    home.write("base.yaml", "value: 2\n")
    assert reader.wait(after=snapshot.version, timeout=60)["value"] == 2
