"""One connection, from its handshake to its loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiormq
from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel
from aiormq.connection import TransportFactory
from yarl import URL

from eventkit_rabbit.frames import ChannelOwner, Frames
from eventkit_rabbit.target import Target

log = logging.getLogger("eventkit.rabbit")

T = TypeVar("T")

_CONNECT = 10.0
"""Seconds for one attempt to connect."""
_CALL = 10.0
"""Seconds for one question to the broker."""
_ABORTED = 0.5
"""Seconds for aiormq to see that its connection is gone."""


class _Made(TransportFactory):
    """Gives aiormq a transport that is there already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._made = reader, writer

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._made


class Wire:
    """One connection, from its handshake to its loss."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception] = loop.create_future()
        self.frames = Frames(loop, self._end)
        self.connection: aiormq.Connection
        self._writer: asyncio.StreamWriter
        self._out: list[bytes] = []
        self._loop = loop
        self._last_channel = 0
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, to: Target, purpose: str) -> Wire:
        """To the first node that takes us. The client's own error, or TimeoutError. On failure nothing is left open."""
        nodes = to.nodes()
        for left, node in enumerate(nodes, 1 - len(nodes)):
            wire = cls()
            try:
                # A node without a word must not use up the time of those that would answer.
                async with asyncio.timeout(_CONNECT if left == 0 else _CONNECT / len(nodes)):
                    await wire._connect(node, purpose)
            except (OSError, TimeoutError, amqp.AMQPConnectionError) as error:
                if left == 0:
                    raise
                log.debug("no connection to RabbitMQ at %s, trying the next node: %r", node, error)
            else:
                return wire
        raise AssertionError("a target has at least one node")

    async def _connect(self, to: Target, purpose: str) -> None:
        loop = self._loop
        protocol = asyncio.StreamReaderProtocol(self.frames, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            to.host,
            to.port,
            ssl=to.context,
            server_hostname=to.host if to.context is not None else None,
        )
        self._writer = asyncio.StreamWriter(transport, protocol, self.frames, loop)
        self.connection = aiormq.Connection(
            to.url,
            transport_factory=_Made(self.frames, self._writer),
            client_properties={"connection_name": f"{to.client} ({purpose})"},
        )
        # Shielded: when the handshake fails in the moment in which this is cancelled, aiormq raises that failure, and
        # the cancellation is lost; and it waits for the transport to end, which one that is not aborted may never do.
        connecting = loop.create_task(self._shake_hands(), name="eventkit rabbit handshake")
        connecting.add_done_callback(_heard)
        try:
            await asyncio.shield(connecting)
        except amqp.InvalidFrameError as error:
            transport.abort()
            # that is how aiormq takes a refusal that it did not expect here, such as a virtual host that is not there
            raise self.frames.refused or error from error
        except BaseException:
            transport.abort()
            connecting.cancel()
            raise
        self.frames.take_over()
        self.connection.closing.add_done_callback(lambda _: self._end(None))

    async def _shake_hands(self) -> None:
        await self.connection.connect()

    @property
    def frame_max(self) -> int:
        """In bytes."""
        return self.connection.connection_tune.frame_max or 131_072

    @property
    def version(self) -> str:
        """The broker's."""
        said = self.connection.server_properties.get("version", "")
        return said if isinstance(said, str) else ""

    def write(self, *parts: bytes) -> None:
        """Sent at the end of this turn of the event loop, together with all else that was written in it."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += parts

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.lost.done() and not self._writer.is_closing():  # uvloop would raise
            self._writer.write(b"".join(out))

    async def drain(self) -> None:
        """Returns when the network has taken most of what was written."""
        self._flush()
        with suppress(ConnectionError):
            await self._writer.drain()

    async def channel(self, owner: ChannelOwner | None = None, *, confirms: bool = False) -> AbstractChannel:
        """A new channel. What arrives on it goes to its owner, who is told of its end unless `disown` was called."""
        async with asyncio.timeout(_CALL):
            channel = await self.connection.channel(self._free_number(), publisher_confirms=confirms)
        if self.lost.done():
            raise self.lost.result()
        if owner is not None:
            self.frames.owners[channel.number] = owner
        return channel

    def _free_number(self) -> int:
        """All others come before one that was just in use: aiormq takes a number whose channel the broker closed for
        free before it has written the answer, and an opening that overtakes it ends the connection."""
        highest = self.connection.connection_tune.channel_max or 65_535
        for _ in range(highest):
            self._last_channel = self._last_channel % highest + 1
            if self._last_channel not in self.connection.channels:
                return self._last_channel
        raise amqp.AMQPConnectionError(f"all {highest} channels of the connection are in use")

    def disown(self, channel: AbstractChannel) -> None:
        self.frames.owners.pop(channel.number, None)

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close it in time, whatever state it is in. What is unsettled on it goes back to its queue.

        One that is not closed in time is so later, when the broker has answered what was asked on it before: it would
        hold its messages for as long as the connection lives.
        """
        self.disown(channel)
        self._flush()
        if self.lost.done() or channel.is_closed:
            return
        closing = asyncio.ensure_future(_closed(channel))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.wait([closing], timeout=_CALL)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[AbstractChannel]:
        """A channel for a few questions. One that the broker answers with an error is closed by that."""
        channel = await self.channel()
        try:
            async with asyncio.timeout(_CALL):
                yield channel
        finally:
            await self.close_channel(channel)

    async def close(self, timeout: float) -> None:
        self._flush()
        leaving = self._loop.create_task(self._leave(), name="eventkit rabbit close")
        try:
            await asyncio.wait([leaving], timeout=timeout)
        finally:
            # else aiormq waits until all that was written is sent, however often it is cancelled
            self._writer.transport.abort()
            self._end(None)
        if not leaving.done():
            leaving.cancel()
            await asyncio.wait([leaving], timeout=_ABORTED)

    async def _leave(self) -> None:
        with suppress(Exception):
            await self.connection.close()

    def abort(self, reason: Exception) -> None:
        """Give it up at once. Who has something under way on it is told why."""
        self._end(reason)
        self._writer.transport.abort()

    def _end(self, error: Exception | None) -> None:
        if self.lost.done():
            return
        reason = error or amqp.AMQPConnectionError("the connection was closed")
        self.lost.set_result(reason)
        for closing in self._closing:
            closing.cancel()
        owners, self.frames.owners = self.frames.owners, {}
        for owner in owners.values():
            owner.closed(reason)


async def _closed(channel: AbstractChannel) -> None:
    with suppress(Exception):
        await channel.close()


async def uncut(call: Awaitable[T]) -> T:
    """A call that goes on where its caller is cancelled: aiormq closes the channel of one that is cut off, and what is
    written there meanwhile ends the whole connection, with all acknowledgements that were on their way."""
    task = asyncio.ensure_future(call)
    task.add_done_callback(_heard)
    return await asyncio.shield(task)


def _heard(task: asyncio.Future[Any]) -> None:
    """How it ended may be of interest to nobody any more: asyncio would log that as an error."""
    if not task.cancelled():
        task.exception()


async def unused(_: object) -> None:
    """A consumer's callback for aiormq, which never sees a delivery (`frames`)."""
