"""The names of headers, and how their values become text: the same rules on every broker (pure).

A `Message` carries these names on every broker; an adapter writes them in the form usual on its own: `ce_id` on Kafka,
properties instead of `content-type`, `message_id` and `correlation_id` on RabbitMQ, percent-encoded on NATS and Redis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, final
from urllib.parse import quote, unquote

from eventkit.errors import InvalidMessage

# CloudEvents 1.0, binary mode (attributes and the extensions partitioning, correlation and expirytime)
SPECVERSION = "ce-specversion"
ID = "ce-id"
SOURCE = "ce-source"
TYPE = "ce-type"
TIME = "ce-time"
SUBJECT = "ce-subject"
VERSION = "ce-dataversion"
PARTITION_KEY = "ce-partitionkey"
CORRELATION = "ce-correlationid"
CAUSATION = "ce-causationid"
EXPIRY = "ce-expirytime"
CONTENT_TYPE = "content-type"

# what others read: FastStream, and the brokers' own tools
CORRELATION_ID = "correlation_id"
MESSAGE_ID = "message_id"
"""Unique for each copy of a message, and the same when the same copy is published again: brokers drop repeats by it."""
REPLY_TO = "reply_to"

# W3C Trace Context
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# ours
ATTEMPT = "ek-attempt"
GROUP = "ek-group"
ORIGIN = "ek-origin"
DUE = "ek-due"
WAITED = "ek-waited"
REDRIVEN = "ek-redriven"
FIRST_FAILURE = "ek-first-failure"
LAST_FAILURE = "ek-last-failure"
REASON = "ek-reason"
ERROR_TYPE = "ek-error-type"
ERROR_MESSAGE = "ek-error-message"
ERROR_STACK = "ek-error-stack"
OUTCOME = "ek-outcome"
SUSPECT = "ek-suspect"

COMMON = frozenset({SPECVERSION, CONTENT_TYPE, VERSION})
"""Headers that have few values: those of one type of message have the same, nearly always."""

_RESERVED_PREFIXES = ("ce-", "ce_", "ek-", "nats-")
_RESERVED = frozenset({CONTENT_TYPE, CORRELATION_ID, MESSAGE_ID, REPLY_TO})
_LINE_BREAK = re.compile(r"[\r\n\0]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"')
_SAFE_BYTES = _SAFE.encode()


@final
class Alike(Mapping[str, str]):
    """Headers of a message that has the same names as many others, and the same values of those in `COMMON`.

    For adapters that know such a message by its bytes: a value becomes text when it is asked for, which hardly any is.
    """

    __slots__ = ("block", "places", "shared")

    def __init__(self, block: bytes, places: Mapping[str, slice], shared: Mapping[str, str]) -> None:
        self.block = block
        """The headers as they lie in the message, in ASCII."""
        self.places = places
        """Where in it the values are that differ."""
        self.shared = shared
        """All names; the values of those in `places` are another message's."""

    def __getitem__(self, name: str) -> str:
        place = self.places.get(name)
        return self.shared[name] if place is None else self.block[place].decode()

    def get(self, name: str, default: Any = None) -> Any:
        place = self.places.get(name)
        return self.shared.get(name, default) if place is None else self.block[place].decode()

    def __contains__(self, name: object) -> bool:
        return name in self.shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.shared)

    def __len__(self) -> int:
        return len(self.shared)

    def __repr__(self) -> str:
        return repr(dict(self))


def text(value: object) -> str | None:
    """A received header value as text, by one rule on every broker; None: it is left out.

    Text stays; bytes are read as UTF-8; whole and broken numbers, true and false are written as in JSON. Null, bytes
    that are no UTF-8, tables, lists and times are left out.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    return None


def writable(said: str) -> str:
    """With each half of a surrogate pair, which is no text and cannot be encoded, spelt out: `\\udcff`."""
    return said.encode(errors="backslashreplace").decode()


def said(error: BaseException) -> str:
    """An exception's own text, as it may be written; or some readable one, where its own cannot be made."""
    try:
        return writable(str(error))
    except Exception as failure:  # noqa: BLE001 whatever its `__str__` raises
        return f"(its text cannot be made: {type(failure).__name__})"


def plain(value: str) -> bool:
    """Does `escape` leave it as it is?"""
    return value.isascii() and not value.encode().translate(None, _SAFE_BYTES)


def escape(value: str) -> str:
    """Percent-encode all but printable ASCII (and '%', '"' and spaces), as CloudEvents' NATS and HTTP bindings do."""
    return value if plain(value) else quote(value, safe=_SAFE)


def unescape(value: str) -> str:
    """The reverse of `escape`; a value that was never escaped stays as it is, unless it holds '%' and two digits."""
    return unquote(value) if "%" in value else value


def check(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """The headers of a user, if they may go on the wire; else InvalidMessage naming the header."""
    if not given:
        return {}
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidMessage(f"header {name!r}: names and values are text, not {type(value).__name__}")
        lowered = name.lower()
        if lowered in _RESERVED or lowered.startswith(_RESERVED_PREFIXES):
            raise InvalidMessage(f"header {name!r} is reserved: choose a name of your own, such as 'x-{lowered}'")
        if not name or _LINE_BREAK.search(name) or _LINE_BREAK.search(value):
            raise InvalidMessage(f"header {name!r}: an empty name, line breaks and NUL do not survive every broker")
        if _SURROGATE.search(name) or _SURROGATE.search(value):
            raise InvalidMessage(f"header {name!r}: half a surrogate pair is no text, and cannot be encoded")
    return given


def check_id(what: str, given: str | None) -> str | None:
    """An id of the caller's own, if it may go on the wire; else InvalidMessage naming the argument."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise InvalidMessage(f"{what}={given!r}: it is text, not {type(given).__name__}")
    if _LINE_BREAK.search(given) or _SURROGATE.search(given):
        raise InvalidMessage(
            f"{what}={given!r}: line breaks, NUL and half a surrogate pair do not survive every broker"
        )
    return given


def user(headers: Mapping[str, str]) -> dict[str, str]:
    """Only those that a user may set himself."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _RESERVED and not name.lower().startswith(_RESERVED_PREFIXES)
    }
