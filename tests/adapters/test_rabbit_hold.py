"""How many messages RabbitMQ delivers at once, changed while it does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from eventkit import Bus, Context, Event, Service, room
from eventkit.adapter import Connection
from eventkit.testing.brokers import Broker, BrokerUnavailable, provide
from eventkit_rabbit import RabbitAdapter
from eventkit_rabbit.consume import RabbitConsumer
from tests.adapters.test_rabbit import GROUP, TOPIC, Inbox, message, run, until, world


class Paper(Event, topic="papers"):
    number: int


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_change_under_load_repeats_and_reorders_nothing(
    broker: Callable[[str], Broker], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What is on its way to a consumer that ends would go back, be counted as delivered, and come behind others."""
    count, draw = 5_000, random.Random(seed)

    async def work() -> None:
        async with world(broker("rabbit").url) as w:
            adapter = await w.provisioned()
            for first in range(0, count, 100):
                answers = await adapter.publish([message(TOPIC, n) for n in range(first, first + 100)])
                assert set(answers) == {None}
            inbox = await w.consume(adapter, Inbox(), in_flight=10)
            inbox.consumer.hold(40)
            tags = set()
            while len(inbox.got) < count:
                before = len(inbox.got)
                inbox.consumer.hold(draw.choice([1, 4, 10, 40, 200]))
                wanted = min(before + draw.randint(1, 200), count)
                await until(lambda wanted=wanted: len(inbox.got) >= wanted)  # type: ignore[misc]
                tags.add(inbox.consumer._subscription._tag)  # type: ignore[attr-defined]
            assert len(tags - {""}) > 4, "it was changed"
            assert [int(id_) for id_ in inbox.ids] == list(range(count)), "lost, twice, or out of order"
            assert Counter(delivery.deliveries for delivery in inbox.got) == {1: count}
            await inbox.consumer.flush(5)
            assert (await adapter.measure(GROUP)).ready == 0
            assert "no longer consumes" not in caplog.text

    run(work())


def test_a_slow_handler_keeps_within_the_time_that_the_broker_gives_a_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts from the delivery, for those, too, that wait behind others. Here 3 s, where 30 minutes are usual, and a
    second's work is held, where it is 5."""
    monkeypatch.setattr(room, "_TARGET", 1.0)
    count, seconds = 25, 0.2
    handled: Counter[int] = Counter()
    arrivals: Counter[int | None] = Counter()
    service = Service("press", concurrency=1)

    @service.handler
    async def paper(event: Paper, context: Context) -> None:
        arrivals[context.delivery.deliveries] += 1
        await asyncio.sleep(seconds)
        handled[event.number] += 1

    async def work(url: str) -> None:
        adapter = RabbitAdapter(Connection(SecretStr(url), "t", "test"))
        async with Bus(adapter, source="test") as bus, bus.run(service):
            await bus.publish_many([Paper(number=n) for n in range(count)])
            await until(lambda: len(handled) == count, seconds=count * seconds * 3)

    try:
        own = provide("rabbit", settings={"consumer_timeout": "3000", "advanced.channel_tick_interval": "200"})
    except BrokerUnavailable as error:
        pytest.skip(str(error))
    with own:
        run(work(own.url))
    assert handled == Counter(range(count)), "a message was handled twice"
    assert arrivals == {1: count}
    assert "no longer consumes" not in caplog.text


def test_what_is_done_is_acknowledged_at_once_though_another_number_is_to_be_held(
    broker: Callable[[str], Broker],
) -> None:
    """Where few messages come, no consumer is ever given as many as it may have."""
    count = 6

    async def work() -> None:
        async with world(broker("rabbit").url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox(), in_flight=10)
            for number in range(count):
                before = inbox.consumer._session  # type: ignore[attr-defined]
                inbox.consumer.hold(40 if number % 2 else 400)
                await adapter.publish([message(TOPIC, number)])
                await until(lambda number=number: str(number) in inbox.ids)  # type: ignore[misc]
                await asyncio.sleep(0.2)  # so long an acknowledgement may take
                adapter._now()._consuming.now().abort(ConnectionError("cut"))  # type: ignore[union-attr]
                await until(lambda before=before: inbox.consumer._session not in (None, before))  # type: ignore[misc, attr-defined]
            await adapter.publish([message(TOPIC, "last")])
            await until(lambda: "last" in inbox.ids)
            assert inbox.ids == [*map(str, range(count)), "last"], "it came again"

    run(work())


def test_a_consumer_has_ended_when_the_broker_says_so(
    broker: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it delivers, and a pause keeps what comes: others wait for that in vain."""

    async def work() -> None:
        async with world(broker("rabbit").url) as w:
            adapter = await w.provisioned()
            inbox = await w.consume(adapter, Inbox())
            consumer = inbox.consumer
            assert isinstance(consumer, RabbitConsumer)
            channel = consumer._subscription.session.channel
            cancel, asked, go_on = channel.basic_cancel, asyncio.Event(), asyncio.Event()

            async def late(tag: str) -> object:
                asked.set()
                await go_on.wait()
                return await cancel(tag)

            monkeypatch.setattr(channel, "basic_cancel", late)
            consumer.pause()
            await asked.wait()
            assert consumer._subscription.on
            assert await adapter.publish([message(TOPIC, "on its way")]) == [None]
            await until(lambda: consumer._arrived)
            go_on.set()
            await until(lambda: not consumer._subscription.on)
            assert inbox.ids == []
            consumer.resume()
            await until(lambda: inbox.ids == ["on its way"])

    run(work())
