"""Kafka, at random: reading and commits fail, replicas come, go and die, and nothing that was published is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka.errors import KafkaConnectionError

from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Consumer, Delivery, Move, Settlement
from eventkit.testing.brokers import Broker
from eventkit_kafka import KafkaAdapter, held
from eventkit_kafka.clients import end_consumer
from eventkit_kafka.consume import GroupConsumer
from eventkit_kafka.progress import Tracker
from tests.adapters.test_kafka import Bench, bench, copy, message, until


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


class Core:
    """Handles each message in a task, for a while; some it moves to the retry topic or gives back."""

    def __init__(self, chaos: Chaos) -> None:
        self.consumer: Consumer | None = None
        self._chaos = chaos
        self._running: dict[asyncio.Task[None], Delivery] = {}

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        for delivery in batch:
            task = asyncio.create_task(self._handle(delivery))
            self._running[task] = delivery
            task.add_done_callback(self._running.pop)
        while len(self._running) > 300:
            await asyncio.sleep(0.01)

    async def _handle(self, delivery: Delivery) -> None:
        await asyncio.sleep(self._chaos.draw.random() ** 3 * 0.3)
        how = self._chaos.outcome(delivery)
        if self.consumer is not None:
            if how is DONE:
                self._chaos.done.add(delivery.message.headers[h.ID])
            self.consumer.settle(delivery, how)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool], /) -> None:
        mine = [(task, delivery) for task, delivery in self._running.items() if belongs(delivery)]
        for task, delivery in mine:
            if self._chaos.draw.random() < 0.5 and not needed(delivery):
                task.cancel()
        if mine:
            await asyncio.wait([task for task, _ in mine])

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        if self.consumer is not None:
            asyncio.get_running_loop().call_later(0.2, self.consumer.settle, delivery, how)

    async def drop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))


class Chaos:
    """What goes wrong, by a seed, until it is over."""

    def __init__(self, it: Bench, seed: int) -> None:
        self.draw = random.Random(seed)
        self.done: set[str] = set()
        self.over = False
        self._it = it
        self._live: list[tuple[KafkaAdapter, Core, GroupConsumer]] = []

    def happens(self, chance: float) -> bool:
        return not self.over and self.draw.random() < chance

    def outcome(self, delivery: Delivery) -> Settlement:
        if self.happens(0.1):
            due = datetime.now(UTC) + timedelta(seconds=self.draw.choice([0.0, 0.2, 1.0]))
            return Move(copy(delivery, self._it.group.retry, due))
        return RELEASE if self.happens(0.04) else DONE

    async def come_or_go(self) -> None:
        few, many = len(self._live) < 2, len(self._live) > 3
        if few or not (many or self.happens(0.5)):
            await self.come()
        else:
            await self._go(*self._live.pop(self.draw.randrange(len(self._live))))

    async def come(self) -> None:
        adapter, core = self._it.another(), Core(self)
        await adapter.start(20)
        consumer = await adapter.consume(self._it.group, core, in_flight=self.draw.choice([10, 100, 500]))
        assert isinstance(consumer, GroupConsumer)
        core.consumer = consumer
        commit, take_due = consumer.member.commits.commit, consumer._held.take_due

        async def shaky_commit(trackers: Any, seconds: float) -> bool:
            if self.happens(0.03):
                return False
            return await commit(trackers, seconds)

        async def shaky_take_due(batch: list[Delivery], ahead: set[Tracker]) -> None:
            if batch and self.happens(0.006):
                raise KafkaConnectionError("on purpose")
            await take_due(batch, ahead)
            if self.happens(0.05):
                await asyncio.sleep(self.draw.random() * 0.3)

        consumer.member.commits.commit = shaky_commit  # type: ignore[method-assign]
        consumer._held.take_due = shaky_take_due  # type: ignore[method-assign]
        self._live.append((adapter, core, consumer))

    async def _go(self, adapter: KafkaAdapter, core: Core, consumer: GroupConsumer) -> None:
        if self.happens(0.5):  # it dies
            core.consumer = None
            for task in consumer._tasks:
                task.cancel()
            await core.drop()
            await end_consumer(consumer.member.consumer, 5.0)
        else:
            await core.drop()
            await consumer.stop(self.draw.choice([0.3, 3.0]))
        await adapter.stop(2)

    async def end(self) -> None:
        for adapter, _, consumer in self._live:
            await consumer.stop(3)
            await adapter.stop(2)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_whatever_fails(url: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(it: Bench) -> None:
        chaos, published = Chaos(it, seed), set[str]()
        monkeypatch.setattr(held, "_BYTES", chaos.draw.choice([0, 2_000]))
        read = held.records_at

        async def shaky(*arguments: Any) -> Any:
            if chaos.happens(0.1):
                raise KafkaConnectionError("on purpose")
            return await read(*arguments)

        monkeypatch.setattr(held, "records_at", shaky)
        ends = time.monotonic() + 6
        moving = asyncio.create_task(chaos.come())
        while time.monotonic() < ends:
            messages = [message(key=str(n)) for n in range(chaos.draw.choice([1, 20, 100]))]
            answers = await it.adapter.publish(messages)
            published |= {m.headers[h.ID] for m, answer in zip(messages, answers, strict=True) if answer is None}
            await asyncio.sleep(0.05)
            if moving.done() and chaos.happens(0.1):
                await moving
                moving = asyncio.create_task(chaos.come_or_go())
        await moving
        chaos.over = True
        await chaos.come()
        await until(lambda: published <= chaos.done, 60)
        await chaos.end()

    async def whole() -> None:
        short = timedelta(seconds=6), timedelta(seconds=4)
        async with bench(url, partitions=4, session_timeout=short[0], rebalance_timeout=short[1]) as it:
            async with asyncio.timeout(150):
                await scenario(it)

    asyncio.run(whole())
