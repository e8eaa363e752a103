"""RabbitMQ by hand: aiormq on a quorum queue, confirms awaited together, acknowledged with `multiple`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from bench.messages import Order, orders, raw_headers

_WINDOW = 500
_ACK_EACH = 50


class RawRabbit:
    name = "raw"

    async def open(self, url: str, topic: str) -> None:
        self._connection = await aiormq.connect(url)
        self._channel = await self._connection.channel(publisher_confirms=True)
        await self._channel.basic_qos(prefetch_count=1000)
        self._exchange, self._queue = f"{topic}.raw", f"{topic}.raw.bench"
        await self._channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        await self._channel.queue_declare(self._queue, durable=True, arguments={"x-queue-type": "quorum"})
        await self._channel.queue_bind(self._queue, self._exchange, "#")

    async def close(self) -> None:
        await self._channel.queue_delete(self._queue)
        await self._channel.exchange_delete(self._exchange)
        await self._connection.close()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    async def publish_one(self, message: Order) -> None:
        headers = raw_headers(message)
        await self._channel.basic_publish(
            message.model_dump_json().encode(),
            exchange=self._exchange,
            routing_key="OrderPlaced",
            properties=Basic.Properties(
                headers={name: value for name, value in headers.items() if name.startswith("ce-")},
                content_type="application/json",
                message_id=headers["message_id"],
                correlation_id=headers["correlation_id"],
                message_type="OrderPlaced",
                delivery_mode=2,
            ),
        )

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for first in range(0, len(messages), _WINDOW):
            await asyncio.gather(*(self.publish_one(message) for message in messages[first : first + _WINDOW]))

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        finished = asyncio.Event()
        done = 0

        async def take(message: DeliveredMessage) -> None:
            nonlocal done
            dict(message.header.properties.headers or {})
            seen(Order.model_validate_json(message.body))
            done += 1
            if not done % _ACK_EACH or done == count:
                await self._channel.basic_ack(message.delivery.delivery_tag, multiple=True, wait=False)
            if done == count:
                finished.set()

        tag = await self._channel.basic_consume(self._queue, take)
        await finished.wait()
        await self._channel.basic_cancel(tag.consumer_tag)
