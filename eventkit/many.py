"""Many events at once: handed over in chunks, several under way, each event answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from eventkit.adapter import Message
from eventkit.errors import Failure
from eventkit.instruments import Instruments, Place
from eventkit.messages import Event
from eventkit.publishing import Publisher, permanent

_CHUNK = 500
"""Events handed over at once."""
_CHUNKS = 4
"""Chunks under way at once."""


class Many:
    """One call of `publish_many`."""

    def __init__(
        self,
        publisher: Publisher,
        confirmed: Callable[[Message, Event], None],
        place: Place,
        instruments: Instruments | None,
    ) -> None:
        self._publisher = publisher
        self._place = place
        self._instruments = instruments
        self._confirmed = confirmed
        self._chunk: list[tuple[int, Event, Message]] = []
        self._pending: set[asyncio.Task[None]] = set()
        self.count = 0
        self.failures: list[Failure] = []

    @property
    def full(self) -> bool:
        """Time to `hand_over`."""
        return len(self._chunk) >= _CHUNK

    def add(self, event: Event, message: Message) -> None:
        self._chunk.append((self.count, event, message))
        self.count += 1

    def refuse(self, event: Event, error: Exception) -> None:
        """This one cannot be written; the others go out."""
        self.failures.append(Failure(self.count, event, error, unknown=False))
        self.count += 1

    async def hand_over(self) -> None:
        """Send what was added; waits only while enough is under way."""
        chunk, self._chunk = self._chunk, []
        if not chunk:
            return
        await self._publisher.ensure([message for _, _, message in chunk])
        self._pending.add(asyncio.ensure_future(self._send(chunk)))
        if len(self._pending) >= _CHUNKS:
            _, self._pending = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(0)

    def give_up(self) -> None:
        """Its caller was cancelled: send no more, and wait for nothing. What is under way may or may not arrive."""
        self._chunk = []
        for task in self._pending:
            task.cancel()

    async def end(self) -> Sequence[Failure]:
        """When each is answered: those that were not confirmed, in order."""
        await self.hand_over()
        await asyncio.gather(*self._pending)
        return sorted(self.failures, key=lambda failure: failure.index)

    async def _send(self, chunk: Sequence[tuple[int, Event, Message]]) -> None:
        messages: Sequence[Message] = [message for _, _, message in chunk]
        if self._instruments is None:
            answers = await self._publisher.publish_batch(messages)
        else:

            async def publish(changed: Sequence[Message]) -> Sequence[Exception | None]:
                nonlocal messages
                messages = changed
                return await self._publisher.publish_batch(messages)

            answers = await self._instruments.send(self._place, messages, publish)
        for (index, event, _), message, error in zip(chunk, messages, answers, strict=True):
            if error is None:
                self._confirmed(message, event)
            else:
                self.failures.append(Failure(index, event, error, unknown=not permanent(error)))
