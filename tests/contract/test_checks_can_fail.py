"""The checks themselves: each of these adapters breaks one promise, and the checks of that promise fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from eventkit.adapter import (
    DONE,
    RELEASE,
    Adapter,
    Address,
    Connection,
    Delivery,
    Done,
    Group,
    Message,
    Move,
    Provision,
    Receive,
    Settlement,
)
from eventkit.contract import CHECKS, Backend, checks, letters
from eventkit.memory import MemoryAdapter, MemoryConsumer, Store

PATIENCE = 0.7
"""Seconds that a check waits here for what will not come."""


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

    faults = ("D2", "D3", "D7", "D9")

    def _put(self, message: Message) -> Exception | None:
        return None if message.address.kind == "topic" and self.every(50) else super()._put(message)


class DeliversSettledOnesAgain(Broken):
    """Forgets each fiftieth settlement."""

    faults = ("D5", "D8", "O2", "S3")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle

        def forgets(delivery: Delivery, how: Settlement, /) -> None:
            settle(delivery, RELEASE if isinstance(how, Done) and self.every(50) else how)

        consumer.settle = forgets  # type: ignore[method-assign]


class DeliversSettledOnesToTheNext(Broken):
    """Forgets settlements at a stop: as one that does not flush them."""

    faults = ("D3", "D6", "L5")

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

        consumer._receive = _Receive(first, receive)
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
    faults = ("S3",)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=1_000_000)

        async def takes_all(batch: Sequence[Delivery], /) -> None:
            consumer._waiting = asyncio.ensure_future(receive.deliveries(batch))  # type: ignore[attr-defined]

        consumer._receive = _Receive(takes_all, receive)
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

        consumer._receive = _Receive(reversed_, receive)


class OneCopyForAll(Broken):
    """A topic is read by one group only."""

    faults = ("D9", "R6")

    def _create(self, item: Address | Group) -> None:
        super()._create(item)
        for queues in self._store.subscribers.values():
            del queues[1:]


class EveryReplicaGetsAll(Broken):
    """The replicas of a group do not share its work: each gets a copy."""

    faults = ("D7", "R1")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        async def shared(batch: Sequence[Delivery], /) -> None:
            for other in list(consumer._queue.consumers):
                if other is not consumer:
                    await other._receive_own(batch)  # type: ignore[attr-defined]
            await receive.deliveries(batch)

        consumer._receive_own = receive.deliveries  # type: ignore[attr-defined]
        consumer._receive = _Receive(shared, receive)


class OneReplicaDoesItAll(Broken):
    faults = ("D8",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        if len(consumer._queue.consumers) > 1:
            consumer.pause()


class ConfirmsWhatItDoesNotTake(Broken):
    """Answers None to all, also to what is too large or has no owner."""

    faults = ("D2", "S4", "S5")

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        await super().publish(messages)
        return [None] * len(messages)


class AnswersInAnyOrder(Broken):
    faults = ("D2", "S5")

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        return list(await super().publish(messages))[::-1]


class TakesNamesForOneAnother(Broken):
    """Cuts long names, and takes all signs for dots."""

    faults = ("R9",)

    def _name(self, address: Address) -> str:
        name = address.name.replace("-", ".").replace("_", ".")[:200]
        return self._naming.channel(address.kind, name, address.physical)


class TopicsByTheirBeginning(Broken):
    """A topic's name takes in those that begin like it, as subjects do."""

    faults = ("R6", "R9")

    def _put(self, message: Message) -> Exception | None:
        kind, name, _ = message.address
        parent, dot, _ = name.rpartition(".")
        if kind == "topic" and dot:
            super()._put(message._replace(address=Address("topic", parent)))
        return super()._put(message)


class CreatesInAnyCase(Broken):
    """Creates what it was asked to look for, or not even that."""

    faults = ("R3", "R10")

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        for item in wanted:
            self._create(Group(item.name, (item,)) if isinstance(item, Address) and item.kind == "inbox" else item)


class NamesNothing(Broken):
    """Says that something is missing, not what."""

    faults = ("R10",)

    def _missing(self, item: Address | Group) -> list[str]:
        return ["something"] if super()._missing(item) else []


class BeginsWithNow(Broken):
    """Whatever was asked for."""

    faults = ("C1",)

    def _create(self, item: Address | Group) -> None:
        super()._create(Group(item.name, item.sources) if isinstance(item, Group) else item)


class BeginsWithTheEarliest(Broken):
    """Whatever was asked for."""

    faults = ("C1", "Q2")

    def _create(self, item: Address | Group) -> None:
        super()._create(Group(item.name, item.sources, "earliest") if isinstance(item, Group) else item)


class BeginsTooLate(Broken):
    """Misses what comes right after it has started."""

    faults = ("L2",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        consumer.pause()

        def live() -> None:
            consumer._queue.ready.clear()
            consumer.resume()

        asyncio.get_running_loop().call_later(0.02, live)


class LosesRetries(Broken):
    """Its retry address keeps nothing."""

    faults = ("R7", "F1")

    def _put(self, message: Message) -> Exception | None:
        return None if message.address.kind == "retry" else super()._put(message)


class DeadLettersTwice(Broken):
    faults = ("F3", "F6")

    def _put(self, message: Message) -> Exception | None:
        if message.address.kind == "dead":
            super()._put(message)
        return super()._put(message)


class MangledBodies(Broken):
    """Takes an empty body for none, and bytes for text."""

    faults = ("M2",)

    def _put(self, message: Message) -> Exception | None:
        body = (message.body or b"").decode(errors="replace").encode() or None
        return super()._put(message._replace(body=body))


class StopsThemAll(Broken):
    """To stop one group stops the others of the same adapter."""

    faults = ("L9",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        stop = consumer.stop

        async def stops_all(timeout: float, /) -> None:
            for other in self._consumers:
                other.pause()
            await stop(timeout)

        consumer.stop = stops_all  # type: ignore[method-assign]


class _Receive:
    """A `Receive` whose deliveries go another way."""

    def __init__(self, way: Callable[[Sequence[Delivery]], Awaitable[None]], behind: Receive) -> None:
        self._way = way
        self._behind = behind

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        await self._way(batch)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool], /) -> None:
        await self._behind.revoked(belongs, needed)

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        self._behind.unsettled(delivery, how, error)


@dataclass
class _Backend:
    make: type[Broken]
    name: str = "memory"
    store: Store = field(default_factory=Store)

    def adapter(self, namespace: str, /) -> Adapter:
        return self.make(Connection(url=None, namespace=namespace, client="contract"), store=self.store)

    def unreachable(self, namespace: str, /) -> Adapter | None:
        return None


BROKEN = [cls for cls in Broken.__subclasses__() if cls.faults]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.eventually, "__defaults__", (PATIENCE,))
    monkeypatch.setattr(letters.dead_letters, "__defaults__", (PATIENCE,))


@pytest.mark.parametrize(
    ("broken", "check"), [pytest.param(cls, id_, id=f"{id_}-{cls.__name__}") for cls in BROKEN for id_ in cls.faults]
)
def test_a_broken_adapter_fails(broken: type[Broken], check: str) -> None:
    backend: Backend = _Backend(broken)

    async def run() -> None:
        async with asyncio.timeout(20):
            await CHECKS[check].run(backend)

    with pytest.raises(Exception) as caught:
        asyncio.run(run())
    assert not isinstance(caught.value, TypeError | AttributeError | NameError | TimeoutError), repr(caught.value)
