"""Following a topic or an inbox: its partitions read from their ends, in no group, and nothing committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from eventkit.adapter import Address, Delivery
from eventkit.errors import NotProvisioned
from eventkit_kafka import codec
from eventkit_kafka.clients import Clients
from eventkit_kafka.fetch import Fetcher
from eventkit_kafka.reading import reader, see
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_WAIT = 1.0


@asynccontextmanager
async def follow(
    clients: Clients, topics: Topics, address: Address, topic: str
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Partitions that are added later are not seen."""
    if not await topics.existing([topic]):
        raise NotProvisioned(f"missing on Kafka: {address} (topic {topic})")
    places = await topics.ends((await topics.partitions([topic]))[topic])
    async with reader(clients, places) as fetcher:
        yield _each(fetcher, address)


async def _each(fetcher: Fetcher, address: Address) -> AsyncIterator[Delivery]:
    while True:
        while ready := fetcher.ready:
            for tp in ready:
                for record in see(fetcher, tp):
                    yield Delivery(codec.decode(address, record), f"{tp.partition}:{record.offset}", None, None)
        try:
            await fetcher.wait(_WAIT)
        except KafkaError as error:  # not allowed, by now: it may be again
            log.debug("cannot follow %s yet: %r", address, error)
            await asyncio.sleep(_WAIT)
