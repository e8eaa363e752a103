"""Telling: what became of the deliveries of a group, counted, logged, and told to whoever watches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from eventkit import headers as h
from eventkit import log_fields, raised
from eventkit.adapter import Delivery, Message
from eventkit.copies import Reason, brief
from eventkit.errors import Reject
from eventkit.handling import Entry
from eventkit.instruments import Attempt, Brief, Handling, Instruments, Place
from eventkit.redacting import Redactor
from eventkit.watching import Happened, Watch, What

log = logging.getLogger("eventkit")


@dataclass(slots=True)
class Counts:
    """What became of the deliveries of a group, since its start."""

    handled: int = 0
    rejected: int = 0
    retried: int = 0
    dead: int = 0
    skipped: int = 0
    """Of types that no handler here takes."""
    expired: int = 0
    """Requests that nobody waited for any more."""
    repeated: int = 0
    """Of handlers with `once=`: handled before, and dropped."""


class Telling:
    """Of one group."""

    def __init__(self, place: Place, watch: Watch, instruments: Instruments | None, redactor: Redactor) -> None:
        self.counts = Counts()
        self.place = place
        self.instruments = instruments
        self.each = False
        """Is each handled message logged?"""
        self.named = False
        """Does anything show which message a record of a handler is about?"""
        self._payloads = False
        self._redactor = redactor
        self.attended = self._watched = watch is not None
        """Is each message told of, in the log or to somebody besides instruments?"""
        self._watch = watch if instruments is None else instruments.watch(place, watch)
        self._endings: dict[int, Happened | None] = {}
        """Of what is being handled, by the identity of its delivery: kept only for instruments."""

    def look(self) -> None:
        """What is wanted of the log may change while it runs."""
        self.each = log.isEnabledFor(logging.INFO)
        self.attended = self._watched or self.each
        self._payloads = log.isEnabledFor(logging.DEBUG)
        self.named = log_fields.asked()

    # around a handling

    def enter(self, delivery: Delivery, attempt: int) -> None:
        """Its handler is about to be called, in this context."""
        if self.named:
            place = self.place
            log_fields.enter(
                place.service, place.group, self._redactor.key(delivery.message), delivery.message, attempt
            )
        if self._payloads:
            self._log_payload(delivery, attempt)

    def enter_batch(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        if self.named:
            log_fields.enter_batch(self.place.service, self.place.group, len(deliveries))
        if self._payloads:
            for delivery, attempt in deliveries:
                self._log_payload(delivery, attempt)

    def _log_payload(self, delivery: Delivery, attempt: int) -> None:
        body = self._redactor.shown(delivery.message).body
        log.debug(
            "%s: handles %s: %s",
            self.place.group,
            self.about(delivery.message),
            "no body" if body is None else body.decode(errors="backslashreplace"),
            extra=self._fields(delivery, attempt),
        )

    # what instruments are told around it

    def briefs(self, entries: Mapping[str, Entry]) -> Mapping[Entry, Brief | None] | None:
        """How each entry's messages are told of in brief; None for an entry: not at all so. None: to nobody."""
        instruments = self.instruments
        if instruments is None or not instruments.hear_of_handling:
            return None
        return {
            entry: instruments.brief(self.place, entry.address, type_, entry.name) for type_, entry in entries.items()
        }

    def begin(self, attempts: Sequence[Attempt]) -> Sequence[Handling]:
        """To be ended by `end`."""
        assert self.instruments is not None
        for attempt in attempts:
            self._endings[id(attempt.delivery)] = None
        return self.instruments.handling(self.place, attempts)

    def end(self, handling: Sequence[Handling], attempts: Sequence[Attempt]) -> None:
        assert self.instruments is not None
        self.instruments.ended(handling, [self._endings.pop(id(attempt.delivery), None) for attempt in attempts])

    # outcomes

    def handled(self, entry: Entry, delivery: Delivery, content: object, attempt: int) -> None:
        self.counts.handled += 1
        self._happened(What.HANDLED, entry, delivery, content, attempt)

    def repeated(self, entry: Entry, delivery: Delivery, content: object, attempt: int) -> None:
        self.counts.repeated += 1
        log.info(
            "%s: %s was handled before, and is dropped",
            self.place.group,
            self.about(delivery.message),
            extra=self._fields(delivery, attempt),
        )
        self._happened(What.REPEATED, entry, delivery, content, attempt)

    def held(self, entry: Entry, delivery: Delivery, content: object, attempt: int, error: BaseException) -> None:
        """It waits for its circuit."""
        self._happened(What.HELD, entry, delivery, content, attempt, error)

    def retried(
        self, entry: Entry, delivery: Delivery, content: object, attempt: int, error: BaseException, waits: timedelta
    ) -> None:
        self.counts.retried += 1
        log.warning(
            "%s: %s failed on attempt %d of %d, next in %.3g s: %s",
            self.place.group,
            self.about(delivery.message),
            attempt,
            entry.retry.attempts,
            waits.total_seconds(),
            self._brief(error, delivery),
            extra=self._fields(delivery, attempt),
        )
        self._happened(What.RETRIED, entry, delivery, content, attempt, error, waits)

    def rejected(self, entry: Entry, delivery: Delivery, rejection: Reject, attempt: int) -> None:
        self.counts.rejected += 1
        log.info(
            "%s: rejected %s: %s",
            self.place.group,
            self.about(delivery.message),
            self._redactor.text(rejection.reason, delivery.message),
            extra=self._fields(delivery, attempt),
        )
        self._happened(What.REJECTED, entry, delivery, None, attempt, rejection)

    def failed(self, entry: Entry, delivery: Delivery, error: BaseException, attempt: int) -> None:
        """For good, and its requester was told."""
        log.error(
            "%s: %s failed for good on attempt %d and its requester was told: %s",
            self.place.group,
            self.about(delivery.message),
            attempt,
            self._brief(error, delivery),
            extra=self._fields(delivery, attempt),
        )
        self._happened(What.FAILED, entry, delivery, None, attempt, error)

    def dead(
        self,
        entry: Entry | None,
        delivery: Delivery,
        letter: Message,
        reason: Reason,
        error: BaseException,
        attempt: int,
    ) -> None:
        self.counts.dead += 1
        log.error(
            "%s: %s is a dead letter (%s) after attempt %d: %s",
            self.place.group,
            self.about(delivery.message),
            reason.value,
            attempt,
            self._brief(error, delivery),
            extra=self._fields(delivery, attempt),
        )
        if self.counts.dead == 1 and self.place.broker != "memory":  # whose letters only this process can see
            log.info(
                "%s: what it gives up on waits for a person: eventkit dead-letters list --group %s",
                self.place.group,
                self.place.group,
                extra=self._fields(delivery, attempt),
            )
        self._happened(What.DEAD, entry, delivery, None, attempt, error, message=letter)

    def skipped(self, delivery: Delivery) -> None:
        self.counts.skipped += 1
        self._happened(What.SKIPPED, None, delivery, None, 1)

    def expired(self, delivery: Delivery, attempt: int) -> None:
        self.counts.expired += 1
        log.info(
            "%s: %s expired before it was started; nobody waits for it",
            self.place.group,
            self.about(delivery.message),
            extra=self._fields(delivery, attempt),
        )

    def unknown(self, delivery: Delivery, version: str, attempt: int) -> None:
        """It waits for another replica."""
        log.warning(
            "%s: no handler here takes %s, version %s; it waits on the broker for a replica that does, an hour at most",
            *(self.place.group, self.about(delivery.message), version),
            extra=self._fields(delivery, attempt),
        )

    # how long it took

    def took(self, delivery: Delivery, attempt: int, seconds: float) -> None:
        log.info(
            "%s: handled %s%s in %.1f ms",
            self.place.group,
            self.about(delivery.message),
            f" on attempt {attempt}" if attempt > 1 else "",
            seconds * 1_000,
            extra={**self._fields(delivery, attempt), "duration_ms": round(seconds * 1_000, 3)},
        )

    def batch_took(self, entry: Entry, count: int, failed: int, seconds: float) -> None:
        log.info(
            "%s: %s handled a batch of %d%s in %.1f ms",
            self.place.group,
            entry.name,
            count,
            f", {failed} of them failed," if failed else "",
            seconds * 1_000,
            extra={
                "service": self.place.service,
                "group": self.place.group,
                "batch": count,
                "failed": failed,
                "duration_ms": round(seconds * 1_000, 3),
            },
        )

    def about(self, message: Message) -> str:
        """A message in a line of a log: its type, key and id."""
        key = self._redactor.key(message)
        said = f" key={key}" if key is not None else ""
        return f"{message.type or 'a message without type'}{said} ({message.headers.get(h.ID, 'no id')})"

    def _brief(self, error: BaseException, delivery: Delivery) -> str:
        """An exception in a line of the log, with the line of the program's own code that it came of."""
        said, where = self._redactor.text(brief(error), delivery.message), raised.place(error)
        return f"{said} (at {where})" if where else said

    def _fields(self, delivery: Delivery, attempt: int) -> dict[str, object]:
        message = delivery.message
        return log_fields.of(self.place.service, self.place.group, self._redactor.key(message), message, attempt)

    def _happened(
        self,
        what: What,
        entry: Entry | None,
        delivery: Delivery,
        content: object,
        attempt: int,
        error: BaseException | None = None,
        delay: timedelta | None = None,
        *,
        message: Message | None = None,
    ) -> None:
        """`message`: what it became; None: it is the same."""
        if self._watch is None and not self._endings:
            return
        said = delivery.message if message is None else message
        name = None if entry is None else entry.name
        happened = Happened(what, self.place.group or "", said, content, attempt, error, delay, name)
        if id(delivery) in self._endings:
            self._endings[id(delivery)] = happened
        if self._watch is not None:
            self._watch(happened)
