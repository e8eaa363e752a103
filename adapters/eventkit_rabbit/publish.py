"""Publishing: all frames of a batch in one write, confirms gathered per call."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from aiormq import exceptions as amqp

from eventkit.cancelling import unbroken
from eventkit.errors import Closed, MessageTooLarge
from eventkit_rabbit.confirms import Answer, Call, Channel, Job
from eventkit_rabbit.encode import SHORT
from eventkit_rabbit.link import Link

log = logging.getLogger("eventkit.rabbit")

WINDOW = 500
"""Messages of one call that may be unconfirmed."""
_PIECE = 100
"""Messages written before the network is asked whether it keeps up."""
HEADROOM = 32_768
"""Bytes of headers that only copies may use: what a failure adds must fit where the original fitted."""
_PAUSE = 0.05
"""Seconds between attempts to get a channel, while the connection is there."""
_GLANCE = 0.005
_REFUSING, _REFUSING_REPLIES = 1.0, 10.0
"""Seconds for which a channel is kept at least, though the broker refuses on it: what is full refuses on each."""
_TOO_LARGE = re.compile(r"message size \d+ is larger than (?:the )?configured max(?:imum)? size (\d+)")


def routing_key(type_: str) -> str:
    """The type, cut if it is too long for AMQP."""
    raw = type_.encode(errors="replace")
    if len(raw) <= SHORT:
        return type_ if len(raw) == len(type_) else raw.decode()
    return f"{raw[: SHORT - 14].decode(errors='ignore')}-{hashlib.sha256(raw).hexdigest()[:10]}"


class Publisher:
    """Publishes over one channel, which it makes anew when it breaks."""

    def __init__(self, link: Link, limit: int, deadline: float) -> None:
        self._link = link
        self._deadline = deadline
        self._turn = asyncio.Lock()
        self._channel: Channel | None = None
        self.limit = limit
        """The largest body in bytes, as far as it is known."""
        self.on_open: Callable[[Channel], Awaitable[object]] | None = None
        """Awaited with each new channel, before anything is published on it."""
        self.deliver: Callable[[bytes, bytes, bytes], None] | None = None
        """Called with what is consumed on the same channel."""

    async def publish(self, jobs: Sequence[Job], answers: list[Answer]) -> None:
        """Fills the answers. Bounded by the deadline: those not answered by then are TimeoutError."""
        try:
            async with asyncio.timeout(self._deadline):
                failed = await self._publish([jobs], answers)
                # A refusal closes the channel and takes all that is under way with it. Those are published again, one
                # exchange at a time, so that the guilty one fails alone.
                for _ in range(2):
                    if failed:
                        failed = await self._publish(_by_exchange(failed), answers)
        except TimeoutError:
            self._explain(jobs, answers)
        except Closed as error:
            for job in jobs:
                if isinstance(answers[job.place], TimeoutError):
                    answers[job.place] = error

    def _explain(self, jobs: Sequence[Job], answers: list[Answer]) -> None:
        """The answers say already that it was late; the broker may have said why."""
        wire = self._link.now()
        if wire is not None and wire.frames.blocked:
            error = TimeoutError(
                f"RabbitMQ takes no messages now ({wire.frames.blocked}): not confirmed within {self._deadline:g} s"
            )
            for job in jobs:
                if isinstance(answers[job.place], TimeoutError):
                    answers[job.place] = error

    async def _publish(self, groups: Sequence[Sequence[Job]], answers: list[Answer]) -> list[Job]:
        """Those that went down with the channel by somebody's fault."""
        for group in groups:
            await self._send(group, answers)
        failed = []
        for group in groups:
            for job in group:
                error = answers[job.place]
                if isinstance(error, amqp.ChannelClosed):
                    failed.append(job)
                    if found := _TOO_LARGE.search(str(error)):
                        self.limit = min(self.limit, int(found[1]))
        return [job for job in failed if not self._too_large(job, answers)]

    def _too_large(self, job: Job, answers: list[Answer]) -> bool:
        error = too_large(job, self.limit)
        if error is not None:
            answers[job.place] = error
        return error is not None

    async def _send(self, jobs: Sequence[Job], answers: list[Answer]) -> None:
        call = Call(answers)
        late = TimeoutError(f"RabbitMQ did not confirm within {self._deadline:g} s")
        for job in jobs:
            answers[job.place] = late
        try:
            # A call's pieces follow each other, and calls each other, in the order of publishing.
            async with self._turn:
                await self._write(call, jobs)
            await call.below(0)
        except BaseException:
            call.answers = list(answers)  # what is confirmed from now on nobody reads
            raise

    async def _write(self, call: Call, jobs: Sequence[Job]) -> None:
        channel = await self._open_channel()
        for at in range(0, len(jobs), _PIECE):
            if channel.closed_by is not None:
                for job in jobs[at:]:
                    call.answers[job.place] = channel.closed_by
                return
            channel.write(call, jobs[at : at + _PIECE])
            if at + _PIECE < len(jobs):
                await channel.wire.drain()
                await call.below(WINDOW)

    async def _open_channel(self) -> Channel:
        """The channel; a new one if need be, as soon as the broker gives one."""
        while True:
            channel = self._channel
            if channel is not None and channel.closed_by is None and not await self._left(channel):
                return channel
            try:
                return await unbroken(self._make_channel())
            except (TimeoutError, Closed):
                raise
            except Exception as error:  # noqa: BLE001 of a connection that is lost meanwhile aiormq says just that
                log.debug("no channel to publish on: %r", error)
                await asyncio.sleep(_PAUSE)

    async def _left(self, channel: Channel) -> bool:
        """Leave a channel on which the broker has refused something, when nothing is under way on it any more.

        When the node dies that leads a queue, a channel may keep that in mind, and refuse all for that queue as long as
        it lives, while every other channel takes it.
        """
        # those that wait for replies on this one lose them
        least = _REFUSING if self.on_open is None else _REFUSING_REPLIES
        if not channel.refused or time.monotonic() - channel.opened < least:
            return False
        ends = time.monotonic() + _REFUSING
        while channel.oldest is not None and channel.closed_by is None:
            if time.monotonic() > ends:
                return False
            await asyncio.sleep(_GLANCE)
        self._channel = None
        if channel.closed_by is None:
            await channel.wire.close_channel(channel.channel)
        return True

    async def _make_channel(self) -> Channel:
        channel = Channel(self.deliver)
        await channel.open(await self._link.wire())
        try:
            if self.on_open is not None:
                await self.on_open(channel)
        except BaseException:
            await channel.wire.close_channel(channel.channel)
            raise
        self._channel = channel
        return channel

    def overdue(self, seconds: float) -> Job | None:
        """What the broker has had for so long and not confirmed, though it reads what we write."""
        channel = self._channel
        if channel is None or channel.closed_by is not None or channel.wire.frames.blocked:
            return None
        oldest = channel.oldest
        if oldest is None or time.monotonic() - oldest[1] < seconds:
            return None
        return oldest[0]

    async def ready(self) -> None:
        """Have a channel. Bounded by the caller."""
        async with self._turn:
            await self._open_channel()

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None and channel.closed_by is None:
            await channel.wire.close_channel(channel.channel)
            channel.closed(amqp.ChannelClosed("the publisher was closed"))


def too_large(job: Job, limit: int) -> MessageTooLarge | None:
    size = len(job.message.body or b"")
    if size <= limit:
        return None
    return MessageTooLarge(f"the body of {job.message.type or 'a message'} to {job.message.address}", size, limit)


def _by_exchange(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.route.exchange, []).append(job)
    return list(groups.values())
