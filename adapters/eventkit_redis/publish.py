"""Publishing: one XADD a message, all of them in one write."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.errors import MessageTooLarge, NoOwner, NotProvisioned
from eventkit_redis import codec
from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Call, Link, command, script
from eventkit_redis.replicated import Replicated
from eventkit_redis.settings import RedisSettings
from eventkit_redis.trim import Trimmer

log = logging.getLogger("eventkit.redis")

HEADROOM = 65_536
"""What a copy may be larger than its original, in bytes: what failed, and why, percent-encoded."""


class _Target(NamedTuple):
    """How a message gets to one address."""

    kind: str
    key: str
    prefix: bytes
    """The XADD up to the length of the envelope."""
    always: bytes
    """The same, creating the stream where it is missing."""
    suffix: bytes
    """What follows the envelope."""
    replies: int


class Publisher:
    """The sending side of one adapter."""

    def __init__(
        self, link: Link | Replicated, keys: Keys, settings: RedisSettings, largest: int, trimmer: Trimmer
    ) -> None:
        self._link = link
        self._keys = keys
        self._settings = settings
        self._largest = largest
        self._timeout = settings.publish_timeout.total_seconds()
        self._trimmer = trimmer
        self._targets: dict[Address, _Target] = {}
        self.created: set[str] = set()
        """Streams of topics that this process made sure of: made again where they got lost."""

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        answers: list[Exception | None] = [None] * len(messages)
        wire: list[bytes] = []
        asked: list[tuple[int, _Target]] = []
        wanted = 0
        for index, message in enumerate(messages):
            try:
                data = self._encoded(message)
            except Exception as error:  # noqa: BLE001 - one that cannot be written harms no other
                answers[index] = error
                continue
            target = self._target(message.address)
            asked.append((index, target))
            wanted += target.replies
            if message.due is not None and (parked := park(self._keys, message, data)) is not None:
                wire.append(parked)
                continue
            wire += (target.prefix, b"%d\r\n" % len(data), data, target.suffix)
        if not asked:
            return answers
        call = self._link.call(wire, wanted, self._timeout)
        await call.future
        missing = _answer(answers, asked, call)
        if missing:
            await self._again(answers, messages, missing)
        self._count(answers, asked)
        return answers

    def _encoded(self, message: Message) -> bytes:
        data = codec.encode(message)
        limit = self._largest + (HEADROOM if message.address.kind in ("retry", "dead") else 0)
        if len(data) > limit:
            raise MessageTooLarge(f"{message.type or 'message'} for {message.address}", len(data), limit)
        return data

    def _target(self, address: Address) -> _Target:
        target = self._targets.get(address)
        if target is None:
            target = self._made(address)
            if len(self._targets) > 10_000:  # reply addresses come and go
                self._targets.clear()
            self._targets[address] = target
        return target

    def _made(self, address: Address) -> _Target:
        key = self._keys.stream(address)
        if address.kind == "topic" and address.physical is None:
            self._trimmer.own(key)
        if address.kind == "reply":
            start = _xadd(key, "MAXLEN", "~", self._settings.reply_length)
            expiry = int(self._settings.reply_expiry.total_seconds() * 1000)
            return _Target("reply", key, start, start, b"\r\n" + command("PEXPIRE", key, expiry), 2)
        return _Target(address.kind, key, _xadd(key, "NOMKSTREAM"), _xadd(key), b"\r\n", 1)

    async def _again(self, answers: list[Exception | None], messages: Sequence[Message], missing: list[int]) -> None:
        """Topics of ours that were deleted, or lost with the broker's memory: the messages make them again."""
        wire: list[bytes] = []
        asked: list[tuple[int, _Target]] = []
        for index in missing:
            message = messages[index]
            target = self._target(message.address)
            if target.kind == "topic" and target.key in self.created:
                data = codec.encode(message)
                wire += (target.always, b"%d\r\n" % len(data), data, target.suffix)
                asked.append((index, target))
            else:
                answers[index] = _not_there(message.address, target.key)
        if not asked:
            return
        lost = {target.key for _, target in asked}
        log.error("these topics were gone from Redis, with all they held, and are made again: %s", sorted(lost))
        call = self._link.call(wire, len(asked), self._timeout)
        await call.future
        _answer(answers, asked, call)

    def _count(self, answers: list[Exception | None], asked: list[tuple[int, _Target]]) -> None:
        last = asked[-1][1]
        if last is asked[0][1]:  # nearly always: all to one topic
            if last.kind == "topic":
                self._trimmer.added(last.key, len(asked))
            return
        for index, target in asked:
            if target.kind == "topic" and answers[index] is None:
                self._trimmer.added(target.key, 1)


def park(keys: Keys, message: Message, data: bytes) -> bytes | None:
    """The command that keeps a message until it is due; None: it is due now, or goes where nothing waits."""
    due = milliseconds(message.due)
    if due is None or message.address.kind != "retry":
        return None
    name = message.address.name
    stream = keys.stream(message.address)
    return script(lua.PARK, (keys.due(name), keys.waiting(name), stream), member(message), due, data)


def milliseconds(due: datetime | None) -> int | None:
    """Since 1970, the first that is not before `due`; None: now."""
    if due is None:
        return None
    stamp = due.timestamp()
    return ceil(stamp * 1000) if stamp > time.time() else None


def member(message: Message) -> str:
    """Publishing one copy twice keeps it once."""
    return message.headers.get(h.MESSAGE_ID) or str(uuid.uuid4())


def _xadd(key: str, *options: str | int) -> bytes:
    whole = command("XADD", key, *options, "*", codec.FIELD, b"")
    return whole[: -len(b"0\r\n\r\n")]


def _answer(answers: list[Exception | None], asked: list[tuple[int, _Target]], call: Call) -> list[int]:
    """Put each reply in its place; returns those whose stream is missing."""
    replies = call.replies
    at = 0
    missing: list[int] = []
    for index, target in asked:
        if at >= len(replies):
            answers[index] = _unknown(call.error)
            continue
        reply = replies[at]
        at += target.replies
        if reply is None or reply == -1:
            missing.append(index)
        elif isinstance(reply, Exception):
            answers[index] = reply
    return missing


def _unknown(error: Exception | None) -> Exception:
    if isinstance(error, RedisTimeoutError):
        return TimeoutError(f"{error}: it may or may not have been published")
    return error or RedisConnectionError("the connection was lost before Redis answered")


def _not_there(address: Address, key: str) -> Exception:
    if address.kind == "inbox":
        return NoOwner(
            f"no service {address.name!r} has an inbox on this Redis (no stream {key!r}): start it once first"
        )
    return NotProvisioned(f"{address}: there is no stream {key!r} on this Redis; provision it first")
