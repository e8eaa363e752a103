"""Messages as AMQP 0-9-1 properties (pure).

Content type, ids, correlation, reply address and type stand in the properties meant for them, all else in the headers
table as text.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.errors import InvalidMessage
from eventkit_rabbit import properties as p

_AS_PROPERTY = frozenset({h.CONTENT_TYPE, h.CORRELATION_ID, h.REPLY_TO, h.MESSAGE_ID})
SHORT = 255
"""Bytes of a short string, at most."""
_u32 = Struct(">I").pack
_flags = Struct(">H").pack
_i64 = Struct(">q").pack
_written: dict[str, bytes] = {}


class Extra(NamedTuple):
    """What is said on the wire besides the message."""

    expiration: str | None = None
    """Milliseconds until a delay queue lets it go."""
    persistent: bool = True
    reply_to: str | None = None
    """Instead of the header's own."""
    until: int | None = None


PLAIN = Extra()


def encode(message: Message, extra: Extra = PLAIN) -> bytes:
    """The properties with their flags. InvalidMessage names what AMQP cannot carry."""
    try:
        return _encode(message, extra)
    except UnicodeEncodeError as problem:
        raise InvalidMessage(f"a header of {message.type or 'a message'} is no valid Unicode: {problem}") from problem


def _encode(message: Message, extra: Extra) -> bytes:
    headers = message.headers
    get = headers.get
    table: list[bytes] = []
    add = table.append
    for name, value in headers.items():
        if name in _AS_PROPERTY:
            continue
        raw = value.encode()
        add(_written.get(name) or _write_name(name))
        add(_u32(len(raw)))
        add(raw)
    if message.key is not None and h.PARTITION_KEY not in headers:
        _add(table, h.PARTITION_KEY, message.key)
    if message.body is None:
        add(b"\x0cek-tombstonet\x01")
    if extra.until is not None:
        add(b"\x08ek-untill" + _i64(extra.until))
    flags, before, after = p.DELIVERY_MODE, b"", []
    text = get(h.CONTENT_TYPE)
    if text is not None and (raw := _repeated(text) or _short(text, h.CONTENT_TYPE, table)):
        flags |= p.CONTENT_TYPE
        before = raw
    for flag, name, text in (
        (p.CORRELATION_ID, h.CORRELATION_ID, get(h.CORRELATION_ID)),
        (p.REPLY_TO, h.REPLY_TO, extra.reply_to or get(h.REPLY_TO)),
        (p.EXPIRATION, "", extra.expiration),
        (p.MESSAGE_ID, h.MESSAGE_ID, get(h.MESSAGE_ID)),
    ):
        if text is not None and (raw := _short(text, name, table)):
            flags |= flag
            after.append(raw)
    text = message.type
    if text and (raw := _repeated(text)):
        flags |= p.TYPE
        after.append(raw)
    mode = b"\x02" if extra.persistent else b"\x01"
    if not table:
        return b"".join((_flags(flags), before, mode, *after))
    fields = b"".join(table)
    return b"".join((_flags(flags | p.HEADERS), before, _u32(len(fields)), fields, mode, *after))


@lru_cache(p.MANY)
def _repeated(text: str) -> bytes:
    """A short string that comes again and again, such as a type; empty if it is too long."""
    raw = text.encode()
    return bytes((len(raw),)) + raw if len(raw) <= SHORT else b""


def _short(text: str, name: str, table: list[bytes]) -> bytes:
    """As a short string; one that is too long becomes a header instead, if it has a name to go by."""
    raw = text.encode()
    if len(raw) <= SHORT:
        return bytes((len(raw),)) + raw
    if name:
        _add(table, name, text)
    return b""


def _add(table: list[bytes], name: str, text: str) -> None:
    raw = text.encode()
    table += (_write_name(name), _u32(len(raw)), raw)


def _write_name(name: str) -> bytes:
    raw = (p.KEPT + name if name in p.BROKERS else name).encode()
    if len(raw) > SHORT:
        raise InvalidMessage(f"header {name[:40]!r}...: AMQP takes names of at most {SHORT} bytes")
    written = bytes((len(raw),)) + raw + b"S"
    if len(_written) < p.MANY:
        _written[name] = written
    return written
