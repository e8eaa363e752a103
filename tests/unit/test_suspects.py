"""Suspects: a message that was delivered again and again runs alone, and what a stop gives back is not blamed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from eventkit import Batch, DeclarationError, Event, Retry, Service, suspects
from eventkit import headers as h
from eventkit.adapter import Address, Connection, Delivery, Group, Message, Provision, Receive, Settlement
from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import eventually
from eventkit.contract.receiving import Receiving, contents, receive
from eventkit.copies import Reason, Suspicion, suspect, suspicion
from eventkit.memory import MemoryAdapter, MemoryConsumer, Store
from eventkit.outcomes import Outcomes


class Load(Event, topic="loads", key="name"):
    name: str
    fails: bool = False


GROUP = Group("loader", (Address("topic", "loads"),))


async def deliver(adapter: MemoryAdapter, times: int) -> Receiving:
    """As if so many processes had died with all that waits."""
    for _ in range(times):
        held = await receive(adapter, GROUP)
        await held.arrive(1)
        await held.consumer.stop(1.0)
    return held


async def suspected(adapter: MemoryAdapter, known: Suspicion) -> None:
    """All that waits comes as a suspect from now on, of which so much is known."""
    held = await receive(adapter, GROUP)
    while (await adapter.measure(GROUP)).ready:
        await asyncio.sleep(0)
    got = list(held.got)
    held.settle_all(got)
    await held.consumer.stop(1.0)
    await adapter.publish([suspect(delivery, GROUP, known) for delivery in got])


ALONE = Suspicion(2, 2, trial=0)
"""It died in every trial among others, of a service with quarantine_after=4."""


def with_memory(test: Callable[[MemoryAdapter, Bus], object], adapted: type[MemoryAdapter] = MemoryAdapter) -> None:
    async def main() -> None:
        adapter = adapted(Connection(url=None, namespace="", client="test"), store=Store())
        async with asyncio.timeout(20), Bus(adapter, source="test") as bus:
            await adapter.provision([GROUP], Provision.CREATE)
            await test(adapter, bus)  # type: ignore[misc]  # a coroutine function

    asyncio.run(main())


def test_a_copy_that_comes_while_it_stops_is_not_blamed() -> None:
    """On a broker it is on its way for a while; given back unread, it comes for a second time, as after a death."""

    class Late(MemoryAdapter):
        async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
            deliveries = receive.deliveries

            async def late(batch: Sequence[Delivery], /) -> None:
                await asyncio.sleep(0.1 if any(h.SUSPECT in one.message.headers for one in batch) else 0)
                await deliveries(batch)

            receive.deliveries = late  # type: ignore[method-assign]
            return await super().consume(group, receive, in_flight=in_flight)

    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        tried: list[int] = []
        moved: list[str] = []
        put = adapter._put

        def watched(message: Message) -> Exception | None:
            moved.append(message.headers.get(h.SUSPECT, ""))
            return put(message)

        adapter._put = watched  # type: ignore[method-assign]

        def service() -> Service:
            made = Service("loader", quarantine_after=2, stop_timeout=timedelta(seconds=1))

            @made.handler
            async def load(event: Load, context: Context) -> None:
                tried.append(context.attempt)

            return made

        await bus.publish(Load(name="innocent"))
        await deliver(adapter, 2)
        async with bus.run(service()):
            await eventually(
                lambda: any(said and not said.endswith(" 0") for said in moved), "a copy is on its way to its trial"
            )
        assert not tried
        async with bus.run(service()) as running:
            await eventually(lambda: tried, "it is tried")
            assert running.counts["loader"].dead == 0
        assert tried == [1]
        assert await contents(adapter, GROUP.dead) == []

    with_memory(test, Late)


@pytest.mark.parametrize("batched", [False, True])
def test_it_runs_while_nothing_else_does(batched: bool) -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", concurrency=8, quarantine_after=4, retry=Retry(attempts=1))
        beside: dict[str, set[str]] = {}
        at_work: set[str] = set()

        async def work(name: str) -> None:
            for other in at_work:
                beside.setdefault(other, set()).add(name)
            beside.setdefault(name, set()).update(at_work)
            at_work.add(name)
            await asyncio.sleep(0.03)
            at_work.discard(name)

        async def one(event: Load) -> None:
            await work(event.name)

        async def many(events: list[Load]) -> None:
            await asyncio.gather(*(work(event.name) for event in events))

        if batched:
            service.handler(batch=Batch(size=8))(many)
        else:
            service.handler(one)
        await bus.publish(Load(name="suspect"))
        await suspected(adapter, ALONE)
        async with bus.run(service) as running:
            for number in range(60):
                await bus.publish(Load(name=f"other {number}"))
                await asyncio.sleep(0.002)
            await eventually(lambda: running.counts["loader"].handled == 61, "all are handled")
        assert beside["suspect"] == set(), "others ran beside it"
        assert any(beside.values()), "others run side by side"

    with_memory(test)


class Unsure(MemoryAdapter):
    """The first questions whether all is settled are not answered."""

    left = 2

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=in_flight)

        async def flush(timeout: float, /) -> None:
            if self.left:
                self.left -= 1
                raise ConnectionError("the channel is closed")

        consumer.flush = flush  # type: ignore[method-assign]
        return consumer


def test_it_does_not_run_where_the_broker_is_away_and_does_later(caplog: pytest.LogCaptureFixture) -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", quarantine_after=4)
        lefts: list[int] = []

        @service.handler
        async def load(event: Load) -> None:
            assert isinstance(adapter, Unsure)
            lefts.append(adapter.left)

        await bus.publish(Load(name="suspect"))
        await suspected(adapter, ALONE)
        async with bus.run(service) as running:
            await eventually(lambda: running.counts["loader"].handled == 1, "it is handled")
        assert lefts == [0]
        said = [record for record in caplog.records if "cannot be made sure of" in record.getMessage()]
        assert [record.levelname for record in said] == ["WARNING", "WARNING"]
        assert "eventkit itself failed" not in caplog.text

    with_memory(test, Unsure)


def test_one_whose_process_died_while_it_ran_alone_is_quarantined() -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", quarantine_after=4)
        handled: list[str] = []

        @service.handler
        async def load(event: Load) -> None:
            handled.append(event.name)

        await bus.publish_many([Load(name="killer"), Load(name="innocent")])
        (killer, innocent) = (await deliver(adapter, 1)).got
        # what two processes left behind: one died while the killer ran alone, and held the innocent one meanwhile
        for delivery, known in ((killer, Suspicion(3, 5, trial=1)), (innocent, Suspicion(3, 5, trial=0))):
            await adapter.publish([suspect(delivery, GROUP, known)])
        held = await receive(adapter, GROUP)
        await held.arrive(4)
        held.settle_all(held.got[:2])
        await held.consumer.stop(1.0)
        async with bus.run(service) as running:
            await eventually(lambda: running.counts["loader"].dead and handled, "both are decided on")
        (letter,) = await contents(adapter, GROUP.dead)
        assert (letter.message.key, letter.message.headers[h.REASON]) == ("killer", Reason.QUARANTINED)
        assert letter.message.headers[h.ATTEMPT] == "1"
        assert h.SUSPECT not in letter.message.headers
        assert handled == ["innocent"]

    with_memory(test)


def test_one_that_could_not_be_given_up_on_is_given_up_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", quarantine_after=4)

        @service.handler
        async def load(event: Load) -> None:
            raise AssertionError("it is not tried again")

        tried: list[str] = []
        quarantined = Outcomes.quarantined

        async def fails_once(self: Outcomes, arrived: Delivery, why: str) -> Settlement:
            tried.append(why)
            if len(tried) == 1:
                raise OSError("not now")
            return await quarantined(self, arrived, why)

        monkeypatch.setattr(Outcomes, "quarantined", fails_once)

        await bus.publish(Load(name="killer"))
        (killer,) = (await deliver(adapter, 1)).got
        await adapter.publish([suspect(killer, GROUP, Suspicion(3, 5, trial=1))])
        held = await receive(adapter, GROUP)
        await held.arrive(2)
        held.settle_all(held.got[:1])
        await held.consumer.stop(1.0)
        watched = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=adapter._store)
        async with Bus(watched, source="test") as other, other.run(service) as running:
            await eventually(lambda: running.counts["loader"].dead == 1, "it is given up on when it comes again")
        (letter,) = await contents(adapter, GROUP.dead)
        assert letter.message.headers[h.REASON] == Reason.QUARANTINED

    with_memory(test)


def test_never_is_never() -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", quarantine_after=None)
        seen: list[int | None] = []

        @service.handler
        async def load(event: Load, context: Context) -> None:
            seen.append(context.delivery.deliveries)

        await bus.publish(Load(name="often"))
        await deliver(adapter, 50)
        async with bus.run(service):
            await eventually(lambda: seen, "it is handled")
        assert seen == [51], "it is taken as it comes"

    with_memory(test)


def test_a_type_that_nobody_here_handles_is_no_suspect(caplog: pytest.LogCaptureFixture) -> None:
    """It is passed by, so nothing of it can end the process."""

    class Weighed(Event, topic="loads", key="name"):
        name: str

    caplog.set_level(logging.DEBUG, "eventkit")
    service = Service("loader")

    @service.handler
    async def load(event: Load) -> None: ...

    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        await bus.publish(Weighed(name="other"))
        await deliver(adapter, 3)
        async with bus.run(service) as running:
            await eventually(lambda: running.counts["loader"].skipped == 1, "it is passed by")
        assert await contents(adapter, GROUP.retry) == []

    with_memory(test)
    assert not [record for record in caplog.records if "in case it killed its process" in record.getMessage()]


def test_a_suspect_that_fails_is_retried_like_any_other() -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        service = Service("loader", quarantine_after=2, retry=Retry(attempts=2, in_order=True, jitter=0))
        attempts: list[int] = []

        @service.handler
        async def load(event: Load, context: Context) -> None:
            attempts.append(context.attempt)
            assert h.SUSPECT not in context.headers
            if context.attempt == 1:
                raise RuntimeError("no")

        await bus.publish(Load(name="fails"))
        await deliver(adapter, 3)
        async with bus.run(service) as running:
            await eventually(lambda: running.counts["loader"].handled, "it is tried again")
        assert attempts == [1, 2]

    with_memory(test)


@pytest.mark.parametrize("said", ["", "1", "1 x", "x 1 1", "-1 2", "²  1"])
def test_what_we_did_not_write_blames_nobody(said: str) -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        message = bus.encode(Load(name="a"))
        forged = message._replace(headers={**message.headers, h.SUSPECT: said})
        assert suspicion(forged) == Suspicion(0, 0, trial=0)

    with_memory(test)


def test_each_copy_has_an_id_of_its_own() -> None:
    async def test(adapter: MemoryAdapter, bus: Bus) -> None:
        delivery = Delivery(bus.encode(Load(name="a")), "1", 9, None)
        ids = []
        for trial in (0, 1, 0, 1):
            known = suspicion(delivery.message) or Suspicion(0, 0, trial=0)
            delivery = delivery._replace(message=suspect(delivery, GROUP, known._replace(trial=trial)))
            ids.append(delivery.message.headers[h.MESSAGE_ID])
        assert len(set(ids)) == 4
        assert suspicion(delivery.message) == Suspicion(0, 4, trial=1)

    with_memory(test)


@pytest.mark.parametrize("number", [1, 0, -3])
def test_one_death_is_no_proof(number: int) -> None:
    with pytest.raises(DeclarationError, match="2 is the least, None never quarantines"):
        Service("loader", quarantine_after=number)


class KeepsCopiesBack(MemoryAdapter):
    """What is to run alone stands behind a long queue: it does not come."""

    def __init__(self, connection: Connection, store: Store) -> None:
        super().__init__(connection, store=store)
        self.kept = 0

    def _put(self, message: Message) -> Exception | None:
        known = suspicion(message)
        if known is not None and known.trial:
            self.kept += 1
            return None
        return super()._put(message)


def test_copies_that_do_not_come_keep_others_waiting_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "_COMES", 0.05)
    service = Service("loader", quarantine_after=4)
    handled: list[str] = []

    @service.handler
    async def load(event: Load) -> None:
        handled.append(event.name)

    async def main() -> None:
        adapter = KeepsCopiesBack(Connection(url=None, namespace="", client="test"), store=Store())
        async with asyncio.timeout(20), Bus(adapter, source="test") as bus:
            await adapter.provision([GROUP], Provision.CREATE)
            await bus.publish_many([Load(name=f"suspect {number}") for number in range(60)])
            await suspected(adapter, ALONE)
            async with bus.run(service):
                await eventually(lambda: adapter.kept, "the first is to run alone")
                for number in range(150):
                    await bus.publish(Load(name=f"healthy {number}"))
                    await asyncio.sleep(0.01)
                await eventually(lambda: len(handled) == 150, "all others are handled")
                assert 2 <= adapter.kept <= 8, f"all had to keep quiet {adapter.kept} times in vain"

    asyncio.run(main())
