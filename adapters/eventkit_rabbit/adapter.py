"""The adapter: what the port asks for, by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar, Self

from pydantic_settings import BaseSettings

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
from eventkit_rabbit.link import Link
from eventkit_rabbit.management import Management
from eventkit_rabbit.names import Names
from eventkit_rabbit.running import Running
from eventkit_rabbit.settings import RabbitSettings
from eventkit_rabbit.target import adopted, target


class RabbitAdapter:
    """RabbitMQ 3.10 or newer, with quorum queues, over AMQP 0-9-1."""

    name: ClassVar[str] = "rabbit"
    settings: ClassVar[type[BaseSettings] | None] = RabbitSettings
    capabilities: Capabilities = Capabilities(
        durable=True,
        start_earliest=False,
        key_order_across_replicas=False,
        delivery_count=True,
        longest_handler=timedelta(minutes=30),
        settles_in_order=False,
        validates_subscriptions=False,
        lists_groups=False,
    )

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        if settings is None:
            settings = RabbitSettings()
        if not isinstance(settings, RabbitSettings):
            raise TypeError(f"settings of the rabbit adapter are RabbitSettings, not {type(settings).__name__}")
        url = None if connection.url is None else connection.url.get_secret_value()
        self._settings = settings
        self._target = target(url, settings, connection.client)
        self._names = Names(connection.namespace)
        if settings.management is not None:
            self.capabilities = replace(self.capabilities, lists_groups=True)
        self._running: Running | None = None
        self._client = connection.client
        self._adopted: BrokerObject | None = None

    @classmethod
    def from_broker(cls, broker: BrokerObject, connection: Connection, /) -> Self:
        """Connects to the URL, and with the security, of that `RabbitBroker`."""
        adapter = cls(connection)
        adapter._adopted = broker
        return adapter

    @property
    def error(self) -> Exception | None:
        return None if self._running is None else self._running.error

    async def start(self, timeout: float, /) -> Limits:
        if self._running is not None:
            raise RuntimeError("the rabbit adapter is started already")
        if self._adopted is not None:
            async with asyncio.timeout(timeout):
                self._target = await look(
                    self._adopted, lambda connected: adopted(connected, self._settings, self._client)
                )
        said = self._settings.management
        management = None if said is None else Management(said.get_secret_value(), self._target, self._settings)
        running = Running(lambda purpose: Link(self._target, purpose), self._names, self._settings, management)
        try:
            async with asyncio.timeout(timeout):
                await running.open()
        except BaseException:
            await running.close(1.0)
            raise
        self._running = running
        return Limits(message_bytes=running.publisher.limit)

    def _now(self) -> Running:
        if self._running is None:
            raise Closed("the rabbit adapter is not started")
        return self._running

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        await self._now().provision(wanted, how)

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        return await self._now().publish(messages)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> Consumer:
        return await self._now().consume(group, receive, in_flight)

    def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        return self._now().browser.browse(address)

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._now().follow(address)

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        return await self._now().browser.remove(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        running = self._now()
        topology = running.topology
        found = await topology.look(self._names.queue(group.name))
        dead = await topology.ready(self._names.dead(group.name))
        delayed = await running.waiting.count(group.name)
        if found is None:
            return Backlog(ready=None, in_flight=None, delayed=delayed, dead=dead)
        in_flight = None if found.consumers else 0  # AMQP counts only what is ready
        return Backlog(found.ready, in_flight, delayed, dead, consumers=found.consumers)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        return await self._now().groups(names)

    async def disband(self, name: str, /) -> None:
        await self._now().disband(name)

    async def stop(self, timeout: float, /) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.close(timeout)
