"""The other side of a consumer, for checks of the port itself: keeps what it gets and settles when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from eventkit import headers as h
from eventkit.adapter import DONE, Adapter, Address, Consumer, Delivery, Group, Message, Settlement
from eventkit.contract.checks import Adapters, eventually
from eventkit.wire import new_id


class Receiving:
    """A `Receive` without a core. Made by `receive`."""

    def __init__(self, settle_with: Settlement | None = None) -> None:
        self.got: list[Delivery] = []
        """All arrivals, in order."""
        self.open: list[Delivery] = []
        """Those that are not settled and still ours, in order."""
        self.failed: list[tuple[Delivery, Settlement, Exception]] = []
        """Settlements that the adapter said it could not make."""
        self.most = 0
        """The most that were open at once."""
        self._settle_with = settle_with
        self._live = asyncio.Event()
        self._consumer: Consumer | None = None

    @property
    def consumer(self) -> Consumer:
        assert self._consumer is not None
        return self._consumer

    @consumer.setter
    def consumer(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._live.set()

    @property
    def bodies(self) -> list[bytes | None]:
        """What arrived, in order."""
        return [delivery.message.body for delivery in self.got]

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        await self._live.wait()
        self.got.extend(batch)
        self.open.extend(batch)
        self.most = max(self.most, len(self.open))
        if self._settle_with is not None:
            for delivery in batch:
                self.settle(delivery, self._settle_with)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        mine = [delivery for delivery in self.open if belongs(delivery)]
        last = max((at for at, delivery in enumerate(mine) if needed and needed(delivery)), default=-1)
        for at, delivery in enumerate(mine):
            if at <= last:
                self.settle(delivery)
            else:
                self._close(delivery)

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        self.failed.append((delivery, how, error))

    def settle(self, delivery: Delivery, how: Settlement = DONE) -> None:
        """Settle one delivery: again, where it was settled before."""
        self._close(delivery)
        self.consumer.settle(delivery, how)

    def settle_all(self, deliveries: Iterable[Delivery], how: Settlement = DONE) -> None:
        """Settle many."""
        for delivery in list(deliveries):
            self.settle(delivery, how)

    async def arrive(self, count: int, within: float = 15.0) -> None:
        """Wait until so many have arrived in all; AssertionError if they do not within so many seconds."""
        await eventually(lambda: len(self.got) >= count, f"{count} deliveries", within)

    def _close(self, delivery: Delivery) -> None:
        self.open = [other for other in self.open if other is not delivery]


async def receive(
    adapter: Adapter, group: Group, *, in_flight: int = 100, settle_with: Settlement | None = None
) -> Receiving:
    """Consume a provisioned group without a core. `settle_with`: each delivery at once, like this."""
    receiving = Receiving(settle_with)
    receiving.consumer = await adapter.consume(group, receiving, in_flight=in_flight)
    return receiving


@asynccontextmanager
async def started(backend: Adapters, namespace: str) -> AsyncIterator[Adapter]:
    """A started adapter, stopped at the end."""
    adapter = backend.adapter(namespace)
    await adapter.start(15.0)
    try:
        yield adapter
    finally:
        await adapter.stop(5.0)


@asynccontextmanager
async def following(adapter: Adapter, address: Address) -> AsyncIterator[list[Delivery]]:
    """What it shows, as it comes."""
    seen: list[Delivery] = []

    async def look(messages: AsyncIterator[Delivery]) -> None:
        async for delivery in messages:
            seen.append(delivery)  # noqa: PERF401 it is looked at meanwhile

    async with adapter.follow(address) as messages:
        looking = asyncio.create_task(look(messages))
        try:
            yield seen
            assert not looking.done(), f"it ended by itself: {looking.exception()!r}"
        finally:
            looking.cancel()
            await asyncio.wait([looking])


def raw(
    address: Address,
    body: bytes | None,
    key: str | None = None,
    *,
    type: str = "Raw",
    due: datetime | None = None,
    headers: Mapping[str, str] | None = None,
) -> Message:
    """A message made by hand, with an id of its own."""
    id_ = new_id()
    own = {h.SPECVERSION: "1.0", h.ID: id_, h.SOURCE: "contract", h.TYPE: type, h.MESSAGE_ID: id_}
    if key is not None:
        own |= {h.SUBJECT: key, h.PARTITION_KEY: key}
    return Message(address, type, key, {**own, **(headers or {})}, body, due)


async def put(adapter: Adapter, *messages: Message) -> None:
    """Publish these; AssertionError unless each is confirmed."""
    answers = list(await adapter.publish(messages))
    assert answers == [None] * len(messages), f"not confirmed: {[answer for answer in answers if answer is not None]}"


async def contents(adapter: Adapter, address: Address) -> list[Delivery]:
    """All that `browse` shows."""
    return [delivery async for delivery in adapter.browse(address)]
