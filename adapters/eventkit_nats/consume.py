"""A running group: from arrivals to deliveries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from eventkit import headers as h
from eventkit.adapter import RELEASE, Delivery, Group, Receive, Settlement, new
from eventkit_nats import readers
from eventkit_nats.codec import decode
from eventkit_nats.exchange import Exchange
from eventkit_nats.gaps import Gaps
from eventkit_nats.link import Link
from eventkit_nats.publish import Publisher
from eventkit_nats.pull import Pull
from eventkit_nats.settle import Settling
from eventkit_nats.sources import Leaving, Sources
from eventkit_nats.subjects import Subjects
from eventkit_nats.topology import Topology

log = logging.getLogger("eventkit.nats")

_READ = 0.6
"""The part of a lease after which what was not read is left to others; the rest is time enough to renew it."""
_KNOWN = 3.0
"""Seconds that a stop waits at most until it is known which streams are there."""


class GroupConsumer:
    """One bound for all sources of a group, one hand-over for what they bring."""

    def __init__(
        self,
        link: Link,
        exchange: Exchange,
        publisher: Publisher,
        topology: Topology,
        subjects: Subjects,
        group: Group,
        receive: Receive,
        in_flight: int,
    ) -> None:
        self.group = group
        self._subjects = subjects
        self._link = link
        self._exchange = exchange
        self._topology = topology
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._settling = Settling(link, publisher, receive, self._schedule, self._lost, self._begin)
        self._sources = Sources(
            *(link, exchange, topology, group, in_flight, self._arrive, self._ask_small, self._settling)
        )
        self._arrived: list[Delivery] = []
        self._wake = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._scheduled = False
        self._tasks: list[asyncio.Task[None]] = []
        self._awake = self._asleep = self._loop.time()
        self._dropping: set[asyncio.Task[None]] = set()
        self._catching_up: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        """Since a pause: until the server has no request of ours any more."""
        self._ended = False
        self._on_stop: Callable[[GroupConsumer], None] | None = None
        self._counted: int | None = None
        """The subscription by which it is counted as a reader."""

    async def start(self, on_stop: Callable[[GroupConsumer], None]) -> None:
        """NotProvisioned, if a durable is missing."""
        self._settling.lease = await self._sources.find()
        gaps = Gaps(self._exchange, self._topology, self.group.name, self._sources.pulls)
        await gaps.look()  # before anything is read
        self._on_stop = on_stop
        self._counted = readers.answer(self._link, self._subjects, self.group.name)
        self._link.on_down.append(self._sources.down)
        self._link.on_up.append(self._up)
        self._tasks = [self._loop.create_task(task) for task in (self._hand_over(), self._keep(), gaps.watch())]
        if self._link.up.is_set():
            self._up()
            try:
                await self._exchange.fence(self._exchange.timeout)
            except BaseException:
                await self.stop(1.0)
                raise

    @property
    def error(self) -> Exception | None:
        return None if self._ended else self._link.error or self._sources.error

    @property
    def retrying(self) -> int:
        """Deliveries of the retry stream that are in hand."""
        return len(self._settling.retrying)

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        self._settling.settle(delivery, how)

    async def flush(self, timeout: float, /) -> None:
        async with asyncio.timeout(timeout):
            await self._settling.moved()
            if not await self._exchange.fence(timeout):
                raise TimeoutError("NATS does not answer")

    def hold(self, at_most: int, /) -> None:
        self._sources.in_flight = at_most
        self._schedule()

    def pause(self) -> None:
        """Requests that wait are taken back: what they brought would only wait here."""
        self._running.clear()
        self._settling.keep_back()
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave(self._sources.leave()))

    async def _leave(self, leaving: Leaving) -> None:
        try:
            await self._sources.left(leaving, self._exchange.timeout)
        finally:
            self._leaving = None
            self._settling.give_back()
            if self._running.is_set():
                self._begin_again()

    def resume(self) -> None:
        self._running.set()
        if self._leaving is None:
            self._begin_again()

    def _begin_again(self) -> None:
        if self._link.up.is_set() and not self._ended:
            self._sources.up()
        self._schedule()

    async def stop(self, timeout: float, /) -> None:
        if self._ended:
            return
        self._ended = True
        deadline = self._loop.time() + timeout
        self._running.clear()
        for task in (*self._tasks, *self._dropping):
            task.cancel()
        if self._counted is not None:
            self._link.unsubscribe(self._counted)
            self._link.forget(self._counted)
        if self._leaving is not None:
            await asyncio.wait([self._leaving], timeout=max(0.0, deadline - self._loop.time()))
            if self._leaving is not None:
                self._leaving.cancel()
        if self._settling.undecided and self._link.up.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(timeout, _KNOWN)):
                    await self._settling.moved()
        await self._sources.end(deadline)
        await self._settling.end(deadline)
        self._arrived.clear()
        left = deadline - self._loop.time()
        if self._link.up.is_set() and left > 0:
            await self._exchange.fence(left)
        self._link.on_down.remove(self._sources.down)
        self._link.on_up.remove(self._up)
        await asyncio.wait(self._tasks, timeout=max(0.0, deadline - self._loop.time()))
        if self._on_stop is not None:
            self._on_stop(self)

    def _arrive(self, pull: Pull, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if not reply:
            if headers is not None:
                self._sources.status(pull, subject, headers)
            self._schedule()
            return
        now = self._loop.time()
        pull.came(now)
        since = self._since(now)
        if since is None:
            return
        parts = reply.split(b".")
        # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>..., on some servers with domain and account before
        at = 4 if len(parts) == 9 else 6
        message = decode(pull.address, headers, data)
        count = int(parts[at])
        self._sources.brought(pull, now)
        if pull.retry:
            if message.due is not None:
                wait = message.due.timestamp() - time.time()
                if wait > 0:
                    self._settling.park(reply, wait)
                    return
                count = max(1, count - 1)  # the arrival at which it was put off was none for anybody
            self._settling.retrying.add(reply)
        self._settling.take(reply, since)
        position = parts[at + 1].decode()
        pull.newest = max(pull.newest, int(position))
        if h.ID not in message.headers:  # known by its position, which may be that of another in a stream made anew
            position = f"{position}-{parts[at + 3].decode()}"
        self._arrived.append(new(Delivery, (message, position, count, reply)))
        self._wake.set()
        self._schedule()

    async def _hand_over(self) -> None:
        while True:
            await self._wake.wait()
            await self._running.wait()
            self._wake.clear()
            batch, self._arrived = self._arrived, []
            if batch:
                try:
                    await self._receive.deliveries(batch)
                except Exception:
                    log.exception("NATS: group %s did not take %d deliveries", self.group.name, len(batch))

    def _schedule(self) -> None:
        """What goes out does so once a turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._settling.flush()
        if self._running.is_set():
            self._sources.ask(self._settling.count)

    def _ask_small(self) -> None:
        if self._running.is_set():
            self._sources.ask(self._settling.count, small=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._settling.lease / 6))
            now = self._loop.time()
            self._since(now)
            self._awake = now
            if self._link.up.is_set():
                try:
                    self._settling.renew(now)
                    self._sources.check(now)
                    self._ask_small()
                except Exception:  # leases that nobody renews run out, and nobody would know
                    log.exception("NATS: the upkeep of group %s failed, and is tried again", self.group.name)

    def _since(self, now: float) -> float | None:
        """Since when what is read now has been ours at least, by the loop's clock. None: for so long, since this
        process did not run, that it may be another's by now.

        The latter is not taken, until the server has answered a question that was asked afterwards. It comes again
        when its lease has run out, to whomever.
        """
        if self._catching_up is None:
            if now - self._awake < self._settling.lease / 3:
                return now
            self._asleep = self._awake
            if not self._in_time(now):
                log.warning(
                    "NATS: group %s stood still for %.1f s; what came meanwhile may be another's, and is left to come "
                    "again",
                    *(self.group.name, now - self._asleep),
                )
            self._catching_up = self._loop.create_task(self._catch_up())
            self._tasks = [*(task for task in self._tasks if not task.done()), self._catching_up]
        return self._asleep if self._in_time(now) else None

    def _in_time(self, now: float) -> bool:
        return now - self._asleep < self._settling.lease * _READ

    async def _catch_up(self) -> None:
        try:
            while self._link.up.is_set() and not await self._exchange.fence(self._exchange.timeout):
                pass
        finally:
            self._awake = self._loop.time()
            self._catching_up = None
        if self._link.up.is_set():
            self._settling.renew(self._awake)

    def _lost(self, gone: AbstractSet[object]) -> None:
        """The leases of these have run out: what has not begun runs where it comes again, and not here, too."""
        for delivery in self._arrived:
            if delivery.token in gone:
                self._settling.took_back(delivery)
        self._arrived = [delivery for delivery in self._arrived if delivery.token not in gone]
        log.warning(
            "NATS: %d messages of group %s were not renewed in time, and may come again", *(len(gone), self.group.name)
        )

        def belongs(delivery: Delivery) -> bool:
            return delivery.token in gone and not self._settling.holds(delivery.token)

        def needed(delivery: Delivery) -> bool:
            self._settling.took_back(delivery)  # asked of what has not begun
            return False

        task = self._loop.create_task(self._receive.revoked(belongs, needed))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    def _begin(self, delivery: Delivery) -> None:
        """Once more: what its broker has lost comes to nobody else."""
        if self._ended:
            self._settling.settle(delivery, RELEASE)
            return
        self._arrived.append(delivery)
        self._wake.set()

    def _up(self) -> None:
        self._settling.renew(self._loop.time())
        self._sources.up()
        self._loop.call_soon(self._flush)
