"""What is in hand: leases and settlements, each written once a turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from itertools import chain
from math import inf

from eventkit.adapter import RELEASE, Delivery, Done, Move, Receive, Release, Settlement
from eventkit.errors import LostMessage
from eventkit_nats.link import Link
from eventkit_nats.publish import Publisher

_ACK = b"PUB %b 4\r\n+ACK\r\n"
_NAK = b"PUB %b 4\r\n-NAK\r\n"
_NAK_LATER = b"PUB %b %d\r\n%b\r\n"
_PROGRESS = b"PUB %b 4\r\n+WPI\r\n"
_SAFE = 0.9
"""The part of a lease in which we settle: past it the message may be on its way to another."""
_LONGEST = 24 * 3600.0
"""Seconds after which one that is put off comes again, and is put off again: for ever is no number that NATS takes."""
_ORPHAN = inf
"""Until when one is ours whose stream is gone: it comes to nobody again, and its sequence may be that of another
message, in the stream that has taken its place. So nothing is said of it to the server any more."""
_RECENT = 2.0
"""Seconds after which a server has written down what was acknowledged."""


def sequence(reply: bytes) -> int:
    """Of a message in its stream, by the subject of its acknowledgement."""
    parts = reply.split(b".")
    # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>..., on some servers with domain and account before
    return int(parts[5 if len(parts) == 9 else 7])


def stored(reply: bytes) -> datetime:
    """When that message came into its stream."""
    parts = reply.split(b".")
    return datetime.fromtimestamp(int(parts[7 if len(parts) == 9 else 9]) / 1e9, UTC)


def _reply(ack: bytes) -> bytes:
    return ack.split(b" ", 2)[1]


class Settling:
    """The deliveries of one consumer, each by the subject of its acknowledgement."""

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        receive: Receive,
        schedule: Callable[[], None],
        lost: Callable[[AbstractSet[object]], None],
        begin: Callable[[Delivery], None],
    ) -> None:
        """`lost`: told which are no longer ours, though nobody settled them. `begin`: given one of those that is on no
        broker any more, so that nobody else can have it."""
        self.lease = 30.0
        """Seconds."""
        self.retrying: set[bytes] = set()
        """Those from the retry stream."""
        self._link = link
        self._publisher = publisher
        self._receive = receive
        self._schedule = schedule
        self._lost = lost
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        # Until when they are ours. One leaves `_held` for `_moving` while its copy is being published.
        self._held: dict[bytes, float] = {}
        self._moving: dict[bytes, float] = {}
        self._back: dict[bytes, Delivery] = {}
        """Of those held, what is given back when the server may be told so."""
        self._keeping = False
        self._lapsed: dict[bytes, float] = {}
        """Of sources whose stream may be another by now, what was not renewed in time."""
        self._kept: dict[bytes, tuple[Delivery, Settlement | None]] = {}
        """Of those, how they were settled since; None: they were taken back from the core before they had begun."""
        self._moves: list[tuple[Delivery, Move]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: list[bytes] = []
        self._acks: list[bytes] = []
        # Acknowledgements of the last seconds. A server that crashed or was cut off may not have them: they are sent
        # again before anything is asked for. Twice is harmless: the work is done.
        self._recent: deque[tuple[float, list[bytes]]] = deque()
        self._doubted: set[bytes] = set()
        """Sources whose stream may be another by now."""
        self._trusted = asyncio.Event()

    @property
    def undecided(self) -> bool:
        """Does anything that was settled wait until it is known which streams are there?"""
        return bool(self._doubted and (self._acks or self._back or self._lapsed))

    @property
    def count(self) -> int:
        """What counts as in flight."""
        return len(self._held) - len(self._back) + len(self._moving)

    def oldest(self, source: bytes) -> int | None:
        """The lowest sequence in hand of a source, named by how its acknowledgements begin."""
        leases = chain(self._held.items(), self._moving.items())
        return min((sequence(reply) for reply, until in leases if source in reply and until != _ORPHAN), default=None)

    def orphan(self, source: bytes, since: datetime) -> None:
        """The stream of this source is another `since` then: what is in hand of the old one is gone with it."""
        for leases in (self._held, self._moving, self._lapsed):
            gone = [reply for reply in leases if source in reply and stored(reply) < since]
            leases.update((reply, _ORPHAN) for reply in gone)
        self._take_back(lambda ack: source in ack and stored(_reply(ack)) < since)

    def known(self, source: bytes) -> list[bytes]:
        """What is in hand of a source, or was acknowledged in the last seconds, in the order of its stream."""
        acks = chain(self._acks, *(some for _, some in self._recent))
        replies = {*self._held, *self._moving, *self._lapsed, *map(_reply, acks)}
        return sorted((reply for reply in replies if source in reply), key=sequence)

    def lose(self, gone: Collection[bytes]) -> None:
        """Their stream has lost these, and gives their sequences to others."""
        for leases in (self._held, self._moving, self._lapsed):
            leases.update((reply, _ORPHAN) for reply in gone if reply in leases)
        self._take_back(lambda ack: _reply(ack) in gone)

    def anew(self, source: bytes) -> None:
        """Its durable was made anew: what was settled in the last seconds comes again. Some servers would skip all that
        stands before what is acknowledged and has not come."""
        self._take_back(lambda ack: source in ack)

    def _take_back(self, which: Callable[[bytes], bool]) -> None:
        """Acknowledgements that are not to be sent, nor sent once more."""
        self._acks = [ack for ack in self._acks if not which(ack)]
        self._recent = deque((at, [ack for ack in acks if not which(ack)]) for at, acks in self._recent)

    def doubt(self, source: bytes) -> None:
        """Its stream may be another by now, with other messages under the same sequences: until `trust` nothing is
        finished or given back there. What was acknowledged in the last seconds waits for that once more."""
        self._doubted.add(source)
        recent = [ack for _, some in self._recent for ack in some if source in ack]
        self._recent = deque((at, [ack for ack in some if source not in ack]) for at, some in self._recent)
        self._acks[:0] = recent

    def trust(self, source: bytes) -> None:
        """Its stream is known; `orphan` was told, if it is another."""
        self._doubted.discard(source)
        self._give_back()
        for reply in sorted((reply for reply in self._lapsed if source in reply), key=sequence):
            self._decide(reply, *self._kept.pop(reply, (None, None)))
        self.flush()
        self._trusted.set()

    def took_back(self, delivery: Delivery) -> None:
        """One of those that were lost has not begun, and the core has forgotten it."""
        reply = delivery.token
        if isinstance(reply, bytes) and reply in self._lapsed:
            self._kept[reply] = (delivery, None)

    def holds(self, reply: object) -> bool:
        return reply in self._held

    def _decide(self, reply: bytes, delivery: Delivery | None, how: Settlement | None) -> None:
        """It was not renewed in time: another has it, or will; or it is ours again, since the broker has lost it."""
        if self._lapsed.pop(reply) != _ORPHAN:
            self.retrying.discard(reply)
            return
        self._held[reply] = _ORPHAN
        if delivery is None:
            return  # it runs
        if how is None:
            self._begin(delivery)
        else:
            self.settle(delivery, how)

    def take(self, reply: bytes, since: float) -> None:
        """It has arrived, and became ours then, or later."""
        self._held[reply] = since + self.lease * _SAFE

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        """What is not held (any more) is left alone."""
        reply = delivery.token
        if not isinstance(reply, bytes):
            return
        if self._back and reply in self._back:
            return
        until = self._held.pop(reply, None)
        if until is None:
            if reply in self._lapsed:
                self._kept[reply] = (delivery, how)
            return
        ours = until > self._loop.time()
        if not ours and self._is_doubted(reply):
            self._lapsed[reply], self._kept[reply] = until, (delivery, how)
            return
        if until == _ORPHAN and isinstance(how, Release):
            self._held[reply] = until
            self._receive.unsettled(delivery, how, LostMessage(f"its stream is gone: {reply.decode()}"))
            return
        if ours and isinstance(how, Release) and (self._keeping or self._is_doubted(reply)):
            # in a stream that has taken the place of its own it would be lost
            self._held[reply] = until
            self._back[reply] = delivery
            return
        if ours and isinstance(how, Move):
            self._moving[reply] = until
            self._moves.append((delivery, how))
        else:
            self.retrying.discard(reply)
            if ours and until != _ORPHAN:
                if isinstance(how, Done):
                    self._acks.append(_ACK % reply)
                else:
                    self._out.append(_NAK % reply)
        self._schedule()

    def keep_back(self) -> None:
        """What is given back is told to the server later: it would come to a request of ours that waits there still,
        counted once more and behind what is given back after it."""
        self._keeping = True

    def give_back(self) -> None:
        """The server has no request of ours any more, or it may have some again."""
        self._keeping = False
        self._give_back()
        self._schedule()

    def _give_back(self) -> None:
        """What may be now, in order: it comes again in that."""
        back, self._back = self._back, {}
        for reply in sorted(back, key=sequence):
            self.settle(back[reply], RELEASE)

    def park(self, reply: bytes, seconds: float) -> None:
        """Not due yet: the server keeps it until then. It takes no room here and holds up nobody."""
        body = b'-NAK {"delay": %d}' % max(1, round(min(seconds, _LONGEST) * 1e9))
        self._out.append(_NAK_LATER % (reply, len(body), body))
        self._schedule()

    def flush(self) -> None:
        if self._moves:
            moves, self._moves = self._moves, []
            task = self._loop.create_task(self._move(moves))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._acks:
            acks, self._acks = self._acks, []
            if self._doubted:
                self._acks = [ack for ack in acks if self._is_doubted(ack)]
                acks = [ack for ack in acks if not self._is_doubted(ack)]
            self._link.write(b"".join(acks))
            now, recent = self._loop.time(), self._recent
            recent.append((now, acks))
            while recent[0][0] < now - _RECENT:
                recent.popleft()
        if self._out:
            self._link.write(b"".join(self._out))
            self._out.clear()

    def renew(self, now: float) -> None:
        """Leases of which a third has passed begin anew; one that has run out is another's, perhaps."""
        renewed = now + self.lease * _SAFE
        soon = now + self.lease * (_SAFE - 1 / 3) + 0.001
        lines: list[bytes] = []
        for leases in (self._held, self._moving):
            for reply, until in leases.items():
                if now < until < soon:
                    leases[reply] = renewed
                    lines.append(_PROGRESS % reply)
        if lines:
            self._link.write(b"".join(lines))
        gone = {reply for reply, until in self._held.items() if until <= now}
        for reply in gone:
            until, back = self._held.pop(reply), self._back.pop(reply, None)
            if self._is_doubted(reply):
                self._lapsed[reply] = until
                if back is not None:
                    self._kept[reply] = (back, RELEASE)
            else:
                self.retrying.discard(reply)
        if gone:
            self._lost(gone)

    async def moved(self) -> None:
        """Until all that was settled is written, and no copy is on its way."""
        keeping, self._keeping = self._keeping, False
        self._give_back()
        self._keeping = keeping
        self.flush()
        while self._tasks or self.undecided:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                self._trusted.clear()
                await self._trusted.wait()
            self.flush()

    async def end(self, deadline: float) -> None:
        """Copies that are on their way are waited for; what is in hand then is given back."""
        self.flush()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - self._loop.time()))
            for task in self._tasks:
                task.cancel()
        now = self._loop.time()
        ours = (reply for reply, until in chain(self._held.items(), self._moving.items()) if now < until < _ORPHAN)
        self._out += [_NAK % reply for reply in sorted(ours, key=sequence)]
        self._back.clear()
        self._lapsed.clear()
        self._kept.clear()
        self._held.clear()
        self._moving.clear()
        self.retrying.clear()
        self.flush()

    def _is_doubted(self, reply: bytes) -> bool:
        return any(source in reply for source in self._doubted)

    async def _move(self, moves: Sequence[tuple[Delivery, Move]]) -> None:
        answers: Sequence[Exception | None]
        try:
            answers = await self._publisher.publish([how.copy for _, how in moves])
        except Exception as error:  # noqa: BLE001 - it is told for each
            answers = [error] * len(moves)
        for (delivery, how), answer in zip(moves, answers, strict=True):
            reply = delivery.token
            assert isinstance(reply, bytes)
            until = self._moving.pop(reply, None)
            if until is None:
                continue
            if answer is None:
                self.retrying.discard(reply)
                if self._loop.time() < until < _ORPHAN:
                    self._acks.append(_ACK % reply)
            else:
                self._held[reply] = until
                self._receive.unsettled(delivery, how, answer)
        self._schedule()
