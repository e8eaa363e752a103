"""Kafka's producer, replaced where a batch was refused: what becomes of the old one, and of what waits in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from eventkit.testing.brokers import Broker
from eventkit_kafka.publish import Publisher
from eventkit_kafka.topics import Wanted
from tests.adapters.test_kafka import Bench, message, run, until
from tests.adapters.test_kafka_beginnings import admin_of

REFUSED = KafkaConnectionError("refused, on purpose")


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


def publisher_of(it: Bench) -> Publisher:
    assert it.adapter._running is not None
    return it.adapter._running.cluster.publisher


def test_what_a_producer_that_is_replaced_could_not_send_holds_up_nothing_after_it(url: str) -> None:
    async def scenario(it: Bench) -> None:
        publisher = publisher_of(it)
        await it.publish(message(key="a"), message(key="b"))
        broken = publisher._producer
        stuck = TopicPartition(it.topic("orders"), 0)
        broken._sender._muted_partitions.add(stuck)  # as behind a leader that does not answer
        (answer,) = await it.adapter.publish([message(key="a")])
        assert isinstance(answer, TimeoutError)
        await publisher._replace(broken, REFUSED)

        async def goes() -> bool:
            return await it.adapter.publish([message(key="a")]) == [None]

        async with asyncio.timeout(10):
            while not await goes():
                await asyncio.sleep(0.1)

    run(url, scenario, partitions=1, publish_timeout=timedelta(seconds=0.5))


def test_a_topic_that_was_made_anew_with_fewer_partitions_is_published_to(url: str) -> None:
    async def scenario(it: Bench) -> None:
        keys = [str(n) for n in range(20)]
        await it.publish(*(message(key=key) for key in keys))
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("orders")])
            topics = publisher_of(it)._topics
            while await topics.existing([it.topic("orders")]):
                await asyncio.sleep(0.05)
            await topics.create([Wanted(it.topic("orders"), 1, None, {})])
        while any(await it.adapter.publish([message(key=key) for key in keys])):
            await asyncio.sleep(0.1)

    run(url, scenario, partitions=6, publish_timeout=timedelta(seconds=3))


@pytest.mark.parametrize("what", ["fails", "is cancelled", "comes after the stop"])
def test_a_new_producer_that_is_not_used_is_ended(url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(it: Bench) -> None:
        publisher = publisher_of(it)
        await it.publish(message())
        broken, made = publisher._producer, []
        producer, asked = publisher._clients.producer, asyncio.Event()

        async def unlike(*_: object) -> bool:
            asked.set()
            if what == "fails":
                raise REFUSED
            if what == "is cancelled":
                await asyncio.Event().wait()
            publisher._closed = True
            return True

        def make() -> Any:
            made.append(producer())
            monkeypatch.setattr(made[-1].client, "set_topics", unlike)
            return made[-1]

        monkeypatch.setattr(publisher._clients, "producer", make)
        replacing = asyncio.create_task(publisher._replace(broken, REFUSED))
        await asked.wait()
        if what == "is cancelled":
            replacing.cancel()
        await asyncio.wait([replacing])
        assert publisher._producer is broken
        (fresh,) = made
        await until(lambda: fresh._closed and not any(conn.connected() for conn in fresh.client._conns.values()))
        publisher._closed = False
        await it.publish(message())

    run(url, scenario)
