"""Gathering: messages put together for one call of a handler that takes batches, in the order of their keys.

A message that joins a batch leaves its lane, and its key is held: what comes behind it may join the same batch while
that is still open, and waits at the key's gate otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, final

from eventkit.adapter import Delivery
from eventkit.clock import Clock, Timer
from eventkit.declaring import Handler
from eventkit.handling import Entry
from eventkit.instruments import Attempt
from eventkit.lanes import Gate
from eventkit.messages import Command, Event


class Item(NamedTuple):
    """One attempt at one message."""

    entry: Entry
    arrived: Delivery
    delivery: Delivery
    """As it was at its original address."""
    content: Event | Command[Any]
    attempt: int
    deadline: datetime | None

    def as_attempt(self) -> Attempt:
        return Attempt(self.arrived, self.delivery, self.entry.name, self.attempt, time.perf_counter())


class Joined:
    """No settlement yet: the message waits in a batch."""


@final
class Gathered:
    """The messages of one batch. Closed, nothing more joins it, and it is handled."""

    __slots__ = ("closed", "items", "timer")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.timer: Timer | None = None
        self.closed = False


class _Hold:
    """A key that has messages in a batch, or one that waits to be tried again before all others."""

    __slots__ = ("batch", "gate", "members")

    def __init__(self) -> None:
        self.gate = Gate()
        self.batch: Gathered | None = None
        self.members: set[int] = set()


class Gatherer:
    """The batches of a group that are open, and the keys that are held."""

    def __init__(self, clock: Clock) -> None:
        self.submit: Callable[[Gathered | Delivery], None]
        """Have it processed by the next free worker. Set by whoever owns the workers."""
        self._clock = clock
        self._open: dict[Handler, Gathered] = {}
        self._holds: dict[str | None, _Hold] = {}
        self._asleep: dict[int, Delivery] = {}
        self._hurry = 0

    @property
    def sleeping(self) -> int:
        """Messages that wait for the clock: for their batch to be full, or to be tried again."""
        return len(self._asleep) + sum(len(batch.items) for batch in self._open.values())

    def sleepers(self) -> Iterable[Delivery]:
        """Those that wait to be tried again."""
        return self._asleep.values()

    def blocked(self, entry: Entry, arrived: Delivery, attempt: int) -> Gate | None:
        """What this message has to wait for; None: nothing of its key is open elsewhere."""
        hold = self._holds.get(arrived.message.key)
        if hold is None or id(arrived) in hold.members:
            return None
        if entry.batch is None or entry.retry.in_order or _alone(entry, attempt) or hold.batch is None:
            return hold.gate
        return None if self._open.get(entry.handler) is hold.batch else hold.gate

    def join(self, item: Item) -> Joined:
        """Put a message that is not blocked into its handler's batch."""
        entry = item.entry
        rules = entry.batch
        assert rules is not None
        alone = _alone(entry, item.attempt)
        batch = None if alone else self._open.get(entry.handler)
        if batch is None:
            batch = Gathered()
            if not alone:
                self._open[entry.handler] = batch
                close = functools.partial(self._close, entry.handler, batch)
                batch.timer = self._clock.call_later(0 if self._hurry else rules.wait.total_seconds(), close)
        batch.items.append(item)
        key = item.arrived.message.key
        if key is not None:
            hold = self._holds.get(key)
            if hold is None:
                hold = self._holds[key] = _Hold()
            hold.batch = batch
            hold.members.add(id(item.arrived))
        if alone or len(batch.items) >= rules.size:
            self._close(entry.handler, batch)
        return Joined()

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Meanwhile no batch waits to be full: not those that are open, and none that is begun."""
        self._hurry += 1
        try:
            self._flush()
            yield
        finally:
            self._hurry -= 1

    def _flush(self) -> None:
        for handler, batch in list(self._open.items()):
            self._close(handler, batch)

    def again(self, delivery: Delivery, seconds: float) -> None:
        """A message of a batch is to be tried again before all others of its key."""
        self._asleep[id(delivery)] = delivery
        hold = self._holds.get(delivery.message.key)
        if hold is not None:
            hold.batch = None
        self._clock.call_later(seconds, functools.partial(self._wake, delivery))

    def settled(self, delivery: Delivery) -> None:
        """Its key is free, if that was the last of it that was held."""
        key = delivery.message.key
        hold = self._holds.get(key)
        if hold is None or id(delivery) not in hold.members:
            return
        hold.members.discard(id(delivery))
        if not hold.members:
            del self._holds[key]
            hold.gate.open()

    def drop(self, keep: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out those that wait to be tried again and are not to be kept."""
        dropped = [delivery for delivery in self._asleep.values() if not keep(delivery)]
        for delivery in dropped:
            del self._asleep[id(delivery)]
            self.settled(delivery)
        return dropped

    def _close(self, handler: Handler, batch: Gathered) -> None:
        if batch.closed:
            return
        batch.closed = True
        if batch.timer is not None:
            batch.timer.cancel()
        if self._open.get(handler) is batch:
            del self._open[handler]
        self.submit(batch)

    def _wake(self, delivery: Delivery) -> None:
        if self._asleep.pop(id(delivery), None) is not None:
            self.submit(delivery)


def _alone(entry: Entry, attempt: int) -> bool:
    """A last attempt: what others of its batch do must not make it a dead letter."""
    return attempt > 1 and attempt >= entry.retry.attempts
