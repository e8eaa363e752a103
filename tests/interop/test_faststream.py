"""Plain FastStream reads what eventkit writes, and eventkit what plain FastStream writes: on every real broker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

pytest.importorskip("faststream")

from faststream import Context as Injected
from faststream.message import StreamMessage

import eventkit
from eventkit import Context, Event, Retry, Service, Topic
from eventkit.adapter import Address, Provision
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import Broker
from tests.interop.plain import physical, plain
from tests.wanted import wanted

Received = Annotated[StreamMessage[Any], Injected("message")]


class Line(BaseModel):
    sku: str
    price: Decimal


class Placed(BaseModel):
    """What the FastStream side takes the body for."""

    order_id: str
    lines: list[Line]
    at: datetime


class OrderPlaced(Event, topic="interop.orders", key="order_id"):
    order_id: str
    lines: list[Line]
    at: datetime


def placed(order_id: str) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "lines": [{"sku": "lämp ✓", "price": "0.10"}],
        "at": datetime(2024, 2, 29, tzinfo=UTC),
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", [name for name in wanted(metafunc.config) if name != "memory"])


@pytest.fixture
def url(name: str, broker: Callable[[str], Broker]) -> str:
    pytest.importorskip(f"faststream.{name}")
    return broker(name).url


@pytest.fixture
def fresh() -> str:
    """A name that no other test has used."""
    return f"interop{uuid.uuid4().hex[:10]}"


def test_a_plain_subscriber_reads_our_events(name: str, url: str, fresh: str) -> None:
    other = plain(name, url)
    got: list[tuple[Placed, dict[str, str], str]] = []

    @other.subscribe(physical(name, fresh, "interop.orders"), f"{fresh}-reader")
    async def on_placed(body: Placed, message: Received) -> None:
        got.append((body, dict(message.headers), message.correlation_id))

    async def main() -> None:
        async with eventkit.connect(name, url, namespace=fresh, service="website") as bus:
            await bus.adapter.provision([Address("topic", "interop.orders")], Provision.CREATE)
            async with other.broker:
                await other.broker.start()
                await bus.publish(OrderPlaced(**placed("1")), headers={"x-tenant": "blue"}, correlation_id="chain-1")
                await eventually(lambda: got, "the plain subscriber has it", 30)

    asyncio.run(main())
    ((body, headers, correlation),) = got
    assert body == Placed(**placed("1"))
    assert headers["x-tenant"] == "blue"
    assert correlation == "chain-1"
    said = {key.lower().replace("ce_", "ce-"): value for key, value in headers.items()}
    assert said["ce-type"] == "OrderPlaced"
    assert said["ce-source"] == "website"
    assert said["ce-subject"] == "1"


def test_our_service_reads_a_plain_publisher(name: str, url: str, fresh: str) -> None:
    other = plain(name, url)
    foreign = f"legacy{fresh}"
    got: list[tuple[OrderPlaced, dict[str, str], str, str]] = []
    service = Service("shipping", retry=Retry(first_delay=timedelta(0), attempts=3))

    @service.handler(topic=Topic("legacy-orders", physical=foreign, default=OrderPlaced))
    async def book(event: OrderPlaced, context: Context) -> None:
        if event.order_id == "2" and context.attempt == 1:
            raise RuntimeError("once more, please: a copy of a foreign message is read as the message was")
        got.append((event, context.headers, context.correlation_id, context.id))

    async def main() -> None:
        async with eventkit.connect(name, url, namespace=fresh) as bus, bus.run(service) as running, other.broker:
            await other.broker.connect()
            if name != "redis":
                await other.broker.start()
            for order in ("1", "2"):
                body = Placed(**placed(order))
                await other.publish(body, foreign, headers={"x-tenant": "blue"}, correlation_id=f"chain-{order}")
            await eventually(lambda: len(got) == 2, "our service has both", 30)
            counts = running.counts["shipping"]
            assert (counts.handled, counts.retried, counts.dead) == (2, 1, 0)

    asyncio.run(main())
    found = {event.order_id: rest for event, *rest in got}
    assert [event for event, *_ in sorted(got, key=lambda one: one[0].order_id)] == [
        OrderPlaced(**placed("1")),
        OrderPlaced(**placed("2")),
    ]
    for order, (headers, correlation, id_) in found.items():
        assert headers["x-tenant"] == "blue"
        assert correlation == f"chain-{order}"
        assert id_


def test_a_class_may_live_on_the_foreign_channel(name: str, url: str, fresh: str) -> None:
    """There and back: both sides use the channel, and eventkit's own events on it say their type."""
    foreign = f"legacy{fresh}"
    topic = Topic("legacy", physical=foreign, default="LegacyPlaced")

    class LegacyPlaced(Event, topic=topic, key="order_id"):
        order_id: str
        lines: list[Line]
        at: datetime

    other = plain(name, url)
    theirs: list[str] = []
    ours: list[str] = []
    service = Service("shipping")

    @service.handler
    async def book(event: LegacyPlaced) -> None:
        ours.append(event.order_id)

    @other.subscribe(foreign, f"{fresh}-reader")
    async def on_placed(body: Placed) -> None:
        theirs.append(body.order_id)

    async def main() -> None:
        async with eventkit.connect(name, url, namespace=fresh) as bus, bus.run(service), other.broker:
            await other.broker.start()
            await bus.publish(LegacyPlaced(**placed("ours")))
            await other.publish(Placed(**placed("theirs")), foreign)
            await eventually(lambda: len(ours) == 2 and len(theirs) == 2, "each side has both", 30)

    asyncio.run(main())
    assert sorted(ours) == sorted(theirs) == ["ours", "theirs"]
