"""Metrics by OpenTelemetry's conventions, as its SDK collects them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

import eventkit
from eventkit import Batch, Command, Context, Event, Retry, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.otel import Metrics
from tests.backends import Memory


class OrderPlaced(Event, topic="orders"):
    order_id: str


class Quote(Command[int], service="shipping"):
    grams: int


class Read:
    """What an SDK collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self.units: dict[str, str] = {}

    def __call__(self) -> dict[str, list[tuple[dict[str, object], float]]]:
        """By metric: the attributes of each series, and how many were counted."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, object], float]]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.units[metric.name] = metric.unit
                    found[metric.name] = [(dict(p.attributes or {}), _count(p)) for p in metric.data.data_points]
        return found


def _count(point: object) -> float:
    assert isinstance(point, NumberDataPoint | HistogramDataPoint)
    return point.count if isinstance(point, HistogramDataPoint) else point.value


def of(series: Iterable[tuple[dict[str, object], float]], **wanted: object) -> float:
    """The sum of those with these attributes, of which the dots are underscores; None: that have it not."""
    named = {name.replace("_", "."): value for name, value in wanted.items()}
    return sum(count for said, count in series if all(said.get(name) == value for name, value in named.items()))


def test_what_is_sent_and_handled_is_counted_and_timed() -> None:
    async def run() -> None:
        read = Read()
        service = Service("shipping", retry=Retry(attempts=2, first_delay=timedelta(0)))

        @service.handler
        async def book(event: OrderPlaced, context: Context) -> None:
            if context.attempt == 1:
                raise ConnectionError("away")

        @service.handler
        async def quote(command: Quote) -> int:
            return command.grams * 2

        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=[Metrics(read.provider)])
        async with bus, bus.run(service) as running:
            for number in range(3):
                await bus.publish(OrderPlaced(order_id=str(number)))
            await bus.publish_many(OrderPlaced(order_id=str(number)) for number in range(4))
            assert await bus.request(Quote(grams=2)) == 4
            await eventually(lambda: running.counts["shipping"].handled == 8, "all of them")
            found = read()

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
        assert {read.units[name] for name in ("messaging.process.duration", "messaging.client.operation.duration")} == {
            "s"
        }
        assert read.units["messaging.client.sent.messages"] == "{message}"

    asyncio.run(run())


def test_a_batch_is_one_call_of_its_handler_and_all_its_messages_count() -> None:
    async def run() -> None:
        read, service = Read(), Service("shipping")

        @service.handler(batch=Batch(size=4, wait=timedelta(seconds=5)))
        async def book(events: list[OrderPlaced]) -> None: ...

        bus = eventkit.Bus(Memory().adapter(fresh_namespace()), source="shop", instruments=[Metrics(read.provider)])
        async with bus, bus.run(service) as running:
            await bus.publish_many(OrderPlaced(order_id=str(number)) for number in range(4))
            await eventually(lambda: running.counts["shipping"].handled == 4, "all of them")
            found = read()
        assert of(found["messaging.client.consumed.messages"], messaging_destination_name="orders") == 4
        assert of(found["messaging.process.duration"], messaging_destination_name="orders") == 1

    asyncio.run(run())
