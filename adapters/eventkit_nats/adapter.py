"""The adapter: the port on NATS JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, NamedTuple, Self

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
from eventkit.adopting import BrokerObject
from eventkit.errors import Closed, GroupInUse
from eventkit_nats import follow
from eventkit_nats.adopted import adopted
from eventkit_nats.browse import Browser
from eventkit_nats.consume import GroupConsumer
from eventkit_nats.exchange import Exchange
from eventkit_nats.groups import Groups
from eventkit_nats.link import Link
from eventkit_nats.publish import Publisher
from eventkit_nats.replies import ReplyConsumer
from eventkit_nats.settings import NatsSettings, Target
from eventkit_nats.subjects import Subjects
from eventkit_nats.topology import Topology


class _Parts(NamedTuple):
    """What lives from start to stop."""

    link: Link
    exchange: Exchange
    topology: Topology
    publisher: Publisher
    browser: Browser
    all_groups: Groups
    groups: set[GroupConsumer]
    replies: set[ReplyConsumer]


class NatsAdapter:
    """A stream for each topic, inbox, retry and dead-letter channel; a durable pull consumer for each group on it."""

    name: ClassVar[str] = "nats"
    settings: ClassVar[type[BaseSettings] | None] = NatsSettings
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
        if given is not None and not isinstance(given, NatsSettings):
            raise TypeError(f"settings must be NatsSettings, not {type(given).__name__}")
        self._settings = given or NatsSettings()
        self._target = Target(connection.url, self._settings, connection.client)
        self._client = connection.client
        self._adopted: BrokerObject | None = None
        self._naming = names.nats(connection.namespace)
        self._subjects = Subjects(self._naming, self._settings.inbox_prefix)
        self._parts: _Parts | None = None

    @classmethod
    def from_broker(cls, broker: BrokerObject, connection: Connection, /) -> Self:
        """Connects to the servers, and with the credentials, of that `NatsBroker`."""
        adapter = cls(connection)
        adapter._adopted = broker
        return adapter

    @property
    def error(self) -> Exception | None:
        return None if self._parts is None else self._parts.link.error

    async def start(self, timeout: float, /) -> Limits:
        if self._parts is not None:
            return Limits(self._parts.link.largest)
        if self._adopted is not None:
            async with asyncio.timeout(timeout):
                self._target = await adopted(self._adopted, self._settings, self._client)
        link = Link(self._target, self._settings.inbox_prefix)
        exchange = Exchange(link, self._settings.publish_timeout.total_seconds(), self._settings.domain)
        deadline = asyncio.get_running_loop().time() + timeout
        await link.start(timeout)
        try:
            async with asyncio.timeout_at(deadline):
                await exchange.api("INFO", patient=False)
        except BaseException:
            exchange.close()
            await link.stop(1.0)
            raise
        topology = Topology(self._naming, self._settings, exchange)
        self._parts = _Parts(
            link,
            exchange,
            topology,
            Publisher(link, exchange, topology, self._subjects),
            Browser(link, exchange, topology, self._subjects),
            Groups(exchange, topology, self._naming),
            set(),
            set(),
        )
        return Limits(link.largest)

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        await self._started().topology.provision(wanted, how)

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        return await self._started().publisher.publish(messages)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        parts = self._started()
        if all(source.kind == "reply" for source in group.sources):
            (address,) = group.sources
            subject = self._subjects.of(address, "").decode()
            replies = ReplyConsumer(parts.link, parts.exchange, address, subject, receive)
            await replies.start(parts.replies.discard)
            parts.replies.add(replies)
            return replies
        consumer = GroupConsumer(
            *(parts.link, parts.exchange, parts.publisher, parts.topology, self._subjects, group, receive, in_flight)
        )
        await consumer.start(parts.groups.discard)
        parts.groups.add(consumer)
        return consumer

    def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        return self._started().browser.browse(address)

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        parts = self._started()
        return follow.follow(parts.link, parts.exchange, parts.topology, address)

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        return await self._started().browser.remove(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        parts = self._started()
        retrying = sum(consumer.retrying for consumer in parts.groups if consumer.group.name == group.name)
        return await parts.browser.measure(group, retrying)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return await self._started().all_groups.find(names)

    async def disband(self, name: str, /) -> None:
        parts = self._started()
        if consumers := await parts.browser.consumers(Group(name, ())):
            raise GroupInUse(name, consumers)
        await parts.all_groups.remove(name)

    async def stop(self, timeout: float, /) -> None:
        parts, self._parts = self._parts, None
        if parts is None:
            return
        deadline = asyncio.get_running_loop().time() + timeout
        consumers: list[Consumer] = [*parts.groups, *parts.replies]
        await asyncio.gather(*(consumer.stop(timeout * 0.7) for consumer in consumers))
        parts.exchange.close()
        await parts.link.stop(max(0.1, deadline - asyncio.get_running_loop().time()))

    def _started(self) -> _Parts:
        if self._parts is None:
            raise Closed("the NATS adapter is not started")
        return self._parts
