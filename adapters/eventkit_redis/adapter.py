"""eventkit on Redis Streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Self

from faststream.redis import RedisBroker
from redis.exceptions import RedisError

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
from eventkit_redis import browse, follow, groups, server, topology
from eventkit_redis.consume import Links, StreamConsumer
from eventkit_redis.keys import Keys
from eventkit_redis.link import Connect, Link
from eventkit_redis.publish import HEADROOM, Publisher
from eventkit_redis.replicated import Replicated
from eventkit_redis.replies import ReplyConsumer
from eventkit_redis.settings import RedisSettings
from eventkit_redis.trim import Trimmer

log = logging.getLogger("eventkit.redis")


class RedisAdapter:
    """One connection that writes, one for leases and what is due, and one for each consumer; one more for what is
    published, where that waits for replicas."""

    name: ClassVar[str] = "redis"
    settings: ClassVar[type[RedisSettings]] = RedisSettings
    capabilities: Capabilities = Capabilities(
        durable=True,
        start_earliest=True,
        key_order_across_replicas=False,
        delivery_count=True,
        longest_handler=None,
        settles_in_order=False,
        validates_subscriptions=True,
        lists_groups=True,
    )

    def __init__(self, connection: Connection) -> None:
        given = connection.settings
        self._settings = given if isinstance(given, RedisSettings) else RedisSettings()
        self._connection = connection
        self._keys = Keys(connection.namespace)
        self._faststream: RedisBroker | None = None
        self._adopted: BrokerObject | None = None
        self._connect: Connect | None = None
        self._link: Link | None = None
        self._upkeep: Link | None = None
        self._publishing: Link | None = None
        self._replicated: Replicated | None = None
        self._publisher: Publisher | None = None
        self._trimmer: Trimmer | None = None
        self._consumers: set[StreamConsumer | ReplyConsumer] = set()

    @classmethod
    def from_broker(cls, broker: BrokerObject, connection: Connection, /) -> Self:
        """Its connections are made with the settings of that `RedisBroker`'s client."""
        adapter = cls(connection)
        adapter._adopted = broker
        return adapter

    @property
    def error(self) -> Exception | None:
        # without the one for upkeep no lease is renewed, and nothing that comes due is delivered
        links = (self._link, self._publishing, self._upkeep)
        return next((link.error for link in links if link is not None and link.error is not None), None)

    async def start(self, timeout: float) -> Limits:
        try:
            async with asyncio.timeout(timeout):
                if self._adopted is not None:
                    name = self._connection.client
                    self._connect = await look(self._adopted, lambda client: server.connector(client, name))
                else:
                    self._faststream, sentinels = server.broker(self._connection, self._settings)
                    self._connect = server.connector(await self._faststream.connect(), sentinels=sentinels)
                self._link = Link(self._connect, "writing")
                await self._link.open(timeout)
                self._upkeep = Link(self._connect, "upkeep", loud=False)
                await self._upkeep.open(timeout)
                if self._settings.wait:
                    self._publishing = Link(self._connect, "publishing")
                    await self._publishing.open(timeout)
                    self._replicated = Replicated(self._publishing, self._settings)
                takes = await server.inspect(self._link, self._settings.wait)
        except BaseException:
            await self.stop(1.0)
            raise
        self._takes = takes
        largest = min(self._settings.message_bytes, takes - HEADROOM)
        self._trimmer = Trimmer(self._upkeep, self._keys, self._settings)
        writer = self._replicated or self._link
        self._publisher = Publisher(writer, self._keys, self._settings, largest, self._trimmer)
        return Limits(message_bytes=largest)

    async def provision(self, wanted: Collection[Address | Group], how: Provision) -> None:
        link, publisher = self._started()
        publisher.created |= await topology.provision(link, self._keys, wanted, how)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        _, publisher = self._started()
        return await publisher.publish(messages)

    async def consume(self, group: Group, receive: Receive, *, in_flight: int) -> Consumer:
        link, _ = self._started()
        assert self._connect is not None
        reply = next((source for source in group.sources if source.kind == "reply"), None)
        if reply is None:
            await topology.check(link, self._keys, group)
        reader = Link(self._connect, f"reading {group.name}", stall=15.0)
        await reader.open(5.0)
        consumer: StreamConsumer | ReplyConsumer
        if reply is not None:
            key = self._keys.stream(reply)
            consumer = ReplyConsumer(reader, reply, key, receive, min(in_flight, self._settings.batch))
            await consumer.start()
        else:
            assert self._upkeep is not None
            assert self._trimmer is not None
            links = Links(link, self._upkeep, reader, self._settings, self._takes)
            client = self._connection.client
            consumer = StreamConsumer(group, receive, links, self._keys, self._trimmer, client, in_flight=in_flight)
            consumer.start()
        self._consumers.add(consumer)
        return consumer

    def browse(self, address: Address) -> AsyncIterator[Delivery]:
        link, _ = self._started()
        return browse.browse(link, self._keys, address)

    def follow(self, address: Address) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        self._started()
        assert self._connect is not None
        return follow.follow(self._connect, address, self._keys.stream(address))

    async def remove(self, deliveries: Sequence[Delivery]) -> Sequence[Exception | None]:
        link, _ = self._started()
        return await browse.remove(link, self._keys, deliveries)

    async def measure(self, group: Group) -> Backlog:
        link, _ = self._started()
        return await browse.measure(link, self._keys, group)

    async def groups(self, names: Collection[str] | None = None) -> Sequence[Group]:
        link, _ = self._started()
        return await groups.groups(link, self._keys, names)

    async def disband(self, name: str) -> None:
        link, _ = self._started()
        await groups.disband(link, self._keys, name)

    async def stop(self, timeout: float) -> None:
        consumers, self._consumers = self._consumers, set()
        await asyncio.gather(*(consumer.stop(timeout) for consumer in consumers))
        if self._trimmer is not None:
            await self._trimmer.stop(timeout)
        for link in (self._link, self._publishing, self._upkeep):
            if link is not None:
                await link.close()
        if self._replicated is not None:
            await self._replicated.close()
        if self._faststream is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(max(timeout, 0.1)):
                    await self._faststream.stop()
        self._link = self._upkeep = self._publisher = self._trimmer = self._faststream = self._connect = None
        self._publishing = self._replicated = None

    def _started(self) -> tuple[Link, Publisher]:
        if self._link is None or self._publisher is None:
            raise Closed("the Redis adapter is not started")
        return self._link, self._publisher
