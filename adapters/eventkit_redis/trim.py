"""Topics keep to their length and age; a group that loses unread messages by it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from redis.exceptions import RedisError

from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Link, script
from eventkit_redis.settings import RedisSettings
from eventkit_redis.source import Source

log = logging.getLogger("eventkit.redis")

_EVERY: Final = 1000
"""Messages published to a topic between two trims."""
_LOOK: Final = 5.0
"""Seconds between two looks of a consumer."""
_SWEEP: Final = 60
"""Looks between two sweeps."""
_GONE: Final = 3600 * 1000
"""Ms without a word after which a consumer that holds nothing is removed."""


class Trimmer:
    """Trims topics by the settings: as often as this process adds to them, and when its consumers ask."""

    def __init__(self, link: Link, keys: Keys, settings: RedisSettings) -> None:
        self._link = link
        self._keys = keys
        self._length = settings.topic_length
        self._age = int(settings.topic_age.total_seconds() * 1000)
        self._every = max(1, min(_EVERY, self._length // 10)) if self._length else _EVERY
        self._added: dict[str, int] = {}
        self._ours: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost_by: dict[str, int] = {}
        """Gaps that this process saw while trimming, by group."""

    def own(self, stream: str) -> None:
        """This topic is ours to trim; `physical` ones are not."""
        self._ours.add(stream)

    def added(self, stream: str, count: int) -> None:
        """So many messages were published to a topic."""
        # The first one counts for all before it: a process may be too short-lived to count to the next trim.
        total = self._added.get(stream, self._every) + count
        self._added[stream] = 0 if total >= self._every else total
        if total >= self._every and stream in self._ours and (self._length or self._age):
            task = asyncio.get_running_loop().create_task(self._quietly(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def trim(self, stream: str) -> int:
        """Trim it now if it is ours. Returns how many messages went."""
        if stream not in self._ours or not (self._length or self._age):
            return 0
        (report,) = await self._link.ask(script(lua.TRIM, (stream, self._keys.gaps(stream)), self._length, self._age))
        for group, since, until in zip(report[1::3], report[2::3], report[3::3], strict=True):
            name = group.decode()
            self.lost_by[name] = self.lost_by.get(name, 0) + 1
            log.warning(
                "%s was trimmed while group %s had not finished what is gone: from %s to before %s. "
                "Raise EVENTKIT_REDIS__TOPIC_LENGTH or __TOPIC_AGE, or remove the group if it is retired.",
                *(stream, name, since.decode(), until.decode()),
            )
        return int(report[0])

    async def stop(self, timeout: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=0 if self._link.error else min(timeout, 1.0))
        for task in self._tasks:
            task.cancel()

    async def _quietly(self, stream: str) -> None:
        try:
            await self.trim(stream)
        except (RedisError, OSError, TimeoutError) as error:
            log.info("%s could not be trimmed, next time again: %s", stream, error)


class Warden:
    """Looks after the streams of a group: trims its topics, says what was trimmed before the group had read it, and
    removes consumers that are long gone."""

    def __init__(self, link: Link, keys: Keys, trimmer: Trimmer, group: str, sources: Sequence[Source]) -> None:
        self._link = link
        self._trimmer = trimmer
        self._group = group
        self._topics = [
            source.key for source in sources if source.address.kind == "topic" and source.address.physical is None
        ]
        for topic in self._topics:
            trimmer.own(topic)
        self._asks = [script(lua.GAPS, (keys.gaps(topic),), group) for topic in self._topics]
        self._sweeps = [script(lua.SWEEP, (source.key,), group, _GONE) for source in sources]
        self.gaps = 0
        """How often messages of this group were trimmed before it had finished them."""

    async def run(self) -> None:
        looks = 0
        while True:
            try:
                for topic in self._topics:
                    await self._trimmer.trim(topic)
                if self._asks:
                    self._say(await self._link.ask(*self._asks))
                if looks % _SWEEP == 0:
                    await self._link.ask(*self._sweeps)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("group %s could not look after its streams: %s", self._group, error)
            looks += 1
            await asyncio.sleep(_LOOK)

    def _say(self, found: Sequence[Sequence[bytes]]) -> None:
        for topic, gap in zip(self._topics, found, strict=True):
            if gap:
                self.gaps += 1
                log.error(
                    "group %s lost messages of %s: trimmed before they were finished, from %s to before %s",
                    *(self._group, topic, gap[0].decode(), gap[1].decode()),
                )
