"""The wire form: CloudEvents 1.0 in binary mode, bodies in JSON (pure)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import uuid_utils
from pydantic import BaseModel, ValidationError

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.errors import InvalidMessage, UndecodableMessage
from eventkit.faithful import Faith
from eventkit.messages import Command, Event, Routing, routing

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
_STRUCTURED = "application/cloudevents"
_JSON_TYPES = (JSON, "text/json", "")
_OF_ENVELOPES = ("specversion", "id", "source", "type")
_TRACE = (h.TRACEPARENT, h.TRACESTATE)
_LONG_NUMBER = 10
"""Digits from which on it is none of ours; Python itself refuses to read very long ones."""
_FIRST = "1"


class Serializer(Protocol):
    """How bodies are written and read. Set one for a bus (`connect(serializer=...)`) or a class (`serializer=`)."""

    content_type: str
    """What stands in the content type, such as `application/msgpack`."""

    def encode(self, message: BaseModel, /) -> bytes:
        """The body of a message, or of a reply that is a model. What it raises is InvalidMessage to who publishes."""
        ...

    def decode(self, body: bytes, as_: type[M], /) -> M:
        """The message of a body. What it raises makes the message a dead letter, `undecodable`."""
        ...

    def data(self, body: bytes, /) -> object:
        """The body as plain data, for upcasting an older version."""
        ...


class Json:
    """JSON by pydantic: aliases as declared, unknown fields ignored."""

    content_type = JSON

    def encode(self, message: BaseModel, /) -> bytes:
        return message.__pydantic_serializer__.to_json(message, by_alias=True)

    def decode(self, body: bytes, as_: type[M], /) -> M:
        model: M = as_.__pydantic_validator__.validate_json(body)
        return model

    def data(self, body: bytes, /) -> object:
        return json.loads(body)


JSON_SERIALIZER: Final[Serializer] = Json()
"""What is used where nothing else is named: JSON, as pydantic writes and reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What is said about a message besides its content."""

    source: str
    """Who publishes: the service's name."""
    id: str | None = None
    """None: a new UUIDv7."""
    time: datetime | None = None
    """None: now."""
    correlation_id: str | None = None
    """None: the message's own id; it begins a chain."""
    causation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    due: datetime | None = None
    expiry: datetime | None = None
    reply_to: str | None = None


def new_id() -> str:
    """A UUIDv7: unique, and sorted by time."""
    return str(uuid_utils.uuid7())


def encode(message: Event | Command[Any], about: Envelope, serializer: Serializer = JSON_SERIALIZER) -> Message:
    """The wire form of an event or command. InvalidMessage names the class and the field that cannot be written."""
    route = routing(type(message))
    serializer = route.serializer or serializer
    key = None
    try:
        if route.key is not None:
            value = getattr(message, route.key)
            if value is not None:
                key = str(value)
                if not key.isascii():
                    key.encode()  # half a surrogate pair could not be sent
        body = serializer.encode(message)
        changed = None
        if serializer is JSON_SERIALIZER:
            faith = message.__eventkit_faith__ or _faith(type(message))
            if faith.check is not None:
                changed = faith.check(message)
            if faith.open and changed is None:
                changed = faith.reads_back(message, body)
    except Exception as error:  # a serializer, of the bus or of a field, may raise anything
        raise InvalidMessage(
            f"{type(message).__name__} cannot be written as {serializer.content_type}: {h.said(error)}"
        ) from error
    if changed is not None:
        raise InvalidMessage(f"{type(message).__name__}{changed}")
    id_ = about.id or new_id()
    correlation = about.correlation_id or id_
    headers = {
        h.SPECVERSION: "1.0",
        h.ID: id_,
        h.SOURCE: about.source,
        h.TYPE: route.type,
        h.TIME: (about.time or datetime.now(UTC)).isoformat(),
        h.VERSION: str(route.version),
        h.CONTENT_TYPE: serializer.content_type,
        h.CORRELATION: correlation,
        h.CORRELATION_ID: correlation,
        h.MESSAGE_ID: id_,
    }
    if key is not None:
        headers[h.SUBJECT] = headers[h.PARTITION_KEY] = key
    _add_rare(headers, about)
    return Message(route.address, route.type, key, headers, body)


def _faith(cls: type[Event | Command[Any]]) -> Faith:
    found = cls.__eventkit_faith__ = Faith(cls)  # now its annotations can be read, wherever they were defined
    return found


def _add_rare(headers: dict[str, str], about: Envelope) -> None:
    if about.causation_id is not None:
        headers[h.CAUSATION] = about.causation_id
    if about.reply_to is not None:
        headers[h.REPLY_TO] = about.reply_to
    if about.expiry is not None:
        headers[h.EXPIRY] = about.expiry.isoformat()
    if about.due is not None:
        headers[h.DUE] = about.due.isoformat()
    if about.headers:
        headers.update(about.headers)


def received(address: Address, headers: Mapping[str, str], body: bytes | None, key: str | None = None) -> Message:
    """What an adapter makes of one arrival: type and key are found in the headers, as far as they say."""
    get = headers.get
    return Message(address, get(h.TYPE, ""), key if key is not None else get(h.PARTITION_KEY), headers, body)


def decode(message: Message, cls: type[M], serializer: Serializer = JSON_SERIALIZER) -> M:
    """The message as its class. UndecodableMessage says what is wrong, to which message."""
    route: Routing | None = getattr(cls, "__eventkit_routing__", None)
    content_type = message.headers.get(h.CONTENT_TYPE, JSON)
    try:
        reader = _reader(content_type, route, serializer)
        body = message.body
        if body is None:
            raise UndecodableMessage(f"{_name(message)} has no body (a tombstone), so it is no {cls.__name__}")
        said = message.headers.get(h.VERSION, _FIRST)
        if route is not None and said != str(route.version) and version(message) != route.version:
            return _upcast(message, cls, route, reader, said)
        return reader.decode(body, cls)
    except UndecodableMessage:
        raise
    except ValidationError as error:
        raise UndecodableMessage(f"{_name(message)} does not fit {cls.__name__}: {summary(error)}") from error
    except Exception as error:
        raise UndecodableMessage(f"{_name(message)} cannot be read as {content_type}: {h.said(error)}") from error


def version(message: Message) -> int:
    """The message's version; 1 where it does not say, or says nonsense."""
    said = message.headers.get(h.VERSION, _FIRST)
    return int(said) if said.isdecimal() and len(said) < _LONG_NUMBER else 1


def unwrap(message: Message) -> Message:
    """A CloudEvent in structured mode as one in binary mode; any other message as it is.

    It is told by its content type; or, where nothing else says what the message is, by its body, which many publish
    without that content type.
    """
    content_type = message.headers.get(h.CONTENT_TYPE, "")
    if not content_type.lower().lstrip().startswith(_STRUCTURED) and not _is_envelope(message):
        return message
    try:
        event = json.loads(message.body or b"")
        attributes = {
            name if name in _TRACE else f"ce-{name}": said
            for name, value in event.items()
            if name not in {"data", "data_base64"} and (said := h.text(value)) is not None
        }
        "".join((*attributes, *attributes.values())).encode()  # half a surrogate pair could not be copied
        if h.ID not in attributes or h.TYPE not in attributes:
            raise KeyError("id and type")
        if "data_base64" in event:
            body: bytes | None = base64.b64decode(event["data_base64"])
        else:
            body = json.dumps(event["data"]).encode() if "data" in event else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UndecodableMessage(
            f"{_name(message)} says {content_type} but is no CloudEvent in JSON: {error}"
        ) from error
    headers = {**message.headers, **attributes, h.CONTENT_TYPE: h.text(event.get("datacontenttype")) or JSON}
    headers |= {name: message.headers[name] for name in _TRACE if name in message.headers}  # the last hop knows best
    return received(message.address, headers, body, message.key)._replace(due=message.due)


def _is_envelope(message: Message) -> bool:
    """Is its body a CloudEvent, though no header says anything of one?"""
    body = message.body
    if not body or h.SPECVERSION in message.headers or b'"specversion"' not in body or body.lstrip()[:1] != b"{":
        return False
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(event.get(name), str) for name in _OF_ENVELOPES)


def _reader(content_type: str, route: Routing | None, serializer: Serializer) -> Serializer:
    if content_type == JSON:
        return JSON_SERIALIZER
    media = content_type.partition(";")[0].strip().lower()
    if media in _JSON_TYPES or (media.endswith("+json") and not media.startswith(_STRUCTURED)):
        return JSON_SERIALIZER
    for candidate in ((route and route.serializer) or serializer, serializer):
        if media == candidate.content_type.lower():
            return candidate
    raise UndecodableMessage(f"content type {content_type!r} is neither JSON nor {serializer.content_type}")


def _upcast(message: Message, cls: type[M], route: Routing, reader: Serializer, said: str) -> M:
    step = version(message)
    if step > route.version:
        raise UndecodableMessage(f"{_name(message)} is version {said}, newer than the {route.version} known here")
    data = reader.data(message.body or b"")
    if not isinstance(data, dict):
        raise UndecodableMessage(f"{_name(message)} holds {type(data).__name__}, not an object, so it cannot be upcast")
    while step < route.version:
        upcaster = route.upcasters.get(step)
        if upcaster is not None:
            data = upcaster(data)
        step += 1
    return cls.model_validate(data)


def _name(message: Message) -> str:
    return f"{message.type or 'message'} {message.headers.get(h.ID, '(without id)')} on {message.address}"


def summary(error: ValidationError) -> str:
    """Which fields and why, without the values: they may be secret."""
    parts = [
        f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
    ]
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
