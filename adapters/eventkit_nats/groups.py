"""Which groups there are, what they read, and how one is removed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple

from nats.js.errors import NotFoundError

from eventkit.adapter import Address, Group
from eventkit.names import Naming
from eventkit_nats.exchange import Exchange, judged
from eventkit_nats.topology import Topology

_AT_ONCE = 200
"""Streams that are asked about at once."""


class _Read(NamedTuple):
    """A durable of a group, on a stream."""

    group: str
    address: Address
    stream: str
    durable: str


class Groups:
    def __init__(self, exchange: Exchange, topology: Topology, naming: Naming) -> None:
        self._exchange = exchange
        self._topology = topology
        self._naming = naming

    async def find(self, names: Collection[str] | None) -> list[Group]:
        """All streams are looked through for durables: nothing else says what a group reads."""
        streams = await self._streams()
        wanted = self._naming.groups(streams) if names is None else names
        known = set(streams)
        there = sorted({name for name in wanted if self._naming.channel("dead", name) in known})
        sources: dict[str, list[Address]] = {name: [] for name in there}
        if there:
            async for found in self._read(streams, there):
                sources[found.group].append(found.address)
        return [Group(name, tuple(sources[name])) for name in there]

    async def remove(self, name: str) -> None:
        """The stream of dead letters goes last."""
        inbox, retry, dead = (self._naming.channel(kind, name) for kind in ("inbox", "retry", "dead"))
        streams = [stream for stream in await self._streams() if stream not in (inbox, retry, dead)]
        async for found in self._read(streams, [name]):
            await self._delete(f"CONSUMER.DELETE.{found.stream}.{found.durable}")
        self._topology.forget(name)
        for stream in (inbox, retry, dead):
            await self._delete(f"STREAM.DELETE.{stream}")

    async def _delete(self, what: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self._exchange.api(what)

    async def _streams(self) -> list[str]:
        found: list[str] = []
        while True:
            page = await self._exchange.api("STREAM.NAMES", {"offset": len(found)})
            some = page.get("streams") or []
            found += some
            if not some or len(found) >= page.get("total", 0):
                return found

    async def _read(self, streams: Sequence[str], groups: Sequence[str]) -> AsyncIterator[_Read]:
        for at in range(0, len(streams), _AT_ONCE):
            some = streams[at : at + _AT_ONCE]
            questions = [self._exchange.question(f"CONSUMER.NAMES.{stream}") for stream in some]
            for stream, answer in zip(some, await self._exchange.ask(questions), strict=True):
                try:
                    durables = judged(answer).get("consumers") or []
                except NotFoundError:
                    continue  # it was deleted meanwhile
                for durable in durables:
                    for group in groups:
                        if (address := await self._address(stream, durable, group)) is not None:
                            yield _Read(group, address, stream, durable)

    async def _address(self, stream: str, durable: str, group: str) -> Address | None:
        """What the group reads by this durable; None: it is another one's, or one for retries."""
        own = self._naming.group(group)
        if durable == own:
            source = self._naming.source(stream)
            return None if source is None else Address(*source)
        if not durable.startswith(own):
            return None
        try:
            config: dict[str, Any] = (await self._exchange.api(f"CONSUMER.INFO.{stream}.{durable}"))["config"]
        except NotFoundError:
            return None
        physical = config.get("filter_subject") or stream
        address = Address("topic", physical, physical)
        return address if self._topology.durable(group, address) == durable else None
