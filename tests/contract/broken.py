"""Adapters that each break one promise in how they deliver and settle; and one that breaks none, but is unhandy."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from eventkit.adapter import (
    DONE,
    RELEASE,
    Address,
    Delivery,
    Done,
    Group,
    Message,
    Move,
    Provision,
    Receive,
    Settlement,
)
from eventkit.memory import MemoryAdapter, MemoryConsumer


class Broken(MemoryAdapter):
    """Right in all but one thing."""

    faults: tuple[str, ...] = ()
    """The checks that must notice."""
    count = itertools.count(1)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=in_flight)
        self.broken(consumer, receive)
        return consumer

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        """Break a consumer: by default it is left alone."""

    def every(self, number: int) -> bool:
        return next(Broken.count) % number == 0


class LosesSome(Broken):
    """Confirms each fiftieth message and loses it."""

    faults = ("D2", "D3", "D7", "D9", "S1")

    def _put(self, message: Message) -> Exception | None:
        return None if message.address.kind == "topic" and self.every(50) else super()._put(message)


class DeliversSettledOnesAgain(Broken):
    """Forgets each fiftieth settlement."""

    faults = ("D5", "D8", "O2", "S3", "R12")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle

        def forgets(delivery: Delivery, how: Settlement, /) -> None:
            settle(delivery, RELEASE if isinstance(how, Done) and self.every(50) else how)

        consumer.settle = forgets  # type: ignore[method-assign]


class DeliversSettledOnesToTheNext(Broken):
    """Forgets settlements at a stop: as one that does not flush them."""

    faults = ("D3", "D6", "L5", "L7")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle, stop = consumer.settle, consumer.stop
        finished: list[Any] = []

        def remembers(delivery: Delivery, how: Settlement, /) -> None:
            finished.append(delivery.token)
            settle(delivery, how)

        async def brings_back(timeout: float, /) -> None:
            await stop(timeout)
            for stored in finished[-5:]:
                consumer._queue.put(stored)

        consumer.settle = remembers  # type: ignore[method-assign]
        consumer.stop = brings_back  # type: ignore[method-assign]


class SettlesOnArrival(Broken):
    """Acknowledges first, as a careless client does."""

    faults = ("D6", "O5", "L6")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle
        deliveries = receive.deliveries

        async def first(batch: Sequence[Delivery], /) -> None:
            for delivery in batch:
                settle(delivery, DONE)
            await deliveries(batch)

        def too_late(delivery: Delivery, how: Settlement, /) -> None:
            if isinstance(how, Move):
                self._put(how.copy)

        consumer._receive = Diverted(first, receive)
        consumer.settle = too_late  # type: ignore[method-assign]


class LosesWhatIsUnsettledAtAStop(Broken):
    faults = ("D5", "D10", "O5")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        stop, settle = consumer.stop, consumer.settle

        async def loses(timeout: float, /) -> None:
            consumer.held.clear()
            await stop(timeout)

        def never_gives_back(delivery: Delivery, how: Settlement, /) -> None:
            settle(delivery, how if isinstance(how, Move) else DONE)

        consumer.stop = loses  # type: ignore[method-assign]
        consumer.settle = never_gives_back  # type: ignore[method-assign]


class PassesWhatIsInFlight(Broken):
    """Progress is one mark, and it is set to the last that was settled."""

    faults = ("O5",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle

        def passes(delivery: Delivery, how: Settlement, /) -> None:
            settle(delivery, how)
            if isinstance(how, Done):
                for stored in list(consumer.held.values()):
                    if int(stored.position) < int(delivery.position):
                        del consumer.held[id(stored)]

        consumer.settle = passes  # type: ignore[method-assign]


class SettlesTwice(Broken):
    """Takes a second settlement for another one."""

    faults = ("D10",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle

        def twice(delivery: Delivery, how: Settlement, /) -> None:
            if id(delivery.token) in consumer.held:
                settle(delivery, how)
            elif isinstance(how, Move):
                self._put(how.copy)
            elif not isinstance(how, Done):
                consumer._queue.put(delivery.token)  # type: ignore[arg-type]

        consumer.settle = twice  # type: ignore[method-assign]


class ForgetsTheDelay(Broken):
    faults = ("F4",)

    def _put(self, message: Message) -> Exception | None:
        return super()._put(message._replace(due=None))


class IgnoresInFlight(Broken):
    faults = ("S3", "S7", "S8", "S9")

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=1_000_000)

        async def takes_all(batch: Sequence[Delivery], /) -> None:
            consumer._waiting = asyncio.ensure_future(receive.deliveries(batch))  # type: ignore[attr-defined]

        consumer._receive = Diverted(takes_all, receive)
        consumer.hold = lambda at_most, /: None  # type: ignore[method-assign]
        return consumer


class LosesHeaders(Broken):
    """Those that are empty, or not in ASCII."""

    faults = ("D1", "M1")

    def _put(self, message: Message) -> Exception | None:
        kept = {name: value for name, value in message.headers.items() if value and (name + value).isascii()}
        return super()._put(message._replace(headers=kept))


class LosesTheKey(Broken):
    faults = ("D1", "O2")

    def _put(self, message: Message) -> Exception | None:
        return super()._put(message._replace(key=None))


class MixesUpTheOrder(Broken):
    """Hands over batches from their end."""

    faults = ("O1", "O2")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        async def reversed_(batch: Sequence[Delivery], /) -> None:
            await receive.deliveries(batch[::-1])

        consumer._receive = Diverted(reversed_, receive)


class Diverted:
    """A `Receive` whose deliveries go another way."""

    def __init__(self, way: Callable[[Sequence[Delivery]], Awaitable[None]], behind: Receive) -> None:
        self._way = way
        self._behind = behind

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        await self._way(batch)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        await self._behind.revoked(belongs, needed)

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        self._behind.unsettled(delivery, how, error)


class Slow(Broken):
    """Unhandy, but within its rights: the core must cope. The first look at a topic takes longer than the second, and
    deliveries begin before `consume` has returned."""

    pause = 0.05

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        await super().provision(wanted, how)
        if any(isinstance(item, Address) for item in wanted):
            pause, self.pause = self.pause, self.pause / 5
            await asyncio.sleep(pause)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=in_flight)
        await asyncio.sleep(0.05)
        return consumer
