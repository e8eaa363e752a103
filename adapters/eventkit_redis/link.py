"""One connection, written and read at the same time.

Commands of all callers leave in one write and are answered in order, so nobody waits for the round trip of another.
redis-py makes, authenticates and parses the connection; its retries are off, because a pipeline that it repeats after a
broken connection runs twice, and its silence hides an outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = logging.getLogger("eventkit.redis")

Connect: TypeAlias = Callable[[], Awaitable[AbstractConnection]]
"""Makes a connection that is connected, or raises redis-py's own error."""
Argument: TypeAlias = bytes | str | int

WRITE: Final = 1 << 20
"""Bytes in one write, about."""
_TICK: Final = 0.25
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


def command(*arguments: Argument) -> bytes:
    """One command as RESP."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def script(source: str, keys: Sequence[Argument], *arguments: Argument) -> bytes:
    """One EVAL."""
    return command("EVAL", source, len(keys), *keys, *arguments)


class Call:
    """Some commands that were handed to a link, and their answers so far."""

    __slots__ = ("deadline", "error", "future", "replies", "wanted", "wire")

    def __init__(self, wire: Sequence[bytes], wanted: int, deadline: float, future: asyncio.Future[None]) -> None:
        self.wire = wire
        self.wanted = wanted
        self.replies: list[Any] = []
        """In the order of the commands; an error reply is an exception."""
        self.error: Exception | None = None
        """Why the rest has no answer; it may or may not have been carried out."""
        self.deadline = deadline
        self.future = future

    def end(self, error: Exception | None = None) -> None:
        if not self.future.done():
            self.error = error
            self.future.set_result(None)


class Link:
    """A connection that is kept up between `open` and `close`."""

    def __init__(self, connect: Connect, role: str, *, stall: float = 10.0, loud: bool = True) -> None:
        self._connect = connect
        self._role = role
        self._stall = stall
        """Seconds without any answer, while one is awaited, after which the connection counts as dead."""
        self._loud = loud
        self._queue: deque[Call] = deque()
        self._sent: deque[Call] = deque()
        self._wake = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._progress: tuple[Call | None, int, float] = (None, 0, 0.0)
        self._reading: asyncio.Task[None] | None = None
        self._stalled: Exception | None = None
        self.error: Exception | None = None
        """Why it is down; None while it is up."""
        self.generation = 0
        """How many connections there have been: another number is another connection."""

    async def open(self, timeout: float) -> None:
        """Connect once. Raises redis-py's own error; then nothing is open."""
        async with asyncio.timeout(timeout):
            connection = await self._connect()
        self._adopt()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(connection), name=f"eventkit-redis-{self._role}")
        self._tick = loop.call_later(_TICK, self._watch)

    def call(self, wire: Sequence[bytes], wanted: int, timeout: float) -> Call:
        """Hand over commands that have `wanted` replies together. Ends, answered or not, soon after `timeout`."""
        loop = asyncio.get_running_loop()
        call = Call(wire, wanted, loop.time() + timeout, loop.create_future())
        if self._task is None:
            call.end(RedisConnectionError("the connection is closed"))
        else:
            self._queue.append(call)
            self._wake.set()
        return call

    async def ask(self, *commands: bytes, timeout: float = 10.0) -> list[Any]:
        """The replies of some commands. Raises the first error among them."""
        call = self.call(commands, len(commands), timeout)
        await call.future
        if call.error is not None:
            raise call.error
        for reply in call.replies:
            if isinstance(reply, Exception):
                raise reply
        return call.replies

    async def wait_up(self) -> None:
        await self._up.wait()

    async def close(self) -> None:
        task, self._task = self._task, None
        if self._tick is not None:
            self._tick.cancel()
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fail(RedisConnectionError("the connection was closed"), unsent=True)

    async def _run(self, connection: AbstractConnection | None) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        said = False
        while True:
            if connection is None:
                connection, error = await self._reconnected()
                if connection is None:
                    self.error = error
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnections
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                if said and self._loud:
                    log.info("Redis is back (%s)", self._role)
                said, pause = False, _FIRST_PAUSE
            self._stalled = None
            self._reading = reading = loop.create_task(self._read(connection))
            writing = loop.create_task(self._write(connection))
            try:
                await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
                writing.cancel()
                ended = await asyncio.gather(reading, writing, return_exceptions=True)
                self._up.clear()
                self._reading = None
                await disconnect(connection)
            lost = next((end for end in ended if isinstance(end, Exception)), None)
            self.error = lost or self._stalled or RedisConnectionError("the connection was closed")
            self._fail(self.error, unsent=False)
            if self._loud:
                log.warning("Redis is gone (%s), connecting again: %s", self._role, self.error)
            said = True
            connection = None

    async def _reconnected(self) -> tuple[AbstractConnection | None, Exception | None]:
        try:
            async with asyncio.timeout(5.0):
                connection = await self._connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do better
            return None, error
        self._adopt()
        return connection, None

    def _adopt(self) -> None:
        self.generation += 1
        self.error = None
        self._up.set()

    async def _write(self, connection: AbstractConnection) -> None:
        queue, sent = self._queue, self._sent
        while True:
            if not queue:
                self._wake.clear()
                await self._wake.wait()
            wire: list[bytes] = []
            size = 0
            while queue and size < WRITE:
                call = queue.popleft()
                if call.future.done():
                    continue
                sent.append(call)
                wire.extend(call.wire)
                size += sum(map(len, call.wire))
            if wire:
                await connection.send_packed_command(wire, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        sent = self._sent
        read = connection.read_response
        while True:
            try:
                reply = await read(disconnect_on_error=False)
            except ResponseError as error:
                reply = error
            if not sent:
                raise RedisConnectionError(f"an answer that nobody asked for: {type(reply).__name__}")
            call = sent[0]
            replies = call.replies
            replies.append(reply)
            if len(replies) == call.wanted:
                sent.popleft()
                call.end()
            if isinstance(reply, ReadOnlyError):
                raise reply  # a demoted primary: the name may lead to the new one

    def _watch(self) -> None:
        """Ends calls whose time is up, and the connection when it is silent while an answer is due."""
        loop = asyncio.get_running_loop()
        self._tick = loop.call_later(_TICK, self._watch)
        now = loop.time()
        for call in (*self._queue, *self._sent):
            if call.deadline < now:
                call.end(self.error or RedisTimeoutError("Redis did not answer in time"))
        head = self._sent[0] if self._sent else None
        seen = len(head.replies) if head else 0
        if head is None or self._progress[0] is not head or self._progress[1] != seen:
            self._progress = (head, seen, now)
        elif now - self._progress[2] > self._stall and self._reading is not None:
            self._progress = (None, 0, now)
            self._stalled = RedisTimeoutError(f"Redis did not answer for {self._stall:g} s")
            self._reading.cancel()

    def _fail(self, error: Exception, *, unsent: bool) -> None:
        while self._sent:
            self._sent.popleft().end(error)
        while unsent and self._queue:
            self._queue.popleft().end(error)


async def connected(connection: AbstractConnection) -> AbstractConnection:
    """This connection, connected. If that fails, nothing of it is left open."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await disconnect(connection)
        raise
    return connection


async def disconnect(connection: AbstractConnection) -> None:
    """Whatever state it is in."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
