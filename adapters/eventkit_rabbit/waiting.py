"""How many messages wait in the delay queues of a group, those included that other processes have made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from eventkit_rabbit.delay import RUNGS
from eventkit_rabbit.management import Management
from eventkit_rabbit.topology import Topology

log = logging.getLogger("eventkit.rabbit")

_PARALLEL = 8
_LISTED = 10.0
"""Seconds after which the management API is asked again which queues there are."""
_FIRST, _LAST = 60.0, 900.0
"""Seconds, twice as many each time, after which the queues that were not there are looked for again by their names: the
broker logs an error for each that is still not there."""


class Waiting:
    """Counts what waits. Delay queues are made when first needed, by whichever process that is."""

    def __init__(
        self, topology: Topology, management: Management | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._topology = topology
        self._management = management
        self._clock = clock
        self._there: set[str] = set()
        """Delay queues that were there when last asked for."""
        self._again: dict[str, float] = {}
        """By group: when those that were not there are looked for again,"""
        self._pause: dict[str, float] = {}
        """and how long it then is until the next time."""

    async def count(self, group: str) -> int:
        ladder = {self._topology.names.rung(group, label) for label in RUNGS}
        asked, again = ladder & (self._there | self._topology.rungs), self._again.get(group)
        now = self._clock()
        if again is None or now >= again:
            asked, again = await self._look(group, ladder, now)
        limit = asyncio.Semaphore(_PARALLEL)

        async def count(name: str) -> int:
            async with limit:
                waiting = await self._topology.ready(name)
            if waiting is None:
                self._there.discard(name)
                self._topology.rungs.discard(name)
                return 0
            self._there.add(name)
            return waiting

        total = sum(await asyncio.gather(*map(count, asked)))
        self._again[group] = again  # not before: what could not be asked is asked the next time
        return total

    async def _look(self, group: str, ladder: set[str], now: float) -> tuple[set[str], float]:
        """Those of the ladder to ask for, and when to look again."""
        if self._management is not None:
            try:
                return ladder & set(await self._management.queues()), now + _LISTED
            except ConnectionError as error:
                log.warning("delay queues that other processes make are noticed late: %s", error)
        pause = self._pause.get(group, _FIRST)
        self._pause[group] = min(pause * 2, _LAST)
        return ladder, now + pause
