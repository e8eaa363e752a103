"""Replies by RabbitMQ's direct reply-to: no queue, one channel for the requests and their answers.

The requester's own name for its reply address never reaches the wire: the broker writes a token in its place, which
says how to reach this very channel. Whoever answers uses the token as the name of the reply address.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from eventkit.adapter import Address, Delivery, Receive, Settlement
from eventkit_rabbit import decode
from eventkit_rabbit.confirms import Channel
from eventkit_rabbit.link import Link
from eventkit_rabbit.publish import Publisher
from eventkit_rabbit.wire import unused

log = logging.getLogger("eventkit.rabbit")

DIRECT = "amq.rabbitmq.reply-to"


class ReplyConsumer:
    """Receives the answers to the requests that were published through `publisher`."""

    def __init__(self, link: Link, publisher: Publisher, address: Address, receive: Receive) -> None:
        self.publisher = publisher
        self._link = link
        self._address = address
        self._receive = receive
        self._arrived: list[Delivery] = []
        self._some = asyncio.Event()
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        publisher.on_open = self._listen
        publisher.deliver = self._take

    @property
    def error(self) -> Exception | None:
        if self._task is None or self._link.now() is not None:
            return None
        return ConnectionError("no connection to RabbitMQ")

    async def start(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self.publisher.ready()
        self._task = asyncio.create_task(self._hand_over(), name=f"eventkit rabbit {self._address}")

    async def _listen(self, channel: Channel) -> None:
        async with asyncio.timeout(10):
            await channel.channel.basic_consume(DIRECT, unused, no_ack=True)

    def _take(self, arguments: bytes, header: bytes, body: bytes) -> None:
        decoded = decode.decode(header)
        message = decode.read(self._address, decoded, body)
        self._arrived.append(Delivery(message, decode.position(decoded, body), None, None))
        self._some.set()

    async def _hand_over(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            if self._paused or not self._arrived:
                continue
            batch, self._arrived = self._arrived, []
            try:
                await self._receive.deliveries(batch)
            except Exception:
                log.exception("%d replies could not be handed over", len(batch))

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """Nothing is kept: nothing to settle."""

    async def flush(self, timeout: float, /) -> None:
        """Settling a reply means nothing."""

    def hold(self, at_most: int, /) -> None:
        """Replies are taken as they come."""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._some.set()

    async def stop(self, timeout: float, /) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.publisher.close()
