"""Following a topic or an inbox: its partitions read from their ends, in no group, and nothing committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]

from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_kafka import codec
from eventkit_kafka.clients import Clients, end_consumer
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_WAIT_MS = 1_000
_OPEN = 30.0
_PAUSE = 0.5


@asynccontextmanager
async def follow(
    clients: Clients, topics: Topics, address: Address, topic: str
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Partitions that are added later are not seen."""
    if not await topics.existing([topic]):
        raise NotProvisioned(f"missing on Kafka: {address} (topic {topic})")
    places = await topics.ends((await topics.partitions([topic]))[topic])
    now = [await _opened(clients, places)]
    try:
        yield _each(clients, address, places, now)
    finally:
        await end_consumer(now[0], 2.0)


async def _opened(clients: Clients, places: dict[TopicPartition, int]) -> Any:
    consumer = clients.consumer(auto_offset_reset="latest")
    try:
        async with asyncio.timeout(_OPEN):
            consumer.assign(list(places))
            await consumer.start()
        for tp, offset in places.items():
            consumer.seek(tp, offset)
    except BaseException:
        await end_consumer(consumer, 1.0)
        raise
    return consumer


async def _each(
    clients: Clients, address: Address, places: dict[TopicPartition, int], now: list[Any]
) -> AsyncIterator[Delivery]:
    """`now`: the consumer that is open at the moment."""
    while True:
        try:
            found = await now[0].getmany(timeout_ms=_WAIT_MS, max_records=1_000)
        except Exception as error:  # noqa: BLE001 whatever it was, it is opened again
            log.debug("cannot follow %s yet: %r", address, error)
            await asyncio.sleep(_PAUSE)
            await end_consumer(now[0], 1.0)
            try:
                now[0] = await _opened(clients, places)
            except Exception as again:  # noqa: BLE001 the next round fails too, and tries again
                log.debug("cannot follow %s yet: %r", address, again)
            continue
        for tp, records in found.items():
            for record in records:
                places[tp] = record.offset + 1
                yield Delivery(codec.decode(address, record), f"{record.partition}:{record.offset}", None, None)
