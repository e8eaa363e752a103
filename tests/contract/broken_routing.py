"""Adapters that each break one promise in what goes where: topics, groups, names, provisioning, retries."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from eventkit.adapter import Address, Delivery, Group, Message, Provision, Receive
from eventkit.memory import MemoryConsumer
from tests.contract.broken import Broken, Diverted


class OneCopyForAll(Broken):
    """A topic is read by one group only."""

    faults = ("D9", "R6")

    def _create(self, item: Address | Group) -> None:
        super()._create(item)
        for queues in self._store.subscribers.values():
            del queues[1:]


class EveryReplicaGetsAll(Broken):
    """The replicas of a group do not share its work: each gets a copy."""

    faults = ("D7", "R1", "R11")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        async def shared(batch: Sequence[Delivery], /) -> None:
            for other in list(consumer._queue.consumers):
                if other is not consumer:
                    await other._receive_own(batch)  # type: ignore[attr-defined]
            await receive.deliveries(batch)

        consumer._receive_own = receive.deliveries  # type: ignore[attr-defined]
        consumer._receive = Diverted(shared, receive)


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


class OneReleaseEndsTheOthersSubscriptions(Broken):
    """To provision a group takes away from it what this release does not read."""

    faults = ("R12",)

    def _create(self, item: Address | Group) -> None:
        super()._create(item)
        if isinstance(item, Group):
            queue = self._store.queues[self._naming.group(item.name)]
            wanted = {self._name(source) for source in item.sources}
            for channel, queues in self._store.subscribers.items():
                if channel not in wanted and queue in queues:
                    queues.remove(queue)
