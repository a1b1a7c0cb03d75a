"""The alerting rules that users copy: of Prometheus's form, and about metrics, labels and reasons that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shmconf_agent.metrics import Metrics
from shmconf_agent.reasons import REASONS
from shmconf_agent.tally import STAGE_BUCKETS, Histogram, Standing, Totals

FILE = Path(__file__).parents[2] / "examples/prometheus/alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]
]
DURATION = r"[1-9]\d*[smhd]"
FROM_NODE_EXPORTER = {"node_textfile_mtime_seconds": {"file"}}
FROM_PROMETHEUS = {"instance"}


def there_are() -> dict[str, set[str]]:
    """The labels of each sample that an agent can expose."""
    made = Totals(Standing(1, "digest"), stages={"parse": Histogram.empty(STAGE_BUCKETS)})
    found: dict[str, set[str]] = {**FROM_NODE_EXPORTER}
    for family in text_string_to_metric_families(Metrics(lambda: {"web": made}).of_segments().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def named(expression: str) -> dict[str, str]:
    """The metrics that an expression names, each with its matchers."""
    return dict(re.findall(r"\b((?:shmconf|node)_\w+)(\{[^}]*\})?", expression))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_about_what_there_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Shmconf[A-Za-z]+", rule["alert"])
    assert re.fullmatch(DURATION, rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"warning", "critical"}
    metrics = named(rule["expr"])
    assert metrics
    there = there_are()
    for name, matchers in metrics.items():
        assert name in there
        for label, pattern in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            assert label in there[name]
            if label == "reason":
                assert set(pattern.split("|")) <= set(REASONS)
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in labels.split(",")}
    assert grouped <= set().union(*(there[name] for name in metrics)) | FROM_PROMETHEUS
    assert all(re.fullmatch(DURATION, each) for each in re.findall(r"\[([^]]*)\]", rule["expr"]))
    assert rule["expr"].count("(") == rule["expr"].count(")")
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    outer = re.match(r"(?:\w+ by|histogram_quantile\(0\.9, sum by) \(([^)]*)\)", rule["expr"])
    of_the_first = there[next(iter(metrics))] | FROM_PROMETHEUS
    assert shown <= ({label.strip() for label in outer[1].split(",")} if outer else of_the_first)
    assert rule["annotations"]["summary"]


def test_what_must_wake_somebody_up_is_there() -> None:
    metrics = set().union(*(named(rule["expr"]) for rule in RULES))
    assert {"shmconf_last_reload_successful", "shmconf_version", "node_textfile_mtime_seconds"} <= metrics
