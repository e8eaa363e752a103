"""Services in memory, with a virtual clock: retries and delays pass at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from eventkit.adapter import Connection
from eventkit.bus import Bus
from eventkit.clock import VirtualClock
from eventkit.memory import MemoryAdapter, Store
from eventkit.messages import Command
from eventkit.running import Running
from eventkit.service import Service
from eventkit.testing.harness import Harness
from eventkit.testing.overrides import Overrides, overridden
from eventkit.watching import Happened
from eventkit.wire import JSON_SERIALIZER, Serializer

R = TypeVar("R")


class Run(Protocol):
    """The type of `run`, and of the fixture `eventkit_run`: `async with eventkit_run(orders, shipping) as t`."""

    def __call__(
        self, *services: Service, serializer: Serializer = JSON_SERIALIZER, overrides: Overrides | None = None
    ) -> AbstractAsyncContextManager[Harness]: ...


_LONGEST = 10.0
"""Seconds of real time that a test waits for its handlers."""


class InMemory(Harness):
    """In memory: nothing is waited for but handlers that wait for something real."""

    def __init__(self, bus: Bus, running: Running, store: Store, clock: VirtualClock, happened: list[Happened]) -> None:
        super().__init__(bus, happened)
        self._running = running
        self._store = store
        self._clock = clock

    async def request(self, command: Command[R], *, timeout: timedelta = timedelta(seconds=30)) -> R:
        """As `Bus.request`; retries of the handler and the time-out pass without waiting.

        Raises AssertionError after 10 s of real time, where the handler itself waits for something.
        """
        ends = time.monotonic() + _LONGEST
        asked = asyncio.ensure_future(self._bus.request(command, timeout=timeout))
        try:
            while not asked.done():
                if not await self._quiet(asked, ends):
                    raise AssertionError(
                        f"no reply to {command!r} after {_LONGEST:g} s; what happened:\n{self.story()}"
                    )
                if not asked.done() and not self._next_timer():
                    break
            return await asked
        finally:
            asked.cancel()

    async def idle(self, timeout: timedelta = timedelta(seconds=_LONGEST)) -> None:
        """Until nothing is left to do: all handled, all retries through. Delays pass at once.

        Raises AssertionError after `timeout` of real time, saying what still runs.
        """
        ends = time.monotonic() + timeout.total_seconds()
        while True:
            if not await self._quiet(ends=ends):
                raise AssertionError(f"not idle after {timeout.total_seconds():g} s; what happened:\n{self.story()}")
            if not self._next_timer():
                return

    @property
    def now(self) -> datetime:
        return self._clock.now()

    async def _quiet(self, unless: asyncio.Future[Any] | None = None, ends: float | None = None) -> bool:
        """Let all that can run now run. False: `ends` came first."""
        calm = 0
        spins = 0
        while calm < 5:
            await asyncio.sleep(0)
            if unless is not None and unless.done():
                return True
            busy = self._running.at_work or self._waiting()
            calm = 0 if busy else calm + 1
            spins += 1
            if busy and spins > 200:  # a handler waits for something real
                await asyncio.sleep(0.001)
            if ends is not None and time.monotonic() > ends:
                return False
        return True

    def _waiting(self) -> bool:
        return any(queue.ready for queue in self._store.queues.values())

    def _next_timer(self) -> bool:
        due = self._clock.next_due()
        if due is None:
            return False
        self._clock.advance(due)
        return True


@asynccontextmanager
async def run(
    *services: Service, serializer: Serializer = JSON_SERIALIZER, overrides: Overrides | None = None
) -> AsyncIterator[Harness]:
    """Run services in memory, always: no environment is read, nothing is shared with other tests.

    `overrides={get_session: lambda: fake}` puts another dependency in the place of each `Depends(get_session)`.
    An exception that leaves it, such as a failed assertion, takes along a note of all that happened, in order.
    """
    store, clock = Store(), VirtualClock()
    happened: list[Happened] = []
    adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=store, clock=clock)
    bus = Bus(adapter, source="test", serializer=serializer, clock=clock, watch=happened.append)
    with overridden(services, overrides or {}):
        async with bus, bus.run(*services) as running:
            harness = InMemory(bus, running, store, clock, happened)
            try:
                yield harness
            except Exception as error:
                error.add_note(f"what happened, in order:\n{harness.story()}")
                raise
