"""Consuming: the deliveries of one group, held from their arrival until each is settled, exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from eventkit.adapter import RELEASE, Adapter, Consumer, Delivery, Group, Settlement
from eventkit.clock import Clock, sleep
from eventkit.lanes import Lanes
from eventkit.outcomes import Counts, Outcomes, Wait, about

log = logging.getLogger("eventkit")

_SETTLE_AGAIN = 1.0
"""Seconds until a settlement that failed is asked for again."""


class Consuming:
    """The core's side of one group's consumer. Settles each delivery exactly once."""

    def __init__(self, group: Group, outcomes: Outcomes, adapter: Adapter, clock: Clock, concurrency: int) -> None:
        self.group = group
        self.budget = max(concurrency * 4, 1_000)
        """Deliveries held at once."""
        self._outcomes = outcomes
        self._adapter = adapter
        self._clock = clock
        self._lanes: Lanes[Delivery] = Lanes(self._process, concurrency, clock.call_later)
        self._consumer: Consumer | None = None
        self._live = asyncio.Event()
        self._held: dict[int, Delivery] = {}
        self._started: set[int] = set()
        self._waiters: list[tuple[set[int], asyncio.Future[None]]] = []

    @property
    def held(self) -> int:
        """Deliveries that are not settled."""
        return len(self._held)

    @property
    def counts(self) -> Counts:
        return self._outcomes.counts

    @property
    def sleeping(self) -> int:
        """Deliveries that wait for the clock in their lane, and those behind them."""
        return self._lanes.asleep

    @property
    def error(self) -> Exception | None:
        """Why nothing is consumed; None while all is well."""
        return None if self._consumer is None else self._consumer.error

    async def start(self) -> None:
        self._consumer = await self._adapter.consume(self.group, self, in_flight=self.budget)
        self._live.set()

    # what the adapter calls: eventkit.adapter.Receive

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        if not self._live.is_set():  # before `consume` has returned, nothing could be settled
            await self._live.wait()
        self._outcomes.tell = log.isEnabledFor(logging.INFO)
        held, add = self._held, self._lanes.add
        for delivery in batch:
            held[id(delivery)] = delivery
            add(delivery.message.key, delivery)
        over = len(held) - self.budget
        if over > 0:
            await self._wait_for(list(held)[:over])

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool], /) -> None:
        mine = [(key, delivery) for key, delivery in self._held.items() if belongs(delivery)]
        last = max((at for at, (key, d) in enumerate(mine) if key in self._started or needed(d)), default=-1)
        self._forget(key for key, _ in mine[last + 1 :])
        await self._wait_for([key for key, _ in mine[: last + 1]])

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        log.warning("%s: could not settle %s, trying again: %r", self.group.name, about(delivery.message), error)

        def again() -> None:
            if self._consumer is not None:
                self._consumer.settle(delivery, how)

        self._clock.call_later(_SETTLE_AGAIN, again)

    # stopping

    async def stop(self, timeout: float) -> None:
        """Finish what runs within `timeout` seconds, give back the rest untried, stop the consumer."""
        ends = time.monotonic() + timeout
        consumer = self._consumer
        if consumer is None:
            return
        consumer.pause()
        waiting = list(self._held.items())
        in_order = self._adapter.capabilities.settles_in_order
        last = max((at for at, (key, _) in enumerate(waiting) if key in self._started), default=-1) if in_order else -1
        given_back = self._forget(key for at, (key, _) in enumerate(waiting) if at > last and key not in self._started)
        for delivery in given_back:
            consumer.settle(delivery, RELEASE)
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + timeout):
                await self._wait_for(list(self._held))
        except TimeoutError:
            log.warning(
                "%s: %d messages were not finished within %g s and are given back: %s",
                self.group.name,
                len(self._held),
                timeout,
                ", ".join(about(d.message) for d in list(self._held.values())[:5]),
            )
        self._outcomes.aborting = True
        left = self._forget(key for key in list(self._held) if key not in self._started)
        await self._lanes.close()
        for delivery in left:
            consumer.settle(delivery, RELEASE)
        await consumer.stop(max(ends - time.monotonic(), 1.0))
        self._consumer = None

    def _forget(self, keys: Iterable[int]) -> list[Delivery]:
        """Take deliveries that have not started out of the lanes."""
        out = set(keys)
        if not out:
            return []
        dropped = self._lanes.drop(lambda delivery: id(delivery) not in out)
        for delivery in dropped:
            del self._held[id(delivery)]
            self._outcomes.forget(delivery)
        return dropped

    async def _wait_for(self, keys: Iterable[int]) -> None:
        """Until none of these is held."""
        missing = {key for key in keys if key in self._held}
        if missing:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((missing, done))
            await done

    # one delivery

    async def _process(self, delivery: Delivery) -> float | None:
        key = id(delivery)
        self._started.add(key)
        try:
            how = await self._outcomes.decide(delivery)
        except asyncio.CancelledError:
            if not self._outcomes.aborting:
                raise
            how = RELEASE
        except Exception:
            log.exception(
                "%s: eventkit itself failed on %s; it is given back", self.group.name, about(delivery.message)
            )
            await sleep(self._clock, _SETTLE_AGAIN)
            how = RELEASE
        self._started.discard(key)
        if isinstance(how, Wait):
            return how.seconds
        if self._consumer is not None:
            self._consumer.settle(delivery, how)
        del self._held[key]
        if self._waiters:
            self._tell_waiters(key)
        return None

    def _tell_waiters(self, key: int) -> None:
        for missing, done in self._waiters:
            missing.discard(key)
            if not missing and not done.done():
                done.set_result(None)
        self._waiters = [(missing, done) for missing, done in self._waiters if not done.done()]
