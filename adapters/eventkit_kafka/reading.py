"""Reading outside of a group: dead letters, what a topic holds, single records by their offsets. Changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]

from eventkit_kafka import codec
from eventkit_kafka.clients import Clients, begin, end
from eventkit_kafka.fetch import Fetcher
from eventkit_kafka.records import Record, Unreadable

log = logging.getLogger("eventkit.kafka")

_WAIT = 1.0
_AT_ONCE = 1_000
_PATIENCE = 30.0
"""Seconds without a record, though there should be some, until reading gives up."""


@asynccontextmanager
async def reader(clients: Clients, starts: Mapping[TopicPartition, int]) -> AsyncIterator[Fetcher]:
    """These partitions, from these offsets on, over connections of its own."""
    client = clients.connection()
    try:
        await begin(client.bootstrap)
        if not await client.set_topics({tp.topic for tp in starts}):
            raise KafkaConnectionError("Kafka does not say who leads the partitions")
        fetcher = Fetcher(client)
        try:
            for tp, offset in starts.items():
                fetcher.begin(tp, offset)
            yield fetcher
        finally:
            await fetcher.close()
    finally:
        await end("reader", client.close, 2.0)


def see(fetcher: Fetcher, tp: TopicPartition, most: int = _AT_ONCE) -> list[Record]:
    """What was read of this partition. What cannot be read is left out: nothing is lost by that, and it is said."""
    while True:
        try:
            return [Record(*fields) for fields in fetcher.take(tp, most)]
        except Unreadable as error:
            log.warning("topic %s, partition %d: what cannot be read is not shown: %s", *tp, error)
            fetcher.begin(tp, error.following)


async def scan(
    clients: Clients, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, Record]]:
    """All records between these offsets, oldest first over all partitions."""
    starts = {tp: begin for tp, begin in begins.items() if begin < ends[tp]}
    if not starts:
        return
    async with reader(clients, starts) as fetcher:
        waiting: dict[TopicPartition, deque[Record]] = {tp: deque() for tp in starts}
        open_ = set(starts)
        while True:
            while short := [tp for tp in open_ if not waiting[tp]]:
                await _fill(fetcher, short, waiting, open_, ends)
            ready = [tp for tp, records in waiting.items() if records]
            if not ready:
                return
            oldest = ready[0] if len(ready) == 1 else min(ready, key=lambda tp: waiting[tp][0].timestamp)
            yield oldest, waiting[oldest].popleft()


async def _fill(
    fetcher: Fetcher,
    short: Sequence[TopicPartition],
    waiting: Mapping[TopicPartition, deque[Record]],
    unfinished: set[TopicPartition],
    ends: Mapping[TopicPartition, int],
) -> None:
    """Read some more of these partitions; those that are at their end are finished."""
    made_room = False
    async with asyncio.timeout(_PATIENCE):
        while True:
            found = False
            for tp in short:
                found |= _take(fetcher, tp, waiting[tp], unfinished, ends[tp])
            if found or not unfinished.issuperset(short):
                return
            if fetcher.full and not made_room:
                # Once: then those are asked for that nothing is held of. One that does not answer must not make us hold
                # all of the others.
                made_room = True
                for tp in fetcher.ready:
                    while fetcher.full and tp in unfinished and _take(fetcher, tp, waiting[tp], unfinished, ends[tp]):
                        pass
            await fetcher.wait(_WAIT)


def _take(
    fetcher: Fetcher, tp: TopicPartition, waiting: deque[Record], unfinished: set[TopicPartition], end: int
) -> bool:
    """What was read of this partition. False: nothing."""
    records = see(fetcher, tp)
    waiting.extend(record for record in records if record.offset < end)
    # The last offsets may be no records: marks of transactions, or gone in compaction.
    if fetcher.position(tp) >= end:
        unfinished.discard(tp)
        fetcher.end([tp])
    return bool(records)


async def latest(
    clients: Clients, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[tuple[int, bytes], int]:
    """Of a topic of dead letters: the partitions and keys of those that are there, and the offset of each."""
    found: dict[tuple[int, bytes], int] = {}
    async for tp, record in scan(clients, begins, ends):
        place = (tp.partition, record.key or b"")
        if is_tombstone(record):
            found.pop(place, None)
        elif not is_note(record):
            found[place] = record.offset
    return found


def is_tombstone(record: Record) -> bool:
    """A dead letter whose message had no body has headers; a tombstone has none."""
    return record.value is None and not record.headers


def is_note(record: Record) -> bool:
    """No dead letter, but what we remember of the group itself."""
    return codec.NOTE in record.headers


async def records_at(clients: Clients, tp: TopicPartition, offsets: Collection[int]) -> dict[int, Record]:
    """Single records of a partition. One that is no longer there is left out."""
    wanted = set(offsets)
    found: dict[int, Record] = {}
    first, last = min(wanted), max(wanted)
    async for _, record in scan(clients, {tp: first}, {tp: last + 1}):
        if record.offset in wanted:
            found[record.offset] = record
    return found
