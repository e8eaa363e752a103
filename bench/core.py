"""The core alone: what a message costs between an adapter that costs nothing and a handler that does nothing."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from pydantic_settings import BaseSettings

from bench.shapes import Countdown, events_of, messages_of, service_of
from eventkit import Bus, Provision
from eventkit.adapter import (
    Address,
    Backlog,
    Capabilities,
    Connection,
    Delivery,
    Group,
    Limits,
    Message,
    Receive,
    Settlement,
)
from eventkit.memory import MemoryAdapter

_BATCH = 500


class FreeAdapter:
    """Hands over what it was given, at once, and forgets what is settled."""

    name: ClassVar[str] = "free"
    settings: ClassVar[type[BaseSettings] | None] = None
    capabilities: ClassVar[Capabilities] = MemoryAdapter.capabilities
    error: Exception | None = None

    def __init__(self, waiting: Sequence[Message] = ()) -> None:
        self._waiting = [Delivery(message, str(at), 1, None) for at, message in enumerate(waiting)]
        self._task: asyncio.Task[None] | None = None

    async def start(self, timeout: float, /) -> Limits:
        return Limits(message_bytes=1 << 20)

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None: ...

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        return [None] * len(messages)

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> FreeAdapter:
        async def feed() -> None:
            for first in range(0, len(self._waiting), _BATCH):
                await receive.deliveries(self._waiting[first : first + _BATCH])
                await asyncio.sleep(0)

        self._task = asyncio.create_task(feed())
        return self

    def settle(self, delivery: Delivery, how: Settlement, /) -> None: ...

    async def flush(self, timeout: float, /) -> None: ...

    def hold(self, at_most: int, /) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def stop(self, timeout: float, /) -> None:
        if self._task is not None:
            self._task.cancel()

    def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        raise NotImplementedError

    def follow(self, address: Address, /) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        raise NotImplementedError

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        raise NotImplementedError

    async def measure(self, group: Group, /) -> Backlog:
        raise NotImplementedError

    @classmethod
    def from_broker(cls, broker: Any, connection: Connection) -> FreeAdapter:
        raise NotImplementedError


async def handling(count: int, *, keys: int = 1_000, handlers: int = 1, topics: int = 1) -> float:
    """Microseconds of CPU a message, from its arrival as headers and bytes to its settlement."""
    classes = events_of(handlers, topics)
    maker = Bus(FreeAdapter(), source="bench")
    waiting = [maker.encode(event) for event in messages_of(classes, count, keys)]
    ends = Countdown(count)
    gc.collect()
    async with Bus(FreeAdapter(waiting), source="bench") as bus, bus.run(service_of(classes, ends)):
        await ends.done.wait()
    return ends.microseconds


async def publishing(count: int) -> float:
    """Microseconds of CPU a message of `publish_many`, from the event to headers and bytes and its confirmation."""
    (cls,) = events_of(1, 1)
    events = messages_of([cls], count, 1_000)
    async with Bus(FreeAdapter(), source="bench") as bus:
        gc.collect()
        began = time.process_time()
        await bus.publish_many(events)
        return (time.process_time() - began) / count * 1e6
