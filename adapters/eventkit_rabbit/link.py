"""Connections that come back by themselves."""

from __future__ import annotations

import asyncio
import logging
import random

from eventkit.cancelling import unbroken
from eventkit.errors import Closed
from eventkit_rabbit.target import Target
from eventkit_rabbit.wire import Wire

log = logging.getLogger("eventkit.rabbit")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to come back."""


class Link:
    """A connection that comes back by itself: one WARNING when it breaks, one INFO when it is back."""

    def __init__(self, to: Target, purpose: str) -> None:
        self._to = to
        self._purpose = purpose
        self._wire: Wire | None = None
        self._up = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self._failed: Exception | None = None
        """What came of the last attempt to come back."""

    async def open(self) -> Wire:
        """Connect for the first time; the client's own error if that fails."""
        if self._closed:
            raise Closed("the connection to RabbitMQ was closed")
        wire = self._wire = await Wire.open(self._to, self._purpose)
        self._up.set()
        self._watch = asyncio.create_task(self._keep(wire), name=f"eventkit rabbit {self._purpose}")
        return wire

    @property
    def opened(self) -> bool:
        return self._wire is not None

    def now(self) -> Wire | None:
        """The connection, if there is one at this moment."""
        wire = self._wire
        return wire if wire is not None and not wire.lost.done() else None

    @property
    def error(self) -> Exception | None:
        """Why it is down; None while it is up, and before it was opened."""
        if self.now() is not None or self._wire is None:
            return None
        return self._failed or self._wire.lost.result()

    async def wire(self) -> Wire:
        """The connection, as soon as there is one. Bounded only by the caller."""
        while True:
            if self._closed:
                raise Closed("the connection to RabbitMQ was closed")
            wire = self.now()
            if wire is not None:
                return wire
            self._up.clear()
            await self._up.wait()

    async def _keep(self, wire: Wire) -> None:
        while True:
            reason = await asyncio.shield(wire.lost)
            log.warning("connection to RabbitMQ at %s (%s) broke: %s; trying again", self._to, self._purpose, reason)
            wire = self._wire = await self._again()
            self._failed = None
            self._up.set()
            log.info("connection to RabbitMQ at %s (%s) is back", self._to, self._purpose)

    async def _again(self) -> Wire:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (so that not all come at once)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                return await unbroken(Wire.open(self._to, self._purpose))
            except Exception as error:  # noqa: BLE001 (whatever it is, the broker may take us the next time)
                self._failed = error
                log.debug("still no connection to RabbitMQ at %s: %r", self._to, error)

    async def close(self, timeout: float) -> None:
        self._closed = True
        self._up.set()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch], timeout=timeout)
        if self._wire is not None:
            await self._wire.close(timeout)
