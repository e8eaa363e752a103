"""S: how much is held at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from eventkit.adapter import Address, Group, Provision
from eventkit.contract.checks import Backend, Vacuous, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import put, raw, receive, started
from eventkit.messages import Event
from eventkit.running import Running
from eventkit.service import Service

_FURTHER = 1
"""The group of a lone topic has its retry address besides, and may hold one more for that."""
_AT_FIRST, _MORE, _FEWER = 10, 60, 8


class Parcel(Event, topic="holding.parcels"):
    number: int


class _Handled:
    """A replica whose handler takes so long, and what it has handled."""

    def __init__(self, seconds: float, concurrency: int) -> None:
        self.service = Service("worker", concurrency=concurrency, stop_timeout=timedelta(seconds=5))
        self.numbers: Counter[int] = Counter()
        self.most = 0
        """The most that it held at once, as far as was looked."""

        @self.service.handler
        async def parcel(event: Parcel) -> None:
            await asyncio.sleep(seconds)
            self.numbers[event.number] += 1

    def look(self, running: Running) -> int:
        self.most = max(self.most, running.at_work)
        return self.most


@check(
    "S7",
    "a consumer holds at most what it was told last, more or less than before, and loses, repeats and reorders nothing",
)
async def holds_what_it_is_told(backend: Backend) -> None:
    topic = Address("topic", "holding.counts")
    group = Group("holding", (topic,))
    async with started(backend, fresh_namespace()) as adapter:
        await adapter.provision([topic, group], Provision.CREATE)
        await put(adapter, *(raw(topic, b"%d" % number, "key") for number in range(400)))
        got = await receive(adapter, group, in_flight=_AT_FIRST)
        for at_most in (_AT_FIRST, _MORE):
            got.consumer.hold(at_most)
            await eventually(lambda most=at_most: len(got.open) >= most, f"{at_most} are held")  # type: ignore[misc]
            await stays(lambda most=at_most: len(got.open) <= most + _FURTHER, f"more than {at_most} are held", 0.3)  # type: ignore[misc]
        got.settle_all(got.open)
        await got.arrive(2 * _MORE)
        got.consumer.hold(_FEWER)
        while len(got.got) < 3 * _MORE:
            left = max(len(got.open) - 4, 0)
            got.settle_all(got.open[:4])
            await eventually(lambda: len(got.open) >= _FEWER, f"{_FEWER} are held")
            assert len(got.open) <= max(left, _FEWER + _FURTHER), f"{len(got.open)} are held, {left} were before"
        got.consumer.hold(_MORE)
        while len(got.got) < 400:
            got.settle_all(got.open[: _MORE // 2])
            await eventually(lambda: got.open or len(got.got) >= 400, "more")
            assert len(got.open) <= _MORE + _FURTHER, f"{len(got.open)} are held"
        got.settle_all(got.open)
        assert [int(body or b"-1") for body in got.bodies] == list(range(400)), "lost, twice, or out of order"
        await stays(lambda: len(got.got) == 400, "a message came twice", 0.2)


@check("S8", "a slow group holds no more than it handles in a few seconds; a fast one holds hundreds")
async def held_by_the_rate(backend: Backend) -> None:
    fast, slow = _Handled(0.03, 20), _Handled(0.5, 2)
    async with bus(backend, fresh_namespace()) as b, b.run(fast.service) as running:
        await b.publish_many([Parcel(number=n) for n in range(2_000)])
        await eventually(lambda: fast.look(running) >= 400, "hundreds are held")
        await eventually(lambda: fast.numbers.total() >= 2_000, "all are handled")
        assert fast.most <= 1_000, f"{fast.most} were held"
    async with bus(backend, fresh_namespace()) as b, b.run(slow.service) as running:
        await b.publish_many([Parcel(number=n) for n in range(200)])
        await eventually(lambda: slow.look(running) and slow.numbers.total() >= 10, "some are handled")
        assert slow.most <= 40, f"{slow.most} were held, of which 4 a second are handled"
    for handled in (fast, slow):
        assert set(handled.numbers.values()) == {1}, "a message was handled twice"


@check("S9", "a replica that begins later has its share of what waits for a slow group")
async def later_replica_has_its_share(backend: Backend) -> None:
    namespace, count = fresh_namespace(), 60
    first, second = _Handled(0.4, 4), _Handled(0.4, 4)
    async with bus(backend, namespace) as b, b.run(first.service):
        if b.adapter.capabilities.settles_in_order:
            raise Vacuous("replicas share partitions, whatever one of them holds")
        await b.publish_many([Parcel(number=n) for n in range(count)])
        await eventually(lambda: first.numbers.total() >= 4, "the first has begun")
        async with bus(backend, namespace) as other, other.run(second.service):
            await eventually(lambda: first.numbers.total() + second.numbers.total() >= count, "all are handled", 30.0)
    both = first.numbers + second.numbers
    assert set(both.values()) == {1}, "a message was handled twice"
    assert second.numbers.total() >= count // 4, f"the second had {second.numbers.total()} of {count}"
