"""Which streams the next read asks, for how much, and what comes of its reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from eventkit.adapter import Delivery, new
from eventkit_redis import codec
from eventkit_redis.link import command
from eventkit_redis.source import Source, Token

_BYTES: Final = 32 << 20
"""A read asks for about that much at most."""


class Read(NamedTuple):
    """One XREADGROUP."""

    wire: bytes
    most: int
    """At most so many entries of each stream."""
    all: bool
    """Of every stream whose turn it is; it waits where there is nothing."""


class Fetch:
    """The reads of one consumer."""

    def __init__(self, group: str, consumer: str, sources: Sequence[Source], batch: int, block: int) -> None:
        self._group = group
        self._consumer = consumer
        self._sources = list(sources)
        self._by_key = {source.name: source for source in sources}
        self._batch = batch
        self._block = block
        self._first = 0
        self._hot: list[Source] = []
        self._size = 1

    def turn(self, room: int) -> list[Source]:
        """The streams to ask: COUNT is meant for each, so with little room only some of them, in turn."""
        sources = self._sources
        if room >= len(sources):
            return sources
        first = self._first = (self._first + 1) % len(sources)
        return (sources[first:] + sources[:first])[: max(0, room)]

    def next(self, room: int) -> Read:
        """The next read. Never asks for more than there is room for."""
        sources, all_ = self.turn(room), True
        if self._hot and len(self._hot) < len(sources):
            # Between two reads of all, one of those alone that had as much as they might give.
            sources, all_, self._hot = self._hot, False, []
        count = max(1, min(self._batch, room // len(sources), _BYTES // self._size))
        waits: tuple[str | int, ...] = ("BLOCK", self._block) if all_ else ()
        keys = [source.name for source in sources]
        ends = [b">"] * len(keys)
        about = ("GROUP", self._group, self._consumer, "COUNT", count, *waits)
        return Read(command("XREADGROUP", *about, "STREAMS", *keys, *ends), count, all_)

    def deliveries(self, read: Read, reply: Any) -> list[Delivery]:
        """What came, in the order of each stream."""
        pairs: Iterable[Any] = reply.items() if isinstance(reply, dict) else reply or ()
        batch: list[Delivery] = []
        hot: list[Source] = []
        largest = 1
        message = codec.message
        for name, entries in pairs:
            source = self._by_key[name]
            address, held = source.address, source.held
            if len(entries) == read.most:
                hot.append(source)
            largest = max(largest, len(entries[0][1][-1]), len(entries[-1][1][-1]))
            if source.comes_again(entries[0][0], entries[-1][0]):
                entries = [one for one in entries if not source.ours(one[0])]  # noqa: PLW2901 what is here already
            for entry, fields in entries:
                token: Token = (source, entry)
                held[entry] = token
                batch.append(new(Delivery, (message(address, fields), entry.decode(), 1, token)))
        if read.all:
            self._hot = hot
        if batch:
            self._size = largest
        return batch

    @staticmethod
    def again(source: Source, entries: Sequence[Any]) -> list[Delivery]:
        """Entries that had an owner before. Those that are here already are only renewed by it."""
        batch: list[Delivery] = []
        for entry, fields, deliveries in entries:
            if source.ours(entry):
                continue
            source.comes_again(entry, entry)
            token: Token = (source, entry)
            source.held[entry] = token
            message = codec.message(source.address, fields)
            batch.append(Delivery(message, entry.decode(), deliveries or None, token))
        return batch
