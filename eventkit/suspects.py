"""Suspects: messages that may have killed their process, tried in ever smaller groups until it is known which one did.

A broker's count of deliveries rises for all that a process held when it died, begun or not, and for all that it gave
back. So the count alone condemns nobody. One that comes for the third time is a suspect. It waits in hand for its
trial: a copy of it that says so, put to the retry address, where its count starts anew. That copy runs as soon as it
comes, like any other message and beside all others; only few are on trial in a process at a time. If it comes a second
time, its process died while it was on trial, and the next time it is one of still fewer. In the end it runs alone:
first the process falls silent, then the copy is asked for, and it runs only if all is quiet when it comes. Only what
died of that again and again is given up on.

So what many processes held that were killed from outside costs a copy each and runs nearly as fast as ever, and what
kills is one of 64, then one of 8, then alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from typing import Any, NamedTuple

from eventkit import batching, copies
from eventkit import headers as h
from eventkit.adapter import RELEASE, Delivery, Group, Move, Settlement
from eventkit.clock import Clock, sleep
from eventkit.copies import Suspicion
from eventkit.failures import Wait
from eventkit.gathering import Gathered, Item, Joined
from eventkit.lanes import Gate, Lanes
from eventkit.outcomes import Outcomes
from eventkit.silence import Silence

log = logging.getLogger("eventkit")

FIRST = 2
"""One that was delivered more often is a suspect: a death and a deploy, or two deaths, may well be others' doing."""
_GROUPS = (64, 8)
"""How many are on trial in a process at once: those that have died in no trial yet, and those that died in one."""
LEAST_ALONE = 2
"""Deaths while it ran alone without which nothing is given up on: one may always be the fault of another."""
_IN_HAND_ALONE = 64
"""Suspects that wait here to run alone; more go back to the broker for a while, to leave room for others."""
_LATER, _LATEST = timedelta(seconds=2), timedelta(seconds=20)
"""Until one of those comes again: each time half as long again. Thousands that came every few seconds would leave the
broker no time for anything else."""
_ELSEWHERE = 0.5
"""Seconds after which a copy on trial that did not come back here has gone to another replica, as far as one can tell:
the next one need not wait for it."""
_LONG = 5.0
"""Seconds after which one that still runs keeps no other from its trial: its handler takes long."""
_LOOK = 0.05
"""Seconds until room for trials is looked for again, if nothing else makes us look."""
_COMES = 2.0
"""Seconds to keep quiet for the copy that is to run alone; it may have gone to another replica."""
_QUIET = 30.0
"""Seconds for which nothing is begun at most, so that what runs ends and one can run alone: a handler may hang."""
_ALONE = 60.0
"""Seconds for which one runs alone at most: that it kills its process in a moment is not to be seen then, and its
handler may hang."""
_FLUSH = 5.0
"""Seconds that making sure of the settlements may take."""
_REST = (0.05, 5.0)
"""Seconds in which others run between two that run alone: as long as they were kept waiting, within these bounds."""
_MISSED, _LONGEST_REST = 1.5, 15.0
"""How much longer others run for each copy in a row that did not come in time: it stands behind a long queue, or other
replicas get most of them, and keeping quiet for it is of no use."""
_LOOKS = 30
"""How often one that is to run alone may come to a process that is not quiet, and be sent on, before it waits again:
some replica keeps quiet for it."""
_AGAIN = 1.0
"""Seconds until one that could not be given up on comes again."""
_REMEMBERED = 1_000
"""Trials that a process remembers to have begun."""


class Suspect(NamedTuple):
    """One that waits for its trial, or is on trial."""

    delivery: Delivery
    known: Suspicion
    since: float
    """By the loop's clock."""


class Suspects:
    """Those of one group that are here."""

    def __init__(
        self, group: Group, outcomes: Outcomes, silence: Silence, clock: Clock, quarantine_after: int | None
    ) -> None:
        self._settle: Callable[[Delivery, Settlement], None]
        self._started: Callable[[Delivery], None]
        self._run_instead: Callable[[Delivery, Delivery], None]
        self._flush: Callable[[float], Awaitable[None]]
        self._group = group
        self._outcomes = outcomes
        self._silence = silence
        self._clock = clock
        self._deaths = quarantine_after or 0
        """Deaths on trial after which it is given up on."""
        self._groups = groups(self._deaths)
        self.limit = FIRST if quarantine_after is not None else 1 << 62
        """One that was delivered more often is a suspect."""
        self._room = 0
        """Suspects that may wait here for a trial among others."""
        self._context = copy_context()
        self._waiting: list[dict[int, Suspect]] = [{} for _ in range(len(self._groups) + 1)]
        """By the trial they wait for; the last is to run alone."""
        self._arrived: dict[int, Suspect] = {}
        """Those that have come for a trial among others, and are about to run."""
        self.trials: dict[int, Suspect] = {}
        """Those on trial among others, by the id of the delivery that stands for them."""
        self._sent: deque[tuple[float, int]] = deque()
        """Copies that are on their way to a trial among others: since when, and which one."""
        self._taken: dict[tuple[str, int], int] = {}
        """The trials that were begun here, with their count: if the next one comes here, too, nobody has died."""
        self._trying: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._closed = False
        self._clearing: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._came = asyncio.Event()
        self._marked = False
        """Is a copy on its way here that is to run alone?"""
        self._missed = 0
        """Copies in a row that did not come in time."""

    def join(
        self,
        lanes: Lanes[Any],
        settle: Callable[[Delivery, Settlement], None],
        started: Callable[[Delivery], None],
        run_instead: Callable[[Delivery, Delivery], None],
        flush: Callable[[float], Awaitable[None]],
        budget: int,
    ) -> None:
        """The lanes of the group, how what it holds is settled, who is told that one must not be dropped now, who runs
        the second delivery in the stead of the first, how to make sure of all settlements so far, and how much is held
        at most."""
        self._silence.join(lanes)
        self._flush = flush
        self._settle = settle
        self._started = started
        self._run_instead = run_instead
        self._room = budget // 2

    def take(self, delivery: Delivery) -> None:
        """One that was delivered too often, or that is a suspect already."""
        known = copies.suspicion(delivery.message)
        if known is None and self._outcomes.skips(delivery):
            self._run_instead(delivery, delivery)  # nothing of it runs that could end the process
            return
        if known is None:
            log.debug(
                "%s: %s was delivered %s times and not finished: it is tried among few others, in case it killed its "
                "process",
                self._group.name,
                self._outcomes.telling.about(delivery.message),
                delivery.deliveries,
            )
            self._wait(delivery, Suspicion(0, 0, trial=0))
            return
        if not known.trial:
            self._wait(delivery, known)
            return
        count = delivery.deliveries or 1
        if not self._is_ours(delivery, known, count):
            self._died(delivery, known)
        elif known.deaths < len(self._groups):
            if self._sent:
                self._sent.popleft()
            self._arrived[id(delivery)] = Suspect(delivery, known, asyncio.get_running_loop().time())
            if self._trying is None or self._trying.done():
                self._trying = asyncio.get_running_loop().create_task(self._try(), name="eventkit trials")
        elif count == 1 and self._silence.there:
            self._start(delivery)
        elif count == 1:  # it was not begun; another replica may be quiet
            self._move(delivery, known._replace(trial=known.trial - 1))
        else:  # it was begun, and the process that did so lives: this one
            self._settle(delivery, self._untried(delivery, known))

    def ended(self, key: int) -> None:
        """The delivery with this id was settled."""
        if self.trials.pop(key, None) is not None:
            self._try_more()

    def given_back(self, delivery: Delivery) -> Settlement:
        """How one that ran in a suspect's stead, or any other, goes back untried."""
        found = self.trials.get(id(delivery))
        return RELEASE if found is None else self._untried(delivery, found.known)

    def put_back(self, belongs: Callable[[Delivery], bool]) -> None:
        """Those that wait for their turn here wait on the broker from now on."""
        for queue in self._waiting:
            for key, suspect in list(queue.items()):
                if belongs(suspect.delivery):
                    del queue[key]
                    self._move(suspect.delivery, suspect.known)
        for suspect in [one for one in self._arrived.values() if belongs(one.delivery)]:
            self._put_back_untried(suspect)

    async def close(self, timeout: float) -> None:
        """Begin no more trials: what waits is put back, what runs goes on. Copies that are on their way here are waited
        for, `timeout` seconds at most: given back unread, they would look as if they had killed their process."""
        self._closed = True
        self.put_back(lambda _: True)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, _COMES)):
                if self._marked:
                    await self._came.wait()
                while self._sent and self._sent[-1][0] + _ELSEWHERE > asyncio.get_running_loop().time():  # noqa: ASYNC110 it ends by time, too
                    await asyncio.sleep(_LOOK)
        if self._clearing is not None:
            self._clearing.cancel()

    def put_off(self, delivery: Delivery) -> bool:
        """Put it back as one that was not begun, which its return alone would not say; False: that may say enough."""
        known = copies.suspicion(delivery.message)
        if known is None or not known.trial or (delivery.deliveries or 1) > 1:
            return False
        if known.deaths < len(self._groups):
            if self._sent:
                self._sent.popleft()
        else:
            self._came.set()
        self._settle(delivery, self._untried(delivery, known))
        return True

    async def stop(self) -> None:
        """Cancel what runs alone. It is put back."""
        tasks = self.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> Sequence[asyncio.Task[None]]:
        """Cancel what runs alone, and what waits for it. The tasks that end."""
        if self._look is not None:
            self._look.cancel()
        tasks = [*self._running, *(task for task in (self._clearing, self._trying) if task is not None)]
        for task in tasks:
            task.cancel()
        return tasks

    # waiting for a trial

    def _wait(self, delivery: Delivery, known: Suspicion) -> None:
        place = min(known.deaths, len(self._groups))
        queue = self._waiting[place]
        alone = place == len(self._groups)
        if self._closed:
            self._move(delivery, known)
        elif len(queue) >= (_IN_HAND_ALONE if alone else self._room):
            self._move(delivery, known, min(_LATER * 1.5 ** min(known.moves, 10), _LATEST))
        else:
            queue[id(delivery)] = Suspect(delivery, known, asyncio.get_running_loop().time())
            if not alone:
                self._try_more()
            elif self._clearing is None or self._clearing.done():
                self._clearing = asyncio.get_running_loop().create_task(self._clear(), name="eventkit suspects")

    def _is_ours(self, delivery: Delivery, known: Suspicion, count: int) -> bool:
        """Has nobody died of this trial? It comes for the first time, or all its earlier times it came here."""
        trial = (delivery.message.headers.get(h.MESSAGE_ID, delivery.position), known.moves)
        ours = count == 1 or self._taken.get(trial) == count - 1
        if ours:
            self._taken[trial] = count
            if len(self._taken) > _REMEMBERED:
                del self._taken[next(iter(self._taken))]
        return ours

    # on trial among others

    def _try_more(self) -> None:
        """Begin as many trials as there is room for, the most suspicious first, and no others beside those."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if not self._silence.asked:
            for place in reversed(range(len(self._groups))):
                queue = self._waiting[place]
                room = self._groups[place] - self._on_trial()
                for key in list(queue)[: max(room, 0)]:
                    suspect = queue.pop(key)
                    self._sent.append((loop.time(), place))
                    self._move(suspect.delivery, suspect.known._replace(trial=1))
                if queue or self._on_trial(place):
                    break
        if any(self._waiting[:-1]):
            self._look = loop.call_later(_LOOK, self._try_more)

    def _on_trial(self, least: int = 0) -> int:
        """How many are, here or on their way here, in this trial or a later one, as far as that says anything."""
        now = asyncio.get_running_loop().time()
        while self._sent and self._sent[0][0] + _ELSEWHERE < now:
            self._sent.popleft()
        here = sum(
            suspect.since + _LONG > now and suspect.known.deaths >= least
            for these in (self._arrived, self.trials)
            for suspect in these.values()
        )
        return here + sum(place >= least for _, place in self._sent)

    async def _try(self) -> None:
        """Run those that have come for their trial, as soon as it is sure that nothing is left of what they were copied
        from: or that would come again, too, if the process dies of one of them."""
        while self._arrived:
            ready = list(self._arrived.values())
            if not await self._sure():
                await asyncio.sleep(_LOOK)
                for suspect in ready:
                    self._put_back_untried(suspect)
                continue
            for suspect in ready:
                delivery, known, since = suspect
                if self._arrived.pop(id(delivery), None) is None:
                    continue  # put back meanwhile
                headers = {name: value for name, value in delivery.message.headers.items() if name != h.SUSPECT}
                stand_in = delivery._replace(message=delivery.message._replace(headers=headers))
                self.trials[id(stand_in)] = Suspect(stand_in, known, since)
                self._run_instead(delivery, stand_in)

    async def _sure(self) -> bool:
        """Make sure of what is settled. False: the broker is away, or does not answer in time."""
        try:
            await self._flush(_FLUSH)
        except Exception as error:  # noqa: BLE001 whatever the client raises
            log.warning("%s: what is settled cannot be made sure of: %r", self._group.name, error)
            return False
        return True

    def _put_back_untried(self, suspect: Suspect) -> None:
        if self._arrived.pop(id(suspect.delivery), None) is not None:
            self._settle(suspect.delivery, self._untried(suspect.delivery, suspect.known))

    # running alone

    async def _clear(self) -> None:
        """One after the other, with others' work in between."""
        loop = asyncio.get_running_loop()
        while self._waiting[-1]:
            async with self._silence.turn:
                began = loop.time()
                self._silence.hold()
                try:
                    self._missed = 0 if await self._quiet() and await self._next() else self._missed + 1
                finally:
                    self._silence.free()
                least, most = _REST
                took = loop.time() - began
                rest = min(max(took, least), most) * _MISSED ** min(self._missed, 20)
                await asyncio.sleep(max(min(rest, _LONGEST_REST), took))

    async def _quiet(self) -> bool:
        """Until nothing runs any more; False: something runs on and on, and others must not wait for it."""
        try:
            async with asyncio.timeout(_QUIET):
                await self._silence.come()
        except TimeoutError:
            log.warning(
                "%s: nothing new was begun for %g s, and a handler still runs: a message that may have killed its "
                "process waits until none does; timeout= ends handlers that hang",
                *(self._group.name, _QUIET),
            )
            return False
        return True

    async def _next(self) -> bool:
        """Ask for the copy that is to run alone, and keep quiet until it has run; False: it did not come."""
        queue = self._waiting[-1]
        if not queue:
            return True
        suspect = queue.pop(next(iter(queue)))
        self._came.clear()
        self._move(suspect.delivery, suspect.known._replace(trial=_LOOKS))
        self._marked = True
        try:
            async with asyncio.timeout(_COMES):
                await self._came.wait()
        except TimeoutError:
            return False
        finally:
            self._marked = False
        await self._silence.come()
        return True

    def _start(self, delivery: Delivery) -> None:
        self._came.set()
        self._task(delivery, self._run_alone(delivery, self._silence.begin()))

    def _task(self, delivery: Delivery, work: Any) -> None:
        self._started(delivery)
        task = asyncio.get_running_loop().create_task(work, name="eventkit alone", context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_alone(self, delivery: Delivery, end: Callable[[], None]) -> None:
        known = copies.suspicion(delivery.message)
        assert known is not None

        def let_in() -> None:
            log.warning(
                "%s: %s, which may have killed its process, runs for more than %g s: others go on beside it",
                *(self._group.name, self._outcomes.telling.about(delivery.message), _ALONE),
            )
            end()

        timer = asyncio.get_running_loop().call_later(_ALONE, let_in)
        try:
            # or it would come again, if the process dies, besides this copy of it
            how = await self._decide(delivery) if await self._sure() else self._untried(delivery, known)
        except asyncio.CancelledError:  # a stop has run out of time
            how = self._untried(delivery, known)
        except Exception:
            log.exception(
                "%s: eventkit itself failed on %s", self._group.name, self._outcomes.telling.about(delivery.message)
            )
            self._outcomes.forget(delivery)
            how = self._untried(delivery, known)
        finally:
            timer.cancel()
            end()
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

    # what came of it

    def _died(self, delivery: Delivery, known: Suspicion) -> None:
        deaths = known.deaths + 1
        alone = known.deaths >= len(self._groups)
        log.log(
            logging.WARNING if alone else logging.INFO,
            "%s: the process that ran %s died of it, or with it: %s (%d of %d times, then it is a dead letter)",
            self._group.name,
            self._outcomes.telling.about(delivery.message),
            "nothing else ran there" if alone else f"at most {self._groups[known.deaths]} suspects ran there",
            deaths,
            self._deaths,
        )
        if alone and deaths >= self._deaths:
            self._task(delivery, self._quarantine(delivery))
        else:
            self._wait(delivery, known._replace(deaths=deaths, trial=0))

    async def _quarantine(self, delivery: Delivery) -> None:
        alone = self._deaths - len(self._groups)
        how: Settlement = RELEASE
        try:
            how = await self._outcomes.quarantined(
                delivery,
                f"its process died {self._deaths + FIRST} times or more with it, the last {alone} of them while it ran "
                "alone",
            )
        except Exception:  # given back as it is: it is given up on when it comes again, and never tried
            log.exception(
                "%s: eventkit itself failed on %s", self._group.name, self._outcomes.telling.about(delivery.message)
            )
            await sleep(self._clock, _AGAIN)
        self._settle(delivery, how)

    def _untried(self, delivery: Delivery, known: Suspicion) -> Settlement:
        """Back for the same trial another time."""
        return Move(copies.suspect(delivery, self._group, known._replace(trial=0)))

    def _move(self, delivery: Delivery, known: Suspicion, later: timedelta | None = None) -> None:
        due = None if later is None else self._clock.now() + later
        self._settle(delivery, Move(copies.suspect(delivery, self._group, known, due=due)))


def groups(deaths: int) -> tuple[int, ...]:
    """How many suspects are on trial at once, in the trials before one runs alone; of all that it has for so many
    deaths."""
    before = min(max(deaths - LEAST_ALONE, 0), len(_GROUPS))
    return _GROUPS[len(_GROUPS) - before :]
