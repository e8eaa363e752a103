"""Context: what a handler may know about its message, and what it may send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from eventkit import headers as h
from eventkit.adapter import Delivery
from eventkit.clock import check_delay
from eventkit.errors import DeclarationError
from eventkit.messages import Command, Event


class Outgoing(NamedTuple):
    """A message that goes out if the handler succeeds."""

    message: Event | Command[Any]
    headers: Mapping[str, str]
    delay: timedelta | None


@dataclass(slots=True)
class Context:
    """One attempt at one message. A handler that wants it takes a parameter annotated `Context`."""

    service: str
    group: str
    delivery: Delivery
    attempt: int
    """How often this handler has been tried with this message, this time included: from 1."""
    outgoing: list[Outgoing]
    deadline: datetime | None = None
    """When the requester stops waiting (UTC). None: nobody waits."""

    @property
    def id(self) -> str:
        """The message's id: the same on every attempt and for every group."""
        return self.delivery.message.headers.get(h.ID) or self.delivery.position

    @property
    def type(self) -> str:
        """Its wire name."""
        return self.delivery.message.type

    @property
    def key(self) -> str | None:
        return self.delivery.message.key

    @property
    def source(self) -> str:
        """Who published it; empty on a foreign message that does not say."""
        return self.delivery.message.headers.get(h.SOURCE, "")

    @property
    def correlation_id(self) -> str:
        """The same for all messages that came of one first message."""
        headers = self.delivery.message.headers
        return headers.get(h.CORRELATION) or headers.get(h.CORRELATION_ID) or self.id

    @property
    def causation_id(self) -> str | None:
        """The id of the message whose handler published this one. None: no handler did."""
        return self.delivery.message.headers.get(h.CAUSATION)

    @property
    def headers(self) -> dict[str, str]:
        """The publisher's own headers: a copy, so that a change shows nowhere else."""
        return h.user(self.delivery.message.headers)

    def publish(
        self, event: Event, *, headers: Mapping[str, str] | None = None, delay: timedelta | None = None
    ) -> None:
        """Publish after the handler has succeeded; if it fails, not at all. May be called from any thread."""
        if not isinstance(event, Event):
            raise DeclarationError(f"publish() takes an Event, not {type(event).__name__}: send() takes commands")
        check_delay(delay)
        self.outgoing.append(Outgoing(event, h.check(headers), delay))

    def send(
        self, command: Command[Any], *, headers: Mapping[str, str] | None = None, delay: timedelta | None = None
    ) -> None:
        """Send after the handler has succeeded; if it fails, not at all. May be called from any thread."""
        if not isinstance(command, Command):
            raise DeclarationError(f"send() takes a Command, not {type(command).__name__}: events are published")
        check_delay(delay)
        self.outgoing.append(Outgoing(command, h.check(headers), delay))
