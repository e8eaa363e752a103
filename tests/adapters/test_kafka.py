"""What is peculiar to Kafka: progress marks, delay in a log, compacted dead letters, rebalances."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.record.util import calc_crc32c
from pydantic import SecretStr, ValidationError

from eventkit import headers as h
from eventkit.adapter import (
    DONE,
    RELEASE,
    Address,
    Backlog,
    Connection,
    Consumer,
    Delivery,
    Group,
    Message,
    Move,
    Provision,
    Settlement,
)
from eventkit.errors import MessageTooLarge, NoOwner, NotProvisioned, SettingsError
from eventkit.testing.brokers import Broker, provide
from eventkit_kafka import KafkaAdapter, KafkaSettings, codec, lives
from eventkit_kafka.codec import milliseconds
from eventkit_kafka.consume import GroupConsumer
from eventkit_kafka.membership import left_behind
from eventkit_kafka.partitions import CLASSES, delay_class, key_hash, retry_partition
from eventkit_kafka.progress import WAITING, Tracker, decode, encode
from eventkit_kafka.settings import Url

ORDERS = Address("topic", "orders")
How = Settlement | Callable[[Delivery], Settlement | None] | None


class Recorder:
    """The core's side, as small as can be. `how` None: hold what comes."""

    def __init__(self, how: How = DONE) -> None:
        self.how = how
        self.got: list[Delivery] = []
        self.held: dict[tuple[Address, str], Delivery] = {}
        self.most = 0
        self.failed: list[tuple[Delivery, Exception]] = []
        self.consumer: Consumer
        self.room: asyncio.Event = asyncio.Event()

    @property
    def bodies(self) -> list[bytes | None]:
        return [delivery.message.body for delivery in self.got]

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        self.got += batch
        self.held |= {_place(delivery): delivery for delivery in batch}
        self.most = max(self.most, len(self.held))
        await asyncio.sleep(0)
        for delivery in batch:
            how = self.how(delivery) if callable(self.how) else self.how
            if how is not None:
                self.settle(delivery, how)

    def settle(self, delivery: Delivery, how: Settlement = DONE) -> None:
        self.held.pop(_place(delivery), None)
        self.consumer.settle(delivery, how)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        for place, delivery in list(self.held.items()):
            if belongs(delivery):
                self.held.pop(place)

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        self.failed.append((delivery, error))


def _place(delivery: Delivery) -> tuple[Address, str]:
    return delivery.message.address, delivery.position


class Bench:
    """An adapter in a namespace of its own."""

    def __init__(self, url: str, namespace: str, **settings: Any) -> None:
        self.url = url
        self.namespace = namespace
        self.settings = KafkaSettings(**settings)
        self.adapter = self.another()
        self.group = Group("shipping", (ORDERS, Address("inbox", "shipping")))

    def another(self) -> KafkaAdapter:
        return KafkaAdapter(Connection(SecretStr(self.url), self.namespace, "test", self.settings))

    def topic(self, name: str) -> str:
        return f"{self.namespace}.{name}"

    async def consume(
        self, how: How = DONE, *, group: Group | None = None, in_flight: int = 1000, on: KafkaAdapter | None = None
    ) -> Recorder:
        recorder = Recorder(how)
        recorder.consumer = await (on or self.adapter).consume(group or self.group, recorder, in_flight=in_flight)
        return recorder

    async def publish(self, *messages: Message) -> None:
        answers = await self.adapter.publish(messages)
        assert not any(answers), answers

    async def dead(self) -> list[Delivery]:
        return [delivery async for delivery in self.adapter.browse(self.group.dead)]


@asynccontextmanager
async def bench(url: str, **settings: Any) -> AsyncIterator[Bench]:
    it = Bench(url, f"t{uuid.uuid4().hex[:8]}", **settings)
    await it.adapter.start(10)
    try:
        await it.adapter.provision([it.group], Provision.CREATE)
        yield it
    finally:
        await it.adapter.stop(5)
        await _clean(url, it.namespace)


async def _clean(url: str, namespace: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await admin.start()
    try:
        ours = [topic for topic in await admin.list_topics() if topic.startswith(f"{namespace}.")]
        if ours:
            await admin.delete_topics(ours)
    finally:
        await admin.close()


def message(address: Address = ORDERS, body: bytes | None = b"{}", key: str | None = None, **headers: str) -> Message:
    id_ = str(uuid.uuid4())
    named = {h.ID: id_, h.TYPE: "OrderPlaced", h.MESSAGE_ID: id_}
    if key is not None:
        named[h.PARTITION_KEY] = key
    return Message(address, "OrderPlaced", key, named | headers, body)


def copy(delivery: Delivery, address: Address, due: datetime | None = None) -> Message:
    headers = {**delivery.message.headers, h.MESSAGE_ID: str(uuid.uuid4())}
    return delivery.message._replace(address=address, headers=headers, due=due)


async def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.005)


async def until_measured(it: Bench, fits: Callable[[Backlog], bool], seconds: float = 5.0) -> Backlog:
    ends = time.monotonic() + seconds
    while not fits(backlog := await it.adapter.measure(it.group)):
        assert time.monotonic() < ends, backlog
        await asyncio.sleep(0.05)
    return backlog


Scenario = Callable[[Bench], Awaitable[None]]


def run(url: str, scenario: Scenario, **settings: Any) -> None:
    async def whole() -> None:
        async with bench(url, **settings) as it, asyncio.timeout(30):
            await scenario(it)

    asyncio.run(whole())


def bounded(work: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(whole())


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


# pure parts


def test_keys_are_placed_as_javas_client_places_them() -> None:
    for length in range(100):
        key = random.randbytes(length)
        assert key_hash(key) == murmur2(key) & 0x7FFFFFFF


def test_each_class_of_delay_has_partitions_of_its_own() -> None:
    delays = [0, 1, 4, 29, 100, 500, 3000, 80_000]
    assert [delay_class(seconds) for seconds in delays] == [0, 0, 1, 2, 3, 4, 5, 6]
    for spread in (1, 3):
        seen = [{retry_partition(s, None, CLASSES * spread, turn) for turn in range(20)} for s in delays[1:]]
        assert all(len(partitions) == spread for partitions in seen)
        assert len(set().union(*seen)) == CLASSES * spread
    assert {retry_partition(s, b"k", 2, 0) for s in delays} == {0, 1}


def test_a_mark_says_what_is_settled_above_it() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        tracker = Tracker(TopicPartition("t", 0), ORDERS, ())
        first = chance.randrange(1_000_000)
        read = [first]
        for _ in range(chance.randrange(1, 300)):
            read.append(read[-1] + (1 if chance.random() < 0.95 else chance.randrange(1, 5)))
        for offset in read:
            tracker.pending[offset] = 0
        tracker.next = read[-1] + 1
        left = {offset for offset in read if chance.random() < chance.random()}
        for offset in set(read) - left:
            del tracker.pending[offset]
        mark = tracker.mark()
        assert mark is not None
        watermark, metadata = mark
        assert watermark == min(left, default=tracker.next)
        end, ranges = decode(watermark, metadata)
        assert end == tracker.next
        # the next reader delivers what is left, and nothing that is settled
        following = Tracker(TopicPartition("t", 0), ORDERS, ranges)
        delivered = {o for o in read if o >= watermark and not following.skips(o)}
        assert delivered == left
        # and passes on what he has not read himself
        following = Tracker(TopicPartition("t", 0), ORDERS, ranges)
        following.next = watermark
        again = following.mark()
        assert again is not None
        assert decode(watermark, again[1])[1] == ranges


def test_a_mark_that_does_not_fit_leaves_out_but_never_invents() -> None:
    chance = random.Random(1)
    ranges = [(offset, offset + 1) for offset in sorted(chance.sample(range(0, 1_000_000, 2), 20_000))]
    text = encode(0, 1_000_000, ranges)
    assert 0 < len(text) <= 4096
    found = decode(0, text)[1]
    assert found
    assert set(found) <= set(ranges)


@pytest.mark.parametrize("metadata", ["", "foreign", "ek1:", "ek1:!!", "ek1z:AAAA", "ek1:gICA", "ek1:AQE="])
def test_metadata_of_others_says_nothing(metadata: str) -> None:
    assert decode(7, metadata) == (7, [])


def test_deaths_are_told_from_reader_to_reader() -> None:
    first = Tracker(TopicPartition("t", 0), ORDERS, ())
    assert first.mark() is None
    first.next = 7
    first.pending.update({3: 0, 5: 0})
    mark = first.mark()
    assert mark is not None
    assert lives.read(*mark) == (True, []), "it lives"
    second = Tracker(TopicPartition("t", 0), ORDERS, *left_behind(mark))
    assert [second.count(offset) for offset in (3, 6, 7, 90)] == [2, 2, 1, 1], "what the first had in hand"
    second.next = 12
    second.pending.update({5: 0, 9: 0})
    mark = second.mark()
    assert mark is not None
    third = Tracker(TopicPartition("t", 0), ORDERS, *left_behind(mark))
    assert [third.count(offset) for offset in (5, 9, 12)] == [3, 2, 1]
    third.next = 12
    third.open = False  # it leaves in order
    mark = third.mark()
    assert mark is not None
    assert left_behind(mark) == ([], [])
    assert decode(*mark) == (12, []), "the rest of the metadata is as before"


@pytest.mark.parametrize("said", ["", ";", ";x", ";1,", ";1,-4", ";²", ";0", ";" + "9" * 30, "foreign;1;2"])
def test_what_others_say_of_deaths_is_nothing(said: str) -> None:
    assert lives.read(5, said) == (False, [])


def test_urls() -> None:
    assert Url.parse("kafka://a:1,b").servers == ("a:1", "b:9092")
    assert Url.parse("localhost:9093").servers == ("localhost:9093",)
    secure = Url.parse("kafka+ssl://user:p%40ss@a:1")
    assert (secure.encrypted, secure.username, secure.password) == (True, "user", "p@ss")
    assert not Url.parse("kafka://[::1]:9092").encrypted
    for wrong in ("redis://a:1", "kafka://", "kafka://a:port"):
        with pytest.raises(SettingsError):
            Url.parse(wrong)
    with pytest.raises(SettingsError, match="percent-encode") as raised:
        Url.parse("kafka://user:s3cret/x@a:1")
    assert "s3cret" not in str(raised.value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_KAFKA__CREDENTIALS__USERNAME", "ada")
    monkeypatch.setenv("EVENTKIT_KAFKA__CREDENTIALS__PASSWORD", "s3cret")
    monkeypatch.setenv("EVENTKIT_KAFKA__SASL", "SCRAM-SHA-512")
    monkeypatch.setenv("EVENTKIT_KAFKA__TLS__ENABLED", "true")
    monkeypatch.setenv("EVENTKIT_KAFKA__PARTITIONS", "12")
    settings = KafkaSettings()
    assert settings.tls.enabled
    assert settings.partitions == 12
    assert "s3cret" not in repr(settings)
    KafkaAdapter(Connection(None, "", "test"))
    with pytest.raises(ValidationError):
        KafkaSettings(partition=1)  # type: ignore[call-arg]


# publishing


def test_round_trip(url: str) -> None:
    async def scenario(it: Bench) -> None:
        sent = [
            message(body=b"", note="h\u00e9 \u2603 \U0001f600", empty=""),
            message(body=None, key="tombstone"),
            message(body=bytes(range(256)), key="\u00fc"),
            message(Address("inbox", "shipping"), b"command"),
        ]
        await it.publish(*sent)
        seen = await it.consume()
        await until(lambda: len(seen.got) == len(sent))
        assert {d.message.headers[h.ID]: d.message for d in seen.got} == {m.headers[h.ID]: m for m in sent}

    run(url, scenario)


def test_each_message_has_its_own_answer(url: str) -> None:
    async def scenario(it: Bench) -> None:
        limit = 1_000_000
        answers = await it.adapter.publish(
            [
                message(body=b"1"),
                message(body=b"x" * 2_000_000),
                message(Address("topic", "nowhere")),
                message(Address("inbox", "nobody")),
                message(body=b"x" * limit),
                message(body=b"2"),
            ]
        )
        assert [type(answer) for answer in answers] == [
            type(None), MessageTooLarge, NotProvisioned, NoOwner, type(None), type(None),
        ]  # fmt: skip
        seen = await it.consume()
        await until(lambda: len(seen.got) == 3)
        assert sorted(len(body or b"") for body in seen.bodies) == [1, 1, limit]
        await it.publish(message())  # a refused one has not broken the producer's sequence

    run(url, scenario)


def test_a_topics_own_limit_is_kept(url: str) -> None:
    async def scenario(it: Bench) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        await admin.start()
        small = NewTopic(it.topic("small"), 2, 1, topic_configs={"max.message.bytes": "2000"})
        await admin.create_topics([small])
        await admin.close()
        address = Address("topic", "small")
        answers = await it.adapter.publish([message(address, b"x" * size, key="k") for size in [500] * 10 + [3000, 10]])
        assert [type(answer) for answer in answers] == [type(None)] * 10 + [MessageTooLarge, type(None)]

    run(url, scenario)


def test_a_topic_that_is_made_while_it_is_looked_for_is_found(url: str) -> None:
    async def scenario(it: Bench) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        await admin.start()
        publishing = asyncio.create_task(it.adapter.publish([message(Address("topic", "late"))]))
        await asyncio.sleep(0.2)  # it has been looked for, and was not there
        await admin.create_topics([NewTopic(it.topic("late"), 1, 1)])
        await admin.close()
        assert await publishing == [None]
        assert isinstance((await it.adapter.publish([message(Address("topic", "never"))]))[0], NotProvisioned)

    run(url, scenario)


def test_a_topic_that_is_new_takes_no_other_with_it(url: str) -> None:
    """Of a topic that it was never told of, aiokafka forgets all when it is told of another one."""

    async def scenario(it: Bench) -> None:
        publisher = it.adapter._open.cluster.publisher
        await publisher.client.force_metadata_update()  # of all topics that there are
        await it.publish(message())
        later = Address("topic", "later")
        await it.adapter.provision([later], Provision.CREATE)
        await it.publish(message(), message(later))

    run(url, scenario)


def test_order_of_a_key_within_and_between_calls(url: str) -> None:
    async def scenario(it: Bench) -> None:
        keys = ["a", "b", "c", "d", None]
        calls = [[message(body=b"%d" % (n * 50 + i), key=keys[i % 5]) for i in range(50)] for n in range(40)]
        answers = await asyncio.gather(*(it.adapter.publish(call) for call in calls))
        assert not any(answer for call in answers for answer in call)
        seen = await it.consume()
        await until(lambda: len(seen.got) == 2000)
        for key in keys[:-1]:
            numbers = [int(d.message.body or b"") for d in seen.got if d.message.key == key]
            assert numbers == sorted(numbers)

    run(url, scenario, partitions=4)


def test_messages_without_a_key_are_spread(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message() for _ in range(40)))
        seen = await it.consume()
        await until(lambda: len(seen.got) == 40)
        per = [sum(d.position.startswith(f"{p}:") for d in seen.got) for p in range(4)]
        assert per == [10] * 4

    run(url, scenario, partitions=4)


def test_a_topic_that_has_other_partitions_than_it_should_is_named(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        it.settings = it.settings.model_copy(update={"partitions": 5})
        more = it.another()
        await more.start(10)
        try:
            for _ in range(2):
                await more.provision([it.group], Provision.CREATE)
        finally:
            await more.stop(5)
        said = [record.getMessage() for record in caplog.records if "partitions=5" in record.getMessage()]
        assert len(said) == 1
        assert f"{it.topic('orders')} has 2, {it.topic('shipping.inbox')} has 2, and keeps it" in said[0]

    run(url, scenario, partitions=2)


async def _provisions(it: Bench, **settings: Any) -> None:
    """A process of its own does, twice."""
    it.settings = KafkaSettings(**settings)
    process = it.another()
    await process.start(10)
    try:
        for _ in range(2):
            await process.provision([it.group, Address("topic", "new")], Provision.CREATE)
    finally:
        await process.stop(5)


def test_topics_are_made_with_the_replicas_that_must_have_a_message(url: str) -> None:
    async def scenario(it: Bench) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        await admin.start()
        try:
            resources = [
                ConfigResource(ConfigResourceType.TOPIC, it.topic(name), {"min.insync.replicas": ""})
                for name in ("orders", "shipping.inbox", "shipping.retry", "shipping.dead")
            ]
            answers = await admin.describe_configs(resources)
            found = [entry[1:4:2] for one in answers for resource in one.resources for entry in resource[4]]
            assert found == [("1", 1)] * 4, "set for the topic itself"
        finally:
            await admin.close()

    run(url, scenario, replication=1, min_insync_replicas=1)


def test_more_replicas_than_brokers_are_refused_and_nothing_else(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        with pytest.raises(
            SettingsError, match=r"fewer brokers than EVENTKIT_KAFKA__REPLICATION=3.* set EVENTKIT_KAFK"
        ):
            await _provisions(it, replication=3)
        with pytest.raises(
            SettingsError, match=r"MIN_INSYNC_REPLICAS is 2.* of 1 replica, .* EVENTKIT_KAFKA__REPLICATIO"
        ):
            await _provisions(it, min_insync_replicas=2)
        await it.adapter.provision([Address("topic", "new")], Provision.CREATE)
        await _provisions(it, replication=3, min_insync_replicas=2)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 2, said
        assert f"{it.topic('shipping.retry')} has 1, and keeps it: kafka-reassign-partitions" in said[0]
        assert f"{it.topic('shipping.retry')} has 1, and keeps it: kafka-configs" in said[1]

    run(url, scenario)


def test_more_replicas_that_must_have_it_than_there_are() -> None:
    with pytest.raises(ValidationError, match="nothing could be published"):
        KafkaSettings(replication=2, min_insync_replicas=3)


# groups


def test_a_group_begins_when_it_is_provisioned(url: str) -> None:
    async def scenario(it: Bench) -> None:
        audit, early = Group("audit", (ORDERS,)), Group("early", (ORDERS,), start="earliest")
        await it.publish(message(body=b"before"))
        await it.adapter.provision([audit, early], Provision.CREATE)
        await it.publish(message(body=b"after"))
        await it.adapter.provision([audit], Provision.CREATE)  # again: it stays where it was
        seen, all_, first = await asyncio.gather(
            it.consume(group=audit), it.consume(group=early), it.consume(group=it.group)
        )
        await until(lambda: len(seen.got) == 1 and len(all_.got) == 2 and len(first.got) == 2)
        assert seen.bodies == [b"after"]

    run(url, scenario)


def test_a_topic_added_to_a_running_group_begins_now(url: str) -> None:
    async def scenario(it: Bench) -> None:
        other = Address("topic", "other")
        await it.adapter.provision([other], Provision.CREATE)
        await it.publish(message(other, b"before"))
        old = await it.consume()
        grown = Group(it.group.name, (*it.group.sources, other))
        next_release = it.another()
        await next_release.start(10)
        await next_release.provision([grown], Provision.CREATE)
        await it.publish(message(other, b"after"))
        new = await it.consume(group=grown, on=next_release)
        await until(lambda: new.got)
        assert new.bodies == [b"after"]
        assert not old.got
        await next_release.stop(5)

    run(url, scenario)


def test_what_comes_due_while_partitions_are_taken_away_is_left_to_their_next_reader(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        waits = message(it.group.retry)._replace(due=datetime.now(UTC) + timedelta(seconds=1))
        await it.publish(waits)
        consumer = seen.consumer
        assert isinstance(consumer, GroupConsumer)
        member = consumer.member
        await until(lambda: any(state == WAITING for t in member.trackers.values() for state in t.pending.values()))

        async def late(trackers: object, seconds: float) -> bool:
            await asyncio.sleep(1.5)
            return True

        monkeypatch.setattr(member.commits, "commit", late)
        await member.revoked()  # the message is due meanwhile
        assert seen.got == []

    run(url, scenario)


def test_times_are_rounded_so_that_nothing_comes_early() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_001, tzinfo=UTC)
    assert milliseconds(at) / 1000 >= at.timestamp()
    assert milliseconds(at) - at.timestamp() * 1000 < 1


def test_settled_is_not_delivered_again_and_held_is(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message(body=b"%d" % n, key="k") for n in range(100)))
        held = {0, 7, 50}
        seen = await it.consume(lambda d: None if int(d.message.body or b"") in held else DONE)
        await until(lambda: len(seen.got) == 100)
        await seen.consumer.stop(5)
        again = await it.consume()
        await it.publish(message(body=b"100", key="k"))
        await until(lambda: len(again.got) >= 4)
        assert sorted(int(body or b"") for body in again.bodies) == [0, 7, 50, 100]
        assert {d.position for d in again.got} > {d.position for d in seen.held.values()}

    run(url, scenario)


def test_settling_twice_or_too_late_does_nothing(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(message(), message())
        seen = await it.consume(None)
        await until(lambda: len(seen.got) == 2)
        for _ in range(3):
            seen.consumer.settle(seen.got[0], DONE)
        await it.adapter.publish([message()])
        await until(lambda: len(seen.got) == 3)
        await seen.consumer.stop(5)
        seen.consumer.settle(seen.got[1], DONE)
        seen.consumer.settle(seen.got[1], Move(copy(seen.got[1], it.group.dead)))
        again = await it.consume()
        await until(lambda: len(again.got) == 2)
        assert not await it.dead()

    run(url, scenario)


def test_given_back_comes_again(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(message(body=b"x"))
        seen = await it.consume(RELEASE)
        await until(lambda: len(seen.got) == 3)
        assert len({d.position for d in seen.got}) == 1
        seen.how = DONE
        await until_measured(it, lambda backlog: backlog.in_flight == 0 and backlog.ready == 0)

    run(url, scenario)


def test_never_more_in_flight_than_asked_for(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message() for _ in range(300)))
        seen = await it.consume(None, in_flight=10)
        await until(lambda: len(seen.held) == 10)
        while len(seen.got) < 300:
            for delivery in list(seen.held.values())[:3]:
                seen.settle(delivery, DONE if len(seen.got) % 2 else Move(copy(delivery, it.group.retry)))
            await asyncio.sleep(0)
        assert seen.most <= 10

    run(url, scenario, partitions=3)


def test_pause_and_resume(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        seen.consumer.pause()
        await asyncio.sleep(0.3)
        await it.publish(message())
        await asyncio.sleep(0.3)
        assert not seen.got
        seen.consumer.resume()
        await until(lambda: seen.got)

    run(url, scenario)


def test_replicas_share_and_nothing_is_lost_or_doubled_as_they_come_and_go(url: str) -> None:
    async def scenario(it: Bench) -> None:
        numbers, enough = itertools.count(), asyncio.Event()

        async def feed() -> int:
            while not enough.is_set():
                await it.publish(*(message(body=b"%d" % n, key=str(n % 37)) for n in itertools.islice(numbers, 50)))
                await asyncio.sleep(0.02)
            return next(numbers)

        async def replica() -> tuple[KafkaAdapter, Recorder]:
            adapter = it.another()
            await adapter.start(10)
            return adapter, await it.consume(on=adapter)

        feeding = asyncio.create_task(feed())
        replicas = [await replica() for _ in range(3)]
        await until(lambda: all(recorder.got for _, recorder in replicas))
        await replicas[1][0].stop(5)
        enough.set()
        total = await feeding
        await until(lambda: sum(len(recorder.got) for _, recorder in replicas) >= total)
        await asyncio.sleep(0.2)
        counts = Counter(body for _, recorder in replicas for body in recorder.bodies)
        assert len(counts) == total
        assert set(counts.values()) == {1}
        for adapter, _ in replicas:
            await adapter.stop(5)

    run(url, scenario, partitions=6)


def test_a_partition_added_later_is_read_from_its_beginning(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        await admin.start()
        await admin.create_partitions({it.topic("orders"): NewPartitions(3)})
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
        await producer.start()
        await producer.send_and_wait(it.topic("orders"), b"early", partition=2)
        await producer.stop()
        await until(lambda: b"early" in seen.bodies)
        for _ in range(30):
            await it.publish(*(message() for _ in range(3)))
            if any(d.position.startswith("1:") for d in seen.got):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("our producer does not use the new partitions")

    run(url, scenario, partitions=1, metadata_age=timedelta(seconds=1))


@pytest.mark.parametrize("error", [asyncio.CancelledError, ConsumerStoppedError])
@pytest.mark.parametrize("what", ["getmany", "committed", "stop"])
def test_what_aiokafka_cancels_ends_no_consumer(
    url: str, what: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it closes something it cancels what is waited for, or says so, as after a while without a majority."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume()
        assert isinstance(recorder.consumer, GroupConsumer)
        member = recorder.consumer.member
        consumer, cancelled = member.consumer, asyncio.Event()
        stop = consumer.stop

        async def cancel(*_: object, **__: object) -> None:
            cancelled.set()
            if what == "stop":
                await stop()
            raise error

        monkeypatch.setattr(consumer, what, cancel)
        if what == "stop":
            member.stuck = True  # then it is ended, and another takes its place
        async with asyncio.timeout(15):
            await cancelled.wait()
        monkeypatch.undo()
        await it.publish(message(body=b"after"))
        await until(lambda: recorder.bodies == [b"after"], 20)
        await until(lambda: recorder.consumer.error is None, 20)
        assert [task.done() for task in recorder.consumer._tasks] == [False] * 3

    run(url, scenario)


def test_retention_that_overtakes_a_group_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message(key="k") for _ in range(10)))
        admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
        await admin.start()
        await admin.delete_records({TopicPartition(it.topic("orders"), 0): RecordsToDelete(4)})
        await admin.close()
        seen = await it.consume()
        await until(lambda: len(seen.got) == 6)
        assert any("4 messages" in record.getMessage() for record in caplog.records)

    run(url, scenario, partitions=1)


def test_a_long_handler_keeps_its_partition(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(message(body=b"long"))
        seen = await it.consume(None)
        await until(lambda: seen.got)
        await asyncio.sleep(7.5)
        assert len(seen.got) == 1
        seen.settle(seen.got[0])
        await seen.consumer.stop(5)
        await until_measured(it, lambda backlog: backlog.ready == 0)

    run(url, scenario, session_timeout=timedelta(seconds=6))


def test_another_takes_over_from_a_killed_process(url: str) -> None:
    script = """
        import asyncio, sys
        from datetime import timedelta
        from pydantic import SecretStr
        from eventkit.adapter import *
        from eventkit_kafka import KafkaAdapter, KafkaSettings
        async def main():
            settings = KafkaSettings(session_timeout=timedelta(seconds=6))
            adapter = KafkaAdapter(Connection(SecretStr(sys.argv[1]), sys.argv[2], "killed", settings))
            await adapter.start(10)
            class Half:
                count = 0
                async def deliveries(self, batch):
                    for delivery in batch:
                        self.count += 1
                        if int(delivery.message.body) % 2:
                            self.consumer.settle(delivery, DONE)
            half = Half()
            group = Group("shipping", (Address("topic", "orders"), Address("inbox", "shipping")))
            half.consumer = await adapter.consume(group, half, in_flight=100)
            while half.count < 20:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            print("READY", flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """

    async def scenario(it: Bench) -> None:
        await it.publish(*(message(body=b"%d" % n, key="k") for n in range(20)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(script), url, it.namespace, stdout=subprocess.PIPE, env=_environment()
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"READY\n"
            process.send_signal(signal.SIGKILL)
        finally:
            await process.wait()
        killed = time.monotonic()
        seen = await it.consume()
        await until(lambda: len(seen.got) == 10, 12)
        assert time.monotonic() - killed < 10
        assert sorted(int(body or b"") for body in seen.bodies) == list(range(0, 20, 2))

    run(url, scenario, session_timeout=timedelta(seconds=6))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


# copies


def test_a_retry_comes_when_it_is_due_and_blocks_nobody(url: str) -> None:
    async def scenario(it: Bench) -> None:
        now = datetime.now(UTC)
        far = [message(it.group.retry, b"far")._replace(due=now + timedelta(hours=1)) for _ in range(2_000)]
        await it.publish(*far)
        delays = {b"0": 0.0, b"1": 0.4, b"2": 1.5}
        await it.publish(*(message(body=body) for body in delays))
        came: dict[bytes | None, float] = {}

        def handle(delivery: Delivery) -> Settlement:
            body = delivery.message.body or b""
            if delivery.message.address.kind == "retry":
                came[body] = time.time()
                assert delivery.message.headers.get("ek-held-until") is None
                return DONE
            if body not in delays:
                return DONE
            due = datetime.fromtimestamp(time.time() + delays[body], UTC) if delays[body] else None
            asked[body] = time.time() + delays[body]
            return Move(copy(delivery, it.group.retry, due))

        asked: dict[bytes, float] = {}
        seen = await it.consume(handle, in_flight=50)
        await it.publish(*(message(body=b"healthy", key=str(n)) for n in range(100)))
        await until(lambda: seen.bodies.count(b"healthy") == 100 and len(came) == 3)
        assert all(-0.01 <= came[body] - asked[body] < 2.0 for body in delays), "far from an hour"
        backlog = await until_measured(it, lambda b: b.delayed == 2_000 and b.in_flight == 0)
        assert backlog.ready == 0

    run(url, scenario)


def test_what_waits_survives_us_and_keeps_its_key(url: str) -> None:
    async def scenario(it: Bench) -> None:
        due = datetime.now(UTC) + timedelta(seconds=2)
        await it.publish(message(key="k"))

        def later(delivery: Delivery) -> Settlement:
            return DONE if delivery.message.address.kind == "retry" else Move(copy(delivery, it.group.retry, due))

        seen = await it.consume(later)
        await until_measured(it, lambda backlog: backlog.delayed == 1)
        await seen.consumer.stop(5)
        again = await it.consume(later)
        await until(lambda: again.got)
        assert datetime.now(UTC) >= due
        assert again.got[0].message.key == "k"
        assert again.got[0].message.address == it.group.retry

    run(url, scenario)


def test_many_that_wait_are_read_again_when_due(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventkit_kafka.held._BYTES", 5_000)

    async def scenario(it: Bench) -> None:
        due = datetime.now(UTC) + timedelta(seconds=1)
        await it.publish(*(message(it.group.retry, b"%d" % n)._replace(due=due) for n in range(200)))
        seen = await it.consume()
        await until(lambda: len(seen.got) == 200)
        assert sorted(int(body or b"") for body in seen.bodies) == list(range(200))
        assert datetime.now(UTC) >= due

    run(url, scenario)


def test_dead_letters_are_kept_listed_and_discarded(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(*(message(body=b"%d" % n, key="k") for n in range(5)), message(body=None, key="none"))
        seen = await it.consume(lambda d: Move(copy(d, it.group.dead)))
        await until_measured(it, lambda backlog: backlog.dead == 6 and backlog.in_flight == 0)
        letters = await it.dead()
        assert [letter.message.body for letter in letters] == [b"0", b"1", b"2", b"3", b"4", None]
        assert [letter.message.key for letter in letters] == ["k"] * 5 + ["none"]
        assert letters[0].message.headers["ce-id"] == seen.got[0].message.headers["ce-id"]
        await it.publish(letters[0].message)  # the same copy, made twice
        assert await it.adapter.remove([*letters[1:3], letters[1]]) == [None] * 3
        left = [letter.message.body for letter in await it.dead()]
        assert sorted(left, key=str) == sorted([b"0", b"3", b"4", None], key=str)
        assert (await it.adapter.measure(it.group)).dead == 4

    run(url, scenario, partitions=1)


def test_a_copy_that_cannot_be_published_keeps_the_original(url: str) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(message(body=b"x"))
        seen = await it.consume(None)
        await until(lambda: seen.got)
        delivery = seen.got[0]
        seen.consumer.settle(delivery, Move(copy(delivery, Address("dead", "nobody"))))
        await until(lambda: seen.failed)
        assert isinstance(seen.failed[0][1], NotProvisioned)
        assert (await it.adapter.measure(it.group)).in_flight == 1
        seen.consumer.settle(delivery, Move(copy(delivery, it.group.dead)))
        await until_measured(it, lambda backlog: backlog.in_flight == 0 and backlog.dead == 1)

    run(url, scenario)


# provisioning


def test_ten_at_once(url: str) -> None:
    async def whole() -> None:
        namespace = f"t{uuid.uuid4().hex[:8]}"
        group = Group("shipping", (ORDERS, Address("inbox", "shipping")))
        adapters = [KafkaAdapter(Connection(SecretStr(url), namespace, "test")) for _ in range(10)]
        await asyncio.gather(*(adapter.start(10) for adapter in adapters))

        async def one(adapter: KafkaAdapter) -> None:
            await adapter.provision([group], Provision.CREATE)
            assert await adapter.publish([message()]) == [None]

        await asyncio.gather(*(one(adapter) for adapter in adapters))
        recorder = Recorder()
        recorder.consumer = await adapters[0].consume(group, recorder, in_flight=100)
        await until(lambda: len(recorder.got) == 10)
        await asyncio.gather(*(adapter.stop(5) for adapter in adapters))
        await _clean(url, namespace)

    bounded(whole())


def test_validate_names_all_that_is_missing(url: str) -> None:
    async def scenario(it: Bench) -> None:
        adapter = it.adapter
        await adapter.provision([it.group], Provision.VALIDATE)
        with pytest.raises(NotProvisioned) as caught:
            await adapter.provision([Address("topic", "a"), Group("g", (Address("topic", "b"),))], Provision.VALIDATE)
        assert all(name in str(caught.value) for name in ("topic:a", "topic:b", "retry:g", "dead:g"))
        with pytest.raises(NotProvisioned):
            await adapter.provision([Address("inbox", "nobody")], Provision.CREATE)
        await adapter.provision([Address("topic", "a"), Address("retry", "h"), Address("dead", "h")], Provision.CREATE)
        with pytest.raises(NotProvisioned, match="has not begun"):
            await adapter.provision([Group("h", (ORDERS,))], Provision.VALIDATE)
        await adapter.provision([Address("topic", "never")], Provision.ASSUME)
        with pytest.raises(NotProvisioned):
            await adapter.consume(Group("x", (ORDERS,)), Recorder(), in_flight=1)

    run(url, scenario)


def test_a_physical_topic_keeps_its_name_and_foreign_records_are_read(url: str) -> None:
    async def scenario(it: Bench) -> None:
        address = Address("topic", "legacy", f"{it.namespace}.legacy_orders-v1")
        group = Group("reader", (address,))
        await it.adapter.provision([group], Provision.CREATE)
        producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
        await producer.start()
        odd = [("n", None), ("bin", b"\xff"), ("ce_type", b"Old"), ("text", "\u00e9".encode())]
        await producer.send_and_wait(address.physical, b"1", key=b"\xff\x00", headers=odd)
        await producer.send_and_wait(address.physical, None, key=b"k")
        await producer.stop()
        seen = await it.consume(group=group)
        await until(lambda: len(seen.got) == 2)
        by_body = {d.message.body: d.message for d in seen.got}
        assert by_body[b"1"].headers == {h.TYPE: "Old", "text": "\u00e9"}
        assert (by_body[b"1"].type, by_body[b"1"].key, by_body[None].key) == ("Old", "\xff\x00", "k")
        assert {d.message.address for d in seen.got} == {address}

    run(url, scenario)


async def publish_what_aiokafka_cannot_read(url: str, topic: str, partition: int, **headers: str) -> None:
    """Three records, of which the second has a header whose name is no UTF-8."""
    producer = AIOKafkaProducer(bootstrap_servers=url.removeprefix("kafka://"))
    await producer.start()
    batch = producer.create_batch()
    given = [(name, value.encode()) for name, value in headers.items()]
    for body, name in ((b"1", "good"), (b"2", "zzzz"), (b"3", "good")):
        batch.append(timestamp=None, key=b"k", value=body, headers=[(name, b"v"), *given])
    raw = batch._build()
    raw[:] = raw.replace(b"zzzz", b"z\xff\xfez")
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    await (await producer.send_batch(batch, topic, partition=partition))
    await producer.stop()


@pytest.mark.parametrize("partition", [0, 2])
def test_a_record_that_cannot_be_read_stops_nobody_and_loses_nothing_beside_it(url: str, partition: int) -> None:
    async def scenario(it: Bench) -> None:
        await publish_what_aiokafka_cannot_read(url, it.topic("orders"), partition)
        await it.publish(*(message(body=b"healthy", key=str(n)) for n in range(20)))
        seen = await it.consume()  # one fetch brings them all
        await until(lambda: len(seen.got) == 23)
        assert [d.message.body for d in seen.got if d.message.body != b"healthy"] == [b"1", b"2", b"3"]
        await until_measured(it, lambda backlog: backlog.ready == 0 and backlog.in_flight == 0)

    run(url, scenario, partitions=3)


@pytest.mark.parametrize("partition", [0, 2])
def test_a_record_that_cannot_be_read_hides_nothing_from_whoever_looks_on(url: str, partition: int) -> None:
    inbox = Address("inbox", "shipping")

    async def scenario(it: Bench) -> None:
        await publish_what_aiokafka_cannot_read(url, it.topic("shipping.inbox"), partition)
        await it.publish(*(message(inbox, b"healthy", str(n)) for n in range(20)))
        found = [d.message.body async for d in it.adapter.browse(inbox)]
        assert Counter(found) == {b"healthy": 20, b"1": 1, b"2": 1, b"3": 1}
        async with it.adapter.follow(ORDERS) as coming:
            await publish_what_aiokafka_cannot_read(url, it.topic("orders"), partition)
            await it.publish(*(message(ORDERS, b"healthy", str(n)) for n in range(20)))
            followed = [(await anext(coming)).message.body for _ in range(23)]
        assert Counter(followed) == Counter(found)

    run(url, scenario, partitions=3)


def test_a_reply_that_cannot_be_read_holds_up_no_other(url: str) -> None:
    async def scenario(it: Bench) -> None:
        mine = Address("reply", f"orders.{uuid.uuid4().hex}")
        replies = await it.consume(None, group=Group("replies", (mine,)))
        topic, partition = replies.consumer._tp  # type: ignore[attr-defined]
        await publish_what_aiokafka_cannot_read(url, topic, partition, **{codec.REPLY: mine.name})
        await it.publish(message(mine, b"healthy"))
        await until(lambda: replies.bodies == [b"1", b"2", b"3", b"healthy"])

    run(url, scenario)


# replies


def test_requests_have_their_replies(url: str) -> None:
    async def scenario(it: Bench) -> None:
        mine, other = (Address("reply", f"orders.{uuid.uuid4().hex}") for _ in range(2))
        await it.adapter.provision([mine], Provision.CREATE)
        replies = await it.consume(group=Group(mine.name, (mine,)))

        def answer(delivery: Delivery) -> Settlement:
            sent = delivery.message.headers[h.REPLY_TO]
            reply = message(Address("reply", sent), delivery.message.body)
            answering.append(asyncio.create_task(elsewhere.publish([reply])))
            return DONE

        answering: list[Any] = []
        elsewhere = it.another()
        await elsewhere.start(10)
        handler = await it.consume(answer, on=elsewhere)
        took = []
        for number in range(30):
            began = time.perf_counter()
            await it.publish(message(Address("inbox", "shipping"), b"%d" % number, **{h.REPLY_TO: mine.name}))
            await until(lambda n=number: len(replies.got) == n + 1)
            took.append(time.perf_counter() - began)
        assert replies.bodies == [b"%d" % number for number in range(30)]
        assert sorted(took)[15] < 0.5
        assert await elsewhere.publish([message(other)]) == [None]  # nobody waits for it
        assert await elsewhere.publish([message(Address("reply", "gone.1"))]) == [None]
        assert len(replies.got) == 30
        assert handler.got
        await elsewhere.stop(5)

    run(url, scenario)


# starting, stopping, breaking


def test_unreachable_and_restart(url: str) -> None:
    async def whole() -> None:
        began = time.monotonic()
        nowhere = KafkaAdapter(Connection(SecretStr("kafka://127.0.0.1:9"), "t", "test"))
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await nowhere.start(5)
        assert time.monotonic() - began < 2
        await nowhere.stop(1)
        namespace = f"t{uuid.uuid4().hex[:8]}"
        adapter = KafkaAdapter(Connection(SecretStr(url), namespace, "test"))
        for _ in range(2):
            await adapter.start(10)
            await adapter.provision([ORDERS], Provision.CREATE)
            assert await adapter.publish([message()]) == [None]
            await adapter.stop(5)
            await adapter.stop(5)
        await _clean(url, namespace)

    bounded(whole())


def test_a_healthy_run_warns_of_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Bench) -> None:
        await it.publish(message())
        first = await it.consume()
        second = it.another()
        await second.start(10)
        other = await it.consume(on=second)
        await it.publish(*(message() for _ in range(100)))
        await until(lambda: len(first.got) + len(other.got) >= 101)
        await second.stop(5)
        await it.publish(message())
        await until(lambda: len(first.got) + len(other.got) >= 102)

    run(url, scenario, partitions=4)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture(scope="module")
def own() -> Iterator[Broker]:
    """A broker that may be killed, and asks for a password."""
    jaas = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="admin" password="right" user_admin="right";'
    )
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.plaintext.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": jaas,
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
    }
    with provide("kafka", settings=settings) as broker:
        yield broker


def _as(broker: Broker, user: str) -> str:
    return broker.url.replace("kafka://", f"kafka://{user}@")


def test_wrong_password_says_so_at_once(own: Broker) -> None:
    async def whole() -> None:
        began = time.monotonic()
        with pytest.raises(KafkaError, match=r"[Aa]uthentication") as caught:
            await KafkaAdapter(Connection(SecretStr(_as(own, "admin:wrong")), "t", "test")).start(10)
        assert "wrong" not in str(caught.value)
        assert time.monotonic() - began < 3
        adapter = KafkaAdapter(Connection(SecretStr(_as(own, "admin:right")), "t", "test"))
        await adapter.start(10)
        await adapter.provision([ORDERS], Provision.CREATE)
        assert await adapter.publish([message()]) == [None]
        await adapter.stop(5)

    bounded(whole())


def test_both_sides_come_back_after_the_broker(own: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        it = Bench(_as(own, "admin:right"), "restart", publish_timeout=timedelta(seconds=1))
        await it.adapter.start(10)
        await it.adapter.provision([it.group], Provision.CREATE)
        due = datetime.now(UTC) + timedelta(seconds=5)
        await it.publish(message(it.group.retry, b"later")._replace(due=due), message(body=b"before"))
        seen = await it.consume()
        await until(lambda: seen.got)
        await asyncio.to_thread(own.kill)
        began = time.monotonic()
        answer = (await it.adapter.publish([message(body=b"during")]))[0]
        assert isinstance(answer, TimeoutError)
        assert time.monotonic() - began < 3
        await until(lambda: seen.consumer.error is not None, 15)
        await asyncio.to_thread(own.start)
        ends = time.monotonic() + 20
        while (await it.adapter.publish([message(body=b"after")]))[0] is not None:
            assert time.monotonic() < ends
        await until(lambda: b"after" in seen.bodies and b"later" in seen.bodies, 20)
        await until(lambda: seen.consumer.error is None)
        assert datetime.now(UTC) >= due
        await asyncio.to_thread(own.kill)
        began = time.monotonic()
        await it.adapter.stop(3)
        assert time.monotonic() - began < 5
        ours = [record.getMessage() for record in caplog.records if record.name == "eventkit.kafka"]
        assert [text for text in ours if "does not answer" in text or "answers again" in text]
        assert len(ours) <= 4, ours

    bounded(whole())
