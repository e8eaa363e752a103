"""Following a topic or an inbox: a plain read of its stream, in no group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from redis.exceptions import RedisError

from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_redis import codec
from eventkit_redis.link import Connect, Link, command

log = logging.getLogger("eventkit.redis")

_BLOCK: Final = 1000
_COUNT: Final = 500
_PAUSE: Final = 0.5


@asynccontextmanager
async def follow(connect: Connect, address: Address, key: str) -> AsyncIterator[AsyncIterator[Delivery]]:
    """On a connection of its own, since a read that waits keeps it busy."""
    link = Link(connect, f"following {address.name}", stall=15.0)
    await link.open(5.0)
    try:
        kind, newest = await link.ask(command("TYPE", key), command("XREVRANGE", key, "+", "-", "COUNT", 1))
        if kind not in (b"stream", "stream"):
            raise NotProvisioned(f"missing on Redis: {address}")
        yield _each(link, address, key, newest[0][0] if newest else b"0-0")
    finally:
        await link.close()


async def _each(link: Link, address: Address, key: str, last: bytes) -> AsyncIterator[Delivery]:
    while True:
        try:
            entries = await _read(link, key, last)
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("cannot follow %s yet: %r", address, error)
            await asyncio.sleep(_PAUSE)
            await link.wait_up()
            continue
        for entry, fields in entries:
            yield Delivery(codec.message(address, fields), entry.decode(), None, None)
            last = entry


async def _read(link: Link, key: str, last: bytes) -> list[tuple[bytes, list[bytes]]]:
    wire = command("XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK, "STREAMS", key, last)
    (reply,) = await link.ask(wire, timeout=3600.0)
    for _, entries in reply.items() if isinstance(reply, dict) else reply or ():
        return list(entries)
    return []
