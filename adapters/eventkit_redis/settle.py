"""Settlements, gathered: one command for many of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from eventkit.adapter import RELEASE, Delivery, Done, Move, Receive, Release, Settlement
from eventkit.errors import LostMessage, MessageTooLarge, NotProvisioned
from eventkit_redis import codec
from eventkit_redis import scripts as lua
from eventkit_redis.keys import Keys
from eventkit_redis.link import Call, Link, command, script
from eventkit_redis.publish import member, milliseconds
from eventkit_redis.source import Source, Token

log = logging.getLogger("eventkit.redis")

FREE: Final = "eventkit:free"
"""The consumer that owns what was given back. Nobody reads under this name, so anybody may take it over at once."""
FREE_IDLE: Final = 24 * 3600 * 1000
"""Longer than any lease, in ms: taken over by the first that looks."""
_LINGER: Final = 0.002
_SOON: Final = 128
_MANY: Final = 8
"""From so many streams on a command of a stream shall hold `_EACH` settlements on average: it costs as much as five."""
_EACH: Final = 8
_LONGEST: Final = 10
"""But it is waited for that so many times `_LINGER` at most."""
_CHUNK: Final = 500
_AGAIN: Final = 0.25
_SAY_AGAIN: Final = 60.0
"""Seconds between two warnings that Redis has lost data."""


class Settler:
    """The settlements of one consumer."""

    def __init__(self, link: Link, keys: Keys, group: str, consumer: str, receive: Receive, takes: int) -> None:
        """`takes`: the largest value that this Redis takes, in bytes. One above it would end the connection."""
        self._takes = takes
        self._link = link
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._receive = receive
        self.freed: Callable[[int], None] = lambda count: None
        """Told how many are no longer held."""
        self.sure: Callable[[], bool] = lambda: False
        """Is it certain that all we hold is still ours? Then nothing needs to be checked on the server."""
        self._gathered = 0
        self._enough = _SOON
        self._waited = 0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._moves: list[tuple[Source, bytes, Delivery, Move]] = []
        self._dirty: set[Source] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said_lost = -_SAY_AGAIN
        self.own: frozenset[str] = frozenset()
        """Retry and dead-letter streams of the group: a copy makes them again where they got lost."""
        self.parked: Callable[[], None] = lambda: None
        """Told when something new waits."""

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        token: Token = delivery.token  # type: ignore[assignment]
        source, entry = token
        held = source.held
        if held.get(entry) is not token:
            return
        del held[entry]
        kind = type(how)
        if kind is Done:
            source.done.append(entry)
            self.freed(1)
        elif kind is Release:
            source.released[entry] = delivery
            self.freed(1)
        else:
            assert isinstance(how, Move)
            source.moving[entry] = token
            self._moves.append((source, entry, delivery, how))
        self._dirty.add(source)
        self._gathered += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._lingered)
        elif self._gathered == self._enough:
            if self._too_few():
                self._enough = _EACH * len(self._dirty)
            else:
                self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_soon(self._flush)

    async def drain(self) -> None:
        """Until Redis has confirmed all that was settled."""
        while self._timer is not None or self._tasks:
            if self._timer is not None:
                self._timer.cancel()
                self._flush()
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._timer is not None:
                await asyncio.sleep(_AGAIN / 4)  # one failed and is tried again

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()

    def _too_few(self) -> bool:
        """Would most commands hold a settlement or two?"""
        many = len(self._dirty)
        return many >= _MANY and self._gathered < many * _EACH and not self._moves

    def _lingered(self) -> None:
        self._waited += 1
        if self._waited < _LONGEST and self._too_few():
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._lingered)
        else:
            self._flush()

    def _flush(self) -> None:
        self._timer = None
        self._gathered = self._waited = 0
        self._enough = _SOON
        dirty, self._dirty = self._dirty, set()
        wire: list[bytes] = []
        told: list[Callable[[object], None]] = []
        for source in dirty:
            self._acks(source, wire, told)
        moves, self._moves = self._moves, []
        for move in moves:
            self._move(*move, wire, told)
        if wire:
            call = self._link.call(wire, len(wire), 10.0)
            task = asyncio.get_running_loop().create_task(self._finish(call, told))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish(self, call: Call, told: Sequence[Callable[[object], None]]) -> None:
        await call.future
        replies: list[Any] = list(call.replies)
        missing = call.error or ResponseError("Redis did not answer")
        replies += [missing] * (len(told) - len(replies))
        for tell, reply in zip(told, replies, strict=True):
            tell(reply)

    def _acks(self, source: Source, wire: list[bytes], told: list[Callable[[object], None]]) -> None:
        done, source.done = source.done, []
        source.acking.update(done)
        deletes = int(source.deletes)
        sure = self.sure()
        for at in range(0, len(done), _CHUNK):
            ids = done[at : at + _CHUNK]
            if sure and not deletes:
                wire.append(command("XACK", source.key, self._group, *ids))
            else:
                wire.append(script(lua.ACK, (source.key,), self._group, self._consumer, deletes, *ids))
            told.append(lambda reply, ids=ids: self._acked(source, ids, reply))  # type: ignore[misc]
        released, source.released = list(source.released.items()), {}
        for at in range(0, len(released), _CHUNK):
            some = dict(released[at : at + _CHUNK])
            about = (self._group, self._consumer, FREE, FREE_IDLE, deletes)
            wire.append(script(lua.RELEASE, (source.key, source.taken), *about, *some))
            told.append(lambda reply, some=some: self._gave_back(source, some, reply))  # type: ignore[misc]

    def _acked(self, source: Source, ids: list[bytes], reply: object) -> None:
        source.acking.difference_update(ids)
        if isinstance(reply, Exception):
            source.done += ids  # asked again until it is known: twice is harmless
            self._later(source)
        elif reply != len(ids):
            log.info(
                "%d of %d settlements in %s came too late: the messages had gone to another consumer or were deleted",
                *(len(ids) - int(reply), len(ids), source.key),  # type: ignore[call-overload]
            )

    def _gave_back(self, source: Source, some: Mapping[bytes, Delivery], reply: Any) -> None:
        if isinstance(reply, Exception):
            source.released.update(some)
            self._later(source)
            return
        count, lost = reply
        if lost:
            log.warning(
                "%d messages of %s that are in hand are no longer on this Redis, trimmed or lost, and cannot be given "
                "back: they go to the group's retry stream",
                *(len(lost), source.key),
            )
        for entry in lost:
            delivery = some[entry]
            source.held[entry] = delivery.token  # type: ignore[assignment]
            self.freed(-1)
            self._receive.unsettled(delivery, RELEASE, LostMessage(f"{source.key}, {delivery.position}"))
        if taken := len(some) - count - len(lost):
            log.info("%d messages of %s were not given back: another consumer has them", taken, source.key)

    def _later(self, source: Source) -> None:
        self._dirty.add(source)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AGAIN, self._flush)

    def _move(
        self,
        source: Source,
        entry: bytes,
        delivery: Delivery,
        how: Move,
        wire: list[bytes],
        told: list[Callable[[object], None]],
    ) -> None:
        copy = how.copy
        try:
            data = codec.encode(copy, fit=True)
            if len(data) > self._takes:
                raise MessageTooLarge(f"{copy.type or 'a message'} for {copy.address}", len(data), self._takes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the core is owed an answer
            self._moved(source, entry, delivery, how, error)
            return
        target = self._keys.stream(copy.address)
        must_exist = int(target not in self.own)
        about = (self._group, self._consumer, entry, int(source.deletes), must_exist)
        due = milliseconds(copy.due)
        if due is not None and copy.address.kind == "retry":
            name = copy.address.name
            keys = (source.key, self._keys.due(name), self._keys.waiting(name), target, source.taken)
            wire.append(script(lua.MOVE_LATER, keys, *about, member(copy), due, data))
        else:
            wire.append(script(lua.MOVE, (source.key, target, source.taken), *about, data))
        waits = due is not None

        def tell(reply: object) -> None:
            if reply == -1:
                reply = NotProvisioned(f"{copy.address}: there is no stream {target!r} on this Redis")
            self._moved(source, entry, delivery, how, reply)
            if waits and not isinstance(reply, Exception):
                self.parked()

        told.append(tell)

    def _moved(self, source: Source, entry: bytes, delivery: Delivery, how: Move, reply: object) -> None:
        if source.moving.get(entry) is not delivery.token:
            return
        del source.moving[entry]
        if isinstance(reply, Exception):
            source.held[entry] = delivery.token  # type: ignore[assignment]
            self._receive.unsettled(delivery, how, reply)
            return
        self.freed(1)
        if reply == 0:
            log.info("one message of %s was not moved: it had gone to another consumer", source.key)
        elif reply == 2:
            self._say_lost(source, how)

    def _say_lost(self, source: Source, how: Move) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._said_lost + _SAY_AGAIN:
            self._said_lost = now
            log.warning(
                "a message of %s that is in hand is no longer on this Redis, which has lost data (restarted without "
                "persistence, flushed, or failed over to a replica that was behind): its copy for %s is written all "
                "the same, and may be a repeat; so it is with others, and this is not said again for %d s",
                *(source.key, how.copy.address, _SAY_AGAIN),
            )
