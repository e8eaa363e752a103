"""Requests: commands whose reply is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from eventkit import headers as h
from eventkit.adapter import DONE, Adapter, Address, Consumer, Delivery, Group, Message, Settlement
from eventkit.clock import Clock
from eventkit.errors import Closed, RequestTimeout
from eventkit.wire import new_id

_IN_FLIGHT = 1_000


class Waiting:
    """One request, from its call to its end."""

    def __init__(self) -> None:
        self.id = new_id()
        self.sent = False
        """Has it been handed to the broker?"""
        self.reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()


class Requests:
    """One reply address for all requests of a bus; each waits for the reply that names it."""

    def __init__(self, adapter: Adapter, source: str, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self._address = Address("reply", f"{source}.{new_id()}")
        self._group = Group(self._address.name, (self._address,))
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._consumer: Consumer | None = None
        self._starting: asyncio.Task[Consumer] | None = None

    @property
    def reply_to(self) -> str:
        return self._address.name

    @property
    def error(self) -> Exception | None:
        """Why replies are not read; None while they are, and before the first request."""
        return None if self._consumer is None else self._consumer.error

    async def start(self) -> None:
        """Read the reply address; once, at the first request. One that gives up leaves it to the others."""
        if self._consumer is not None:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._adapter.consume(self._group, self, in_flight=_IN_FLIGHT))
            self._starting.add_done_callback(_seen)
        starting = self._starting
        try:
            self._consumer = await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Closed("this bus was closed while a request was sent") from None
            raise
        finally:
            if starting.done() and self._starting is starting:
                self._starting = None  # it failed: the next request tries again

    async def stop(self, timeout: float) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Closed("this bus was closed while a reply was waited for"))
                future.exception()  # seen, also where its request is still being sent
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled() and starting.exception() is None:
                self._consumer = starting.result()
        if self._consumer is not None:
            await self._consumer.stop(timeout)
            self._consumer = None

    @asynccontextmanager
    async def waiting(self, what: str, timeout: timedelta) -> AsyncIterator[Waiting]:
        """A request, from here: all that it waits for ends with RequestTimeout when its time is up."""
        request = Waiting()
        self._waiting[request.id] = request.reply
        limit = asyncio.timeout(None)  # rung by our clock, which may be a virtual one
        timer = self._clock.call_later(timeout.total_seconds(), lambda: limit.reschedule(0.0))
        try:
            async with limit:
                yield request
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise RequestTimeout(what, timeout, sent=request.sent) from error
        finally:
            timer.cancel()
            del self._waiting[request.id]

    # eventkit.adapter.Receive

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        for delivery in batch:
            future = self._waiting.get(delivery.message.headers.get(h.CAUSATION, ""))
            if future is not None and not future.done():  # else it came too late: nobody waits for it
                future.set_result(delivery.message)
            if self._consumer is not None:
                self._consumer.settle(delivery, DONE)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        """Replies are not shared."""

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        """A reply is gone once read."""


def _seen(starting: asyncio.Task[Consumer]) -> None:
    """Its error is known, also where all that waited for it have given up."""
    if not starting.cancelled():
        starting.exception()
