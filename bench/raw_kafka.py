"""Kafka by hand: explicit batches per partition, getmany, commits beside the fetches."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner

from bench.messages import Order, orders, raw_headers

_PARTITIONS = 4
_WINDOW = 2000


class RawKafka:
    name = "raw"

    async def open(self, url: str, topic: str) -> None:
        self._servers = url.removeprefix("kafka://").rstrip("/")
        self._topic = f"{topic}.raw"
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.create_topics([NewTopic(self._topic, _PARTITIONS, 1)])
        await admin.close()
        self._producer = AIOKafkaProducer(bootstrap_servers=self._servers, enable_idempotence=True, linger_ms=0)
        await self._producer.start()
        self._partition = DefaultPartitioner()

    async def close(self) -> None:
        await self._producer.stop()
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.delete_topics([self._topic])
        await admin.close()

    def make(self, count: int) -> Sequence[Order]:
        return orders(count)

    def _record(self, order: Order) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        headers = [
            (name.replace("ce-", "ce_", 1), value.encode())
            for name, value in raw_headers(order).items()
            if name != "message_id"
        ]
        return order.order_id.encode(), order.model_dump_json().encode(), headers

    async def publish_one(self, message: Order) -> None:
        key, body, headers = self._record(message)
        await self._producer.send_and_wait(self._topic, body, key=key, headers=headers)

    async def publish_many(self, messages: Sequence[Order]) -> None:
        numbers = list(range(_PARTITIONS))
        for first in range(0, len(messages), _WINDOW):
            builders: dict[int, list[Any]] = defaultdict(lambda: [self._producer.create_batch()])
            for message in messages[first : first + _WINDOW]:
                key, body, headers = self._record(message)
                batches = builders[self._partition(key, numbers, numbers)]
                if batches[-1].append(key=key, value=body, timestamp=None, headers=headers) is None:
                    batches.append(self._producer.create_batch())
                    batches[-1].append(key=key, value=body, timestamp=None, headers=headers)
            sent = [
                await self._producer.send_batch(batch, self._topic, partition=partition)
                for partition, batches in builders.items()
                for batch in batches
            ]
            await asyncio.gather(*sent)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._servers,
            group_id=f"{self._topic}.bench",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        committing: asyncio.Task[None] | None = None
        try:
            done = 0
            while done < count:
                found = await consumer.getmany(timeout_ms=500, max_records=500)
                for records in found.values():
                    for record in records:
                        {name: value.decode() for name, value in record.headers}
                        seen(Order.model_validate_json(record.value))
                        done += 1
                if found and (committing is None or committing.done()):
                    committing = asyncio.create_task(self._commit(consumer, found))
            await consumer.commit()
        finally:
            await consumer.stop()

    async def _commit(self, consumer: AIOKafkaConsumer, found: dict[Any, Any]) -> None:
        await consumer.commit({partition: records[-1].offset + 1 for partition, records in found.items()})


class PlainKafka(RawKafka):
    """As its documentation shows."""

    name = "plain"

    async def publish_many(self, messages: Sequence[Order]) -> None:
        for message in messages:
            await self.publish_one(message)

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._servers,
            group_id=f"{self._topic}.bench",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            done = 0
            async for record in consumer:
                {name: value.decode() for name, value in record.headers}
                seen(Order.model_validate_json(record.value))
                await consumer.commit()
                done += 1
                if done == count:
                    break
        finally:
            await consumer.stop()
