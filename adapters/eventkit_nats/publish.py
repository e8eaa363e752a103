"""Publishing: each message on its way at once, each confirmed or explained."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from nats.errors import NoRespondersError
from nats.js.errors import APIError

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.errors import InvalidMessage, MessageTooLarge, NoOwner, NotProvisioned
from eventkit_nats.codec import encode
from eventkit_nats.exchange import ECHO, PAUSE, Answer, Exchange, NotNow, Question, error_of
from eventkit_nats.link import Link
from eventkit_nats.subjects import Subjects
from eventkit_nats.topology import Topology

_TOO_LARGE = 10054
"""Larger than the stream takes, which may be less than the server does."""
_HEADERS = 65_535
"""Bytes of headers that JetStream takes."""
_HEADROOM = 8_192
"""Of those, what only copies may use: a failure's text and stack are cut where they need more."""


class Publisher:
    def __init__(self, link: Link, exchange: Exchange, topology: Topology, subjects: Subjects) -> None:
        self._link = link
        self._exchange = exchange
        self._topology = topology
        self._subjects = subjects

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        """One answer each, in order; None is confirmed."""
        answers: list[Exception | None] = [None] * len(messages)
        unowned = await self._unowned({message.address for message in messages if message.address.kind == "inbox"})
        waiting: list[tuple[int, Question]] = []
        for place, message in enumerate(messages):
            if unowned and message.address in unowned:
                answers[place] = unowned[message.address]
                continue
            try:
                waiting.append((place, self._question(message)))
            except Exception as error:  # noqa: BLE001 - one that cannot be written harms no other
                answers[place] = error
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._exchange.timeout
        pause = PAUSE
        while waiting:
            results = await self._exchange.ask([question for _, question in waiting], deadline - loop.time())
            again: list[tuple[int, Question]] = []
            missing: dict[Address, Exception | None] = {}
            for item, result in zip(waiting, results, strict=True):
                if isinstance(result, bytes) and not _is_refusal(result):
                    continue
                reason = answers[item[0]] = await self._reason(messages[item[0]], result, missing)
                if isinstance(reason, NotNow):
                    again.append(item)
            waiting = again
            if waiting:
                if loop.time() + pause > deadline:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                for place, _ in waiting:
                    answers[place] = None
        return answers

    def _question(self, message: Message) -> Question:
        try:
            question, headers, size = encode(
                self._subjects.of(message.address, message.type), message, self._subjects.reply
            )
        except UnicodeEncodeError as problem:
            raise InvalidMessage(f"a header of {_name(message)} is no valid Unicode: {problem}") from problem
        first = message.address.kind in ("topic", "inbox")
        limit = self._link.largest if first else self._link.max_payload
        if size > limit:
            raise MessageTooLarge(_name(message), size, limit)
        if message.address.kind != "reply":
            room = _HEADERS - (_HEADROOM if first else 0)
            if headers > room:
                raise MessageTooLarge(f"the headers of {_name(message)}", headers, room)
            return question
        # No stream confirms a reply: an echo behind it does, when the server has handled it.
        head, rest = question
        return head.rstrip() + rest + b"PUB ", ECHO

    async def _unowned(self, inboxes: set[Address]) -> dict[Address, Exception]:
        unowned: dict[Address, Exception] = {}
        for inbox in inboxes:
            try:
                if not await self._topology.owned(inbox):
                    unowned[inbox] = _no_owner(inbox)
            except Exception as error:  # noqa: BLE001 - it becomes the answer
                unowned[inbox] = error
        return unowned

    async def _reason(self, message: Message, result: Answer, known: dict[Address, Exception | None]) -> Exception:
        """Why not. NotNow: soon perhaps."""
        if isinstance(result, NoRespondersError):
            address = message.address
            if address not in known:
                known[address] = await self._missing(address)
            return known[address] or NotNow("the stream has no leader")
        if isinstance(result, Exception):
            return result
        refusal = error_of(json.loads(result))
        if isinstance(refusal, APIError) and refusal.err_code == _TOO_LARGE:
            return await self._larger_than_the_stream_takes(message)
        return refusal

    async def _larger_than_the_stream_takes(self, message: Message) -> Exception:
        _, _, size = encode(b"", message, self._subjects.reply)
        try:
            limit = await self._topology.largest(message.address)
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            return error
        return MessageTooLarge(f"{_name(message)}, for its stream (max_msg_size),", size, limit)

    async def _missing(self, address: Address) -> Exception | None:
        """Why nobody takes messages to this address. None: its stream is there, so somebody will."""
        try:
            if await self._topology.exists(address):
                return None
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            return error
        if address.kind == "inbox":
            return _no_owner(address)
        return NotProvisioned(f"there is no stream for {address}")


def _is_refusal(answer: bytes) -> bool:
    """A stream may be named `error`, which its confirmations say."""
    return b'"error"' in answer and "error" in json.loads(answer)


def _no_owner(inbox: Address) -> NoOwner:
    return NoOwner(f"no service {inbox.name!r} has made its inbox on this broker")


def _name(message: Message) -> str:
    return f"{message.type or 'message'} {message.headers.get(h.ID, '(without id)')} to {message.address}"
