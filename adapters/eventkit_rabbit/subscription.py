"""A consumer on its channel, and how many messages it is given at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from eventkit_rabbit.session import Session
from eventkit_rabbit.wire import uncut, unused

MOST: Final = 1000
"""Messages that the broker delivers before any is acknowledged."""
_FULL = 1.0
"""Seconds to wait until as many have come as may, at most."""
_COME, _ANSWERS = 0.2, 5
"""Seconds, and how many times as long as the broker took to answer, within which what waits there has come."""
_AGAIN = 1.0
"""Seconds until a change is tried again."""


class Subscription:
    """How many come at once is said when a consumer begins. To change it, it ends and begins anew on its channel.

    It may end only while nothing is on its way to it: that would go back to the queue, counted as if its reader had
    died, and come again behind what was sent meanwhile. So acknowledgements are kept back until as many have come as
    may: then the broker sends nothing more, and all that it sent is here. What is handled meanwhile would run again if
    the process died; so that is done only where enough waits in the queue to come at once, and else the number does not
    matter.
    """

    def __init__(self, session: Session, queue: str, arguments: Mapping[str, Any]) -> None:
        self.session = session
        self.prefetch = 0
        self.keeping = False
        """Are acknowledgements kept back now?"""
        self._queue = queue
        self._arguments = dict(arguments)
        self._tag = ""
        self._begun = 0
        self._mark = 0
        """The last tag of what came before it began."""
        self._full: asyncio.Future[None] | None = None
        self._hurried = False
        self._not_before = 0.0

    @property
    def on(self) -> bool:
        return bool(self._tag)

    async def begin(self, prefetch: int) -> None:
        channel = self.session.channel
        self.prefetch, self._mark = prefetch, self.session.tags.top
        await uncut(channel.basic_qos(prefetch_count=prefetch))
        self._begun += 1
        self._tag = f"ek{self._begun}"
        await uncut(channel.basic_consume(self._queue, unused, consumer_tag=self._tag, arguments=self._arguments))

    async def end(self) -> None:
        await uncut(self.session.channel.basic_cancel(self._tag))
        self._tag = ""  # not before: what is on its way to it still comes

    def wants(self, at_most: int) -> int:
        """The prefetch by which so many are held at most. While too much is held from before it is 1: a queue that
        nobody consumes would look as if nobody read it."""
        wanted = max(1, min(at_most, MOST))
        return wanted if self.prefetch == wanted or self.session.tags.unsettled < wanted else 1

    def short(self, at_most: int) -> bool:
        """Is the prefetch small only since too much is held from before?"""
        return self.prefetch < min(at_most, MOST) and self.wants(at_most) == 1

    def may_change(self, at_most: int) -> bool:
        """Is it time to try? Something has come, and so more may."""
        return (
            self.on
            and self.prefetch != self.wants(at_most)
            and self.session.tags.unwritten(self._mark) > 0
            and asyncio.get_running_loop().time() >= self._not_before
        )

    async def change(self, prefetch: int) -> None:
        """Begin anew with that many, unless the number does not matter now."""
        loop = asyncio.get_running_loop()
        self._hurried = False
        asked = loop.time()
        if await self._fills():
            async with self.still(min(_COME + _ANSWERS * (loop.time() - asked), _FULL)) as still:
                if still:
                    await self.end()
            if still:
                self.session.flush(back=False)  # what is given back would come here once more
                await self.begin(prefetch)
                return
        self._not_before = loop.time() + _AGAIN

    async def _fills(self) -> bool:
        """Will as many come as may, as soon as nothing is acknowledged any more?"""
        missing = self.prefetch - self.session.tags.unwritten(self._mark)
        if missing <= 0:
            return True
        found = await uncut(self.session.channel.queue_declare(self._queue, passive=True))
        return not self._hurried and (found.message_count or 0) >= missing

    @asynccontextmanager
    async def still(self, seconds: float = _FULL) -> AsyncIterator[bool]:
        """Keep acknowledgements back, until as many have come as may: is it sure that nothing is on its way now?"""
        self.keeping = True
        try:
            full = self._full = asyncio.get_running_loop().create_future()
            self.arrived()
            ends: list[asyncio.Future[Any]] = [full, self.session.over]
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            yield full.done() and self.keeping
        finally:
            self._full = None
            self.keeping = False

    def give_up(self) -> None:
        """Do not wait for that now: acknowledgements are to go out."""
        self._hurried = True
        if self._full is not None and not self._full.done():
            self.keeping = False
            self._full.cancel()

    def arrived(self) -> None:
        """Something has come."""
        full = self._full
        if full is not None and not full.done() and self.session.tags.unwritten(self._mark) >= self.prefetch:
            full.set_result(None)
