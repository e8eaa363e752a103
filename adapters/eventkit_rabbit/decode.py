"""AMQP 0-9-1 properties as messages (pure). Never fails: what cannot be read is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from struct import Struct, error
from typing import NamedTuple

from eventkit import headers as h
from eventkit.adapter import Address, Message, new
from eventkit_rabbit import properties as p

_COUNT = "x-delivery-count"
_DEATH = "x-first-death-reason"
_SPECIAL = p.BROKERS | {p.TOMBSTONE, p.UNTIL}
_u32 = Struct(">I").unpack_from
_flags = Struct(">H").unpack_from
_read: dict[bytes, str] = {}


class Decoded(NamedTuple):
    headers: dict[str, str]
    type: str
    returns: int
    """How often it was given back to this queue."""
    tombstone: bool
    until: int | None
    death: str | None
    """Why the broker itself moved it here, if it did."""
    timestamp: bytes
    """The property, unread: it tells foreign messages apart that say no id."""


def decode(header: bytes) -> Decoded:
    """What the payload of a content header says, as far as it can be read."""
    headers: dict[str, str] = {}
    special: dict[str, object] = {}
    found: dict[int, bytes] = {}
    try:
        flags = _flags(header, 12)[0]
        at = 14
        more = flags
        while more & 1:  # flags that no property of AMQP 0-9-1 uses
            more = _flags(header, at)[0]
            at += 2
        at = _strings(header, at, flags, (p.CONTENT_TYPE, p.CONTENT_ENCODING), found)
        if flags & p.HEADERS:
            end = at + 4 + _u32(header, at)[0]
            _table(header, at + 4, end, headers, special)
            at = end
        at += (flags & p.DELIVERY_MODE != 0) + (flags & p.PRIORITY != 0)
        at = _strings(header, at, flags, (p.CORRELATION_ID, p.REPLY_TO, p.EXPIRATION, p.MESSAGE_ID), found)
        if flags & p.TIMESTAMP:
            found[p.TIMESTAMP] = header[at : at + 8]
            at += 8
        _strings(header, at, flags, (p.TYPE,), found)
    except (IndexError, error):
        pass  # cut short: what was read so far stands
    if found:
        for flag, name in _NAMES:
            if flag in found:
                _take(headers, name, found[flag])
    type_ = headers.get(h.TYPE)
    if type_ is None:
        type_ = found[p.TYPE].decode(errors="replace") if p.TYPE in found else ""
    if not special:
        return Decoded(headers, type_, 0, False, None, None, found.get(p.TIMESTAMP, b""))
    count, until, death = special.get(_COUNT), special.get(p.UNTIL), special.get(_DEATH)
    return Decoded(
        headers,
        type_,
        count if isinstance(count, int) else 0,
        p.TOMBSTONE in special,
        until if isinstance(until, int) else None,
        death if isinstance(death, str) else None,
        found.get(p.TIMESTAMP, b""),
    )


_NAMES = (
    (p.CONTENT_TYPE, h.CONTENT_TYPE),
    (p.CONTENT_ENCODING, "content-encoding"),
    (p.CORRELATION_ID, h.CORRELATION_ID),
    (p.REPLY_TO, h.REPLY_TO),
    (p.MESSAGE_ID, h.MESSAGE_ID),
)


def _take(headers: dict[str, str], name: str, raw: bytes) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    headers.setdefault(name, text)


def _strings(data: bytes, at: int, flags: int, wanted: tuple[int, ...], found: dict[int, bytes]) -> int:
    for flag in wanted:
        if flags & flag:
            end = at + 1 + data[at]
            found[flag] = data[at + 1 : end]
            at = end
    return at


def _table(data: bytes, at: int, end: int, headers: dict[str, str], special: dict[str, object]) -> None:
    while at < end:
        start = at + 1
        at = start + data[at]
        raw = data[start:at]
        name = _read.get(raw) or _read_name(raw)
        kind = data[at]
        at += 1
        if kind == 0x53:  # S, a long string: nearly always
            start = at + 4
            at = start + _u32(data, at)[0]
            try:
                value: object = data[start:at].decode()
            except UnicodeDecodeError:
                continue
        else:
            reader = _READERS.get(kind)
            if reader is None:
                return  # of unknown length: no later one can be found
            value, at = reader(data, at)
        if name in _SPECIAL:
            special[name] = value
            continue
        text = value if isinstance(value, str) else h.text(value)
        if text is not None and name:
            headers[name[len(p.KEPT) :] if name.startswith(p.KEPT) else name] = text


def _read_name(raw: bytes) -> str:
    name = raw.decode(errors="replace")
    if len(_read) < p.MANY:
        _read[raw] = name
    return name


def _number(format: str) -> Callable[[bytes, int], tuple[object, int]]:
    struct = Struct(format)
    unpack, size = struct.unpack_from, struct.size
    return lambda data, at: (unpack(data, at)[0], at + size)


def _decimal(data: bytes, at: int) -> tuple[object, int]:
    value = int.from_bytes(data[at + 1 : at + 5], "big", signed=True)
    return value / 10 ** data[at], at + 5


def _skip(data: bytes, at: int) -> tuple[object, int]:
    return None, at + 4 + _u32(data, at)[0]


def _bytes(data: bytes, at: int) -> tuple[object, int]:
    end = at + 4 + _u32(data, at)[0]
    return data[at + 4 : end], end


_READERS: Mapping[int, Callable[[bytes, int], tuple[object, int]]] = {
    ord("t"): lambda data, at: (data[at] != 0, at + 1),
    ord("b"): _number(">b"),
    ord("B"): _number(">B"),
    ord("s"): _number(">h"),
    ord("u"): _number(">H"),
    ord("I"): _number(">i"),
    ord("i"): _number(">I"),
    ord("l"): _number(">q"),
    ord("L"): _number(">q"),
    ord("f"): _number(">f"),
    ord("d"): _number(">d"),
    ord("D"): _decimal,
    ord("T"): lambda _, at: (None, at + 8),
    ord("A"): _skip,
    ord("F"): _skip,
    ord("V"): lambda _, at: (None, at),
    ord("x"): _bytes,
}


def position(decoded: Decoded, body: bytes) -> str:
    """The message id, or for a message that has none a hash of all that stays the same at each delivery.

    Two foreign messages without id and timestamp whose headers and bodies are equal share one position.
    """
    given = decoded.headers.get(h.MESSAGE_ID)
    if given:
        return given
    digest = hashlib.blake2b(body, digest_size=16)
    digest.update(repr((sorted(decoded.headers.items()), decoded.type)).encode("utf-8", "surrogatepass"))
    digest.update(decoded.timestamp)
    return digest.hexdigest()


def read(address: Address, decoded: Decoded, body: bytes) -> Message:
    """The message as it came."""
    headers = decoded.headers
    payload = None if decoded.tombstone and not body else body
    return new(Message, (address, decoded.type, headers.get(h.PARTITION_KEY), headers, payload, None))
