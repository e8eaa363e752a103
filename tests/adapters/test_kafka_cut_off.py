"""Partitions that end before where their group had come: the end of a log was lost, or the topic was made anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from eventkit.adapter import DONE, RELEASE, Move
from eventkit.errors import LostMessage
from eventkit.testing.brokers import Broker
from eventkit_kafka.progress import decode, encode
from tests.adapters.test_kafka import Bench, Scenario, bench, copy, message, run, until
from tests.adapters.test_kafka_beginnings import admin_of
from tests.adapters.test_kafka_membership import consumer_of


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


def patiently(url: str, scenario: Scenario) -> None:
    """aiokafka takes ten seconds and more to find out that a topic is gone."""

    async def whole() -> None:
        async with bench(url, partitions=1) as it, asyncio.timeout(90):
            await scenario(it)

    asyncio.run(whole())


def test_what_was_settled_in_a_log_that_is_gone_hides_nothing_of_the_next(url: str) -> None:
    async def scenario(it: Bench) -> None:
        tp = TopicPartition(it.topic("orders"), 0)
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        assert it.adapter._running is not None
        mark = OffsetAndMetadata(5, encode(5, 10, [(7, 9)]))
        await it.adapter._running.cluster.topics.commit(it.topic(it.group.name), {tp: mark})  # type: ignore[dict-item]
        seen = await it.consume()
        await until(lambda: len(seen.got) == 3)
        await it.publish(*(message(body=b"%d" % n) for n in range(3, 12)))
        await until(lambda: len(seen.got) == 12)
        assert seen.bodies == [b"%d" % n for n in range(12)]

    run(url, scenario, partitions=1)


def test_what_is_in_hand_of_a_topic_that_was_deleted_is_not_dropped(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        later = datetime.now(UTC) + timedelta(seconds=8)
        await it.publish(*(message(body=b"%d" % n) for n in range(4)))
        await it.publish(message(it.group.retry, b"later", "k")._replace(due=later))
        await until(lambda: len(seen.got) == 4)
        member = consumer_of(seen).member
        await until(lambda: consumer_of(seen)._held.next_due() is not None)
        trackers = dict(member.trackers)
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("orders"), it.topic("shipping.retry")])
        await until(lambda: not set(trackers.values()) & set(member.trackers.values()), 60)
        first, second, third, fourth = seen.got
        seen.how = DONE
        assert len(seen.held) == 4, "nobody else has them"
        seen.settle(first)
        seen.settle(second, Move(copy(second, it.group.retry)))
        seen.settle(third, Move(copy(third, it.group.dead)))
        seen.settle(fourth, RELEASE)
        await until(lambda: [delivery for delivery, error in seen.failed if isinstance(error, LostMessage)] == [fourth])
        await until(lambda: seen.bodies[4:] == [b"1", b"later"], 40)
        assert [letter.message.body for letter in await it.dead()] == [b"2"]

    patiently(url, scenario)


def test_what_a_stop_gives_back_of_a_topic_that_was_deleted_comes_again(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message(body=b"in hand"))
        await until(lambda: seen.got)
        consumer = consumer_of(seen)
        consumer._tasks[-1].cancel()  # who would make the topics again
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("orders"), it.topic("shipping.retry")])
        await until(lambda: consumer._lending.cut, 60)
        (delivery,) = seen.got
        seen.settle(delivery, RELEASE)
        assert isinstance(seen.failed[0][1], LostMessage)
        seen.settle(delivery, Move(copy(delivery, it.group.retry)))
        await seen.consumer.stop(8)
        again = await it.consume()
        await until(lambda: again.bodies == [b"in hand"])

    patiently(url, scenario)


def test_a_log_that_is_cut_under_its_reader_is_read_from_its_beginning(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n) for n in range(6)))
        await until(lambda: len(seen.got) == 6)
        member = consumer_of(seen).member
        tp = TopicPartition(it.topic("orders"), 0)
        seen.settle(seen.got[0])
        seen.settle(seen.got[3])
        tracker = member.trackers[tp]
        await until(lambda: not tracker.touched)
        member.fetcher._places[tp].next += 20  # as if that had been read of a log that lost its end since
        tracker.next = 26
        await until(lambda: member.trackers[tp] is not tracker)
        await until(lambda: len(seen.got) == 12)
        assert seen.bodies[6:] == [b"%d" % n for n in range(6)], "all of it once more"
        old, new = seen.got[1], seen.got[7]
        seen.settle(old, Move(copy(old, it.group.dead)))
        await until(lambda: tracker.lent() == 3)
        assert [letter.message.body for letter in await it.dead()] == [b"1"]
        assert member.trackers[tp].lent() == 6, "those that were read anew are others"
        seen.settle(new)
        await seen.consumer.flush(5)
        assert it.adapter._running is not None
        mark = (await it.adapter._running.cluster.topics.committed(it.topic(it.group.name)))[tp]
        assert mark.offset == 0
        assert decode(*mark)[1] == [(1, 2)]

    run(url, scenario, partitions=1)


def test_a_dead_letter_whose_topic_was_deleted_makes_it_again(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message(body=b"dies"))
        await until(lambda: seen.got)
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("shipping.dead")])
        (delivery,) = seen.got
        letter = Move(copy(delivery, it.group.dead))
        tried = 0
        ends = time.monotonic() + 80
        while not await it.dead():  # as the core asks for it again
            assert time.monotonic() < ends
            if len(seen.failed) >= tried:
                tried = len(seen.failed) + 1
                seen.settle(delivery, letter)
            await asyncio.sleep(0.1)

    patiently(url, scenario)
