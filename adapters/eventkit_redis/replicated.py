"""Writes that count as done when replicas have them.

A primary answers before its replicas have what was written: should it die then, and one of them take its place, that is
gone. `WAIT` holds the connection until enough of them have it. So such writes leave on a connection of their own, and
all that came meanwhile shares the next `WAIT`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from redis.exceptions import TimeoutError as RedisTimeoutError

from eventkit.errors import NotReplicated
from eventkit_redis.link import WRITE, Call, Link, command
from eventkit_redis.settings import RedisSettings


class Replicated:
    """In the place of a `Link`: its calls are answered when `WAIT` is."""

    def __init__(self, link: Link, settings: RedisSettings) -> None:
        self._link = link
        self._replicas = settings.wait
        self._seconds = settings.wait_timeout.total_seconds()
        self._wait = command("WAIT", self._replicas, int(self._seconds * 1000))
        self._queue: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None

    def call(self, wire: Sequence[bytes], wanted: int, timeout: float) -> Call:
        """As a link's. What succeeded, and too few replicas have, is answered with NotReplicated."""
        loop = asyncio.get_running_loop()
        call = Call(wire, wanted, loop.time() + timeout, loop.create_future())
        self._queue.append(call)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="eventkit-redis-replicated")
        return call

    async def close(self) -> None:
        """After its link: what waits is answered by that."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            calls = self._next(loop.time())
            if not calls:
                continue
            wire = [part for call in calls for part in call.wire]
            wanted = sum(call.wanted for call in calls)
            left = max(call.deadline for call in calls) - loop.time()
            sent = self._link.call((*wire, self._wait), wanted + 1, left)
            await sent.future
            self._answer(calls, sent)

    def _next(self, now: float) -> list[Call]:
        """What goes out together."""
        calls: list[Call] = []
        size = 0
        while self._queue and size < WRITE:
            call = self._queue.popleft()
            if call.deadline <= now:
                call.end(RedisTimeoutError("Redis did not answer in time"))
                continue
            calls.append(call)
            size += sum(map(len, call.wire))
        return calls

    def _answer(self, calls: list[Call], sent: Call) -> None:
        error = sent.error
        have = 0
        if error is None:
            said = sent.replies[-1]
            if isinstance(said, Exception):
                error = said  # WAIT itself was refused: what was written is written
            else:
                have = int(said)
        at = 0
        for call in calls:
            if error is None:
                replies = sent.replies[at : at + call.wanted]
                call.replies = replies if have >= self._replicas else [self._judged(one, have) for one in replies]
            at += call.wanted
            call.end(error)

    def _judged(self, reply: object, have: int) -> object:
        """A refusal stays what it is."""
        if reply is None or reply == -1 or isinstance(reply, Exception):
            return reply
        return NotReplicated(
            f"Redis has it, but {have} of {self._replicas} replicas did within {self._seconds:g} s "
            "(EVENTKIT_REDIS__WAIT): a failover may lose it; publish again with the same id"
        )
