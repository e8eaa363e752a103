"""Every error of eventkit, in one tree.

```text
EventkitError
├── DeclarationError         a class, handler or service is declared wrongly (raised at import or start)
├── SettingsError            an EVENTKIT_ variable or an argument of connect() is wrong
│   └── AdapterNotFound      no adapter of that name, or its extra is not installed
├── CapabilityNotSupported   asked for what this broker cannot do (raised at start)
├── BrokerUnavailable        could not connect in time, or was refused
├── NotProvisioned           a topic, inbox or group is missing on the broker and may not be created
├── GroupInUse               a group that is to be removed is still read by somebody
├── Closed                   used before it was started or after it was closed
├── InvalidMessage           a message or header that must not go on the wire
├── PublishError             the broker did not confirm; `failures` says which message and why
│   ├── MessageTooLarge      larger than the broker takes (an InvalidMessage too)
│   ├── NoOwner              a command whose service has no inbox on this broker
│   └── NotReplicated        the broker has it, but too few of its replicas: a failover may lose it
├── UndecodableMessage       a received message that cannot become its class
├── ProcessDied              a received message that killed its process again and again
├── UnknownMessage           a received command of a type that nobody here handles
├── LostMessage              the broker no longer has what is in hand, so that it cannot be given back
├── DeadLetterError          dead letters that could not be read, retried or discarded; `failures` says which
│   ├── NoDeadLetter         there is none of that id
│   └── RetriedTooOften      it has come back again and again: to retry it once more needs force
└── RequestError             a request that brought no reply
    ├── RequestTimeout       no reply in time; no proof that it did not happen
    ├── CommandRejected      the service refused it: a finished outcome
    └── CommandFailed        its handler failed for good
```

Three exceptions are not errors but outcomes that a handler raises:

```text
Reject      this command is refused for a business reason
GiveUp      do not try this message again: dead letter now
RetryLater  try this message again after a delay that the handler names
```

and a fourth says which messages of a batch failed: PartialFailure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventkit.messages import Command, Event


class EventkitError(Exception):
    """The root: `except EventkitError` catches all that eventkit raises by itself."""


class DeclarationError(EventkitError, TypeError):
    """A message class, handler or service is declared wrongly. Names it and the mend."""


class SettingsError(EventkitError, ValueError):
    """A setting is wrong. Names the variable, what is wrong with it and what would be right."""


class AdapterNotFound(SettingsError):
    """No adapter of that name is installed, or the client library of its extra is missing."""


class CapabilityNotSupported(EventkitError):
    """The chosen broker cannot do what a service asks for. Raised at start, before anything is consumed."""


class BrokerUnavailable(EventkitError, ConnectionError):
    """The broker was not reachable in time, or refused the connection. The client's own error is the cause."""


class NotProvisioned(EventkitError):
    """Something that must exist on the broker is missing, and `provision` forbids to create it."""


class GroupInUse(EventkitError):
    """A group that is to be removed is still read by somebody. Nothing of it was removed."""

    def __init__(self, name: str, consumers: int) -> None:
        many = "1 consumer reads" if consumers == 1 else f"{consumers:,} consumers read"
        super().__init__(f"{many} the group {name}: stop its service first, in all replicas")
        self.consumers = consumers


class Closed(EventkitError):
    """A bus, service or adapter was used before its start or after its end."""


class InvalidMessage(EventkitError, ValueError):
    """A message, value or header that must not go on the wire."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One message that the broker did not confirm."""

    index: int
    """Its place in what was handed to `publish_many`, from 0. Always 0 for a single publish."""
    message: Event | Command | None
    """The event or command; None where only encoded messages were handed over."""
    error: Exception
    """Why: the client's own error, or one of eventkit's."""
    unknown: bool
    """True: it may or may not have reached the broker. Publish it again with the same id."""


class PublishError(EventkitError):
    """The broker did not confirm every message. Those that are not in `failures` were confirmed."""

    def __init__(self, text: str, failures: Sequence[Failure] = ()) -> None:
        super().__init__(text)
        self.failures = tuple(failures)


class MessageTooLarge(PublishError, InvalidMessage):
    """A message is larger than the broker takes. Nothing of it was sent."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes on the wire, the broker takes {limit:,}: "
            "send a reference to the data instead, or raise the broker's limit"
        )
        self.size = size
        self.limit = limit


class NoOwner(PublishError):
    """A command was sent to a service that has no inbox on this broker."""


class NotReplicated(PublishError):
    """The broker has the message, but fewer of its replicas than were asked for: a failover may lose it."""


class UndecodableMessage(EventkitError, ValueError):
    """A received message cannot become its class: no JSON, or JSON that does not fit."""


class ProcessDied(EventkitError):
    """A message killed its process again and again: the error of a dead letter with the reason `quarantined`."""


class UnknownMessage(EventkitError):
    """A received command is of a type, or of a newer version, that this service does not handle."""


class LostMessage(EventkitError):
    """The broker has lost a message that is in hand, so that it cannot be given back. Adapters say so to the core."""


@dataclass(frozen=True, slots=True)
class LetterFailure:
    """One dead letter that could not be retried or discarded: it is still there."""

    id: str
    error: Exception
    """Why: the client's own error, or one of eventkit's."""


class DeadLetterError(EventkitError):
    """Dead letters could not be read, retried or discarded. Those that are not in `failures` were."""

    def __init__(self, text: str, *, done: int = 0, failures: Sequence[LetterFailure] = ()) -> None:
        super().__init__(text)
        self.done = done
        """How many were retried or discarded all the same."""
        self.failures = tuple(failures)


class NoDeadLetter(DeadLetterError):
    """The group has no dead letter of that id."""


class RetriedTooOften(DeadLetterError):
    """A dead letter was retried several times and came back each time: once more needs `force`."""


class RequestError(EventkitError):
    """A request brought no reply."""


class RequestTimeout(RequestError, TimeoutError):
    """No reply came in time. That is no proof that the command was not carried out."""

    def __init__(self, what: str, timeout: timedelta, *, sent: bool = True) -> None:
        """`sent`: False where it had not even been handed to the broker."""
        super().__init__(
            f"no reply to {what} within {timeout.total_seconds():g} s; "
            + (
                "it may still be carried out: make the command safe to repeat before sending it again"
                if sent
                else "it was not sent: the broker gave no address for the reply in that time"
            )
        )
        self.timeout = timeout
        self.sent = sent


class CommandRejected(RequestError):
    """The service refused the command for a business reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CommandFailed(RequestError):
    """The command's handler failed for good in the other service."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        """The name of the exception's class there."""
        self.message = message


class Reject(Exception):
    """Raised by a command's handler: refused for a business reason.

    A finished outcome: no retry, no dead letter. The given messages go out, and a requester gets `CommandRejected`.
    """

    def __init__(self, reason: str, *messages: Event | Command) -> None:
        super().__init__(reason)
        self.reason = reason
        self.messages = messages


class GiveUp(Exception):
    """Raised by a handler: trying again is of no use. The message becomes a dead letter now, reason `gave-up`."""


class RetryLater(Exception):
    """Raised by a handler: this attempt failed, and the next one is to wait so long, whatever its `Retry` says.

    For a delay that somebody else names, such as an HTTP 429 with Retry-After:
    `raise RetryLater(timedelta(seconds=30), "slow down") from error`. It is a failure like any other and uses up an
    attempt; past the last one the message is a dead letter. Longer than 24 hours is 24 hours. With
    `Retry(in_order=True)` it is no longer than an even share of the 60 s that a message may wait in all.
    """

    def __init__(self, delay: timedelta, reason: str = "") -> None:
        if not isinstance(delay, timedelta) or delay < timedelta(0):
            raise TypeError(f"RetryLater({delay!r}): how long to wait, as a timedelta of zero or more")
        super().__init__(reason or f"to be tried again in {delay.total_seconds():g} s")
        self.delay = delay


class PartialFailure(Exception):
    """Raised by a handler of a batch: these messages failed, by their index in the list; the others are done.

    `raise PartialFailure({3: error})`. Each error is what a handler of one message would have raised for it: that one
    is tried again by the handler's `Retry`, given up on (`GiveUp`) or refused (`Reject`). A handler that returns
    something for each message gives that list as `results`: what stands there for those that failed is passed over.
    """

    def __init__(self, errors: Mapping[int, BaseException], results: Sequence[object] | None = None) -> None:
        if not errors or not all(isinstance(error, BaseException) for error in errors.values()):
            raise TypeError("PartialFailure takes the errors by the index of their message: PartialFailure({0: error})")
        super().__init__(f"{len(errors)} failed: {', '.join(f'{at}: {error!r}' for at, error in errors.items())}")
        self.errors = dict(errors)
        self.results = results
