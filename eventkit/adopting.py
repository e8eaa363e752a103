"""Adopting: a FastStream broker object that somebody hands in, and whose connection settings an adapter takes over.

The object belongs to whoever made it: its subscribers and publishers go on as if eventkit were not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_LOOK = 1.0
"""Seconds to find out whether it is connected already."""


class BrokerObject(Protocol):
    """What is asked of it: `faststream.redis.RedisBroker` and its like have this."""

    running: bool

    async def connect(self) -> Any:
        """Its client, connected; again the same one if it is connected already."""
        ...

    async def ping(self, timeout: float) -> bool: ...

    async def stop(self) -> None: ...


async def look(broker: BrokerObject, read: Callable[[Any], T]) -> T:
    """What `read` finds in its client, whose public attributes say where and how it is connected.

    It is connected for that, and closed again if it had not been connected before.
    """
    opened = not await broker.ping(_LOOK)
    client = await broker.connect()
    try:
        return read(client)
    finally:
        if opened and not broker.running:
            await broker.stop()
