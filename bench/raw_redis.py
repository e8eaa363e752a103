"""Redis Streams by hand: many XADD in one write, XREADGROUP of many, one XACK a batch in the same write, hiredis.

The envelope is FastStream's, as on the wire of eventkit, read and written with `struct`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from struct import Struct
from typing import Any

import redis.asyncio as redis

from bench.messages import NOBODY, Order, RawPing, orders, raw_headers

_FIELD = b"__data__"
_MAGIC = b"\x89BIN\x0d\x0a\x1a\x0a"
_HEAD = Struct(">8sHII")
_LENGTH = Struct(">H")
_GROUP, _ME = "bench", "me"
_WINDOW = 500


def write(order: Order) -> bytes:
    return envelope(raw_headers(order), order.model_dump_json().encode())


def envelope(headers: dict[str, str], body: bytes) -> bytes:
    parts = [_LENGTH.pack(len(headers))]
    for name, value in headers.items():
        for text in (name.encode(), value.encode()):
            parts += (_LENGTH.pack(len(text)), text)
    block = b"".join(parts)
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
        self._redis = redis.from_url(url, max_connections=200)
        await self._redis.xgroup_create(self._topic, _GROUP, id="$", mkstream=True)

    async def close(self) -> None:
        await self._redis.delete(self._topic)
        await self._redis.aclose()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    async def publish_one(self, message: Order) -> None:
        await self._redis.xadd(self._topic, {_FIELD: write(message)})

    async def publish_many(self, messages: Sequence[Order]) -> None:
        """Below the client's pipeline, which costs more than what it writes."""
        connection = await self._redis.connection_pool.get_connection()
        try:
            waiting = 0
            for first in range(0, len(messages), _WINDOW):
                window = messages[first : first + _WINDOW]
                packed = connection.pack_commands([("XADD", self._topic, "*", _FIELD, write(m)) for m in window])
                await connection.send_packed_command(packed)
                for _ in range(waiting):
                    await connection.read_response()
                waiting = len(window)
            for _ in range(waiting):
                await connection.read_response()
        finally:
            await self._redis.connection_pool.release(connection)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        ids: list[bytes] = []
        while done < count:
            async with self._redis.pipeline(transaction=False) as pipe:
                if ids:
                    pipe.xack(self._topic, _GROUP, *ids)
                pipe.xreadgroup(_GROUP, _ME, {self._topic: ">"}, count=500, block=1000)
                found = (await pipe.execute())[-1]
            ids = []
            for _, entries in found.items() if isinstance(found, dict) else found:
                for entry_id, fields in entries[0] if isinstance(found, dict) else entries:
                    _headers, body = read(fields[_FIELD])
                    seen(Order.model_validate_json(body))
                    ids.append(entry_id)
            done += len(ids)
        await self._redis.xack(self._topic, _GROUP, *ids)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answers requests: a stream of commands, a stream of replies, then the XACK."""
        self._inbox, self._replies = f"{self._topic}.in", f"{self._topic}.replies"
        await self._redis.xgroup_create(self._inbox, _GROUP, id="$", mkstream=True)
        self._answers: dict[str, asyncio.Future[int]] = {}
        self._open = True
        tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._hear())]
        try:
            yield
        finally:
            self._open = False  # a read that waits swallows its cancellation
            await asyncio.wait(tasks)
            await self._redis.delete(self._inbox, self._replies)

    async def _serve(self) -> None:
        while self._open:
            found = await self._redis.xreadgroup(_GROUP, _ME, {self._inbox: ">"}, count=500, block=100)
            for _, entries in found:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for _, fields in entries:
                        headers, body = read(fields[_FIELD])
                        number = RawPing.model_validate_json(body).number
                        reply = envelope({**raw_headers(NOBODY), "request": headers["ce-id"]}, str(number).encode())
                        pipe.xadd(headers["reply_to"], {_FIELD: reply}, maxlen=10_000)
                    pipe.xack(self._inbox, _GROUP, *(entry for entry, _ in entries))
                    await pipe.execute()

    async def _hear(self) -> None:
        last = b"0-0"
        while self._open:
            for _, entries in await self._redis.xread({self._replies: last}, count=500, block=100):
                for entry, fields in entries:
                    last = entry
                    headers, body = read(fields[_FIELD])
                    self._answers[headers["request"]].set_result(int(body))

    async def request(self, number: int) -> None:
        headers = {**raw_headers(NOBODY), "reply_to": self._replies}
        answer = self._answers[headers["ce-id"]] = asyncio.get_running_loop().create_future()
        body = RawPing(number=number).model_dump_json().encode()
        await self._redis.xadd(self._inbox, {_FIELD: envelope(headers, body)})
        assert await answer == number
        del self._answers[headers["ce-id"]]


class PlainRedis(RawRedis):
    """As its documentation shows."""

    name = "plain"

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for message in messages:
            await self.publish_one(message)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        while done < count:
            for _, entries in await self._redis.xreadgroup(_GROUP, _ME, {self._topic: ">"}, count=1, block=1000):
                for entry_id, fields in entries:
                    _headers, body = read(fields[_FIELD])
                    seen(Order.model_validate_json(body))
                    await self._redis.xack(self._topic, _GROUP, entry_id)
                    done += 1
