"""The connection: one that comes back by itself.

nats-py's own reconnecting is off. It replays publishes that have timed out for their callers, gives up for good on any
error line of the server, and cannot notice a silent peer for minutes. So each connection is a fresh client, and those
that use the link are told when it breaks and when it is there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from nats.errors import NoServersError, StaleConnectionError

from eventkit_nats.client import Client, Sink
from eventkit_nats.settings import Target

log = logging.getLogger("eventkit.nats")

_FIRST_SID = 1_000_000
"""Above all that nats-py gives out."""
_WATCH = 5.0
"""Seconds between two signs of life."""
_MISSED = 3
"""So many signs of life unanswered: the peer is gone."""
_SLOWEST = 2.0
"""Seconds between two attempts to connect, at most."""


_HEADROOM = 65_536
"""What a copy may be larger than its original, in bytes: what failed, and why, percent-encoded."""


class Link:
    """One connection at a time, kept up from `start` to `stop`."""

    def __init__(self, target: Target, inbox_prefix: str) -> None:
        self.inbox = f"{inbox_prefix}.{secrets.token_hex(11)}"
        """Private to this process: whoever uses the link appends a word of its own."""
        self.max_payload = 0
        """The largest message that the server takes, in bytes, headers included."""
        self.error: Exception | None = None
        """Why it is down; None while it is up."""
        self.up = asyncio.Event()
        self.on_down: list[Callable[[], None]] = []
        self.on_up: list[Callable[[], None]] = []
        """Called in order, before anybody else can write."""
        self.on_said: list[Callable[[Exception], None]] = []
        """What the server complained of, and kept the connection."""
        self._target = target
        self._options: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._sids = count(_FIRST_SID)
        self._taps: dict[int, tuple[str, Sink]] = {}
        self._buffer: list[bytes] = []
        self._flushing = False
        self._unanswered = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self, timeout: float) -> None:
        """The first connection. Raises the client's own error; then nothing is left open."""
        self._options = self._target.options()
        client = await self._open(timeout)
        self.subscribe(f"{self.inbox}.alive", self._alive)
        self._adopt(client)
        self._spawn(self._watch())

    async def stop(self, timeout: float) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        client, self._client = self._client, None
        self.up.clear()
        if client is not None:
            with contextlib.suppress(OSError):
                client.write(b"".join(self._buffer))
            self._buffer.clear()
            await _discard(client, timeout)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    # What goes out

    def write(self, data: bytes) -> bool:
        """Whole protocol lines; all that is written in one turn of the loop goes out together. False: the link is
        down and nothing was written."""
        if self._client is None:
            return False
        self._buffer.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return True

    async def drain(self) -> None:
        """Wait until the socket has room again, or the link is down."""
        self._flush()
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                await client.drain()

    def _flush(self) -> None:
        self._flushing = False
        client = self._client
        if client is not None and self._buffer:
            client.write(b"".join(self._buffer))
        self._buffer.clear()

    # What comes in

    def subscribe(self, subject: str, sink: Sink) -> int:
        """From now on, through all connections, until `unsubscribe`. Returns the number of the subscription."""
        sid = next(self._sids)
        self._taps[sid] = (subject, sink)
        if self._client is not None:
            self._client.sinks[sid] = sink
            self.write(b"SUB %b  %d\r\n" % (subject.encode(), sid))
        return sid

    def unsubscribe(self, sid: int) -> None:
        """No more from the server. What is on its way still reaches the sink, until `forget`."""
        self._taps.pop(sid, None)
        self.write(b"UNSUB %d\r\n" % sid)

    def forget(self, sid: int) -> None:
        self._taps.pop(sid, None)
        if self._client is not None:
            self._client.sinks.pop(sid, None)

    # Keeping it up

    async def _open(self, timeout: float) -> Client:
        client = Client(secure=bool(self._target.secure))
        reasons: list[Exception] = []

        async def failed(error: Exception) -> None:
            reasons[:] = [error]
            if client is self._client and not isinstance(error, OSError | StaleConnectionError):
                log.warning("NATS: the server says: %s", error)
                for hook in tuple(self.on_said):
                    hook(error)

        async def closed() -> None:
            self._lost(client, client.last_error or ConnectionResetError("NATS: the server closed the connection"))

        servers = [*self._target.servers]
        random.shuffle(servers)
        try:
            async with asyncio.timeout(timeout):
                await client.connect(
                    servers=servers,
                    error_cb=failed,
                    closed_cb=closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=max(1, round(min(timeout, 5.0))),
                    **self._options,
                )
        except BaseException as error:
            client.abort()
            await _discard(client, 1.0)
            if isinstance(error, NoServersError) and reasons:
                raise reasons[-1] from error
            if isinstance(error, TimeoutError) and not str(error):
                raise TimeoutError(f"NATS: no answer from {', '.join(servers)} within {timeout:g} s") from error
            raise
        return client

    @property
    def largest(self) -> int:
        """The largest message that may be published: a dead letter of it fits, too."""
        return self.max_payload - min(_HEADROOM, self.max_payload // 4)

    def _adopt(self, client: Client) -> None:
        self._client = client
        self.max_payload = client.max_payload
        self._unanswered = 0
        for sid, (subject, sink) in self._taps.items():
            client.sinks[sid] = sink
            self.write(b"SUB %b  %d\r\n" % (subject.encode(), sid))
        self.error = None
        for hook in tuple(self.on_up):
            hook()
        self.up.set()

    def _lost(self, client: Client, error: Exception) -> None:
        if client is not self._client or self._closing:
            return
        self._client = None
        self.error = error
        self.up.clear()
        self._buffer.clear()
        log.warning("NATS: connection lost (%s); connecting again", str(error) or type(error).__name__)
        for hook in tuple(self.on_down):
            hook()
        self._spawn(self._again(client))

    async def _again(self, gone: Client) -> None:
        gone.abort()
        self._spawn(_discard(gone, 5.0))
        pause = 0.02
        while True:
            try:
                client = await self._open(5.0)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                self.error = error
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, _SLOWEST)
            else:
                break
        self._adopt(client)
        log.info("NATS: connected again")

    async def _watch(self) -> None:
        """A word to ourselves through the server, again and again: a peer that is silently gone sends no error."""
        while True:
            await asyncio.sleep(_WATCH)
            client = self._client
            if client is None:
                continue
            if self._unanswered >= _MISSED or client.is_closed:
                self._lost(client, ConnectionResetError("NATS: the server does not answer any more"))
                continue
            self._unanswered += 1
            self.write(b"PUB %b.alive 0\r\n\r\n" % self.inbox.encode())

    def _alive(self, _subject: bytes, _reply: bytes, _data: bytes, _headers: bytes | None) -> None:
        self._unanswered = 0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _discard(client: Client, timeout: float) -> None:
    """Close it; what is written goes out first. nats-py raises odd things when it closes while down."""
    try:
        async with asyncio.timeout(timeout):
            await client.close()
    except Exception as error:  # noqa: BLE001
        log.debug("NATS: closing a connection: %r", error)
    finally:
        client.abort()
