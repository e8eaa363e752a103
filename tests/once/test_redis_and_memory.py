"""The stores whose mark is made after the handler: in memory, and on Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

import eventkit.testing
from eventkit import Command, CommandRejected, Context, DeclarationError, Event, Reject, Retry, Service
from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.contract.checks import eventually
from eventkit.once import Busy, Handled, Mark, MemoryStore, OnceStore
from eventkit.packed import pack, unpack
from eventkit.testing.brokers import Broker
from tests.once.copies import Twice, copies_of
from tests.once.loops import in_loop
from tests.once.test_sql_once import Replies, memory_bus

MARK = Mark("shipping", "shop", "1")


class OrderPlaced(Event, topic="orders"):
    order_id: str


class OrderPaid(Event, topic="orders"):
    order_id: str


class ParcelBooked(Event, topic="parcels"):
    order_id: str


class Ship(Command[str], service="shipping"):
    order_id: str


Stores = Callable[..., Any]


@pytest.fixture(params=["memory", "redis"])
def store_of(request: pytest.FixtureRequest, broker: Callable[[str], Broker]) -> Stores:
    """Makes a store, with the options that both have."""
    if request.param == "memory":

        @asynccontextmanager
        async def memory(**options: Any) -> AsyncIterator[OnceStore]:
            yield MemoryStore(**options)

        return memory
    pytest.importorskip("redis")
    url = broker("redis").url

    @asynccontextmanager
    async def on_redis(**options: Any) -> AsyncIterator[OnceStore]:
        from redis.asyncio import Redis

        from eventkit.once_redis import RedisStore

        async with Redis.from_url(url) as client:
            yield RedisStore(client, prefix=f"once.{uuid.uuid4().hex}", **options)

    return on_redis


@in_loop
async def test_a_repeat_is_dropped(store_of: Stores) -> None:
    async with store_of() as store:
        service = Service("shipping", retry=Retry(attempts=3, first_delay=timedelta(0)))
        attempts: list[int] = []

        @service.handler(once=store)
        async def book(event: OrderPlaced, context: Context) -> ParcelBooked:
            attempts.append(context.attempt)
            if context.attempt == 1:
                raise RuntimeError("once more")
            return ParcelBooked(order_id=event.order_id)

        async with eventkit.testing.run(service) as t:
            twice = Twice(t)
            await twice.publish(OrderPlaced(order_id="1"))
            await t.idle()
            assert t.published(ParcelBooked) == [ParcelBooked(order_id="1")]
            assert (twice.counts("shipping").handled, twice.counts("shipping").repeated) == (1, 1)
        assert attempts.count(2) == 1


@in_loop
async def test_two_types_with_one_id_are_two_messages(store_of: Stores) -> None:
    async with store_of() as store:
        service = Service("shipping")
        ran: list[str] = []

        @service.handler(once=store)
        async def book(event: OrderPlaced | OrderPaid) -> None:
            ran.append(type(event).__name__)

        async with eventkit.testing.run(service) as t:
            twice = Twice(t)
            for event in (OrderPlaced(order_id="7"), OrderPaid(order_id="7")):
                await twice.publish(event, id="order-7")
            await t.idle()
        assert sorted(ran) == ["OrderPaid", "OrderPlaced"]


@in_loop
async def test_a_mark_that_says_no_type_is_of_any(store_of: Stores) -> None:
    async with store_of() as store:
        attempt = await store.begin(MARK)
        assert await store.begin(MARK._replace(type="OrderPlaced")) == Busy()
        assert not isinstance(attempt, Busy | Handled)
        await attempt.commit(Handled())
        assert await store.begin(MARK._replace(type="OrderPlaced")) == Handled()
        attempt = await store.begin(Mark("shipping", "shop", "2", "OrderPlaced"))
        assert not isinstance(attempt, Busy | Handled)
        await attempt.commit(Handled())
        assert await store.begin(Mark("shipping", "shop", "2", "OrderPlaced")) == Handled()
        assert not isinstance(await store.begin(Mark("shipping", "shop", "2", "OrderPaid")), Busy | Handled)


@in_loop
async def test_a_repeat_of_a_request_gets_the_same_reply(store_of: Stores) -> None:
    async with store_of() as store, memory_bus() as bus:
        service = Service("shipping")
        asked: list[Message] = []

        @service.handler(once=store)
        async def ship(command: Ship, context: Context) -> str:
            asked.append(context.delivery.message)
            if command.order_id == "refused":
                raise Reject("we do not ship there")
            return f"parcel {len(asked)}"

        async with bus.run(service):
            replies = Replies(bus)
            assert await bus.request(Ship(order_id="1")) == "parcel 1"
            with pytest.raises(CommandRejected):
                await bus.request(Ship(order_id="refused"))
            for message in asked[:2]:
                await bus.deliver(copies_of(message, 1))
            await eventually(lambda: len(replies.seen) == 4, "each repeat is answered")
        assert len(asked) == 2
        assert [reply.body for reply in replies.seen[:2]] == [reply.body for reply in replies.seen[2:]]


@in_loop
async def test_of_two_at_once_one_is_tried(store_of: Stores) -> None:
    async with store_of() as store:
        first = await store.begin(MARK)
        assert not isinstance(first, Busy | Handled)
        assert await store.begin(MARK) == Busy()
        await first.abort(RuntimeError())
        second = await store.begin(MARK)
        assert not isinstance(second, Busy | Handled)
        await first.abort(RuntimeError())  # too late, and harmless
        assert await store.begin(MARK) == Busy()
        message = Message(("topic", "t", None), "T", "k\0é", {"a": "b"}, b"\xff")  # type: ignore[arg-type]
        await second.commit(Handled((message,), message))
        assert await store.begin(MARK) == Handled((message,), message)
        await store.sent(MARK)
        assert await store.begin(MARK) == Handled((), message)
        await second.abort(RuntimeError())
        assert await store.begin(MARK) == Handled((), message)


@in_loop
async def test_what_is_past_its_retention_is_forgotten(store_of: Stores) -> None:
    async with store_of(retention=timedelta(seconds=1)) as store:
        for number in range(50):
            attempt = await store.begin(Mark("shipping", "shop", str(number)))
            await attempt.commit(Handled())
        assert await store.begin(Mark("shipping", "shop", "49")) == Handled(), (
            "the last one: on a busy machine fifty take a while"
        )
        begun: list[object] = [Handled()]
        while isinstance(begun[-1], Handled):
            begun.append(await store.begin(Mark("shipping", "shop", "1")))
            await asyncio.sleep(0.02)
        last = begun[-1]
        assert not isinstance(last, Busy | Handled)
        await last.commit(Handled())  # type: ignore[attr-defined]
        if isinstance(store, MemoryStore):
            assert len(store) < 50


@in_loop
async def test_a_lease_is_kept_while_a_handler_runs_and_ends_with_its_process(broker: Callable[[str], Broker]) -> None:
    pytest.importorskip("redis")
    from redis.asyncio import Redis

    from eventkit.once_redis import RedisStore

    async with Redis.from_url(broker("redis").url, decode_responses=True) as client:
        store = RedisStore(client, prefix=f"once.{uuid.uuid4().hex}", lease=timedelta(seconds=1))
        attempt: Any = await store.begin(MARK)
        (key,) = await client.keys(f"{store._prefix}*")
        for _ in range(15):
            assert await store.begin(MARK) == Busy()
            assert await client.pttl(key) > 200
            await asyncio.sleep(0.1)
        attempt._timer.cancel()  # as when its process has died
        ends = asyncio.get_running_loop().time() + 5
        while await store.begin(MARK) == Busy():
            assert asyncio.get_running_loop().time() < ends
            await asyncio.sleep(0.02)
        await attempt.commit(Handled())  # it was only paused: what it has done is done
        assert await store.begin(MARK) == Handled()


@in_loop
async def test_while_the_store_is_away_messages_wait_untried() -> None:
    class Away(MemoryStore):
        failures = 2

        async def begin(self, mark: Mark, /) -> Any:
            self.failures -= 1
            if self.failures >= 0:
                raise ConnectionError("no store here")
            return await super().begin(mark)

    service = Service("shipping", retry=Retry(attempts=1))
    store, attempts, seen = Away(), list[int](), list[str]()

    @service.handler(once=store)
    async def book(event: OrderPlaced, context: Context) -> None:
        attempts.append(context.attempt)

    async with memory_bus() as bus, bus.run(service) as running:
        await bus.publish(OrderPlaced(order_id="1"))
        await eventually(lambda: not running.health().ok, "health says so")
        seen.append(running.health().errors["shipping"])
        await eventually(lambda: running.counts["shipping"].handled == 1, "it is tried when the store answers")
        assert running.health().ok
    assert attempts == [1]
    assert seen == ["ConnectionError: no store here"]


@in_loop
async def test_what_a_crash_left_unsent_goes_out_with_the_repeat(store_of: Stores) -> None:
    """The mark was made, and its process died before the broker had what it sends."""
    async with store_of() as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced) -> ParcelBooked:
            raise AssertionError("it was handled before")

        async with eventkit.testing.run(service) as t:
            outgoing = t._bus.encode(ParcelBooked(order_id="1"))
            attempt = await store.begin(Mark("shipping", "test", "mine"))
            await attempt.commit(Handled((outgoing,)))
            published: list[str] = []
            publish = t._bus.adapter.publish

            async def spy(messages: Any) -> Any:
                published.extend(message.headers[h.ID] for message in messages if message.type == "ParcelBooked")
                return await publish(messages)

            t._bus.adapter.publish = spy  # type: ignore[method-assign]
            await Twice(t).publish(OrderPlaced(order_id="1"), id="mine", count=3)
            await t.idle()
            assert not t.dead_letters()
            assert set(published) == {outgoing.headers[h.ID]}
            before = len(published)
            await Twice(t).publish(OrderPlaced(order_id="1"), id="mine", count=1)
            await t.idle()
            assert len(published) == before  # it is known to be sent


def test_a_mark_is_no_other() -> None:
    marks = [
        Mark("a", "b", "c"),
        Mark("ab", "", "c"),
        Mark("a", "", "bc"),
        Mark("1:a", "b", "c"),
        Mark("a", "b", "c", "d"),
    ]
    assert len({mark.key for mark in marks}) == 5
    assert marks[0].key == marks[0].of_any == marks[-1].of_any
    # as the first release made it: what it had handled is known for a retention longer
    assert marks[0].key == "321cf3124838eafcf3df515fc440c7452def249dc89643bb5fb8e1bc260b2191"


def test_options_that_cannot_be_meant() -> None:
    pytest.importorskip("redis")
    from eventkit.once_redis import RedisStore

    with pytest.raises(DeclarationError, match="retention"):
        MemoryStore(retention=timedelta(0))
    with pytest.raises(DeclarationError, match="lease"):
        RedisStore(None, lease=timedelta(milliseconds=1))  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="prefix"):
        RedisStore(None, prefix="a b")  # type: ignore[arg-type]


def test_what_is_no_packed_message() -> None:
    for text in ("", "{}", "[1]", pack(Message(("topic", "t", None), "T", None, {}, None)).replace("[1", "[9", 1)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no message"):
            unpack(text)
