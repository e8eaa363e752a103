"""Redis Streams by hand: pipelined XADD, XREADGROUP of many, one XACK a batch, hiredis.

The envelope is FastStream's, as on the wire of eventkit, read and written with `struct`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import redis.asyncio as redis

from bench.messages import Order, orders, raw_headers

_FIELD = b"__data__"
_MAGIC = b"\x89BIN\x0d\x0a\x1a\x0a"
_HEAD = Struct(">8sHII")
_LENGTH = Struct(">H")
_GROUP, _ME = "bench", "me"
_WINDOW = 500


def write(order: Order) -> bytes:
    headers = raw_headers(order)
    parts = [_LENGTH.pack(len(headers))]
    for name, value in headers.items():
        for text in (name.encode(), value.encode()):
            parts += (_LENGTH.pack(len(text)), text)
    block = b"".join(parts)
    body = order.model_dump_json().encode()
    return _HEAD.pack(_MAGIC, 1, _HEAD.size, _HEAD.size + len(block)) + block + body


def read(data: bytes) -> tuple[dict[str, str], bytes]:
    _, _, at, end = _HEAD.unpack_from(data)
    (count,) = _LENGTH.unpack_from(data, at)
    at += 2
    headers = {}
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        (length,) = _LENGTH.unpack_from(data, at)
        headers[name] = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
    return headers, data[end:]


class RawRedis:
    name = "raw"

    async def open(self, url: str, topic: str) -> None:
        self._topic = f"{topic}.raw"
        self._redis = redis.from_url(url)
        await self._redis.xgroup_create(self._topic, _GROUP, id="$", mkstream=True)

    async def close(self) -> None:
        await self._redis.delete(self._topic)
        await self._redis.aclose()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    async def publish_one(self, message: Order) -> None:
        await self._redis.xadd(self._topic, {_FIELD: write(message)})

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for first in range(0, len(messages), _WINDOW):
            async with self._redis.pipeline(transaction=False) as pipe:
                for message in messages[first : first + _WINDOW]:
                    pipe.xadd(self._topic, {_FIELD: write(message)})
                await pipe.execute()

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        while done < count:
            found = await self._redis.xreadgroup(_GROUP, _ME, {self._topic: ">"}, count=200, block=1000)
            for _, entries in found:
                ids = []
                for entry_id, fields in entries:
                    _headers, body = read(fields[_FIELD])
                    seen(Order.model_validate_json(body))
                    ids.append(entry_id)
                await self._redis.xack(self._topic, _GROUP, *ids)
                done += len(ids)
