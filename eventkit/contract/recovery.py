"""L3, L4, L7: what comes back after a broker was away, a channel was gone, or everything was stopped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from eventkit.adapter import DONE, Adapter, Address, Group, Provision
from eventkit.bus import Bus
from eventkit.contract.checks import Backend, breakable, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import contents, following, put, raw, receive
from eventkit.errors import PublishError
from eventkit.messages import Command, Event
from eventkit.running import Running
from eventkit.service import Service

ANSWER = 20.0
"""Seconds within which a publish is answered, whatever the broker does."""
BACK = 20.0
"""Seconds within which all goes on by itself once the broker is there, or the way to it."""
RED = 20.0
"""Seconds within which health says that nothing is read."""


class Beat(Event, topic="beats", key="key"):
    number: int
    key: str


class Echo(Command[int], service="worker"):
    number: int


class _Publishing:
    """Publishes without a pause, and keeps what each publish was answered."""

    def __init__(self, bus: Bus) -> None:
        self.confirmed: set[int] = set()
        self.refused: list[PublishError] = []
        self.slowest = 0.0
        self._bus = bus
        self._next = 0

    async def one(self) -> bool:
        number, self._next = self._next, self._next + 1
        began = time.monotonic()
        try:
            await self._bus.publish(Beat(number=number, key=f"k{number % 5}"))
        except PublishError as error:
            self.refused.append(error)
        else:
            self.confirmed.add(number)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return number in self.confirmed

    async def _forever(self) -> None:
        while True:
            await self.one()
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """By four at once. What they raise besides PublishError is raised here."""
        tasks = [asyncio.ensure_future(self._forever()) for _ in range(4)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError) and isinstance(ended, BaseException):
                    raise ended
            for error in self.refused:
                (failure,) = error.failures
                assert failure.unknown, f"it may be there: {error}"

    async def more(self, count: int, what: str) -> None:
        wanted = len(self.confirmed) + count
        await eventually(lambda: len(self.confirmed) >= wanted, what, BACK)


def _worker(seen: Counter[int]) -> Service:
    service = Service("worker")

    @service.handler
    async def beat(event: Beat) -> None:
        seen[event.number] += 1

    @service.handler
    async def echo(command: Echo) -> int:
        return command.number

    return service


@check("L3", "after a restart of the broker, or a cut, all goes on by itself: each publish answered, nothing lost")
async def broker_restarts(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    seen: Counter[int] = Counter()
    async with (
        bus(faults, namespace) as sender,
        bus(faults, namespace) as consumer,
        consumer.run(_worker(seen)) as running,
        following(sender.adapter, _BEATS) as followed,
    ):
        await _leave_behind(sender.adapter)
        publishing = _Publishing(sender)
        async with publishing.going_on():
            await publishing.more(50, "publishes are confirmed")
            assert await sender.request(Echo(number=1)) == 1
            await asyncio.to_thread(faults.restart)
            await publishing.more(50, "publishes are confirmed after the restart")
            await eventually(lambda: seen.keys() >= publishing.confirmed, "all that was confirmed arrives", BACK)
            await asyncio.to_thread(faults.cut)
            await publishing.more(50, "publishes are confirmed after the cut")
        await eventually(
            lambda: seen.keys() >= publishing.confirmed,
            f"all that was confirmed arrives, but not {sorted(publishing.confirmed - seen.keys())[:9]}",
            BACK,
        )
        assert publishing.slowest < ANSWER, f"a publish was answered after {publishing.slowest:.1f} s"
        await eventually(lambda: running.health().ok, f"health is green again: {running.health().errors}", BACK)
        assert await sender.request(Echo(number=2)) == 2, "requests go on, too"
        last, ends = len(followed), time.monotonic() + BACK
        while len(followed) == last:  # who follows misses what is published until he is back
            assert time.monotonic() < ends, "who follows sees nothing any more"
            await publishing.one()
            await asyncio.sleep(0.1)
        await eventually(lambda: seen.keys() >= publishing.confirmed, "all that was confirmed arrives", BACK)
        before = seen.total()
        await publishing.one()
        await eventually(lambda: seen.total() > before, "the next one arrives, too", BACK)
        await stays(lambda: seen.total() == before + 1, "something comes again and again", 0.3)
        await _find_again(sender.adapter)


_BEATS = Address("topic", "beats")
_ABSENT = Group("absent", (_BEATS,))
"""Nobody reads it until all is over."""


async def _leave_behind(adapter: Adapter) -> None:
    """An event that nobody reads yet, one that waits to be tried again, and a dead letter."""
    await adapter.provision([_ABSENT], Provision.CREATE)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    kept = (raw(_BEATS, b"event", "k"), raw(_ABSENT.retry, b"retry", "k", due=soon), raw(_ABSENT.dead, b"dead", "k"))
    await put(adapter, *kept)


async def _find_again(adapter: Adapter) -> None:
    """All of it outlived the restart."""
    assert [letter.message.body for letter in await contents(adapter, _ABSENT.dead)] == [b"dead"]
    receiving = await receive(adapter, _ABSENT, in_flight=10_000, settle_with=DONE)
    await eventually(lambda: {b"event", b"retry"} <= set(receiving.bodies), "what nobody had read", BACK)
    await receiving.consumer.stop(5.0)


@check("L4", "health is red while nothing is read, and says which group and why; it is green only when it reads")
async def health_is_true(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    seen: Counter[int] = Counter()
    service = _worker(seen)
    (group, _) = service.groups()["worker"]
    aside = faults.adapter(namespace)
    async with bus(faults, namespace) as sender, bus(faults, namespace) as consumer, consumer.run(service) as running:
        await aside.start(15.0)
        publishing = _Publishing(sender)
        await publishing.one()
        await eventually(lambda: seen, "it reads")
        # for so long that no broker may have forgotten a queue it has just made: RabbitMQ does, in its first second
        await stays(lambda: running.health().ok, "health is red while all is well", 2.0)
        await asyncio.to_thread(faults.kill)
        await eventually(
            lambda: running.health().errors.keys() == {"worker"}, "health is red, and names the group", RED
        )
        await eventually(lambda: sender.health().broker, "a bus that only sends says that the broker is away", RED)
        began = time.monotonic()
        await aside.stop(2.0)
        assert time.monotonic() - began < 5.0, "an adapter does not stop in time while its broker is away"
        assert not running.health().ok
        assert running.health().errors["worker"].strip(": "), "it does not say why"
        await asyncio.to_thread(faults.start)
        await eventually(lambda: running.health().ok, f"health is green again: {running.health().errors}", BACK)
        await _reads(running, publishing, seen)
        await asyncio.to_thread(faults.take_away, namespace, group)
        await _reads(running, publishing, seen)
        await eventually(lambda: running.health().ok, f"health is green again: {running.health().errors}", BACK)
        await _reads(running, publishing, seen)


async def _reads(running: Running, publishing: _Publishing, seen: Counter[int]) -> None:
    """Something new arrives at last; and health is not green for long while nothing does."""
    ends = time.monotonic() + RED + BACK
    green_since: float | None = None
    first = len(publishing.confirmed) + len(publishing.refused)
    while not any(number >= first for number in seen):
        await publishing.one()
        await asyncio.sleep(0.1)
        now = time.monotonic()
        green_since = (green_since or now) if running.health().ok else None
        assert green_since is None or now - green_since < RED, "health is green, and nothing is read"
        assert now < ends, f"nothing is read any more: {running.health().errors}"


@check("L7", "what was stopped starts again, as often as wanted: the service, the bus, and all that came meanwhile")
async def stop_and_start(backend: Backend) -> None:
    seen: Counter[int] = Counter()
    service = _worker(seen)
    consumer, sender = (bus(backend, namespace) for namespace in [fresh_namespace()] * 2)
    count = 0

    async def publish(add: int) -> None:
        nonlocal count
        await sender.publish_many([Beat(number=n, key=f"k{n % 5}") for n in range(count, count + add)])
        count += add

    async with sender:
        for opened in range(3):
            async with consumer:
                for ran in range(2):
                    async with consumer.run(service) as running:
                        await publish(20)
                        await eventually(lambda: seen.total() >= count, f"all arrives in run {opened}.{ran}")  # noqa: B023
                        assert running.health().ok
                        assert await consumer.request(Echo(number=ran)) == ran
                    assert running.counts == {}, "a stopped service counts on"
                    await publish(20)
                await consumer.publish(Beat(number=count, key="k"))
                count += 1
        async with consumer, consumer.run(service):
            await eventually(lambda: seen.total() >= count, "what came while it was stopped")
            await stays(lambda: seen.total() == count, "something came again", 0.3)
    assert seen == Counter(range(count))
