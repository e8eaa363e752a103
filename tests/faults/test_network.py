"""The network between us and the broker: cut, silent, half-open. Nothing is lost, each publish is answered in time, and
no process looks alive that reads nothing.

All brokers at the same time, since most of it is waiting: each test takes what its broker's run has found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from eventkit import Bus, PublishError, Retry, Service
from eventkit.adapter import Adapter
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.errors import BrokerUnavailable, Closed
from tests.backends import ALL
from tests.breakable import Breakable
from tests.faults.traffic import ANSWER, Beat, traffic
from tests.wanted import wanted

START = 12.0
"""Seconds within which a bus says that a broker at its address does not answer."""
NOTICED = 45.0
"""Seconds within which all reads again after its connections have become half-open, at the default settings (but
for RabbitMQ's heartbeat of 5 s instead of 10, and leases of 10 s instead of 30)."""
BACK = 15.0
"""Seconds within which all goes on once the network does."""
STOP = 15.0
"""Seconds within which a bus and its service end, with a stop time-out of 3 s, while the broker is silent."""
_TWICE = Retry(attempts=2, first_delay=timedelta(milliseconds=200), jitter=0)
_DEFAULTS = {
    "redis": {"lease": "PT10S"},
    "nats": {"lease": "PT10S"},
    "rabbit": {"heartbeat": "PT5S"},
    "kafka": {"session_timeout": "PT10S", "rebalance_timeout": "PT30S"},
}


@dataclass
class Found:
    """What one run has seen, in seconds."""

    times: dict[str, float] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)


Play = Callable[[Breakable], Coroutine[Any, Any, float]]
SCENES: dict[str, Play] = {}


def scene(function: Play) -> Play:
    SCENES[function.__name__] = function
    return function


def _adapter(broken: Breakable) -> Callable[[str], Adapter]:
    return lambda namespace: broken.adapter(namespace, **_DEFAULTS[broken.name])


@scene
async def cut(broken: Breakable) -> float:
    """All connections are reset and new ones too, for four seconds."""
    async with traffic(_adapter(broken)) as found:
        async with found.going_on():
            await found.flows("it flows", BACK)
            broken.proxy.refuse()
            await eventually(lambda: not found.running.health().ok, "health is red", 10.0)
            await asyncio.sleep(4.0)
            broken.proxy.mend()
            took = await found.flows("it flows again", BACK)
        await found.all_read(BACK)
        await found.green(BACK)
        assert found.slowest < ANSWER, f"a publish was answered after {found.slowest:.1f} s"
    return took


@scene
async def silent(broken: Breakable) -> float:
    """Nothing passes any more, nothing is closed; after a while all goes on. Nobody can connect meanwhile."""
    async with traffic(_adapter(broken)) as found:
        async with found.going_on():
            await found.flows("it flows", BACK)
            broken.proxy.stall()
            began = time.monotonic()
            late = Bus(broken.adapter(fresh_namespace()), source="late")
            try:
                async with late:
                    raise AssertionError("a bus is open to a broker that says nothing")
            except BrokerUnavailable as error:
                assert broken.name in str(error)  # noqa: PT017
            assert time.monotonic() - began < START, f"that was said after {time.monotonic() - began:.1f} s"
            broken.proxy.mend()
            took = await found.flows("it flows again", BACK)
        await found.all_read(BACK)
        await found.green(BACK)
        assert found.slowest < ANSWER, f"a publish was answered after {found.slowest:.1f} s"
    return took


@scene
async def half_open(broken: Breakable) -> float:
    """The connections lead nowhere, and neither end is told: as behind a router that was restarted. One service is
    busy; the other is idle, so that no question of its own goes unanswered."""
    async with traffic(_adapter(broken)) as busy, traffic(_adapter(broken)) as idle:
        await idle.publish()
        await idle.all_read(BACK)
        async with busy.going_on():
            await busy.flows("it flows", BACK)
            broken.proxy.forget()
            async with Bus(_adapter(broken)(idle.namespace), source="other") as other:
                assert await idle.publish(other)
                times = await asyncio.gather(busy.flows("it flows again", NOTICED), idle.flows("it reads", NOTICED, 0))
        for found in (busy, idle):
            await found.all_read(NOTICED)
            await found.green(BACK)
        assert busy.slowest < ANSWER, f"a publish was answered after {busy.slowest:.1f} s"
    return max(times)


@scene
async def stop_while_silent(broken: Breakable) -> float:
    """A stop ends in time, whatever the broker does not say."""
    async with traffic(_adapter(broken)) as found:
        async with found.going_on():
            await found.flows("it flows", BACK)
        broken.proxy.stall()
        began = time.monotonic()
    took = time.monotonic() - began
    broken.proxy.mend()
    broken.proxy.cut()
    assert took < STOP, f"the stop took {took:.1f} s"
    return took


_STOPS = 5
"""Services that are stopped one shortly after the other, so that what goes wrong finds each at another moment."""


async def _stops(broken: Breakable, goes_wrong: Callable[[], None]) -> float:
    """While retries and dead letters are on their way and large messages are published, all that there is ends."""
    async with AsyncExitStack() as stack:
        every = [await stack.enter_async_context(_Stopping.open(_adapter(broken))) for _ in range(_STOPS)]
        await eventually(lambda: all(one.failed > 20 for one in every), "each handles", BACK)
        stops = [asyncio.ensure_future(one.stop(place * 0.02)) for place, one in enumerate(every)]
        await asyncio.sleep(_STOPS * 0.02 / 2)
        goes_wrong()
        times = await asyncio.gather(*stops)
        assert max(times) < STOP, f"a stop took {max(times):.1f} s: {times}"
    return max(times)


@scene
async def stop_at_each_moment_of_a_silence(broken: Breakable) -> float:
    try:
        return await _stops(broken, broken.proxy.stall)
    finally:
        broken.proxy.mend()
        broken.proxy.cut()


@scene
async def stop_at_each_moment_of_a_cut(broken: Breakable) -> float:
    try:
        return await _stops(broken, broken.proxy.refuse)
    finally:
        broken.proxy.mend()


class _Stopping:
    """A service under load that is to be stopped; it publishes, too, much at once."""

    def __init__(self) -> None:
        self.failed = 0
        self._stack = AsyncExitStack()
        self._publishing: list[asyncio.Task[None]] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, adapter: Callable[[str], Adapter]) -> AsyncIterator[_Stopping]:
        self = cls()
        service = Service("stops", stop_timeout=timedelta(seconds=3), retry=_TWICE)

        @service.handler
        async def beat(event: Beat) -> None:
            self.failed += 1
            await asyncio.sleep(0.002 * (event.number % 5))
            if event.number % 3:
                raise RuntimeError("again")

        bus = await self._stack.enter_async_context(Bus(adapter(fresh_namespace()), source="stops"))
        await self._stack.enter_async_context(bus.run(service))
        self._publishing = [asyncio.ensure_future(self._publish(bus, place)) for place in range(4)]
        try:
            yield self
        finally:
            for task in self._publishing:
                task.cancel()
            await asyncio.wait(self._publishing)
            await self._stack.aclose()

    async def _publish(self, bus: Bus, place: int) -> None:
        number = place
        while True:
            number += 4
            with suppress(PublishError, Closed):
                padding = "x" * (100_000 if number % 5 == 0 else 0)
                await bus.publish(Beat(number=number, key=f"k{number % 7}", padding=padding))
            await asyncio.sleep(0.005)

    async def stop(self, after: float) -> float:
        """How long that took."""
        await asyncio.sleep(after)
        began = time.monotonic()
        await self._stack.aclose()
        return time.monotonic() - began


def _run(broken: Callable[[], Breakable]) -> Found:
    found = Found()
    for name, play in SCENES.items():
        proxy = broken().proxy

        async def bounded(play: Play = play) -> float:
            async with asyncio.timeout(90):
                return await play(broken())

        try:
            found.times[name] = asyncio.run(bounded())
        except BaseException as error:  # noqa: BLE001 told by the test of this scene
            found.failures[name] = error
        proxy.mend()
        proxy.cut()
    return found


@pytest.fixture(scope="module")
def runs(pytestconfig: pytest.Config, breakable: Callable[[str], Breakable]) -> Callable[[str], Found]:
    names = [name for name in wanted(pytestconfig) if name != "memory"]
    pool = ThreadPoolExecutor(max_workers=max(len(names), 1), thread_name_prefix="network")
    futures: dict[str, Future[Found]] = {name: pool.submit(_run, lambda name=name: breakable(name)) for name in names}  # type: ignore[misc]
    pool.shutdown(wait=False)
    return lambda name: futures[name].result() if name in futures else pytest.skip(f"{name} is not asked for")


@pytest.mark.parametrize("name", [name for name in ALL if name != "memory"])
@pytest.mark.parametrize("play", SCENES)
def test_network(
    runs: Callable[[str], Found], name: str, play: str, record_property: Callable[[str, object], None]
) -> None:
    found = runs(name)
    if play in found.failures:
        raise found.failures[play]
    record_property("seconds", found.times[play])
    print(f"{name} {play}: {found.times[play]:.1f} s")
