"""Outcomes: what becomes of one delivery, from decoding through its handler to the settlement that it calls for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from datetime import datetime, timedelta
from types import CoroutineType
from typing import Any, TypeAlias

from eventkit import copies, repeats
from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Delivery, Done, Group, Message, Move, Settlement
from eventkit.breaker import Breakers
from eventkit.clock import LONGEST, Clock
from eventkit.copies import Reason
from eventkit.errors import (
    UndecodableMessage,
    UnknownMessage,
)
from eventkit.failures import Failures, Wait
from eventkit.gathering import Gatherer, Item, Joined
from eventkit.handling import Entry, Table
from eventkit.instruments import Attempt, Brief
from eventkit.lanes import Gate, go_on, take_back_cancellation
from eventkit.messages import Command, Event
from eventkit.outgoing import Emitter
from eventkit.telling import Telling
from eventkit.wire import JSON

log = logging.getLogger("eventkit")

UNKNOWN_WAIT = timedelta(seconds=30)
"""How long a command that no handler here knows, a message of a newer version, or one that a handler of this group has
tried and that no longer is there, waits for a replica that takes it, each time."""
UNKNOWN_LIMIT = timedelta(hours=1)
"""After this in all it is a dead letter."""
_LONGEST_REST = timedelta(minutes=10)
"""How long a message that is put off waits on the broker at most, each time, while its handler rests."""


Unsettled: TypeAlias = Wait | Gate | Joined | Item
"""No settlement yet. An item is a suspect for a handler of batches: it is a batch of its own."""


class Outcomes:
    """Decides for one group. It settles nothing itself."""

    def __init__(
        self,
        group: Group,
        table: Table,
        emitter: Emitter,
        clock: Clock,
        telling: Telling,
        gatherer: Gatherer | None = None,
    ) -> None:
        """`gatherer`: for a group that has handlers of batches."""
        self.telling = telling
        self.gatherer = gatherer
        self._waiting: dict[int, int] = {}
        self.patience = repeats.Patience(group.name)
        """With the stores of what was handled."""
        self.crowded: Callable[[], bool] = lambda: False
        """Does what waits here leave others little room? Set by whoever holds the deliveries."""
        self._stopping = False
        self.aborting = False
        """A stop has run out of time: a cancellation is ours, and no failure of the message."""
        self._group = group
        self._table = table
        self.emitter = emitter
        self._clock = clock
        self._briefs = telling.briefs(table.types)
        self.breakers = Breakers(group.name, clock)
        self._failures = Failures(group, table, emitter, clock, telling, self.breakers)

    def stop(self) -> None:
        """From now on what waits for a circuit or a store is given back: its time may be long after the stop's."""
        self._stopping = True
        self.breakers.stop()

    def forget(self, delivery: Delivery) -> None:
        """This delivery is given back: its count in the lane ends."""
        self._waiting.pop(id(delivery), None)
        self.breakers.forget(delivery)

    async def decide(self, delivery: Delivery) -> Settlement | Unsettled:
        begun = self.begin(delivery)
        return begun if isinstance(begun, Done) else await begun

    def begin(  # noqa: C901 each step of it, as a function, would cost as much as all of them
        self, delivery: Delivery
    ) -> Done | Coroutine[Any, Any, Settlement | Unsettled]:
        """Decide at once, where its handler does not wait for anything; else a coroutine that goes on from there.

        To be called in the context in which the handler is to run, and the coroutine is to be stepped there, too.
        """
        message = delivery.message
        headers = message.headers
        if type(headers) is h.Alike:
            headers = headers.shared  # what is asked for here is in all of these messages the same
        entry = self._table.get(message.type)
        if (
            entry is None
            or entry.address != message.address
            or h.DUE in headers
            or h.EXPIRY in headers
            or h.ID not in headers
            or headers.get(h.VERSION, entry.version) != entry.version
        ):
            return self._decide_rare(delivery)
        if not entry.short or self._waiting or self.telling.attended or self.gatherer is not None:
            return self._attempt(entry, delivery, delivery, 1, None)
        # The rest is `_attempt` for a handler that takes its message alone, without a call for each step of it.
        brief, began = None, 0.0
        if self._briefs is not None:
            brief = self._briefs[entry]
            if brief is None or (brief.begins is not None and not brief.begins(message)):
                return self._attempt(entry, delivery, delivery, 1, None)
        try:
            if headers.get(h.CONTENT_TYPE) != JSON:
                return self._attempt(entry, delivery, delivery, 1, None)
            assert entry.validate is not None, "of a short one"
            content = entry.validate(message.body or b"")
        except Exception:  # noqa: BLE001 a validator may raise anything: `decode` says what is wrong with it
            return self._attempt(entry, delivery, delivery, 1, None)
        if self.telling.named:
            self.telling.enter(delivery, 1)
        if brief is not None:
            began = time.perf_counter()
        try:
            running = entry.handler.function(content)
        except BaseException as error:  # noqa: BLE001 as below
            return self._failed_first(entry, delivery, content, error, began)
        if type(running) is not CoroutineType:
            return self._goes_on(entry, delivery, content, running, brief, began)
        try:
            waits_for = running.send(None)
        except StopIteration as end:
            result = end.value
        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message
            return self._failed_first(entry, delivery, content, error, began)
        else:
            return self._goes_on(entry, delivery, content, go_on(running, waits_for), brief, began)
        if result is not None or h.REPLY_TO in headers:
            return self._goes_on(entry, delivery, content, _returned(result), brief, began)
        if brief is not None and brief.handled is not None:
            brief.handled(message, time.perf_counter() - began)
        self.telling.counts.handled += 1
        return DONE

    async def _goes_on(
        self,
        entry: Entry,
        delivery: Delivery,
        content: Event | Command[Any],
        running: Awaitable[object],
        brief: Brief | None,
        began: float,
    ) -> Settlement | Wait:
        """The short way of a handler that waits for something, or has something to send."""
        message = delivery.message
        try:
            result = await running
            if result is not None or h.REPLY_TO in message.headers:
                await self.emitter.succeeded(entry, delivery, result, ())
        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message
            return await self._failed_first(entry, delivery, content, error, began)
        if brief is not None and brief.handled is not None:
            brief.handled(message, time.perf_counter() - began)
        self.telling.counts.handled += 1
        return DONE

    async def _failed_first(
        self, entry: Entry, delivery: Delivery, content: Event | Command[Any], error: BaseException, began: float
    ) -> Settlement | Wait:
        """The short way's `failed`. What instruments were to be told in brief, they are told at length now."""
        item = Item(entry, delivery, delivery, content, 1, None)
        if self._briefs is None:
            return await self.failed(item, self._blame(error))
        attempts = (Attempt(delivery, delivery, entry.name, 1, began),)
        handling = self.telling.begin(attempts)
        try:
            return await self.failed(item, self._blame(error))
        finally:
            self.telling.end(handling, attempts)

    def _blame(self, error: BaseException) -> BaseException:
        """The failure of an attempt; raises what is none: our own cancellation, and Ctrl-C."""
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, asyncio.CancelledError) and self.aborting):
            raise error
        if isinstance(error, asyncio.CancelledError):
            take_back_cancellation()
        return error

    async def _decide_rare(self, arrived: Delivery) -> Settlement | Unsettled:
        """Copies, delayed messages, requests, CloudEvents in structured mode, foreign and unknown messages."""
        try:
            message = copies.back(arrived)
        except UndecodableMessage as error:
            return self._failures.dead(None, arrived, Reason.UNDECODABLE, error, 1)
        delivery = arrived._replace(message=message)
        now = self._clock.now()
        due = _time(message, h.DUE)
        if due is not None and due > now:
            self._waiting.pop(id(arrived), None)
            # the farthest that all brokers can keep: then it comes here again
            return Move(copies.wait(delivery, self._group, due=min(due, now + LONGEST)))
        deadline = _time(message, h.EXPIRY)
        if deadline is not None and deadline <= now:
            self._waiting.pop(id(arrived), None)
            self.telling.expired(delivery, copies.attempt(message))
            return DONE
        entry = self._table.find(message)
        if entry is None:
            return self._unknown(arrived, delivery)
        return await self._attempt(entry, arrived, delivery, copies.attempt(message), deadline)

    def _unknown(self, arrived: Delivery, delivery: Delivery) -> Settlement:
        message = delivery.message
        if not self._keeps(arrived, message):
            self.telling.skipped(delivery)
            return DONE
        waited = copies.waits(message) * UNKNOWN_WAIT
        if waited >= UNKNOWN_LIMIT:
            error = UnknownMessage(
                f"no handler of {self.telling.place.service} takes {message.type} version {_version(message)}"
            )
            return self._failures.dead(None, delivery, Reason.UNHANDLED, error, copies.attempt(message))
        if not waited:
            self.telling.unknown(delivery, _version(message), copies.attempt(message))
        return Move(copies.wait(delivery, self._group, due=self._clock.now() + UNKNOWN_WAIT))

    def _keeps(self, arrived: Delivery, message: Message) -> bool:
        """Must this message, that no handler here takes, wait for one that does?"""
        return message.address.kind == "inbox" or self._table.newer(message) or copies.taken(arrived)

    def rescued(self, arrived: Delivery) -> Settlement:
        """The broker has lost what was to be given back to it: a copy comes back, untried."""
        if self.skips(arrived):
            return DONE
        delivery = arrived
        with contextlib.suppress(UndecodableMessage):
            delivery = arrived._replace(message=copies.back(arrived))
        return Move(copies.wait(delivery, self._group, due=None))

    def skips(self, arrived: Delivery) -> bool:
        """Is it of a type that no handler here takes, and need not wait for one that does?"""
        try:
            message = copies.back(arrived)
        except UndecodableMessage:
            return False
        return self._table.find(message) is None and not self._keeps(arrived, message)

    async def _attempt(
        self, entry: Entry, arrived: Delivery, delivery: Delivery, attempt: int, deadline: datetime | None
    ) -> Settlement | Unsettled:
        if self._waiting:
            attempt = self._waiting.get(id(arrived), attempt)
        alone = False
        if self.gatherer is not None or entry.circuit is not None:
            alone = h.SUSPECT in delivery.message.headers
            if not alone and (wait := self._must_wait(entry, arrived, delivery, attempt)) is not None:
                if not isinstance(wait, Gate):
                    self._waiting.pop(id(arrived), None)
                return wait
        if self._waiting:
            self._waiting.pop(id(arrived), None)
        try:
            content = entry.decode(delivery.message)
        except UndecodableMessage as error:
            self.breakers.dropped(entry, arrived)
            return await self._failures.given_up(entry, delivery, Reason.UNDECODABLE, error, attempt)
        if entry.batch is not None and self.gatherer is not None:
            item = Item(entry, arrived, delivery, content, attempt, deadline)
            return item if alone else self.gatherer.join(item)
        item = Item(entry, arrived, delivery, content, attempt, deadline)
        if self.telling.instruments is None:
            return await self._try(item)
        attempts = (item.as_attempt(),)
        handling = self.telling.begin(attempts)
        try:
            return await self._try(item)
        finally:
            self.telling.end(handling, attempts)

    async def _try(self, item: Item) -> Settlement | Wait:
        self.telling.enter(item.delivery, item.attempt)
        if item.entry.once is not None:
            return await self._once(item)
        failure = await self._call(item)
        return DONE if failure is None else await self.failed(item, failure)

    async def failed(self, item: Item, error: BaseException) -> Settlement | Wait:
        """An attempt has ended with this error."""
        how = await self._failures.failed(item, error)
        if isinstance(how, Wait) and how.attempt is not None:
            self._waiting[id(item.arrived)] = how.attempt
        return how

    async def quarantined(self, arrived: Delivery, why: str) -> Settlement:
        """Its process died again and again, and it alone ran there."""
        return await self._failures.quarantined(arrived, why)

    def succeeded(self, entry: Entry, delivery: Delivery, content: Event | Command[Any], attempt: int) -> Settlement:
        """An attempt has ended well, and what it sends is sent."""
        self.breakers.succeeded(entry)
        self.telling.handled(entry, delivery, content, attempt)
        return DONE

    @property
    def types(self) -> Collection[str]:
        """The messages that its handlers take, by their wire names."""
        return self._table.types.keys()

    def _must_wait(self, entry: Entry, arrived: Delivery, delivery: Delivery, attempt: int) -> Settlement | Gate | None:
        """What this message waits for before it is tried: its key, its handler; None: nothing."""
        if self.gatherer is not None and (gate := self.gatherer.blocked(entry, arrived, attempt)) is not None:
            return gate  # asked first: one that waits for its key must not be the probe that others wait for
        return self._resting(entry, arrived, delivery) if entry.circuit is not None else None

    def _resting(self, entry: Entry, arrived: Delivery, delivery: Delivery) -> Settlement | Gate | None:
        """What this message waits for, untried, while its handler rests; None: it is tried."""
        breaker = self.breakers.of(entry)
        if self.breakers.stopping and breaker.state is not None:
            return RELEASE
        gate = breaker.asks(arrived)
        if gate is None or entry.retry.in_order or not self._table.shared or not self.crowded():
            return gate
        # others of this group must have room, too
        assert entry.circuit is not None
        pause = min(entry.circuit.pause * 2 ** min(copies.waits(delivery.message), 12), _LONGEST_REST)
        return Move(copies.wait(delivery, self._group, due=self._clock.now() + pause))

    async def _call(self, item: Item) -> BaseException | None:
        """One attempt: its failure, or None."""
        entry, _, delivery, content, attempt, deadline = item
        began = time.perf_counter() if self.telling.each else 0.0
        call = entry.call(content, delivery, attempt, deadline)
        try:
            result = await call.run()
            if call.outgoing or result is not None or h.REPLY_TO in delivery.message.headers:
                await self.emitter.succeeded(entry, delivery, result, call.outgoing)
        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message
            return self._blame(error)
        if self.telling.each:
            self.telling.took(delivery, attempt, time.perf_counter() - began)
        self.succeeded(entry, delivery, content, attempt)
        return None

    # repeats

    async def _once(self, item: Item) -> Settlement | Wait:
        """One attempt of a handler that drops repeats."""
        entry, arrived, delivery, content, attempt, deadline = item
        began = time.perf_counter() if self.telling.each else 0.0
        call = entry.call(content, delivery, attempt, deadline)
        try:
            ending = await repeats.handle(entry, delivery, call, self._group.name, self.emitter)
        except BaseException as error:  # noqa: BLE001 whatever a handler raises is a failure of its message
            return await self.failed(item, self._blame(error))
        if isinstance(ending, repeats.Untried):
            return self._put_off(entry, arrived, delivery, attempt, ending)
        self.patience.met()
        if ending is repeats.Ended.REPEATED:
            self.breakers.dropped(entry, arrived)
            self.telling.repeated(entry, delivery, content, attempt)
            return DONE
        if isinstance(ending, repeats.Refused):
            self.breakers.succeeded(entry)
            self.telling.rejected(entry, delivery, ending.rejection, attempt)
            return DONE
        if self.telling.each:
            self.telling.took(delivery, attempt, time.perf_counter() - began)
        return self.succeeded(entry, delivery, content, attempt)

    def _put_off(
        self, entry: Entry, arrived: Delivery, delivery: Delivery, attempt: int, untried: repeats.Untried
    ) -> Settlement | Wait:
        """It was not tried: it waits in its lane, or on the broker where others must have room."""
        self.breakers.dropped(entry, arrived)
        seconds = self.patience.seconds(untried)
        crowded = self._table.shared and self.crowded() and not entry.retry.in_order
        if crowded or h.SUSPECT in delivery.message.headers:
            return Move(copies.wait(delivery, self._group, due=self._clock.now() + timedelta(seconds=seconds)))
        if self._stopping:
            return RELEASE
        self._waiting[id(arrived)] = attempt
        return Wait(seconds, attempt)


async def _returned(result: object) -> object:
    return result


def _version(message: Message) -> str:
    return message.headers.get(h.VERSION, "1")


def _time(message: Message, name: str) -> datetime | None:
    said = message.headers.get(name)
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
