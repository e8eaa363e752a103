"""Consuming a group's queue: one channel at a time, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from time import time
from typing import Any

from aiormq import exceptions as amqp

from eventkit.adapter import Address, Delivery, Group, Message, Move, Receive, Release, Settlement
from eventkit.cancelling import unbroken
from eventkit.errors import LostMessage, NotProvisioned
from eventkit_rabbit import delay
from eventkit_rabbit.link import Link
from eventkit_rabbit.names import Names
from eventkit_rabbit.session import Origins, Session, held
from eventkit_rabbit.subscription import Subscription
from eventkit_rabbit.wire import uncut

log = logging.getLogger("eventkit.rabbit")

Publish = Callable[[Sequence[Message]], Awaitable[Sequence[Exception | None]]]

_FLUSH = 50
"""Settlements that are written at once; fewer wait for company,"""
_FLUSH_AFTER = 0.005
"""at most so many seconds."""
_OPEN = 15.0
"""Seconds for opening a consumer's channel."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_LEAST = 0.5
"""Seconds for closing the channel when the time to stop is over."""
_EARLY = 0.02
"""Seconds. What is due this soon is not parked again."""


class RabbitConsumer:
    """A running subscription of one group."""

    def __init__(
        self,
        link: Link,
        names: Names,
        group: Group,
        receive: Receive,
        *,
        in_flight: int,
        publish: Publish,
        provide: Callable[[], Awaitable[None]],
        timeout: timedelta | None,
    ) -> None:
        self._link = link
        self._queue = names.queue(group.name)
        self._group = group
        self._receive = receive
        self._publish = publish
        self._provide = provide
        self._origins = Origins(group, names)
        self._at_most = in_flight
        self._flush_at = 1
        self._arguments: dict[str, Any] = {}
        if timeout is not None:
            self._arguments["x-consumer-timeout"] = int(timeout.total_seconds() * 1000)
        self._session: Session | None = None
        self._subscription: Subscription
        """The session's."""
        self._error: Exception | None = None
        self._arrived: list[Delivery] = []
        self._some = asyncio.Event()
        self._paused = False
        self._keeps_back = False
        """Since a pause: is what is given back kept here, until it cannot come here once more?"""
        self._changing = False
        self._waits = False
        """Does something that came, or a larger prefetch, wait until some of what is held is settled?"""
        self._switch = asyncio.Lock()
        self._moves: list[tuple[Delivery, Move]] = []
        self._moving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def error(self) -> Exception | None:
        return self._error

    @property
    def stopped(self) -> bool:
        return self._stopping

    async def start(self) -> None:
        """Live, or why not."""
        try:
            session = await self._open()
        except amqp.ChannelNotFoundEntity as error:
            raise NotProvisioned(f"group {self._group.name}: no queue {self._queue} on RabbitMQ") from error
        self._start(self._keep(session), "keep")
        self._start(self._hand_over(), "hand over")

    def _start(self, work: Any, name: str, among: set[asyncio.Task[None]] | None = None) -> None:
        tasks = self._tasks if among is None else among
        task = asyncio.create_task(work, name=f"eventkit rabbit {self._group.name} {name}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # --- sessions ---

    async def _open(self) -> Session:
        async with asyncio.timeout(_OPEN):
            wire = await self._link.wire()
            session = Session(wire, self._take, self._origins)
            session.channel = await wire.channel(session)
            try:
                self._session = session
                self._subscription = Subscription(session, self._queue, self._arguments)
                await self._apply()
            except BaseException:
                self._session = None
                self._arrived.clear()  # what it brought already comes again
                await session.leave()
                raise
        return session

    async def _keep(self, session: Session) -> None:
        while True:
            reason = await session.over
            self._session, self._error = None, reason
            self._arrived.clear()
            if not session.deleted:  # nobody brings again what was in a deleted queue
                self._start(self._drop(session), "drop")
            if isinstance(reason, NotProvisioned):  # the broker has ended the consumer, and not the channel
                self._start(session.leave(), "leave")
            said = not session.wire.lost.done()  # of a lost connection the link speaks
            if said:
                log.warning("group %s no longer consumes %s: %s; trying again", self._group.name, self._queue, reason)
            session = await self._reopen(session.deleted, said)
            self._error = None

    async def _drop(self, session: Session) -> None:
        """What came on a channel that is gone comes again: what has not begun runs then, and not now, too."""
        await self._receive.revoked(lambda delivery: held(delivery)[0] is session, None)

    async def _reopen(self, deleted: bool, said: bool) -> Session:
        pause = _FIRST_PAUSE
        while True:
            try:
                if deleted:
                    await unbroken(self._provide())
                session = await unbroken(self._open())
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 (the consumer must outlive whatever the broker says)
                if not isinstance(error, TimeoutError):
                    self._error = error
                deleted = deleted or isinstance(error, amqp.ChannelNotFoundEntity)
                if self._link.now() is not None and not said:
                    said = True
                    log.warning("group %s still does not consume %s: %s", self._group.name, self._queue, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if said:
                log.info("group %s consumes %s again", self._group.name, self._queue)
            return session

    async def _apply(self) -> None:
        """Make the broker deliver, or not, as it is wanted now."""
        async with self._switch:
            session = self._session
            if session is None or session.over.done() or self._stopping:
                return
            subscription = self._subscription
            if self._paused:
                if subscription.on:
                    async with subscription.still():  # or for a while: what comes stays here, and counts for nothing
                        if self._paused and not self._stopping and not session.over.done():
                            await subscription.end()
                self._keeps_back = subscription.on
                self._write(session)
            elif not subscription.on:
                await subscription.begin(subscription.wants(self._at_most))
            elif subscription.prefetch != (prefetch := subscription.wants(self._at_most)):
                await subscription.change(prefetch)
                self._write(session)
            self._flush_at = max(1, min(_FLUSH, subscription.prefetch // 4))

    async def _change_over(self) -> None:
        try:
            await self._switch_over()
        finally:
            self._changing = False
            self._some.set()  # it may be to change again

    async def _switch_over(self) -> None:
        session = self._session
        try:
            async with asyncio.timeout(_OPEN):
                await unbroken(self._apply())
        except Exception as error:  # noqa: BLE001 (a channel that cannot be switched is replaced)
            if session is not None:
                await session.leave()
                session.end(error)

    # --- deliveries ---

    def _take(self, delivery: Delivery) -> None:
        self._arrived.append(delivery)
        self._some.set()
        if self._subscription.keeping:
            self._subscription.arrived()

    async def _hand_over(self) -> None:
        some, receive = self._some, self._receive.deliveries
        while True:
            await some.wait()
            some.clear()
            if self._paused or self._stopping:
                continue
            self._reconsider()
            if not self._arrived:
                continue
            session, _ = held(self._arrived[0])
            if session.over.done():
                self._arrived.clear()  # they come again on the next channel
                continue
            # what came before the prefetch was changed does not count for the broker
            room = max(self._at_most - session.tags.unsettled + len(self._arrived), 0)
            self._waits |= room < len(self._arrived)
            batch, self._arrived = self._arrived[:room], self._arrived[room:]
            if not batch:
                continue
            if any(delivery.message.due is not None for delivery in batch):
                batch = self._park(batch)
            try:
                await receive(batch)
            except Exception as error:
                log.exception("group %s: a batch could not be handed over", self._group.name)
                await session.leave()
                session.end(error)

    def _park(self, batch: list[Delivery]) -> list[Delivery]:
        """Send on what waits for longer than its rung was, and is not due yet; the others."""
        soon = time() + _EARLY
        now = []
        for delivery in batch:
            due = delivery.message.due
            if due is not None and due.timestamp() > soon:
                self.settle(delivery, Move(delivery.message._replace(address=self._group.retry)))
            else:
                now.append(delivery)
        return now

    def hold(self, at_most: int, /) -> None:
        self._at_most = at_most
        self._some.set()

    def _reconsider(self) -> None:
        """Have the broker deliver as many at once as are to be held now."""
        subscription = self._subscription
        there = subscription.session is self._session
        if there and not self._changing and subscription.may_change(self._at_most):
            self._changing = True  # one at a time: each keeps acknowledgements back for a while
            self._start(self._change_over(), "hold")
        self._waits = subscription.short(self._at_most)

    def pause(self) -> None:
        self._paused = self._keeps_back = True
        self._subscription.give_up()
        self._start(self._switch_over(), "pause")

    def resume(self) -> None:
        self._paused = self._keeps_back = False
        self._subscription.give_up()
        self._flush()
        self._some.set()
        self._start(self._switch_over(), "resume")

    # --- settlements ---

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        session, tag = held(delivery)
        tags = session.tags
        if not tags.holds(tag):
            return
        if not self._settles(session):
            if not session.deleted:
                return
            if isinstance(how, Release):  # there is nothing that it could go back to
                lost = LostMessage(f"{self._queue} was deleted, {delivery.position}")
                self._receive.unsettled(delivery, how, lost)
                return
            if not isinstance(how, Move):
                tags.done(tag)
                return
        if isinstance(how, Move):
            tags.begin(tag)
            if not self._moves:
                asyncio.get_running_loop().call_soon(self._move)
            self._moves.append((delivery, how))
            return
        if isinstance(how, Release):
            tags.release(tag)
        else:
            tags.done(tag)
        self._settled(session)

    def _settles(self, session: Session) -> bool:
        """What came on another channel comes again; unless its queue was deleted: then its copy is all that is left."""
        return session is self._session and not session.over.done()

    def _settled(self, session: Session) -> None:
        if self._waits:
            self._some.set()
        if session.tags.waiting >= self._flush_at and not self._subscription.keeping:
            self._write(session)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._session is not None and not self._subscription.keeping:
            self._write(self._session)

    def _write(self, session: Session) -> None:
        """What is given back during a pause goes out when the consumer has ended, or with its channel: else it comes
        here once more, is counted twice for one stop, and is a suspect at the next start."""
        session.flush(back=not self._keeps_back)

    def _move(self) -> None:
        """All moves of this turn of the event loop to one queue together: another may confirm late."""
        now, by_queue = time(), dict[tuple[Address, str], list[tuple[Delivery, Move]]]()
        for move in self._moves:
            wait = delay.milliseconds(move[1].copy.due, now)
            by_queue.setdefault((move[1].copy.address, delay.rung(wait) if wait else ""), []).append(move)
        self._moves = []
        for some in by_queue.values():
            self._start(self._move_all(some), "move", self._moving)

    async def _move_all(self, moves: Sequence[tuple[Delivery, Move]]) -> None:
        """Publish the copies; finish the originals whose copy is confirmed."""
        answers: Sequence[Exception | None]
        try:
            answers = await unbroken(self._publish([how.copy for _, how in moves]))
        except Exception as failure:  # noqa: BLE001 (whatever it is, the deliveries are still ours)
            answers = [failure] * len(moves)
        for (delivery, how), error in zip(moves, answers, strict=True):
            session, tag = held(delivery)
            settles = self._settles(session)
            if not settles and not session.deleted:
                continue  # it comes again; the copy may be there twice
            if error is None:
                session.tags.done(tag)
                if settles:
                    self._settled(session)
            else:
                session.tags.abandon(tag)
                self._receive.unsettled(delivery, how, error)

    async def flush(self, timeout: float, /) -> None:
        async with asyncio.timeout(timeout):
            self._move()
            while self._moving:
                await asyncio.wait(self._moving)
            session = self._session
            if session is None:
                raise ConnectionError(f"group {self._group.name} has no channel")
            self._subscription.give_up()
            async with self._switch:
                session.flush()
                try:
                    # an acknowledgement is never answered: that something after it is shows that it has come
                    await unbroken(uncut(session.channel.basic_qos(prefetch_count=self._subscription.prefetch)))
                except Exception as error:  # of a connection that is lost meanwhile aiormq may say no more than that
                    lost = f"group {self._group.name} lost its channel: what it had settled there may come again"
                    raise ConnectionError(lost) from error

    async def stop(self, timeout: float, /) -> None:
        if self._stopping:
            return
        self._stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        session = self._session
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                self._move()
                if self._moving:
                    await asyncio.wait(self._moving)
        if session is not None and not session.over.done():
            self._subscription.give_up()
            self._write(session)
            try:
                async with asyncio.timeout(max(end - loop.time(), _LEAST)):
                    await self._leave(session)
            except TimeoutError:
                # it must not stay open: it would hold its messages for ever
                self._closing = asyncio.create_task(session.leave())
        self._session = None
        if self._timer is not None:
            self._timer.cancel()
        tasks = self._tasks | self._moving
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=max(end - loop.time(), _LEAST))

    async def _leave(self, session: Session) -> None:
        """End the consumer, then the channel.

        A channel keeps acknowledgements back when its queue is busy, and drops them when it is closed. Ending a
        consumer makes it wait for the queue, so it comes last before the close.
        """
        with suppress(Exception):  # of a connection that is lost meanwhile aiormq may say no more than that
            await unbroken(self._end_consumer())
        await session.leave()

    async def _end_consumer(self) -> None:
        async with self._switch:
            if not self._subscription.on:
                await self._subscription.begin(1)
            await self._subscription.end()
