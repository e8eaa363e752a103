"""Every error of eventkit, in one tree.

    EventkitError
    ├── DeclarationError         a class, handler or service is declared wrongly (raised at import or start)
    ├── SettingsError            an EVENTKIT_ variable or an argument of connect() is wrong
    │   └── AdapterNotFound      no adapter of that name, or its extra is not installed
    ├── CapabilityNotSupported   asked for what this broker cannot do (raised at start)
    ├── BrokerUnavailable        could not connect in time, or was refused
    ├── NotProvisioned           a topic, inbox or group is missing on the broker and may not be created
    ├── Closed                   used before it was started or after it was closed
    ├── InvalidMessage           a message or header that must not go on the wire
    ├── PublishError             the broker did not confirm; `failures` says which message and why
    │   ├── MessageTooLarge      larger than the broker takes (an InvalidMessage too)
    │   └── NoOwner              a command whose service has no inbox on this broker
    ├── UndecodableMessage       a received message that cannot become its class
    ├── UnknownMessage           a received command of a type that nobody here handles
    └── RequestError             a request that brought no reply
        ├── RequestTimeout       no reply in time; no proof that it did not happen
        ├── CommandRejected      the service refused it: a finished outcome
        └── CommandFailed        its handler failed for good

Two exceptions are not errors but outcomes that a handler raises:

    Reject    this command is refused for a business reason
    GiveUp    do not try this message again: dead letter now
"""

from __future__ import annotations

from collections.abc import Sequence
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


class UndecodableMessage(EventkitError, ValueError):
    """A received message cannot become its class: no JSON, or JSON that does not fit."""


class UnknownMessage(EventkitError):
    """A received command is of a type, or of a newer version, that this service does not handle."""


class RequestError(EventkitError):
    """A request brought no reply."""


class RequestTimeout(RequestError, TimeoutError):
    """No reply came in time. That is no proof that the command was not carried out."""

    def __init__(self, what: str, timeout: timedelta) -> None:
        super().__init__(
            f"no reply to {what} within {timeout.total_seconds():g} s; "
            "it may still be carried out: make the command safe to repeat before sending it again"
        )
        self.timeout = timeout


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
