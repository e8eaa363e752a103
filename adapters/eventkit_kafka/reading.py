"""Reading outside of a group: dead letters, what a topic holds, single records by their offsets. Changes nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]

from eventkit_kafka.clients import Clients, end_consumer

_WAIT_MS = 1_000
_PATIENCE = 30.0
"""Seconds without a record, though there should be some, until reading gives up."""


@asynccontextmanager
async def reader(clients: Clients, starts: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
    """A consumer without a group, at these offsets."""
    consumer = clients.consumer(auto_offset_reset="earliest")
    try:
        consumer.assign(list(starts))
        await consumer.start()
        for tp, offset in starts.items():
            consumer.seek(tp, offset)
        yield consumer
    finally:
        await end_consumer(consumer, 2.0)


async def scan(
    clients: Clients, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[Any]:
    """All records between these offsets, oldest first over all partitions."""
    starts = {tp: begin for tp, begin in begins.items() if begin < ends[tp]}
    if not starts:
        return
    async with reader(clients, starts) as consumer:
        waiting: dict[TopicPartition, deque[Any]] = {tp: deque() for tp in starts}
        open_ = set(starts)
        while True:
            while short := [tp for tp in open_ if not waiting[tp]]:
                await _fill(consumer, short, waiting, open_, ends)
            ready = [tp for tp, records in waiting.items() if records]
            if not ready:
                return
            oldest = ready[0] if len(ready) == 1 else min(ready, key=lambda tp: waiting[tp][0].timestamp)
            yield waiting[oldest].popleft()


async def _fill(
    consumer: Any,
    short: Sequence[TopicPartition],
    waiting: Mapping[TopicPartition, deque[Any]],
    unfinished: set[TopicPartition],
    ends: Mapping[TopicPartition, int],
) -> None:
    """Read some more of these partitions; those that are at their end are finished."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            found = await consumer.getmany(*short, timeout_ms=_WAIT_MS, max_records=1_000)
            for tp, records in found.items():
                waiting[tp].extend(record for record in records if record.offset < ends[tp])
            for tp in short:
                # The last offsets may be no records: marks of transactions, or gone in compaction.
                if await consumer.position(tp) >= ends[tp]:
                    unfinished.discard(tp)
            if found or not unfinished.issuperset(short):
                return


async def latest(
    clients: Clients, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[tuple[int, bytes], int]:
    """Of a compacted topic: the partitions and keys that have a value, and the offset of that value."""
    found: dict[tuple[int, bytes], int] = {}
    async for record in scan(clients, begins, ends):
        place = (record.partition, record.key or b"")
        if is_tombstone(record):
            found.pop(place, None)
        else:
            found[place] = record.offset
    return found


def is_tombstone(record: Any) -> bool:
    """A dead letter whose message had no body has headers; a tombstone has none."""
    return record.value is None and not record.headers


async def records_at(clients: Clients, tp: TopicPartition, offsets: Collection[int]) -> dict[int, Any]:
    """Single records of a partition. One that is no longer there is left out."""
    wanted = set(offsets)
    found: dict[int, Any] = {}
    begin, end = min(wanted), max(wanted) + 1
    async for record in scan(clients, {tp: begin}, {tp: end}):
        if record.offset in wanted:
            found[record.offset] = record
    return found
