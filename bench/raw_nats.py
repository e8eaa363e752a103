"""NATS JetStream by hand: PubAcks counted on one inbox, one continuous pull, an ack each without waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from bench.messages import NOBODY, Order, RawPing, orders, raw_headers

_WINDOW = 2000
_PULL = 1000


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
        subject, inbox = f"{self._topic}.OrderPlaced", self._nats.new_inbox()
        left, room = len(messages), asyncio.Event()
        sent = 0

        async def confirmed(answer: Msg) -> None:
            nonlocal left
            assert b'"error"' not in answer.data
            left -= 1
            if len(messages) - left > sent - _WINDOW:
                room.set()

        acks = await self._nats.subscribe(inbox, cb=confirmed)
        for message in messages:
            await self._nats.publish(
                subject, message.model_dump_json().encode(), reply=inbox, headers=self._headers(message)
            )
            sent += 1
            while sent - (len(messages) - left) >= _WINDOW or (sent == len(messages) and left):
                room.clear()
                await room.wait()
        await acks.unsubscribe()

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        finished = asyncio.Event()
        done = 0

        async def take(message: Msg) -> None:
            nonlocal done
            dict(message.headers or {})
            seen(Order.model_validate_json(message.data))
            await self._nats.publish(message.reply)
            done += 1
            if done == count:
                finished.set()

        await self._pulling(self._topic, "bench", take, finished)

    async def _pulling(
        self, stream: str, durable: str, take: Callable[[Msg], Awaitable[None]], until: asyncio.Event
    ) -> None:
        """One pull that never ends: armed again when half of it has come."""
        inbox = self._nats.new_inbox()
        ask = json.dumps({"batch": _PULL, "expires": 30_000_000_000}).encode()
        come = 0

        async def arrived(message: Msg) -> None:
            nonlocal come
            if not message.reply:  # what the server says of a request
                return
            await take(message)
            come += 1
            if not come % (_PULL // 2):
                half = json.dumps({"batch": _PULL // 2, "expires": 30_000_000_000}).encode()
                await self._nats.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", half, reply=inbox)

        pull = await self._nats.subscribe(inbox, cb=arrived, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await self._nats.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", ask, reply=inbox)
        await until.wait()
        await pull.unsubscribe()
        await self._nats.flush()

    async def _serve(self) -> None:
        """Answer requests until cancelled: a stream of commands, replies on a plain subject, then the ack."""
        inbox = f"{self._topic}-in"
        # as an inbox must be, so that it does not grow for ever: what is acknowledged is deleted
        queue = RetentionPolicy.WORK_QUEUE
        await self._js.add_stream(StreamConfig(name=inbox, subjects=[f"{inbox}.>"], retention=queue))
        await self._js.add_consumer(inbox, ConsumerConfig(durable_name="bench", ack_policy=AckPolicy.EXPLICIT))

        async def take(message: Msg) -> None:
            headers = dict(message.headers or {})
            number = RawPing.model_validate_json(message.data).number
            await self._nats.publish(
                headers["reply_to"], str(number).encode(), headers={**self._headers_of(), "request": headers["ce-id"]}
            )
            await self._nats.publish(message.reply)

        self._answers: dict[str, asyncio.Future[int]] = {}

        async def answered(message: Msg) -> None:
            headers = dict(message.headers or {})
            self._answers[headers["request"]].set_result(int(message.data))

        self._reply_to = self._nats.new_inbox()
        await self._nats.subscribe(self._reply_to, cb=answered)
        self._served.set()
        try:
            await self._pulling(inbox, "bench", take, asyncio.Event())
        finally:
            await self._js.delete_stream(inbox)

    async def request(self, number: int) -> None:
        headers = {**self._headers_of(), "reply_to": self._reply_to}
        headers["Nats-Msg-Id"] = headers["ce-id"]
        answer = self._answers[headers["ce-id"]] = asyncio.get_running_loop().create_future()
        await self._js.publish(
            f"{self._topic}-in.Ping", RawPing(number=number).model_dump_json().encode(), headers=headers
        )
        assert await answer == number
        del self._answers[headers["ce-id"]]

    def _headers_of(self) -> dict[str, str]:
        return raw_headers(NOBODY)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self._served = asyncio.Event()
        answering = asyncio.create_task(self._serve())
        await self._served.wait()
        try:
            yield
        finally:
            answering.cancel()
            await asyncio.wait([answering])


class PlainNats(RawNats):
    """As its documentation shows."""

    name = "plain"

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for message in messages:
            await self.publish_one(message)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        done = 0
        while done < count:
            for message in await self._pull.fetch(1, timeout=5):
                dict(message.headers or {})
                seen(Order.model_validate_json(message.data))
                await message.ack()
                done += 1
