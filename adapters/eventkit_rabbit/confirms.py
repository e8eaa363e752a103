"""One channel in confirm mode: what was written on it and is not answered yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit_rabbit import decode, encode, frames, write
from eventkit_rabbit.wire import Wire

Answer = Exception | None


class Route(NamedTuple):
    """Where one message goes on the broker."""

    exchange: str
    routing_key: str
    mandatory: bool
    returned: Callable[[], Exception] | None
    """Makes the answer for a mandatory message that no queue takes."""
    extra: encode.Extra = encode.PLAIN
    copy: bool = False
    """It may use the headroom."""


class Job(NamedTuple):
    """One message, ready to be written."""

    message: Message
    route: Route
    properties: bytes
    place: int


class Call:
    """One call of publish: its answers and how many are still open."""

    __slots__ = ("answers", "low", "open", "waiter")

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.open = 0
        self.low = 0
        self.waiter: asyncio.Future[None] | None = None

    def answer(self, index: int, how: Answer) -> None:
        self.answers[index] = how
        self.open -= 1
        if self.open <= self.low and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def below(self, open_: int) -> None:
        """Returns when no more than so many are open."""
        if self.open > open_:
            self.low = open_
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


class _Sent(NamedTuple):
    call: Call
    job: Job
    key: tuple[str, str, str] | None
    """How a return of it would be recognised; None where none is asked for."""
    written: float
    """By `time.monotonic`."""


class Channel:
    """A channel in confirm mode: what was written on it and is not confirmed. An owner of `Frames`."""

    def __init__(self, deliver: Callable[[bytes, bytes, bytes], None] | None) -> None:
        self.closed_by: Exception | None = None
        self.refused = False
        """Has the broker refused anything on it?"""
        self.opened = 0.0
        """By `time.monotonic`."""
        self.wire: Wire
        self.channel: AbstractChannel
        self._deliver = deliver
        self._tag = 0
        self._lowest = 1
        self._sent: dict[int, _Sent] = {}
        self._returnable: dict[tuple[str, str, str], deque[int]] = {}
        self._methods: dict[tuple[str, str, bool], bytes] = {}

    async def open(self, wire: Wire) -> None:
        self.wire = wire
        self.channel = await wire.channel(self, confirms=True)
        self.opened = time.monotonic()

    def write(self, call: Call, jobs: Sequence[Job]) -> None:
        """Put these on the wire, in order. All at once: nothing else comes between."""
        number, frame_max, methods = self.channel.number, self.wire.frame_max, self._methods
        out: list[bytes] = []
        for job in jobs:  # all of it first: what cannot be written must not count as written
            name = (job.route.exchange, job.route.routing_key, job.route.mandatory)
            method = methods.get(name)
            if method is None:
                if len(methods) > 1000:
                    methods.clear()
                method = methods[name] = write.publish(number, *name)
            out.append(method)
            out += write.content(number, job.properties, job.message.body or b"", frame_max)
        now = time.monotonic()
        for job in jobs:
            route = job.route
            self._tag += 1
            key = None
            if route.mandatory:
                key = (route.exchange, route.routing_key, job.message.headers.get(h.MESSAGE_ID, ""))
                self._returnable.setdefault(key, deque()).append(self._tag)
            self._sent[self._tag] = _Sent(call, job, key, now)
        call.open += len(jobs)
        self.wire.write(*out)

    @property
    def oldest(self) -> tuple[Job, float] | None:
        """What has waited longest for its confirm, and when it was written."""
        first = next(iter(self._sent.values()), None)
        return None if first is None else (first.job, first.written)

    def confirmed(self, tag: int, multiple: bool, accepted: bool, /) -> None:
        if multiple:
            for one in range(self._lowest, tag + 1):
                self._confirm(one, accepted)
            self._lowest = tag + 1
        else:
            self._confirm(tag, accepted)
            if tag == self._lowest:
                self._lowest += 1

    def _confirm(self, tag: int, accepted: bool) -> None:
        sent = self._sent.pop(tag, None)
        if sent is None:
            return
        if sent.key is not None:
            waiting = self._returnable[sent.key]
            if tag in waiting:
                waiting.remove(tag)
            if not waiting:
                del self._returnable[sent.key]
        self.refused |= not accepted
        sent.call.answer(sent.job.place, None if accepted else amqp.DeliveryError(None, Basic.Nack(tag)))

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes, /) -> None:
        if method == frames.DELIVER and self._deliver is not None:
            self._deliver(arguments, header, body)
        elif method == frames.RETURN:
            _, at = frames.read_short(arguments, 2)
            exchange, at = frames.read_short(arguments, at)
            key, at = frames.read_short(arguments, at)
            self._return((exchange, key, decode.decode(header).headers.get(h.MESSAGE_ID, "")))

    def _return(self, key: tuple[str, str, str]) -> None:
        """The broker returns before it confirms, in the order of publishing."""
        waiting = self._returnable.get(key)
        if not waiting:
            return
        sent = self._sent.pop(waiting.popleft(), None)
        if not waiting:
            del self._returnable[key]
        if sent is not None:
            assert sent.job.route.returned is not None
            sent.call.answer(sent.job.place, sent.job.route.returned())

    def empty(self) -> None: ...

    def cancelled(self) -> None: ...

    def closed(self, error: Exception, /) -> None:
        self.closed_by = error
        sent, self._sent = self._sent, {}
        for one in sent.values():
            one.call.answer(one.job.place, error)
