"""What the core holds: deliveries lent to it, and how each is settled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Delivery, Done, Message, Move, Receive, Settlement
from eventkit.errors import Closed, LostMessage, NotProvisioned
from eventkit_kafka import codec
from eventkit_kafka.progress import LENT, MOVING, WAITING, Tracker
from eventkit_kafka.publish import Publisher

log = logging.getLogger("eventkit.kafka")

_AGAIN = 0.05
"""Seconds until a delivery that was given back is delivered again."""
_COPIES = 5.0
"""Seconds to wait for copies while partitions are taken away."""
_WRITE_AGAIN = 1.0
"""Seconds until what Kafka has lost, and did not take, is written again."""
_GATHER = 0.002
"""Seconds to wait for more room, rather than to fetch a few records at a time."""


class Lending:
    """Never more than `in_flight` are lent at once."""

    def __init__(
        self,
        group: str,
        receive: Receive,
        publisher: Publisher,
        in_flight: int,
        touched: Callable[[], None],
        missing: Callable[[], None],
    ) -> None:
        """`touched` is told of each settlement; `missing`, that a copy found no topic."""
        self.in_flight = in_flight
        self.lent = 0
        self.cut = False
        """Has Kafka ever lost anything that was in hand?"""
        self._group = group
        self._receive = receive
        self._publisher = publisher
        self._touched = touched
        self._missing = missing
        self._room: asyncio.Future[None] | None = None
        self._given_back: list[tuple[float, Delivery]] = []
        self._moves: list[tuple[Delivery, Move]] = []
        self._moving: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        return self.in_flight - self.lent

    def hold(self, at_most: int, /) -> None:
        """eventkit.adapter.Consumer.hold."""
        self.in_flight = at_most
        self._wake()

    def lend(self, tracker: Tracker, offset: int, message: Message, arrival: int = LENT) -> Delivery:
        """A delivery of something that waited."""
        tracker.pending[offset] = arrival
        if tracker.delivered is not None and tracker.delivered <= offset:
            tracker.delivered = offset + 1
            tracker.touched = True
        self.lent += 1
        count = tracker.count(offset) + arrival
        return codec.deliver(message, f"{tracker.prefix}{offset}", (tracker, offset, arrival), count)

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        """eventkit.adapter.Consumer.settle."""
        token: Any = delivery.token
        tracker, offset, arrival = token
        pending = tracker.pending
        if pending.get(offset) != arrival:
            return
        if how is DONE or isinstance(how, Done):
            del pending[offset]
            self.lent -= 1  # and the rest of `_returned`, without the price of a call for each message
            tracker.touched = True
            self._touched()
            if self._room is not None:
                self._wake()
        elif isinstance(how, Move):
            pending[offset] = MOVING
            if not self._moves:
                asyncio.get_running_loop().call_soon(self._flush_moves)
            self._moves.append((delivery, how))
        elif tracker.cut:
            self._receive.unsettled(delivery, how, LostMessage(f"{tracker.tp.topic}, {delivery.position}"))
        else:
            # We deliver it again ourselves: through the broker it would lose its place. If we stop before, it is not
            # committed, and the next reader of its partition gets it.
            pending[offset] = WAITING
            self._given_back.append((time.monotonic() + _AGAIN, delivery))
            self._returned(tracker)

    def take_given_back(self, batch: list[Delivery]) -> float | None:
        """Deliver again what was given back. Seconds until there is more; None: there is none."""
        if not self._given_back:
            return None
        now = time.monotonic()
        later: list[tuple[float, Delivery]] = []
        for at, delivery in self._given_back:
            tracker, offset, arrival = place(delivery)
            if at > now or self.room <= 0:
                later.append((at, delivery))
            elif tracker.open and tracker.pending.get(offset) == WAITING:
                batch.append(self.lend(tracker, offset, delivery.message, arrival + 1))
        self._given_back = later
        return max(later[0][0] - now, 0.001) if later else None

    async def wait_for_room(self) -> None:
        while self.room <= 0:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
        if self.room * 8 < self.in_flight:
            await asyncio.sleep(_GATHER)

    async def finish(self, trackers: Sequence[Tracker], drain: float, seconds: float) -> None:
        """These partitions are taken away: let the core end what it must, for `drain` at most, and wait for copies that
        are on their way, `seconds` in all."""
        ends = time.monotonic() + seconds
        lent = [tracker for tracker in trackers if tracker.lent()]
        try:
            async with asyncio.timeout(drain):
                await asyncio.gather(*(self._revoke(tracker) for tracker in lent))
        except TimeoutError:
            log.warning(
                "group %s: up to %d messages still run while their partitions go to another member; they run there too",
                self._group,
                sum(tracker.lent() for tracker in lent),
            )
        await self.moves_done(min(_COPIES, max(ends - time.monotonic(), 0.0)))

    def forget(self, trackers: Sequence[Tracker]) -> None:
        """These partitions are gone: whatever is settled of them from now on is too late."""
        gone = set(trackers)
        self._given_back = [(at, delivery) for at, delivery in self._given_back if place(delivery)[0] not in gone]
        for tracker in trackers:
            self.lent -= tracker.lent()
            tracker.pending.clear()
        self._wake()

    def cut_off(self, tracker: Tracker, messages: Sequence[Message]) -> None:
        """Kafka has lost what is in hand of this partition. These, which nobody was to have yet, are
        written anew; of what was given back, and is not delivered again yet, the core is told."""
        tracker.cut = self.cut = True
        given_back = [delivery for _, delivery in self._given_back if place(delivery)[0] is tracker]
        self._given_back = [(at, delivery) for at, delivery in self._given_back if place(delivery)[0] is not tracker]
        for delivery in given_back:
            _, offset, arrival = place(delivery)
            if tracker.pending.get(offset) == WAITING:
                tracker.pending[offset] = arrival
                self.lent += 1
                self.settle(delivery, RELEASE)
        if tracker.lent() or messages:
            log.warning(
                "group %s: Kafka has lost %d messages of topic %s, partition %d that are in hand: they are handled all "
                "the same, and their retries and dead letters are written; some may be repeats",
                *(self._group, tracker.lent() + len(messages), *tracker.tp),
            )
        if messages:
            self.in_background(self.write_anew(messages))

    async def write_anew(self, messages: Sequence[Message]) -> None:
        """Until Kafka has them all."""
        while messages:
            try:
                answers = await self._publisher.publish(messages)
            except Exception as error:  # noqa: BLE001 whatever it is: it is tried again
                answers = [error] * len(messages)
            messages = [message for message, answer in zip(messages, answers, strict=True) if answer is not None]
            if any(isinstance(answer, Closed) for answer in answers):
                log.error(
                    "group %s: stopped before %d retries that Kafka had lost were written anew: they are lost: %s",
                    self._group,
                    len(messages),
                    ", ".join(message.headers.get(h.ID, message.type) for message in messages[:5]),
                )
                return
            if messages:
                await asyncio.sleep(_WRITE_AGAIN)

    def still_ours(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """While we read, partitions were taken away: what the core has not seen is simply not delivered."""
        ours: list[Delivery] = []
        for delivery in batch:
            tracker, offset, arrival = place(delivery)
            if tracker.open:
                ours.append(delivery)
            elif tracker.pending.get(offset) == arrival:
                tracker.pending[offset] = WAITING
                self.lent -= 1
        return ours

    async def moves_done(self, seconds: float) -> None:
        """Until no copy is on its way, for so long at most."""
        self._flush_moves()
        if self._moving:
            await asyncio.wait(self._moving, timeout=seconds)

    def _returned(self, tracker: Tracker) -> None:
        self.lent -= 1
        tracker.touched = True
        self._touched()
        if self._room is not None:
            self._wake()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done() and self.room > 0:
            self._room.set_result(None)

    def _flush_moves(self) -> None:
        moves, self._moves = self._moves, []
        if moves:
            self.in_background(self._move(moves))

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done, copies are on their way."""
        task = asyncio.get_running_loop().create_task(work, name="eventkit kafka move")
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)

    async def _move(self, moves: Sequence[tuple[Delivery, Move]]) -> None:
        answers: list[Exception | None]
        try:
            answers = await self._publisher.publish([how.copy for _, how in moves])
        except Exception as error:  # noqa: BLE001 the originals are still there
            answers = [error] * len(moves)
        for (delivery, how), answer in zip(moves, answers, strict=True):
            tracker, offset, arrival = place(delivery)
            if tracker.pending.get(offset) != MOVING:
                continue  # taken away meanwhile: whoever has the partition now delivers the original again
            if answer is None:
                del tracker.pending[offset]
                self._returned(tracker)
            else:
                tracker.pending[offset] = arrival
                if isinstance(answer, NotProvisioned):
                    self._missing()
                self._receive.unsettled(delivery, how, answer)

    async def _revoke(self, tracker: Tracker) -> None:
        # What is settled out of order goes into the commit's metadata. Only if it does not fit must gaps be filled.
        cut = -1 if tracker.complete() else tracker.highest_settled()
        await self._receive.revoked(
            lambda delivery: place(delivery)[0] is tracker, lambda delivery: place(delivery)[1] < cut
        )


def place(delivery: Delivery) -> tuple[Tracker, int, int]:
    """Its partition, its offset, and which arrival it is: what our tokens are."""
    token: Any = delivery.token
    place: tuple[Tracker, int, int] = token
    return place
