"""`python -m bench.instruments`: what traces and metrics cost a message, in memory, beside none, in one run.

Microseconds of this process's CPU time a message, the median of several rounds, the sides taking turns.
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry

from bench.messages import OrderPlaced, events
from eventkit import Bus, Service, prometheus
from eventkit.adapter import Connection, Provision
from eventkit.instruments import Instrument
from eventkit.memory import MemoryAdapter, Store
from eventkit.otel import Metrics, Tracing
from eventkit.otel.reader import Reader

_COUNT, _ROUNDS = 10_000, 7


class _Nothing(Instrument):
    """Is told of all at length, and does nothing."""

    def handling(self, place: object, attempts: object) -> None: ...


class _Nowhere(MetricExporter):
    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None: ...


def _otel_metrics() -> Metrics:
    """As EVENTKIT_METRICS=otel has it."""
    reader = Reader(_Nowhere(), math.inf)
    return Metrics(MeterProvider([reader]), reader=reader)


def main() -> None:
    sampled_out = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    sampled = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    sides: dict[str, Sequence[Instrument]] = {
        "off": (),
        "one without a brief that does nothing": (_Nothing(),),
        "Prometheus": (prometheus.Metrics(CollectorRegistry()),),
        "OpenTelemetry, traces sampled out": (Tracing(sampled_out),),
        "OpenTelemetry, metrics": (_otel_metrics(),),
        "OpenTelemetry, traces sampled out, metrics": (Tracing(sampled_out), _otel_metrics()),
        "OpenTelemetry, durations in the SDK": (Metrics(MeterProvider([InMemoryMetricReader()])),),
        "OpenTelemetry, traces recorded": (Tracing(sampled),),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(_ROUNDS):
        for name, instruments in sides.items():
            taken[name].append(asyncio.run(_round(instruments)))
    off = [statistics.median(column) for column in zip(*taken["off"], strict=True)]
    metrics = MeterProvider([InMemoryMetricReader()]).get_meter("bench").create_histogram("bench")
    described = {name: name for name in ("system", "destination", "operation", "type", "group")}
    began = time.process_time()
    for _ in range(_COUNT):
        metrics.record(0.1, described)
    print(f"a histogram's record() in the SDK takes {(time.process_time() - began) / _COUNT * 1e6:.2f} us by itself")
    print(f"{'':45} {'publish_many':>14} {'consume':>14}   us of CPU a message, and how much more than off")
    for name, rounds in taken.items():
        publish, consume = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:45} {publish:7.2f} {publish - off[0]:+6.2f} {consume:7.2f} {consume - off[1]:+6.2f}")


async def _round(instruments: Sequence[Instrument]) -> tuple[float, float]:
    service, done, left = Service("bench", concurrency=100), asyncio.Event(), _COUNT

    @service.handler
    async def place(event: OrderPlaced) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    messages = events(_COUNT)
    adapter = MemoryAdapter(Connection(url=None, namespace="", client="bench"), store=Store())
    async with Bus(adapter, source="bench", instruments=instruments) as bus:
        await adapter.provision([group for group, _ in service.groups().values()], Provision.CREATE)
        publish = await _timed(lambda: bus.publish_many(messages))

        async def consume() -> None:
            async with bus.run(service):
                await done.wait()

        return publish, await _timed(consume)


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    gc.collect()
    began = time.process_time()
    await work()
    return (time.process_time() - began) / _COUNT * 1e6


if __name__ == "__main__":
    main()
