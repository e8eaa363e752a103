"""The reader: exports what the SDK has aggregated, and beside it the durations that `Metrics` keep by themselves.

The SDK's histograms must be told of each duration, and take ten microseconds and more for it: they describe it anew,
every time. Its readers are free to export what they have from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
)
from opentelemetry.sdk.metrics.view import DefaultAggregation, ExplicitBucketHistogramAggregation

from eventkit.otel.metrics import DURATIONS
from eventkit.otel.series import BUCKETS, SCOPE, Label, Series

__all__ = ["Reader"]


class Reader(PeriodicExportingMetricReader):
    """For `MeterProvider([reader])` and `Metrics(provider, reader=reader)`.

    Views see nothing of durations: their buckets are the conventions'. What wants them in another form than cumulative
    and in buckets (an exporter that prefers deltas, or exponential histograms) gets them from the SDK.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        export_interval_millis: float | None = None,
        export_timeout_millis: float | None = None,
        *,
        exemplars: bool = True,
    ) -> None:
        """As its base class has it. `exemplars`: are spans named in which durations were taken?"""
        self._exemplars = exemplars
        self._sources: list[Callable[[], Mapping[Label, Series]]] = []
        super().__init__(exporter, export_interval_millis, export_timeout_millis)

    def take(self, source: Callable[[], Mapping[Label, Series]]) -> bool:
        """Export these besides. False: its exporter wants them in another form, and they are not exported."""
        if not self._fits():
            return False
        self._sources.append(source)
        return True

    def _fits(self) -> bool:
        temporalities, aggregations = self._instrument_class_temporality, self._instrument_class_aggregation
        return all(
            temporalities[kind] is AggregationTemporality.CUMULATIVE
            and isinstance(aggregations[kind], DefaultAggregation | ExplicitBucketHistogramAggregation)
            for kind in temporalities
            if issubclass(kind, HistogramInstrument)
        )

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        durations = [metric for source in self._sources for metric in self._durations(source())]
        if durations:
            resources = [_with(resource, durations) for resource in metrics_data.resource_metrics]
            metrics_data = replace(metrics_data, resource_metrics=resources)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def _durations(self, series: Mapping[Label, Series]) -> Sequence[Metric]:
        now = time.time_ns()
        found: dict[str, list[HistogramDataPoint]] = {}
        for label, one in series.items():
            if any(one.counts):
                found.setdefault(DURATIONS[label.kind].name, []).append(self._point(label, one, now))
        described = {duration.name: duration.description for duration in DURATIONS.values()}
        return [
            Metric(name, described[name], "s", Histogram(points, AggregationTemporality.CUMULATIVE))
            for name, points in found.items()
        ]

    def _point(self, label: Label, series: Series, now: int) -> HistogramDataPoint:
        examples = series.examples.values() if self._exemplars else ()
        return HistogramDataPoint(
            attributes=label.attributes,
            start_time_unix_nano=series.since,
            time_unix_nano=now,
            count=sum(series.counts),
            sum=series.sum,
            bucket_counts=tuple(series.counts),
            explicit_bounds=BUCKETS,
            min=series.shortest,
            max=series.longest,
            exemplars=[Exemplar({}, one.seconds, one.at, one.span.span_id, one.span.trace_id) for one in examples],
        )


def _with(resource: ResourceMetrics, durations: Sequence[Metric]) -> ResourceMetrics:
    scopes = [
        replace(scope, metrics=[*scope.metrics, *durations]) if scope.scope.name == SCOPE else scope
        for scope in resource.scope_metrics
    ]
    return replace(resource, scope_metrics=scopes)
