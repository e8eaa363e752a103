"""One look through one queue."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from struct import Struct

from aiormq.abc import AbstractChannel

from eventkit.errors import NotProvisioned
from eventkit_rabbit import frames, write
from eventkit_rabbit.wire import Wire, unused

_PAGE = 2000
"""Messages that one consumer takes: more than RabbitMQ gives to one of a quorum queue."""
_WAIT = 10.0
"""Seconds to wait for the broker's answer."""
_IDLE = 0.03
"""Seconds without a message after which the end is looked for,"""
_LATE = 1.0
"""and where the queue promised more than came."""
_tag = Struct(">Q").unpack_from


class Visit:
    """One look through one queue. An owner of `Frames`.

    A consumer that settles nothing gets a page and no more; the next page is another's. What consumers hold goes back
    in order when the channel is closed; what many gets hold, or many nacks give back, does not. That nothing is left,
    an empty answer to one basic.get says, though it may overtake the last deliveries.
    """

    def __init__(self, wire: Wire, queue: str, expected: int) -> None:
        self.wire = wire
        self.queue = queue
        self.channel: AbstractChannel
        self.error: Exception | None = None
        self.seen = 0
        self.removed: set[int] = set()
        self._expected = expected
        self._got: deque[tuple[int, bytes, bytes]] = deque()
        self._pages = 0
        self._empty = False
        self._some = asyncio.Event()

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes, /) -> None:
        at = 1 + arguments[0] if method == frames.DELIVER else 0
        self.seen += 1
        self._got.append((_tag(arguments, at)[0], header, body))
        self._some.set()

    def empty(self) -> None:
        self._empty = True
        self._some.set()

    def confirmed(self, tag: int, multiple: bool, accepted: bool, /) -> None: ...

    def cancelled(self) -> None:
        self.closed(NotProvisioned(f"the queue {self.queue} was deleted"))

    def closed(self, error: Exception, /) -> None:
        self.error = self.error or error
        self._some.set()

    async def next(self) -> tuple[int, bytes, bytes] | None:
        """The next message as tag, header and body; None at the end."""
        while not self._got:
            if self.error is not None:
                raise self.error
            if self.seen >= self._pages * _PAGE:
                await self._turn_page()
            elif not await self._arrives(_IDLE) and await self._is_end():
                return None
        return self._got.popleft()

    async def _turn_page(self) -> None:
        self._pages += 1
        async with asyncio.timeout(_WAIT):
            if self._pages == 1:
                await self.channel.basic_qos(prefetch_count=_PAGE)
            await self.channel.basic_consume(self.queue, unused, consumer_tag=_page(self._pages))

    async def _is_end(self) -> bool:
        """Nothing is left in the queue, and nothing is on its way."""
        self._empty = False
        seen = self.seen
        self.wire.write(write.get(self.channel.number, self.queue))
        if not await self._arrives(_WAIT):
            raise TimeoutError(f"RabbitMQ does not answer for {self.queue}")
        if not self._empty or self.error is not None:
            return False
        await self._arrives(_IDLE if seen >= self._expected else _LATE)
        return self.seen == seen

    async def _arrives(self, timeout: float) -> bool:
        """Something does, in so many seconds."""
        self._some.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._some.wait()
        except TimeoutError:
            return False
        return True

    def remove(self, tag: int) -> None:
        """Raises what has ended the visit, if anything has: it is back then, or on its way."""
        if self.error is not None:  # what is written on a channel that is no more ends the whole connection
            raise self.error
        if tag not in self.removed:
            self.removed.add(tag)
            self.wire.write(write.ack(self.channel.number, tag, multiple=False))

    async def leave(self) -> None:
        """End the consumers, then the channel: what was removed stays removed (see `RabbitConsumer`)."""
        with suppress(Exception):
            async with asyncio.timeout(_WAIT):
                for page in range(1, self._pages + 1):
                    await self.channel.basic_cancel(_page(page))
        await self.wire.close_channel(self.channel)


def _page(number: int) -> str:
    """A consumer's tag. The broker gives back consumer by consumer, in the order of their tags."""
    return f"page-{number:05}"
