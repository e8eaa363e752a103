"""Attributes: what the conventions call what eventkit knows (pure).

The names are those of the semantic conventions 1.44 for messaging, written out here: the package that lists them moves
them about while they are in development.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.instruments import Place

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
TEMPLATE = "messaging.destination.template"
TEMPORARY = "messaging.destination.temporary"
GROUP = "messaging.consumer.group.name"
MESSAGE_ID = "messaging.message.id"
CONVERSATION = "messaging.message.conversation_id"
COUNT = "messaging.batch.message_count"
ERROR = "error.type"
TYPE = "cloudevents.event_type"
SOURCE = "cloudevents.event_source"
HANDLER = "eventkit.handler"
ATTEMPT = "eventkit.attempt"
OUTCOME = "eventkit.outcome"
SERVICE = "eventkit.service"
STATE = "eventkit.state"

_SYSTEMS = {"rabbit": "rabbitmq"}

Attributes = dict[str, str | int | bool]


def system(place: Place) -> str:
    """The broker, as the conventions call it."""
    return _SYSTEMS.get(place.broker, place.broker)


def destination(address: Address) -> str:
    """Of few values: a reply address is one for each bus, and all of them are called the same."""
    if address.kind == "reply":
        return "reply"
    return f"{address.name}.{address.kind}" if address.kind in ("retry", "dead") else address.physical or address.name


def common(place: Place, address: Address | None, operation: str, kind: str) -> Attributes:
    """Of spans and metrics; `address` None: of several."""
    found: Attributes = {SYSTEM: system(place), OPERATION: operation, OPERATION_TYPE: kind}
    if address is not None:
        found[TEMPLATE if address.kind == "reply" else DESTINATION] = destination(address)
    if place.group is not None and kind in ("process", "settle"):
        found[GROUP] = place.group
    return found


def of_message(message: Message) -> Attributes:
    """Of a span that is about one message."""
    headers = message.headers
    named = ((MESSAGE_ID, h.ID), (CONVERSATION, h.CORRELATION), (SOURCE, h.SOURCE))
    found: Attributes = {attribute: headers[name] for attribute, name in named if name in headers}
    if message.type:
        found[TYPE] = message.type
    if message.address.kind == "reply":
        found[TEMPORARY] = True
    return found


def verb(address: Address) -> str:
    """How that is called which makes a message go there."""
    return "publish" if address.kind == "topic" else "send"


def only(messages: Sequence[Message]) -> Address | None:
    """Where all of these go; None: to several addresses."""
    first = messages[0].address
    return first if all(message.address == first for message in messages) else None


def error_type(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def with_trace(message: Message, trace: Mapping[str, str]) -> Message:
    """The same with these trace headers, and no other."""
    headers = {**message.headers, **trace}
    if h.TRACESTATE not in trace:
        headers.pop(h.TRACESTATE, None)
    return Message(message.address, message.type, message.key, headers, message.body, message.due)
