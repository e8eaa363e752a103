"""What must never stop a group: stray cancellations, and an adapter that raises where it must not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventkit import BrokerUnavailable, Bus, Command, Event, Reject, Service
from eventkit.adapter import Connection, Delivery, Group, Receive
from eventkit.contract.checks import eventually, stays
from eventkit.memory import MemoryAdapter, MemoryConsumer, Store


class Told(Event, topic="told"):
    number: int


class Step(Event, topic="steps", key="key"):
    key: str


class Ask(Command, service="asked"):
    number: int


class Refused(Event, topic="refused"):
    number: int


def memory(cls: type[MemoryAdapter] = MemoryAdapter) -> MemoryAdapter:
    return cls(Connection(url=None, namespace="", client="t"), store=Store())


class Slow(MemoryAdapter):
    """Publishing takes a moment."""

    async def publish(self, messages: Any, /) -> Any:
        await asyncio.sleep(0.05)
        return await super().publish(messages)


def test_a_stop_that_is_cancelled_begins_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """As by a second Ctrl-C: `asyncio.run` then waits for all tasks."""
    began: list[int] = []
    service = Service("busy", concurrency=1)

    @service.handler
    async def told(event: Told) -> None:
        began.append(event.number)
        await asyncio.sleep(2)

    async def main() -> None:
        async with Bus(memory(), source="t") as bus:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), bus.run(service):
                    await bus.publish_many([Told(number=n) for n in range(3)])
                    await eventually(lambda: began, "one runs")

    async def wait_for(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        return (await asyncio.wait(tasks, timeout=3))[1] if tasks else set()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        assert not loop.run_until_complete(wait_for(left))
    finally:
        loop.close()
    assert began == [0]
    assert "busy: the stop was cut off; 1 messages that are held here come again" in caplog.messages


@pytest.mark.parametrize(("keys", "said"), [(["hot"], True), (["hot", "hot", "cold"], True), (list("abc"), False)])
def test_a_key_that_fills_the_room_of_its_group_is_said(
    keys: list[str], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service("crowded", concurrency=len(set(keys)) + 1)  # one worker has nothing to do
    go_on = asyncio.Event()

    @service.handler
    async def step(event: Step) -> None:
        await go_on.wait()

    async def main() -> None:
        async with Bus(memory(), source="t") as bus, bus.run(service) as running:
            await bus.publish_many([Step(key=keys[n % len(keys)]) for n in range(1_100)])
            await eventually(lambda: running.at_work >= 1_000, "its room is full")
            await asyncio.sleep(0.25)  # it is looked at a few times a second
            go_on.set()
            await eventually(lambda: running.counts["crowded"].handled == 1_100, "all are handled")

    asyncio.run(main())
    found = [record.getMessage() for record in caplog.records if "have the key" in record.getMessage()]
    assert len(found) == said
    assert not said or "have the key hot and run one after another" in found[0]


def test_a_cancellation_left_behind_stops_no_group() -> None:
    """A handler schedules the end of its own task and rejects; it comes while the rejection is being published."""
    service = Service("asked", concurrency=1)
    seen: list[int] = []

    @service.handler
    async def ask(command: Ask) -> None:
        first = command.number not in seen
        seen.append(command.number)
        if command.number == 1 and first:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.02, task.cancel)
            raise Reject("not now", Refused(number=1))

    async def main() -> None:
        async with Bus(memory(Slow), source="t") as bus, bus.run(service) as running:
            await bus.send(Ask(number=1))
            await bus.send(Ask(number=2))
            await eventually(lambda: 2 in seen and not running.at_work, "both handled")

    asyncio.run(main())
    assert seen == [1, 1, 2], "the message whose outcome was cut off is decided again"


def test_an_adapter_that_raises_in_settle_stops_no_group() -> None:
    service = Service("told", concurrency=1)
    seen: list[int] = []
    raised = 0

    @service.handler
    async def told(event: Told) -> None:
        seen.append(event.number)

    class Raising(MemoryAdapter):
        async def consume(self, *args: Any, **more: Any) -> MemoryConsumer:
            consumer = await super().consume(*args, **more)
            settle = consumer.settle

            def once(delivery: Any, how: Any, /) -> None:
                nonlocal raised
                if not raised:
                    raised += 1
                    raise RuntimeError("no adapter may do that")
                settle(delivery, how)

            consumer.settle = once  # type: ignore[method-assign]
            return consumer

    async def main() -> None:
        async with Bus(memory(Raising), source="t") as bus, bus.run(service) as running:
            await bus.publish_many([Told(number=number) for number in range(3)])
            await eventually(lambda: len(seen) == 3 and not running.at_work, "all handled")

    asyncio.run(main())
    assert (seen, raised) == ([0, 1, 2], 1)


def test_a_broker_that_fails_while_a_service_starts_is_a_typed_error() -> None:
    service = Service("told")

    @service.handler
    async def told(event: Told) -> None: ...

    class Failing(MemoryAdapter):
        async def provision(self, wanted: Any, how: Any, /) -> None:
            raise ConnectionResetError("gone")

    async def main() -> None:
        async with Bus(memory(Failing), source="t") as bus:
            with pytest.raises(BrokerUnavailable, match=r"cannot make the group told on memory .*gone"):
                async with bus.run(service):
                    pass

    asyncio.run(main())


def test_what_is_handed_over_while_it_stops_is_not_begun() -> None:
    """It would overtake what was given back before it."""

    class Late(MemoryConsumer):
        def pause(self) -> None:
            super().pause()
            while self._queue.ready:
                stored = self._queue.ready.popleft()
                stored.deliveries += 1
                self.held[id(stored)] = stored
                late = Delivery(stored.message, stored.position, stored.deliveries, stored)
                self.late = asyncio.get_running_loop().create_task(self._receive.deliveries([late]))

    class Hasty(MemoryAdapter):
        async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
            consumer = await super().consume(group, receive, in_flight=2)
            consumer.__class__ = Late
            return consumer

    began: list[int] = []
    service = Service("ear", concurrency=1)

    @service.handler
    async def told(event: Told) -> None:
        began.append(event.number)
        await asyncio.sleep(0.05)

    async def main() -> None:
        store = Store()
        adapter = Hasty(Connection(url=None, namespace="", client="test"), store=store)
        async with Bus(adapter, source="t") as bus:
            async with bus.run(service):
                await bus.publish_many([Told(number=number) for number in range(6)])
                while not began:
                    await asyncio.sleep(0)
            assert began == [0], "begun after the stop"
            left = sorted(stored.message.body or b"" for queue in store.queues.values() for stored in queue.ready)
            assert left == [b'{"number":%d}' % number for number in range(1, 6)], "each is given back"

    asyncio.run(main())


def test_the_core_holds_back_an_adapter_that_delivers_more_than_was_asked_for() -> None:
    service = Service("told", concurrency=1)
    go_on = asyncio.Event()

    @service.handler
    async def told(event: Told) -> None:
        await go_on.wait()

    class Generous(MemoryAdapter):
        async def consume(self, group: Any, receive: Any, /, *, in_flight: int) -> MemoryConsumer:
            return await super().consume(group, receive, in_flight=1_000_000)

    async def main() -> None:
        async with Bus(memory(Generous), source="t") as bus, bus.run(service) as running:
            await bus.publish_many([Told(number=number) for number in range(5_000)])
            await eventually(lambda: running.at_work >= 1_000, "it holds what it may")
            await stays(lambda: running.at_work < 2_000, "it takes in more and more", 0.2)
            go_on.set()
            await eventually(lambda: running.counts["told"].handled == 5_000, "all are handled")

    asyncio.run(main())
