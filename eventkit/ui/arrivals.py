"""What comes to topics and inboxes, followed once for all who watch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from eventkit.adapter import Adapter, Address, Delivery, Message, Provision
from eventkit.errors import NotProvisioned
from eventkit.ui.rates import Rates, Stream

log = logging.getLogger("eventkit")

BODY = 64 * 1024
"""Bytes of a body that is kept to be shown; of a larger one only its size is."""
ROWS = 60
"""Messages that are shown of one look, at most: nobody reads more."""
_FEW = 4
"""But so many of each type, so that the rare ones are seen among many."""
_AGAIN = 2.0
"""Seconds until an address that cannot be followed is tried again."""
_TOGETHER = 100
"""Messages after which the others get their turn."""


class Arrival(NamedTuple):
    """A message that came, as far as it is kept: nothing of the client's."""

    number: int
    """In the order in which they came, from 1."""
    at: datetime
    message: Message
    """Its body is None where it was too large to be kept."""
    size: int
    """Bytes of its body."""


class Arrivals:
    """Follows addresses, and keeps what came since the last look, within bounds. Disturbs no group."""

    def __init__(self, adapter: Adapter, addresses: Sequence[Address], known: Iterable[Stream]) -> None:
        """`known`: what is counted from the start, though none of it may ever come."""
        self.rates = Rates(known)
        self.problems: dict[Address, str] = dict.fromkeys(addresses, "not followed yet")
        """Of addresses that are not followed now, and why."""
        self._adapter = adapter
        self._addresses = addresses
        self._number = 0
        self._counted = 0
        self._fresh: dict[Stream, deque[Arrival]] = {}

    async def follow(self) -> None:
        """Until cancelled; goes on by itself after whatever went wrong."""
        async with asyncio.TaskGroup() as group:
            for address in self._addresses:
                group.create_task(self._follow(address))

    def look(self) -> tuple[list[Arrival], int]:
        """What came since the last look, oldest first, and how many came besides that are not kept."""
        found = [arrival for waiting in self._fresh.values() for arrival in waiting]
        found.sort()
        counted, self._counted, self._fresh = self._counted, 0, {}
        return found, counted - len(found)

    async def _follow(self, address: Address) -> None:
        while True:
            try:
                await self._adapter.provision([address], Provision.VALIDATE)
                async with self._adapter.follow(address) as messages:
                    self.problems.pop(address, None)
                    async for delivery in messages:
                        self._take(address, delivery)
                        if self._number % _TOGETHER == 0:
                            await asyncio.sleep(0)
            except NotProvisioned:
                self.problems[address] = f"not on this {self._adapter.name} yet"
            except Exception as error:
                self.problems[address] = f"cannot be followed: {type(error).__name__}: {error}"
                log.debug("cannot follow %s", address, exc_info=True)
            await asyncio.sleep(_AGAIN)

    def _take(self, address: Address, delivery: Delivery) -> None:
        message = delivery.message
        self._number += 1
        self._counted += 1
        stream = self.rates.count(Stream(address, message.type))
        waiting = self._fresh.get(stream)
        if waiting is None:
            room = max(_FEW, ROWS // max(1, len(self.rates.streams)))
            waiting = self._fresh[stream] = deque(maxlen=room)
        size = len(message.body or b"")
        if size > BODY:
            message = message._replace(body=None)
        waiting.append(Arrival(self._number, datetime.now(UTC), message, size))


async def stopped(task: asyncio.Task[None]) -> None:
    """End it, and wait for that."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
