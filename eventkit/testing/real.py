"""Services on a real broker, in a namespace of their own, with the same harness as in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from eventkit import headers as h
from eventkit.adapter import Address
from eventkit.bus import Bus
from eventkit.connecting import connect
from eventkit.messages import Command
from eventkit.running import Running
from eventkit.service import Service
from eventkit.testing.brokers import Broker
from eventkit.testing.harness import Harness
from eventkit.testing.overrides import Overrides, overridden
from eventkit.watching import Happened, What
from eventkit.wire import JSON_SERIALIZER, Serializer

R = TypeVar("R")

_ENDS = (What.HANDLED, What.REPEATED, What.REJECTED, What.FAILED, What.DEAD, What.SKIPPED)
"""After these nothing more becomes of a message in a group."""
_LOOK = 0.05
"""Seconds between two looks at whether handlers still run."""


class OnBroker(Harness):
    """On a real broker: retries and delays take their time."""

    def __init__(self, bus: Bus, running: Running, happened: list[Happened], readers: dict[Address, list[str]]) -> None:
        super().__init__(bus, happened)
        self._running = running
        self._readers = readers
        self.news = asyncio.Event()
        """Set whenever something happens."""

    async def request(self, command: Command[R], *, timeout: timedelta = timedelta(seconds=30)) -> R:
        return await self._bus.request(command, timeout=timeout)

    async def idle(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Until each group has ended with each message that it reads: handled, rejected, skipped, or a dead letter.

        What others publish to the same broker is not waited for. Raises AssertionError after `timeout`, and says what
        is still open.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                while self._open() or self._running.at_work:
                    self.news.clear()
                    try:
                        async with asyncio.timeout(_LOOK):
                            await self.news.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            still = "\n".join(f"  {type_} ({id_}) in {group}" for id_, group, type_ in self._open())
            raise AssertionError(
                f"not idle after {timeout.total_seconds():g} s; still open:\n{still}\n"
                f"what happened, in order:\n{self.story()}"
            ) from None

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def _open(self) -> list[tuple[str | None, str, str]]:
        ended = {(item.message.headers.get(h.ID), item.group) for item in self._happened if item.what in _ENDS}
        return [
            (id_, group, item.message.type)
            for item in self._happened
            if item.what in (What.PUBLISHED, What.SENT)
            for id_ in [item.message.headers.get(h.ID)]
            for group in self._readers.get(item.message.address, ())
            if (id_, group) not in ended
        ]


@asynccontextmanager
async def run_on(
    broker: Broker,
    *services: Service,
    serializer: Serializer = JSON_SERIALIZER,
    overrides: Overrides | None = None,
) -> AsyncIterator[Harness]:
    """Run services on a real broker, as `run` does in memory: `async with run_on(provide("redis"), orders) as t`.

    All stands in a namespace of its own there, so that tests do not meet; what the tests leave behind ends with a
    broker that was started for them. Retries and delays take their time, so give handlers under test short ones.
    """
    happened: list[Happened] = []
    harness: OnBroker | None = None

    def watch(what: Happened) -> None:
        happened.append(what)
        if harness is not None:
            harness.news.set()

    readers: dict[Address, list[str]] = {}
    for service in services:
        for group, _ in service.groups().values():
            for source in group.sources:
                readers.setdefault(source, []).append(group.name)
    namespace = f"test{uuid.uuid4().hex[:12]}"
    bus = connect(broker.name, broker.url, service="test", namespace=namespace, serializer=serializer, watch=watch)
    with overridden(services, overrides or {}):
        async with bus, bus.run(*services) as running:
            harness = OnBroker(bus, running, happened, readers)
            try:
                yield harness
            except Exception as error:
                error.add_note(f"what happened, in order:\n{harness.story()}")
                raise
