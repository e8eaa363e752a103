"""AMQP 0-9-1 frames: those with messages and confirms are taken apart here, all others are aiormq's.

aiormq reads a frame with three awaits, hands it through two queues and makes a task of each message; a frame that its
decoder does not like (a name in Latin-1, a time in nanoseconds) ends the connection, and again after each reconnect.
So messages, returns and confirms never reach it: this reader sits below it and calls their channel's owner at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

from aiormq import exceptions as amqp

_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME = Struct(">BHI").unpack_from
_METHOD_ID = Struct(">I").unpack_from
_SIZE = Struct(">Q").unpack_from
_CODE = Struct(">H").unpack_from
_END = b"\xce"


def _id(class_: int, method: int) -> int:
    return class_ << 16 | method


DELIVER, RETURN, GET_OK = _id(60, 60), _id(60, 50), _id(60, 71)
_GET_EMPTY, _ACK, _NACK, _CANCEL = _id(60, 72), _id(60, 80), _id(60, 120), _id(60, 30)
_CHANNEL_CLOSE, _CONNECTION_CLOSE = _id(20, 40), _id(10, 50)
_BLOCKED, _UNBLOCKED = _id(10, 60), _id(10, 61)
_WITH_CONTENT = frozenset({DELIVER, RETURN, GET_OK})

_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_CLOSE_OK = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"
_BEAT = 1.0
"""Seconds after which aiormq is told that the broker is alive, while all that comes is not for it."""

_BY_CODE: dict[int, type[amqp.ChannelClosed]] = {
    403: amqp.ChannelAccessRefused,
    404: amqp.ChannelNotFoundEntity,
    405: amqp.ChannelLockedResource,
    406: amqp.ChannelPreconditionFailed,
}


class ChannelOwner(Protocol):
    """Who is called with what arrives on one channel, from the event loop, in order. Must not raise."""

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes, /) -> None:
        """A whole message: DELIVER, RETURN or GET_OK with its arguments, the content header and the body."""

    def empty(self) -> None:
        """The queue had nothing for one basic.get."""

    def confirmed(self, tag: int, multiple: bool, accepted: bool, /) -> None:
        """The broker has, or refuses, what was published as `tag`; with `multiple` all up to it."""

    def cancelled(self) -> None:
        """The broker ended the consumer: its queue was deleted, or its leader is gone."""

    def closed(self, error: Exception, /) -> None:
        """The channel, or its connection, is no more. Called once; nothing may be written after."""


class _Content:
    __slots__ = ("arguments", "header", "method", "missing", "parts")

    def __init__(self, method: int, arguments: bytes) -> None:
        self.method = method
        self.arguments = arguments
        self.header = b""
        self.missing = 0
        self.parts: list[bytes] = []


class Frames(asyncio.StreamReader):
    """The reader that aiormq is given. Until `take_over` all bytes are its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[Exception | None], None]) -> None:
        super().__init__(loop=loop)
        self.owners: dict[int, ChannelOwner] = {}
        self.refused: Exception | None = None
        """Why the broker ended the handshake, if it said so."""
        self.blocked = ""
        """Why the broker reads nothing that is published here, such as "low on memory". Empty: it does."""
        self._clock = loop.time
        self._tell = lost
        self._taken_over = False
        self._ended = False
        self._kept = b""
        self._fed = 0.0
        self._contents: dict[int, _Content] = {}

    def take_over(self) -> None:
        """The handshake is done."""
        self._taken_over = True

    def feed_data(self, data: Any) -> None:
        """Called by the transport with whatever bytes arrived."""
        if not self._taken_over:
            if len(data) > 16 and data[0] == _METHOD and _METHOD_ID(data, 7)[0] == _CONNECTION_CLOSE:
                self.refused = amqp.ConnectionNotAllowed(_reason(data, 11)[1])
            super().feed_data(data)
            return
        if self._ended:
            return
        if self._kept:
            data = self._kept + data
        at, end = 0, len(data)
        while end - at >= 8:
            kind, number, size = _FRAME(data, at)
            after = at + 8 + size
            if after > end:
                break
            if kind == _METHOD:
                self._method(number, data, at, after)
            elif kind == _HEADER:
                self._header(number, data[at + 7 : after - 1])
            elif kind == _BODY:
                self._body(number, data[at + 7 : after - 1])
            else:
                self._pass_on(data[at:after])
            at = after
        self._kept = data[at:] if at else data
        if self._clock() - self._fed > _BEAT:
            self._pass_on(_HEARTBEAT)

    def feed_eof(self) -> None:
        self._end(None)

    def set_exception(self, exc: Exception) -> None:
        self._end(exc)

    def _pass_on(self, frame: bytes) -> None:
        if not self._ended:
            self._fed = self._clock()
            super().feed_data(frame)

    def _method(self, number: int, data: bytes, at: int, after: int) -> None:
        method = _METHOD_ID(data, at + 7)[0]
        if method in _WITH_CONTENT:
            self._contents[number] = _Content(method, data[at + 11 : after - 1])
            return
        owner = self.owners.get(number)
        if method in (_ACK, _NACK):
            if owner is not None:
                owner.confirmed(_SIZE(data, at + 11)[0], data[at + 19] & 1 == 1, method == _ACK)
        elif method == _GET_EMPTY:
            if owner is not None:
                owner.empty()
        elif method == _CANCEL:
            if owner is not None:
                owner.cancelled()
        elif method == _CONNECTION_CLOSE:
            self._end(amqp.ConnectionClosed(*_reason(data, at + 11)))
        else:
            if method == _BLOCKED:
                self.blocked = read_short(data, at + 11)[0] or "blocked"
            elif method == _UNBLOCKED:
                self.blocked = ""
            elif method == _CHANNEL_CLOSE and owner is not None:
                # before aiormq answers it: a frame written after that answer would end the connection
                del self.owners[number]
                code, text = _reason(data, at + 11)
                owner.closed(_BY_CODE.get(code, amqp.ChannelClosed)(text))
            self._pass_on(data[at:after])

    def _header(self, number: int, payload: bytes) -> None:
        content = self._contents.get(number)
        if content is None:
            return
        content.header = payload
        content.missing = _SIZE(payload, 4)[0]
        if not content.missing:
            self._whole(number, content, b"")

    def _body(self, number: int, payload: bytes) -> None:
        content = self._contents.get(number)
        if content is None:
            return
        content.missing -= len(payload)
        if content.parts or content.missing > 0:
            content.parts.append(payload)
            if content.missing > 0:
                return
            payload = b"".join(content.parts)
        self._whole(number, content, payload)

    def _whole(self, number: int, content: _Content, body: bytes) -> None:
        del self._contents[number]
        owner = self.owners.get(number)
        if owner is not None:
            owner.content(content.method, content.arguments, content.header, body)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        if self._taken_over:
            # aiormq logs a traceback for a connection that breaks; of one that it thinks was closed it says nothing
            self._pass_on(_CLOSE_OK)
        self._ended = True
        self._kept = b""
        if self._taken_over or error is None:
            super().feed_eof()
        else:
            super().set_exception(error)
        self._tell(error)


def _reason(data: bytes, at: int) -> tuple[int, str]:
    size = data[at + 2]
    return _CODE(data, at)[0], data[at + 3 : at + 3 + size].decode(errors="replace")


def read_short(data: bytes, at: int) -> tuple[str, int]:
    """A short string and where it ends. What is no UTF-8 in it is replaced."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(errors="replace"), end
