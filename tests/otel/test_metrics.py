"""Metrics by OpenTelemetry's conventions, as its SDK collects them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import TracerProvider

import eventkit
from eventkit import Batch, Circuit, Command, Context, Event, Retry, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.instruments import Instrument
from eventkit.otel import Metrics, Tracing
from eventkit.otel.reader import Reader
from tests.backends import Memory


class OrderPlaced(Event, topic="orders"):
    order_id: str


class Quote(Command[int], service="shipping"):
    grams: int


class Kept(MetricExporter):
    """Keeps what it is to export."""

    data: MetricsData | None = None

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        self.data = metrics_data
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None: ...


class Read:
    """What is exported. `ours`: durations are kept by eventkit, and the reader adds them."""

    def __init__(
        self,
        *,
        ours: bool = True,
        temporality: dict[type, AggregationTemporality] | None = None,
        aggregation: dict[type, Aggregation] | None = None,
    ) -> None:
        self._exporter = Kept(temporality, aggregation)
        self._reader = Reader(self._exporter, math.inf)
        self._provider = MeterProvider([self._reader])
        self.metrics = Metrics(self._provider, reader=self._reader if ours else None)

    def all(self) -> dict[str, Metric]:
        self._provider.force_flush()
        data = self._exporter.data
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def __call__(self) -> dict[str, list[tuple[dict[str, object], float]]]:
        """By metric: the attributes of each series, and how many were counted."""
        return {
            name: [(dict(point.attributes or {}), _count(point)) for point in metric.data.data_points]
            for name, metric in self.all().items()
        }

    def durations(self, name: str) -> Sequence[HistogramDataPoint]:
        points = self.all()[name].data.data_points
        found = [point for point in points if isinstance(point, HistogramDataPoint)]
        assert len(found) == len(points)
        return found


def _count(point: object) -> float:
    assert isinstance(point, NumberDataPoint | HistogramDataPoint)
    return point.count if isinstance(point, HistogramDataPoint) else point.value


def of(series: Iterable[tuple[dict[str, object], float]], **wanted: object) -> float:
    """The sum of those with these attributes, of which the dots are underscores; None: that have it not."""
    named = {name.replace("_", "."): value for name, value in wanted.items()}
    return sum(count for said, count in series if all(said.get(name) == value for name, value in named.items()))


@pytest.mark.parametrize("ours", [True, False])
def test_what_is_sent_and_handled_is_counted_and_timed(ours: bool) -> None:
    async def run() -> None:
        read = Read(ours=ours)
        service = Service("shipping", retry=Retry(attempts=2, first_delay=timedelta(0)))

        @service.handler
        async def book(event: OrderPlaced, context: Context) -> None:
            if context.attempt == 1:
                raise ConnectionError("away")

        @service.handler
        async def quote(command: Quote) -> int:
            return command.grams * 2

        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=[read.metrics])
        async with bus, bus.run(service) as running:
            for number in range(3):
                await bus.publish(OrderPlaced(order_id=str(number)))
            await bus.publish_many(OrderPlaced(order_id=str(number)) for number in range(4))
            assert await bus.request(Quote(grams=2)) == 4
            await eventually(lambda: running.counts["shipping"].handled == 8, "all of them")
            found, all_ = read(), read.all()

        sent, consumed = found["messaging.client.sent.messages"], found["messaging.client.consumed.messages"]
        assert of(sent, messaging_destination_name="orders", messaging_operation_name="publish") == 7
        assert of(sent, messaging_destination_name="shipping", messaging_operation_name="send") == 1
        assert of(sent, messaging_destination_template="reply") == 1
        assert of(consumed, messaging_destination_name="orders", error_type="ConnectionError") == 7
        assert of(consumed, messaging_destination_name="orders", error_type=None) == 7
        assert of(consumed, messaging_destination_template="reply") == 1
        processed, calls = found["messaging.process.duration"], found["messaging.client.operation.duration"]
        assert of(processed, messaging_destination_name="orders") == 14
        assert of(calls, messaging_destination_name="orders") == 4, "a batch is one call"
        assert of(calls, messaging_operation_name="receive") == 1
        for said, _ in processed:
            assert said["messaging.system"] == "memory"
        units = {name: metric.unit for name, metric in all_.items() if name.startswith("messaging.")}
        assert units == {
            "messaging.client.sent.messages": "{message}",
            "messaging.client.consumed.messages": "{message}",
            "messaging.client.operation.duration": "s",
            "messaging.process.duration": "s",
        }

    asyncio.run(run())


@pytest.mark.parametrize("ours", [True, False])
def test_a_batch_is_one_call_of_its_handler_and_all_its_messages_count(ours: bool) -> None:
    async def run() -> None:
        read, service = Read(ours=ours), Service("shipping")

        @service.handler(batch=Batch(size=4, wait=timedelta(seconds=5)))
        async def book(events: list[OrderPlaced]) -> None: ...

        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=[read.metrics])
        async with bus, bus.run(service) as running:
            await bus.publish_many(OrderPlaced(order_id=str(number)) for number in range(4))
            await eventually(lambda: running.counts["shipping"].handled == 4, "all of them")
            found = read()
        assert of(found["messaging.client.consumed.messages"], messaging_destination_name="orders") == 4
        assert of(found["messaging.process.duration"], messaging_destination_name="orders") == 1

    asyncio.run(run())


def handle(read: Read, *instruments: Instrument, count: int = 3) -> None:
    """So many messages, by a handler that takes nothing but the message."""

    async def run() -> None:
        service = Service("shipping")

        @service.handler
        async def book(event: OrderPlaced) -> None:
            await asyncio.sleep(0.01)

        every = [*instruments, read.metrics]
        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=every)
        async with bus, bus.run(service) as running:
            for number in range(count):
                await bus.publish(OrderPlaced(order_id=str(number)))
            await eventually(lambda: running.counts["shipping"].handled == count, "all of them")

    asyncio.run(run())


def test_durations_that_are_kept_here_are_what_the_sdk_would_have_made_of_them() -> None:
    ours, theirs = Read(), Read(ours=False)
    for read in (ours, theirs):
        handle(read)
    for name in ("messaging.process.duration", "messaging.client.operation.duration"):
        (mine,), (its,) = ours.durations(name), theirs.durations(name)
        assert mine.attributes == its.attributes
        assert tuple(mine.explicit_bounds) == tuple(its.explicit_bounds)
        assert len(mine.bucket_counts) == len(its.bucket_counts)
        for point in (mine, its):
            assert point.count == sum(point.bucket_counts) == 3
            assert 0 < point.min <= point.sum / 3 <= point.max
            assert point.start_time_unix_nano < point.time_unix_nano
        ours_, theirs_ = ours.all()[name], theirs.all()[name]
        assert (ours_.unit, ours_.description) == (theirs_.unit, theirs_.description)
        assert type(ours_.data) is type(theirs_.data)
    (point,) = ours.durations("messaging.process.duration")
    assert point.min >= 0.01
    assert point.bucket_counts[0] == point.bucket_counts[1] == 0, "none took less than 10 ms"
    handle(ours)
    assert sum(point.count for point in ours.durations("messaging.process.duration")) == 6, "they add up"


@pytest.mark.parametrize("ours", [True, False])
def test_a_duration_names_a_span_in_which_it_was_taken(ours: bool) -> None:
    read, traces = Read(ours=ours), TracerProvider()
    handle(read, Tracing(traces), count=1)
    (point,) = read.durations("messaging.process.duration")
    (example,) = point.exemplars
    assert example.span_id
    assert example.trace_id
    assert point.min <= example.value <= point.max


@pytest.mark.parametrize(
    "wanted",
    [
        {"temporality": {Histogram: AggregationTemporality.DELTA}},
        {"aggregation": {Histogram: ExponentialBucketHistogramAggregation()}},
    ],
)
def test_what_an_exporter_wants_in_another_form_the_sdk_makes(wanted: dict[str, Any]) -> None:
    read = Read(**wanted)
    counts = []
    for _ in range(2):
        handle(read)
        (point,) = read.all()["messaging.process.duration"].data.data_points
        counts.append(getattr(point, "count", 0))
    assert counts == ([3, 3] if "temporality" in wanted else [3, 6])


class Fails(Event, topic="fails"):
    number: int


class Waits(Event, topic="waits"):
    number: int


class Stands(NamedTuple):
    """What stands in an outbox."""

    waiting: int = 3
    refused: int = 1
    oldest: timedelta | None = timedelta(seconds=90)


class Store:
    """An outbox without a database."""

    asked = 0

    async def outbox(self) -> Stands:
        self.asked += 1
        return Stands()


def test_gauges_tell_of_groups_circuits_backlogs_and_outboxes() -> None:
    async def run() -> None:
        read, store, hold = Read(), Store(), asyncio.Event()
        service = Service("shipping", retry=Retry(attempts=9, first_delay=timedelta(hours=1)))

        @service.handler(circuit=Circuit(failures=2, pause=timedelta(minutes=5)))
        async def fails(event: Fails) -> None:
            raise ConnectionError("away")

        @service.handler
        async def waits(event: Waits) -> None:
            await hold.wait()

        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=[read.metrics])
        async with bus, bus.run(service) as running:
            with bus.relaying(store):
                await bus.publish(Waits(number=1))
                for number in range(2):
                    await bus.publish(Fails(number=number))
                await eventually(lambda: running.health().circuits, "it opens")
                await eventually(lambda: running.counts["shipping"].retried == 2, "both wait for a retry")
                found = await asyncio.to_thread(read)
                units = {name: metric.unit for name, metric in read.all().items()}
            hold.set()
            after = await asyncio.to_thread(read)

        group = {
            "messaging_system": "memory",
            "eventkit_service": "shipping",
            "messaging_consumer_group_name": "shipping",
        }
        assert of(found["eventkit.consuming"], **group) == 1
        assert of(found["eventkit.in_flight"], **group) >= 1
        assert [
            count for said, count in found["eventkit.circuit.open"] if str(said["eventkit.handler"]).endswith("fails")
        ] == [1]
        assert of(found["eventkit.backlog"], **group, eventkit_state="delayed") == 2, "asked for before it is told"
        assert of(found["eventkit.backlog"], **group, eventkit_state="dead") == 0
        assert "eventkit.backlog.oldest" in found
        outbox = {"eventkit_service": "shop"}
        assert of(found["eventkit.outbox"], **outbox, eventkit_state="waiting") == 3
        assert of(found["eventkit.outbox"], **outbox, eventkit_state="refused") == 1
        assert of(found["eventkit.outbox.oldest"], **outbox) == 90
        assert store.asked == 1, "no more often than every 15 s"
        assert "eventkit.outbox" not in after, "no relay runs"
        assert (units["eventkit.backlog"], units["eventkit.backlog.oldest"], units["eventkit.in_flight"]) == (
            "{message}",
            "s",
            "{message}",
        )
        assert "eventkit.consuming" not in read(), "nothing runs"

    asyncio.run(asyncio.wait_for(run(), 30))
