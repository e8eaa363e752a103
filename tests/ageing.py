"""Brokers on which time passes: other settings, more partitions, and retention that drops what nobody has read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from eventkit.contract import Vacuous
from tests.foreign import channel

Change = Callable[[str, str, str], None]
"""On the broker at this address, in this namespace, of this topic."""

NEXT: Mapping[str, Mapping[str, Any]] = {
    "redis": {
        "lease": timedelta(seconds=5),
        "batch": 50,
        "topic_length": 5_000,
        "topic_age": timedelta(days=1),
        "message_bytes": 2_000_000,
        "reply_length": 500,
        "reply_expiry": timedelta(minutes=1),
        "publish_timeout": timedelta(seconds=5),
    },
    "nats": {
        "lease": timedelta(seconds=5),
        "topic_age": timedelta(days=2),
        "topic_bytes": 100_000_000,
        "inbox_bytes": 50_000_000,
        "duplicate_window": timedelta(minutes=1),
        "publish_timeout": timedelta(seconds=5),
    },
    "rabbit": {
        "replicas": 5,
        "heartbeat": timedelta(seconds=5),
        "consumer_timeout": timedelta(hours=2),
        "publish_timeout": timedelta(seconds=5),
        "max_message_bytes": 1_000_000,
    },
    "kafka": {
        "partitions": 5,
        "retry_spread": 2,
        "retry_retention": timedelta(days=20),
        "session_timeout": timedelta(seconds=12),
        "rebalance_timeout": timedelta(seconds=20),
        "commit_interval": timedelta(milliseconds=300),
        "publish_timeout": timedelta(seconds=5),
    },
}
"""All that the next release sets otherwise."""

_NO_PARTITIONS = "a topic has no partitions there"
_QUEUES = "a group has a queue of its own, which keeps all until it is settled: nothing is dropped unread"


def grow(broker: str, url: str, namespace: str, topic: str) -> None:
    """More partitions. Vacuous where there are none."""
    if broker != "kafka":
        raise Vacuous(_NO_PARTITIONS)
    _grow_kafka(url, channel(broker, namespace, topic))


def forget(broker: str, url: str, namespace: str, topic: str) -> None:
    """Drop what is there. Vacuous where nothing is dropped."""
    if broker not in _FORGET:
        raise Vacuous(_QUEUES)
    _FORGET[broker](url, namespace, topic)


def _grow_kafka(url: str, name: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

    async def more() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(url).netloc)
        await admin.start()
        await admin.create_partitions({name: NewPartitions(5)})
        await admin.close()

    asyncio.run(more())


def _forget_kafka(url: str, namespace: str, topic: str) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    name = channel("kafka", namespace, topic)

    async def delete() -> None:
        servers = urlsplit(url).netloc
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        (found,) = await admin.describe_topics([name])
        async with AIOKafkaConsumer(bootstrap_servers=servers) as reader:
            ends = await reader.end_offsets([TopicPartition(name, one["partition"]) for one in found["partitions"]])
        await admin.delete_records({tp: RecordsToDelete(offset) for tp, offset in ends.items() if offset})
        await admin.close()

    asyncio.run(delete())


def _forget_nats(url: str, namespace: str, topic: str) -> None:
    import nats

    name = channel("nats", namespace, topic)

    async def delete() -> None:
        client = await nats.connect(url)
        stream = client.jetstream()
        config = (await stream.stream_info(name)).config
        for most in (1, config.max_msgs):  # as a limit drops them, which a purge does not
            await stream.update_stream(config.evolve(max_msgs=most))
        await client.close()

    asyncio.run(delete())


def _forget_redis(url: str, namespace: str, topic: str) -> None:
    from pydantic import SecretStr

    from eventkit.adapter import Connection
    from eventkit_redis import RedisAdapter, RedisSettings

    settings = RedisSettings(topic_length=1)
    adapter = RedisAdapter(Connection(url=SecretStr(url), namespace=namespace, client="trim", settings=settings))
    name = channel("redis", namespace, topic)

    async def trim() -> None:
        await adapter.start(5.0)
        assert adapter._trimmer is not None
        adapter._trimmer.own(name)
        await adapter._trimmer.trim(name)
        await adapter.stop(5.0)

    asyncio.run(trim())


_FORGET: Mapping[str, Change] = {"redis": _forget_redis, "nats": _forget_nats, "kafka": _forget_kafka}
