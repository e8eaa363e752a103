"""Who reads a group now: each of its consumers says so again and again, in a sorted set that forgets by itself.

Redis counts consumers too, but keeps those that died, and tells a waiting one from a dead one only since 7.2.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from redis.exceptions import RedisError

from eventkit_redis import scripts as lua
from eventkit_redis.link import Link, command, script

log = logging.getLogger("eventkit.redis")

_BEAT: Final = 2.0
"""Seconds between two signs of life."""
_FORGOTTEN: Final = 8_000
"""Ms after which one that was not heard of is not counted."""


class Presence:
    """The signs of life of one consumer."""

    def __init__(self, link: Link, readers: str, consumer: str) -> None:
        self._link = link
        self._readers = readers
        self._consumer = consumer

    async def run(self) -> None:
        beat = script(lua.HERE, (self._readers,), self._consumer, _FORGOTTEN)
        while True:
            try:
                await self._link.ask(beat)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("%s cannot say that it reads: %s", self._consumer, error)
            await asyncio.sleep(_BEAT)

    def leave(self) -> bytes:
        """The command that ends it."""
        return command("ZREM", self._readers, self._consumer)
