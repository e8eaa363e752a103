"""Traces of what goes through a bus, as OpenTelemetry's SDK records them, on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

import eventkit
from eventkit import Batch, Command, Context, Event, GiveUp, Retry, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.contract.letters import listed
from eventkit.otel import Tracing
from eventkit.testing.brokers import NAMES
from tests.backends import Memory, Real
from tests.wanted import wanted

Give = Callable[[str], Memory | Real]
SYSTEMS = {"rabbit": "rabbitmq"}


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str


class ParcelBooked(Event, topic="parcels", key="order_id"):
    order_id: str


class Quote(Command[str], service="shipping"):
    postcode: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = wanted(metafunc.config)
        metafunc.parametrize("name", ["memory", *[name for name in NAMES if name in names]])


class Recorded:
    """What one process traces."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler or ParentBased(ALWAYS_ON))
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def all(self, name: str | None = None) -> Sequence[ReadableSpan]:
        spans = [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]
        return sorted(spans, key=lambda span: span.start_time or 0)

    async def some(self, name: str, count: int = 1) -> Sequence[ReadableSpan]:
        """So many spans of this name, and no more."""
        await eventually(lambda: len(self.all(name)) >= count, f"{count} spans {name!r}, not {self.names()}")
        found = self.all(name)
        assert len(found) == count, self.names()
        return found

    async def one(self, name: str) -> ReadableSpan:
        return (await self.some(name))[0]

    def names(self) -> list[str]:
        return [span.name for span in self.all()]


def said(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.context is not None
    assert parent.context is not None
    return (
        span.parent is not None
        and span.parent.span_id == parent.context.span_id
        and span.context.trace_id == parent.context.trace_id
    )


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def own(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def shipping(works: list[bool]) -> Service:
    service = Service("shipping", retry=Retry(attempts=2, first_delay=timedelta(0)))

    @service.handler
    async def book(event: OrderPlaced, context: Context) -> ParcelBooked:
        if not works:
            raise GiveUp("no parcels today")
        if context.attempt == 1 and not context.delivery.message.headers.get("ek-redriven"):
            raise ConnectionError("away")
        return ParcelBooked(order_id=event.order_id)

    @service.handler
    async def quote(command: Quote) -> str:
        return f"4.90 to {command.postcode}"

    return service


def watching(seen: list[str]) -> Service:
    service = Service("watching")

    @service.handler
    async def parcel(event: ParcelBooked) -> None:
        seen.append(event.order_id)

    return service


def test_one_trace_through_retry_and_what_is_sent_on(name: str, backend: Give) -> None:
    asyncio.run(_through_a_retry(name, backend(name)))


async def _through_a_retry(name: str, backend: Memory | Real) -> None:
    recorded, seen = Recorded(), list[str]()
    bus = eventkit.Bus(backend.adapter(fresh_namespace()), source="shop", instruments=[Tracing(recorded.provider)])
    async with bus, bus.run(shipping([True]), watching(seen)):
        with recorded.tracer.start_as_current_span("checkout"):
            await bus.publish(OrderPlaced(order_id="a"), id="order-a", correlation_id="checkout-1")
        processed = await recorded.some("process orders", 2)
        parcel = await recorded.one("process parcels")
        await recorded.some("ack parcels")
        acked = await recorded.one("ack orders")
        retried = await recorded.one("retry orders")

    checkout, published = recorded.all("checkout")[0], recorded.all("publish orders")[0]
    assert is_child(published, checkout)
    assert published.kind is SpanKind.PRODUCER
    assert said(published) == {
        "messaging.system": SYSTEMS.get(name, name),
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "messaging.message.id": "order-a",
        "messaging.message.conversation_id": "checkout-1",
        "cloudevents.event_source": "shop",
        "cloudevents.event_type": "OrderPlaced",
    }
    first, second = processed
    for attempt, span in enumerate(processed, 1):
        assert is_child(span, published), "each attempt belongs to what was published"
        assert linked(span) == [own(published)]
        assert span.kind is SpanKind.CONSUMER
        assert said(span)["eventkit.attempt"] == attempt
        assert said(span)["messaging.consumer.group.name"] == "shipping"
        assert said(span)["messaging.message.id"] == "order-a"
        assert said(span)["messaging.operation.type"] == "process"
    assert first.status.status_code is StatusCode.ERROR
    assert said(first)["error.type"] == "ConnectionError"
    assert said(first)["eventkit.outcome"] == "retried"
    assert first.events[0].name == "exception"
    assert second.status.status_code is StatusCode.UNSET
    assert said(second)["eventkit.outcome"] == "handled"
    for settled, handled in ((retried, first), (acked, second)):
        assert is_child(settled, handled)
        assert settled.kind is SpanKind.CLIENT
        assert said(settled)["messaging.operation.type"] == "settle"
    sent = recorded.all("publish parcels")[0]
    assert is_child(sent, second), "what a handler sends belongs to the attempt that succeeded"
    assert is_child(parcel, sent)


def test_dead_letters_and_their_retry_keep_the_trace(name: str, backend: Give) -> None:
    asyncio.run(_through_the_dead_letters(backend(name)))


async def _through_the_dead_letters(backend: Memory | Real) -> None:
    recorded, works = Recorded(), list[bool]()
    bus = eventkit.Bus(backend.adapter(fresh_namespace()), source="shop", instruments=[Tracing(recorded.provider)])
    async with bus, bus.run(shipping(works)):
        await bus.publish(OrderPlaced(order_id="a"), id="order-a")
        await listed(bus, "shipping", 1)
        works.append(True)
        with recorded.tracer.start_as_current_span("repair"):
            await bus.dead_letters("shipping").retry("order-a")
        died, revived = await recorded.some("process orders", 2)
        await recorded.one("ack orders")
        await recorded.one("dead-letter orders")

    published, repair = recorded.all("publish orders")[0], recorded.all("repair")[0]
    assert published.parent is None
    assert said(died)["eventkit.outcome"] == "dead"
    assert said(died)["error.type"] == "eventkit.errors.GiveUp"
    assert is_child(died, published)
    assert is_child(revived, published)
    redriven = recorded.all("send shipping.retry")[0]
    assert redriven.kind is SpanKind.CLIENT
    assert is_child(redriven, repair)
    assert linked(redriven) == [own(published)], "who sends it again has not made it"


def test_a_request_and_its_reply_are_one_trace(name: str, backend: Give) -> None:
    asyncio.run(_request(backend(name)))


async def _request(backend: Memory | Real) -> None:
    recorded = Recorded()
    bus = eventkit.Bus(backend.adapter(fresh_namespace()), source="shop", instruments=[Tracing(recorded.provider)])
    async with bus, bus.run(shipping([True])):
        with recorded.tracer.start_as_current_span("page"):
            assert await bus.request(Quote(postcode="12049")) == "4.90 to 12049"
        await recorded.one("ack shipping")

    page, asked = recorded.all("page")[0], recorded.all("send shipping")[0]
    handled, answered, received = (
        recorded.all("process shipping")[0],
        recorded.all("send reply")[0],
        recorded.all("receive reply")[0],
    )
    assert is_child(asked, page)
    assert is_child(handled, asked)
    assert is_child(answered, handled)
    assert is_child(received, page)
    assert linked(received) == [own(answered)]
    assert received.kind is SpanKind.CLIENT
    assert said(received)["messaging.destination.temporary"] is True
    assert "messaging.destination.name" not in said(received), "there are as many as there are processes"


def test_a_batch_is_linked_to_what_made_each_of_its_messages(name: str, backend: Give) -> None:
    asyncio.run(_batch(backend(name)))


async def _batch(backend: Memory | Real) -> None:
    recorded, inner = Recorded(), list[trace.SpanContext]()
    service = Service("ledger")

    @service.handler(batch=Batch(size=3, wait=timedelta(seconds=5)))
    async def book(events: list[OrderPlaced]) -> None:
        inner.append(trace.get_current_span().get_span_context())

    bus = eventkit.Bus(backend.adapter(fresh_namespace()), source="shop", instruments=[Tracing(recorded.provider)])
    async with bus, bus.run(service):
        with recorded.tracer.start_as_current_span("import"):
            await bus.publish_many([OrderPlaced(order_id=f"{n}") for n in range(3)])
        processed = await recorded.one("process orders")
        acked = await recorded.one("ack orders")

    sent, created = recorded.all("publish orders")[0], recorded.all("create orders")
    assert sent.kind is SpanKind.CLIENT
    assert said(sent)["messaging.batch.message_count"] == 3
    assert [span.kind for span in created] == [SpanKind.PRODUCER] * 3
    assert sorted(linked(sent)) == sorted(own(span) for span in created)
    assert processed.parent is None
    assert said(processed)["messaging.batch.message_count"] == 3
    assert sorted(linked(processed)) == sorted(own(span) for span in created)
    assert [context.span_id for context in inner] == [own(processed)]
    assert is_child(acked, processed)
    assert said(acked)["messaging.batch.message_count"] == 3


def test_a_trace_that_was_sampled_out_costs_no_span_and_stays_out(name: str, backend: Give) -> None:
    asyncio.run(_sampled_out(backend(name)))


async def _sampled_out(backend: Memory | Real) -> None:
    dropping, keeping = Recorded(ParentBased(ALWAYS_OFF)), Recorded()
    seen: list[str] = []
    carried: list[str] = []
    service = Service("shipping", retry=Retry(attempts=2, first_delay=timedelta(0)))

    @service.handler
    async def book(event: OrderPlaced, context: Context) -> ParcelBooked:
        carried.append(context.headers["traceparent"])
        with keeping.tracer.start_as_current_span("inside"):
            if context.attempt == 1:
                raise ConnectionError("away")
        return ParcelBooked(order_id=event.order_id)

    namespace = fresh_namespace()
    bus = eventkit.Bus(backend.adapter(namespace), source="shop", instruments=[Tracing(dropping.provider)])
    other = eventkit.Bus(backend.adapter(namespace), source="eu", instruments=[Tracing(keeping.provider)])
    async with bus, other, other.run(service, watching(seen)):
        await bus.publish(OrderPlaced(order_id="a"))
        await eventually(lambda: seen == ["a"], "the parcel")
    assert len(carried) == 2
    assert carried[0] == carried[1]
    assert int(carried[0][-2:], 16) % 2 == 0, "its flags say that it is not sampled"
    assert keeping.names() == dropping.names() == []


def test_the_sampler_may_be_asked_all_the_same(backend: Give) -> None:
    async def run() -> None:
        recorded, seen = Recorded(ALWAYS_ON), list[str]()
        tracing = Tracing(recorded.provider, ask_sampler=True)
        bus = eventkit.Bus(backend("memory").adapter(fresh_namespace()), source="shop", instruments=[tracing])
        async with bus, bus.run(watching(seen)):
            header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
            await bus.publish(ParcelBooked(order_id="a"), headers=header)
            processed = await recorded.one("process parcels")
        assert processed.context is not None
        assert f"{processed.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"

    asyncio.run(run())


def test_an_outbox_keeps_the_context_of_its_transaction(backend: Give) -> None:
    async def run() -> None:
        recorded, seen = Recorded(), list[str]()
        tracing = Tracing(recorded.provider)
        bus = eventkit.Bus(backend("memory").adapter(fresh_namespace()), source="shop", instruments=[tracing])
        async with bus, bus.run(watching(seen)):
            with recorded.tracer.start_as_current_span("transaction") as transaction:
                kept = bus.encode(ParcelBooked(order_id="a"))
            with recorded.tracer.start_as_current_span("relay"):
                await bus.deliver([kept])
            processed = await recorded.one("process parcels")
        assert processed.context is not None
        assert processed.context.trace_id == transaction.get_span_context().trace_id
        assert is_child(processed, recorded.all("create parcels")[0])
        assert linked(recorded.all("publish parcels")[0]) == [own(recorded.all("create parcels")[0])]

    asyncio.run(run())


def test_nonsense_in_traceparent_harms_no_message(backend: Give) -> None:
    async def run() -> None:
        recorded, seen = Recorded(), list[str]()
        tracing = Tracing(recorded.provider)
        namespace = fresh_namespace()
        plain = eventkit.Bus(backend("memory").adapter(namespace), source="shop")
        bus = eventkit.Bus(backend("memory").adapter(namespace), source="shop", instruments=[tracing])
        bad = ["", "x", "00-" + "z" * 49 + "-00", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "\u00e9" * 55]
        async with plain, bus, bus.run(watching(seen)):
            for number, text in enumerate(bad):
                await plain.publish(ParcelBooked(order_id=str(number)), headers={"traceparent": text})
            await eventually(lambda: len(seen) == len(bad), "each")

    asyncio.run(run())
