"""eventkit on one SQLite file: the port."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventkit.adapter import (
    Address,
    Backlog,
    Capabilities,
    Connection,
    Delivery,
    Group,
    Limits,
    Message,
    Provision,
    Receive,
    Waiting,
)
from eventkit.errors import GroupInUse, NotProvisioned, SettingsError
from eventkit.names import Naming
from examples.sqlite_adapter import storage
from examples.sqlite_adapter.consumer import Follower, Reading, SqliteConsumer
from examples.sqlite_adapter.storage import File

_SCHEME = "sqlite:///"
_POLL = 0.01
"""Seconds between looks whether another process has changed the file."""
_FOLLOWED = 256
_STOP = 1.0
"""Seconds that the end of following may take."""


class SqliteSettings(BaseSettings):
    """Read from EVENTKIT_SQLITE__*."""

    model_config = SettingsConfigDict(env_prefix="EVENTKIT_SQLITE__", extra="forbid", frozen=True)

    lease: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=300))
    """How long a message stays with a process that is not heard of."""
    write_timeout: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(milliseconds=100))
    """How long a write waits for those of other processes."""
    message_bytes: int = Field(default=1_048_576, ge=1_024)
    """The largest message."""


class SqliteAdapter:
    """`sqlite:///shop.db` is a file in the current folder, `sqlite:////var/shop.db` one with its whole path."""

    name: ClassVar[str] = "sqlite"
    settings: ClassVar[type[SqliteSettings]] = SqliteSettings
    capabilities: Capabilities = Capabilities(
        durable=True,
        start_earliest=False,  # a message goes once all groups that were there have settled it
        key_order_across_replicas=False,
        delivery_count=True,
        longest_handler=None,
        settles_in_order=False,
        validates_subscriptions=True,
        lists_groups=True,
    )

    def __init__(self, connection: Connection) -> None:
        given = connection.settings
        self._settings = given if isinstance(given, SqliteSettings) else SqliteSettings()
        url = f"{_SCHEME}eventkit.db" if connection.url is None else connection.url.get_secret_value()
        if not url.startswith(_SCHEME) or url == _SCHEME:
            raise SettingsError("EVENTKIT_URL: a SQLite file is written sqlite:///shop.db or sqlite:////var/shop.db")
        self._file = File(url.removeprefix(_SCHEME), self._settings.write_timeout.total_seconds())
        self._naming = Naming(connection.namespace, longest=250)
        self._client = connection.client
        self._consumers: set[SqliteConsumer] = set()
        self._watching: asyncio.Task[None] | None = None
        self.error: Exception | None = None

    async def start(self, timeout: float, /) -> Limits:
        async with asyncio.timeout(timeout):
            await self._file.open()
        self._watching = asyncio.create_task(self._watch())
        return Limits(message_bytes=self._settings.message_bytes)

    async def stop(self, timeout: float, /) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        consumers, self._consumers = self._consumers, set()
        await asyncio.gather(*(consumer.stop(timeout) for consumer in consumers))
        with contextlib.suppress(sqlite3.Error):
            await self._file.close()
        self._watching = self.error = None

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        if how is Provision.ASSUME:
            return
        groups = [item for item in wanted if isinstance(item, Group)]
        reads = [read for group in groups for read in self._reads(group)]
        channels = [channel for _, channel in reads] + [self._channel(group.dead) for group in groups]
        topics = [self._channel(item) for item in wanted if isinstance(item, Address) and item.kind == "topic"]
        if how is Provision.CREATE:  # an inbox, a retry and a dead-letter address come with their group alone
            await self._file.change(storage.create, [*topics, *channels], reads)
        alone = [self._channel(item) for item in wanted if isinstance(item, Address)]
        self._check(await self._file.read(storage.missing, [*alone, *channels], reads))

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        named = [(self._channel(message.address), message) for message in messages]
        try:
            answers = await self._file.change(storage.publish, named, self._settings.message_bytes)
        except sqlite3.Error as error:
            return [error] * len(messages)
        self._wake()
        return answers

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> SqliteConsumer:
        if any(source.kind == "reply" for source in group.sources):
            reply = group.sources[0]
            return await self._pass(self._channel(reply), reply, receive, in_flight)
        self._check(await self._file.read(storage.missing, [], self._reads(group)))
        channels = {self._channel(source): source for source in (*group.sources, group.retry)}
        consumer = self._consumer(self._reading(self._naming.group(group.name), channels, in_flight), receive)
        await consumer.renew()  # so that it is counted at once
        return consumer

    @asynccontextmanager
    async def follow(self, address: Address, /) -> AsyncIterator[AsyncIterator[Delivery]]:
        channel, follower = self._channel(address), Follower()
        self._check(await self._file.read(storage.missing, [channel], []))
        consumer = follower.consumer = await self._pass(f"{channel} {uuid.uuid4().hex}", address, follower, _FOLLOWED)
        try:
            yield follower.each()
        finally:
            await consumer.stop(_STOP)

    async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        channel, last = self._channel(address), 0
        newest = await self._file.read(storage.newest)
        while rows := await self._file.read(storage.page, channel, last, newest):
            for row in rows:
                last = row[0]
                yield Delivery(storage.message(row, address), position=str(last), deliveries=None, token=None)

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        await self._file.change(storage.remove, [int(delivery.position) for delivery in deliveries])
        return [None] * len(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        name = self._naming.group(group.name)
        backlog, found = await self._file.read(storage.measure, name, self._channel(group.dead))
        split = {source: found.get(self._channel(source), Waiting(0, 0)) for source in group.sources}
        return replace(backlog, sources=split)

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        channels = await self._file.read(storage.channels)
        wanted = self._naming.groups(channels) if names is None else names
        there = sorted({name for name in wanted if self._channel(Address("dead", name)) in channels})
        return [Group(name, await self._sources(name)) for name in there]

    async def disband(self, name: str, /) -> None:
        own = [self._channel(Address(kind, name)) for kind in ("inbox", "retry", "dead")]
        if consumers := await self._file.change(storage.disband, self._naming.group(name), own):
            raise GroupInUse(name, consumers)

    async def _pass(self, name: str, address: Address, receive: Receive, in_flight: int) -> SqliteConsumer:
        """Consume with a group that ends with its consumer."""
        channel = self._channel(address)
        reading = replace(self._reading(name, {channel: address}, in_flight), passing=channel)
        await self._file.change(storage.keep_passing, name, channel, reading.lease)
        return self._consumer(reading, receive)

    def _reading(self, name: str, channels: Mapping[str, Address], in_flight: int) -> Reading:
        limits = self._settings
        return Reading(name, channels, self._channel, in_flight, limits.lease.total_seconds(), limits.message_bytes)

    def _consumer(self, reading: Reading, receive: Receive) -> SqliteConsumer:
        consumer = SqliteConsumer(reading, self._file, receive, self._client, self._wake)
        self._consumers = {one for one in self._consumers if not one.stopped} | {consumer}
        return consumer

    async def _watch(self) -> None:
        """Wakes the consumers when another process has changed the file."""
        seen = 0
        while True:
            try:
                found = await self._file.read(storage.version)
            except sqlite3.Error as error:
                self.error = error
            else:
                self.error = None
                if found != seen:
                    seen = found
                    self._wake()
            await asyncio.sleep(_POLL)

    def _wake(self) -> None:
        for consumer in self._consumers:
            consumer.wake()

    def _channel(self, address: Address) -> str:
        return self._naming.channel(*address)

    def _reads(self, group: Group) -> list[tuple[str, str]]:
        """The group with each channel that it reads, by their names in the file."""
        name = self._naming.group(group.name)
        return [(name, self._channel(source)) for source in (*group.sources, group.retry)]

    async def _sources(self, group: str) -> tuple[Address, ...]:
        channels = await self._file.read(storage.read_by, self._naming.group(group))
        return tuple(Address(*source) for source in map(self._naming.source, channels) if source is not None)

    def _check(self, missing: Sequence[str]) -> None:
        if missing:
            raise NotProvisioned(f"missing in the SQLite file: {', '.join(missing)}")
