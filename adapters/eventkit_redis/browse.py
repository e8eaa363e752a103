"""Looking into an address, and taking things out of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from eventkit.adapter import Address, Backlog, Delivery, Group, Waiting
from eventkit_redis import codec
from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Link, command, script
from eventkit_redis.settle import FREE

_PAGE: Final = 100


class Kept(NamedTuple):
    """Where `browse` saw a message."""

    address: Address
    id: bytes
    """Of the entry; of a waiting one its member in the sorted set."""
    waits: bool


async def browse(link: Link, keys: Keys, address: Address) -> AsyncIterator[Delivery]:
    """What is there now, oldest first: of a retry address first what is due, then what waits, by its time."""
    key = keys.stream(address)
    (newest,) = await link.ask(command("XREVRANGE", key, "+", "-", "COUNT", 1))
    after = b"-"
    while newest:
        (page,) = await link.ask(command("XRANGE", key, after, newest[0][0], "COUNT", _PAGE))
        for entry, fields in page:
            message = codec.message(address, fields)
            yield Delivery(message, entry.decode(), None, Kept(address, entry, waits=False))
        if len(page) < _PAGE:
            break
        after = b"(" + page[-1][0]
    if address.kind == "retry":
        async for delivery in _waiting(link, keys, address):
            yield delivery


async def _waiting(link: Link, keys: Keys, address: Address) -> AsyncIterator[Delivery]:
    (members,) = await link.ask(command("ZRANGE", keys.due(address.name), 0, -1))
    for at in range(0, len(members), _PAGE):
        page = members[at : at + _PAGE]
        (envelopes,) = await link.ask(command("HMGET", keys.waiting(address.name), *page))
        for member, data in zip(page, envelopes, strict=True):
            if data is not None:
                message = codec.message(address, (codec.FIELD, data))
                yield Delivery(message, f"waiting:{member.decode()}", None, Kept(address, member, waits=True))


async def remove(link: Link, keys: Keys, deliveries: Sequence[Delivery]) -> list[Exception | None]:
    """Delete what `browse` gave."""
    wire: list[bytes] = []
    for delivery in deliveries:
        wire += _removal(keys, delivery.token)
    if not wire:
        return []
    call = link.call(wire, len(wire), 10.0)
    await call.future
    replies: list[Any] = list(call.replies)
    replies += [call.error or ResponseError("Redis did not answer")] * (len(wire) - len(replies))
    pairs = zip(replies[::2], replies[1::2], strict=True)
    return [next((reply for reply in pair if isinstance(reply, Exception)), None) for pair in pairs]


def _removal(keys: Keys, token: object) -> tuple[bytes, bytes]:
    if not isinstance(token, Kept):
        raise TypeError("remove() takes what browse() gave")
    address, entry, waits = token
    if waits:
        return command("ZREM", keys.due(address.name), entry), command("HDEL", keys.waiting(address.name), entry)
    key = keys.stream(address)
    # Whoever is working on it may finish; nobody gets it again.
    return command("XACK", key, keys.group(address.name), entry), command("XDEL", key, entry)


async def measure(link: Link, keys: Keys, group: Group) -> Backlog:
    """What waits for a group."""
    sources = keys.all(group)
    name = keys.group(group)
    wire = [script(lua.MEASURE, (keys.stream(source),), name, int(source.kind != "topic"), FREE) for source in sources]
    wire += [command("ZCARD", keys.due(group.name)), command("XLEN", keys.stream(group.dead))]
    *streams, delayed, dead, consumers = await link.ask(*wire, script(lua.READERS, (keys.readers(group.name),)))
    found = {source: _waiting_in(stream, consumers) for source, stream in zip(sources, streams, strict=True) if stream}
    counts = [waiting.ready for waiting in found.values()]
    known = [count for count in counts if count is not None]
    return Backlog(
        ready=sum(known) if known and len(known) == len(counts) else None,
        in_flight=sum(waiting.in_flight or 0 for waiting in found.values()) if found else None,
        delayed=delayed,
        dead=dead,
        oldest=max((waiting.oldest for waiting in found.values() if waiting.oldest is not None), default=None),
        consumers=consumers,
        sources={source: waiting for source, waiting in found.items() if source != group.retry},
    )


def _waiting_in(stream: Sequence[int], consumers: int) -> Waiting:
    """Of what MEASURE found. What was delivered to those that are gone is ready."""
    ready, in_flight, unread, held = stream
    ages = [unread] if consumers else [unread, held]
    if not consumers:
        ready, in_flight = ready + in_flight if ready >= 0 else ready, 0
    oldest = max(ages)
    return Waiting(None if ready < 0 else ready, in_flight, timedelta(milliseconds=oldest) if oldest >= 0 else None)
