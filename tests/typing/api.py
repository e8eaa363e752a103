"""The public interface as type checkers see it: checked by mypy (strict) and pyright, never run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, assert_type

from pydantic import BaseModel

import eventkit
import eventkit.blocking
import eventkit.testing
from eventkit import CallNext, Command, Context, Delivery, Depends, Event, Retry, Router, Service, Topic


class Quote(BaseModel):
    price: Decimal


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    total: Decimal = Decimal(0)


class ParcelBooked(Event, topic=Topic("parcels", physical="legacy.parcels"), type="parcel-booked", version=2):
    order_id: str


class QuoteShipping(Command[Quote], service="shipping"):
    postcode: str


class CountParcels(Command[int], service="shipping"):
    pass


class BookParcel(Command, service="shipping"):
    order_id: str


@ParcelBooked.upcast(from_version=1)
def with_order_id(data: dict[str, object]) -> dict[str, object]:
    return {"order_id": data["order"]}


class Database:
    pass


@asynccontextmanager
async def lifespan() -> AsyncIterator[Database]:
    yield Database()


async def timed(delivery: Delivery, call_next: CallNext) -> object:
    return await call_next(delivery)


def clock() -> int:
    return 7


service = Service(
    "shipping",
    lifespan=lifespan,
    concurrency=8,
    middleware=[timed],
    retry=Retry(attempts=3, first_delay=timedelta(seconds=1), never=(ValueError,)),
    timeout=timedelta(seconds=5),
)
router = Router()


@service.handler
async def book(event: OrderPlaced, database: Database) -> ParcelBooked:
    return ParcelBooked(order_id=event.order_id)


@service.handler(group="statistics", retry=Retry(attempts=1))
def count(event: OrderPlaced | ParcelBooked, context: Context) -> None:
    context.publish(OrderPlaced(order_id=event.order_id), delay=timedelta(minutes=1))


@router.handler(topic="orders", group="audit")
async def note(event: Event, now: Annotated[int, Depends(clock)]) -> list[Event]:
    return [event]


@service.handles(QuoteShipping)
async def quote(command: QuoteShipping) -> Quote:
    return Quote(price=Decimal(7))


@service.handles(CountParcels, timeout=timedelta(seconds=1))
def count_parcels(command: CountParcels) -> int:
    return 1


@service.handler
async def send(command: BookParcel) -> None: ...


service.include(router)


async def decorated_functions_keep_their_types() -> None:
    assert_type(await book(OrderPlaced(order_id="7"), Database()), ParcelBooked)
    assert_type(await note(OrderPlaced(order_id="7"), 1), list[Event])


async def through_a_bus() -> None:
    async with eventkit.connect("redis", "redis://localhost", service="web") as bus:
        assert_type(bus, eventkit.Bus)
        await bus.publish(OrderPlaced(order_id="7"), delay=timedelta(seconds=1), headers={"tenant": "a"})
        await bus.publish_many(OrderPlaced(order_id=str(number)) for number in range(3))
        await bus.send(BookParcel(order_id="7"), correlation_id="abc")
        assert_type(await bus.request(QuoteShipping(postcode="1010")), Quote)
        assert_type(await bus.request(CountParcels(), timeout=timedelta(seconds=2)), int)
        assert_type(await bus.request(BookParcel(order_id="7")), None)
        async with bus.run(service) as running:
            assert_type(running, eventkit.Running)
            assert_type(running.health().ok, bool)


def without_a_loop() -> None:
    with eventkit.blocking.connect() as bus:
        bus.publish(OrderPlaced(order_id="7"))
        assert_type(bus.request(QuoteShipping(postcode="1010")), Quote)


async def in_a_test() -> None:
    async with eventkit.testing.run(service) as t:
        await t.publish(OrderPlaced(order_id="7"))
        await t.idle()
        assert_type(await t.request(CountParcels()), int)
        for parcel in t.published(ParcelBooked):
            assert_type(parcel, ParcelBooked)
        for letter in t.dead_letters():
            assert_type(letter.read(OrderPlaced), OrderPlaced)


def of_errors(error: eventkit.EventkitError) -> None:
    if isinstance(error, eventkit.PublishError):
        for failure in error.failures:
            assert_type(failure.index, int)
            assert_type(failure.error, Exception)
