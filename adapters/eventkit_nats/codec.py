"""Messages in NATS' form: names and values of headers percent-encoded, always.

Beyond the names in `eventkit.headers`, which stand on the wire as they are, there are `Nats-Msg-Id`, by which the
server drops repeats, and two of our own: `ek-nats-due` on a delayed copy, and `ek-nats-null`, since NATS cannot tell a
message without a body from one with an empty body.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from urllib.parse import quote, unquote

from eventkit import headers as h
from eventkit.adapter import Address, Message, new
from eventkit_nats.exchange import Question

_DUE = "ek-nats-due"
_NULL = "ek-nats-null"
_FIRST_LINE = "NATS/1.0\r\n"
_SERVER = "nats-"
"""Header names that begin so tell the server what to do with a message; a copy must not repeat them."""

# what may stand in a header's name (RFC 7230), but for the '%' that marks what was encoded
_NAME_SAFE = "!#$&'*+-.^_`|~"
_names: dict[str, str] = {}
"""Encoded names with their colon. Programs use few; the bound is against those who make names from data."""
_MANY = 10_000


def encode(subject: bytes, message: Message, reply_subject: Callable[[str], str]) -> tuple[Question, int, int]:
    """The publish, the size of its headers, and its whole size, as the server counts them."""
    headers = message.headers
    lines = [_FIRST_LINE]
    id_ = headers.get(h.MESSAGE_ID)
    if id_ is not None:
        # the type, too: people give an order's id to its every event, and none of those is a repeat of another
        whole = f"{headers.get(h.SOURCE, '')}:{message.type}:{id_}"
        lines.append(f"Nats-Msg-Id: {h.escape(whole)}\r\n")
    if message.type and h.TYPE not in headers:
        headers = {**headers, h.TYPE: message.type}
    if message.key is not None and h.PARTITION_KEY not in headers:
        headers = {**headers, h.PARTITION_KEY: message.key}
    if h.REPLY_TO in headers:
        headers = {**headers, h.REPLY_TO: reply_subject(headers[h.REPLY_TO])}
    try:
        if not h.plain("".join(headers.values())):
            raise KeyError
        lines += [f"{_names[name]}{value}\r\n" for name, value in headers.items()]
    except KeyError:
        lines += [f"{_name(name)}{h.escape(value)}\r\n" for name, value in headers.items() if not _is_servers(name)]
    if message.due is not None:
        lines.append(f"{_DUE}: {ceil(message.due.timestamp() * 1000)}\r\n")
    body = message.body
    if body is None:
        body = b""
        lines.append(f"{_NULL}: 1\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode()
    size = len(head) + len(body)
    return (b"HPUB %b " % subject, b" %d %d\r\n%b%b\r\n" % (len(head), size, head, body)), len(head), size


def decode(address: Address, headers: bytes | None, body: bytes) -> Message:
    """The reverse, of whatever arrived. Never raises: what cannot be read is left out."""
    found: dict[str, str] = {}
    due: datetime | None = None
    data: bytes | None = body
    if headers is not None:
        try:
            text = headers[10:-4].decode()
            if "%" in text:
                raise ValueError
            found = dict([line.split(": ", 1) for line in text.split("\r\n")])
            if text.count("Nats-") > (found.pop("Nats-Msg-Id", None) is not None):
                raise ValueError
        except ValueError:
            found = _carefully(headers)
        if _DUE in found:
            due = _time(found.pop(_DUE))
        if _NULL in found:
            del found[_NULL]
            data = body or None
        if h.REPLY_TO in found:
            found[h.REPLY_TO] = _marked(found[h.REPLY_TO])
        if h.CONTENT_TYPE not in found:
            _lower_content_type(found)
    return new(Message, (address, found.get(h.TYPE, ""), found.get(h.PARTITION_KEY), found, data, due))


def _is_servers(name: str) -> bool:
    return name.lower().startswith(_SERVER)


def _name(name: str) -> str:
    encoded = f"{quote(name, safe=_NAME_SAFE)}: "
    if len(_names) < _MANY and not _is_servers(name):
        _names[name] = encoded
    return encoded


def _carefully(headers: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in headers[10:].split(b"\r\n"):
        raw_name, colon, raw_value = line.partition(b":")
        name, value = h.text(raw_name.strip()), h.text(raw_value.strip())
        if colon and name and value is not None and not _is_servers(name):
            found[unquote(name)] = unquote(value)
    return found


def _lower_content_type(found: dict[str, str]) -> None:
    for name in found:
        if name.lower() == h.CONTENT_TYPE:
            found[h.CONTENT_TYPE] = found.pop(name)
            return


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _marked(reply_to: str) -> str:
    """So that it can be told from a logical name, which has no '='."""
    return reply_to if "=" in reply_to else f"={reply_to}"
