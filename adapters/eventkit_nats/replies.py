"""Replies: a plain subject, heard only while somebody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count

from eventkit.adapter import Address, Delivery, Receive, Settlement
from eventkit_nats.codec import decode
from eventkit_nats.exchange import Exchange
from eventkit_nats.link import Link

log = logging.getLogger("eventkit.nats")


class ReplyConsumer:
    """Nothing is kept, so there is nothing to settle."""

    def __init__(self, link: Link, exchange: Exchange, address: Address, subject: str, receive: Receive) -> None:
        self._link = link
        self._exchange = exchange
        self._address = address
        self._subject = subject
        self._receive = receive
        self._arrived: list[Delivery] = []
        self._positions = count(1)
        self._wake = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._sid: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._on_stop: Callable[[ReplyConsumer], None] | None = None

    async def start(self, on_stop: Callable[[ReplyConsumer], None]) -> None:
        """Returns when the server knows of it."""
        self._on_stop = on_stop
        self._sid = self._link.subscribe(self._subject, self._arrive)
        self._task = asyncio.get_running_loop().create_task(self._hand_over())
        try:
            await self._exchange.fence(self._exchange.timeout)
        except BaseException:
            await self.stop(1.0)
            raise

    @property
    def error(self) -> Exception | None:
        return self._link.error

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """Nothing is kept."""

    async def flush(self, timeout: float, /) -> None:
        """Settling a reply means nothing."""

    def hold(self, at_most: int, /) -> None:
        """Replies are taken as they come."""

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def stop(self, timeout: float, /) -> None:
        if self._sid is not None:
            self._link.unsubscribe(self._sid)
            self._link.forget(self._sid)
            self._sid = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=timeout)
            self._task = None
        if self._on_stop is not None:
            self._on_stop(self)

    def _arrive(self, _subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        message = decode(self._address, headers, data)
        self._arrived.append(Delivery(message, str(next(self._positions)), None, None))
        self._wake.set()

    async def _hand_over(self) -> None:
        while True:
            await self._wake.wait()
            await self._running.wait()
            self._wake.clear()
            batch, self._arrived = self._arrived, []
            try:
                await self._receive.deliveries(batch)
            except Exception:
                log.exception("NATS: %d replies were not taken", len(batch))
