"""The harness: services on a memory broker of their own, and a record of all that happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from eventkit import headers as h
from eventkit.adapter import Connection, Message
from eventkit.bus import Bus
from eventkit.clock import VirtualClock
from eventkit.copies import Reason, origin
from eventkit.memory import MemoryAdapter, Store
from eventkit.messages import Command, Event, routing
from eventkit.running import Running
from eventkit.service import Service
from eventkit.testing.overrides import Overrides, overridden
from eventkit.watching import Happened, What
from eventkit.wire import JSON_SERIALIZER, Serializer, decode

M = TypeVar("M", bound=Event | Command[Any])
R = TypeVar("R")

_LONGEST = 10.0
"""Seconds of real time that a test waits for its handlers."""
_SHOWN = {
    What.PUBLISHED: "published",
    What.SENT: "sent",
    What.HANDLED: "handled",
    What.REJECTED: "rejected",
    What.RETRIED: "failed, to be retried",
    What.FAILED: "failed for good",
    What.DEAD: "dead letter",
    What.SKIPPED: "skipped: no handler",
}


class DeadLetter:
    """A message that was given up on."""

    def __init__(self, message: Message, error: BaseException | None, attempts: int) -> None:
        self.message = message
        self.error = error
        """What was raised last."""
        self.attempts = attempts
        self.reason = Reason(message.headers[h.REASON])
        self.group = message.headers[h.GROUP]
        self.type = message.type

    def read(self, cls: type[M]) -> M:
        """Its content; UndecodableMessage where it cannot become that class."""
        return decode(self.message, cls)

    def __repr__(self) -> str:
        return f"DeadLetter({self.type}, group={self.group!r}, reason={self.reason.value!r}, attempts={self.attempts})"


class Harness:
    """What a test does with its services, and asks about them."""

    def __init__(self, bus: Bus, running: Running, store: Store, clock: VirtualClock, happened: list[Happened]) -> None:
        self._bus = bus
        self._running = running
        self._store = store
        self._clock = clock
        self._happened = happened

    async def publish(
        self, event: Event, *, headers: Mapping[str, str] | None = None, delay: timedelta | None = None
    ) -> None:
        """As `Bus.publish`."""
        await self._bus.publish(event, headers=headers, delay=delay)

    async def send(
        self, command: Command[Any], *, headers: Mapping[str, str] | None = None, delay: timedelta | None = None
    ) -> None:
        """As `Bus.send`."""
        await self._bus.send(command, headers=headers, delay=delay)

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
        """The virtual time."""
        return self._clock.now()

    def published(self, cls: type[M] | None = None) -> list[M]:
        """The events that were published, by the test and by handlers; of one class, or all."""
        return self._contents(What.PUBLISHED, cls)

    def sent(self, cls: type[M] | None = None) -> list[M]:
        """The commands that were sent."""
        return self._contents(What.SENT, cls)

    def handled(self, cls: type[M] | None = None, *, group: str | None = None) -> list[M]:
        """The messages that a handler finished with success, once a group."""
        return self._contents(What.HANDLED, cls, group)

    def retried(self, cls: type[M] | None = None) -> list[M]:
        """The messages whose attempt failed and was to be repeated, once an attempt."""
        return self._contents(What.RETRIED, cls)

    def rejected(self, cls: type[Command[Any]] | None = None) -> list[str]:
        """The reasons of rejections."""
        wanted = None if cls is None else routing(cls).type
        return [
            str(item.error)
            for item in self._happened
            if item.what is What.REJECTED and wanted in (None, item.message.type)
        ]

    def dead_letters(self, cls: type[Event | Command[Any]] | None = None) -> list[DeadLetter]:
        """The messages that were given up on."""
        wanted = None if cls is None else routing(cls).type
        return [
            DeadLetter(item.message, item.error, item.attempt)
            for item in self._happened
            if item.what is What.DEAD and wanted in (None, item.message.type)
        ]

    def story(self) -> str:
        """All that happened, a line each, in order."""
        return "\n".join(_line(place, item) for place, item in enumerate(self._happened, 1)) or "  nothing"

    def _contents(self, what: What, cls: type[M] | None, group: str | None = None) -> list[M]:
        return [
            item.content  # type: ignore[misc]  # of cls, by the filter
            for item in self._happened
            if item.what is what
            and (isinstance(item.content, Event | Command) if cls is None else isinstance(item.content, cls))
            and group in (None, item.group)
        ]

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
            harness = Harness(bus, running, store, clock, happened)
            try:
                yield harness
            except Exception as error:
                error.add_note(f"what happened, in order:\n{harness.story()}")
                raise


def _line(place: int, item: Happened) -> str:
    what = _SHOWN[item.what]
    shown = item.content if item.content is not None else _content(item.message)
    parts = [f"  {place:>3}. {item.group}: {what}: {shown!r}"]
    if item.attempt > 1 or item.what in (What.RETRIED, What.DEAD):
        parts.append(f"attempt {item.attempt}")
    if item.error is not None:
        parts.append(f"{type(item.error).__name__}: {item.error}")
    if item.delay is not None:
        parts.append(f"next in {item.delay.total_seconds():.3g} s")
    return ", ".join(parts)


def _content(message: Message) -> str:
    """A message that was not decoded, short."""
    body = (message.body or b"")[:200].decode(errors="replace")
    return f"{message.type or 'no type'} on {origin(message)} {body}"


__all__ = ["DeadLetter", "Harness", "run"]
