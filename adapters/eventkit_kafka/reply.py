"""Replies: a requesting process reads its partition of its service's reply topic, from now on, in no group."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiokafka import TopicPartition  # type: ignore[import-untyped]

from eventkit.adapter import Address, Delivery, Receive, Settlement
from eventkit_kafka import codec
from eventkit_kafka.clients import Clients
from eventkit_kafka.fetch import Fetcher
from eventkit_kafka.reading import reader, see
from eventkit_kafka.records import Record
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_OPENING = 30.0
_BACKOFF = 0.5
_QUIET, _ANSWER = 2.0, 3.0
"""Seconds without a reply, after which it is asked whether Kafka still answers; seconds without any answer."""


class ReplyConsumer:
    """eventkit.adapter.Consumer of a lone `reply` address. Settlements mean nothing."""

    def __init__(
        self, address: Address, tp: TopicPartition, receive: Receive, clients: Clients, topics: Topics
    ) -> None:
        self._address = address
        self._tp = tp
        self._receive = receive
        self._clients = clients
        self._topics = topics
        self._open = AsyncExitStack()
        self._fetcher: Fetcher
        self._task: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._error: Exception | None = None
        self.stopped = False

    @property
    def error(self) -> Exception | None:
        return self._error

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """Nothing is kept of replies."""

    async def flush(self, timeout: float, /) -> None:
        """Settling a reply means nothing."""

    def hold(self, at_most: int, /) -> None:
        """Replies are taken as they come."""

    def pause(self) -> None:
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    async def start(self) -> None:
        async with asyncio.timeout(_OPENING):
            ends = await self._topics.ends([self._tp])
            self._fetcher = await self._open.enter_async_context(reader(self._clients, ends))
        self._task = asyncio.get_running_loop().create_task(self._fetch(), name="eventkit kafka replies")

    async def stop(self, timeout: float, /) -> None:
        self.stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=timeout / 2)
        await self._open.aclose()

    async def _fetch(self) -> None:
        while True:
            try:
                await self._resumed.wait()
                await self._round()
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

    async def _round(self) -> None:
        records = see(self._fetcher, self._tp)
        if records:
            await self._hand_over(records)
            return
        await self._fetcher.wait(_QUIET)
        if time.monotonic() - self._fetcher.heard > _ANSWER and self._tp not in self._fetcher.ready:
            raise TimeoutError("Kafka does not answer")

    async def _hand_over(self, records: Sequence[Record]) -> None:
        ours = [
            Delivery(codec.decode_copy(self._address, record), f"{self._tp.partition}:{record.offset}", None, None)
            for record in records
            if record.headers.get(codec.REPLY) == self._address.name
        ]
        if ours:
            await self._receive.deliveries(ours)
