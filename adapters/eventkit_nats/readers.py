"""Who reads a group now: each of its consumers answers a ping. JetStream knows of requests, and not who made them."""

from __future__ import annotations

import asyncio
from itertools import count

from eventkit_nats.exchange import Exchange
from eventkit_nats.link import Link
from eventkit_nats.subjects import Subjects

_FIRST = 1.0
"""Seconds within which the first answer comes."""
_QUIET = 0.25
"""Seconds without an answer after which no more come."""
_numbers = count(1)


def answer(link: Link, subjects: Subjects, group: str) -> int:
    """Answer pings from now on. Returns the number of the subscription, which ends it."""

    def tell(_subject: bytes, reply: bytes, _data: bytes, _headers: bytes | None) -> None:
        if reply:
            link.write(b"PUB %b 0\r\n\r\n" % reply)

    return link.subscribe(subjects.readers(group), tell)


async def ask(link: Link, exchange: Exchange, subjects: Subjects, group: str) -> int:
    """How many answer. One that stands still does not."""
    answers = 0
    nobody = False
    came = asyncio.Event()

    def take(_subject: bytes, _reply: bytes, _data: bytes, headers: bytes | None) -> None:
        nonlocal answers, nobody
        if headers is not None and headers.startswith(b"NATS/1.0 503"):
            nobody = True
        else:
            answers += 1
        came.set()

    inbox = f"{link.inbox}.r.{next(_numbers)}"
    sid = link.subscribe(inbox, take)
    try:
        await exchange.fence(exchange.timeout)  # the link is up, and the server knows of the inbox
        link.write(f"PUB {subjects.readers(group)} {inbox} 0\r\n\r\n".encode())
        wait = _FIRST
        while not nobody:
            came.clear()
            try:
                async with asyncio.timeout(wait):
                    await came.wait()
            except TimeoutError:
                break
            wait = _QUIET
    finally:
        link.unsubscribe(sid)
        link.forget(sid)
    return answers
