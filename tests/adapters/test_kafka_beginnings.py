"""Where Kafka's groups go on when what said so is gone: never past what nobody has read."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from eventkit.adapter import Address, Group, Provision
from eventkit.testing.brokers import Broker
from eventkit_kafka import codec
from eventkit_kafka.reading import is_tombstone, scan
from tests.adapters.test_kafka import ORDERS, Bench, Recorder, message, run, until, until_measured

HUNDRED_YEARS = 100 * 365 * 24 * 3600


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


@asynccontextmanager
async def admin_of(it: Bench) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=it.url.removeprefix("kafka://"))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def forget_offsets(it: Bench, group: Group) -> None:
    """As the broker does by itself when nobody has read for `offsets.retention.minutes`."""
    assert it.adapter._running is not None
    topics = it.adapter._running.cluster.topics
    ends = time.monotonic() + 10
    while not await topics.delete_group(it.topic(group.name)):
        assert time.monotonic() < ends, "it still has members"
        await asyncio.sleep(0.05)
    assert not await topics.committed(it.topic(group.name))


async def next_process(it: Bench, group: Group | None = None) -> Recorder:
    """Another process with an adapter of its own, which provisions what it reads."""
    await it.adapter.stop(5)
    it.adapter = it.another()
    await it.adapter.start(10)
    await it.adapter.provision([group or it.group], Provision.CREATE)
    return await it.consume(group=group)


async def notes_of_starts(it: Bench) -> list[bytes]:
    """Where the group is to begin with topics that are new to it, as its topic of dead letters has it."""
    assert it.adapter._running is not None
    topics = it.adapter._running.cluster.topics
    tps = (await topics.partitions([it.topic("shipping.dead")]))[it.topic("shipping.dead")]
    kept: dict[bytes | None, bytes] = {}
    async for _, record in scan(topics._clients, await topics.begins(tps), await topics.ends(tps)):
        if is_tombstone(record):
            kept.pop(record.key, None)
        elif record.headers.get(codec.NOTE) == "starts":
            kept[record.key] = record.value or b""
    return list(kept.values())


def warnings(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


def test_a_group_whose_offsets_were_forgotten_reads_all_that_is_kept(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Address("inbox", "shipping")

    async def scenario(it: Bench) -> None:
        await it.publish(message(body=b"before"))
        seen = await it.consume()
        await until(lambda: seen.got)
        await seen.consumer.stop(5)
        await forget_offsets(it, it.group)
        copy = message(it.group.retry, b"retry")
        await it.publish(message(body=b"meanwhile"), message(inbox, b"command"), copy)
        seen = await next_process(it)
        await until(lambda: set(seen.bodies) == {b"before", b"meanwhile", b"command", b"retry"})
        (said,) = warnings(caplog, "its committed offsets are gone")
        assert f"topic {it.topic('orders')}, partition 0 (offsets 0 to 1)" in said
        assert "kafka-consumer-groups --reset-offsets" in said
        await until_measured(it, lambda backlog: backlog.ready == 0 and backlog.delayed == 0)
        await seen.consumer.stop(5)
        caplog.clear()
        await it.publish(message(body=b"after"))
        seen = await next_process(it)
        await until(lambda: seen.got)
        assert seen.bodies == [b"after"], "it has offsets again"
        assert not warnings(caplog, "committed offsets")

    run(url, scenario, partitions=1)


def test_what_was_published_before_the_group_was_made_is_its_own_affair(url: str) -> None:
    """A topic that is new to a group whose offsets are gone is no topic that it had read."""

    async def scenario(it: Bench) -> None:
        other = Address("topic", "other")
        await it.adapter.provision([other], Provision.CREATE)
        await it.publish(message(other, b"old"), message(body=b"1"))
        await forget_offsets(it, it.group)
        grown = Group(it.group.name, (*it.group.sources, other))
        seen = await next_process(it, grown)
        await it.publish(message(other, b"new"))
        await until(lambda: len(seen.got) == 2)
        assert set(seen.bodies) == {b"1", b"new"}

    run(url, scenario)


def test_what_is_noted_of_a_group_is_no_dead_letter(url: str) -> None:
    async def scenario(it: Bench) -> None:
        for _ in range(3):
            await it.adapter.provision([it.group], Provision.CREATE)
        assert await it.dead() == []
        await it.publish(message(it.group.dead))
        (letter,) = await it.dead()
        assert (await it.adapter.measure(it.group)).dead == 1
        assert await it.adapter.remove([letter]) == [None]
        assert await it.dead() == []

    run(url, scenario)


def test_a_group_that_was_removed_begins_anew(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        await it.publish(message(body=b"1"))
        await until(lambda: seen.got)
        await seen.consumer.stop(5)
        await it.adapter.disband(it.group.name)
        await it.publish(message(body=b"2"))
        seen = await next_process(it)
        await it.publish(message(body=b"3"))
        await until(lambda: seen.got)
        assert seen.bodies == [b"3"]
        assert not warnings(caplog, "committed offsets")

    run(url, scenario)


def test_a_partition_added_while_nobody_reads_is_read_from_its_beginning(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        await it.publish(message(body=b"1"))
        await until(lambda: seen.got)
        await seen.consumer.stop(5)
        async with admin_of(it) as admin:
            await admin.create_partitions({it.topic("orders"): NewPartitions(3)})
        producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
        await producer.start()
        for partition in (1, 2):
            await producer.send_and_wait(it.topic("orders"), b"%d" % (partition + 1), partition=partition)
        await producer.stop()
        seen = await next_process(it)
        await until(lambda: len(seen.got) == 2)
        assert sorted(seen.bodies, key=str) == [b"2", b"3"]

    run(url, scenario, partitions=1)


def test_offsets_are_committed_for_good(url: str) -> None:
    """By itself a broker forgets them a week after the last member has gone."""

    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        await it.publish(message())
        await until(lambda: seen.got)
        await seen.consumer.stop(5)
        async with asyncio.timeout(20):
            kept = [left async for left in lifetimes(url, it.topic("shipping"))]
        assert kept, "nothing was committed"
        assert min(kept) > HUNDRED_YEARS - 60

    run(url, scenario)


async def lifetimes(url: str, group: str) -> AsyncIterator[float]:
    """In seconds, of what the group has committed: the broker's own record of it says when it expires."""
    log = "__consumer_offsets"
    consumer = AIOKafkaConsumer(bootstrap_servers=url.removeprefix("kafka://"), exclude_internal_topics=False)
    await consumer.start()
    try:
        await consumer._client.set_topics([log])
        tps = [TopicPartition(log, partition) for partition in consumer.partitions_for_topic(log) or ()]
        consumer.assign(tps)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    key, value = record.key or b"", record.value
                    (length,) = struct.unpack_from(">h", key, 2)
                    if key[:2] in (b"\0\0", b"\0\1") and key[4 : 4 + length].decode() == group and value is not None:
                        version, _ = struct.unpack_from(">hq", value)
                        assert version == 1, "the only one with a time at which it expires"
                        committed, expires = struct.unpack(">qq", value[-16:])
                        yield (expires - committed) / 1000
    finally:
        await consumer.stop()


def test_all_that_retention_took_while_a_group_reads_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        await it.publish(message(body=b"first"))
        await until(lambda: seen.got)
        seen.consumer.pause()
        await asyncio.sleep(0.3)  # a round that had begun
        big = bytes(200_000)
        for _ in range(30):  # more than is read ahead
            await it.publish(message(body=big))
        async with admin_of(it) as admin:
            await admin.delete_records({TopicPartition(it.topic("orders"), 0): RecordsToDelete(31)})
        seen.consumer.resume()
        await until(lambda: warnings(caplog, "were dropped by Kafka's retention"))
        await it.publish(message(body=b"last"))
        await until(lambda: b"last" in seen.bodies)
        (said,) = warnings(caplog, "were dropped by Kafka's retention")
        read = len(seen.got) - 1
        assert f"{31 - read} messages of topic {it.topic('orders')}, partition 0 (offsets {read} to 30)" in said

    run(url, scenario, partitions=1)


def test_a_topic_that_ends_before_where_it_was_to_be_read_on_is_read_and_told(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        assert it.adapter._running is not None
        topics = it.adapter._running.cluster.topics
        await topics.commit(it.topic("shipping"), {TopicPartition(it.topic("orders"), 0): 100})
        seen = await it.consume(group=Group("shipping", (ORDERS,)))
        await until(lambda: len(seen.got) == 3)
        (said,) = warnings(caplog, "ends before offset 100")
        assert "from its beginning, offset 0" in said

    run(url, scenario, partitions=1)


@pytest.mark.parametrize("before", [(), (b"before",)], ids=["empty", "with a message"])
def test_a_running_group_begins_with_a_new_topic_where_the_first_of_the_next_release_was_told_to(
    url: str, before: Sequence[bytes]
) -> None:
    """Only members may commit where that is, and the one that found it may die, or get other partitions."""
    parcels = Address("topic", "parcels")

    async def scenario(it: Bench) -> None:
        wider = Group("shipping", (*it.group.sources, parcels))
        running = await it.consume()
        await it.adapter.provision([parcels], Provision.CREATE)
        await it.publish(*(message(parcels, body) for body in before))
        first, second = it.another(), it.another()
        await first.start(10)
        await first.provision([wider], Provision.CREATE)
        await first.stop(5)
        await it.publish(message(parcels, b"after"))
        await second.start(10)
        await second.provision([wider], Provision.CREATE)
        seen = await it.consume(group=wider, on=second)
        await until(lambda: seen.bodies == [b"after"])
        assert not await it.dead(), "what is noted is no dead letter"
        await running.consumer.stop(5)
        await second.provision([wider], Provision.CREATE)  # what has begun is noted
        assert len(await notes_of_starts(it)) == 1
        other = Address("topic", "other")
        await second.provision([other, Group("shipping", (*wider.sources, other))], Provision.CREATE)
        (note,) = await notes_of_starts(it)
        assert b"other" in note, "what has begun since need not be noted for ever"
        await second.stop(5)

    run(url, scenario, partitions=1)
