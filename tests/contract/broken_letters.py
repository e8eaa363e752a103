"""Adapters that each break one promise about dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Message, Move, Receive, Settlement
from eventkit.memory import MemoryConsumer
from tests.contract.broken import Broken


class LosesWhyItFailed(Broken):
    """Dead letters come without the stack."""

    faults = ("F7",)

    def _put(self, message: Message) -> Exception | None:
        kept = {name: value for name, value in message.headers.items() if name != h.ERROR_STACK}
        return super()._put(message._replace(headers=kept))


class FinishesWhatItCouldNotMove(Broken):
    """Swallows a refused dead letter, as one that acknowledges before the copy is confirmed."""

    faults = ("F19",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        put = consumer._put
        consumer._put = lambda message: self._swallow(put(message))

    def _put(self, message: Message) -> Exception | None:
        if message.address.kind == "dead" and len(message.body or b"") > 1_000_000:
            return OSError("no room")
        return super()._put(message)

    def _swallow(self, error: Exception | None) -> None:
        """As if it had been confirmed."""


class WritesThemTwice(Broken):
    """Each dead letter, once more."""

    faults = ("F7", "F11", "F12")

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        settle = consumer.settle

        def twice(delivery: Delivery, how: Settlement, /) -> None:
            settle(delivery, how)
            if isinstance(how, Move) and how.copy.address.kind == "dead":
                self._put(how.copy)

        consumer.settle = twice  # type: ignore[method-assign]


class ListingTakesOneAway(Broken):
    """As a queue whose reader acknowledges."""

    faults = ("F12", "F18")

    async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        found = [delivery async for delivery in super().browse(address)]
        for delivery in found:
            yield delivery
        if len(found) > 4:
            await super().remove(found[:1])


class ListingTurnsThemRound(Broken):
    """As a queue that puts back what was looked at."""

    faults = ("F12",)

    async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        found = [delivery async for delivery in super().browse(address)]
        for delivery in found:
            yield delivery
        if address.kind == "dead" and found:
            kept = self._store.dead[self._name(address)]
            kept[found[0].position] = kept.pop(found[0].position)


class RemovesNothing(Broken):
    """Says that it has."""

    faults = ("F12", "F18")

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        return [None] * len(deliveries)


class RetriesGoToAll(Broken):
    """A retry is published to the topic again."""

    faults = ("F12",)

    def _put(self, message: Message) -> Exception | None:
        if message.address.kind == "retry" and h.ORIGIN in message.headers:
            kind, _, name = message.headers[h.ORIGIN].partition(":")
            if kind == "topic":
                return super()._put(message._replace(address=Address("topic", name)))
        return super()._put(message)
