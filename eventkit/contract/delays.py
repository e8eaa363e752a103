"""F: what waits for a long time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

from eventkit.adapter import Group
from eventkit.bus import Bus
from eventkit.contract.checks import Backend, Faults, breakable, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import started
from eventkit.messages import Event
from eventkit.retry import Retry
from eventkit.running import Running
from eventkit.service import Service

_DAY, _LESS, _SOON = timedelta(hours=24), timedelta(hours=15), timedelta(seconds=1)
_EACH = 60
"""Messages that wait for a day, and as many that wait for less."""
_BACK = 20.0
"""Seconds within which all goes on by itself once the broker is there."""


class Seed(Event, topic="delays.seeds", key="name"):
    name: str
    fails: bool = False


class _Garden:
    """A service of which one handler fails, and tries again in a day."""

    def __init__(self) -> None:
        retry = Retry(attempts=2, first_delay=_DAY, max_delay=_DAY, jitter=0)
        self.service = Service("garden", retry=retry, concurrency=8)
        self.seen: Counter[str] = Counter()
        self._turn = 0

        @self.service.handler
        async def seed(event: Seed) -> None:
            self.seen[event.name] += 1
            if event.fails:
                raise RuntimeError("in a day, perhaps")

    @property
    def group(self) -> Group:
        ((group, _),) = self.service.groups().values()
        return group

    async def goes_on(self, sender: Bus) -> None:
        """What is due at once comes, and so does what is due in a second."""
        self._turn += 1
        now, soon = f"now {self._turn}", f"soon {self._turn}"
        began = time.monotonic()
        await sender.publish(Seed(name=soon), delay=_SOON)
        await sender.publish(Seed(name=now))
        await eventually(lambda: self.seen[now] and self.seen[soon], f"{now} and {soon} come, but {self.seen}", _BACK)
        assert time.monotonic() - began >= _SOON.total_seconds() - 0.01, f"{soon} came early"


async def _all_wait(faults: Faults, namespace: str, group: Group, count: int) -> None:
    """So is anybody told who has just come."""
    ends = time.monotonic() + _BACK
    while True:
        async with started(faults, namespace) as watcher:
            found = await watcher.measure(group)
        if found.delayed == count and not found.ready and not found.in_flight:
            return
        assert time.monotonic() < ends, f"{count} are delayed, and nothing else waits: {found}"
        await asyncio.sleep(0.1)


@check(
    "F23",
    "what waits for a day outlives the broker's crash and our restart, not delivered, counted as delayed; it holds up "
    "nothing",
)
async def waits_for_a_day(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace, garden = fresh_namespace(), _Garden()
    waiting = 3 * _EACH

    async def check_all(running: Running) -> None:
        await eventually(lambda: running.health().ok, f"health is green: {running.health().errors}", _BACK)
        await garden.goes_on(sender)
        await _all_wait(faults, namespace, garden.group, waiting)

    async with bus(faults, namespace) as sender:
        async with bus(faults, namespace) as consumer, consumer.run(garden.service) as running:
            days = [Seed(name=f"day {n}") for n in range(_EACH)]
            await asyncio.gather(*(sender.publish(seed, delay=_DAY) for seed in days))
            await sender.publish_many([Seed(name=f"failed {n}", fails=True) for n in range(_EACH)])
            await asyncio.gather(*(sender.publish(Seed(name=f"less {n}"), delay=_LESS) for n in range(_EACH)))
            await check_all(running)
            # for so long that no broker may have forgotten a queue it has just made: RabbitMQ does, in its first second
            await stays(lambda: running.health().ok, "health is red while all is well", 2.0)
            await asyncio.to_thread(faults.kill)
            await asyncio.to_thread(faults.start)
            await check_all(running)
        async with bus(faults, namespace) as consumer, consumer.run(garden.service) as running:
            await check_all(running)
            await stays(lambda: not garden.seen.keys() & {seed.name for seed in days}, "a day is not over", 0.5)
    failed = {f"failed {n}" for n in range(_EACH)}
    others = {f"{what} {n}" for what in ("now", "soon") for n in range(1, 4)}
    assert garden.seen == dict.fromkeys(failed | others, 1), f"others than those: {garden.seen}"
