"""Looking through a queue without changing it, and taking single messages out of it.

Nothing in AMQP shows a message without taking it. So all are taken, unsettled, on a channel of their own, and given
back at the end, in their old order. Meanwhile nobody else can see them, nor does `measure` count them: one browser at
a time, by a lock that is an exclusive queue. Each visit raises the broker's delivery count of what it saw, which has no
limit there and which nothing reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from aiormq import exceptions as amqp

from eventkit import headers as h
from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_rabbit import decode
from eventkit_rabbit.link import Link
from eventkit_rabbit.names import Names
from eventkit_rabbit.topology import Topology
from eventkit_rabbit.visit import Visit
from eventkit_rabbit.wire import Wire

_WAIT = 10.0
"""Seconds to wait for another browser, and for a connection."""
_SETTLE = 3.0
"""Seconds to wait until what was only looked at is back."""
_PAUSE = 0.05


class Browser:
    """Browses and removes for one adapter."""

    def __init__(self, link: Link, names: Names, topology: Topology) -> None:
        self._link = link
        self._names = names
        self._topology = topology
        self._locks: dict[str, asyncio.Lock] = {}

    def _queue(self, address: Address) -> str:
        """The queue whose messages an address shows. A topic keeps none of its own."""
        match address.kind:
            case "dead":
                return self._names.dead(address.name)
            case "retry":
                return self._names.queue(address.name)
        raise NotProvisioned(f"{address}: RabbitMQ keeps messages for groups only, browse a dead or retry address")

    async def browse(self, address: Address) -> AsyncIterator[Delivery]:
        async with self._visit(self._queue(address)) as visit:
            while (got := await visit.next()) is not None:
                yield _delivery(address, got, visit)

    async def remove(self, deliveries: Sequence[Delivery]) -> Sequence[Exception | None]:
        answers: list[Exception | None] = [None] * len(deliveries)
        later: dict[Address, dict[str, list[int]]] = {}
        for index, delivery in enumerate(deliveries):
            visit, tag = cast("tuple[Visit, int]", delivery.token)
            if visit.error is None:
                visit.remove(tag)  # the visit is not over: we still hold it
            else:
                later.setdefault(delivery.message.address, {}).setdefault(delivery.position, []).append(index)
        for address, wanted in later.items():
            try:
                await self._search(address, wanted)
            except Exception as error:  # noqa: BLE001 (the answer for each of them)
                for indices in wanted.values():
                    for index in indices:
                        answers[index] = error
        return answers

    async def _search(self, address: Address, wanted: dict[str, list[int]]) -> None:
        """Take out as many of each position as are wanted."""
        left = {position: len(indices) for position, indices in wanted.items()}
        async with self._visit(self._queue(address)) as visit:
            while left and (got := await visit.next()) is not None:
                position = decode.position(decode.decode(got[1]), got[2])
                if position in left:
                    visit.remove(got[0])
                    left[position] -= 1
                    if not left[position]:
                        del left[position]

    @asynccontextmanager
    async def _visit(self, queue: str) -> AsyncIterator[Visit]:
        wire = await self._connected()
        async with self._locks.setdefault(queue, asyncio.Lock()), self._alone(wire, queue):
            before = await self._topology.ready(queue)
            if before is None:
                raise NotProvisioned(f"no queue {queue} on RabbitMQ")
            visit = Visit(wire, queue, before)
            visit.channel = await wire.channel(visit)
            try:
                yield visit
            finally:
                failed, visit.error = visit.error, amqp.ChannelClosed("the browser has finished")
                if failed is None:
                    await self._give_back(visit)

    async def _give_back(self, visit: Visit) -> None:
        """Close the channel and wait until the next one can see again what was there."""
        await visit.leave()
        expected = visit.seen - len(visit.removed)
        loop = asyncio.get_running_loop()
        end = loop.time() + _SETTLE
        while (await self._topology.ready(visit.queue) or 0) < expected:
            if loop.time() > end:
                break
            await asyncio.sleep(_PAUSE / 10)

    async def _connected(self) -> Wire:
        async with asyncio.timeout(_WAIT):
            return await self._link.wire()

    @asynccontextmanager
    async def _alone(self, wire: Wire, queue: str) -> AsyncIterator[None]:
        """No other process looks through this queue meanwhile."""
        lock = f"{queue}:browser"
        loop = asyncio.get_running_loop()
        end = loop.time() + _WAIT
        while True:
            try:
                async with wire.scratch() as channel:
                    await channel.queue_declare(lock, exclusive=True, durable=False)
                break
            except amqp.ChannelLockedResource as error:
                if loop.time() > end:
                    raise TimeoutError(f"another process looks through {queue}") from error
                await asyncio.sleep(_PAUSE * 4)
        try:
            yield
        finally:
            if not wire.lost.done():
                async with wire.scratch() as channel:
                    await channel.queue_delete(lock)


def _delivery(address: Address, got: tuple[int, bytes, bytes], visit: Visit) -> Delivery:
    tag, header, body = got
    decoded = decode.decode(header)
    message = decode.read(address, decoded, body)
    if decoded.death == "delivery_limit" and h.REASON not in message.headers:
        # not a copy of ours: the broker itself gave up
        headers = {**message.headers, h.REASON: "quarantined", h.GROUP: address.name}
        message = message._replace(headers=headers)
    return Delivery(message, decode.position(decoded, body), decoded.returns + 1, (visit, tag))
