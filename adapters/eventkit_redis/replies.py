"""Replies to this process: a stream of its own that nobody else reads, and that disappears with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from redis.exceptions import RedisError

from eventkit.adapter import Address, Delivery, Receive, Settlement
from eventkit_redis import codec
from eventkit_redis.link import Link, command

log = logging.getLogger("eventkit.redis")

_BLOCK: Final = 1000
_PAUSE: Final = 0.5


class ReplyConsumer:
    """Hands over replies as they come. Nothing is kept, so there is nothing to settle."""

    def __init__(self, link: Link, address: Address, key: str, receive: Receive, in_flight: int) -> None:
        self._link = link
        self._address = address
        self._key = key
        self._receive = receive
        self._count = in_flight
        self._last = b"0-0"
        self._going = asyncio.Event()
        self._going.set()
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def error(self) -> Exception | None:
        return self._link.error or self._error

    async def start(self) -> None:
        """From what comes next: who listened here before has had what is there, or gave up on it."""
        try:
            (newest,) = await self._link.ask(command("XREVRANGE", self._key, "+", "-", "COUNT", 1))
        except BaseException:
            await self._link.close()
            raise
        if newest:
            self._last = newest[0][0]
        self._task = asyncio.get_running_loop().create_task(self._run(), name="eventkit-redis-replies")

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        pass

    async def flush(self, timeout: float, /) -> None:
        """Settling a reply means nothing."""

    def hold(self, at_most: int, /) -> None:
        """Replies are taken as they come."""

    def pause(self) -> None:
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    async def stop(self, timeout: float) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._link.close()

    async def _run(self) -> None:
        while True:
            await self._going.wait()
            try:
                await self._read()
                self._error = None
            except (RedisError, OSError, TimeoutError) as error:
                if self._link.error is None:
                    if self._error is None:
                        log.warning("replies cannot be read, trying again: %s", error)
                    self._error = error
                    await asyncio.sleep(_PAUSE)
                with contextlib.suppress(TimeoutError):
                    await self._link.wait_up()
            except Exception as error:
                log.exception("replies cannot be read, trying again")
                self._error = error
                await asyncio.sleep(_PAUSE)

    async def _read(self) -> None:
        call = self._link.call(
            (command("XREAD", "COUNT", self._count, "BLOCK", _BLOCK, "STREAMS", self._key, self._last),), 1, 3600.0
        )
        await call.future
        if call.error is not None:
            raise call.error
        reply = call.replies[0]
        if isinstance(reply, Exception):
            raise reply
        for _, entries in reply.items() if isinstance(reply, dict) else reply or ():
            batch = [
                Delivery(codec.message(self._address, fields), entry.decode(), 1, None) for entry, fields in entries
            ]
            self._last = entries[-1][0]
            await self._going.wait()
            await self._receive.deliveries(batch)
