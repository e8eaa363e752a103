"""Now and later: the system's time, or a virtual one that tests can turn forward."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from eventkit.errors import DeclarationError

LONGEST = timedelta(hours=24)
"""The longest delay that every broker keeps."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the core and the memory adapter take the time from."""

    def now(self) -> datetime:
        """The time in UTC."""
        ...

    def call_later(self, delay: float, function: Callable[[], object], /) -> Timer:
        """Call once, `delay` seconds from now."""
        ...


class SystemClock:
    """The system's time and the running loop's timers."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def call_later(self, delay: float, function: Callable[[], object], /) -> Timer:
        return asyncio.get_running_loop().call_later(delay, function)


def check_time(what: str, value: object) -> timedelta:
    """How long. DeclarationError, which begins with `what`, for a number: it does not say of which unit."""
    if not isinstance(value, timedelta):
        raise DeclarationError(f"{what}={value!r}: it is a timedelta, such as timedelta(seconds=5)")
    return value


def check_delay(delay: timedelta | None) -> None:
    """DeclarationError for a delay that no message can have."""
    if delay is not None and not timedelta(0) <= check_time("delay", delay) <= LONGEST:
        raise DeclarationError(f"delay={delay}: it lies between zero and 24 hours")


async def sleep(clock: Clock, delay: float) -> None:
    """Wait `delay` seconds of this clock's time."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def ring() -> None:
        if not done.done():
            done.set_result(None)

    timer = clock.call_later(delay, ring)
    try:
        await done
    finally:
        timer.cancel()


class _Timer:
    __slots__ = ("cancelled", "function")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """A time that stands still until `advance` is called: a day of retries passes in a moment."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime.now(UTC)
        self._count = itertools.count()
        self._timers: list[tuple[datetime, int, _Timer]] = []

    def now(self) -> datetime:
        return self._now

    def call_later(self, delay: float, function: Callable[[], object], /) -> Timer:
        timer = _Timer(function)
        due = self._now + timedelta(seconds=max(0.0, delay))
        heapq.heappush(self._timers, (due, next(self._count), timer))
        return timer

    def next_due(self) -> datetime | None:
        """When the next timer rings; None: there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, to: datetime) -> None:
        """Turn the time forward and ring each timer on the way, in order."""
        while (due := self.next_due()) is not None and due <= to:
            self._now = max(self._now, due)
            heapq.heappop(self._timers)[2].function()
        self._now = max(self._now, to)
