"""Replies: a requesting process reads its partition of its service's reply topic, from now on, in no group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaTimeoutError  # type: ignore[import-untyped]

from eventkit.adapter import Address, Delivery, Receive, Settlement
from eventkit_kafka import codec
from eventkit_kafka.clients import end_consumer
from eventkit_kafka.partitions import reply_partition

log = logging.getLogger("eventkit.kafka")

_BATCH = 1_000
_OPENING = 30.0
_BACKOFF = 0.5
_QUIET_MS = 2_000
_ANSWER = 2.0


class ReplyConsumer:
    """eventkit.adapter.Consumer of a lone `reply` address. Settlements mean nothing."""

    def __init__(
        self, address: Address, topic: str, partitions: int, receive: Receive, make: Callable[[], Any]
    ) -> None:
        self._address = address
        self._name = address.name.encode()
        self._tp = TopicPartition(topic, reply_partition(address.name, partitions))
        self._receive = receive
        self._make = make
        self._consumer: Any = None
        self._task: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._position: int | None = None
        self._error: Exception | None = None
        self.stopped = False

    @property
    def error(self) -> Exception | None:
        return self._error

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """Nothing is kept of replies."""

    async def flush(self, timeout: float, /) -> None:
        """Settling a reply means nothing."""

    def pause(self) -> None:
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    async def start(self) -> None:
        self._consumer = await self._open()
        self._task = asyncio.get_running_loop().create_task(self._fetch(), name="eventkit kafka replies")

    async def stop(self, timeout: float, /) -> None:
        self.stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=timeout / 2)
        if self._consumer is not None:
            await end_consumer(self._consumer, timeout / 2)

    async def _open(self) -> Any:
        consumer = self._make()
        try:
            async with asyncio.timeout(_OPENING):
                consumer.assign([self._tp])
                await consumer.start()
                if self._position is None:
                    await consumer.seek_to_end(self._tp)
                    self._position = await consumer.position(self._tp)  # before that, a reply may be missed
                else:
                    consumer.seek(self._tp, self._position)
        except BaseException:
            await end_consumer(consumer, 1.0)
            raise
        return consumer

    async def _fetch(self) -> None:
        while True:
            try:
                await self._resumed.wait()
                await self._round(self._consumer)
                if self._error is not None:
                    log.info("reading replies again from %s", self._tp.topic)
                    self._error = None
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 a consumer survives whatever comes
                if self._error is None:
                    log.warning("reading replies from %s failed, trying again: %r", self._tp.topic, error)
                self._error = error
                await asyncio.sleep(_BACKOFF)
                if not isinstance(error, TimeoutError | OSError | KafkaTimeoutError):
                    await self._reopen()

    async def _round(self, consumer: Any) -> None:
        found = await consumer.getmany(timeout_ms=_QUIET_MS, max_records=_BATCH)
        records = found.get(self._tp, ())
        if records:
            self._position = records[-1].offset + 1
            await self._hand_over(records)
        elif self._resumed.is_set():
            async with asyncio.timeout(_ANSWER):  # is it quiet, or is Kafka away?
                await consumer.end_offsets([self._tp])

    async def _reopen(self) -> None:
        try:
            await end_consumer(self._consumer, 1.0)
            self._consumer = await self._open()
        except Exception as error:  # noqa: BLE001 the next round fails too, and tries again
            log.debug("cannot read replies from %s yet: %r", self._tp.topic, error)

    async def _hand_over(self, records: Any) -> None:
        ours = [
            Delivery(codec.decode_copy(self._address, record), f"{record.partition}:{record.offset}", None, None)
            for record in records
            if codec.header(record, codec.REPLY) == self._name
        ]
        if ours:
            await self._receive.deliveries(ours)
