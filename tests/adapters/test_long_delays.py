"""Delays of hours, where time can be moved: in what the broker keeps, and in our own process.

RabbitMQ's cannot be moved from outside; its ladder of delay queues is tested in `test_rabbit`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import nats
import pytest
import redis.asyncio as redis

from eventkit import names
from eventkit.adapter import DONE, Address, Group, Provision
from eventkit.contract import Backend
from eventkit.contract.checks import fresh_namespace, stays
from eventkit.contract.receiving import put, raw, receive, started
from eventkit.testing.brokers import Broker
from eventkit_redis.keys import Keys

GROUP = Group("garden", (Address("topic", "seeds"),))
_AHEAD = timedelta(hours=25)
_CLOCKS = ("eventkit_kafka.held.time", "eventkit_kafka.consume.time", "eventkit_nats.consume.time")
"""By these our own process decides what is due."""


async def _redis(url: str, namespace: str, before: timedelta, passed: timedelta) -> None:
    """What waits stands there by the time at which it is due."""
    async with redis.Redis.from_url(url) as client:
        due = Keys(namespace).due(GROUP.name)
        for member in await client.zrange(due, 0, -1):
            await client.zincrby(due, -(passed - before).total_seconds() * 1000, member)


async def _nats(url: str, namespace: str, _: timedelta, passed: timedelta) -> None:
    """What was put off comes `ack_wait` after a moment that is so long before it is due."""
    naming = names.nats(namespace)
    stream, durable = naming.channel("retry", GROUP.name), naming.group(GROUP.name)
    client = await nats.connect(url)
    config = (await client.jetstream().consumer_info(stream, durable)).config
    config.ack_wait = (_AHEAD - passed).total_seconds()
    await client.jetstream().add_consumer(stream, config)
    await client.close()


async def _kafka(*_: object) -> None:
    """It hands over at once: our process holds back what is not due."""


_PASS: dict[str, Callable[[str, str, timedelta, timedelta], Awaitable[None]]] = {
    "redis": _redis,
    "nats": _nats,
    "kafka": _kafka,
}


@pytest.mark.parametrize("name", _PASS)
def test_what_waits_for_hours_comes_each_in_its_own_time(
    name: str, backend: Callable[[str], Backend], broker: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, url, namespace = backend(name), broker(name).url, fresh_namespace()
    delays = {b"day": timedelta(hours=24), b"less": timedelta(hours=15), b"soon": timedelta(seconds=1)}

    async def reads(body: bytes, left: int) -> None:
        """A process that begins then gets this one, and no other."""
        async with started(found, namespace) as adapter:
            got = await receive(adapter, GROUP, settle_with=DONE)
            await got.arrive(1)
            await stays(lambda: got.bodies == [body], f"{got.bodies} came, and not {body!r} alone", 0.3)
            await got.consumer.flush(5.0)
            async with started(found, namespace) as watcher:  # as another process sees it
                backlog = await watcher.measure(GROUP)
            assert (backlog.ready, backlog.in_flight, backlog.delayed) == (0, 0, left)
            await got.consumer.stop(5.0)

    async def main() -> None:
        async with started(found, namespace) as adapter:
            await adapter.provision([GROUP], Provision.CREATE)
            await _PASS[name](url, namespace, timedelta(), timedelta())
            now = datetime.now(UTC)
            await put(adapter, *(raw(GROUP.retry, body, "key", due=now + delay) for body, delay in delays.items()))
        before = timedelta()
        await reads(b"soon", 2)
        for body, left in ((b"less", 1), (b"day", 0)):
            passed = delays[body]
            await _PASS[name](url, namespace, before, passed)
            clock = SimpleNamespace(**{**vars(time), "time": lambda by=passed: time.time() + by.total_seconds()})
            for place in _CLOCKS:
                monkeypatch.setattr(place, clock)
            await reads(body, left)
            before = passed

    asyncio.run(main())
