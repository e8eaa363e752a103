"""NATS JetStream by hand: PubAcks awaited together, fetch of many, an ack each without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import nats
from nats.js.api import ConsumerConfig, StreamConfig

from bench.messages import Order, orders, raw_headers

_WINDOW = 500


class RawNats:
    name = "raw"

    async def open(self, url: str, topic: str) -> None:
        self._topic = f"{topic}-raw"
        self._nats = await nats.connect(url)
        self._js = self._nats.jetstream(publish_async_max_pending=4000)
        await self._js.add_stream(StreamConfig(name=self._topic, subjects=[f"{self._topic}.>"]))
        self._pull = await self._js.pull_subscribe(
            f"{self._topic}.>", durable="bench", stream=self._topic, config=ConsumerConfig(max_ack_pending=-1)
        )

    async def close(self) -> None:
        await self._js.delete_stream(self._topic)
        await self._nats.close()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    def _headers(self, order: Order) -> dict[str, str]:
        headers = raw_headers(order)
        return {"Nats-Msg-Id": f"bench:{headers['message_id']}", **headers}

    async def publish_one(self, message: Order) -> None:
        await self._js.publish(
            f"{self._topic}.OrderPlaced", message.model_dump_json().encode(), headers=self._headers(message)
        )

    async def publish_many(self, messages: Sequence[Order]) -> None:
        subject = f"{self._topic}.OrderPlaced"
        for first in range(0, len(messages), _WINDOW):
            acks = [
                await self._js.publish_async(
                    subject, message.model_dump_json().encode(), headers=self._headers(message)
                )
                for message in messages[first : first + _WINDOW]
            ]
            await asyncio.gather(*acks)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        while done < count:
            for message in await self._pull.fetch(500, timeout=5):
                dict(message.headers or {})
                seen(Order.model_validate_json(message.data))
                await message.ack()
                done += 1
