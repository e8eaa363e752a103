"""AMQP 0-9-1 frames that are written: messages and what settles them (pure)."""

from __future__ import annotations

from struct import Struct

_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC = 60 << 16
_PUBLISH, _GET, _ACK, _NACK = _BASIC | 40, _BASIC | 70, _BASIC | 80, _BASIC | 120
_END = b"\xce"

_SETTLE = Struct(">BHIIQBB").pack
_OPEN = Struct(">BHI").pack
_CONTENT = Struct(">BHIHHQ").pack
_PUBLISH_ID = Struct(">IH").pack


def ack(number: int, tag: int, multiple: bool) -> bytes:
    return _SETTLE(_METHOD, number, 13, _ACK, tag, multiple, 0xCE)


def nack(number: int, tag: int, multiple: bool = False) -> bytes:
    """Gives a message back to its queue."""
    return _SETTLE(_METHOD, number, 13, _NACK, tag, 2 | multiple, 0xCE)


def get(number: int, queue: str) -> bytes:
    """Asks for one message, to be settled."""
    name = short(queue)
    payload = _PUBLISH_ID(_GET, 0) + name + b"\x00"
    return _OPEN(_METHOD, number, len(payload)) + payload + _END


def publish(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The method frame alone; `content` follows it."""
    payload = _PUBLISH_ID(_PUBLISH, 0) + short(exchange) + short(routing_key) + (b"\x01" if mandatory else b"\x00")
    return _OPEN(_METHOD, number, len(payload)) + payload + _END


def content(number: int, properties: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """A content header and the body in as many frames as it needs."""
    parts = [_CONTENT(_HEADER, number, len(properties) + 12, 60, 0, len(body)), properties, _END]
    room = frame_max - 8
    if 0 < len(body) <= room:
        parts += (_OPEN(_BODY, number, len(body)), body, _END)
    else:
        for at in range(0, len(body), room):
            piece = body[at : at + room]
            parts += (_OPEN(_BODY, number, len(piece)), piece, _END)
    return parts


def short(text: str) -> bytes:
    """A short string. ValueError above 255 bytes."""
    raw = text.encode()
    return bytes((len(raw),)) + raw
