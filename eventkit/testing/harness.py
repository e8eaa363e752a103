"""The harness: what a test does with its services, and a record of all that happened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.bus import Bus
from eventkit.copies import Reason, origin
from eventkit.messages import Command, Event, routing
from eventkit.watching import Happened, What
from eventkit.wire import decode

M = TypeVar("M", bound=Event | Command[Any])
R = TypeVar("R")

_SHOWN = {
    What.PUBLISHED: "published",
    What.SENT: "sent",
    What.HANDLED: "handled",
    What.REJECTED: "rejected",
    What.RETRIED: "failed, to be retried",
    What.HELD: "failed, and waits for its circuit",
    What.FAILED: "failed for good",
    What.DEAD: "dead letter",
    What.SKIPPED: "skipped: no handler",
    What.REPEATED: "dropped: handled before",
}


class DeadLetter:
    """A message that was given up on."""

    def __init__(self, message: Message, error: BaseException | None, attempts: int) -> None:
        self.message = message
        self.error = error
        """What was raised last."""
        self.attempts = attempts
        self.reason = Reason(message.headers[h.REASON])
        self.group = message.headers[h.GROUP]
        self.type = message.type

    def read(self, cls: type[M]) -> M:
        """Its content; UndecodableMessage where it cannot become that class."""
        return decode(self.message, cls)

    def __repr__(self) -> str:
        return f"DeadLetter({self.type}, group={self.group!r}, reason={self.reason.value!r}, attempts={self.attempts})"


class Harness(ABC):
    """What a test does with its services, and asks about them."""

    def __init__(self, bus: Bus, happened: list[Happened]) -> None:
        self._bus = bus
        self._happened = happened

    async def publish(
        self,
        event: Event,
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """As `Bus.publish`. Twice with one `id` is a repeat, as after a crash: see `once=`."""
        await self._bus.publish(event, id=id, correlation_id=correlation_id, headers=headers, delay=delay)

    async def send(
        self,
        command: Command[Any],
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """As `Bus.send`."""
        await self._bus.send(command, id=id, correlation_id=correlation_id, headers=headers, delay=delay)

    @abstractmethod
    async def request(self, command: Command[R], *, timeout: timedelta = timedelta(seconds=30)) -> R:
        """As `Bus.request`."""

    @abstractmethod
    async def idle(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Until nothing is left to do: all handled, all retries through.

        Raises AssertionError after `timeout` of real time, saying what happened until then.
        """

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The time, which is virtual in memory."""

    def published(self, cls: type[M] | None = None) -> list[M]:
        """The events that were published, by the test and by handlers; of one class, or all."""
        return self._contents(What.PUBLISHED, cls)

    def sent(self, cls: type[M] | None = None) -> list[M]:
        """The commands that were sent."""
        return self._contents(What.SENT, cls)

    def handled(self, cls: type[M] | None = None, *, group: str | None = None) -> list[M]:
        """The messages that a handler finished with success, once a group."""
        return self._contents(What.HANDLED, cls, group)

    def retried(self, cls: type[M] | None = None) -> list[M]:
        """The messages whose attempt failed and was to be repeated, once an attempt."""
        return self._contents(What.RETRIED, cls)

    def rejected(self, cls: type[Command[Any]] | None = None) -> list[str]:
        """The reasons of rejections."""
        wanted = None if cls is None else routing(cls).type
        return [
            str(item.error)
            for item in self._happened
            if item.what is What.REJECTED and wanted in (None, item.message.type)
        ]

    def dead_letters(self, cls: type[Event | Command[Any]] | None = None) -> list[DeadLetter]:
        """The messages that were given up on."""
        wanted = None if cls is None else routing(cls).type
        return [
            DeadLetter(item.message, item.error, item.attempt)
            for item in self._happened
            if item.what is What.DEAD and wanted in (None, item.message.type)
        ]

    def emitted(self) -> list[dict[str, Any]]:
        """All that was published and sent, in order, as plain values: what a snapshot is made of.

        Each has `type`, `by` (who published it), `key` (where there is one) and `data`. Ids and times are no part of
        it: where the content holds such, keep them out of the snapshot, or fix them in the test.
        """
        found = []
        for item in self._happened:
            if item.what in (What.PUBLISHED, What.SENT) and isinstance(item.content, Event | Command):
                key = {} if item.message.key is None else {"key": item.message.key}
                data = item.content.model_dump(mode="json", by_alias=True)
                found.append({"type": item.message.type, "by": item.group, **key, "data": data})
        return found

    def assert_published(self, cls: type[Event], /, *, times: int | None = None, **fields: object) -> None:
        """At least one such event was published (or exactly so many `times`), with these values in its fields.

        Raises AssertionError, which tells all that happened.
        """
        self._assert("published", self.published(cls), cls, times, fields)

    def assert_sent(self, cls: type[Command[Any]], /, *, times: int | None = None, **fields: object) -> None:
        """At least one such command was sent (or exactly so many `times`), with these values in its fields."""
        self._assert("sent", self.sent(cls), cls, times, fields)

    def assert_handled(self, cls: type[Event | Command[Any]], /, *, times: int | None = None, **fields: object) -> None:
        """At least one such message was handled with success (or exactly so many `times`), once a group."""
        self._assert("handled", self.handled(cls), cls, times, fields)

    def _assert(
        self, what: str, found: Sequence[Any], cls: type[Any], times: int | None, fields: Mapping[str, object]
    ) -> None:
        for name in fields:
            if name not in cls.model_fields:
                raise TypeError(f"{cls.__name__} has no field {name!r}; it has {', '.join(cls.model_fields) or 'none'}")
        fitting = [one for one in found if all(getattr(one, name) == value for name, value in fields.items())]
        if len(fitting) == times or (times is None and fitting):
            return
        said = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        wanted = "at least once" if times is None else f"{times} times"
        raise AssertionError(
            f"{cls.__name__}({said}) was to be {what} {wanted}, and was {len(fitting)} times; "
            f"what happened, in order:\n{self.story()}"
        )

    def story(self) -> str:
        """All that happened, a line each, in order."""
        return "\n".join(_line(place, item) for place, item in enumerate(self._happened, 1)) or "  nothing"

    def _contents(self, what: What, cls: type[M] | None, group: str | None = None) -> list[M]:
        return [
            item.content  # type: ignore[misc]  # of cls, by the filter
            for item in self._happened
            if item.what is what
            and (isinstance(item.content, Event | Command) if cls is None else isinstance(item.content, cls))
            and group in (None, item.group)
        ]


def _line(place: int, item: Happened) -> str:
    what = _SHOWN[item.what]
    shown = item.content if item.content is not None else _content(item.message)
    parts = [f"  {place:>3}. {item.group}: {what}: {shown!r}"]
    if item.attempt > 1 or item.what in (What.RETRIED, What.DEAD):
        parts.append(f"attempt {item.attempt}")
    if item.error is not None:
        parts.append(f"{type(item.error).__name__}: {item.error}")
    if item.delay is not None:
        parts.append(f"next in {item.delay.total_seconds():.3g} s")
    return ", ".join(parts)


def _content(message: Message) -> str:
    """A message that was not decoded, short."""
    body = (message.body or b"")[:200].decode(errors="replace")
    return f"{message.type or 'no type'} on {origin(message)} {body}"
