"""Consuming: the deliveries of one group, held from their arrival until each is settled, exactly once."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from eventkit import batching, copies
from eventkit.adapter import Adapter, Consumer, Delivery, Done, Group, Move, Release, Settlement
from eventkit.clock import Clock, sleep
from eventkit.errors import LostMessage, MessageTooLarge
from eventkit.failures import Wait
from eventkit.gathering import Gathered, Item, Joined
from eventkit.headers import SUSPECT, Alike
from eventkit.instruments import GroupState, Place
from eventkit.lanes import Gate, Lanes, take_back_cancellation
from eventkit.outcomes import Outcomes, Unsettled
from eventkit.room import Room
from eventkit.suspects import Suspects
from eventkit.telling import Counts

log = logging.getLogger("eventkit")

_SAY_AGAIN = 60.0
"""Seconds between two warnings of the same trouble."""
_LOOK = 0.1
"""Seconds until it is looked again whether more should be held, or less, if no batch makes us look."""
_SETTLE_AGAIN = 1.0
"""Seconds until a settlement that failed is asked for again."""


class Consuming:
    """The core's side of one group's consumer. Settles each delivery exactly once."""

    def __init__(
        self,
        group: Group,
        outcomes: Outcomes,
        suspects: Suspects,
        adapter: Adapter,
        clock: Clock,
        concurrency: int,
        batch: int = 0,
    ) -> None:
        """`batch`: the most that one call of a handler takes."""
        self.group = group
        self.budget = max(concurrency * 4, 1_000)
        """Deliveries held at once, however fast they are handled."""
        self._room = Room(max(concurrency, batch * 2), self.budget)
        self._came = 0
        """How many were delivered, ever, without those that were taken away again."""
        self._look_again: asyncio.TimerHandle | None = None
        self._outcomes = outcomes
        self._telling = outcomes.telling
        instruments = outcomes.telling.instruments
        self._instruments = instruments
        self._heard = instruments if instruments is not None and instruments.hear_of_settlements else None
        self._adapter = adapter
        self._clock = clock
        self._lanes: Lanes[Delivery | Gathered] = Lanes(self._begin, concurrency, clock.call_later)
        self._gatherer = outcomes.gatherer
        self._alone = self._gatherer is None and self._heard is None
        """Is there nobody to be told of a settlement besides the broker?"""
        if self._gatherer is not None:
            self._gatherer.submit = functools.partial(self._lanes.add, None)
        self._consumer: Consumer | None = None
        self._live = asyncio.Event()
        self._stopping = False
        self._ends = 0.0
        """When the stop has run out of time."""
        self._held: dict[int, Delivery] = {}
        self._started: set[int] = set()
        self._waiters: list[tuple[set[int], asyncio.Future[None]]] = []
        outcomes.crowded = lambda: self._lanes.asleep * 2 > self.budget
        self._said_stalled = -_SAY_AGAIN
        self._suspects = suspects
        suspects.join(
            self._lanes,
            self._settle,
            lambda delivery: self._started.add(id(delivery)),
            self._run_instead,
            self._flush,
            self.budget,
        )
        self._trials = suspects.trials

    @property
    def held(self) -> int:
        """Deliveries that are not settled."""
        return len(self._held)

    @property
    def counts(self) -> Counts:
        return self._telling.counts

    @property
    def place(self) -> Place:
        return self._telling.place

    @property
    def state(self) -> GroupState:
        """For instruments."""
        error = self.error or self._adapter.error
        return GroupState(self.place, len(self._held), self._outcomes.breakers.open, error, self._outcomes.types)

    @property
    def circuits(self) -> Mapping[str, str]:
        """The handlers that rest, and since when."""
        return self._outcomes.breakers.resting

    @property
    def sleeping(self) -> int:
        """Deliveries that wait for the clock in their lane or in a batch, and those behind them."""
        return self._lanes.asleep + (self._gatherer.sleeping if self._gatherer is not None else 0)

    @property
    def error(self) -> Exception | None:
        """Why nothing is consumed; None while all is well."""
        return None if self._consumer is None else self._consumer.error or self._outcomes.patience.error

    async def start(self) -> None:
        self._consumer = await self._adapter.consume(self.group, self, in_flight=self._room.size)
        self._live.set()

    # what the adapter calls: eventkit.adapter.Receive

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        if not self._live.is_set():  # before `consume` has returned, nothing could be settled
            await self._live.wait()
        if self._stopping:  # handed over just before the pause: untouched, it is given back, and keeps its order
            self._put_off(batch)
            return
        self._telling.look()
        if self._instruments is not None:
            self._instruments.received(self.place, batch)
        held, add, limit = self._held, self._lanes.add, self._suspects.limit
        if not held:
            self._room.begin(asyncio.get_running_loop().time(), self._came)
        self._came += len(batch)
        for delivery in batch:
            held[id(delivery)] = delivery
            message, count = delivery.message, delivery.deliveries
            headers = message.headers
            names = headers.shared if type(headers) is Alike else headers
            if (count is not None and count > limit) or SUSPECT in names:
                self._suspects.take(delivery)
            else:
                add(message.key, delivery)
        if self._room.worth(self._came - len(held), len(held)):
            self._make_room()
        if self._look_again is None:
            self._look_again = asyncio.get_running_loop().call_later(_LOOK, self._look)
        over = len(held) - self.budget
        if over > 0:
            await self._wait_for(list(held)[:over])

    def _look(self) -> None:
        self._look_again = None
        if self._held and not self._stopping:
            self._make_room()
            self._look_again = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _make_room(self) -> None:
        """Hold as many as are handled in a moment; more, where what is held keeps workers idle."""
        held = len(self._held)
        idle = self._lanes.idle if held > self._lanes.running else 0.0
        now = asyncio.get_running_loop().time()
        if self._room.look(now, self._came - held, held, idle=idle):
            if self._consumer is not None:
                self._consumer.hold(self._room.size)
        elif idle and self._room.size == self.budget and self._room.full(held):
            self._say_if_stalled()

    def _run_instead(self, delivery: Delivery, stand_in: Delivery) -> None:
        """Run the second, which settles as the first would."""
        del self._held[id(delivery)]
        self._held[id(stand_in)] = stand_in
        self._lanes.add(stand_in.message.key, stand_in)

    def _put_off(self, batch: Sequence[Delivery]) -> None:
        """Suspects are the exception."""
        for delivery in batch:
            if SUSPECT in delivery.message.headers:
                self._held[id(delivery)] = delivery
                if not self._suspects.put_off(delivery):
                    del self._held[id(delivery)]

    def _say_if_stalled(self) -> None:
        """Workers have nothing to do, and no more is delivered until some of what is held is settled."""
        now = time.monotonic()
        waiting = self._lanes.asleep
        if waiting * 2 > self.budget and now > self._said_stalled + _SAY_AGAIN:
            self._said_stalled = now
            log.warning(
                "%s: %d of the %d messages that are held here wait behind one that failed, in the order of its key, or "
                "for a circuit; where they are all, the group's other messages wait too: a larger concurrency= holds "
                "more, and in_order=False lets others pass",
                *(self.group.name, waiting, len(self._held)),
            )
        elif now > self._said_stalled + _SAY_AGAIN and (hot := self._lanes.crowding(self.budget // 2)) is not None:
            self._said_stalled = now
            log.warning(
                "%s: %d of the %d messages that are held here have the key %.100s and run one after another; those "
                "of other keys behind them wait on the broker: a finer key= for that message, or none where order does "
                "not matter, or a topic or group of its own lets others pass; a larger concurrency= holds more",
                *(self.group.name, hot[1], len(self._held), hot[0]),
            )

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        self._suspects.put_back(belongs)
        mine = [(key, delivery) for key, delivery in self._held.items() if belongs(delivery)]
        kept = [at for at, (key, delivery) in enumerate(mine) if key in self._started or (needed and needed(delivery))]
        finished = {mine[at][0] for at in kept}
        if self._adapter.capabilities.settles_in_order and needed and kept:
            finished |= {key for key, _ in mine[: kept[-1]]} - self._asleep()
        for delivery in self._forget(key for key, _ in mine if key not in finished):
            self._suspects.ended(id(delivery))
        with self._hurried():
            await self._wait_for(finished)

    def _asleep(self) -> set[int]:
        """What waits for its next attempt, its circuit or its store, perhaps for longer than others wait for us."""
        asleep = {id(item) for item in self._lanes.sleepers()}
        if self._gatherer is not None:
            asleep.update(map(id, self._gatherer.sleepers()))
        return asleep

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        if isinstance(how, Release) and isinstance(error, LostMessage) and self._consumer is not None:
            self._consumer.settle(delivery, self._outcomes.rescued(delivery))
            return
        log.warning(
            "%s: could not settle %s, trying again: %r", self.group.name, self._telling.about(delivery.message), error
        )
        if self._instruments is not None:
            self._instruments.settled(self.place, delivery, how, error)
        pause = _SETTLE_AGAIN
        if isinstance(how, Move) and isinstance(error, MessageTooLarge):
            shorter = copies.shorter(how.copy)
            if shorter is not None:
                how, pause = Move(shorter), 0.0

        def again(how: Settlement = how) -> None:
            if self._consumer is not None:
                self._consumer.settle(delivery, how)

        self._clock.call_later(pause, again)

    # stopping

    async def stop(self, timeout: float) -> None:
        """Finish what runs within `timeout` seconds, give back the rest untried, stop the consumer.

        Cancelled, it ends at once: what is held comes again when the broker notices that nobody works on it.
        """
        consumer = self._consumer
        if consumer is None:
            return
        try:
            await self._stop(consumer, timeout)
        except asyncio.CancelledError:
            # `asyncio.run` cancels each task once more and waits for it: a worker must not go on with its next message
            self._outcomes.aborting = True
            self._lanes.cancel()
            self._suspects.cancel()
            if self._held:
                log.warning(
                    "%s: the stop was cut off; %d messages that are held here come again",
                    self.group.name,
                    len(self._held),
                )
            raise
        self._consumer = None

    async def _stop(self, consumer: Consumer, timeout: float) -> None:
        ends = self._ends = time.monotonic() + timeout
        self._stopping = True
        await self._suspects.close(timeout)
        consumer.pause()
        waiting = list(self._held.items())
        in_order = self._adapter.capabilities.settles_in_order
        last = max((at for at, (key, _) in enumerate(waiting) if key in self._started), default=-1) if in_order else -1
        given_back = self._forget(key for at, (key, _) in enumerate(waiting) if at > last and key not in self._started)
        for delivery in given_back:
            self._give_back(consumer, delivery)
        self._outcomes.stop()
        try:
            async with asyncio.timeout(max(ends - time.monotonic(), 0.0)):
                with self._hurried():
                    await self._wait_for(list(self._held))
        except TimeoutError:
            log.warning(
                "%s: %d messages were not finished within %g s and are given back: %s",
                self.group.name,
                len(self._held),
                timeout,
                ", ".join(self._telling.about(d.message) for d in list(self._held.values())[:5]),
            )
        self._outcomes.aborting = True
        left = self._forget(key for key in list(self._held) if key not in self._started)
        await self._suspects.stop()
        await self._lanes.close()
        for delivery in (*left, *self._held.values()):  # what is held still had joined a batch that was not begun
            self._give_back(consumer, delivery)
        self._held.clear()
        await consumer.stop(max(ends - time.monotonic(), 1.0))

    def _sleeps(self, seconds: float) -> float:
        """One is to be tried again after so long: in a stop that ends before, it goes back now."""
        if self._stopping and time.monotonic() + seconds >= self._ends:
            asyncio.get_running_loop().call_soon(self._give_back_asleep)
        return seconds

    def _give_back_asleep(self) -> None:
        """Those that wait to be tried again, with those of their keys behind them."""
        asleep = self._asleep()
        for delivery in self._forget(key for key in self._held if key in asleep):
            if self._consumer is not None:
                self._give_back(self._consumer, delivery)

    def _give_back(self, consumer: Consumer, delivery: Delivery) -> None:
        consumer.settle(delivery, self._suspects.given_back(delivery))
        self._suspects.ended(id(delivery))

    def _forget(self, keys: Iterable[int]) -> list[Delivery]:
        """Take deliveries that have not started out of the lanes."""
        out = set(keys)
        if not out:
            return []
        dropped = [item for item in self._lanes.drop(lambda item: id(item) not in out) if isinstance(item, Delivery)]
        if self._gatherer is not None:
            dropped += self._gatherer.drop(lambda delivery: id(delivery) not in out)
        self._came -= len(dropped)
        for delivery in dropped:
            del self._held[id(delivery)]
            self._outcomes.forget(delivery)
            if self._waiters:
                self._tell_waiters(id(delivery))
        return dropped

    async def _wait_for(self, keys: Iterable[int]) -> None:
        """Until none of these is held."""
        missing = {key for key in keys if key in self._held}
        if missing:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((missing, done))
            await done

    # one delivery

    def _begin(self, item: Delivery | Gathered) -> Coroutine[Any, Any, float | Gate | None] | None:
        """As far as it goes without waiting for anything, mostly to its end: what is left to do, if any is."""
        if type(item) is Gathered:
            return self._process_batch(item)
        how: Done | Coroutine[Any, Any, Settlement | Unsettled]
        try:
            how = self._outcomes.begin(item)
        except Exception as error:  # noqa: BLE001 as in `_process`
            how = _raising(error)
        if not isinstance(how, Done):
            return self._process(item, how)
        if self._alone and self._consumer is not None:  # `_settle`, without the price of a call for each message
            try:
                self._consumer.settle(item, how)
            except Exception as error:  # noqa: BLE001 as in `_settle`
                self.unsettled(item, how, error)
            key = id(item)
            del self._held[key]
            if self._trials:
                self._suspects.ended(key)
            if self._waiters:
                self._tell_waiters(key)
        else:
            self._settle(item, how)
        return None

    async def _process(
        self, item: Delivery, deciding: Coroutine[Any, Any, Settlement | Unsettled]
    ) -> float | Gate | None:
        key = id(item)
        self._started.add(key)
        try:
            how = await deciding
        except asyncio.CancelledError:
            if self._outcomes.aborting:
                how = self._suspects.given_back(item)
            else:  # left behind by a handler, and come while its outcome was being told: decide again
                take_back_cancellation()
                how = Wait(0.0)
        except Exception:
            log.exception(
                "%s: eventkit itself failed on %s; it is given back", self.group.name, self._telling.about(item.message)
            )
            self._outcomes.forget(item)
            await sleep(self._clock, _SETTLE_AGAIN)
            how = self._suspects.given_back(item)
        if not isinstance(how, (Done, Move, Release)):
            if isinstance(how, Joined):
                return None  # settled with its batch, and as good as started until then
            assert not isinstance(how, Item), "a suspect in a lane"
            self._started.discard(key)
            return self._sleeps(how.seconds) if isinstance(how, Wait) else how
        self._settle(item, how)
        return None

    async def _process_batch(self, batch: Gathered) -> None:
        answers: Sequence[Settlement | Wait]
        try:
            answers = await batching.decide(self._outcomes, batch)
        except asyncio.CancelledError:
            if self._outcomes.aborting:
                answers = [self._suspects.given_back(item.arrived) for item in batch.items]
            else:
                take_back_cancellation()
                answers = [Wait(0.0)] * len(batch.items)
        except Exception:
            log.exception("%s: eventkit itself failed on a batch; it is given back", self.group.name)
            for item in batch.items:
                self._outcomes.forget(item.arrived)
            await sleep(self._clock, _SETTLE_AGAIN)
            answers = [self._suspects.given_back(item.arrived) for item in batch.items]
        for item, how in zip(batch.items, answers, strict=True):
            if isinstance(how, Wait):
                self._started.discard(id(item.arrived))
                assert self._gatherer is not None
                self._gatherer.again(item.arrived, self._sleeps(how.seconds))
            else:
                self._settle(item.arrived, how)

    def _settle(self, delivery: Delivery, how: Settlement) -> None:
        if self._consumer is not None:
            try:
                self._consumer.settle(delivery, how)
            except Exception as error:  # noqa: BLE001 no adapter may do that; one that does costs no worker
                self.unsettled(delivery, how, error)
        if self._heard is not None:
            self._heard.settled(self.place, delivery, how)
        key = id(delivery)
        del self._held[key]
        self._started.discard(key)
        if self._gatherer is not None:
            self._gatherer.settled(delivery)
        if self._trials:
            self._suspects.ended(key)
        if self._waiters:
            self._tell_waiters(key)

    async def _flush(self, timeout: float) -> None:
        if self._consumer is not None:
            await self._consumer.flush(timeout)

    def _hurried(self) -> AbstractContextManager[None]:
        """Meanwhile nothing waits for a batch to be full."""
        return self._gatherer.hurried() if self._gatherer is not None else nullcontext()

    def _tell_waiters(self, key: int) -> None:
        for missing, done in self._waiters:
            missing.discard(key)
            if not missing and not done.done():
                done.set_result(None)
        self._waiters = [(missing, done) for missing, done in self._waiters if not done.done()]


async def _raising(error: Exception) -> NoReturn:
    raise error
