"""Observed: what runs on buses now, as instruments tell it when they are asked: groups, and outboxes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

from eventkit.adapter import Backlog
from eventkit.instruments import Consumers, GroupState, Instrument, Outbox, OutboxState, Place

log = logging.getLogger("eventkit")

EVERY = timedelta(seconds=15)
"""How often brokers and databases are asked at most, unless another time is given."""
BACKLOG = ("ready", "in_flight", "delayed", "dead")
"""The numbers of a `Backlog`."""
_PATIENCE = 1.0
"""Seconds that a collection waits for their answer; then the last one known is told."""

T = TypeVar("T")


class Group(NamedTuple):
    """One group, also where two buses run it."""

    place: Place
    in_flight: int
    consuming: bool
    circuits: Mapping[str, bool]
    """By handler: is it open?"""
    backlog: Backlog | None
    """None: it is not known."""


class Waiting(NamedTuple):
    """What stands in the outboxes of one service."""

    place: Place
    waiting: int
    refused: int
    oldest: timedelta
    """The age of the first that waits; zero: none does."""


class Observed:
    """The services and the outboxes that run on the buses of one instrument."""

    def __init__(self, every: timedelta) -> None:
        """`every`: how often brokers and databases are asked at most: when somebody collects, and at the start."""
        self._every = every.total_seconds()
        self._consumers: dict[int, tuple[Consumers, _Asked[Mapping[Place, Backlog]]]] = {}
        self._outboxes: dict[tuple[Place, int], tuple[Place, _Asked[OutboxState]]] = {}

    def started(self, consumers: Consumers) -> None:
        asked = _Asked(consumers.backlogs, self._every)
        self._consumers[id(consumers)] = consumers, asked

    def stopped(self, consumers: Consumers) -> None:
        self._consumers.pop(id(consumers), None)

    def relaying(self, place: Place, outbox: Outbox) -> None:
        self._outboxes[place, id(outbox)] = place, _Asked(outbox.outbox, self._every)

    def relayed(self, place: Place, outbox: Outbox) -> None:
        self._outboxes.pop((place, id(outbox)), None)

    async def ask(self) -> None:
        """Have it ready for a collection that follows, as far as it is answered in time."""
        await asyncio.gather(*(asked.again() for asked in self._all()))

    def ask_in_thread(self) -> None:
        """The same for a collection outside of any loop. Inside of one nobody can wait: it is for the next one."""
        for waited in [asked.again_in_thread() for asked in self._all()]:
            waited()

    def groups(self) -> Sequence[Group]:
        """As they are now; their backlogs as they were found last."""
        found: dict[tuple[str, str | None], tuple[list[GroupState], Backlog | None]] = {}
        for consumers, asked in list(self._consumers.values()):
            backlogs = asked.found or {}
            for state in consumers.states():
                key = state.place.service, state.place.group
                known, backlog = found.get(key, ([], None))
                found[key] = [*known, state], backlogs.get(state.place, backlog)
        return [_together(states, backlog) for states, backlog in found.values()]

    def outboxes(self) -> Sequence[Waiting]:
        """As they were found last."""
        found: dict[str, Waiting] = {}
        for place, asked in list(self._outboxes.values()):
            state = asked.found
            if state is None:
                continue
            other = found.get(place.service) or Waiting(place, 0, 0, timedelta(0))
            oldest = max(other.oldest, state.oldest or timedelta(0))
            found[place.service] = Waiting(place, other.waiting + state.waiting, other.refused + state.refused, oldest)
        return list(found.values())

    def _all(self) -> Sequence[_Asked[Mapping[Place, Backlog]] | _Asked[OutboxState]]:
        return [*(asked for _, asked in list(self._consumers.values())), *(a for _, a in list(self._outboxes.values()))]


class Observing(Instrument):
    """An instrument that can say what runs now."""

    def __init__(self, every: timedelta) -> None:
        self._observed = Observed(every)

    def started(self, consumers: Consumers) -> None:
        self._observed.started(consumers)

    def stopped(self, consumers: Consumers) -> None:
        self._observed.stopped(consumers)

    def relaying(self, place: Place, outbox: Outbox) -> None:
        self._observed.relaying(place, outbox)

    def relayed(self, place: Place, outbox: Outbox) -> None:
        self._observed.relayed(place, outbox)


def _together(states: Sequence[GroupState], backlog: Backlog | None) -> Group:
    return Group(
        states[0].place,
        sum(state.in_flight for state in states),
        all(state.error is None for state in states),
        {name: is_open for state in states for name, is_open in state.circuits.items()},
        backlog,
    )


class _Asked(Generic[T]):
    """Something that is asked for, again where the last answer is old. Made in the loop that asks."""

    def __init__(self, ask: Callable[[], Awaitable[T]], every: float) -> None:
        self.found: T | None = None
        """None: not answered yet, or not any more."""
        self._measure = ask
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._asked = -every
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._ask)

    async def again(self) -> None:
        """Wait for an answer, if one is due and it is this loop that asks."""
        if asyncio.get_running_loop() is not self._loop:
            self.soon()
        elif (task := self._ask()) is not None:
            await asyncio.wait([task], timeout=_PATIENCE)

    def again_in_thread(self) -> Callable[[], object]:
        """Ask, if it is due; call what is returned to wait for the answer."""
        if not self._due:
            return lambda: None
        if _in_a_loop():
            self.soon()
            return lambda: None
        answered = threading.Event()

        def ask() -> None:
            task = self._ask()
            if task is None:
                answered.set()
            else:
                task.add_done_callback(lambda _: answered.set())

        try:
            self._loop.call_soon_threadsafe(ask)
        except RuntimeError:  # its loop has ended
            return lambda: None
        return lambda: answered.wait(_PATIENCE)

    @property
    def _due(self) -> bool:
        return self._task is not None or time.monotonic() >= self._asked + self._every

    def _ask(self) -> asyncio.Task[None] | None:
        if self._task is None and self._due:
            self._asked = time.monotonic()
            self._task = self._loop.create_task(self._answer(), name="eventkit measures")
        return self._task

    async def _answer(self) -> None:
        try:
            self.found = await self._measure()
        except Exception as error:  # noqa: BLE001 a database that is away, say: what is not known is not told
            self.found = None
            log.debug("what waits cannot be measured: %r", error)
        finally:
            self._task = None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
