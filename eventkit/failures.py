"""Failures: what becomes of a message whose attempt has failed. Another attempt, an answer, or a dead letter."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime, timedelta
from typing import NamedTuple

from eventkit import copies
from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Delivery, Group, Move, Settlement
from eventkit.breaker import Breakers
from eventkit.clock import Clock
from eventkit.copies import Reason
from eventkit.errors import CommandFailed, GiveUp, InvalidMessage, ProcessDied, Reject, UndecodableMessage
from eventkit.gathering import Item
from eventkit.handling import Entry, Table
from eventkit.outgoing import Emitter, Unsendable
from eventkit.telling import Telling

log = logging.getLogger("eventkit")


class Wait(NamedTuple):
    """No settlement yet: decide again after so many seconds, with the key's later messages waiting behind."""

    seconds: float
    attempt: int | None = None
    """Which one it is then; None: the one it was."""


class Failures:
    """Decides for one group. It settles nothing itself."""

    def __init__(
        self, group: Group, table: Table, emitter: Emitter, clock: Clock, telling: Telling, breakers: Breakers
    ) -> None:
        self._group = group
        self._table = table
        self._emitter = emitter
        self._clock = clock
        self._telling = telling
        self._breakers = breakers
        self._said_overtaking = False

    async def failed(self, item: Item, error: BaseException) -> Settlement | Wait:
        """An attempt has ended with this error."""
        entry, arrived, delivery, content, attempt, deadline = item
        if isinstance(error, Unsendable):
            self._breakers.succeeded(entry)
            return await self.given_up(entry, delivery, Reason.UNSENDABLE, error.why, attempt)
        if isinstance(error, Reject):
            self._breakers.succeeded(entry)
            return await self._rejected(entry, delivery, error, attempt)
        if entry.circuit is not None and (seconds := self._held(entry, arrived, error)) is not None:
            self._telling.held(entry, delivery, content, attempt, error)
            if h.SUSPECT in delivery.message.headers:  # it has no lane to wait in
                return Move(copies.wait(delivery, self._group, due=self._clock.now() + timedelta(seconds=seconds)))
            return RELEASE if self._breakers.stopping else Wait(seconds, attempt)
        waits = self._again(entry, delivery, attempt, error, deadline)
        if waits is None:
            gave_up = isinstance(error, (GiveUp, *entry.retry.never))
            reason = Reason.GAVE_UP if gave_up else Reason.EXHAUSTED
            return await self.given_up(entry, delivery, reason, error, attempt)
        self._telling.retried(entry, delivery, content, attempt, error, waits)
        if entry.retry.in_order and h.SUSPECT not in delivery.message.headers:
            return Wait(waits.total_seconds(), attempt + 1)
        now = self._clock.now()
        due = now + waits if waits else None
        return Move(copies.retry(delivery, self._group, attempt=attempt + 1, due=due, failed_at=now))

    async def quarantined(self, arrived: Delivery, why: str) -> Settlement:
        """Its process died again and again, and it alone ran there."""
        delivery = arrived
        with contextlib.suppress(UndecodableMessage):
            delivery = arrived._replace(message=copies.back(arrived))
        entry = self._table.find(delivery.message)
        attempt = copies.attempt(delivery.message)
        if entry is None:
            return self.dead(None, delivery, Reason.QUARANTINED, ProcessDied(why), attempt)
        return await self.given_up(entry, delivery, Reason.QUARANTINED, ProcessDied(why), attempt)

    async def given_up(
        self, entry: Entry, delivery: Delivery, reason: Reason, error: BaseException, attempt: int
    ) -> Settlement:
        """A dead letter; a requester is told instead."""
        if h.REPLY_TO in delivery.message.headers and entry.commands:
            described = copies.describe(error)
            failed = CommandFailed(type(error).__name__, described[h.ERROR_MESSAGE])
            await self._emitter.failed(entry, delivery, failed)
            self._telling.failed(entry, delivery, error, attempt)
            return DONE
        return self.dead(entry, delivery, reason, error, attempt)

    def dead(
        self, entry: Entry | None, delivery: Delivery, reason: Reason, error: BaseException, attempt: int
    ) -> Settlement:
        """A dead letter, whoever asked. `entry`: None where no handler is known."""
        letter = copies.dead(
            delivery, self._group, reason=reason, error=error, attempt=attempt, failed_at=self._clock.now()
        )
        self._telling.dead(entry, delivery, letter, reason, error, attempt)
        return Move(letter)

    async def _rejected(self, entry: Entry, delivery: Delivery, rejection: Reject, attempt: int) -> Settlement:
        if not entry.commands:
            error = InvalidMessage(f"{entry.name} raised Reject for an event: only commands can be refused")
            return await self.given_up(entry, delivery, Reason.GAVE_UP, error, attempt)
        try:
            await self._emitter.rejected(entry, delivery, rejection)
        except Unsendable as error:
            return await self.given_up(entry, delivery, Reason.UNSENDABLE, error.why, attempt)
        self._telling.rejected(entry, delivery, rejection, attempt)
        return DONE

    def _again(
        self, entry: Entry, delivery: Delivery, attempt: int, failure: BaseException, deadline: datetime | None
    ) -> timedelta | None:
        """How long until the next attempt; None: there is none."""
        if not entry.retry.allows(attempt, failure):
            return None
        waits = entry.retry.delay(attempt, failure)
        if delivery.message.key is not None and not entry.retry.in_order and not self._said_overtaking:
            self._said_overtaking = True
            log.info(
                "%s: a message that waits for its retry may be overtaken by later ones of its key; "
                "Retry(in_order=True) keeps them behind it",
                self._group.name,
            )
        if deadline is not None and self._clock.now() + waits >= deadline:
            return None
        return waits

    def _held(self, entry: Entry, arrived: Delivery, error: BaseException) -> float | None:
        """The circuit hears of a failure: the seconds to wait if that counts as none."""
        breaker = self._breakers.of(entry)
        if isinstance(error, (GiveUp, *entry.retry.never)):
            breaker.succeeded()
            return None
        return breaker.failed(arrived, arrived.message.headers.get(h.ID, arrived.position))
