"""The relay: publishes what stands in the outbox, in order, and forgets what is past its retention.

What the broker does not take now is put aside, and what has another key or destination goes past it: two tasks publish,
one of them only what was put aside, so that nobody else waits for the answers to that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar

from sqlalchemy import Connection

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.once import Publish
from eventkit.packed import unpack
from eventkit.publishing import permanent
from eventkit.sql import statements
from eventkit.sql.aside import Aside, Lane, lane_of
from eventkit.sql.statements import Lead, Waiting

log = logging.getLogger("eventkit")

T = TypeVar("T")

_BATCH = 200
_AT_ONCE = 1_000
"""Marks that are forgotten in one transaction."""
_TIDY = 30.0
"""Seconds between two looks for marks that are past their retention."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0
_SAY_AGAIN = 60.0
_END = 10.0
"""Seconds that a stop waits for the batch that is under way."""


class Database(Protocol):
    async def run(self, work: Callable[[Connection], T], /) -> T:
        """In a transaction of its own."""
        ...


@dataclass(slots=True)
class _Answered:
    """What the broker has said, and the database does not know yet."""

    sent: dict[int, Lane] = field(default_factory=dict)
    never: list[tuple[int, str]] = field(default_factory=list)
    """What it will never take, and why."""
    over: dict[int, Lane] = field(default_factory=dict)
    """Of those."""


class Relay:
    """Publishes, from `async with` to its end. Of several relays of one outbox one publishes, the others stand by.

    A message is deleted when the broker has confirmed it: after a crash in between it goes out again, with the same
    id. The next message of a key goes out when the one before it is confirmed. One that the broker does not take now is
    tried again every ten seconds, and those of other keys and destinations go past it: past 5,000 at most, with those
    behind them. `error` and a warning say so.
    """

    def __init__(
        self,
        database: Database,
        publish: Publish,
        running: list[Relay],
        *,
        retention: timedelta,
        poll: timedelta,
        lease: timedelta,
        meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """It is among `running` while it does, and in `meanwhile`."""
        self._database = database
        self._publish = publish
        self._running = running
        self._retention = retention
        self._poll = poll.total_seconds()
        self._lease = lease.total_seconds()
        self._meanwhile = meanwhile
        self._stack = ExitStack()
        self._me = secrets.token_hex(8)
        self._seen: tuple[Lead, float] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._ended = asyncio.Event()
        self._said_at = -_SAY_AGAIN
        self._aside = Aside()
        self._put_aside = asyncio.Event()
        self._trouble: Exception | None = None
        self._unsent: Exception | None = None
        self.leading = False
        """Is it this one that publishes?"""

    @property
    def error(self) -> Exception | None:
        """Why not all is published now: the database, or what the broker says of one of those that it does not take.
        None: all is well."""
        return self._trouble or self._unsent

    def wake(self) -> None:
        """There is something to publish. From any thread."""
        if self._loop is not None and not self._stopping:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._ended.clear()
        self._running.append(self)
        self._stack.enter_context(self._meanwhile())
        works = (self._leading(), self._publishing(), self._publishing_again(), self._tidying())
        self._tasks = [self._loop.create_task(work, name="eventkit outbox") for work in works]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._running.remove(self)
        self._stack.close()
        self._woken.set()
        self._ended.set()
        self._put_aside.set()
        # not cancelled in the middle of a transaction, which some drivers end only when the loop is gone
        _, late = await asyncio.wait(self._tasks, timeout=_END)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        if self.leading:
            self.leading = False
            try:
                async with asyncio.timeout(_END):
                    await self._database.run(lambda connection: statements.resign(connection, self._me))
            except Exception as failure:  # noqa: BLE001 whatever its client raises: the next one waits for the lease
                log.info("outbox: the next relay begins after %g s: %r", self._lease, failure)

    # who leads

    async def _leading(self) -> None:
        while not self._stopping:
            try:
                await self._lead()
            except Exception as error:  # noqa: BLE001 whatever the database's client raises
                self._failed(error)
            await self._pause(self._lease / 3)

    async def _lead(self) -> None:
        seen = self._seen
        lapsed = None if seen is None or time.monotonic() < seen[1] + self._lease else seen[0]
        found = await self._database.run(lambda connection: statements.lead(connection, self._me, lapsed))
        leads = found.owner == self._me
        if leads and not self.leading:
            log.info("outbox: this process publishes what stands in it, in order; others wait to take over")
        self.leading = leads
        if leads:
            self._woken.set()
        if seen is None or seen[0] != found:
            self._seen = (found, time.monotonic())  # by our own clock, so that others' may differ

    # publishing

    async def _publishing(self) -> None:
        failed = 0
        while not self._stopping:
            self._woken.clear()
            try:
                while self.leading and not self._stopping and await self._batch():
                    failed = 0
                failed, self._trouble = 0, None
            except Exception as error:  # noqa: BLE001 whatever the clients of the database and the broker raise
                self._failed(error)
                failed += 1
                await self._pause(min(_FIRST_WAIT * 2 ** min(failed - 1, 10), _LONGEST_WAIT))
                continue
            await _until(self._woken, self._poll)

    async def _batch(self) -> bool:
        """Publish the first that wait, past what was put aside. False: there was nothing."""
        aside = self._aside
        if aside.full:
            return False
        freed, closed = aside.freed, aside.closed(time.monotonic())
        passed = set(aside.positions)
        waiting = await self._database.run(
            lambda connection: statements.next_ones(connection, self._me, _BATCH, passed, closed)
        )
        if aside.freed != freed:
            return True  # what was behind it is not among these: they are to be read again
        if not waiting:
            return False
        answered = _Answered()
        left = self._read(waiting, answered.never)
        late: set[Lane] = set()
        """Of which something is not sent in its turn: what follows is read again, after that."""
        try:
            while left:
                turn, left = _first_of_each_key(self._without_those_behind(left, late))
                if not turn:
                    break
                self._look(turn, await self._publish([message for _, message in turn]), answered)
        except Exception:
            await self._settle(answered)
            raise
        await self._settle(answered)
        return True

    def _without_those_behind(
        self, messages: Sequence[tuple[int, Message]], late: set[Lane]
    ) -> list[tuple[int, Message]]:
        free = []
        for position, message in messages:
            lane = lane_of(position, message)
            if lane in self._aside:
                late.add(lane)
                self._aside.wait_behind(lane, position)
            elif lane not in late:
                free.append((position, message))
        return free

    async def _publishing_again(self) -> None:
        """What was put aside."""
        while not self._stopping:
            self._put_aside.clear()
            due = self._aside.next_due()
            await _until(self._put_aside, None if due is None else max(due - time.monotonic(), 0.0))
            if not self.leading:
                self._aside.clear()
                self._unsent = None
            elif not self._stopping:
                await self._again()

    async def _again(self) -> None:
        aside = self._aside
        due = aside.due(time.monotonic(), _BATCH)
        if not due:
            return
        try:
            waiting = await self._database.run(lambda connection: statements.these(connection, self._me, list(due)))
            answered = _Answered()
            turn = self._read(waiting, answered.never)
            if turn:
                self._look(turn, await self._publish([message for _, message in turn]), answered)
            await self._settle(answered)
            for position in due.keys() - {position for position, _ in turn}:
                aside.free(due[position], position)  # it is gone, or refused
        except Exception as error:  # noqa: BLE001 whatever the clients of the database and the broker raise
            self._say(error)
            now = time.monotonic()
            for position, lane in due.items():
                if lane in aside:
                    aside.failed(lane, position, now)
        if not aside.lanes:
            self._unsent = None
        self._woken.set()

    def _read(self, waiting: Sequence[Waiting], refused: list[tuple[int, str]]) -> list[tuple[int, Message]]:
        found = []
        for position, text in waiting:
            try:
                found.append((position, unpack(text)))
            except ValueError as error:
                log.error("outbox: the message at position %d is put aside: %s", position, error)
                refused.append((position, str(error)))
        return found

    def _look(
        self, turn: Sequence[tuple[int, Message]], answers: Sequence[Exception | None], answered: _Answered
    ) -> None:
        """What is not taken now is put aside."""
        for (position, message), answer in zip(turn, answers, strict=True):
            lane = lane_of(position, message)
            if answer is None:
                answered.sent[position] = lane
            elif permanent(answer):
                log.error("outbox: %s can never be published, and is put aside: %s", message.type, answer)
                answered.never.append((position, f"{type(answer).__name__}: {answer}"))
                answered.over[position] = lane
            else:
                self._aside.failed(lane, position, time.monotonic())
                self._unsent = answer
                self._put_aside.set()
                self._say_unsent(message, answer)

    async def _settle(self, answered: _Answered) -> None:
        """Those that are out are removed; what the broker will never take is left in the table, for people."""

        def settle(connection: Connection) -> None:
            if answered.sent:
                statements.remove(connection, list(answered.sent))
            if answered.never:
                statements.refuse(connection, answered.never)

        if answered.sent or answered.never:
            await self._database.run(settle)
        for position, lane in answered.sent.items():
            self._aside.succeeded(lane, position)
        for position, lane in answered.over.items():
            self._aside.free(lane, position)

    # the rest

    async def _tidying(self) -> None:
        while not self._stopping:
            more = self.leading and await self._forget() == _AT_ONCE
            await self._pause(_FIRST_WAIT if more else _TIDY)

    async def _forget(self) -> int:
        before = statements.now() - self._retention
        try:
            return await self._database.run(lambda connection: statements.forget(connection, before, _AT_ONCE))
        except Exception as error:  # noqa: BLE001 whatever the database's client raises
            self._failed(error)
            return 0

    async def _pause(self, seconds: float) -> None:
        await _until(self._ended, seconds)

    def _failed(self, error: Exception) -> None:
        self._trouble = error
        self._say(error)

    def _say(self, error: Exception) -> None:
        if self._may_say():
            log.warning("outbox: not all is published yet, trying again: %s: %s", type(error).__name__, error)

    def _say_unsent(self, message: Message, error: Exception) -> None:
        if self._may_say():
            log.warning(
                "outbox: %d messages and %d behind them are not published yet, and others go past them; one of them, "
                "trying again: %s for %s (%s): %s: %s",
                *(self._aside.lanes, len(self._aside.positions) - self._aside.lanes),
                *(message.type, message.address, message.headers.get(h.ID), type(error).__name__, error),
            )

    def _may_say(self) -> bool:
        now = time.monotonic()
        may = now > self._said_at + _SAY_AGAIN
        if may:
            self._said_at = now
        return may


async def _until(event: asyncio.Event, seconds: float | None) -> None:
    """For so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _first_of_each_key(
    messages: Sequence[tuple[int, Message]],
) -> tuple[list[tuple[int, Message]], list[tuple[int, Message]]]:
    """Those that may go out together, and those that wait for them."""
    turn: list[tuple[int, Message]] = []
    later: list[tuple[int, Message]] = []
    taken: set[tuple[Address, str]] = set()
    for item in messages:
        _, message = item
        if message.key is not None:
            lane = (message.address, message.key)
            if lane in taken:
                later.append(item)
                continue
            taken.add(lane)
        turn.append(item)
    return turn, later


def over(deliver: Callable[[Sequence[Message]], Awaitable[None]]) -> Publish:
    """`Bus.deliver`, with an answer for each message."""
    from eventkit.errors import PublishError

    async def publish(messages: Sequence[Message]) -> Sequence[Exception | None]:
        answers: list[Exception | None] = [None] * len(messages)
        try:
            await deliver(messages)
        except PublishError as error:
            if not error.failures:
                raise
            for failure in error.failures:
                answers[failure.index] = failure.error
        return answers

    return publish
