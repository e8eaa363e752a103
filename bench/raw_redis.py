"""Redis Streams by hand: pipelined XADD, XREADGROUP of many, one XACK a batch, hiredis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis.asyncio as redis

from bench.messages import Order, orders, raw_headers
from eventkit.adapter import Address, Message
from eventkit_redis import codec

_GROUP, _ME = "bench", "me"
_WINDOW = 500


class RawRedis:
    name = "raw"

    async def open(self, url: str, topic: str) -> None:
        self._topic = f"{topic}.raw"
        self._address = Address("topic", topic)
        self._redis = redis.from_url(url)
        await self._redis.xgroup_create(self._topic, _GROUP, id="$", mkstream=True)

    async def close(self) -> None:
        await self._redis.delete(self._topic)
        await self._redis.aclose()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    def _encode(self, order: Order) -> bytes:
        body = order.model_dump_json().encode()
        return codec.encode(Message(self._address, "OrderPlaced", order.order_id, raw_headers(order), body))

    async def publish_one(self, message: Order) -> None:
        await self._redis.xadd(self._topic, {codec.FIELD: self._encode(message)})

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for first in range(0, len(messages), _WINDOW):
            async with self._redis.pipeline(transaction=False) as pipe:
                for message in messages[first : first + _WINDOW]:
                    pipe.xadd(self._topic, {codec.FIELD: self._encode(message)})
                await pipe.execute()

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        while done < count:
            found = await self._redis.xreadgroup(_GROUP, _ME, {self._topic: ">"}, count=200, block=1000)
            for _, entries in found:
                ids = []
                for entry_id, fields in entries:
                    _headers, body = codec.decode(fields[codec.FIELD])
                    seen(Order.model_validate_json(body or b""))
                    ids.append(entry_id)
                await self._redis.xack(self._topic, _GROUP, *ids)
                done += len(ids)
