"""The exposition: the names that are promised, in a form that Prometheus and its linter take."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from shmconf import AgentStatus
from shmconf_agent.metrics import Metrics
from shmconf_agent.reasons import REASONS
from shmconf_agent.tally import EDIT_BUCKETS, STAGE_BUCKETS, Histogram, Standing, Totals

PROMISED = {
    "shmconf_last_reload_successful": ("gauge", {"segment"}),
    "shmconf_last_reload_success_timestamp_seconds": ("gauge", {"segment"}),
    "shmconf_reloads": ("counter", {"segment"}),
    "shmconf_reloads_failed": ("counter", {"segment", "reason"}),
    "shmconf_version": ("gauge", {"segment"}),
    "shmconf_info": ("gauge", {"segment", "digest"}),
    "shmconf_held_by_rollback": ("gauge", {"segment"}),
    "shmconf_serving_last_known_good": ("gauge", {"segment"}),
    "shmconf_watch_errors": ("counter", {"segment"}),
    "shmconf_segment_bytes": ("gauge", {"segment"}),
    "shmconf_reload_duration_seconds": ("histogram", {"segment", "stage", "le"}),
    "shmconf_edit_to_visible_seconds": ("histogram", {"segment", "le"}),
    "shmconf_workers": ("gauge", {"segment", "state"}),
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ODD = 'a"b\\c'  # no segment has such a name; were there one, its label would be written so that it can be read


def totals() -> dict[str, Totals]:
    web = Totals(
        Standing(41, "d1" * 32, 8192, AgentStatus(state="running")),
        reloads=5,
        failed=dict.fromkeys(REASONS, 0) | {"schema": 2},
        succeeded_at=1234.5,
        watch_errors=3,
        stages={"parse": Histogram.empty(STAGE_BUCKETS).with_value(0.002)},
        edit_to_visible=Histogram.empty(EDIT_BUCKETS).with_value(0.004).with_value(60.0),
    )
    return {"web": web, ODD: Totals()}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(totals)


def families(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in parse(text.decode())}


def value(found: Iterable[Metric], sample: str, **labels: str) -> float:
    [only] = [
        each.value for family in found for each in family.samples if each.name == sample and each.labels == labels
    ]
    return only


def test_the_names_types_and_labels_are_those_that_are_promised(metrics: Metrics) -> None:
    text, content_type = metrics.encoded()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = families(text)
    ours = {name: family for name, family in found.items() if name.startswith("shmconf")}
    assert ours.keys() == PROMISED.keys()
    for name, family in ours.items():
        kind, labels = PROMISED[name]
        assert family.type == kind
        assert family.samples
        assert {label for sample in family.samples for label in sample.labels} == labels
    assert set(found) - set(ours) == {
        "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
        "process_cpu_seconds", "process_open_fds", "process_max_fds",
    }  # fmt: skip


def test_the_values_are_those_that_were_counted(metrics: Metrics) -> None:
    found = families(metrics.encoded()[0]).values()
    assert value(found, "shmconf_last_reload_successful", segment="web") == 1
    assert value(found, "shmconf_last_reload_success_timestamp_seconds", segment="web") == 1234.5
    assert value(found, "shmconf_reloads_total", segment="web") == 5
    assert {
        reason: value(found, "shmconf_reloads_failed_total", segment="web", reason=reason) for reason in REASONS
    } == dict.fromkeys(REASONS, 0) | {"schema": 2}
    assert value(found, "shmconf_version", segment="web") == 41
    assert value(found, "shmconf_info", segment="web", digest="d1" * 32) == 1
    assert value(found, "shmconf_serving_last_known_good", segment="web") == 0
    assert value(found, "shmconf_watch_errors_total", segment="web") == 3
    assert value(found, "shmconf_segment_bytes", segment="web") == 8192
    stage = "shmconf_reload_duration_seconds"
    assert value(found, f"{stage}_bucket", segment="web", stage="parse", le="0.001") == 0
    assert value(found, f"{stage}_bucket", segment="web", stage="parse", le="0.003") == 1
    assert value(found, f"{stage}_sum", segment="web", stage="parse") == 0.002
    edit = "shmconf_edit_to_visible_seconds"
    assert [
        value(found, f"{edit}_bucket", segment="web", le=le) for le in ("0.0025", "0.005", "10.0", "+Inf")
    ] == [0, 1, 1, 2]
    assert value(found, f"{edit}_count", segment="web") == 2
    assert value(found, "shmconf_version", segment=ODD) == 0
    assert value(found, "shmconf_last_reload_successful", segment=ODD) == 0


def test_what_is_refused_or_from_before_is_no_success() -> None:
    for status, last_known_good in (
        (AgentStatus(state="running", last_error="odd"), 1),
        (AgentStatus(state="running", stale=True, last_error="odd"), 1),
        (AgentStatus(state="starting"), 0),
    ):
        standing = Standing(3, "d", 4096, status)
        found = families(Metrics(lambda standing=standing: {"web": Totals(standing)}).of_segments()).values()  # type: ignore[misc]
        assert value(found, "shmconf_last_reload_successful", segment="web") == 0
        assert value(found, "shmconf_serving_last_known_good", segment="web") == last_known_good


def test_openmetrics_says_the_same(metrics: Metrics) -> None:
    text, content_type = metrics.encoded(OPENMETRICS)
    assert content_type.startswith(OPENMETRICS)
    assert text.endswith(b"# EOF\n")
    other = list(parse_openmetrics(text.decode()))
    found = list(families(metrics.encoded()[0]).values())
    for sample in ("shmconf_reloads_total", "shmconf_version", "shmconf_edit_to_visible_seconds_sum"):
        assert value(other, sample, segment="web") == value(found, sample, segment="web")
    assert value(other, "shmconf_info", segment="web", digest="d1" * 32) == 1


@pytest.mark.parametrize(
    "accept",
    [
        *("text/html", OPENMETRICS.replace("1.0.0", "one"), OPENMETRICS.replace("1.0.0", "1.x.0")),
        *(OPENMETRICS.replace("1.0.0", ""), f"{OPENMETRICS};a=\n"),
        OPENMETRICS + ", x" * 2000,
    ],
)
def test_whoever_asks_for_nothing_sensible_gets_the_plain_format(metrics: Metrics, accept: str) -> None:
    assert metrics.encoded(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_linter_finds_nothing(metrics: Metrics) -> None:
    """The rules of promtool's `check metrics`, so far as they concern a text."""
    text = metrics.of_segments().decode()
    lines = text.splitlines()
    described = [line.split(" ", 3) for line in lines if line.startswith("# ")]
    names = [words[2] for words in described if words[1] == "TYPE"]
    assert len(names) == len(set(names)) == len(PROMISED)
    for name in names:
        [help_text] = [words[3] for words in described if words[1:3] == ["HELP", name]]
        assert help_text.endswith(".")
        assert re.fullmatch("shmconf_[a-z]+(_[a-z]+)*", name)
        assert not re.search("_(ms|milliseconds|kb|bytes_total|count|sum|bucket|gauge|counter|histogram)$", name)
        [kind] = [words[3] for words in described if words[1:3] == ["TYPE", name]]
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")
    samples = [line for line in lines if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in samples]
    assert len(series) == len(set(series)) > len(names)
    assert text.endswith("\n")
    assert not any(line != line.strip() for line in lines)


def test_the_textfile_leaves_the_process_to_node_exporter(metrics: Metrics) -> None:
    assert families(metrics.of_segments()).keys() == PROMISED.keys()


def test_the_process_is_this_one(metrics: Metrics) -> None:
    found = families(metrics.encoded()[0]).values()
    own = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - own
    assert value(found, "process_start_time_seconds") == pytest.approx(time.time() - age, abs=2)
    assert value(found, "process_cpu_seconds_total") > 0
    assert value(found, "process_resident_memory_bytes") > 1_000_000


def test_the_global_registry_is_left_alone(metrics: Metrics) -> None:
    Metrics(totals)  # and a second one is no clash
    metrics.encoded()
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("shmconf")]
