"""What both stores have in common: the outbox, its relay, and what people ask about them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from eventkit import instruments
from eventkit.adapter import Message
from eventkit.errors import DeclarationError, NotProvisioned
from eventkit.once import Mark, Publish, check_retention
from eventkit.sql import statements
from eventkit.sql.relay import Relay, over
from eventkit.sql.statements import Outbox, Refused
from eventkit.sql.tables import metadata

log = logging.getLogger("eventkit")

T = TypeVar("T")

_START = 10.0
"""Seconds to look for the tables at start."""
_MOST = 1_000
"""Refused messages that are listed."""
HOLD = timedelta(minutes=5)
"""How long what a handler sends is left to its own process and to redelivery, before a relay publishes it."""


class Delivers(Protocol):
    """An `eventkit.Bus`, or whatever else publishes what `Bus.encode` made."""

    async def deliver(self, messages: Sequence[Message], /) -> None: ...


@runtime_checkable
class Tells(Protocol):
    """An `eventkit.Bus`: its instruments tell what waits in an outbox."""

    def relaying(self, outbox: instruments.Outbox, /) -> AbstractContextManager[object]: ...


class Writer:
    """One transaction at a time, where the database has one writer (SQLite); else nothing."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def take(self) -> Callable[[], None]:
        """Wait for a turn; call what is returned, once, to end it."""
        if not self._alone:
            return _nothing
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            self._lock = (loop, asyncio.Lock())
        lock = self._lock[1]
        await lock.acquire()
        return lock.release


def _nothing() -> None:
    pass


class Store:
    """The part that does not depend on how the database is called."""

    def __init__(self, retention: timedelta, poll: timedelta, lease: timedelta) -> None:
        name = type(self).__name__
        self._retention = check_retention(name, retention)
        if not timedelta(0) < poll <= timedelta(minutes=1):
            raise DeclarationError(f"{name}(poll={poll!r}): a timedelta of more than zero, up to a minute")
        if lease < timedelta(seconds=1):
            raise DeclarationError(f"{name}(lease={lease!r}): a timedelta of at least 1 s; it is renewed in time")
        self._poll = poll
        self._lease = lease
        self._relays: list[Relay] = []

    async def run(self, work: Callable[[Connection], T], /) -> T:
        """Run this in a transaction of its own."""
        raise NotImplementedError

    async def create_tables(self) -> None:
        """Make the tables that are missing: for tests and small services. Others have `eventkit.sql.metadata` in their
        migrations. Several processes may call it at once."""
        try:
            await self.run(metadata.create_all)
        except (OperationalError, ProgrammingError):
            if await self.run(statements.missing_tables):
                raise
        except Exception:  # PostgreSQL: another process made them at the same moment
            if await self.run(statements.missing_tables):
                raise

    def relay(self, bus: Delivers) -> Relay:
        """Publishes what `put` has kept, from `async with` to its end. In as many processes as you like: one of them
        publishes, another takes over `lease` after it has died.

        Where a service with `once=` this store runs, a relay runs besides, and none of its own is needed.
        """
        meanwhile = functools.partial(bus.relaying, self) if isinstance(bus, Tells) else nullcontext
        return self._relay(over(bus.deliver), meanwhile)

    async def outbox(self) -> Outbox:
        """How much waits in the outbox, and for how long."""
        return await self.run(statements.measure)

    async def refused(self) -> list[Refused]:
        """The messages that the broker will never take as they are, the oldest first, 1,000 at most."""
        return await self.run(lambda connection: statements.list_refused(connection, _MOST))

    async def retry_refused(self) -> int:
        """Have them published all the same, after what was wrong is mended; how many there are."""
        count = await self.run(statements.retry_refused)
        self.wake()
        return count

    async def discard_refused(self, positions: Sequence[int]) -> None:
        """Delete these, by what `refused` says of their position."""
        if positions:
            await self.run(lambda connection: statements.remove(connection, positions))

    async def sent(self, mark: Mark, /) -> None:
        await self.run(lambda connection: statements.sent(connection, mark))

    def running(self, publish: Publish, /) -> AbstractAsyncContextManager[object]:
        return self._running(publish)

    @asynccontextmanager
    async def _running(self, publish: Publish) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_START):
                missing = await self.run(statements.missing_tables)
        except Exception as error:  # noqa: BLE001 whatever its client raises: the messages wait until it is there
            log.warning("%s cannot be asked yet: %s: %s", type(self).__name__, type(error).__name__, error)
            missing = []
        if missing:
            raise NotProvisioned(
                f"{type(self).__name__}: the database has no {', '.join(missing)}: put eventkit.sql.metadata into your "
                "migrations, or `await store.create_tables()` in the service's lifespan"
            )
        async with self._relay(publish):
            yield

    def _relay(self, publish: Publish, meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext) -> Relay:
        return Relay(
            *(self, publish, self._relays),
            retention=self._retention,
            poll=self._poll,
            lease=self._lease,
            meanwhile=meanwhile,
        )

    def wake(self) -> None:
        """There is something in the outbox. From any thread."""
        for relay in list(self._relays):
            relay.wake()
