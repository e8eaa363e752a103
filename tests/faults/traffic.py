"""One service under traffic, and what it says of each message: published, answered, read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from eventkit import Bus, Event, PublishError, Service
from eventkit.adapter import Adapter
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.running import Running

ANSWER = 20.0
"""Seconds within which each publish is answered, whatever happens to the network or the broker."""


class Beat(Event, topic="beats", key="key"):
    number: int
    key: str
    padding: str = ""


class Traffic:
    """Publishes without a pause from one bus, and reads on another."""

    def __init__(self, sender: Bus, namespace: str, padding: int = 0) -> None:
        self.sender = sender
        self.namespace = namespace
        self.padding = padding
        self.confirmed: dict[int, float] = {}
        """By number: when."""
        self.refused: dict[int, PublishError] = {}
        self.seen: dict[int, float] = {}
        """By number: when it was read for the first time."""
        self.slowest = 0.0
        self.running: Running
        self._next = 0

    async def publish(self, by: Bus | None = None) -> bool:
        """One more; was it confirmed? Only a PublishError is an answer."""
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        try:
            await (by or self.sender).publish(Beat(number=number, key=f"k{number % 7}", padding="x" * self.padding))
        except PublishError as error:
            self.refused[number] = error
        else:
            self.confirmed[number] = time.monotonic()
        self.slowest = max(self.slowest, time.monotonic() - began)
        return number in self.confirmed

    @asynccontextmanager
    async def going_on(self, pause: float = 0.01) -> AsyncIterator[None]:
        """By four at once, until the end of the block; each is answered by then."""
        stop = asyncio.Event()

        async def one() -> None:
            while not stop.is_set():
                await self.publish()
                await asyncio.sleep(pause)

        tasks = [asyncio.ensure_future(one()) for _ in range(4)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def flows(self, what: str, within: float, newest: int = 1) -> float:
        """Until something that is published from now on has been read; says after how many seconds. `newest` 0: or
        what was published last."""
        began = time.monotonic()
        first = self._next - 1 + newest
        await eventually(
            lambda: any(number >= first for number in self.seen), f"{what}: {self.running.health()}", within
        )
        return time.monotonic() - began

    async def all_read(self, within: float) -> None:
        """Nothing that was confirmed is lost."""
        await eventually(lambda: self.seen.keys() >= self.confirmed.keys(), "all that was confirmed is read", within)

    async def green(self, within: float) -> None:
        await eventually(lambda: self.running.health().ok, f"health is green: {self.running.health()}", within)


@asynccontextmanager
async def traffic(adapter: Callable[[str], Adapter], *, padding: int = 0) -> AsyncIterator[Traffic]:
    """A service that reads, and a bus that publishes; nothing is published yet."""
    namespace = fresh_namespace()
    service = Service("reader", stop_timeout=timedelta(seconds=3))
    async with Bus(adapter(namespace), source="sender") as sender, Bus(adapter(namespace), source="reader") as reader:
        found = Traffic(sender, namespace, padding)

        @service.handler
        async def beat(event: Beat) -> None:
            found.seen.setdefault(event.number, time.monotonic())

        async with reader.run(service) as running:
            found.running = running
            yield found
