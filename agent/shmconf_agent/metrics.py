"""The agent's metrics in Prometheus's formats, made of the tallies of its segments when somebody asks.

prometheus-client is loaded with the first question: an agent that nobody asks pays for none of it. Its global registry
is left alone. `Metrics` may be called from any thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from shmconf.workers import Worker

from .tally import Totals

__all__ = ["Metrics"]

_ACCEPTABLE = re.compile(r"[\w /+;=.,*-]{0,1000}", re.ASCII)
_VERSION = re.compile(r"version\s*=([^;,]*)")
_NUMBER = re.compile(r"\d{1,3}(\.\d{1,3}){0,3}\s*", re.ASCII)
_SEGMENT = ["segment"]

Tallies = Callable[[], Mapping[str, Totals]]
"""By segment."""
Workers = Callable[[str, int], Sequence[Worker]]
"""Those that are attached to a segment, which serves this version."""


class Metrics:
    """Of one agent: of all of its segments, and of its process."""

    def __init__(self, totals: Tallies, workers: Workers = lambda segment, served: ()) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Segments(totals, workers))
        _Process(registry=self._registry)
        self._segments = CollectorRegistry()
        self._segments.register(_Segments(totals, workers))

    def encoded(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics where the Accept header asks for it, else Prometheus's own."""
        versions = _VERSION.findall(accept)
        if not _ACCEPTABLE.fullmatch(accept) or not all(map(_NUMBER.fullmatch, versions)):
            accept = ""  # prometheus-client takes these for well-formed
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def of_segments(self) -> bytes:
        """In Prometheus's own format, without those of the process: node_exporter has metrics of the same names, and
        serves nothing at all where it finds them twice."""
        return generate_latest(self._segments)


class _Segments(Collector):
    def __init__(self, totals: Tallies, workers: Workers) -> None:
        self._totals = totals
        self._workers = workers

    def describe(self) -> Iterable[Metric]:
        """For the registry, which wants to know the names."""
        return _families({}, self._workers)

    def collect(self) -> Iterator[Metric]:
        """All of one moment for each segment."""
        yield from _families(self._totals(), self._workers)


class _Process(ProcessCollector):
    def _boot_time(self) -> float:
        """Without /proc/stat, which systemd's ProcSubset=pid hides."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _families(segments: Mapping[str, Totals], workers: Workers) -> list[Metric]:
    successful = GaugeMetricFamily(
        "shmconf_last_reload_successful",
        "Whether what is served is what the files said when they were last judged (1), or not (0).",
        labels=_SEGMENT,
    )
    succeeded_at = GaugeMetricFamily(
        "shmconf_last_reload_success_timestamp_seconds",
        "When the files were last judged and are served since, or were served already; 0 before the first time.",
        labels=_SEGMENT,
    )
    reloads = CounterMetricFamily(
        "shmconf_reloads",
        "Judgements of changed files, or of files that were to be read again, whatever came of them.",
        labels=_SEGMENT,
    )
    failed = CounterMetricFamily(
        "shmconf_reloads_failed",
        "Those of them after which the files are not served, by the reason of the first problem.",
        labels=[*_SEGMENT, "reason"],
    )
    version = GaugeMetricFamily("shmconf_version", "The version that is served; 0 for none.", labels=_SEGMENT)
    info = InfoMetricFamily("shmconf", "The digest (SHA-256) of what is served.", labels=_SEGMENT)
    last_known_good = GaugeMetricFamily(
        "shmconf_serving_last_known_good",
        "Whether an older version is served since the files were refused or are held (1), or not (0).",
        labels=_SEGMENT,
    )
    held = GaugeMetricFamily(
        "shmconf_held_by_rollback",
        "Whether a rollback is held, so that edits of the files are not published (1), or not (0).",
        labels=_SEGMENT,
    )
    watch_errors = CounterMetricFamily(
        "shmconf_watch_errors",
        "How often watching for changes failed or events were lost; the files are looked at all the same.",
        labels=_SEGMENT,
    )
    size = GaugeMetricFamily("shmconf_segment_bytes", "Size of the segment's file.", labels=_SEGMENT)
    stages = HistogramMetricFamily(
        "shmconf_reload_duration_seconds",
        "What each stage of a publication took.",
        labels=[*_SEGMENT, "stage"],
    )
    edits = HistogramMetricFamily(
        "shmconf_edit_to_visible_seconds",
        "From the last change of the files, by their own times, to the version that shows it.",
        labels=_SEGMENT,
    )
    attached = GaugeMetricFamily(
        "shmconf_workers",
        "Attached workers: whether they have adopted the version that is served (current) or an older one (behind).",
        labels=[*_SEGMENT, "state"],
    )
    for name, totals in segments.items():
        standing = totals.standing
        successful.add_metric([name], float(standing.files_are_served))
        succeeded_at.add_metric([name], totals.succeeded_at)
        reloads.add_metric([name], totals.reloads)
        for reason, count in totals.failed.items():
            failed.add_metric([name, reason], count)
        version.add_metric([name], standing.version)
        if standing.digest is not None:
            info.add_metric([name], {"digest": standing.digest})
        last_known_good.add_metric([name], float(standing.serves_last_known_good))
        held.add_metric([name], float(standing.is_held))
        watch_errors.add_metric([name], totals.watch_errors)
        size.add_metric([name], standing.size)
        here = workers(name, standing.version)
        current = sum(worker.version >= standing.version for worker in here)
        attached.add_metric([name, "current"], current)
        attached.add_metric([name, "behind"], len(here) - current)
        for stage, histogram in totals.stages.items():
            stages.add_metric([name, stage], histogram.buckets(), histogram.sum)
        edits.add_metric([name], totals.edit_to_visible.buckets(), totals.edit_to_visible.sum)
    return [
        *(successful, succeeded_at, reloads, failed, version, info, last_known_good, held, watch_errors, size),
        *(stages, edits, attached),
    ]
