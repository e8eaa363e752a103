"""Suspects: messages that may have killed their process, run alone until it is known which one did.

A broker's count of deliveries rises for all that a process held when it died, and for all that it gave back. So the
count alone condemns nobody: past a limit the message is moved, as a suspect, to the retry address, where its count
starts anew. Before it runs nothing else may run in the process, and a mark on the broker says that it is about to: it
is moved once more, as one to be run alone, and run only if all is quiet when that copy comes for the first time. If it
comes a second time, its process died while it ran, and nothing else did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from eventkit import batching, copies
from eventkit.adapter import Delivery, Group, Move, Settlement
from eventkit.clock import Clock
from eventkit.copies import Suspicion
from eventkit.gathering import Gathered, Item, Joined
from eventkit.lanes import Gate, Lanes
from eventkit.outcomes import Outcomes, Wait

log = logging.getLogger("eventkit")

_IN_HAND = 64
"""Suspects that wait here for their turn; more go back to the broker for a while, to leave room for others."""
_LATER, _LATEST = timedelta(seconds=5), timedelta(minutes=1)
"""Until one of those comes again: each time half as long again. Thousands that came every few seconds would leave the
broker no time for anything else."""
_COMES = 2.0
"""Seconds to keep quiet for the copy that is to run alone; it may have gone to another replica."""
_FLUSH = 5.0
"""Seconds that making sure of the settlements may take."""
_REST = (0.05, 5.0)
"""Seconds in which others run between two that run alone: as long as they were kept waiting, within these bounds."""
_MISSED, _LONGEST_REST = 1.5, 15.0
"""How much longer others run for each copy in a row that did not come in time: it stands behind a long queue, or other
replicas get most of them, and keeping quiet for it is of no use."""


class Silence:
    """That nothing runs in a process, of all the services that were started together."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        """Held by whoever asks for silence: one at a time."""
        self._lanes: list[Lanes[Any]] = []
        self._holds = 0
        self._alone = False
        self._changed = asyncio.Event()

    def join(self, lanes: Lanes[Any]) -> None:
        """These keep still, too, when they are asked to."""
        self._lanes.append(lanes)
        lanes.on_quiet = self._changed.set

    @property
    def there(self) -> bool:
        """Does nothing run at this moment?"""
        return not self._alone and not any(lanes.running for lanes in self._lanes)

    def hold(self) -> None:
        """Begin nothing until `free`."""
        self._holds += 1
        for lanes in self._lanes:
            lanes.hold()

    def free(self) -> None:
        self._holds -= 1
        if not self._holds:
            for lanes in self._lanes:
                lanes.free()

    async def come(self) -> None:
        """Until nothing runs any more; to be called within `hold`."""
        while not self.there:
            self._changed.clear()
            await self._changed.wait()

    def begin(self) -> None:
        """One runs alone."""
        self.hold()
        self._alone = True

    def end(self) -> None:
        """It has ended."""
        self._alone = False
        self._changed.set()
        self.free()


class Suspects:
    """Those of one group that are here."""

    def __init__(
        self, group: Group, outcomes: Outcomes, silence: Silence, clock: Clock, quarantine_after: int | None
    ) -> None:
        self._settle: Callable[[Delivery, Settlement], None]
        self._started: Callable[[Delivery], None]
        self._flush: Callable[[float], Awaitable[None]]
        self._group = group
        self._outcomes = outcomes
        self._silence = silence
        self._clock = clock
        crashes = quarantine_after or 0
        self._runs = max(1, crashes // 2)
        self.limit = crashes - self._runs if quarantine_after is not None else 1 << 62
        """One that was delivered more often is a suspect."""
        self._crashes = crashes
        self._context = copy_context()
        self._waiting: dict[int, Delivery] = {}
        self._clearing: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._began = asyncio.Event()
        self._marked = False
        """Is a copy on its way here that is to run alone?"""
        self._missed = 0
        """Copies in a row that did not come in time."""

    def join(
        self,
        lanes: Lanes[Any],
        settle: Callable[[Delivery, Settlement], None],
        started: Callable[[Delivery], None],
        flush: Callable[[float], Awaitable[None]],
    ) -> None:
        """The lanes of the group, how what it holds is settled, who is told that one must not be dropped now, and how
        to make sure of all settlements so far."""
        self._silence.join(lanes)
        self._flush = flush
        self._settle = settle
        self._started = started

    def take(self, delivery: Delivery) -> None:
        """One that was delivered too often, or that is a suspect already."""
        known = copies.suspicion(delivery.message)
        if known is None:
            log.info(
                "%s: %s was delivered %s times and not finished: it will run alone, in case it killed its process",
                self._group.name,
                self._outcomes.telling.about(delivery.message),
                delivery.deliveries,
            )
            self._move(delivery, Suspicion(0, 0, alone=False))
        elif not known.alone:
            self._wait(delivery, known)
        elif (delivery.deliveries or 1) > 1:
            self._died(delivery, known)
        elif self._silence.there:
            self._start(delivery, self._run_alone)
        else:  # it was never begun
            self._move(delivery, known._replace(runs=known.runs - 1, alone=False))

    def put_back(self, belongs: Callable[[Delivery], bool]) -> None:
        """Those that wait for their turn here wait on the broker from now on."""
        for delivery in [waiting for waiting in self._waiting.values() if belongs(waiting)]:
            del self._waiting[id(delivery)]
            self._move(delivery, copies.suspicion(delivery.message) or Suspicion(0, 0, alone=False))

    async def close(self, timeout: float) -> None:
        """Ask for silence no more: what waits is put back, what runs goes on. A copy that is on its way here is waited
        for, `timeout` seconds at most: given back unread, it would look as if it had killed its process."""
        self.put_back(lambda _: True)
        if self._marked:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(timeout, _COMES)):
                    await self._began.wait()
        if self._clearing is not None:
            self._clearing.cancel()

    def put_off(self, delivery: Delivery) -> bool:
        """Put it back as one that was not begun, which its return alone would not say; False: that may say enough."""
        known = copies.suspicion(delivery.message)
        if known is None or not known.alone or (delivery.deliveries or 1) > 1:
            return False
        self._began.set()
        self._settle(delivery, self._unbegun(delivery))
        return True

    async def stop(self) -> None:
        """Cancel what runs. It is put back."""
        tasks = [*self._running, *([self._clearing] if self._clearing is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # waiting for a turn

    def _wait(self, delivery: Delivery, known: Suspicion) -> None:
        if len(self._waiting) >= _IN_HAND:
            self._move(delivery, known, min(_LATER * 1.5 ** min(known.moves - 1, 10), _LATEST))
            return
        self._waiting[id(delivery)] = delivery
        if self._clearing is None or self._clearing.done():
            self._clearing = asyncio.get_running_loop().create_task(self._clear(), name="eventkit suspects")

    async def _clear(self) -> None:
        """One after the other, with others' work in between."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            async with self._silence.turn:
                began = loop.time()
                self._silence.hold()
                try:
                    await self._silence.come()
                    self._missed = 0 if await self._next() else self._missed + 1
                finally:
                    self._silence.free()
                least, most = _REST
                rest = min(max(loop.time() - began, least), most) * _MISSED ** min(self._missed, 20)
                await asyncio.sleep(min(rest, _LONGEST_REST))

    async def _next(self) -> bool:
        """Put the mark on the broker, and keep quiet until the copy that bears it has run; False: it did not come."""
        if not self._waiting:
            return True
        delivery = self._waiting.pop(next(iter(self._waiting)))
        known = copies.suspicion(delivery.message) or Suspicion(0, 0, alone=False)
        self._began.clear()
        self._move(delivery, known._replace(runs=known.runs + 1, alone=True))
        self._marked = True
        try:
            async with asyncio.timeout(_COMES):
                await self._began.wait()
        except TimeoutError:
            return False
        finally:
            self._marked = False
        await self._silence.come()
        return True

    # running alone

    def _start(self, delivery: Delivery, run: Callable[[Delivery], Any]) -> None:
        self._began.set()
        self._silence.begin()
        self._task(delivery, run(delivery))

    def _task(self, delivery: Delivery, work: Any) -> None:
        self._started(delivery)
        task = asyncio.get_running_loop().create_task(work, name="eventkit alone", context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_alone(self, delivery: Delivery) -> None:
        try:
            # or it would come again, if the process dies, besides this copy of it
            await self._flush(_FLUSH)
            how = await self._decide(delivery)
        except asyncio.CancelledError:  # a stop has run out of time
            how = self._unbegun(delivery)
        except Exception:
            log.exception(
                "%s: eventkit itself failed on %s", self._group.name, self._outcomes.telling.about(delivery.message)
            )
            self._outcomes.forget(delivery)
            how = self._unbegun(delivery)
        finally:
            self._silence.end()
        self._settle(delivery, how)

    async def _decide(self, delivery: Delivery) -> Settlement:
        how = await self._outcomes.decide(delivery)
        if isinstance(how, Item):
            batch = Gathered()
            batch.items.append(how)
            (answer,) = await batching.decide(self._outcomes, batch)
            assert not isinstance(answer, Wait)
            return answer
        assert not isinstance(how, Wait | Gate | Joined)
        return how

    def _unbegun(self, delivery: Delivery) -> Settlement:
        known = copies.suspicion(delivery.message) or Suspicion(1, 0, alone=True)
        return Move(copies.suspect(delivery, self._group, known._replace(runs=known.runs - 1, alone=False)))

    # what came of it

    def _died(self, delivery: Delivery, known: Suspicion) -> None:
        log.warning(
            "%s: the process that ran %s died of it, or with it: nothing else ran there (%d of %d times)",
            self._group.name,
            self._outcomes.telling.about(delivery.message),
            known.runs,
            self._runs,
        )
        if known.runs >= self._runs:
            self._task(delivery, self._quarantine(delivery))
        else:
            self._move(delivery, known._replace(alone=False))

    async def _quarantine(self, delivery: Delivery) -> None:
        how = await self._outcomes.quarantined(
            delivery,
            f"its process died {self._crashes} times or more with it, the last {self._runs} of them while it ran alone",
        )
        self._settle(delivery, how)

    def _move(self, delivery: Delivery, known: Suspicion, later: timedelta | None = None) -> None:
        due = None if later is None else self._clock.now() + later
        self._settle(delivery, Move(copies.suspect(delivery, self._group, known, due=due)))
