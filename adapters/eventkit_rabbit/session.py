"""One channel of a consumer: what arrives on it and what is settled on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import cast

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel

from eventkit.adapter import Address, Delivery, Group, new
from eventkit.errors import NotProvisioned
from eventkit_rabbit import decode, delay, frames
from eventkit_rabbit.names import Names
from eventkit_rabbit.tags import Tags
from eventkit_rabbit.wire import Wire

_tag = Struct(">Q").unpack_from


class Session:
    """One channel of a consumer, from its opening to its end. An owner of `Frames`.

    Delivery tags mean something on their own channel only: a settlement for an earlier session is no settlement.
    """

    def __init__(self, wire: Wire, arrived: Callable[[Delivery], None], origins: Origins) -> None:
        self.wire = wire
        self.tags = Tags()
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.channel: AbstractChannel
        self._arrived = arrived
        self._origins = origins
        self._left = False

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes, /) -> None:
        if method != frames.DELIVER:
            return
        at = 1 + arguments[0]
        tag = _tag(arguments, at)[0]
        self.tags.arrived(tag)
        exchange, _ = frames.read_short(arguments, at + 9)
        address = self._origins.of(exchange)
        decoded = decode.decode(header)
        message = decode.read(address, decoded, body)
        if decoded.until is not None:
            message = message._replace(due=delay.moment(decoded.until))
        self._arrived(new(Delivery, (message, decode.position(decoded, body), decoded.returns + 1, (self, tag))))

    def empty(self) -> None: ...

    def confirmed(self, tag: int, multiple: bool, accepted: bool, /) -> None: ...

    def cancelled(self) -> None:
        self.end(NotProvisioned("the broker ended the consumer: its queue was deleted or has no leader"))

    def closed(self, error: Exception, /) -> None:
        self.end(error)

    def end(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_result(error)

    @property
    def deleted(self) -> bool:
        """Has it ended since its queue was deleted, as far as one can tell?"""
        over = self.over  # cancelled together with whoever waited for it, at a stop
        if not over.done() or over.cancelled():
            return False
        # the second: that it was to be consumed or asked for before the broker could tell of its end
        return isinstance(over.result(), NotProvisioned | amqp.ChannelNotFoundEntity)

    async def leave(self) -> None:
        """Close the channel. Nothing more is written on it: that would end the whole connection, and all that is
        unsettled on its other channels would come again."""
        self._left = True
        await self.wire.close_channel(self.channel)

    def flush(self, *, back: bool = True) -> None:
        """Write what is settled. `back`: also what is given back."""
        if self.tags.waiting and not self._left and not self.over.done():
            self.wire.write(*self.tags.write(self.channel.number, back=back))


def held(delivery: Delivery) -> tuple[Session, int]:
    """The channel on which a delivery came, and its tag there."""
    return cast("tuple[Session, int]", delivery.token)


class Origins:
    """Which address a delivery came from, by its exchange."""

    def __init__(self, group: Group, names: Names) -> None:
        self._names = names
        # what is routed by the queue's own name came through the retry address
        self._known = {"": group.retry, **{names.exchange(source): source for source in group.sources}}

    def of(self, exchange: str) -> Address:
        address = self._known.get(exchange)
        if address is None:
            address = self._known[exchange] = self._names.stranger(exchange)
        return address
