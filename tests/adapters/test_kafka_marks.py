"""Kafka: what is committed says no more than what is settled, whatever ends while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata

from eventkit.adapter import Delivery
from eventkit.testing.brokers import Broker
from eventkit_kafka import KafkaAdapter
from eventkit_kafka.progress import Tracker
from tests.adapters.test_kafka import Bench, Recorder, message, run, until
from tests.adapters.test_kafka_membership import consumer_of, hang


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


async def marks(it: Bench) -> dict[TopicPartition, OffsetAndMetadata]:
    assert it.adapter._running is not None
    found = await it.adapter._running.cluster.topics.committed(it.topic(it.group.name))
    return {tp: mark for tp, mark in found.items() if tp.topic == it.topic("orders")}


async def giving_up(
    it: Bench, recorder: Recorder, another: KafkaAdapter, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Task[Recorder], asyncio.Event]:
    """The other one joins, and the recorder is asked for its partitions: what it still runs ends when that is set."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def revoked(*_: object) -> None:
        asked.set()
        await go_on.wait()

    monkeypatch.setattr(recorder, "revoked", revoked)
    joining = asyncio.create_task(it.consume(None, on=another))
    await asked.wait()
    return joining, go_on


def test_what_is_in_hand_when_reading_fails_during_a_rebalance_comes_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partitions are being taken away, and given up by who joins again: both write down how far it has come."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        await until(lambda: len(recorder.got) == 3)
        consumer = consumer_of(recorder)

        async def fail(*_: object) -> None:
            raise KafkaConnectionError("on purpose")

        another = it.another()
        await another.start(10)
        joining, go_on = await giving_up(it, recorder, another, monkeypatch)
        monkeypatch.setattr(consumer, "_round", fail)
        await until(lambda: not consumer.member.trackers)
        go_on.set()
        monkeypatch.undo()
        other = await joining
        await until(lambda: set(recorder.bodies[3:] + other.bodies) == {b"0", b"1", b"2"})
        await another.stop(5)

    run(url, scenario, partitions=1)


def test_what_is_in_hand_when_a_stop_cannot_commit_during_a_rebalance_comes_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        await until(lambda: len(recorder.got) == 3)
        consumer = consumer_of(recorder)
        another = it.another()
        await another.start(10)
        joining, go_on = await giving_up(it, recorder, another, monkeypatch)
        monkeypatch.setattr(consumer.member.consumer, "commit", hang)
        stopping = asyncio.create_task(recorder.consumer.stop(3))
        await until(lambda: not consumer.member.trackers)
        monkeypatch.undo()
        go_on.set()
        await stopping
        other = await joining
        await until(lambda: sorted(filter(None, other.bodies)) == [b"0", b"1", b"2"])
        await another.stop(5)

    run(url, scenario, partitions=1)


def test_the_mark_of_a_reader_that_has_given_up_is_not_written_before_the_first_delivery_of_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        consumer = consumer_of(recorder)
        take_due = consumer._held.take_due
        failed = False

        async def fail_once(batch: list[Delivery], ahead: set[Tracker]) -> None:
            nonlocal failed
            await take_due(batch, ahead)
            if batch and not failed:
                failed = True
                raise KafkaConnectionError("on purpose")

        monkeypatch.setattr(consumer._held, "take_due", fail_once)
        await it.publish(*(message(body=b"%d" % n, key=str(n)) for n in range(40)))
        await until(lambda: len(recorder.got) == 40, 20)
        assert failed
        await recorder.consumer.flush(5)
        assert {mark.offset for mark in (await marks(it)).values()} == {0}

    run(url, scenario, partitions=12)
