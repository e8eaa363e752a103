"""eventkit, with all guarantees on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import SecretStr

from bench.messages import OrderPlaced, Ping, events
from eventkit import Bus, Provision, Service, discovery
from eventkit.adapter import Connection
from eventkit.running import Running
from eventkit.settings import read_adapter_settings


class Eventkit:
    name = "eventkit"

    def __init__(self, broker: str) -> None:
        self._broker = broker

    async def open(self, url: str, topic: str) -> None:
        settings = {"partitions": 4} if self._broker == "kafka" else {}  # as many as the other sides have
        self._bus = bus_of(self._broker, url, topic, **settings)
        await self._bus.__aenter__()
        self._service = Service("bench", concurrency=100)
        self._handle: Callable[[Any], None] = lambda _: None
        self._left = 0
        self._done = asyncio.Event()

        @self._service.handler
        async def place(event: OrderPlaced) -> None:
            self._handle(event)
            self._left -= 1
            if not self._left:
                self._done.set()

        @self._service.handler
        async def ping(command: Ping) -> int:
            return command.number

        groups = [group for group, _ in self._service.groups().values()]
        await self._bus.adapter.provision(groups, Provision.CREATE)

    async def close(self) -> None:
        await self._bus.__aexit__(None, None, None)

    def make(self, count: int) -> Sequence[OrderPlaced]:
        return events(count)

    async def publish_one(self, message: OrderPlaced) -> None:
        await self._bus.publish(message)

    async def publish_many(self, messages: Sequence[OrderPlaced]) -> None:
        await self._bus.publish_many(messages)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        self._handle, self._left = seen, count
        self._done.clear()
        async with self._bus.run(self._service):
            await self._done.wait()

    async def request(self, number: int) -> None:
        assert await self._bus.request(Ping(number=number)) == number

    def serving(self) -> Running:
        return self._bus.run(self._service)


def bus_of(broker: str, url: str, namespace: str, **settings: object) -> Bus:
    cls = discovery.load(broker)
    own = None if cls.settings is None else read_adapter_settings(cls.settings).model_copy(update=settings)
    secret = SecretStr(url) if url else None
    return Bus(cls(Connection(url=secret, namespace=namespace, client="bench", settings=own)), source="bench")
