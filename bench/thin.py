"""FastStream's own typed handlers, set to acknowledge after success."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from faststream import AckPolicy

from bench.messages import Order, orders

_QUIET = logging.DEBUG
"""Its line of log per message is left out: that alone would cost half its speed."""


class _Thin:
    name = "faststream"

    def __init__(self) -> None:
        self._handle: Callable[[Any], None] = lambda _: None
        self._left = 0
        self._done = asyncio.Event()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    async def _take(self, order: Order) -> None:
        self._handle(order)
        self._left -= 1
        if not self._left:
            self._done.set()

    async def close(self) -> None:
        await self._broker.stop()

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for first in range(0, len(messages), 100):
            await asyncio.gather(*(self.publish_one(message) for message in messages[first : first + 100]))

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        self._handle, self._left = seen, count
        self._done.clear()
        await self._subscriber.start()
        await self._done.wait()
        await self._subscriber.stop()

    _broker: Any
    _subscriber: Any

    async def publish_one(self, message: Order) -> None:
        raise NotImplementedError


class ThinRedis(_Thin):
    async def open(self, url: str, topic: str) -> None:
        from faststream.redis import RedisBroker, StreamSub

        self._topic = f"{topic}.thin"
        self._broker = RedisBroker(url, log_level=_QUIET)
        await self._broker.connect()
        self._subscriber = self._broker.subscriber(
            stream=StreamSub(self._topic, group="bench", consumer="me", max_records=200),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
        )
        self._subscriber(self._take)
        import redis.asyncio as redis

        client = redis.from_url(url)
        await client.xgroup_create(self._topic, "bench", id="0", mkstream=True)
        await client.aclose()

    async def publish_one(self, message: Order) -> None:
        await self._broker.publish(message, stream=self._topic)


class ThinNats(_Thin):
    async def open(self, url: str, topic: str) -> None:
        from faststream.nats import JStream, NatsBroker, PullSub

        self._topic = f"{topic}-thin"
        self._broker = NatsBroker(url, log_level=_QUIET)
        await self._broker.connect()
        self._stream = JStream(self._topic, subjects=[f"{self._topic}.>"])
        await self._broker.start()
        self._subscriber = self._broker.subscriber(
            f"{self._topic}.>",
            stream=self._stream,
            durable="bench",
            pull_sub=PullSub(batch_size=200),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            persistent=False,
        )
        self._subscriber(self._take)
        await self._broker.connection.jetstream().add_stream(name=self._topic, subjects=[f"{self._topic}.>"])

    async def publish_one(self, message: Order) -> None:
        await self._broker.publish(message, f"{self._topic}.OrderPlaced", stream=self._topic, timeout=10)


class ThinRabbit(_Thin):
    async def open(self, url: str, topic: str) -> None:
        from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

        self._topic = f"{topic}.thin"
        self._broker = RabbitBroker(url, default_channel=Channel(prefetch_count=1000), log_level=_QUIET)
        await self._broker.connect()
        await self._broker.start()
        queue = RabbitQueue(self._topic, queue_type=QueueType.QUORUM, durable=True)
        await self._broker.declare_queue(queue)
        self._subscriber = self._broker.subscriber(
            queue, ack_policy=AckPolicy.NACK_ON_ERROR, no_reply=True, persistent=False
        )
        self._subscriber(self._take)

    async def publish_one(self, message: Order) -> None:
        await self._broker.publish(message, self._topic, persist=True)


class ThinKafka(_Thin):
    async def open(self, url: str, topic: str) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic
        from faststream.kafka import KafkaBroker

        servers = url.removeprefix("kafka://").rstrip("/")
        self._topic = f"{topic}.thin"
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        await admin.create_topics([NewTopic(self._topic, 4, 1)])
        await admin.close()
        self._broker = KafkaBroker(servers, enable_idempotence=True, log_level=_QUIET)
        await self._broker.start()
        self._subscriber = self._broker.subscriber(
            self._topic,
            group_id=f"{self._topic}.bench",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            persistent=False,
        )
        self._subscriber(self._take)

    async def publish_one(self, message: Order) -> None:
        await self._broker.publish(message, self._topic, key=message.order_id.encode())


THIN: dict[str, type[_Thin]] = {"redis": ThinRedis, "nats": ThinNats, "rabbit": ThinRabbit, "kafka": ThinKafka}
