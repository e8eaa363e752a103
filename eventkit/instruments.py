"""Instruments: what traces and metrics hang on. Without any, they cost nothing.

An instrument learns what a bus does, and changes nothing but the headers of what goes out. One that raises is logged,
and the messages go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeVarTuple, Unpack, runtime_checkable

from eventkit.adapter import Address, Backlog, Delivery, Message, Settlement
from eventkit.watching import Happened, Watch, What

__all__ = [
    "Attempt",
    "Brief",
    "Consumers",
    "GroupState",
    "Handling",
    "Happened",
    "Instrument",
    "Outbox",
    "OutboxState",
    "Page",
    "Place",
    "Sending",
    "What",
]

Arguments = TypeVarTuple("Arguments")

log = logging.getLogger("eventkit")

_SAY_AGAIN = 60.0
"""Seconds between two warnings of an instrument that fails."""


class Place(NamedTuple):
    """Where something happens. The same object for all that happens there."""

    broker: str
    """The adapter's name."""
    service: str
    """The service's name; of a bus that runs none: its source."""
    group: str | None
    """None: in a bus itself, not in the handling of a message."""


class Attempt(NamedTuple):
    """A message that is about to be handled."""

    arrived: Delivery
    """What is settled afterwards."""
    delivery: Delivery
    """The same, as it was at its original address."""
    handler: str
    """Its name."""
    number: int
    """From 1."""
    began: float
    """When, by `time.perf_counter()`: just now, or before its handler ran where a `Brief` was to follow it."""


class Sending(Protocol):
    """Messages on their way to the broker."""

    @property
    def messages(self) -> Sequence[Message]:
        """What is sent: those that were given, with headers of the instrument's own."""
        ...

    def ended(self, answers: Sequence[Exception | None]) -> None:
        """Each is confirmed (None), or not."""
        ...


class Handling(Protocol):
    """An attempt at one message, or at a batch: dependencies, middleware, handler, and what goes out afterwards."""

    def ended(self, endings: Sequence[Happened | None]) -> None:
        """What became of each, told where the handling began, with the same context variables. None: it was not tried
        to its end, and will be tried again."""
        ...


class Brief(NamedTuple):
    """How an instrument follows those messages of one handler with which all goes well: `handling`, `Handling.ended`
    and `happened` in one, at a fraction of their price."""

    handled: Callable[[Message, float], None] | None = None
    """It was, by its first attempt, in so many seconds. None: there is nothing to do."""
    begins: Callable[[Message], bool] | None = None
    """It is about to be handled. Context variables set here are seen by it, and end with it. False: this message is to
    be told of at length. None: there is nothing to do."""


class GroupState(NamedTuple):
    """A group, at this moment."""

    place: Place
    in_flight: int
    """Deliveries that are held here and not settled."""
    circuits: Mapping[str, bool]
    """By handler, of those that have a `Circuit` and were called: is it open?"""
    error: Exception | None
    """Why it does not consume, its broker being away among others; None while all is well."""
    types: Collection[str]
    """The messages that its handlers take, by their wire names."""


class Consumers(Protocol):
    """Services that run on a bus, to be asked at any time while they do."""

    def states(self) -> Sequence[GroupState]:
        """Of each group, at this moment."""
        ...

    async def backlogs(self) -> Mapping[Place, Backlog]:
        """Asks the broker. A group that it does not tell of is left out."""
        ...


class OutboxState(Protocol):
    """What stands in an outbox now."""

    @property
    def waiting(self) -> int:
        """Messages that the broker has not confirmed yet."""
        ...

    @property
    def refused(self) -> int:
        """Messages that it will never take as they are."""
        ...

    @property
    def oldest(self) -> timedelta | None:
        """The age of the first that waits. None: none does."""
        ...


@runtime_checkable
class Outbox(Protocol):
    """An outbox that a relay publishes, to be asked at any time while it does: a store of `eventkit.sql` is one."""

    async def outbox(self) -> OutboxState:
        """Asks its database, and raises what that raises."""
        ...


class Page(NamedTuple):
    """What an instrument tells over HTTP."""

    content_type: str
    """As it stands in the header of that name."""
    body: bytes


class Instrument:
    """Override what is of interest: what is not overridden here is not called. One may be given to several buses."""

    def happened(self, place: Place, happened: Happened) -> None:
        """Something became of a message: see `What`. At `place` it was handled, or published."""

    def sending(self, place: Place, messages: Sequence[Message], forwarded: bool) -> Sending | None:
        """These are about to go out, in one call. `forwarded`: they were made elsewhere, earlier, and keep their
        context: from an outbox, from the dead letters."""

    def created(self, place: Place, message: Message) -> Message | None:
        """It was made to be sent later, from an outbox. Gives it with headers of the instrument's own; None: as it
        is."""

    def received(self, place: Place, deliveries: Sequence[Delivery]) -> None:
        """The broker has handed these over; they wait for their turn."""

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Handling | None:
        """These are about to be handled: by one call of a handler. Context variables set here are seen by it."""

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief | None:
        """Asked once for each type of messages that a handler takes, in the thread in which it will run: how to follow
        those that are told of in brief, as far as the handler is `async` and takes nothing but the message.

        Where such an attempt fails, `handling` is called after all, when the handler has run, and all that follows.
        None: each is told of at length, which costs several microseconds.
        """
        return None

    def settled(self, place: Place, arrived: Delivery, how: Settlement, error: Exception | None) -> None:
        """The broker is told to settle it. `error`: it was, and could not; it will be told again."""

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        """A request got its reply, so long after it was sent."""

    def started(self, consumers: Consumers) -> None:
        """Services run."""

    def stopped(self, consumers: Consumers) -> None:
        """They do not any more."""

    def relaying(self, place: Place, outbox: Outbox) -> None:
        """A relay runs, which publishes this outbox, or stands by."""

    def relayed(self, place: Place, outbox: Outbox) -> None:
        """It does not any more."""

    async def page(self) -> Page | None:
        """What is told at `/metrics`, of the health port and of web apps. None: nothing."""
        return None


class Instruments:
    """All those of a bus, as one; none of them can harm a message."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._said = -_SAY_AGAIN
        self._happened = [one.happened for one in _overriding(instruments, "happened")]
        self._sending = [one.sending for one in _overriding(instruments, "sending")]
        self._created = [one.created for one in _overriding(instruments, "created")]
        self._received = [one.received for one in _overriding(instruments, "received")]
        self._handling = [one.handling for one in _overriding(instruments, "handling")]
        self._following = [one for one in instruments if _overrides(one, "happened") or _overrides(one, "handling")]
        self._settled = [one.settled for one in _overriding(instruments, "settled")]
        self._replied = [one.replied for one in _overriding(instruments, "replied")]
        self._pages = [one.page for one in _overriding(instruments, "page")]
        self._started = [one.started for one in instruments]
        self._stopped = [one.stopped for one in instruments]
        self._relaying = [one.relaying for one in instruments]
        self._relayed = [one.relayed for one in instruments]

    @property
    def hear_of_settlements(self) -> bool:
        return bool(self._settled)

    @property
    def hear_of_handling(self) -> bool:
        return bool(self._following)

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief | None:
        """Of all that hear of a handling. None: at least one is to be told at length."""
        briefs: list[Brief] = []
        for one in self._following:
            try:
                found = one.brief(place, address, type, handler)
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(one.brief, error)
                return None
            if found is None:
                return None
            briefs.append(found)
        beginning = [brief.begins for brief in briefs if brief.begins is not None]
        ending = [brief.handled for brief in briefs if brief.handled is not None]

        def begins(message: Message) -> bool:
            for asked in beginning:
                try:
                    if not asked(message):
                        return False
                except Exception as error:  # noqa: BLE001 it is none of the message's
                    self._failed(asked, error)
            return True

        def handled(message: Message, seconds: float) -> None:
            for told in ending:
                try:
                    told(message, seconds)
                except Exception as error:  # noqa: BLE001 it is none of the message's
                    self._failed(told, error)

        return Brief(handled if ending else None, begins if beginning else None)

    def watch(self, place: Place, other: Watch) -> Watch:
        """Tells what happened to `other` and to all that are interested."""
        interested = self._happened
        if not interested:
            return other

        def tell(happened: Happened) -> None:
            if other is not None:
                other(happened)
            self._each(interested, place, happened)

        return tell

    async def send(
        self,
        place: Place,
        messages: Sequence[Message],
        publish: Callable[[Sequence[Message]], Awaitable[Sequence[Exception | None]]],
        *,
        forwarded: bool = False,
    ) -> Sequence[Exception | None]:
        """Publish them with headers of the instruments' own; one answer each."""
        parts: list[Sending] = []
        for sending in self._sending:
            try:
                part = sending(place, messages, forwarded)
                if part is not None:
                    messages = part.messages
                    parts.append(part)
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(sending, error)
        try:
            answers = await publish(messages)
        except BaseException as error:
            cut = error if isinstance(error, Exception) else InterruptedError(type(error).__name__)
            self._each([part.ended for part in reversed(parts)], [cut] * len(messages))
            raise
        self._each([part.ended for part in reversed(parts)], answers)
        return answers

    def created(self, place: Place, message: Message) -> Message:
        for created in self._created:
            try:
                message = created(place, message) or message
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(created, error)
        return message

    def received(self, place: Place, deliveries: Sequence[Delivery]) -> None:
        self._each(self._received, place, deliveries)

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Sequence[Handling]:
        """To be ended by `ended`."""
        parts: list[Handling] = []
        for handling in self._handling:
            try:
                part = handling(place, attempts)
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(handling, error)
            else:
                if part is not None:
                    parts.append(part)
        return parts

    def ended(self, parts: Sequence[Handling], endings: Sequence[Happened | None]) -> None:
        """The last one that began ends first."""
        for part in reversed(parts):
            try:
                part.ended(endings)
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(part, error)

    def settled(self, place: Place, arrived: Delivery, how: Settlement, error: Exception | None = None) -> None:
        self._each(self._settled, place, arrived, how, error)

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        self._each(self._replied, place, reply, seconds)

    def started(self, consumers: Consumers) -> None:
        self._each(self._started, consumers)

    def stopped(self, consumers: Consumers) -> None:
        self._each(self._stopped, consumers)

    @contextmanager
    def relaying(self, place: Place, outbox: Outbox) -> Iterator[None]:
        """Meanwhile a relay of this outbox runs."""
        self._each(self._relaying, place, outbox)
        try:
            yield
        finally:
            self._each(self._relayed, place, outbox)

    @property
    def tells(self) -> bool:
        """Is there one that tells something over HTTP?"""
        return bool(self._pages)

    async def page(self) -> Page | None:
        """Of the first that tells something over HTTP."""
        for page in self._pages:
            try:
                found = await page()
            except Exception as error:  # noqa: BLE001 whoever asks gets no answer, and the services go on
                self._failed(page, error)
            else:
                if found is not None:
                    return found
        return None

    def _each(self, methods: Sequence[Callable[[Unpack[Arguments]], None]], *arguments: *Arguments) -> None:
        for method in methods:
            try:
                method(*arguments)
            except Exception as error:  # noqa: BLE001 it is none of the message's
                self._failed(method, error)

    def _failed(self, who: object, error: Exception) -> None:
        now = time.monotonic()
        if now > self._said + _SAY_AGAIN:
            self._said = now
            log.warning("an instrument failed, and the messages go on without it: %r", who, exc_info=error)


def _overriding(instruments: Sequence[Instrument], method: str) -> Sequence[Instrument]:
    return [one for one in instruments if _overrides(one, method)]


def _overrides(instrument: Instrument, method: str) -> bool:
    return getattr(type(instrument), method) is not getattr(Instrument, method)
