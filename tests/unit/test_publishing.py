"""Publishing: topics made when first needed, what is given up on, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytest

import eventkit
from eventkit import (
    Bus,
    Closed,
    Command,
    Context,
    DeclarationError,
    Event,
    InvalidMessage,
    NotProvisioned,
    Provision,
    PublishError,
    Retry,
    Service,
    SettingsError,
    UndecodableMessage,
)
from eventkit import headers as h
from eventkit.adapter import Address, Connection, Group, Message
from eventkit.memory import MemoryAdapter, Store
from eventkit.replies import read

T = TypeVar("T")


class Placed(Event, topic="sales", key="order"):
    order: str


class Booked(Event, topic="parcels"):
    order: str


class Weigh(Command[int], service="scales"):
    order: str


class Slow(MemoryAdapter):
    """Takes its time to make a topic, and counts how often it is asked to."""

    asked = 0

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        self.asked += 1
        await asyncio.sleep(0.001)
        await super().provision(wanted, how)


class Silent(MemoryAdapter):
    """Never answers."""

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        await asyncio.Event().wait()
        raise AssertionError


class Held(MemoryAdapter):
    """Holds what it is given until it may go on, and counts how it came."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.batches: list[int] = []
        self.go_on = asyncio.Event()

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        self.batches.append(len(messages))
        await self.go_on.wait()
        return await super().publish(messages)


def made(cls: type[T], store: Store | None = None) -> T:
    kind: Any = cls
    adapter: T = kind(Connection(url=None, namespace="", client="test"), store=store or Store())
    return adapter


def run(story: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await story

    return asyncio.run(limited())


def test_a_topic_is_made_once_however_many_publish_at_the_same_time() -> None:
    async def main() -> None:
        adapter = made(Slow)
        async with Bus(adapter, source="t") as bus:
            await asyncio.gather(*(bus.publish(Placed(order=str(n))) for n in range(100)))
            assert adapter.asked == 1
            found = [delivery.message.key async for delivery in adapter.browse(Address("topic", "sales"))]
        assert found == [str(n) for n in range(100)]

    run(main())


def test_one_goes_out_at_once_and_those_that_come_meanwhile_together() -> None:
    async def story() -> tuple[int, list[int]]:
        adapter = made(Held)
        async with Bus(adapter, source="test") as bus:
            adapter.go_on.set()
            await bus.publish(Placed(order="first"))
            adapter.go_on.clear()
            adapter.batches.clear()
            many = [asyncio.create_task(bus.publish(Placed(order=str(n)))) for n in range(100)]
            while sum(adapter.batches) < 100:
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, adapter.go_on.set)
        return sum(task.done() and task.exception() is None for task in many), adapter.batches

    # the bus ended only when all were answered
    assert run(story()) == (100, [1, 99])


def test_a_publish_that_is_given_up_holds_up_no_other() -> None:
    async def story() -> None:
        adapter = made(Held)
        async with Bus(adapter, source="test") as bus:
            adapter.go_on.set()
            await bus.publish(Placed(order="first"))
            adapter.go_on.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bus.publish(Placed(order="given up"))
            adapter.go_on.set()
            await bus.publish(Placed(order="next"))

    run(story())


def test_a_publish_that_gives_up_leaves_the_making_to_the_others() -> None:
    async def main() -> None:
        async with Bus(made(Slow), source="t") as bus:
            first = asyncio.ensure_future(bus.publish(Placed(order="1")))
            second = asyncio.ensure_future(bus.publish(Placed(order="2")))
            await asyncio.sleep(0)
            first.cancel()
            await second
            assert first.cancelled()

    run(main())


@pytest.mark.parametrize("provision", list(Provision))
def test_a_topic_that_was_deleted_is_made_again_where_it_may_be(provision: Provision) -> None:
    async def main() -> None:
        store = Store()
        async with Bus(made(MemoryAdapter, store), source="maker") as maker:
            await maker.publish(Placed(order="1"))
        adapter = made(MemoryAdapter, store)
        async with Bus(adapter, source="t", provision=provision) as bus:
            await bus.publish(Placed(order="2"))
            store.topics.clear()
            if provision is Provision.CREATE:
                await bus.publish_many([Placed(order="3"), Booked(order="3")])
                assert [d.message.key async for d in adapter.browse(Address("topic", "sales"))] == ["3"]
            else:
                with pytest.raises(PublishError) as raised:
                    await bus.publish(Placed(order="3"))
                assert isinstance(raised.value.__cause__, NotProvisioned)

    run(main())


def test_what_a_handler_returns_goes_out_though_its_topic_was_deleted() -> None:
    service = Service("shipping", retry=Retry(attempts=1))

    @service.handler
    async def book(event: Placed) -> Booked:
        return Booked(order=event.order)

    async def main() -> None:
        store = Store()
        adapter = made(MemoryAdapter, store)
        async with Bus(adapter, source="t") as bus, bus.run(service) as running:
            for order in ("1", "2"):
                store.topics.pop("parcels", None)
                await bus.publish(Placed(order=order))
                while running.at_work or not store.topics.get("parcels"):
                    await asyncio.sleep(0)
            assert not running.counts["shipping"].dead

    run(main())


def test_publishing_many_ends_when_its_caller_gives_up() -> None:
    async def main() -> None:
        async with Bus(made(Silent), source="t") as bus:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await bus.publish_many(Placed(order=str(n)) for n in range(5_000))

    run(main())  # whose limit is below the 15 s that a silent broker is given


def test_a_request_ends_with_its_bus() -> None:
    service = Service("scales", stop_timeout=timedelta(milliseconds=1))

    @service.handler
    async def weigh(command: Weigh) -> int:
        await asyncio.Event().wait()
        return 7

    async def main() -> None:
        store = Store()
        async with Bus(made(MemoryAdapter, store), source="s") as serving, serving.run(service):
            bus = Bus(made(MemoryAdapter, store), source="t")
            async with bus:
                asked = asyncio.ensure_future(bus.request(Weigh(order="7")))
                while not any(name.startswith("t.") for name in store.queues):
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            with pytest.raises(Closed, match="this bus was closed"):
                await asked

    run(main())


def test_nothing_is_kept_of_requesters_that_are_gone() -> None:
    service = Service("scales")

    @service.handler
    async def weigh(command: Weigh) -> int:
        return 7

    async def main() -> None:
        store = Store()
        adapter = made(MemoryAdapter, store)
        async with Bus(adapter, source="s") as serving, serving.run(service):

            def kept() -> tuple[int, ...]:
                publisher = serving._open().publisher
                return len(publisher._known), len(adapter._names), len(store.queues)

            sizes = set()
            for _ in range(3):
                async with Bus(made(MemoryAdapter, store), source="t") as bus:
                    assert await bus.request(Weigh(order="7")) == 7
                sizes.add(kept())
            assert len(sizes) == 1

    run(main())


def test_a_reply_that_is_none_is_an_error_of_ours_without_its_values() -> None:
    reply = Message(Address("reply", "r"), "eventkit.reply", None, {h.CAUSATION: "1"}, b'{"a": "a secret"}')
    with pytest.raises(UndecodableMessage, match=r"the reply to 1 does not fit dict\[str, int\]: a: ") as raised:
        read(reply, dict[str, int])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("argument", ["id", "correlation_id"])
@pytest.mark.parametrize("value", ["a\nb", "\ud800", 7])
def test_ids_that_cannot_be_sent(argument: str, value: object) -> None:
    given: dict[str, Any] = {argument: value}

    async def main() -> None:
        async with Bus(made(MemoryAdapter), source="t") as bus:
            with pytest.raises(InvalidMessage, match=f"{argument}="):
                await bus.publish(Placed(order="7"), **given)
            if argument == "correlation_id":
                with pytest.raises(InvalidMessage, match=f"{argument}="):
                    await bus.request(Weigh(order="7"), **given)

    run(main())


@pytest.mark.parametrize("argument", ["service", "namespace"])
def test_names_that_no_broker_takes(argument: str) -> None:
    given: dict[str, Any] = {argument: "a b"}
    with pytest.raises(SettingsError, match=rf"connect\({argument}=\.\.\.\): 'a b' is no name"):
        eventkit.connect("memory", **given)


def test_a_handler_cannot_ask_for_a_delay_that_no_broker_keeps() -> None:
    refused = []
    service = Service("shipping", retry=Retry(attempts=1))

    @service.handler
    async def book(event: Placed, context: Context) -> None:
        for delay in (timedelta(hours=25), timedelta(seconds=-1)):
            with pytest.raises(DeclarationError, match="it lies between zero and 24 hours"):
                context.publish(Booked(order=event.order), delay=delay)
            with pytest.raises(DeclarationError, match="it lies between zero and 24 hours"):
                context.send(Weigh(order=event.order), delay=delay)
            refused.append(delay)

    async def main() -> None:
        async with eventkit.testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.idle()

    run(main())
    assert len(refused) == 2


@pytest.mark.parametrize("answers", [0, 1, 5])
def test_an_adapter_that_answers_too_little_or_too_much_is_an_error_for_each_caller(answers: int) -> None:
    class Miscounts(MemoryAdapter):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
            await super().publish(messages)
            return [None] * answers

    async def main() -> None:
        async with Bus(made(Miscounts), source="t") as bus:
            published = [bus.publish(Placed(order=str(n))) for n in range(3)]
            many = bus.publish_many([Placed(order="3"), Placed(order="4")])
            found = await asyncio.gather(*published, many, return_exceptions=True)
            for error in found[1:]:
                assert isinstance(error, PublishError)
                assert f"memory gave {answers} answers to 2 messages" in str(error)
                assert all(failure.unknown for failure in error.failures)

    run(main())


def test_a_stray_object_among_events_takes_no_failure_with_it() -> None:
    class Full(MemoryAdapter):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
            return [OSError("no room")] * len(messages)

    async def main() -> None:
        async with Bus(made(Full), source="t") as bus:
            stray: Any = [Placed(order="1"), Placed(order="2"), "no event", Placed(order="3")]
            with pytest.raises(DeclarationError, match="not str") as raised:
                await bus.publish_many(stray)
            failed = raised.value.__cause__
            assert isinstance(failed, PublishError)
            assert [failure.index for failure in failed.failures] == [0, 1]
            assert any("2 of 2 events were not confirmed" in note for note in raised.value.__notes__)

            def breaks() -> Any:
                yield Placed(order="1")
                raise LookupError("the source ran dry")

            with pytest.raises(LookupError) as broken:
                await bus.publish_many(breaks())
            assert isinstance(broken.value.__cause__, PublishError)

    run(main())


def test_what_was_made_of_a_bus_is_open_as_long_as_that_is() -> None:
    service = Service("scales")

    @service.handler
    async def weigh(command: Weigh) -> int:
        return 7

    async def main() -> None:
        bus = Bus(made(MemoryAdapter), source="t")
        early = bus.carrying(correlation_id="early")
        async with bus, bus.run(service):
            late = bus.carrying(correlation_id="late")
            await early.publish(Placed(order="1"))
            assert await late.request(Weigh(order="2")) == 7
            assert early.health().ok
        for other in (bus, early, late):
            for doing in (other.publish(Placed(order="3")), other.request(Weigh(order="3")), other.deliver([])):
                with pytest.raises(Closed):
                    await doing
            with pytest.raises(Closed):
                other.health()
            with pytest.raises(Closed):
                other.run(service)
            with pytest.raises(Closed):
                other.dead_letters("scales")
        async with bus:
            await late.publish(Placed(order="4"))

    run(main())


def test_another_event_loop_is_told_so() -> None:
    """Clients that are used from two may never answer."""

    async def elsewhere(bus: Bus) -> list[BaseException]:
        asked: list[Awaitable[object]] = [
            bus.publish(Placed(order="a")),
            bus.publish_many([Placed(order="a")]),
            bus.request(Weigh(order="a")),
            bus.deliver([bus.encode(Placed(order="a"))]),
        ]
        return [error for error in await asyncio.gather(*asked, return_exceptions=True) if error is not None]

    async def main() -> None:
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store())
        async with Bus(adapter, source="test") as bus:
            found = await asyncio.to_thread(asyncio.run, elsewhere(bus))
            assert [type(error) for error in found] == [DeclarationError] * 4
            assert "eventkit.blocking" in str(found[0])
            await bus.publish(Placed(order="a"))

    asyncio.run(main())
