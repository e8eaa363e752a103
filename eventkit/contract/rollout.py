"""R11, R12: many that start at once, and two releases side by side."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from eventkit.adapter import Group, Provision
from eventkit.bus import Bus
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import contents, started
from eventkit.contract.samples import Counted, Ship, counted
from eventkit.messages import Event
from eventkit.service import Service


class Returned(Event, topic="returns", key="order"):
    """On a topic that the old release does not read."""

    order: str


def _release(got: Counter[str], *, new: bool) -> Service:
    service = Service("shipping", concurrency=8)

    @service.handler
    async def counts(event: Counted) -> None:
        got[f"count {event.number}"] += 1

    @service.handler
    async def ship(command: Ship) -> None:
        got[f"ship {command.order}"] += 1

    if new:

        @service.handler
        async def returned(event: Returned) -> None:
            got[f"return {event.order}"] += 1

    return service


@check(
    "R11",
    "ten replicas that start at once, where nothing is yet, all succeed; they share the work, nothing comes twice",
)
async def ten_at_once(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: Counter[str] = Counter()
    service = _release(got, new=True)
    running = 0
    stop = asyncio.Event()

    async def replica() -> None:
        nonlocal running
        async with bus(backend, namespace) as one, one.run(service):
            running += 1
            await stop.wait()

    def handled() -> int:
        return got.total() - got["count -1"]  # which was published when perhaps no group was there

    async with bus(backend, namespace) as sender:
        first = sender.publish(Counted(number=-1, key="k"))  # makes the topic at the same time
        replicas = asyncio.gather(*(replica() for _ in range(10)))
        try:
            await first
            await eventually(lambda: running == 10 or replicas.done(), "all ten run", 40.0)
            assert not replicas.done(), replicas.exception()
            await asyncio.gather(
                sender.publish_many(counted(range(200))), *(sender.send(Ship(order=str(n))) for n in range(20))
            )
            await eventually(lambda: handled() >= 220, "all are handled")
            await stays(lambda: handled() == 220, "and no more", 0.3)
        finally:
            stop.set()
            await replicas
    assert set(got.values()) == {1}
    only_looks = Bus(backend.adapter(namespace), source="contract", provision=Provision.VALIDATE)
    async with only_looks, only_looks.run(service):
        await only_looks.publish(Counted(number=1_000, key="k"))
        await eventually(lambda: got["count 1000"], "one that only looks finds all there")


@check("R12", "an old and a new release of a service side by side lose nothing, whichever starts, stops or comes back")
async def side_by_side(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: Counter[str] = Counter()
    old, new = _release(got, new=False), _release(got, new=True)
    expected: Counter[str] = Counter()

    async def publish(*more: Any) -> None:
        start = len(expected)
        await sender.publish_many([*counted(range(start, start + 60)), *more])
        for number in range(start, start + 10):
            await sender.send(Ship(order=str(number)))
            expected[f"ship {number}"] += 1
        expected.update(f"count {number}" for number in range(start, start + 60))
        expected.update(f"return {event.order}" for event in more)

    async def arrives(what: str) -> None:
        await eventually(lambda: expected <= got, what)

    async with bus(backend, namespace) as sender, bus(backend, namespace) as one, bus(backend, namespace) as two:
        async with one.run(old):
            await publish()
            async with two.run(new):  # the roll-out begins
                await publish()
                await arrives("all that both know, while both run")
                async with bus(backend, namespace) as third, third.run(old):  # an old replica was moved to another host
                    await publish()
            await publish()  # the roll-out is taken back
            await arrives("all, after the new one is gone")
        async with one.run(new):  # and made after all: the old ones are gone
            await publish(*(Returned(order=str(number)) for number in range(20)))
            await arrives("all, and what only the new one reads")
        async with one.run(old):
            await arrives("a last old one changes nothing")
        await publish(*(Returned(order=str(number)) for number in range(20, 40)))
        async with two.run(new):
            await arrives("what came while none ran")
            await stays(lambda: got == expected, "something came twice", 0.3)
    async with started(backend, namespace) as adapter:
        assert await contents(adapter, Group("shipping", ()).dead) == [], "none of it is a dead letter"
