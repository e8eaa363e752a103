"""What a consumer holds stays its own while it lives, and not longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import RedisError

from eventkit_redis import scripts as lua
from eventkit_redis.link import Link, script
from eventkit_redis.settings import RedisSettings
from eventkit_redis.source import Source, Token

log = logging.getLogger("eventkit.redis")

_CHUNK: Final = 500
_AFTER_ERROR: Final = 0.25
_TAKEN: Final = 3600 * 1000
"""For so many ms at least it is known that a message was taken over: a process that stood still for longer may repeat
one that another has finished."""
SLOWEST: Final = 10.0
"""Seconds within which a command is carried out, or its connection given up."""


class Leases:
    """The leases of one consumer, renewed over a connection that carries no messages."""

    def __init__(
        self, link: Link, group: str, consumer: str, sources: Sequence[Source], settings: RedisSettings
    ) -> None:
        self._link = link
        self._group = group
        self._consumer = consumer
        self._sources = sources
        self._lease = settings.lease.total_seconds()
        self._renewed = asyncio.get_running_loop().time()
        self.freed: Callable[[int], None] = lambda count: None
        """Told how many are no longer held."""
        self.gone: Callable[[Sequence[Token]], None] = lambda tokens: None
        """Told which of those that were ours others have: they run there."""
        self.lost = 0
        """Deliveries that another consumer took over while they were ours."""

    def sure(self) -> bool:
        """Can nobody have taken anything over, nor do so until a command that leaves now is carried out?"""
        return asyncio.get_running_loop().time() < self._renewed + self._lease - SLOWEST

    async def run(self) -> None:
        pause = self._lease / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self.renew(self._link)
                pause = self._lease / 3
            except (RedisError, OSError, TimeoutError) as error:
                if self._link.error is None:
                    log.warning("the leases of group %s cannot be renewed, trying again: %s", self._group, error)
                pause = min(_AFTER_ERROR, self._lease / 3)

    async def renew(self, link: Link) -> None:
        """Renew all; what is no longer ours is forgotten, so that settling it does nothing."""
        began = asyncio.get_running_loop().time()
        wire: list[bytes] = []
        about: list[Source] = []
        tokens: list[dict[bytes, object]] = []
        for source in self._sources:
            ids = source.leased()
            for at in range(0, len(ids), _CHUNK):
                chunk = ids[at : at + _CHUNK]
                about_it = (self._group, self._consumer, int(source.deletes))
                wire.append(script(lua.RENEW, (source.key, source.taken), *about_it, *chunk))
                about.append(source)
                tokens.append({entry: source.held.get(entry) for entry in chunk})
        if wire:
            there: list[Token] = []
            for source, asked, (lost, in_stream) in zip(about, tokens, await link.ask(*wire), strict=True):
                forgotten = self._forget(source, asked, lost)
                there += [forgotten[entry] for entry in in_stream if entry in forgotten]
            if there:
                self.gone(there)
        self._renewed = began

    def take_over(self, source: Source, count: int) -> bytes:
        """The command that gives this consumer what nobody renewed."""
        least = int(self._lease * 1000)
        kept = max(_TAKEN, 2 * least) if source.deletes else 0
        about = (self._group, self._consumer, least, source.cursor, count, kept)
        return script(lua.TAKE_OVER, (source.key, source.taken), *about)

    def _forget(self, source: Source, asked: dict[bytes, object], lost: Sequence[bytes]) -> dict[bytes, Token]:
        """The lost ones that were held until now."""
        gone = [entry for entry in lost if asked[entry] is not None and source.held.get(entry) is asked[entry]]
        forgotten = {entry: source.held.pop(entry) for entry in gone}
        if gone:
            self.lost += len(gone)
            self.freed(len(gone))
            log.warning(
                "%d messages of %s that group %s is working on were taken over by another consumer: "
                "this process was not heard of for %g s. They may be handled twice.",
                *(len(gone), source.key, self._group, self._lease),
            )
        return forgotten
