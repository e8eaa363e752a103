"""What a broker's client cancels, where it closes something, ends no task of an adapter: it had stood still since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("eventkit_kafka")
pytest.importorskip("eventkit_rabbit")

from aiokafka import TopicPartition  # type: ignore[import-untyped]

from eventkit.adapter import Address, Delivery, Move
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import Broker
from eventkit_kafka.commits import Commits
from eventkit_kafka.progress import Tracker
from eventkit_rabbit.consume import RabbitConsumer
from tests.adapters.test_rabbit import GROUP, TOPIC, Inbox, message, world


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


class Cut:
    """Cancels what it is asked the first times, then answers."""

    def __init__(self, times: int, error: BaseException, answer: Callable[..., Any]) -> None:
        self.asked = 0
        self._times = times
        self._error = error
        self._answer = answer

    async def __call__(self, *arguments: Any) -> Any:
        self.asked += 1
        if self.asked <= self._times:
            raise self._error
        return await self._answer(*arguments)


async def _nothing(*_: object) -> int:
    return 7


ERRORS = pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("on purpose")], ids=repr)


@ERRORS
def test_kafka_goes_on_committing(error: BaseException) -> None:
    commit = Cut(2, error, _nothing)
    tracker = Tracker(TopicPartition("topic", 0), Address("topic", "orders"), ())
    tracker.next, tracker.touched = 5, True

    async def main() -> None:
        member = SimpleNamespace(consumer=SimpleNamespace(commit=commit), trackers={tracker.tp: tracker})
        commits = Commits("group", member, 0.001)
        task = asyncio.create_task(commits.regularly())
        commits.touched()
        await eventually(lambda: commit.asked == 3, "it is asked again until it answers")
        assert not task.done()
        task.cancel()

    run(main())


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("rabbit").url


def consumer_of(inbox: Inbox) -> RabbitConsumer:
    assert isinstance(inbox.consumer, RabbitConsumer)
    return inbox.consumer


def test_rabbit_says_of_a_copy_that_it_was_not_made(url: str) -> None:
    def move(delivery: Delivery) -> Move:
        return Move(delivery.message._replace(address=GROUP.retry))

    async def main() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(move))
            consumer = consumer_of(inbox)
            consumer._publish = Cut(1, asyncio.CancelledError(), consumer._publish)
            assert await adapter.publish([message(TOPIC, "a")]) == [None]
            await eventually(lambda: inbox.failed, "told of it")
            delivery, _ = inbox.failed[0]
            inbox.settle(delivery, move(delivery))
            await eventually(lambda: len(inbox.got) > 1, "asked for again, it is made")

    run(main())


@ERRORS
def test_rabbit_goes_on_opening_its_channel(url: str, error: BaseException) -> None:
    async def main() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            consumer = consumer_of(inbox)
            opened = consumer._open = Cut(2, error, consumer._open)  # type: ignore[method-assign]
            session = consumer._session
            assert session is not None
            await session.wire.close_channel(session.channel)
            session.end(ConnectionError("on purpose"))
            await eventually(lambda: opened.asked == 3 and consumer.error is None, "it consumes again")
            assert await adapter.publish([message(TOPIC, "a")]) == [None]
            await eventually(lambda: inbox.ids == ["a"], "what is published comes")

    run(main())


def test_rabbit_goes_on_consuming_after_a_pause(url: str) -> None:
    async def main() -> None:
        async with world(url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            consumer = consumer_of(inbox)
            consumer.pause()
            await eventually(lambda: not consumer._subscription.on, "it is paused")
            consumer._apply = Cut(1, asyncio.CancelledError(), consumer._apply)  # type: ignore[method-assign]
            consumer.resume()
            assert await adapter.publish([message(TOPIC, "a")]) == [None]
            await eventually(lambda: inbox.ids == ["a"], "what is published comes")

    run(main())
