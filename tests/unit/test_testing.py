"""The harness for users' tests: a virtual clock, idle, and failures that tell the story."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

import pytest

from eventkit import (
    Command,
    CommandFailed,
    CommandRejected,
    Context,
    Event,
    GiveUp,
    NoOwner,
    Reject,
    Retry,
    Service,
    testing,
)

T = TypeVar("T")

HOUR = timedelta(hours=1)


class Placed(Event, topic="orders", key="order"):
    order: str


class Booked(Event, topic="parcels"):
    order: str


class Charge(Command[int], service="payments", key="order"):
    order: str


class Nobodys(Command, service="nobody"):
    pass


def run(main: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await main

    return asyncio.run(limited())


def services(attempts_until_success: int = 1) -> tuple[Service, Service]:
    orders = Service("orders", retry=Retry(attempts=4, first_delay=HOUR, factor=2, max_delay=24 * HOUR, jitter=0))
    payments = Service("payments")

    @orders.handler
    async def placed(event: Placed, context: Context) -> Booked:
        if context.attempt < attempts_until_success:
            raise ConnectionError("no carrier")
        context.send(Charge(order=event.order))
        return Booked(order=event.order)

    @payments.handler
    async def charge(command: Charge) -> int:
        if command.order == "rejected":
            raise Reject("no money")
        if command.order == "failing":
            raise GiveUp("no bank")
        return len(command.order)

    return orders, payments


def test_what_happened_can_be_asked_for() -> None:
    async def main() -> None:
        async with testing.run(*services()) as t:
            await t.publish(Placed(order="7"), headers={"x": "y"})
            await t.send(Charge(order="rejected"))
            await t.send(Charge(order="failing"))
            await t.idle()
            assert t.published() == [Placed(order="7"), Booked(order="7")]
            assert t.published(Booked) == [Booked(order="7")]
            assert sorted(c.order for c in t.sent(Charge)) == ["7", "failing", "rejected"]
            assert t.handled(Placed) == [Placed(order="7")]
            assert t.handled(Placed, group="orders") == [Placed(order="7")]
            assert t.handled(Placed, group="payments") == []
            assert t.handled(Charge) == [Charge(order="7")]
            assert t.rejected() == t.rejected(Charge) == ["no money"]
            assert t.retried() == []
            (letter,) = t.dead_letters()
            assert t.dead_letters(Placed) == []
            assert letter.read(Charge) == Charge(order="failing")
            assert (letter.group, letter.reason, letter.attempts, str(letter.error)) == (
                "payments",
                "gave-up",
                1,
                "no bank",
            )
            assert repr(letter) == "DeadLetter(Charge, group='payments', reason='gave-up', attempts=1)"

    run(main())


def test_hours_of_retries_pass_at_once() -> None:
    async def main() -> None:
        began = time.monotonic()
        async with testing.run(*services(attempts_until_success=4)) as t:
            before = t.now
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.retried(Placed) == [Placed(order="7")] * 3
            assert t.published(Booked) == [Booked(order="7")]
            assert timedelta(hours=7) <= t.now - before < timedelta(hours=8)
        assert time.monotonic() - began < 2

    run(main())


def test_delays_pass_at_once_and_in_their_order() -> None:
    service = Service("orders")
    seen: list[str] = []

    @service.handler
    async def placed(event: Placed) -> None:
        seen.append(event.order)

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="in two hours"), delay=2 * HOUR)
            await t.publish(Placed(order="in one hour"), delay=HOUR)
            await t.publish(Placed(order="now"))
            await t.idle()

    run(main())
    assert seen == ["now", "in one hour", "in two hours"]


def test_in_order_waits_pass_at_once_too() -> None:
    service = Service("orders", retry=Retry(attempts=3, first_delay=timedelta(seconds=20), jitter=0, in_order=True))
    seen: list[tuple[str, int]] = []

    @service.handler
    async def placed(event: Placed, context: Context) -> None:
        seen.append((event.order, context.attempt))
        if context.attempt < 3 and len(seen) < 4:
            raise ValueError

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.publish(Placed(order="7"))
            await t.idle()

    run(main())
    assert seen == [("7", 1), ("7", 2), ("7", 3), ("7", 1)]


def test_requests_bring_their_reply_or_its_error() -> None:
    async def main() -> None:
        async with testing.run(*services()) as t:
            assert await t.request(Charge(order="12345")) == 5
            with pytest.raises(CommandRejected, match="no money"):
                await t.request(Charge(order="rejected"))
            with pytest.raises(CommandFailed, match="GiveUp: no bank"):
                await t.request(Charge(order="failing"))
            with pytest.raises(NoOwner, match="the service 'nobody' has no inbox"):
                await t.send(Nobodys())
            assert t.dead_letters() == []

    run(main())


def test_a_request_that_cannot_succeed_in_time_fails_without_waiting() -> None:
    service = Service("payments", retry=Retry(attempts=5, first_delay=HOUR / 3, factor=1, max_delay=HOUR, jitter=0))

    @service.handler
    async def charge(command: Charge, context: Context) -> int:
        assert context.deadline is not None
        raise ConnectionError(f"attempt {context.attempt}")

    async def main() -> None:
        async with testing.run(service) as t:
            began = time.monotonic()
            with pytest.raises(CommandFailed, match="ConnectionError: attempt 3"):  # a fourth could not be in time
                await t.request(Charge(order="7"), timeout=HOUR)
            assert time.monotonic() - began < 2

    run(main())


def test_the_story_tells_what_happened_in_order() -> None:
    async def main() -> None:
        async with testing.run(*services(attempts_until_success=2)) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            await t.send(Charge(order="failing"))
            await t.idle()
            story = t.story()
            assert [line.split(":")[0].strip() for line in story.splitlines()] == [
                f"{n}. {who}"
                for n, who in enumerate(
                    ["test", "orders", "orders", "orders", "orders", "payments", "test", "payments"], 1
                )
            ]
            lines = story.splitlines()
            assert "test: published: Placed(order='7')" in lines[0]
            assert (
                "orders: failed, to be retried: Placed(order='7'), attempt 1, ConnectionError: no carrier" in lines[1]
            )
            assert lines[1].endswith("next in 3.6e+03 s")
            assert "handled: Placed(order='7'), attempt 2" in lines[4]
            assert "payments: dead letter: " in lines[-1]
            assert lines[-1].endswith("GiveUp: no bank")

    run(main())


def test_an_exception_that_leaves_the_block_takes_the_story_along() -> None:
    async def main() -> None:
        async with testing.run(*services(attempts_until_success=2)) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.published(Booked) == [Booked(order="8")]

    with pytest.raises(AssertionError) as raised:
        run(main())
    (note,) = raised.value.__notes__
    assert note.startswith("what happened, in order:\n    1. test: published: Placed(order='7')\n")
    assert "failed, to be retried: Placed(order='7')" in note
    assert note in "".join(traceback.format_exception(raised.value))


def test_nothing_happened_is_a_story_too() -> None:
    async def main() -> None:
        async with testing.run(*services()) as t:
            await t.idle()
            assert t.story() == "  nothing"

    run(main())


def test_idle_that_does_not_come_says_so() -> None:
    service = Service("orders", stop_timeout=timedelta(0))

    @service.handler
    async def placed(event: Placed) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            with pytest.raises(AssertionError, match=r"not idle after 0.05 s; what happened:\n.*published: Placed"):
                await t.idle(timedelta(seconds=0.05))

    run(main())


def test_a_request_to_a_handler_that_hangs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventkit.testing.virtual._LONGEST", 0.05)
    service = Service("payments", stop_timeout=timedelta(0))

    @service.handler
    async def charge(command: Charge) -> int:
        await asyncio.Event().wait()
        return 1

    async def main() -> None:
        async with testing.run(service) as t:
            with pytest.raises(AssertionError, match=r"no reply to Charge\(order='7'\) after 0.05 s; what happened:"):
                await t.request(Charge(order="7"))

    run(main())


def test_a_request_turns_the_clock_no_further_than_it_needs() -> None:
    gate = asyncio.Event()
    service = Service("payments", concurrency=1)

    @service.handler
    async def charge(command: Charge, context: Context) -> int:
        if command.order == "first":
            await gate.wait()
        return 1

    async def main() -> None:
        async with testing.run(service) as t:
            await t.send(Charge(order="first"), delay=2 * HOUR)
            began = t.now
            first = asyncio.ensure_future(t.request(Charge(order="second"), timeout=HOUR))
            assert await first == 1
            assert t.now - began < HOUR
            gate.set()
            await t.idle()
            assert t.now - began >= 2 * HOUR

    run(main())


def test_it_is_always_memory_and_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKER", "kafka")
    monkeypatch.setenv("EVENTKIT_NO_SUCH_SETTING", "1")

    async def main() -> None:
        async with testing.run(*services()) as one, testing.run(*services()) as other:
            await one.publish(Placed(order="7"))
            await one.idle()
            await other.idle()
            assert len(one.published()) == 2
            assert other.published() == []

    run(main())
