"""What waits in a group's retry address, until it is due."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from redis.exceptions import RedisError

from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Link, script

log = logging.getLogger("eventkit.redis")

_AT_ONCE: Final = 200
_LOOK: Final = 0.25
"""Seconds between two looks: others may park something that is due sooner than all we know of."""
_AFTER_ERROR: Final = 1.0


class Ripener:
    """Moves what is due into the retry stream. Each consumer of a group has one; any number of them do it together."""

    def __init__(self, link: Link, keys: Keys, group: str, stream: str) -> None:
        self._link = link
        self._script = script(lua.RIPEN, (keys.due(group), keys.waiting(group), stream), _AT_ONCE)
        self._group = group
        self._look = asyncio.Event()

    def look(self) -> None:
        """Something new waits."""
        self._look.set()

    async def run(self) -> None:
        failing = False
        while True:
            try:
                pause = await self._ripen()
                failing = False
            except (RedisError, OSError, TimeoutError) as error:
                pause = _AFTER_ERROR
                # A lost connection is said by the link; a refusal (out of memory, no permission) only here.
                if not failing and self._link.error is None:
                    log.warning("what is due for group %s cannot be delivered, trying again: %s", self._group, error)
                failing = True
            self._look.clear()
            if pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await self._look.wait()
                except TimeoutError:
                    pass

    async def _ripen(self) -> float:
        ((moved, next_ms),) = await self._link.ask(self._script)
        if moved == _AT_ONCE:
            return 0.0
        return _LOOK if next_ms < 0 else min(_LOOK, next_ms / 1000)
