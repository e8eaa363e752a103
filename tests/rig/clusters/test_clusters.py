"""Clusters of which the leader is killed: publishing goes on, consumers resume, nothing that was acknowledged is lost.

Minutes long, so only asked for: EVENTKIT_TEST_CLUSTERS=1, or `nox -s "crash(cluster)"`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from eventkit import Bus, Context, Event, NotReplicated, PublishError, Retry, Service
from eventkit.contract.checks import fresh_namespace
from eventkit.running import Running
from tests.rig.clusters import CLUSTERS, Cluster, cluster
from tests.rig.clusters.redis import Redis
from tests.rig.work import SERVICE, TOPIC

SERVERS = ("redis", "nats", "rabbit", "kafka")

pytestmark = pytest.mark.skipif(
    not os.environ.get("EVENTKIT_TEST_CLUSTERS"), reason="three servers a broker, for minutes: EVENTKIT_TEST_CLUSTERS=1"
)


BULK = "x" * 100_000
"""Of three hundred such messages, some are still with the primary when the network's buffers are full."""


RETRIED = 10
"""One message of so many fails at first, and waits on the broker: that goes on, too."""


class Seen(Event, topic=TOPIC, key="number"):
    number: int
    rest: str = ""


class Load:
    """A service that counts, and a publisher that never stops."""

    def __init__(self, found: Cluster) -> None:
        self._found = found
        self.acknowledged: set[int] = set()
        self.refused: list[PublishError] = []
        self.handled: set[int] = set()
        self.greens: list[tuple[float, bool]] = []
        """When health changed, and to what."""
        self._stop = False
        self.running: Running

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        service = Service(SERVICE, retry=Retry(first_delay=timedelta(seconds=0.3)))

        @service.handler
        async def seen(event: Seen, context: Context) -> None:
            if event.number % RETRIED == 0 and context.attempt == 1:
                raise RuntimeError("in a while")
            self.handled.add(event.number)

        namespace = fresh_namespace()
        self._found.environment(namespace)
        async with Bus(self._found.adapter(namespace), source="test") as bus, bus.run(service) as self.running:
            tasks = [asyncio.create_task(self._publish(bus, place)) for place in range(4)]
            watching = asyncio.create_task(self._watch())
            await self.goes_on()
            await asyncio.sleep(self._found.young)  # a queue of RabbitMQ's that is younger does not survive a kill
            yield
            self._stop = True
            await asyncio.gather(*tasks)
            await until(lambda: self.acknowledged <= self.handled, 60, "what was acknowledged was not handled")
            watching.cancel()

    async def goes_on(self) -> None:
        """Something new is acknowledged, and handled; health is green."""
        acknowledged, handled, refused = len(self.acknowledged), len(self.handled), len(self.refused)
        await until(
            lambda: len(self.acknowledged) > acknowledged and len(self.handled) > handled and self.green,
            60,
            lambda: (
                f"{len(self.acknowledged) - acknowledged} acknowledged, {len(self.handled) - handled} handled, "
                f"{self.running.health()}; refused: {len(self.refused) - refused}, {self.refused[-1:]}"
            ),
        )

    @property
    def green(self) -> bool:
        return self.running.health().ok

    async def _publish(self, bus: Bus, place: int) -> None:
        for number in range(place, 1_000_000, 4):
            if self._stop:
                return
            for _ in range(20):
                try:
                    await bus.publish(Seen(number=number), id=f"{number}")
                except PublishError as error:
                    self.refused.append(error)
                    await asyncio.sleep(0.2)
                else:
                    self.acknowledged.add(number)
                    break
            await asyncio.sleep(0.02)

    async def _watch(self) -> None:
        while True:
            if not self.greens or self.greens[-1][1] != self.green:
                self.greens.append((time.monotonic(), self.green))
            await asyncio.sleep(0.02)


async def until(true: Callable[[], bool], seconds: float, late: str | Callable[[], str]) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"after {seconds:g} s: {late if isinstance(late, str) else late()}"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module", params=SERVERS)
def found(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster(request.param, print) as made:
        yield made


def test_publishing_and_consuming_go_on_when_the_leader_dies(found: Cluster) -> None:
    async def check() -> None:
        load = Load(found)
        async with load.flowing():
            await asyncio.to_thread(found.kill)
            await load.goes_on()
            await asyncio.to_thread(found.start)
            await load.goes_on()
        assert load.acknowledged <= load.handled

    asyncio.run(check())


def test_without_a_majority_nothing_is_acknowledged_and_health_says_so(found: Cluster) -> None:
    async def check() -> None:
        load = Load(found)
        async with load.flowing():
            await asyncio.to_thread(found.kill_most)
            await until(lambda: not load.green, 40, "health stays green")
            before = len(load.refused)
            await until(lambda: len(load.refused) > before, 40, "nothing is refused")
            await asyncio.to_thread(found.start)
            await load.goes_on()
        assert load.acknowledged <= load.handled

    asyncio.run(check())


@pytest.mark.parametrize(("name", "loses"), [("redis-asynchronous", True), ("redis", False)])
def test_what_a_failover_of_redis_loses(name: str, loses: bool) -> None:
    """The replicas stand still for a moment, as behind a slow network, and the primary dies before they go on."""

    async def check(found: Redis) -> None:
        namespace = fresh_namespace()
        found.environment(namespace)
        acknowledged: set[int] = set()
        refused: list[PublishError] = []
        async with Bus(found.adapter(namespace), source="test") as bus:

            async def publish(number: int, rest: str = "") -> None:
                try:
                    await bus.publish(Seen(number=number, rest=rest))
                except PublishError as error:
                    refused.append(error)
                else:
                    acknowledged.add(number)

            service = Service(SERVICE)
            handled: set[int] = set()

            @service.handler
            async def seen(event: Seen) -> None:
                handled.add(event.number)

            async with bus.run(service):
                pass  # its group is there: what is published from now on waits for it
            await asyncio.gather(*(publish(number) for number in range(100)))
            assert len(acknowledged) == 100
            with found.standing_still(found.replicas):
                await asyncio.gather(*(publish(number, BULK) for number in range(100, 400)))
                found.servers[found.leader()].kill()
            await asyncio.to_thread(found.led_again)
            await asyncio.to_thread(found.start)
            while 400 not in acknowledged:
                await publish(400)
            async with bus.run(service):
                await until(lambda: 400 in handled, 60, "nothing arrives")
                await asyncio.sleep(1)
        lost = acknowledged - handled
        print(f"{name}: {len(acknowledged)} acknowledged, {len(refused)} refused, {len(lost)} lost")
        assert not lost & set(range(100)), "what the replicas had is lost"
        if loses:
            assert lost
        else:
            assert not lost
            assert any(isinstance(error, NotReplicated) for error in refused)

    with cluster(name, print) as found:
        assert isinstance(found, Redis)
        asyncio.run(check(found))


def test_every_broker_has_one() -> None:
    assert set(SERVERS) <= set(CLUSTERS)
