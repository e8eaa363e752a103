"""What must be tried for ever by nobody, hold up nobody for ever, and vanish nowhere: each case was possible once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, model_validator

from eventkit import (
    Batch,
    Bus,
    Circuit,
    Command,
    CommandFailed,
    Context,
    Event,
    PublishError,
    RequestTimeout,
    Retry,
    Service,
    suspects,
)
from eventkit import headers as h
from eventkit.adapter import (
    Address,
    Connection,
    Consumer,
    Delivery,
    Group,
    Message,
    Receive,
    Release,
    Settlement,
)
from eventkit.breaker import Breaker
from eventkit.clock import VirtualClock
from eventkit.contract.checks import eventually
from eventkit.errors import LostMessage
from eventkit.memory import MemoryAdapter, Store
from eventkit.testing import run
from eventkit.threads import Threads
from eventkit.watching import Happened
from eventkit.wire import JSON_SERIALIZER

M = TypeVar("M", bound=BaseModel)
SECOND = timedelta(seconds=1)


class Placed(Event, topic="orders", key="order"):
    order: str
    total: int = 0

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("order") == "ill":
            _raise()
        return data


class Cancelled(Event, topic="orders"):
    order: str


class Booked(Event, topic="parcels"):
    order: str


class Weigh(Command[int], service="scales"):
    order: str


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a text")


_ERRORS: dict[int, Exception] = {0: KeyError("total")}


def _raise() -> None:
    raise _ERRORS[0]


def memory(cls: type[MemoryAdapter] = MemoryAdapter, store: Store | None = None) -> MemoryAdapter:
    return cls(Connection(url=None, namespace="", client="test"), store=store or Store())


def foreign(body: bytes, id: str = "1") -> Message:
    return Message(
        Address("topic", "orders"),
        "Placed",
        None,
        {h.TYPE: "Placed", h.ID: id, h.CONTENT_TYPE: "application/json"},
        body,
    )


def one_by_one(service: Service) -> None:
    @service.handler
    async def book(event: Placed) -> None: ...


def with_context(service: Service) -> None:
    @service.handler
    async def book(event: Placed, context: Context) -> None: ...


def in_batches(service: Service) -> None:
    @service.handler(batch=Batch(size=2, wait=timedelta(0)))
    async def book(events: list[Placed]) -> None: ...


@pytest.mark.parametrize("error", [KeyError("total"), RecursionError(), Unreadable()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("declare", [one_by_one, with_context, in_batches])
def test_whatever_a_validator_raises_is_a_message_that_cannot_be_read(
    declare: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic turns only ValueError and AssertionError into its own."""
    monkeypatch.setitem(_ERRORS, 0, error)
    service = Service("shop")
    declare(service)

    async def main() -> None:
        async with Bus(memory(), source="test") as bus, bus.run(service) as running:
            await bus.deliver([foreign(b'{"order":"ill"}', "1"), foreign(b'{"order":"well"}', "2")])
            await eventually(lambda: running.counts["shop"].dead == running.counts["shop"].handled == 1, "both ended")
            (letter,) = [letter async for letter in bus.dead_letters("shop").list()]
            assert (letter.id, letter.reason) == ("1", "undecodable")

    asyncio.run(asyncio.wait_for(main(), 20))


class Narrow:
    """As msgpack with a number of more than 64 bits: neither a ValueError nor a TypeError."""

    content_type = "application/narrow"

    def encode(self, message: BaseModel, /) -> bytes:
        if isinstance(message, Booked) and message.order == "wide":
            raise OverflowError("Integer value out of range")
        return JSON_SERIALIZER.encode(message)

    def decode(self, body: bytes, as_: type[M], /) -> M:
        return JSON_SERIALIZER.decode(body, as_)

    def data(self, body: bytes, /) -> object:
        return JSON_SERIALIZER.data(body)


def test_an_outgoing_message_that_no_serializer_can_write_harms_no_other_of_its_batch() -> None:
    service = Service("shop", serializer=Narrow())

    @service.handler(batch=Batch(size=3, wait=SECOND))
    async def book(events: list[Placed]) -> list[Booked]:
        return [Booked(order=event.order) for event in events]

    async def main() -> None:
        async with run(service) as t:
            for order in ("a", "wide", "b"):
                await t.publish(Placed(order=order))
            await t.idle()
            assert {event.order for event in t.published(Booked)} == {"a", "b"}
            (letter,) = t.dead_letters()
            assert (letter.message.key, letter.reason) == ("wide", "unsendable")

    asyncio.run(asyncio.wait_for(main(), 20))


class Cut(MemoryAdapter):
    """A client that cancels what it is asked, as some do when their connection is lost."""

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        await asyncio.sleep(0.01)
        raise asyncio.CancelledError


def test_what_a_client_cancels_is_answered() -> None:
    async def main() -> None:
        async with Bus(memory(Cut), source="test") as bus:
            sending = [bus.publish(Placed(order=str(n))) for n in range(3)]
            found = await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), 5)
            assert [type(error) for error in found] == [PublishError] * 3
            assert all(error.failures[0].unknown for error in found if isinstance(error, PublishError))

    asyncio.run(main())


def test_a_publish_that_its_own_caller_cancels_stays_cancelled() -> None:
    class Deaf(MemoryAdapter):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        async with Bus(memory(Deaf), source="test") as bus:
            task = asyncio.ensure_future(bus.publish(Placed(order="a")))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


class Set(VirtualClock):
    """Somebody sets it while its timers run."""

    off = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.off


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(milliseconds=-2), timedelta(hours=1)])
def test_a_clock_that_is_set_keeps_no_circuit_open(off: timedelta) -> None:
    clock = Set()
    breaker = Breaker(Circuit(failures=1, pause=5 * SECOND), "charge", "charger", clock)
    breaker.failed("first", "1")
    clock.off = off
    assert (breaker.failed("second", "2") or 0) <= 5, "no longer than the pause"
    gate = breaker.asks("third")
    assert gate is not None
    asked: list[object] = []
    gate.then(lambda: asked.append(breaker.asks("third")))
    clock.advance(VirtualClock.now(clock) + 5 * SECOND)
    assert asked == [None], "it is the probe"


def test_a_probe_that_hangs_is_not_waited_for_for_ever() -> None:
    clock = VirtualClock()
    breaker = Breaker(Circuit(failures=1, pause=5 * SECOND), "charge", "charger", clock)
    breaker.failed("first", "1")
    clock.advance(clock.now() + 5 * SECOND)
    assert breaker.asks("second") is None
    gate = breaker.asks("third")
    assert gate is not None
    asked: list[object] = []
    gate.then(lambda: asked.append(breaker.asks("third")))
    clock.advance(clock.now() + timedelta(minutes=2))
    assert asked == [None], "another probe"
    breaker.succeeded()
    assert breaker.state is None


def test_the_attempts_of_one_that_expired_while_it_waited_are_nobody_elses() -> None:
    """They were kept by the identity of its delivery, which the next one may get."""
    service = Service("scales", concurrency=1)

    @service.handler(circuit=Circuit(failures=1, pause=2 * SECOND), retry=Retry(first_delay=timedelta(0)))
    async def weigh(command: Weigh) -> int:
        raise OSError("away")

    async def main() -> None:
        async with run(service) as t:
            outcomes = next(iter(t._running._consuming.values()))._outcomes
            waiting = asyncio.gather(
                *(t.request(Weigh(order=str(n)), timeout=5 * SECOND) for n in range(3)), return_exceptions=True
            )
            await t.idle()
            assert [type(error) for error in await waiting] == [RequestTimeout] * 3
            assert not outcomes._waiting

    asyncio.run(asyncio.wait_for(main(), 20))


def with_handler(*, fails: bool) -> Service:
    service = Service("shop")

    @service.handler(retry=Retry(attempts=2, first_delay=timedelta(minutes=1)))
    async def book(event: Placed) -> None:
        if fails:
            raise OSError("away")

    return service


def without_handler() -> Service:
    """The next release, which has none for `Placed`."""
    service = Service("shop")

    @service.handler
    async def other(event: Cancelled) -> None: ...

    return service


@pytest.mark.parametrize("redriven", [False, True])
def test_what_a_handler_has_tried_is_not_dropped_where_there_is_none_any_more(redriven: bool) -> None:
    async def main() -> None:
        store = Store()
        clock = VirtualClock()
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=store, clock=clock)
        async with Bus(adapter, source="test", clock=clock) as bus:
            async with bus.run(with_handler(fails=True)) as running:
                await bus.publish(Placed(order="a"))
                await eventually(lambda: running.counts["shop"].retried == 1, "it failed")
                if redriven:
                    clock.advance(clock.now() + timedelta(minutes=2))
                    await eventually(lambda: running.counts["shop"].dead == 1, "it was given up on")
            if redriven:
                assert await bus.dead_letters("shop").retry(all=True) == 1
            async with bus.run(without_handler()) as running:
                for _ in range(130):
                    clock.advance(clock.now() + timedelta(seconds=31))
                    for _ in range(20):
                        await asyncio.sleep(0)
                (letter,) = [letter async for letter in bus.dead_letters("shop").list()]
                assert letter.reason == "unhandled"
                assert running.counts["shop"].skipped == 0
            async with bus.run(with_handler(fails=False)) as running:
                assert await bus.dead_letters("shop").retry(all=True) == 1
                await eventually(lambda: running.counts["shop"].handled == 1, "the old release takes it")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_was_only_delayed_is_skipped_as_ever() -> None:
    async def main() -> None:
        async with run(without_handler()) as t:
            await t.publish(Placed(order="a"), delay=timedelta(minutes=1))
            await t.idle()
            assert not t.dead_letters()
            assert t._running.counts["shop"].skipped == 1

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_reply_that_is_too_large_is_a_failure_that_its_requester_hears_of() -> None:
    class Print(Command[str], service="press"):
        pages: int

    service = Service("press")

    @service.handler
    async def print_(command: Print) -> str:
        return "x" * command.pages * 1_000

    async def main() -> None:
        async with run(service) as t:
            assert len(await t.request(Print(pages=1))) == 1_000
            with pytest.raises(CommandFailed, match=r"MessageTooLarge: .* is .* bytes on the wire"):
                await t.request(Print(pages=2_000))

    asyncio.run(asyncio.wait_for(main(), 20))


def test_whoever_watches_and_fails_harms_no_message() -> None:
    service = with_handler(fails=False)
    told: list[Happened] = []

    def watch(happened: Happened) -> None:
        told.append(happened)
        raise OSError("disk full")

    async def main() -> None:
        async with Bus(memory(), source="test", watch=watch) as bus, bus.run(service) as running:
            await bus.publish(Placed(order="a"))
            await eventually(lambda: running.counts["shop"].handled == 1 and not running.at_work, "it is handled")
            assert len(told) == 2

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_thread_that_cannot_be_started_leaves_nothing_to_be_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        threads = Threads("test", 1)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            await threads.run(began.append, 1)
        monkeypatch.setattr(threading.Thread, "start", start)
        await asyncio.wait_for(threads.run(began.append, 2), 5)
        await asyncio.wait_for(threads.run(began.append, 3), 5)
        threads.stop()

    asyncio.run(main())
    assert began == [2, 3]


def test_a_handler_that_hangs_does_not_keep_others_from_work_while_one_is_to_run_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(suspects, "_QUIET", 0.05)
    monkeypatch.setattr(suspects, "_ALONE", 0.05)
    service = Service("shop", quarantine_after=4)
    handled: list[str] = []
    let_go = asyncio.Event()

    @service.handler
    async def book(event: Placed) -> None:
        if event.order in ("hangs", "suspect"):
            await let_go.wait()
        handled.append(event.order)

    async def main() -> None:
        async with Bus(memory(), source="test") as bus, bus.run(service) as running:
            await bus.publish(Placed(order="hangs"))
            await eventually(lambda: running.at_work == 1, "it hangs")
            suspect = foreign(b'{"order":"suspect"}')
            copy = {**suspect.headers, h.SUSPECT: "2 2 0", h.ORIGIN: "topic:orders", h.GROUP: "shop"}
            await bus.deliver([suspect._replace(address=Address("retry", "shop"), headers=copy)])
            await asyncio.sleep(0.02)
            await bus.publish(Placed(order="a"))
            await eventually(lambda: "a" in handled, "others go on beside one that hangs")
            assert "a handler still runs" in caplog.text
            let_go.set()
            await eventually(lambda: "hangs" in handled, "it has ended")
            let_go.clear()
            await eventually(lambda: "others go on beside it" in caplog.text, "the suspect hangs as well", 10)
            await bus.publish(Placed(order="b"))
            await eventually(lambda: "b" in handled, "others go on beside the suspect")
            let_go.set()
            await eventually(lambda: "suspect" in handled, "and it is handled")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_all_letters_of_a_message_are_discarded_at_once() -> None:
    """A retry that was cut off between copy and removal leaves two of one message."""
    service = with_handler(fails=True)

    async def main() -> None:
        async with Bus(memory(), source="test") as bus, bus.run(service):
            letters = bus.dead_letters("shop")
            await bus.deliver([foreign(b"{}")])  # no order: it cannot be read
            while not (found := [letter async for letter in letters.list()]):
                await asyncio.sleep(0.01)
            again = {**found[0].message.headers, h.REDRIVEN: "1"}
            await bus.deliver([found[0].message._replace(headers=again)])
            assert await letters.discard(all=True) == 2
            assert not [letter async for letter in letters.list()]

    asyncio.run(asyncio.wait_for(main(), 20))


class InOrder(MemoryAdapter):
    """As on Kafka, what comes before one that runs is waited for at the end."""

    capabilities = replace(MemoryAdapter.capabilities, settles_in_order=True)


@pytest.mark.parametrize("adapter", [InOrder, MemoryAdapter])
def test_a_stop_waits_for_no_circuit(adapter: type[MemoryAdapter]) -> None:
    service = Service("shop")
    began, fail, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @service.handler(circuit=Circuit(failures=1, pause=timedelta(minutes=30)), retry=Retry(in_order=True))
    async def book(event: Placed) -> None:
        if event.order == "slow":
            await fail.wait()
        raise OSError("away")

    @service.handler
    async def cancel(event: Cancelled) -> None:
        began.set()
        await go_on.wait()

    async def main() -> None:
        store = Store()
        async with Bus(memory(adapter, store), source="test") as bus:
            async with bus.run(service) as running:
                await bus.publish_many([Placed(order=order) for order in ("slow", "a", "b", "c")])
                await eventually(lambda: running.health().circuits, "its circuit is open")
                await bus.publish(Cancelled(order="d"))
                await began.wait()
                asyncio.get_running_loop().call_later(0.05, fail.set)
                asyncio.get_running_loop().call_later(0.1, go_on.set)
                stopped = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - stopped < 5
            left = [stored.message.key for queue in store.queues.values() for stored in queue.ready]
            assert sorted(map(str, left)) == ["a", "b", "c", "slow"], "what waited is given back"

    asyncio.run(asyncio.wait_for(main(), 40))


class Forgetful(MemoryAdapter):
    """Has lost all that is in hand."""

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        consumer = await super().consume(group, receive, in_flight=in_flight)
        settle = consumer.settle

        def lost(delivery: Delivery, how: Settlement) -> None:
            if isinstance(how, Release):
                receive.unsettled(delivery, how, LostMessage("gone"))
            else:
                settle(delivery, how)

        consumer.settle = lost  # type: ignore[method-assign]
        return consumer


class Noted(Event, topic="orders", key="order"):
    """Nobody takes it."""

    order: str


def test_what_is_given_back_and_is_no_longer_there_goes_to_the_retry_address() -> None:
    service = Service("shop", concurrency=8)
    began, go_on = asyncio.Event(), asyncio.Event()
    booked: list[int] = []

    @service.handler
    async def book(event: Placed) -> None:
        began.set()
        await go_on.wait()
        booked.append(event.total)

    async def main() -> None:
        store = Store()
        async with Bus(memory(Forgetful, store), source="test") as bus:
            async with bus.run(service):
                await bus.publish_many(
                    [*(Placed(order="a", total=total) for total in range(3)), Noted(order="a"), Noted(order="a")]
                )
                await began.wait()
                asyncio.get_running_loop().call_later(0.05, go_on.set)
            assert booked == [0]
            left = [str(stored.message.address) for queue in store.queues.values() for stored in queue.ready]
            assert left == ["retry:shop"] * 2
            async with bus.run(service) as running:
                await eventually(lambda: sorted(booked) == [0, 1, 2], "what was in hand is tried")
                assert running.counts["shop"].retried == 0

    asyncio.run(asyncio.wait_for(main(), 20))
