"""A dead letter as data: what was given up on, with why, where, when and how often (pure)."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar

from eventkit import copies
from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Message
from eventkit.copies import Reason
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event, routing
from eventkit.wire import Serializer, decode, unwrap

M = TypeVar("M", bound=Event | Command[Any])
MessageClass: TypeAlias = type[Event | Command[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that a group has given up on. Its `repr` holds nothing of its content."""

    id: str
    """The message's own id, the same as when it was published."""
    type: str
    """Its wire name; empty on a foreign message that does not say."""
    key: str | None
    group: str
    """Who has given up on it."""
    reason: str
    """Why: one of `eventkit.Reason`; empty where another program has put it here and does not say."""
    attempts: int
    """How often it was tried."""
    first_failure: datetime | None
    """None: it does not say. The same for all that follow."""
    last_failure: datetime | None
    error_type: str | None
    """The last exception's class, with its module unless that is built in."""
    error_message: str | None = field(repr=False)
    """Its text; cut after 1,000 characters, and marked as cut."""
    error_stack: str | None = field(repr=False)
    """Its stack; of a long one the innermost 4,000 characters."""
    origin: Address
    """Where it was first published: a topic, or a service's inbox."""
    redriven: int
    """How often it was retried from here before."""
    headers: Mapping[str, str] = field(repr=False)
    """Those that its publisher set himself."""
    body: bytes | None = field(repr=False)
    """As it came. None: it had none (a tombstone)."""
    delivery: Delivery = field(repr=False, compare=False)
    """As the adapter gave it: what `Adapter.remove` takes."""
    serializer: Serializer = field(repr=False, compare=False)

    @property
    def message(self) -> Message:
        """The wire form, with all headers."""
        return self.delivery.message

    def read(self, cls: builtins.type[M], *, serializer: Serializer | None = None) -> M:
        """Its content; UndecodableMessage where it cannot become that class.

        `serializer`: of the service, where that has one of its own. None: the class's, or else the bus's.
        """
        return decode(unwrap(self.message), cls, serializer or self.serializer)


def read(delivery: Delivery, serializer: Serializer) -> DeadLetter:
    """What a delivery from a `dead` address says. Never fails: what is missing or nonsense is left out."""
    message = delivery.message
    get = message.headers.get
    return DeadLetter(
        id=get(h.ID) or copies.foreign_id(delivery),
        type=message.type,
        key=message.key,
        group=get(h.GROUP) or message.address.name,
        reason=get(h.REASON, ""),
        attempts=copies.attempt(message),
        first_failure=_time(get(h.FIRST_FAILURE)),
        last_failure=_time(get(h.LAST_FAILURE)),
        error_type=get(h.ERROR_TYPE),
        error_message=get(h.ERROR_MESSAGE),
        error_stack=get(h.ERROR_STACK),
        origin=copies.origin(message),
        redriven=copies.redriven(message),
        headers=h.user(message.headers),
        body=message.body,
        delivery=delivery,
        serializer=serializer,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant: all that is said must hold."""

    ids: frozenset[str]
    """Empty: any."""
    type: str | None
    reason: str | None
    since: datetime | None
    """Letters whose last failure is not older. One that does not say when it failed is not meant."""

    def takes(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id in self.ids)
            and (self.type is None or letter.type == self.type)
            and (self.reason is None or letter.reason == self.reason)
            and (self.since is None or (letter.last_failure is not None and letter.last_failure >= self.since))
        )


def wanted(
    ids: Iterable[str],
    type: MessageClass | str | None,
    reason: Reason | str | None,
    since: datetime | timedelta | None,
    now: datetime,
) -> Wanted:
    """What a person said, checked: DeclarationError names what is wrong with it."""
    try:
        why = None if reason is None else Reason(reason).value
    except ValueError:
        known = ", ".join(one.value for one in Reason)
        raise DeclarationError(f"reason={reason!r}: a dead letter's reason is one of {known}") from None
    if isinstance(since, datetime) and since.tzinfo is None:
        raise DeclarationError(f"since={since}: give it a time zone, such as datetime.now(UTC)")
    after = now - since if isinstance(since, timedelta) else since
    name = type if type is None or isinstance(type, str) else routing(type).type
    return Wanted(frozenset(ids), name, why, after)


def _time(said: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(said) if said else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
