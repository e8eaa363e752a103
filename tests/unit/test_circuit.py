"""Circuit: when it opens, when it closes, and what it takes for a failure of the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from eventkit import Batch, Bus, Circuit, Context, DeclarationError, Event, GiveUp, PartialFailure, Retry, Service
from eventkit.adapter import Address, Connection, Group, Provision
from eventkit.breaker import Breaker
from eventkit.clock import VirtualClock
from eventkit.contract.checks import eventually
from eventkit.contract.receiving import receive
from eventkit.memory import MemoryAdapter, Store
from eventkit.testing import run as run_services

SECOND = timedelta(seconds=1)


class Charge(Event, topic="charges", key="card"):
    card: str
    number: int = 0


def limited(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"failures": 0}, "a whole number of at least 1"),
        ({"failures": True}, "a whole number"),
        ({"within": timedelta(0)}, "within"),
        ({"pause": 10}, "pause=10"),
        ({"pause": timedelta(hours=2)}, "of an hour at most"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Circuit(**arguments)


def a_breaker(failures: int = 3) -> tuple[Breaker, VirtualClock]:
    clock = VirtualClock()
    return Breaker(Circuit(failures=failures, within=10 * SECOND, pause=5 * SECOND), "charge", "charger", clock), clock


def test_different_messages_within_the_time_open_it() -> None:
    breaker, clock = a_breaker()
    assert [breaker.failed(n, "the same") for n in range(9)] == [None] * 9, "one poisonous message opens nothing"
    assert breaker.state is None
    clock.advance(clock.now() + 11 * SECOND)
    assert breaker.failed(1, "a") is breaker.failed(2, "b") is None
    assert breaker.state is None, "the first is too long ago"
    assert breaker.failed(3, "c") is None, "the one that opens it counts as an attempt"
    assert breaker.state is not None
    assert breaker.failed(4, "d") == 5.0, "one that was running counts as none"


def test_a_success_in_between_says_that_it_works() -> None:
    breaker, _ = a_breaker()
    for turn in range(5):
        breaker.failed(1, f"a{turn}")
        breaker.failed(2, f"b{turn}")
        breaker.succeeded()
    assert breaker.state is None


def test_one_probe_at_a_time_and_another_one_the_next_time() -> None:
    breaker, clock = a_breaker(1)
    breaker.failed("first", "a")
    gate = breaker.asks("second")
    assert gate is not None
    woken: list[str] = []
    gate.then(lambda: woken.append("second"))
    clock.advance(clock.now() + 5 * SECOND)
    assert woken == ["second"]
    assert breaker.asks("second") is None, "it is the probe"
    assert breaker.asks("second") is None, "and may ask twice"
    assert breaker.asks("third") is not None
    assert breaker.failed("second", "b") == 5.0, "its attempt does not count"
    assert breaker.asks("third") is not None, "the next pause has begun"
    clock.advance(clock.now() + 5 * SECOND)
    assert breaker.asks("third") is None
    breaker.dropped("third")
    assert breaker.asks("fourth") is None, "a probe that is given back leaves its place to another"
    breaker.succeeded()
    assert breaker.state is None
    assert breaker.asks("fifth") is None


def test_what_is_about_a_message_is_not_about_the_handler() -> None:
    service = Service("charger", retry=Retry(attempts=1, never=(LookupError,)))

    @service.handler(circuit=Circuit(failures=2))
    async def charge(event: Charge) -> None:
        raise GiveUp("no such card") if event.number % 2 else KeyError(event.card)

    async def main() -> None:
        async with run_services(service) as t:
            for number in range(10):
                await t.publish(Charge(card=f"c{number}", number=number))
            await t.idle()
            assert len(t.dead_letters()) == 10

    limited(main())


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_nothing_is_lost_and_no_attempt_is_used_while_it_is_open(batched: bool, in_order: bool) -> None:
    retry = Retry(attempts=2, first_delay=SECOND, factor=1, jitter=0, in_order=in_order)
    service = Service("charger", concurrency=4, retry=retry)
    circuit = Circuit(failures=3, pause=5 * SECOND)
    tries = 0
    attempts: dict[int, int] = {}

    def charge(event: Charge, attempt: int) -> None:
        nonlocal tries
        tries += 1
        if tries <= 9:
            raise ConnectionError("the bank is away")
        attempts[event.number] = attempt

    async def one(event: Charge, context: Context) -> None:
        charge(event, context.attempt)

    async def many(events: list[Charge], contexts: list[Context]) -> None:
        failed: dict[int, BaseException] = {}
        for place, (event, context) in enumerate(zip(events, contexts, strict=True)):
            try:
                charge(event, context.attempt)
            except ConnectionError as error:
                failed[place] = error
        if failed:
            raise PartialFailure(failed)

    if batched:
        service.handler(batch=Batch(size=3, wait=SECOND), circuit=circuit)(many)
    else:
        service.handler(circuit=circuit)(one)

    async def main() -> None:
        async with run_services(service) as t:
            began = t.now
            for number in range(20):
                await t.publish(Charge(card=f"c{number % 7}", number=number))
            await t.idle()
            assert t.dead_letters() == []
            assert t.now - began >= 5 * SECOND, "it rested"
            assert len(t.handled(Charge)) == 20

    limited(main())
    assert sum(attempt == 2 for attempt in attempts.values()) <= 3, attempts
    if in_order:
        keys = [number % 7 for number in attempts]
        of_a_key = {key: [number for number in attempts if number % 7 == key] for key in keys}
        assert all(numbers == sorted(numbers) for numbers in of_a_key.values()), of_a_key


def test_a_probe_that_comes_to_no_attempt_leaves_its_place_to_another() -> None:
    service = Service("charger", concurrency=4, retry=Retry(attempts=2, first_delay=SECOND))
    tries = 0

    @service.handler(circuit=Circuit(failures=3, pause=5 * SECOND))
    async def charge(event: Charge) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise ConnectionError("the bank is away")

    async def main() -> None:
        async with run_services(service) as t:
            for number in range(3):
                await t.publish(Charge(card=f"c{number}"))
            broken = t._bus.encode(Charge(card="broken"))._replace(body=b"{no JSON")
            await t._bus.deliver([broken])
            await t.publish(Charge(card="last"))
            await t.idle()
            assert len(t.dead_letters()) == 1
            assert len(t.handled(Charge)) == 4

    limited(main())


def test_a_suspect_that_meets_an_open_circuit_is_tried_and_then_waits_with_the_others() -> None:
    service = Service("charger", quarantine_after=2, retry=Retry(attempts=1))
    circuit = Circuit(failures=1, pause=SECOND / 10)
    attempts: list[int] = []
    away = True

    @service.handler(circuit=circuit)
    async def charge(event: Charge, context: Context) -> None:
        if away:
            raise ConnectionError("the bank is away")
        attempts.append(context.attempt)

    async def main() -> None:
        nonlocal away
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
        group = Group("charger", (Address("topic", "charges"),))
        async with Bus(adapter, source="test") as bus:
            await adapter.provision([group], Provision.CREATE)
            await bus.publish(Charge(card="suspect"))
            for _ in range(3):
                held = await receive(adapter, group)
                await held.arrive(1)
                await held.consumer.stop(1.0)
            await bus.publish(Charge(card="opens it"))
            async with bus.run(service) as running:
                await eventually(lambda: running.counts["charger"].dead, "it is open")
                await asyncio.sleep(0.3)
                away = False
                await eventually(lambda: attempts, "the suspect goes on")
                assert running.counts["charger"].dead == 1
        assert attempts == [1]

    limited(main())


def test_a_handler_that_takes_nothing_but_its_message_tells_its_circuit_of_successes() -> None:
    async def main() -> None:
        service = Service("charger", concurrency=1, retry=Retry(attempts=5, first_delay=timedelta(hours=1)))

        @service.handler(circuit=Circuit(failures=3, pause=3_000 * SECOND))
        async def charge(event: Charge) -> None:
            if event.number % 2:
                raise ConnectionError("away")

        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
        async with Bus(adapter, source="test") as bus, bus.run(service) as running:
            for number in range(12):
                await bus.publish(Charge(card=f"{number}", number=number))
            counts = running.counts["charger"]
            await eventually(lambda: (counts.handled, counts.retried) == (6, 6), "it never opens")

    limited(main())
