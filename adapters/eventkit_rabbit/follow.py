"""Following a topic or an inbox: a queue of this connection's own, which the broker deletes with it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from struct import Struct
from typing import Any

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel

from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_rabbit import decode, frames, write
from eventkit_rabbit.link import Link
from eventkit_rabbit.wire import Wire, unused

log = logging.getLogger("eventkit.rabbit")

_PREFETCH = 1_000
_KEPT = 100_000
"""Messages that wait to be taken; beyond that the oldest are missed."""
_OPEN = 10.0
"""Seconds for opening the channel."""
_PAUSE = 0.2
_tag = Struct(">Q").unpack_from


class Following:
    """One channel with a queue of its own. An owner of `Frames`."""

    def __init__(self, wire: Wire, address: Address, exchange: str) -> None:
        self.wire = wire
        self.channel: AbstractChannel
        self.over: Exception | None = None
        self._address = address
        self._exchange = exchange
        self._arrived: deque[tuple[int, bytes, bytes]] = deque()
        self._some = asyncio.Event()

    async def open(self) -> None:
        """NotProvisioned, where there is no such exchange."""
        async with asyncio.timeout(_OPEN):
            self.channel = channel = await self.wire.channel(self)
            limits: dict[str, Any] = {"x-max-length": _KEPT, "x-overflow": "drop-head"}
            queue = (await channel.queue_declare("", exclusive=True, auto_delete=True, arguments=limits)).queue or ""
            try:
                await channel.queue_bind(queue, self._exchange, routing_key="#")
            except amqp.ChannelNotFoundEntity as error:
                raise NotProvisioned(f"missing on RabbitMQ: {self._address} (exchange {self._exchange})") from error
            await channel.basic_qos(prefetch_count=_PREFETCH)
            await channel.basic_consume(queue, unused)

    async def next(self) -> Delivery:
        """The next message. Raises why there is none any more."""
        while not self._arrived:
            if self.over is not None:
                raise self.over
            self._some.clear()
            await self._some.wait()
        tag, header, body = self._arrived.popleft()
        if self.over is None:  # what is written on a channel that is no more ends the whole connection
            self.wire.write(write.ack(self.channel.number, tag, multiple=False))
        decoded = decode.decode(header)
        return Delivery(decode.read(self._address, decoded, body), decode.position(decoded, body), None, None)

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes, /) -> None:
        if method == frames.DELIVER:
            self._arrived.append((_tag(arguments, 1 + arguments[0])[0], header, body))
            self._some.set()

    def empty(self) -> None: ...

    def confirmed(self, tag: int, multiple: bool, accepted: bool, /) -> None: ...

    def cancelled(self) -> None:
        self.closed(NotProvisioned(f"the queue that followed {self._address} was deleted"))

    def closed(self, error: Exception, /) -> None:
        self.over = self.over or error
        self._some.set()

    async def leave(self) -> None:
        """The queue goes with the channel's consumer."""
        if self.over is None:
            await self.wire.close_channel(self.channel)


@asynccontextmanager
async def follow(link: Link, address: Address, exchange: str) -> AsyncIterator[AsyncIterator[Delivery]]:
    """What is routed by the address's exchange from now on."""
    now = [await _opened(link, address, exchange)]
    try:
        yield _each(link, address, exchange, now)
    finally:
        with suppress(Exception):
            await now[0].leave()


async def _opened(link: Link, address: Address, exchange: str) -> Following:
    async with asyncio.timeout(_OPEN):
        wire = await link.wire()
    following = Following(wire, address, exchange)
    await following.open()
    return following


async def _each(link: Link, address: Address, exchange: str, now: list[Following]) -> AsyncIterator[Delivery]:
    """`now`: the one that is open at the moment."""
    while True:
        try:
            delivery = await now[0].next()
        except Exception as error:  # noqa: BLE001 whatever ended it, it is opened again
            log.debug("cannot follow %s yet: %r", address, error)
            await asyncio.sleep(_PAUSE)
            with suppress(TimeoutError, OSError, amqp.AMQPError):
                now[0] = await _opened(link, address, exchange)
        else:
            yield delivery
