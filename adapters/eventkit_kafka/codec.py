"""Messages as Kafka's records, and records as messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from uuid import uuid4

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Message, new
from eventkit_kafka.layouts import Names
from eventkit_kafka.records import Fields, Record

HELD_UNTIL = "ek-held-until"
"""On records of a retry topic: not to be delivered before, in milliseconds since 1970."""
REPLY = "ek-reply"
"""On records of a reply topic: the reply address in full, for several instances read one partition."""

NO_BODY = "ek-no-body"
"""On a dead letter whose message had none: with no value Kafka would take it for a tombstone, and drop it."""

NOTE = "ek-begun"
"""On a record among the dead letters that is none: it says what the group has begun to read."""

_OURS = (HELD_UNTIL, REPLY, NO_BODY)
_LONG_NUMBER = 16
"""Digits from which on a time is none of ours."""


_TO_WIRE = Names("ce-", "ce_")

Headers = list[tuple[str, bytes]]


def encode_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """As CloudEvents' Kafka binding has them: `ce_id`, in UTF-8. Surrogates, which have no UTF-8, become '?'."""
    wire = _TO_WIRE
    try:
        return [(wire[name], value.encode()) for name, value in headers]
    except UnicodeEncodeError:
        return [(wire[_legal(name)], _legal(value).encode()) for name, value in headers]


def encode_key(key: str | None) -> bytes | None:
    if key is None:
        return None
    try:
        return key.encode()
    except UnicodeEncodeError:
        return _legal(key).encode()


def dead_key(message: Message) -> bytes:
    """What a dead letter is kept under: the id of this copy, so that a copy made twice is kept once."""
    return _legal(message.headers.get(h.MESSAGE_ID) or str(uuid4())).encode()


def kept_headers(message: Message) -> Iterable[tuple[str, str]]:
    """Headers of a copy whose record key is not the message's key: it must not lose that."""
    headers = message.headers
    if message.key is not None and headers.get(h.PARTITION_KEY) != message.key:
        headers = {**headers, h.PARTITION_KEY: message.key}
    return headers.items()


def milliseconds(due: datetime) -> int:
    """Since 1970, the first that is not before `due`. A time without a zone is UTC."""
    return ceil((due if due.tzinfo is not None else due.replace(tzinfo=UTC)).timestamp() * 1000)


def decode(address: Address, record: Fields) -> Message:
    """Any record, however foreign."""
    _, _, binary, value, headers = record
    key = None
    if binary is not None:
        try:
            key = binary.decode()
        except UnicodeDecodeError:
            key = binary.decode("latin-1")  # a binary key: any text that is the same each time keeps its order
    return new(Message, (address, headers.get(h.TYPE, ""), key, headers, value, None))


def deliver(message: Message, position: str, token: object, count: int) -> Delivery:
    """Kafka does not count deliveries: we do."""
    return new(Delivery, (message, position, count, token))


def decode_copy(address: Address, record: Record) -> Message:
    """A record of a retry, dead-letter or reply topic: its key is in a header, ours are taken out."""
    message = decode(address, record)
    headers = {name: value for name, value in message.headers.items() if name not in _OURS}
    key = headers.get(h.PARTITION_KEY)
    return message._replace(
        key=message.key if key is None and address.kind == "retry" else key,
        headers=headers,
        body=None if NO_BODY in message.headers else message.body,
    )


def due(record: Record) -> float:
    """When a record of a retry topic may be delivered, in seconds since 1970; 0: at once."""
    said = record.headers.get(HELD_UNTIL, "")
    return int(said) / 1000 if said.isascii() and said.isdecimal() and len(said) < _LONG_NUMBER else 0.0


def _legal(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
