"""Adapters that each break one promise about what is on the wire, and about order across replicas."""

from __future__ import annotations

from typing import Any

from eventkit import headers as h
from eventkit.adapter import Message, Receive
from eventkit.memory import MemoryConsumer
from tests.contract.broken import Broken


class TakesAllForJson(Broken):
    """Loses the content type."""

    faults = ("W1",)

    def _put(self, message: Message) -> Exception | None:
        kept = {name: value for name, value in message.headers.items() if name != h.CONTENT_TYPE}
        return super()._put(message._replace(headers=kept))


class TakesNothingForAnObject(Broken):
    """A message without a body becomes an empty object."""

    faults = ("W2",)

    def _put(self, message: Message) -> Exception | None:
        return super()._put(message._replace(body=message.body or b"{}"))


class RetriesWithoutTheTrace(Broken):
    faults = ("W4", "M4")

    def _put(self, message: Message) -> Exception | None:
        kept = dict(message.headers)
        if message.address.kind == "retry":
            kept.pop(h.TRACEPARENT, None)
        return super()._put(message._replace(headers=kept))


class TidiesBodies(Broken):
    """Takes out what it thinks is not needed."""

    faults = ("W5",)

    def _put(self, message: Message) -> Exception | None:
        return super()._put(message._replace(body=message.body and message.body.replace(b"null", b"0")))


class AddsHeadersOfItsOwn(Broken):
    """And delivers twice what has one of the user's."""

    faults = ("W6",)

    def _put(self, message: Message) -> Exception | None:
        if "x-a" in message.headers:
            super()._put(message)
        return super()._put(message)


class LosesTheVersion(Broken):
    faults = ("R8",)

    def _put(self, message: Message) -> Exception | None:
        kept = {name: value for name, value in message.headers.items() if name != h.VERSION}
        return super()._put(message._replace(headers=kept))


class GivesKeysToWhoeverIsFree(Broken):
    """Its replicas take whatever comes, whatever the key."""

    faults = ("O3",)

    def broken(self, consumer: MemoryConsumer, receive: Receive) -> None:
        queue = consumer._queue

        def take(consumer: MemoryConsumer, most: int) -> list[Any]:
            taken = [queue.ready.popleft() for _ in range(min(most, len(queue.ready)))]
            for key in (stored.message.key for stored in taken):
                if key is not None:
                    consumer.keys[key] = consumer.keys.get(key, 0) + 1
            return taken

        queue.take = take  # type: ignore[method-assign]
