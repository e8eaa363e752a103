"""A message as one stream entry: field `__data__` in FastStream's binary envelope (pure).

    89 42 49 4E 0D 0A 1A 0A | version u16 | where headers start u32 | where the body starts u32
    | number of headers u16 | (length u16, name, length u16, value)... | body

FastStream counts characters where it should count bytes when it writes text that is not ASCII, so names and values are
percent-encoded. A tombstone is written as a body that starts past the end: FastStream reads it as an empty one.

Headers may start anywhere, so one byte before them can say to our own reader that they are short, not empty and need no
unescaping. Then the upper byte of each length is the only NUL, and one `split` finds them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from struct import Struct

from eventkit import headers as h
from eventkit.adapter import Address, Message, new
from eventkit.errors import InvalidMessage, MessageTooLarge

FIELD = b"__data__"
_IDENTITY = b"\x89BIN\x0d\x0a\x1a\x0a\x00\x01"
_OFFSETS = Struct(">10sII")
_PLAIN_HEAD = Struct(">10sIIBH")
_PLAIN_START = 19
_PLAIN = 0x50
_HEAD = Struct(">10sIIH")
_START = 18
_LONGEST = 0xFFFF
_SHORT = 256
_LENGTHS = [chr(length >> 8) + chr(length & 0xFF) for length in range(_SHORT)]
_MANY = 4096


class _Packed(dict[str, str]):
    """Names of headers with their lengths, as they are written."""

    def __missing__(self, name: str) -> str:
        text = h.escape(name)
        if len(text) >= _SHORT:
            raise MessageTooLarge("the name of a header", len(text), _SHORT - 1)
        if len(self) >= _MANY:
            self.clear()
        self[name] = packed = _length(len(text)) + text
        return packed


class _Names(dict[str, str]):
    """Names of headers by their lower length byte and text."""

    def __missing__(self, piece: str) -> str:
        if len(self) >= _MANY:
            self.clear()
        self[piece] = name = piece[1:]
        return name


_packed = _Packed()
_names = _Names()


def encode(message: Message, *, fit: bool = False) -> bytes:
    """The envelope. InvalidMessage names a header that does not fit into it; `fit`: it is made to fit, since a copy of
    what was received must not fail."""
    headers = _complete(message)
    body = message.body
    count = len(headers)
    values = headers.values()
    if "" not in values and "" not in headers and h.plain("".join(values)):
        try:
            text = "".join([f"{_packed[name]}{_LENGTHS[len(value)]}{value}" for name, value in headers.items()])
        except (IndexError, ValueError):
            pass  # one is too long for this form, or for any
        else:
            # All is ASCII but the length bytes, and latin-1 writes those as they are.
            written = text.encode("latin-1")
            end = _PLAIN_START + 2 + len(written)
            start = end if body is not None else end + 1
            return _PLAIN_HEAD.pack(_IDENTITY, _PLAIN_START, start, _PLAIN, count) + written + (body or b"")
    about = f"{message.type or 'a message'} for {message.address}"
    rows = list(_escaped(headers, fit, about))
    if len(rows) > _LONGEST:
        raise MessageTooLarge(f"the number of the headers of {about}", len(rows), _LONGEST)
    written = "".join(chain.from_iterable(rows)).encode("latin-1")
    end = _START + 2 + len(written)
    start = end if body is not None else end + 1
    return _HEAD.pack(_IDENTITY, _START, start, len(rows)) + written + (body or b"")


def message(address: Address, fields: Sequence[bytes]) -> Message:
    """What one entry holds. Never raises: an entry that is not an envelope is a message without headers."""
    if len(fields) == 2 and fields[0] == FIELD:
        headers, body = decode(fields[1])
    else:
        headers, body = _foreign(fields)
    get = headers.get
    return new(Message, (address, get(h.TYPE, ""), get(h.PARTITION_KEY), headers, body, None))


def decode(data: bytes) -> tuple[dict[str, str], bytes | None]:
    """Headers and body. What is no envelope is all body."""
    if data[:10] != _IDENTITY or len(data) < _HEAD.size:
        return _json_envelope(data)
    _, start, end = _OFFSETS.unpack_from(data)
    first = start + 2
    if start < _START or end < first:
        return {}, data
    body = None if end > len(data) else data[end:]
    block = data[first:end].decode("latin-1")
    if start == _PLAIN_START and data[_START] == _PLAIN:
        pieces = iter(block.split("\0"))
        next(pieces)
        return {_names[name]: value[1:] for name, value in zip(pieces, pieces, strict=False)}, body
    return _walked(data[first:end], block), body


def _walked(data: bytes, block: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    at, last = 0, len(data)
    try:
        while at < last:
            middle = at + 2 + (data[at] << 8 | data[at + 1])
            stop = middle + 2 + (data[middle] << 8 | data[middle + 1])
            headers[block[at + 2 : middle]] = block[middle + 2 : stop]
            at = stop
    except IndexError:
        at = -1
    if at != last:
        return dict(_miscounted(data))
    if "%" in block or not block.isascii():
        return dict(_unescaped(headers))
    return headers


def _complete(message: Message) -> Mapping[str, str]:
    """Type and key travel as headers: the core puts them there; a message made by hand may not have them."""
    headers = message.headers
    if (message.type and h.TYPE not in headers) or (message.key is not None and h.PARTITION_KEY not in headers):
        added = {h.TYPE: message.type} if message.type else {}
        if message.key is not None:
            added[h.PARTITION_KEY] = message.key
        return {**added, **headers}
    return headers


def _length(length: int) -> str:
    return chr(length >> 8) + chr(length & 0xFF)


def _escaped(headers: Mapping[str, str], fit: bool, about: str) -> Iterator[tuple[str, str, str]]:
    for name, value in headers.items():
        try:
            packed, text = _packed[name], h.escape(value)
            if len(text) > _LONGEST:
                raise MessageTooLarge(f"header {name!r} of {about}", len(text), _LONGEST)
        except MessageTooLarge:
            if not fit:
                raise
            if len(h.escape(name)) >= _SHORT:
                continue
            packed, text = _packed[name], _cut(value)
        except UnicodeEncodeError as error:
            if not fit:
                raise InvalidMessage(f"header {name!r} is no text that can be written: {error.reason}") from error
            packed, text = _packed[_written(name)], _cut(_written(value))
        yield packed, _length(len(text)), text


def _written(text: str) -> str:
    """Half of a surrogate pair is no text: it is spelt out."""
    return text.encode(errors="backslashreplace").decode()


def _cut(value: str) -> str:
    while len(text := h.escape(value)) > _LONGEST:
        value = value[: len(value) * (_LONGEST - 100) // len(text)]
    return text


def _unescaped(headers: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        readable = _utf8(value)
        if readable is not None:
            yield h.unescape(_utf8(name) or name), h.unescape(readable)


def _utf8(text: str) -> str | None:
    """Text that was read as latin-1."""
    return text if text.isascii() else h.text(text.encode("latin-1"))


def _miscounted(block: bytes) -> Iterator[tuple[str, str]]:
    """The headers as FastStream writes those that are not ASCII: lengths in characters. What cannot be read is left."""
    at = 0

    def next_text() -> str | None:
        nonlocal at
        if at + 2 > len(block):
            return None
        length = block[at] << 8 | block[at + 1]
        at += 2
        text = block[at : at + 4 * length].decode(errors="replace")[:length]
        at += len(text.encode())
        return text

    while (name := next_text()) is not None and (value := next_text()) is not None:
        yield h.unescape(name), h.unescape(value)


def _json_envelope(data: bytes) -> tuple[dict[str, str], bytes]:
    """FastStream's older format: exactly `{"data": text, "headers": {...}}`. Anything else is a body of its own."""
    if data[:1] != b"{" or b'"headers"' not in data:
        return {}, data
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}, data
    if (
        set(found) != {"data", "headers"}
        or not isinstance(found["data"], str)
        or not isinstance(found["headers"], dict)
    ):
        return {}, data
    texts = ((name, h.text(value)) for name, value in found["headers"].items())
    headers = {name: h.unescape(text) for name, text in texts if text is not None}
    return headers, found["data"].encode(errors="surrogatepass")  # half a pair of surrogates is still a body


def _foreign(fields: Sequence[bytes]) -> tuple[dict[str, str], bytes]:
    """An entry of others, a field per value: one JSON object of them, or the lone `data` as it is."""
    if len(fields) == 2 and fields[0] == b"data":
        return {}, fields[1]
    pairs = zip(fields[::2], fields[1::2], strict=False)
    read = {name.decode(errors="replace"): value.decode(errors="backslashreplace") for name, value in pairs}
    return {}, json.dumps(read, ensure_ascii=False).encode()
