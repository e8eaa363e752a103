"""Two copies of one message: the same `ce-id`, and different ids for the broker, so that it drops neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventkit import Bus, Command, Event, Message
from eventkit import headers as h
from eventkit.telling import Counts
from eventkit.testing.harness import Harness


def copies_of(message: Message, count: int = 2) -> Sequence[Message]:
    id_ = message.headers[h.ID]
    return [message._replace(headers={**message.headers, h.MESSAGE_ID: f"{id_}.copy{n}"}) for n in range(count)]


class Twice:
    """Publishes each message twice, in a harness."""

    def __init__(self, harness: Harness) -> None:
        self._bus: Bus = harness._bus
        self._running = harness._running

    async def publish(self, message: Event | Command[Any], *, id: str | None = None, count: int = 2) -> None:
        await self._bus.deliver(copies_of(self._bus.encode(message, id=id), count))

    def counts(self, group: str) -> Counts:
        return self._running.counts[group]
