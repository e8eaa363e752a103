"""What is peculiar to Redis Streams, at the port: no core, a raw `Receive`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from pydantic import SecretStr
from redis.exceptions import ResponseError

from eventkit import Bus, Event, Service
from eventkit import headers as h
from eventkit.adapter import (
    DONE,
    RELEASE,
    Address,
    Connection,
    Delivery,
    Group,
    Message,
    Move,
    Provision,
    Settlement,
)
from eventkit.errors import LostMessage, MessageTooLarge, NoOwner, NotProvisioned
from eventkit.testing.brokers import Broker, provide
from eventkit.wire import new_id
from eventkit_redis import RedisAdapter, RedisSettings, codec
from eventkit_redis.consume import StreamConsumer

TOPIC = Address("topic", "orders")
GROUP = Group("shipping", (TOPIC, Address("inbox", "shipping")))


class Inbox:
    """Keeps what it gets; settles at once with `how`, if that is given."""

    def __init__(self, how: Settlement | None = None) -> None:
        self.got: list[Delivery] = []
        self.failed: list[tuple[Delivery, Exception]] = []
        self.how = how
        self.open = 0
        self.most = 0
        self.consumer: Any = None

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        self.got.extend(batch)
        self.open += len(batch)
        self.most = max(self.most, self.open)
        if self.how is not None:
            while self.consumer is None:
                await asyncio.sleep(0)
            for delivery in batch:
                self.settle(delivery, self.how)

    async def revoked(self, *_: object) -> None:
        pass

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        self.failed.append((delivery, error))

    def settle(self, delivery: Delivery, how: Settlement = DONE) -> None:
        self.open -= 1
        self.consumer.settle(delivery, how)

    def bodies(self) -> list[bytes | None]:
        return [delivery.message.body for delivery in self.got]


def made(url: str, namespace: str, **settings: Any) -> RedisAdapter:
    return RedisAdapter(Connection(SecretStr(url), namespace, "test", RedisSettings(**settings)))


def message(body: bytes | None = b"{}", address: Address = TOPIC, due: timedelta | None = None, **more: str) -> Message:
    headers = {h.ID: (name := new_id()), h.MESSAGE_ID: name, **more}
    return Message(address, "OrderPlaced", None, headers, body, None if due is None else datetime.now(UTC) + due)


async def consuming(adapter: RedisAdapter, group: Group, how: Settlement | None = None, in_flight: int = 100) -> Inbox:
    inbox = Inbox(how)
    inbox.consumer = await adapter.consume(group, inbox, in_flight=in_flight)
    return inbox


async def until(condition: Callable[[], object], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


async def eventually(condition: Callable[[], Awaitable[object]], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def nothing_waits(adapter: RedisAdapter) -> bool:
    measured = await adapter.measure(GROUP)
    return (measured.ready, measured.in_flight) == (0, 0)


class Bed:
    """A namespace of its own on a Redis, and adapters in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = f"t{new_id()[-12:]}"
        self.raw = redis.Redis.from_url(url, protocol=2)
        self._adapters: list[RedisAdapter] = []

    async def adapter(self, **settings: Any) -> RedisAdapter:
        adapter = made(self.url, self.namespace, **settings)
        await adapter.start(5.0)
        self._adapters.append(adapter)
        return adapter

    def key(self, name: str) -> str:
        return f"{self.namespace}.{name}"

    async def end(self) -> None:
        await asyncio.gather(*(adapter.stop(3.0) for adapter in self._adapters))
        try:
            for pattern in (f"{self.namespace}*", f"{{{self.namespace}*"):
                async for key in self.raw.scan_iter(pattern):
                    await self.raw.delete(key)
        finally:
            await self.raw.aclose()


@asynccontextmanager
async def bed(url: str) -> AsyncIterator[Bed]:
    made = Bed(url)
    try:
        yield made
    finally:
        await made.end()


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("redis").url


@pytest.fixture(scope="module")
def own() -> Iterator[Broker]:
    """A Redis that these tests may kill."""
    given = os.environ.pop("EVENTKIT_TEST_REDIS_URL", None)
    try:
        with provide("redis") as broker:
            yield broker
    finally:
        if given is not None:
            os.environ["EVENTKIT_TEST_REDIS_URL"] = given


def on(url: str, check: Callable[[Bed], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), bed(url) as b:
            await check(b)

    asyncio.run(run())


# the wire


def test_any_headers_and_bodies_come_back(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        strange = {"x-empty": "", "x-ü": 'Zürich "100%" 日本 \U0001f600', "x-long": "ä" * 3000, "x-plain": "a b"}
        bodies = [b"", None, bytes(range(256)), b'{"a": 1}', b"x" * 100_000]
        sent = [message(body, **strange) for body in bodies]
        assert await adapter.publish(sent) == [None] * 5
        await until(lambda: len(inbox.got) == 5)
        for was, arrived in zip(sent, inbox.got, strict=True):
            assert arrived.message.body == was.body
            assert arrived.message.address == TOPIC
            assert arrived.message.type == "OrderPlaced"
            assert {**was.headers, h.TYPE: "OrderPlaced"} == arrived.message.headers
        keyed = message()._replace(key="k")
        await adapter.publish([keyed])
        await until(lambda: len(inbox.got) == 6)
        assert inbox.got[5].message.key == "k"

    on(url, check)


def test_faststream_reads_ours_and_we_read_its(url: str) -> None:
    from faststream.redis import RedisBroker
    from faststream.redis.parser import BinaryMessageFormatV1

    async def check(b: Bed) -> None:
        data = codec.encode(message(b'{"a": 1}', **{"x-ü": "ü"}))
        body, headers = BinaryMessageFormatV1.parse(data)
        assert body == b'{"a": 1}'
        assert headers["x-%C3%BC"] == "%C3%BC"
        assert BinaryMessageFormatV1.parse(codec.encode(message(None)))[0] == b""
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        faststream = RedisBroker(b.url)
        await faststream.connect()
        await faststream.publish({"a": 1}, stream=b.key("orders"), headers={"x": "plain"})
        await faststream.publish({"a": 1}, stream=b.key("orders"), headers={"x": "Zürich 日本", "y": "%41"})
        await faststream.stop()
        await until(lambda: len(inbox.got) == 2)
        assert inbox.bodies() == [b'{"a":1}'] * 2
        assert inbox.got[0].message.headers["x"] == "plain"
        assert inbox.got[0].message.headers[h.CONTENT_TYPE] == "application/json"
        assert inbox.got[1].message.headers["x"] == "Zürich 日本"
        assert inbox.got[1].message.headers["y"] == "A"

    on(url, check)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"order_id": "1", "n": "2"}, b'{"order_id": "1", "n": "2"}'),
        ({"data": b"\xff\x00"}, b"\xff\x00"),
        ({"__data__": b""}, b""),
        ({"__data__": b"plain"}, b"plain"),
        ({"__data__": b"\x89BIN\x0d\x0a\x1a\x0a"}, b"\x89BIN\x0d\x0a\x1a\x0a"),
        ({"__data__": b"\x89BIN\x0d\x0a\x1a\x0a\x00\x01\x00\x00\x00\x12\x00\x00\x00\x16\x00\x09\xff\xff"}, b""),
        ({"__data__": b'{"data": "x", "headers": {"a": 1, "b": null}}'}, b"x"),
        ({"__data__": b'{"data": "x", "more": 1}'}, b'{"data": "x", "more": 1}'),
        ({b"\xff": b"\xfe"}, b'{"\xef\xbf\xbd": "\\\\xfe"}'),
    ],
)
def test_what_others_write_never_stops_the_consumer(url: str, fields: dict[Any, Any], body: bytes) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await b.raw.xadd(b.key("orders"), fields)
        await adapter.publish([message(b"after")])
        await until(lambda: len(inbox.got) == 2)
        assert [body or b"" for body in inbox.bodies()] == [body, b"after"]
        assert inbox.got[0].message.type == ""

    on(url, check)


# delivery


def test_a_new_group_begins_when_it_is_provisioned(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([TOPIC], Provision.CREATE)
        await adapter.publish([message(b"before")])
        early = Group("early", (TOPIC,), "earliest")
        await adapter.provision([GROUP, early], Provision.CREATE)
        await adapter.publish([message(b"after")])
        await adapter.provision([GROUP, early], Provision.CREATE)
        now, all_ = await consuming(adapter, GROUP, DONE), await consuming(adapter, early, DONE)
        await until(lambda: len(now.got) == 1 and len(all_.got) == 2)
        assert now.bodies() == [b"after"]
        assert all_.bodies() == [b"before", b"after"]

    on(url, check)


def test_consumers_of_a_group_share_and_settled_stays_settled(url: str) -> None:
    async def check(b: Bed) -> None:
        first, second = await b.adapter(batch=10), await b.adapter(batch=10)
        await first.provision([GROUP], Provision.CREATE)
        one, two = await consuming(first, GROUP, in_flight=10), await consuming(second, GROUP, in_flight=10)
        await first.publish([message(b"%d" % n) for n in range(200)])
        await until(lambda: one.got and two.got)

        async def work() -> None:
            done = 0
            while done < 200:
                for inbox in (one, two):
                    for delivery in inbox.got[len(inbox.got) - inbox.open :]:
                        inbox.settle(delivery)
                        done += 1
                await asyncio.sleep(0.001)

        await asyncio.wait_for(work(), 5)
        assert sorted(one.bodies() + two.bodies()) == sorted(b"%d" % n for n in range(200))
        assert max(one.most, two.most) <= 10
        await first.stop(3)
        await second.stop(3)
        await first.start(5)
        again = await consuming(first, GROUP, DONE)
        await first.publish([message(b"new")])
        await until(lambda: again.got)
        assert again.bodies() == [b"new"]

    on(url, check)


def test_all_sources_share_one_bound(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        topics = tuple(Address("topic", f"topic{n}") for n in range(5))
        inbox_of = Address("inbox", "shipping")
        group = Group("shipping", (*topics, inbox_of))
        await adapter.provision([group], Provision.CREATE)
        sent = [message(b"%d" % n, address) for n in range(20) for address in (*topics, inbox_of, group.retry)]
        assert set(await adapter.publish(sent)) == {None}
        inbox = await consuming(adapter, group, in_flight=3)
        for _ in range(140):
            await until(lambda: inbox.open > 0)
            inbox.settle(inbox.got[len(inbox.got) - inbox.open])
        assert len(inbox.got) == 140
        assert {delivery.message.address for delivery in inbox.got[:30]} == {*topics, inbox_of, group.retry}
        assert inbox.most <= 3 + 6, "one more of each further stream"

    on(url, check)


def test_settlements_of_many_topics_are_gathered(url: str) -> None:
    """A command of a stream for a settlement or two would cost more than the rest of the message."""

    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        group = Group("shipping", tuple(Address("topic", f"topic{n}") for n in range(40)))
        await adapter.provision([group], Provision.CREATE)
        rounds = 10
        assert set(await adapter.publish([message(b"", a) for _ in range(rounds) for a in group.sources])) == {None}
        inbox = await consuming(adapter, group, in_flight=1_000)
        await until(lambda: len(inbox.got) == 40 * rounds)
        written: list[int] = []
        link = inbox.consumer._settler._link
        call = link.call
        link.call = lambda wire, *rest: (written.append(len(wire)), call(wire, *rest))[1]
        waiting: dict[Address, list[Delivery]] = {address: [] for address in group.sources}
        for delivery in inbox.got:
            waiting[delivery.message.address].append(delivery)
        for _ in range(rounds):
            for of_one in waiting.values():
                inbox.settle(of_one.pop())
            await asyncio.sleep(0)
        await inbox.consumer.flush(5.0)
        assert sum(written) <= 2 * 40, f"{written} commands for {40 * rounds} settlements"
        measured = await adapter.measure(group)
        assert (measured.ready, measured.in_flight) == (0, 0)

    on(url, check)


def test_a_lone_settlement_of_each_of_many_topics_is_soon_told(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        group = Group("shipping", tuple(Address("topic", f"topic{n}") for n in range(40)))
        await adapter.provision([group], Provision.CREATE)
        assert set(await adapter.publish([message(b"", address) for address in group.sources])) == {None}
        await consuming(adapter, group, DONE)

        async def none_left() -> bool:
            measured = await adapter.measure(group)
            return (measured.ready, measured.in_flight) == (0, 0)

        await eventually(none_left)

    on(url, check)


def test_release_comes_back_to_anyone(url: str) -> None:
    async def check(b: Bed) -> None:
        first, second = await b.adapter(), await b.adapter()
        await first.provision([GROUP], Provision.CREATE)
        one = await consuming(first, GROUP)
        await first.publish([message(b"%d" % n) for n in range(3)])
        await until(lambda: len(one.got) == 3)
        one.settle(one.got[0], RELEASE)
        await until(lambda: len(one.got) == 4)  # alone: to itself
        assert one.got[3].position == one.got[0].position
        assert one.got[3].deliveries == 2
        one.settle(one.got[0], DONE)  # of an arrival that is over
        one.settle(one.got[1], DONE)
        one.settle(one.got[1], RELEASE)
        two = await consuming(second, GROUP, DONE)
        await one.consumer.stop(3)
        await until(lambda: len(two.got) == 2)
        assert sorted(two.bodies()) == [b"0", b"2"]
        one.settle(one.got[2], DONE)
        await eventually(lambda: nothing_waits(second))

    on(url, check)


def test_a_living_consumer_keeps_its_lease_and_a_dead_one_loses_it(url: str) -> None:
    async def check(b: Bed) -> None:
        short = {"lease": timedelta(milliseconds=600)}
        first, second = await b.adapter(**short), await b.adapter(**short)
        await first.provision([GROUP], Provision.CREATE)
        one = await consuming(first, GROUP)
        await first.publish([message(b"%d" % n) for n in range(5)])
        await until(lambda: len(one.got) == 5)
        two = await consuming(second, GROUP, DONE)
        await asyncio.sleep(1.8)
        assert two.got == []
        for task in one.consumer._tasks:  # as if the process were gone
            task.cancel()
        await until(lambda: len(two.got) == 5)
        assert {delivery.deliveries for delivery in two.got} == {2}
        one.consumer.settle(one.got[0], Move(message(b"late", GROUP.dead)))
        one.consumer.settle(one.got[1], DONE)
        await one.consumer._settler.drain()
        assert [dead async for dead in first.browse(GROUP.dead)] == []
        assert one.failed == []

    on(url, check)


# retry and dead letters


def test_retries_wait_and_block_nobody(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, in_flight=50)
        await adapter.publish([message(b"now"), message(b"soon")])
        await until(lambda: len(inbox.got) == 2)
        began = time.monotonic()
        hour = [message(b"later", GROUP.retry, timedelta(hours=1)) for _ in range(2000)]
        assert set(await adapter.publish(hour)) == {None}
        inbox.settle(inbox.got[0], Move(message(b"now again", GROUP.retry)))
        inbox.settle(inbox.got[1], Move(message(b"soon again", GROUP.retry, timedelta(seconds=0.6))))
        await until(lambda: len(inbox.got) == 3)
        assert inbox.got[2].message.body == b"now again"
        assert inbox.got[2].message.address == GROUP.retry
        await until(lambda: len(inbox.got) == 4)
        assert inbox.got[3].message.body == b"soon again"
        assert 0.55 < time.monotonic() - began < 1.5
        for delivery in inbox.got[2:]:
            inbox.settle(delivery)
        inbox.how = DONE
        await adapter.publish([message(b"%d" % n) for n in range(100)])
        await until(lambda: len(inbox.got) == 104)
        measured = await adapter.measure(GROUP)
        assert (measured.delayed, measured.dead) == (2000, 0)
        kept = [delivery async for delivery in adapter.browse(GROUP.retry)]
        assert len(kept) == 2000
        assert await adapter.remove(kept) == [None] * 2000
        assert (await adapter.measure(GROUP)).delayed == 0
        again = hour[0]
        await adapter.publish([again, again])
        assert (await adapter.measure(GROUP)).delayed == 1  # the same copy

    on(url, check)


def test_dead_letters_are_kept_until_removed(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        command = message(b"command", Address("inbox", "shipping"))
        await adapter.publish([message(b"event"), command])
        await until(lambda: len(inbox.got) == 2)
        elsewhere = Address("dead", "nobody")
        inbox.settle(inbox.got[0], Move(message(b"x", elsewhere)))
        await until(lambda: inbox.failed)
        assert isinstance(inbox.failed[0][1], NotProvisioned)
        for delivery in inbox.got:
            copy = delivery.message._replace(address=GROUP.dead, headers={**delivery.message.headers, "ek-reason": "ü"})
            inbox.settle(delivery, Move(copy))
        await eventually(lambda: nothing_waits(adapter))
        dead = [delivery async for delivery in adapter.browse(GROUP.dead)]
        assert sorted(d.message.body or b"" for d in dead) == [b"command", b"event"]
        assert dead[0].message.headers["ek-reason"] == "ü"
        assert (await adapter.measure(GROUP)).dead == 2
        assert await adapter.remove([dead[0], dead[0]]) == [None, None]
        assert [d.position async for d in adapter.browse(GROUP.dead)] == [dead[1].position]

    on(url, check)


def test_a_header_too_long_for_the_envelope_is_refused_but_never_holds_up_a_copy(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        long = message(b"", **{"x-long": "ü" * 30_000})
        refused, fine = await adapter.publish([long, message(b"fine")])
        assert isinstance(refused, MessageTooLarge)
        assert fine is None
        await until(lambda: inbox.got)
        inbox.settle(inbox.got[0], Move(long._replace(address=GROUP.dead)))
        await eventually(lambda: dead_letters(adapter))

    async def dead_letters(adapter: RedisAdapter) -> list[Delivery]:
        return [delivery async for delivery in adapter.browse(GROUP.dead)]

    on(url, check)


# publishing


def test_each_message_is_answered(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(message_bytes=2048)
        await adapter.provision([TOPIC], Provision.CREATE)
        answers = await adapter.publish(
            [
                message(b"fine"),
                message(b"x" * 3000),
                message(b"", Address("inbox", "nobody")),
                message(b"", Address("topic", "missing")),
                message(b"", Address("retry", "nobody"), timedelta(hours=1)),
                message(b"", Address("dead", "nobody")),
                message(b"", Address("reply", "gone.1")),
                message(b"fine"),
            ]
        )
        kinds = [type(answer) for answer in answers]
        none = type(None)
        assert kinds == [none, MessageTooLarge, NoOwner, *[NotProvisioned] * 3, none, none]
        assert await b.raw.xlen(b.key("orders")) == 2
        assert await adapter.publish([]) == []

    on(url, check)


def test_calls_keep_their_order(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        calls = [adapter.publish([message(b"%d" % (10 * n + k)) for k in range(10)]) for n in range(50)]
        await asyncio.gather(*calls)
        await until(lambda: len(inbox.got) == 500)
        assert inbox.bodies() == [b"%d" % n for n in range(500)]

    on(url, check)


def test_a_topic_that_was_deleted_is_made_again_and_nothing_after_it_is_lost(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await adapter.publish([message(b"one")])
        await until(lambda: len(inbox.got) == 1)
        await b.raw.delete(b.key("orders"))
        assert await adapter.publish([message(b"two"), message(b"three")]) == [None, None]
        await until(lambda: len(inbox.got) == 3)
        assert inbox.bodies() == [b"one", b"two", b"three"]
        assert isinstance(inbox.consumer, StreamConsumer)
        assert inbox.consumer.recreated >= 1
        assert inbox.consumer.error is None

    on(url, check)


# topology


def test_ten_processes_provision_at_once_and_validation_names_what_is_missing(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        with pytest.raises(NotProvisioned) as failure:
            await adapter.provision([GROUP, Address("topic", "other")], Provision.VALIDATE)
        for missing in ("topic:orders", "inbox:shipping", "retry:shipping", "dead:shipping", "topic:other"):
            assert missing in str(failure.value)
        with pytest.raises(NotProvisioned):
            await adapter.provision([Address("inbox", "shipping")], Provision.CREATE)
        with pytest.raises(NotProvisioned):
            await adapter.consume(GROUP, Inbox(), in_flight=1)
        await adapter.provision([GROUP], Provision.ASSUME)
        adapters = [await b.adapter() for _ in range(10)]
        await asyncio.gather(*(adapter.provision([GROUP], Provision.CREATE) for adapter in adapters))
        await adapter.provision([GROUP, TOPIC, Address("inbox", "shipping")], Provision.VALIDATE)
        await adapter.provision([Address("inbox", "shipping")], Provision.CREATE)
        with pytest.raises(NotProvisioned):
            await adapter.provision([Group("billing", (TOPIC,))], Provision.VALIDATE)
        await b.raw.set(b.key("text"), "1")
        with pytest.raises(NotProvisioned, match="no stream"):
            await adapter.provision([Address("topic", "text")], Provision.CREATE)

    on(url, check)


def test_a_physical_name_is_taken_as_it_is(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(topic_length=100)
        address = Address("topic", "orders", b.key("legacy:orders"))
        group = Group("shipping", (address,))
        await adapter.provision([group], Provision.CREATE)
        inbox = await consuming(adapter, group, DONE)
        await adapter.publish([message(b"%d" % n, address) for n in range(1000)])
        await until(lambda: len(inbox.got) == 1000)
        assert inbox.got[0].message.address == address
        assert await adapter._trimmer.trim(b.key("legacy:orders")) == 0  # type: ignore[union-attr]
        assert await b.raw.xlen(b.key("legacy:orders")) == 1000

    on(url, check)


def test_measure_counts_what_waits(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([TOPIC], Provision.CREATE)
        await adapter.publish([message() for _ in range(7)])
        await adapter.provision([GROUP], Provision.CREATE)
        commands = [message(address=Address("inbox", "shipping")) for _ in range(3)]
        await adapter.publish([message() for _ in range(5)] + commands)
        await asyncio.sleep(0.05)
        before = await adapter.measure(GROUP)
        assert (before.ready, before.in_flight, before.delayed, before.dead) == (8, 0, 0, 0)
        assert before.oldest is not None
        assert timedelta(seconds=0.04) < before.oldest < timedelta(seconds=5)
        inbox = await consuming(adapter, GROUP, in_flight=2)
        await until(lambda: len(inbox.got) == 2)
        after = await adapter.measure(GROUP)
        assert (after.ready, after.in_flight) == (6, 2)
        await inbox.consumer.stop(3)
        given_back = await adapter.measure(GROUP)
        assert (given_back.ready, given_back.in_flight) == (8, 0)

    on(url, check)


@pytest.mark.parametrize("unread", [3, 1_500])
def test_measure_is_true_after_a_restart_of_redis(own: Broker, unread: int) -> None:
    """Redis' own count of what is unread begins anew then."""

    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await adapter.publish([message() for _ in range(200)])
        await until(lambda: len(inbox.got) == 200)
        await eventually(lambda: nothing_waits(adapter))
        await asyncio.to_thread(own.restart)
        b.raw = redis.Redis.from_url(b.url, protocol=2)
        await eventually(lambda: nothing_waits(adapter), 10.0)
        await adapter.publish([message()])
        await until(lambda: len(inbox.got) == 201, 10.0)  # it reads again
        await inbox.consumer.stop(3)
        await adapter.publish([message() for _ in range(unread)])
        measured = await adapter.measure(GROUP)
        assert (measured.ready, measured.in_flight) == (unread, 0)

    on(own.url, check)


def test_measuring_and_connecting_make_redis_copy_little_where_messages_are_large(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        for _ in range(300):
            await adapter.publish([message(b"x" * 100_000)])
        before = (await b.raw.info("memory"))["used_memory_peak"]
        assert (await adapter.measure(GROUP)).ready == 300
        inbox = await consuming(adapter, GROUP, in_flight=1)
        await until(lambda: len(inbox.got) == 1)
        assert (await b.raw.info("memory"))["used_memory_peak"] - before < 15_000_000

    on(own.url, check)


def test_a_group_is_told_what_was_trimmed_before_it_had_read_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(topic_length=1000)
        await adapter.provision([GROUP, Group("slow", (TOPIC,))], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE, in_flight=1000)
        for n in range(1, 11):
            await adapter.publish([message() for _ in range(250)])
            await until(lambda n=n: len(inbox.got) == 250 * n)  # type: ignore[misc]
        await eventually(lambda: short(b))
        slow = await consuming(adapter, Group("slow", (TOPIC,)), DONE)
        await until(lambda: slow.consumer._warden.gaps == 1)
        assert inbox.consumer._warden.gaps == 0
        assert len(slow.got) < 1300
        assert "slow lost messages of" in caplog.text

    async def short(b: Bed) -> bool:
        return bool(await b.raw.xlen(b.key("orders")) < 1200)

    on(url, check)


def test_pending_messages_that_were_trimmed_are_counted(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(milliseconds=600))
        await adapter.provision([GROUP], Provision.CREATE)
        await adapter.publish([message() for _ in range(5)])
        await b.raw.xreadgroup(b.key("shipping"), "gone", {b.key("orders"): ">"})
        await b.raw.xtrim(b.key("orders"), minid="9999999999999", approximate=False)
        inbox = await consuming(adapter, GROUP, DONE)
        await until(lambda: inbox.consumer.vanished == 5)
        assert inbox.got == []
        assert (await adapter.measure(GROUP)).in_flight == 0

    on(url, check)


class Task(Event, topic="orders", key="key"):
    number: int
    key: str


def test_what_another_took_over_before_it_began_runs_once(url: str) -> None:
    async def check(b: Bed) -> None:
        ran: Counter[int] = Counter()
        go_on = asyncio.Event()
        service = Service("shipping", concurrency=4)

        @service.handler
        async def handle(event: Task) -> None:
            ran[event.number] += 1
            await go_on.wait()

        adapter = made(b.url, b.namespace, lease=timedelta(seconds=1))
        async with Bus(adapter, source="test") as bus, bus.run(service) as running:
            await bus.publish_many([Task(number=n, key=f"k{n % 3}") for n in range(40)])
            # one worker has nothing to do, so that more is held than the three that run
            await until(lambda: [group.in_flight for group in running.states()] == [40])
            assert len(ran) == 3
            key, group = b.key("orders"), b.key("shipping")
            pending = await b.raw.xpending_range(key, group, "-", "+", 100)
            ids = [one["message_id"] for one in pending]
            assert len(await b.raw.xclaim(key, group, "another", 0, ids)) == 40
            await until(lambda: [group.in_flight for group in running.states()] == [3])
            go_on.set()
            await until(lambda: len(ran) == 40, within=15.0)
        assert {number for number, count in ran.items() if count > 1} <= set(range(3)), ran

    on(url, check)


def test_a_message_trimmed_while_it_is_worked_on_can_still_be_retried(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(milliseconds=300))
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await adapter.publish([message(b"1"), message(b"2"), message(b"3")])
        await until(lambda: len(inbox.got) == 3)
        await b.raw.xtrim(b.key("orders"), minid="9999999999999", approximate=False)
        await asyncio.sleep(0.4)  # renewed in between
        inbox.settle(inbox.got[0], Move(message(b"later", GROUP.retry, timedelta(hours=1))))
        inbox.settle(inbox.got[1], Move(message(b"dead", GROUP.dead)))
        inbox.settle(inbox.got[2], DONE)
        await eventually(lambda: moved(adapter))
        assert inbox.consumer._leases.lost == 0

    async def moved(adapter: RedisAdapter) -> bool:
        measured = await adapter.measure(GROUP)
        return (measured.in_flight, measured.delayed, measured.dead) == (0, 1, 1)

    on(url, check)


def test_what_comes_again_while_it_is_in_hand_takes_no_room(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, in_flight=100)
        for times in range(1, 4):
            first = len(inbox.got)
            await adapter.publish([message(b"%d" % n) for n in range(10)])
            await until(lambda many=first + 10: len(inbox.got) >= many)  # type: ignore[misc]
            await b.raw.xgroup_destroy(b.key("orders"), b.key("shipping"))  # as a replica that was behind has it
            await until(lambda many=times: inbox.consumer.recreated >= many)  # type: ignore[misc]
            await eventually(lambda: _all_read(b))
            for delivery in inbox.got[first:]:
                inbox.settle(delivery)
            await inbox.consumer.flush(5.0)
        await eventually(lambda: nothing_waits(adapter))
        full = len(inbox.got)
        await adapter.publish([message(b"new") for _ in range(100)])
        await until(lambda: len(inbox.got) == full + 100)  # and not fewer, with room taken by what nobody holds

    async def _all_read(b: Bed) -> bool:
        (group,) = await b.raw.xinfo_groups(b.key("orders"))
        return bool(group["lag"] == 0)

    on(url, check)


def test_a_group_that_is_destroyed_while_nobody_reads_loses_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.publish([message(b"long before")])
        await adapter.provision([TOPIC], Provision.CREATE)
        await adapter.publish([message(b"before it began")])
        await adapter.provision([GROUP], Provision.CREATE)
        await adapter.publish([message(b"while it was down")])
        await b.raw.xgroup_destroy(b.key("orders"), b.key("shipping"))
        await adapter.provision([GROUP], Provision.CREATE)
        assert "had begun to read" in caplog.text
        inbox = await consuming(adapter, GROUP, DONE)
        await until(lambda: b"while it was down" in inbox.bodies())
        await inbox.consumer.stop(3.0)
        await b.raw.delete(b.key("orders"))
        assert await adapter.publish([message(b"in the new stream")]) == [None]
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await until(lambda: inbox.bodies() == [b"in the new stream"])
        await inbox.consumer.stop(3.0)
        await adapter.disband("shipping")
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await adapter.publish([message(b"later")])
        await until(lambda: inbox.bodies() == [b"later"])  # one that was removed begins now, as any new one
        await inbox.consumer.stop(3.0)
        noted = f"{{{b.key('shipping')}}}.begun"
        kept = await b.raw.dump(noted)
        assert kept is not None
        await adapter.disband("shipping")
        await b.raw.restore(noted, 0, kept)  # as releases do that know nothing of it
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE)
        await adapter.publish([message(b"last")])
        await until(lambda: b"last" in inbox.bodies())
        assert inbox.bodies() == [b"last"]

    on(url, check)


def test_a_start_that_failed_is_no_beginning(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter, bills = await b.adapter(), Address("topic", "bills")
        both = Group("shipping", (TOPIC, bills))
        await b.raw.set(b.key("bills"), "no stream")
        with pytest.raises(NotProvisioned):
            await adapter.provision([both], Provision.CREATE)
        await b.raw.delete(b.key("bills"))
        await adapter.provision([bills], Provision.CREATE)
        await adapter.publish([message(b"before it began", bills)])
        await adapter.provision([both], Provision.CREATE)
        inbox = await consuming(adapter, both, DONE)
        await adapter.publish([message(b"later", bills)])
        await until(lambda: b"later" in inbox.bodies())
        assert inbox.bodies() == [b"later"]

    on(url, check)


def test_what_one_stream_refuses_keeps_nothing_of_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(milliseconds=200))
        both = Group("shipping", (Address("topic", "bills"), TOPIC))
        await adapter.provision([both], Provision.CREATE)
        gone = await consuming(adapter, both)
        await adapter.publish([message(b"1")])
        await until(lambda: len(gone.got) == 1)
        for task in gone.consumer._tasks:
            task.cancel()
        await asyncio.sleep(0.3)
        with monkeypatch.context() as patch:
            patch.setattr(StreamConsumer, "start", lambda _: None)
            inbox = await consuming(adapter, both)
        await b.raw.xgroup_destroy(b.key("bills"), b.key("shipping"))
        try:
            with pytest.raises(ResponseError, match="NOGROUP"):
                await inbox.consumer._take_over(10)
            assert inbox.bodies() == [b"1"]
        finally:
            inbox.consumer.start()

    on(url, check)


def test_a_redis_that_lost_its_data_is_used_on(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await adapter.publish([message(b"1")])
        await until(lambda: len(inbox.got) == 1)
        await b.raw.flushall()
        assert await adapter.publish([message(b"2")]) == [None]
        await until(lambda: len(inbox.got) == 2)
        inbox.settle(inbox.got[0], Move(message(b"again", GROUP.retry)))
        await until(lambda: len(inbox.got) == 3)
        inbox.settle(inbox.got[1], Move(message(b"dead", GROUP.dead)))
        inbox.settle(inbox.got[2])
        await eventually(lambda: nothing_waits(adapter))
        assert inbox.bodies() == [b"1", b"2", b"again"]
        assert (await adapter.measure(GROUP)).dead == 1
        assert inbox.failed == []

    on(own.url, check)


INBOX = Address("inbox", "shipping")


async def _flushed(b: Bed, own: Broker) -> None:
    await b.raw.flushall()


async def _restarted_empty(b: Bed, own: Broker) -> None:
    await b.raw.flushall()
    await asyncio.to_thread(own.restart)


async def _streams_deleted(b: Bed, own: Broker) -> None:
    await b.raw.delete(b.key("orders"), f"{{{b.key('shipping')}}}.inbox", f"{{{b.key('shipping')}}}.retry")


async def _groups_deleted(b: Bed, own: Broker) -> None:
    tag = f"{{{b.key('shipping')}}}"
    for stream in (b.key("orders"), f"{tag}.inbox", f"{tag}.retry"):
        await b.raw.xgroup_destroy(stream, b.key("shipping"))


@pytest.mark.parametrize("lose", [_flushed, _restarted_empty, _streams_deleted, _groups_deleted])
def test_what_was_in_hand_when_redis_lost_its_data_still_becomes_a_retry_or_a_dead_letter(
    own: Broker, lose: Callable[[Bed, Broker], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(milliseconds=600))
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        sources = {b"topic": TOPIC, b"inbox": INBOX, b"retry": GROUP.retry}
        for body, address in sources.items():
            assert await adapter.publish([message(body + b" %d" % n, address) for n in range(3)]) == [None] * 3
        await until(lambda: len(inbox.got) == 9)
        held = {delivery.message.body: delivery for delivery in inbox.got}
        await lose(b, own)
        # others write and finish meanwhile what comes after it, and leases are renewed
        ends = time.monotonic() + 10.0
        while await adapter.publish([message(b"new", address) for address in sources.values()]) != [None] * 3:
            assert time.monotonic() < ends
        await until(lambda: [d.message.body for d in inbox.got[9:]].count(b"new") >= 3, 10.0)
        for delivery in inbox.got[9:]:
            inbox.settle(delivery)
        if lose is not _groups_deleted:  # else what is in hand is pending in the new group, too
            await eventually(lambda: nothing_waits(adapter), 10.0)
        await asyncio.sleep(0.5)
        before = len(inbox.got)
        for body in sources:
            inbox.settle(held[body + b" 0"], Move(message(body + b" dead", GROUP.dead)))
            inbox.settle(held[body + b" 1"], Move(message(body + b" later", GROUP.retry, timedelta(milliseconds=50))))
            inbox.settle(held[body + b" 2"], Move(message(body + b" now", GROUP.retry)))
        again = {body + how for body in sources for how in (b" later", b" now")}
        if lose is not _groups_deleted:
            await until(lambda: again <= {d.message.body for d in inbox.got[before:]}, 10.0)
            dead = [d.message.body async for d in adapter.browse(GROUP.dead)]
            assert sorted(dead) == sorted(body + b" dead" for body in sources)
            assert any("lost data" in record.message for record in caplog.records if record.levelname == "WARNING")
        else:  # or it came again itself, since the group began anew

            async def kept() -> bool:
                seen = {d.message.body for d in inbox.got[9:]} | {
                    letter.message.body async for letter in adapter.browse(GROUP.dead)
                }
                copies = {b" 0": b" dead", b" 1": b" later", b" 2": b" now"}
                return all({body + n, body + copy} & seen for body in sources for n, copy in copies.items())

            await eventually(kept, 10.0)
        assert inbox.failed == []

    on(own.url, check)


async def _trimmed(b: Bed, own: Broker) -> None:
    await b.raw.xtrim(b.key("orders"), maxlen=0)
    for kind in ("inbox", "retry"):
        stream = f"{{{b.key('shipping')}}}.{kind}"
        await b.raw.xdel(stream, *[entry for entry, _ in await b.raw.xrange(stream)])


@pytest.mark.parametrize("lose", [_flushed, _streams_deleted, _trimmed])
def test_what_redis_has_lost_cannot_be_given_back_and_the_core_is_told(
    own: Broker, lose: Callable[[Bed, Broker], Awaitable[None]]
) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        for address in (TOPIC, INBOX, GROUP.retry):
            assert await adapter.publish([message(str(address).encode(), address)]) == [None]
        await until(lambda: len(inbox.got) == 3)
        await lose(b, own)
        for delivery in list(inbox.got):
            inbox.settle(delivery, RELEASE)
        await until(lambda: len(inbox.failed) == 3)
        assert all(isinstance(error, LostMessage) for _, error in inbox.failed)
        lost = [delivery for delivery, _ in inbox.failed]
        for delivery in lost:
            inbox.settle(delivery, Move(message(delivery.message.body or b"", GROUP.retry)))
        await until(lambda: len(inbox.got) == 6, 10.0)
        assert {delivery.message.body for delivery in inbox.got[3:]} == {delivery.message.body for delivery in lost}
        for delivery in inbox.got[3:]:
            inbox.settle(delivery)
        await eventually(lambda: nothing_waits(adapter), 10.0)

    on(own.url, check)


@pytest.mark.parametrize("address", [TOPIC, INBOX, GROUP.retry])
def test_what_another_took_over_and_finished_is_not_copied(
    url: str, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(b: Bed) -> None:
        slow, quick = await b.adapter(), await b.adapter(lease=timedelta(milliseconds=300))
        await slow.provision([GROUP], Provision.CREATE)
        first = await consuming(slow, GROUP)
        assert await slow.publish([message(b"%d" % n, address) for n in range(3)]) == [None] * 3
        await until(lambda: len(first.got) == 3)
        second = await consuming(quick, GROUP, DONE)
        await until(lambda: len(second.got) == 3)
        await eventually(lambda: nothing_waits(quick))
        first.settle(first.got[0], Move(message(b"dead", GROUP.dead)))
        first.settle(first.got[1], Move(message(b"later", GROUP.retry, timedelta(hours=1))))
        first.settle(first.got[2], Move(message(b"now", GROUP.retry)))
        await first.consumer.flush(5.0)
        measured = await slow.measure(GROUP)
        assert (measured.ready, measured.in_flight, measured.delayed, measured.dead) == (0, 0, 0, 0)
        assert not [record for record in caplog.records if "lost data" in record.message]
        assert first.failed == []

    on(url, check)


def test_what_a_killed_process_held_is_taken_over(url: str, tmp_path: Path) -> None:
    program = tmp_path / "victim.py"
    program.write_text(
        "import asyncio, sys\n"
        "from test_redis import GROUP, consuming, made, timedelta, until\n"
        "async def main():\n"
        "    adapter = made(sys.argv[1], sys.argv[2], lease=timedelta(seconds=1))\n"
        "    await adapter.start(5)\n"
        "    inbox = await consuming(adapter, GROUP, in_flight=150)\n"
        "    await until(lambda: len(inbox.got) == 150)\n"
        "    print('held', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(seconds=1))
        await adapter.provision([GROUP], Provision.CREATE)
        await adapter.publish([message(b"%d" % n) for n in range(200)])
        paths = [str(Path(__file__).parent), *sys.path]
        victim = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), b.url, b.namespace),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"held\n"
        inbox = await consuming(adapter, GROUP, DONE)
        await until(lambda: len(inbox.got) == 50)
        victim.kill()
        await victim.wait()
        await until(lambda: len(inbox.got) == 200)
        assert len(set(inbox.bodies())) == 200
        await eventually(lambda: nothing_waits(adapter))

    on(url, check)


# requests


def test_a_reply_finds_its_requester_and_a_late_one_is_harmless(url: str) -> None:
    async def check(b: Bed) -> None:
        requester, handler = await b.adapter(), await b.adapter()
        address = Address("reply", f"shop.{new_id()}")
        inbox = await consuming(requester, Group(address.name, (address,)))
        for n in range(3):
            assert await handler.publish([message(b"%d" % n, address)]) == [None]
        await until(lambda: len(inbox.got) == 3)
        assert inbox.bodies() == [b"0", b"1", b"2"]
        assert inbox.got[0].message.address == address
        inbox.settle(inbox.got[0])
        await inbox.consumer.stop(1)
        assert await handler.publish([message(b"late", address)]) == [None]
        assert 0 < await b.raw.pttl(f"{b.namespace}.{address.name}.reply") <= 300_000

    on(url, check)


# connecting


def test_a_wrong_password_and_an_absent_server_are_errors_at_once(own: Broker) -> None:
    async def check(b: Bed) -> None:
        await b.raw.config_set("requirepass", "secret")
        try:
            for wrong in ("wrong", None):
                adapter = made(b.url.replace("//", f"//:{wrong}@") if wrong else b.url, b.namespace)
                began = time.monotonic()
                with pytest.raises(redis.RedisError) as failure:
                    await adapter.start(5.0)
                assert time.monotonic() - began < 2
                assert "secret" not in str(failure.value)
                await adapter.stop(1.0)
            settings = {"credentials": {"password": "secret"}}
            right = made(b.url, b.namespace, **settings)
            assert "secret" not in repr(right._settings)
            assert (await right.start(5.0)).message_bytes == 8 * 1024 * 1024
            await right.stop(1.0)
            await b.raw.execute_command("AUTH", "secret")
        finally:
            raw = redis.Redis.from_url(b.url, password="secret", protocol=2)
            await raw.config_set("requirepass", "")
            await raw.aclose()
        nobody = made("redis://127.0.0.1:1", b.namespace)
        with pytest.raises(redis.ConnectionError):
            await nobody.start(2.0)
        await nobody.stop(1.0)
        await nobody.stop(1.0)

    on(own.url, check)


def test_health_is_red_while_leases_cannot_be_renewed(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        assert adapter.error is None
        assert adapter._upkeep is not None
        adapter._upkeep.error = ConnectionError("max number of clients reached")
        assert adapter.error is adapter._upkeep.error

    on(own.url, check)


def test_a_restart_loses_nothing_and_repeats_nothing_settled(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP, DONE, in_flight=1000)
        waits = message(b"waited", GROUP.retry, timedelta(seconds=2))
        assert await adapter.publish([waits]) == [None]
        confirmed: list[bytes | None] = []
        unknown: list[bytes | None] = []
        stop = False

        async def publish() -> None:
            n = 0
            while not stop:
                sent = [message(b"%d" % (n := n + 1)) for _ in range(50)]
                for was, answer in zip(sent, await adapter.publish(sent), strict=True):
                    (confirmed if answer is None else unknown).append(was.body)
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        await until(lambda: len(confirmed) > 500)
        await asyncio.to_thread(own.kill)
        await until(lambda: inbox.consumer.error is not None)
        await asyncio.to_thread(own.start)
        await until(lambda: inbox.consumer.error is None)
        have = len(confirmed)
        await until(lambda: len(confirmed) > have + 500)
        stop = True
        await publishing
        await until(lambda: set(confirmed) <= set(inbox.bodies()))
        await until(lambda: b"waited" in inbox.bodies())
        extra = [body for body in inbox.bodies() if body != b"waited" and body not in set(confirmed)]
        assert set(extra) <= set(unknown)
        assert inbox.failed == []

    on(own.url, check)


def test_what_is_away_is_answered_in_time_and_stop_returns(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(publish_timeout=timedelta(seconds=0.5))
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await adapter.publish([message()])
        await until(lambda: inbox.got)
        await asyncio.to_thread(own.kill)
        try:
            began = time.monotonic()
            answers = await adapter.publish([message(), message()])
            assert all(isinstance(answer, Exception) for answer in answers)
            assert time.monotonic() - began < 2
            inbox.settle(inbox.got[0])
            began = time.monotonic()
            await adapter.stop(1.0)
            assert time.monotonic() - began < 2.5
        finally:
            await asyncio.to_thread(own.start)
        await adapter.start(5.0)
        again = await consuming(adapter, GROUP, DONE)
        assert await adapter.publish([message(b"new")]) == [None]
        await until(lambda: b"new" in again.bodies())

    on(own.url, check)


def test_a_full_redis_refuses_and_loses_nothing(own: Broker) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await adapter.publish([message(b"1"), message(b"2")])
        await until(lambda: len(inbox.got) == 2)
        await b.raw.config_set("maxmemory", "1mb")
        try:
            (refused,) = await adapter.publish([message()])
            assert isinstance(refused, redis.OutOfMemoryError)
            inbox.settle(inbox.got[0], Move(message(b"copy", GROUP.dead)))
            inbox.settle(inbox.got[1], DONE)
            await until(lambda: inbox.failed)
            await eventually(lambda: pending_is_one(b))
        finally:
            await b.raw.config_set("maxmemory", "0")
        inbox.settle(inbox.got[0], Move(message(b"copy", GROUP.dead)))
        await eventually(lambda: nothing_pending(b))
        assert [d.message.body async for d in adapter.browse(GROUP.dead)] == [b"copy"]

    async def pending(b: Bed) -> int:
        return int((await b.raw.xpending(b.key("orders"), b.key("shipping")))["pending"])

    async def pending_is_one(b: Bed) -> bool:
        return await pending(b) == 1

    async def nothing_pending(b: Bed) -> bool:
        return await pending(b) == 0

    on(own.url, check)


def test_messages_cut_off_by_a_lost_connection_are_read_again(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter()
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await until(lambda: inbox.consumer._client_id is not None)
        # as if they had been sent to it and never arrived
        await adapter.publish([message(b"%d" % n) for n in range(3)])
        await until(lambda: len(inbox.got) == 3)
        source = inbox.consumer._sources[0]
        for delivery in inbox.got[:2]:
            del source.held[delivery.position.encode()]
        inbox.consumer._unsettled -= 2
        await b.raw.client_kill_filter(_id=inbox.consumer._client_id)
        await until(lambda: len(inbox.got) == 5)
        assert sorted(inbox.bodies()[3:]) == [b"0", b"1"]

    on(url, check)


def test_pause_delivers_nothing_and_keeps_the_lease(url: str) -> None:
    async def check(b: Bed) -> None:
        adapter = await b.adapter(lease=timedelta(milliseconds=600))
        await adapter.provision([GROUP], Provision.CREATE)
        inbox = await consuming(adapter, GROUP)
        await adapter.publish([message(b"1")])
        await until(lambda: inbox.got)
        inbox.consumer.pause()
        await adapter.publish([message(b"2")])
        await asyncio.sleep(1.5)
        assert inbox.bodies() == [b"1"]
        inbox.consumer.resume()
        await until(lambda: len(inbox.got) == 2)
        assert inbox.bodies() == [b"1", b"2"]
        assert inbox.consumer._leases.lost == 0

    on(url, check)
