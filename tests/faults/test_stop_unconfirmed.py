"""A service that stops while RabbitMQ confirms nothing: what failed cannot be moved, and what it sends is not taken. It
ends in time, and once RabbitMQ takes messages again, all that was confirmed is handled, and all has gone out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from eventkit import Bus, Event, Retry, Service
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit_rabbit.adapter import RabbitAdapter
from tests.breakable import Breakable
from tests.faults.refusing import REFUSING, rabbitmqctl
from tests.wanted import wanted

COUNT = 40
STOP = timedelta(seconds=2)
BOUND = STOP.total_seconds() + 3.0
"""Seconds for the stop of a service: the adapter has a while of its own to leave."""
CLOSE = 8.0
"""Seconds for the close of a bus."""
BACK = 30.0
"""Seconds until all has gone out, once RabbitMQ takes messages again."""
_SETTINGS = {"publish_timeout": "PT20S", "heartbeat": "PT10S"}
"""Who waits for either of them is late."""


class Asked(Event, topic="asked"):
    number: int


class Answered(Event, topic="answered"):
    number: int


@dataclass
class Work:
    """Answers what is asked; half of it fails while `failing`."""

    failing: bool = True
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    tried: Counter[int] = field(default_factory=Counter)
    answered: set[int] = field(default_factory=set)
    """What has gone out, and was read."""

    def answers(self) -> Service:
        retry = Retry(attempts=50, first_delay=timedelta(seconds=1), factor=1, jitter=0)
        service = Service("answers", stop_timeout=STOP, retry=retry, concurrency=COUNT)

        @service.handler
        async def answer(event: Asked) -> Answered:
            self.tried[event.number] += 1
            await self.go_on.wait()
            if self.failing and event.number % 2:
                raise RuntimeError("again")
            return Answered(number=event.number)

        return service

    def reads(self) -> Service:
        service = Service("reads", stop_timeout=STOP)

        @service.handler
        async def read(event: Answered) -> None:
            self.answered.add(event.number)

        return service


Trouble = Callable[[Breakable, str], AbstractAsyncContextManager[None]]
"""Of that broker and namespace, to the end of the block."""


@asynccontextmanager
async def alarm(broken: Breakable, namespace: str) -> AsyncIterator[None]:
    """Low on memory: nothing that is published is read."""
    await REFUSING["rabbit"].begin(broken, namespace)
    try:
        yield
    finally:
        await REFUSING["rabbit"].end(broken, namespace)


@asynccontextmanager
async def _silent(broken: Breakable, queue: str) -> AsyncIterator[None]:
    """The leader of that queue is there, and does nothing."""
    await rabbitmqctl(broken.broker, "eval", f"sys:suspend('%2F_{queue}').")
    try:
        yield
    finally:
        await rabbitmqctl(broken.broker, "eval", f"sys:resume('%2F_{queue}').")


def silent_delay_queue(broken: Breakable, namespace: str) -> AbstractAsyncContextManager[None]:
    return _silent(broken, f"{namespace}.answers.retry:1s")


def silent_queue_of_the_group(broken: Breakable, namespace: str) -> AbstractAsyncContextManager[None]:
    return _silent(broken, f"{namespace}.answers")


@pytest.fixture
def broken(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Breakable:
    if "rabbit" not in wanted(pytestconfig):
        pytest.skip("rabbit is not asked for")
    found = request.getfixturevalue("breakable")("rabbit")
    assert isinstance(found, Breakable)
    return found


@pytest.mark.parametrize("trouble", [alarm, silent_delay_queue, silent_queue_of_the_group])
def test_a_stop_ends_in_time_and_loses_nothing(broken: Breakable, trouble: Trouble) -> None:
    asyncio.run(_stops(broken, trouble))


async def _stops(broken: Breakable, trouble: Trouble) -> None:
    namespace, work = fresh_namespace(), Work()

    def adapter() -> RabbitAdapter:
        made = broken.adapter(namespace, **_SETTINGS)
        assert isinstance(made, RabbitAdapter)
        return made

    own = adapter()
    async with Bus(own, source="test") as bus:
        async with bus.run(work.answers(), work.reads()):
            pass  # the groups exist from here on
        await own._now().topology.create_rung("answers", "1s")
        await asyncio.sleep(broken.young)
        await bus.publish_many([Asked(number=number) for number in range(COUNT)])

    bus = Bus(adapter(), source="test")
    async with bus, bus.run(work.answers()) as running:
        await eventually(lambda: len(work.tried) == COUNT, "all are tried", BACK)
        async with trouble(broken, namespace):
            work.go_on.set()
            await asyncio.sleep(0.2)  # what fails is on its way to be tried again, and what does not, to go out
            began = time.monotonic()
            await running.stop()
            stopped = time.monotonic()
            await bus.__aexit__(None, None, None)
            closed = time.monotonic()
    print(f"stopped within {stopped - began:.1f} s, closed within {closed - stopped:.1f} s")
    assert stopped - began < BOUND, f"the stop took {stopped - began:.1f} s"
    assert closed - stopped < CLOSE, f"the close took {closed - stopped:.1f} s"

    work.failing = False
    async with Bus(adapter(), source="test") as bus, bus.run(work.answers(), work.reads()):
        await eventually(lambda: len(work.answered) == COUNT, "all have gone out", BACK)
