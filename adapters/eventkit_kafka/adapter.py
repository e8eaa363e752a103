"""The adapter: one cluster, reached through a producer, an admin client, and a consumer for each group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Self

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from pydantic_settings import BaseSettings

from eventkit import names
from eventkit.adapter import (
    Address,
    Backlog,
    Capabilities,
    Connection,
    Consumer,
    Delivery,
    Group,
    Limits,
    Message,
    Provision,
    Receive,
)
from eventkit.adopting import BrokerObject, look
from eventkit.errors import Closed
from eventkit_kafka import follow
from eventkit_kafka.clients import Clients
from eventkit_kafka.cluster import Cluster
from eventkit_kafka.consume import GroupConsumer
from eventkit_kafka.groups import Groups
from eventkit_kafka.partitions import reply_partition
from eventkit_kafka.provision import is_reply
from eventkit_kafka.reply import ReplyConsumer
from eventkit_kafka.settings import DEFAULT_URL, KafkaSettings, Url
from eventkit_kafka.stock import Stock

_BATCH_OVERHEAD = 128
"""Bytes of a batch that holds one record, besides the record."""


class KafkaAdapter:
    """eventkit.adapter.Adapter for Apache Kafka 2.1 and newer."""

    name: ClassVar[str] = "kafka"
    settings: ClassVar[type[BaseSettings] | None] = KafkaSettings
    capabilities: Capabilities = Capabilities(
        durable=True,
        start_earliest=True,
        key_order_across_replicas=True,
        delivery_count=True,
        longest_handler=None,
        settles_in_order=True,
        validates_subscriptions=True,
        lists_groups=True,
    )

    def __init__(self, connection: Connection) -> None:
        given = connection.settings
        self._settings = given if isinstance(given, KafkaSettings) else KafkaSettings()
        url = connection.url.get_secret_value() if connection.url is not None else DEFAULT_URL
        self._url = Url.parse(url)
        self._client = connection.client
        self._naming = names.kafka(connection.namespace)
        self._running: _Running | None = None
        self._adopted: BrokerObject | None = None

    @classmethod
    def from_broker(cls, broker: BrokerObject, connection: Connection, /) -> Self:
        """Connects to the servers, and with the security, of that `KafkaBroker`."""
        adapter = cls(connection)
        adapter._adopted = broker
        return adapter

    @property
    def error(self) -> Exception | None:
        return None if self._running is None else self._running.cluster.topics.error

    async def start(self, timeout: float, /) -> Limits:
        options = None
        if self._adopted is not None:
            async with asyncio.timeout(timeout):
                options = await look(self._adopted, lambda make_consumer: make_consumer.keywords)
        clients = Clients(self._url, self._settings, self._client, options)
        running = _Running(Cluster.of(clients, self._naming, self._settings))
        try:
            async with asyncio.timeout(timeout):
                limit = await running.cluster.start()
        except BaseException:
            await running.stop(2.0)
            raise
        self._running = running
        return Limits(message_bytes=limit - _BATCH_OVERHEAD)

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        async with asyncio.timeout(60):
            await self._open.cluster.provisioner.provision(wanted, how)

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        if self._running is None:
            return [Closed("the Kafka adapter is not started")] * len(messages)
        return await self._running.cluster.publisher.publish(messages)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        running = self._open
        consumer: ReplyConsumer | GroupConsumer
        if is_reply(group):
            consumer = await _replies(running.cluster, group, receive)
        else:
            await running.cluster.provisioner.require((*group.sources, group.retry))
            consumer = GroupConsumer(running.cluster, group, receive, in_flight)
        running.consumers = [one for one in running.consumers if not one.stopped]
        running.consumers.append(consumer)
        try:
            await consumer.start()
        except BaseException:
            running.consumers.remove(consumer)
            raise
        return consumer

    async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        async for delivery in self._open.stock.browse(address):
            yield delivery

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        cluster = self._open.cluster
        return follow.follow(cluster.clients, cluster.topics, address, cluster.provisioner.topic(address))

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        return await self._open.stock.remove(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        running = self._open
        ours = [one for one in running.consumers if isinstance(one, GroupConsumer) and one.group.name == group.name]
        return await running.stock.measure(group, ours)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return await self._open.groups.find(names)

    async def disband(self, name: str, /) -> None:
        await self._open.groups.remove(name)

    async def stop(self, timeout: float, /) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.stop(timeout)

    @property
    def _open(self) -> _Running:
        if self._running is None:
            raise Closed("the Kafka adapter is not started")
        return self._running


class _Running:
    """What is open between start and stop."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.stock = Stock(cluster)
        self.groups = Groups(cluster)
        self.consumers: list[ReplyConsumer | GroupConsumer] = []

    async def stop(self, timeout: float) -> None:
        ends = time.monotonic() + timeout
        if self.consumers:
            await asyncio.gather(*(one.stop(timeout / 2) for one in self.consumers), return_exceptions=True)
        await self.cluster.stop(max(ends - time.monotonic(), 0.3))


async def _replies(cluster: Cluster, group: Group, receive: Receive) -> ReplyConsumer:
    if len(group.sources) != 1:
        raise ValueError(f"{group.name}: replies are read from one reply address alone")
    address = group.sources[0]
    topic = cluster.provisioner.topic(address)
    if not await cluster.topics.existing([topic]):
        await cluster.provisioner.provision([address], Provision.CREATE)
    partitions = await cluster.topics.partitions([topic])
    tp = TopicPartition(topic, reply_partition(address.name, len(partitions[topic])))
    return ReplyConsumer(address, tp, receive, cluster.clients, cluster.topics)
