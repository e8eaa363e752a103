"""D13, D14, L14, S6: a consumer of the port itself, as the core sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from eventkit.adapter import DONE, Address, Backlog, Delivery, Group, Move, Provision
from eventkit.contract.checks import Backend, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import Receiving, contents, put, raw, receive, started

_TOPIC = Address("topic", "consumed")
_GROUP = Group("consuming", (_TOPIC,))
_NOWHERE = Address("retry", "nobody")
"""Of a group that was never provisioned."""


@check(
    "D13", "a message whose copy cannot be published stays where it is: its consumer is told, and may settle it again"
)
async def copy_is_refused(backend: Backend) -> None:
    namespace = fresh_namespace()
    async with started(backend, namespace) as adapter:
        await adapter.provision([_GROUP], Provision.CREATE)
        first = await receive(adapter, _GROUP)
        await put(adapter, *(raw(_TOPIC, b"%d" % number, "k") for number in range(4)))
        await first.arrive(4)
        moves = [(delivery, Move(delivery.message._replace(address=_NOWHERE))) for delivery in first.got]
        for delivery, how in moves:
            first.consumer.settle(delivery, how)
        await eventually(lambda: len(first.failed) >= 4, "each is told", 20.0)
        told = [(delivery, how) for delivery, how, _ in first.failed]
        assert sorted(told, key=_position) == sorted(moves, key=_position), f"told otherwise: {told}"
        await stays(lambda: (len(first.got), len(first.failed)) == (4, 4), "it came again, or was told again", 0.3)
        finished, moved, again, _ = first.got
        first.consumer.settle(finished, DONE)
        first.consumer.settle(moved, Move(moved.message._replace(address=_GROUP.dead)))
        await first.consumer.flush(10.0)
        first.consumer.settle(again, Move(again.message._replace(address=_NOWHERE)))
        await eventually(lambda: len(first.failed) >= 5, "the third is told once more", 20.0)
        assert [letter.message.body for letter in await contents(adapter, _GROUP.dead)] == [moved.message.body]
        await first.consumer.stop(5.0)
    async with started(backend, namespace) as adapter:
        second = await receive(adapter, _GROUP, settle_with=DONE)
        await second.arrive(2)
        await stays(lambda: len(second.got) == 2, "what was settled at last came again", 0.3)
        assert sorted(second.bodies, key=str) == [b"2", b"3"]


def _position(told: tuple[Delivery, object]) -> str:
    return told[0].position


@check("D14", "what was settled before a flush is settled for good, though nothing more is heard of its consumer")
async def flushed(backend: Backend) -> None:
    namespace = fresh_namespace()
    total, settled = 60, 45
    lost = backend.adapter(namespace)
    async with started(backend, namespace) as aside:
        await lost.start(15.0)
        try:
            await lost.provision([_GROUP], Provision.CREATE)
            first = await receive(lost, _GROUP, in_flight=total)
            await put(aside, *(raw(_TOPIC, b"%d" % number, "k") for number in range(total)))
            await first.arrive(total)
            for at, delivery in enumerate(first.got[:settled]):
                copy = delivery.message._replace(address=_GROUP.dead)
                first.settle(delivery, DONE if at % 3 else Move(copy))
            await first.consumer.flush(10.0)
            left = await aside.measure(_GROUP)
            assert _held(left) in (None, total - settled), f"the broker does not have all that was flushed: {left}"
            assert len(await contents(aside, _GROUP.dead)) == settled // 3
            await first.consumer.flush(10.0)  # where nothing is left to do
        finally:
            began = time.monotonic()
            await lost.stop(0.0)
        assert time.monotonic() - began < 3.0, f"to stop at once took {time.monotonic() - began:.1f} s"
        second = await receive(aside, _GROUP, settle_with=DONE)
        await second.arrive(total - settled, within=45.0)  # a lease that was not given back may be of 30 s
        await stays(lambda: len(second.got) == total - settled, "what was flushed came again", 0.3)
        assert sorted(second.bodies, key=str) == sorted(first.bodies[settled:], key=str)
        assert not first.failed


def _held(backlog: Backlog) -> int | None:
    """What waits and what is in hand. None: the broker cannot say."""
    return None if backlog.ready is None or backlog.in_flight is None else backlog.ready + backlog.in_flight


@check("L14", "a consumer that is paused gets nothing new and keeps what it has; resumed it goes on; two stops are one")
async def paused(backend: Backend) -> None:
    namespace = fresh_namespace()
    assert backend.adapter(namespace).error is None, "one that was not started has none"
    async with started(backend, namespace) as adapter, started(backend, namespace) as sender:
        await adapter.provision([_GROUP], Provision.CREATE)
        first = await receive(adapter, _GROUP)
        await put(sender, *(raw(_TOPIC, b"%d" % number, "k") for number in range(5)))
        await first.arrive(5)
        first.consumer.pause()
        await put(sender, *(raw(_TOPIC, b"%d" % number, "k") for number in range(5, 15)))
        await put(sender, raw(_GROUP.retry, b"15", "k", due=datetime.now(UTC) + timedelta(milliseconds=100)))
        await stays(lambda: len(first.got) == 5, "something is delivered while it is paused", 0.7)
        first.settle_all(first.got[:3])
        first.consumer.resume()
        await first.arrive(16)
        await stays(lambda: len(first.got) == 16, "something came twice", 0.2)
        assert sorted(int(body or b"") for body in first.bodies) == list(range(16))
        assert first.bodies[:5] == [b"%d" % number for number in range(5)]
        assert len({(found.message.address, found.position) for found in first.got}) == 16, "two have one position"
        counts = {found.deliveries for found in first.got}
        assert counts == ({1} if adapter.capabilities.delivery_count else {None}), f"not for the first time: {counts}"
        await first.consumer.stop(5.0)
        await first.consumer.stop(5.0)
        await put(sender, raw(_TOPIC, b"16", "k"))
        await stays(lambda: len(first.got) == 16, "something is delivered after the stop", 0.3)
        assert not first.failed
        second = await receive(sender, _GROUP, settle_with=DONE)
        await second.arrive(14)
        await stays(lambda: len(second.got) == 14, "what was settled while it was paused came again", 0.2)
        assert sorted(int(body or b"") for body in second.bodies) == list(range(3, 17))
        known = {found.message.body: found.position for found in first.got}
        assert all(known.get(found.message.body, found.position) == found.position for found in second.got)
        await adapter.stop(5.0)


class _Busy(Receiving):
    """It is slow to take over what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.overlap = False
        """Was it given anything while it took over something else?"""
        self.free = asyncio.Event()
        self._taking = False

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        self.overlap |= self._taking
        self._taking = True
        await super().deliveries(batch)
        await self.free.wait()
        await asyncio.sleep(0.001)
        self._taking = False


@check("S6", "a consumer has no more in hand than was asked for, and gets nothing while it still takes over the last")
async def no_more_than_asked_for(backend: Backend) -> None:
    room, total = 7, 60
    async with started(backend, fresh_namespace()) as adapter:
        await adapter.provision([_GROUP], Provision.CREATE)
        busy = _Busy()
        busy.consumer = await adapter.consume(_GROUP, busy, in_flight=room)
        await put(adapter, *(raw(_TOPIC, b"%d" % number, f"k{number % 5}") for number in range(total)))
        await eventually(lambda: busy.got, "the first arrive")
        taken = len(busy.got)
        busy.settle_all(busy.open)  # there is room again, but it is not done with those
        await stays(lambda: len(busy.got) == taken, "more is given to one that is busy", 0.5)
        busy.free.set()
        while len(busy.got) < total:
            seen = len(busy.got)
            await eventually(lambda: len(busy.got) > seen or len(busy.open) >= room, "more arrive")  # noqa: B023
            busy.settle_all(busy.open[: max(1, len(busy.open) // 2)])
        await stays(lambda: len(busy.got) == total, "something came twice", 0.2)
        # one more may wait at the retry address
        assert busy.most <= room + 1, f"{busy.most} were in hand, and {room} were asked for"
        assert not busy.overlap, "it was given something while it took over something else"
        busy.settle_all(busy.open)
        await busy.consumer.stop(5.0)
