"""Following a topic or an inbox: a plain subscription beside the stream, which keeps nothing and waits for nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from nats.js.errors import NotFoundError

from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_nats.codec import decode
from eventkit_nats.exchange import Exchange
from eventkit_nats.link import Link
from eventkit_nats.topology import Topology

_KEPT = 100_000
"""Messages that wait to be taken; beyond that the oldest are missed."""


@asynccontextmanager
async def follow(
    link: Link, exchange: Exchange, topology: Topology, address: Address
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """What is published to the subjects of the address's stream."""
    place = await topology.place(address)
    try:
        config = (await exchange.api(f"STREAM.INFO.{place.stream}"))["config"]
    except NotFoundError as error:
        raise NotProvisioned(f"stream {place.stream!r} for {address} is missing") from error
    arrived: deque[Delivery] = deque(maxlen=_KEPT)
    some = asyncio.Event()
    positions = count(1)

    def take(_subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        arrived.append(Delivery(decode(address, headers, data), str(next(positions)), None, None))
        some.set()

    subjects = [place.filter] if place.filter is not None else config["subjects"]
    sids = [link.subscribe(subject, take) for subject in subjects]
    try:
        await exchange.fence(exchange.timeout)
        yield _each(arrived, some)
    finally:
        for sid in sids:
            link.unsubscribe(sid)
            link.forget(sid)


async def _each(arrived: deque[Delivery], some: asyncio.Event) -> AsyncIterator[Delivery]:
    while True:
        await some.wait()
        some.clear()
        while arrived:
            yield arrived.popleft()
