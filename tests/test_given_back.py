"""What a stop gives back, where one replica reads: in which order it comes again, and how often it was delivered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from eventkit import Context, Event, Retry, Service
from eventkit.contract import Backend
from eventkit.contract.checks import bus, eventually, fresh_namespace
from tests.wanted import wanted

KEYS = 3
HELD = 1_000
"""Messages that a service holds at once."""


class Step(Event, topic="steps", key="key"):
    key: str
    number: int


@pytest.fixture
def on(pytestconfig: pytest.Config, backend: Callable[[str], Backend]) -> Callable[[str], Backend]:
    def give(name: str) -> Backend:
        if name not in wanted(pytestconfig):
            pytest.skip(f"{name} is not asked for")
        return backend(name)

    return give


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


# not RabbitMQ, which does not put what was given back into its place
@pytest.mark.parametrize("count", [300, 2 * HELD], ids=["all in hand", "more than is held"])
@pytest.mark.parametrize("name", ["memory", "redis", "nats", "kafka"])
def test_a_key_keeps_its_order_over_a_stop(name: str, count: int, on: Callable[[str], Backend]) -> None:
    async def main() -> None:
        seen: list[Step] = []
        service = Service("stepping", concurrency=2 * KEYS)  # of which half are idle: as much is held as may be

        @service.handler
        async def step(event: Step) -> None:
            await asyncio.sleep(0.002)
            seen.append(event)

        steps = [Step(key=f"k{number % KEYS}", number=number) for number in range(count)]
        async with bus(on(name), fresh_namespace()) as b:
            async with b.run(service) as running:
                await b.publish_many(steps)
                await eventually(lambda: len(seen) > 50, "some are handled")
                await eventually(lambda: running.at_work > min(count, HELD) / 2, "much is held")
            assert len(seen) < min(count, HELD)
            async with b.run(service):
                await b.publish_many(later := [Step(key=f"k{n % KEYS}", number=count + n) for n in range(10 * KEYS)])
                await eventually(lambda: len(seen) >= len(steps) + len(later), "all are handled", 30.0)
        for key in range(KEYS):
            assert [one for one in seen if one.key == f"k{key}"] == [*steps[key::KEYS], *later[key::KEYS]]

    run(main())


@pytest.mark.parametrize("name", ["memory", "redis", "nats", "rabbit", "kafka"])
def test_what_waits_during_a_slow_stop_was_delivered_once(name: str, on: Callable[[str], Backend]) -> None:
    async def main() -> None:
        counts: list[int | None] = []
        begun = asyncio.Event()
        service = Service("stepping", concurrency=1, stop_timeout=timedelta(seconds=10))
        slow = True

        @service.handler
        async def step(event: Step, context: Context) -> None:
            nonlocal slow
            begun.set()
            if slow:
                slow = False
                await asyncio.sleep(2)
            counts.append(context.delivery.deliveries)

        async with bus(on(name), fresh_namespace()) as b:
            async with b.run(service):
                await b.publish_many([Step(key=f"k{number}", number=number) for number in range(200)])
                await begun.wait()
                await asyncio.sleep(0.3)  # until they are here
            assert counts == [1]
            async with b.run(service):
                await eventually(lambda: len(counts) >= 200, "all are handled", 30.0)
        assert max(count or 0 for count in counts) <= 2, counts

    run(main())


@pytest.mark.parametrize("name", ["redis", "nats", "rabbit"])
def test_one_stop_makes_no_suspects(name: str, on: Callable[[str], Backend], caplog: pytest.LogCaptureFixture) -> None:
    """What is given back does not come to the replica that stops once more, however much room it has."""
    caplog.set_level(logging.DEBUG, "eventkit")

    async def main() -> None:
        seen: list[Step] = []
        service = Service("stepping", concurrency=2 * KEYS)

        @service.handler
        async def step(event: Step) -> None:
            await asyncio.sleep(0.002)
            seen.append(event)

        async with bus(on(name), fresh_namespace()) as b:
            async with b.run(service) as running:
                await b.publish_many([Step(key=f"k{number % KEYS}", number=number) for number in range(300)])
                await eventually(lambda: len(seen) > 50 and running.at_work > 150, "much is held")
            async with b.run(service):
                await eventually(lambda: len(seen) >= 300, "all are handled", 30.0)

    run(main())
    assert not [record for record in caplog.records if "in case it killed its process" in record.getMessage()]


@pytest.mark.parametrize("name", ["memory", "redis", "nats", "kafka"])
def test_a_stop_does_not_wait_for_an_attempt_that_is_due_after_its_end(name: str, on: Callable[[str], Backend]) -> None:
    async def main() -> None:
        began, go_on = asyncio.Event(), asyncio.Event()
        seen: list[int] = []
        retry = Retry(attempts=3, first_delay=timedelta(seconds=25), factor=1, in_order=True)
        service = Service("stepping", retry=retry, stop_timeout=timedelta(seconds=20))

        @service.handler
        async def step(event: Step) -> None:
            began.set()
            await go_on.wait()
            if not seen and not stopped.is_set():
                raise RuntimeError("not now")
            seen.append(event.number)

        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        async with bus(on(name), fresh_namespace()) as b:
            async with b.run(service) as running:
                await b.publish_many([Step(key="k", number=number) for number in range(3)])
                await began.wait()
                await eventually(lambda: running.at_work == 3, "the others are behind it")
                loop.call_later(0.3, go_on.set)
                stops = loop.time()
            assert loop.time() - stops < 10
            stopped.set()
            async with b.run(service):
                await eventually(lambda: len(seen) == 3, "they come again", 30.0)
        # on NATS what is given back first comes first
        assert (sorted(seen) if name == "nats" else seen) == [0, 1, 2]

    run(main())
