"""RabbitMQ by hand: aiormq on a quorum queue, one write a batch, acknowledged with `multiple`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

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

    def _properties(self, order: Order) -> Basic.Properties:
        headers = raw_headers(order)
        return Basic.Properties(
            headers={name: value for name, value in headers.items() if name.startswith("ce-")},
            content_type="application/json",
            message_id=headers["message_id"],
            correlation_id=headers["correlation_id"],
            message_type="OrderPlaced",
            delivery_mode=2,
        )

    async def publish_one(self, message: Order) -> None:
        await self._channel.basic_publish(
            message.model_dump_json().encode(),
            exchange=self._exchange,
            routing_key="OrderPlaced",
            properties=self._properties(message),
        )

    async def publish_many(self, messages: Sequence[Order]) -> None:
        """Below `basic_publish`, which writes one by one: the frames of a batch at once, then its confirms."""
        channel: Any = self._channel
        under_way: list[asyncio.Future[Any]] = []
        publish = Basic.Publish(exchange=self._exchange, routing_key="OrderPlaced")
        for first in range(0, len(messages), _WINDOW):
            parts: list[Any] = []
            confirms = []
            for message in messages[first : first + _WINDOW]:
                body = message.model_dump_json().encode()
                channel.delivery_tag += 1
                confirm = channel.confirmations[channel.delivery_tag] = channel.create_future()
                confirms.append(confirm)
                parts += (
                    publish,
                    ContentHeader(properties=self._properties(message), body_size=len(body)),
                    ContentBody(body),
                )
            await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=parts))
            await asyncio.gather(*under_way)
            under_way = confirms
        await asyncio.gather(*under_way)

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


class PlainRabbit(RawRabbit):
    """As its documentation shows."""

    name = "plain"

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for message in messages:
            await self.publish_one(message)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        finished = asyncio.Event()
        done = 0

        async def take(message: DeliveredMessage) -> None:
            nonlocal done
            dict(message.header.properties.headers or {})
            seen(Order.model_validate_json(message.body))
            await self._channel.basic_ack(message.delivery.delivery_tag)
            done += 1
            if done == count:
                finished.set()

        tag = await self._channel.basic_consume(self._queue, take)
        await finished.wait()
        await self._channel.basic_cancel(tag.consumer_tag)
