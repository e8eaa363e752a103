"""Requests: commands whose reply is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from eventkit import headers as h
from eventkit.adapter import DONE, Adapter, Address, Consumer, Delivery, Group, Message, Settlement
from eventkit.clock import Clock
from eventkit.errors import Closed, CommandFailed, CommandRejected, RequestTimeout, UndecodableMessage
from eventkit.outgoing import reply_adapter
from eventkit.wire import new_id, summary

_IN_FLIGHT = 1_000


class Requests:
    """One reply address for all requests of a bus; each waits for the reply that names it."""

    def __init__(self, adapter: Adapter, source: str, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self._address = Address("reply", f"{source}.{new_id()}")
        self._group = Group(self._address.name, (self._address,))
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._consumer: Consumer | None = None
        self._starting = asyncio.Lock()

    @property
    def reply_to(self) -> str:
        return self._address.name

    async def start(self) -> None:
        """Read the reply address; once, at the first request."""
        if self._consumer is not None:
            return
        async with self._starting:
            if self._consumer is None:
                self._consumer = await self._adapter.consume(self._group, self, in_flight=_IN_FLIGHT)

    async def stop(self, timeout: float) -> None:
        if self._consumer is not None:
            await self._consumer.stop(timeout)
            self._consumer = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Closed("this bus was closed while a reply was waited for"))
                future.exception()  # seen, also where its request is still being sent

    def expect(self, request_id: str) -> asyncio.Future[Message]:
        """The reply to come. `forget` it when you no longer wait."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        return future

    def forget(self, request_id: str) -> None:
        self._waiting.pop(request_id, None)

    async def wait(self, future: asyncio.Future[Message], what: str, timeout: timedelta) -> Message:
        """The reply, or RequestTimeout."""

        def expire() -> None:
            if not future.done():
                future.set_exception(RequestTimeout(what, timeout))

        timer = self._clock.call_later(timeout.total_seconds(), expire)
        try:
            return await future
        finally:
            timer.cancel()

    # eventkit.adapter.Receive

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        for delivery in batch:
            future = self._waiting.get(delivery.message.headers.get(h.CAUSATION, ""))
            if future is not None and not future.done():  # else it came too late: nobody waits for it
                future.set_result(delivery.message)
            if self._consumer is not None:
                self._consumer.settle(delivery, DONE)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool], /) -> None:
        """Replies are not shared."""

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        """A reply is gone once read."""


def outcome(reply: Message, as_: object) -> Any:
    """The value of a reply; raises CommandRejected, CommandFailed, or UndecodableMessage for what is no reply."""
    try:
        return _outcome(reply, as_)
    except ValidationError as error:
        raise UndecodableMessage(
            f"the reply to {reply.headers.get(h.CAUSATION)} does not fit {as_}: {summary(error)}"
        ) from error


def _outcome(reply: Message, as_: object) -> Any:
    said = reply.headers.get(h.OUTCOME, "ok")
    body = reply.body or b"null"
    if said == "rejected":
        raise CommandRejected(str(reply_adapter(str).validate_json(body)))
    if said == "failed":
        kind, text = reply_adapter(tuple[str, str]).validate_json(body)
        raise CommandFailed(kind, text)
    return None if as_ is None else reply_adapter(as_).validate_json(body)
