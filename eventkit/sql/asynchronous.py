"""For async handlers, over an `AsyncEngine`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from sqlalchemy import Connection, event, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from eventkit.adapter import Message
from eventkit.errors import DeclarationError
from eventkit.once import RETENTION, Begun, Handled, Mark
from eventkit.sql import statements, tables
from eventkit.sql.store import HOLD, Store, Writer

log = logging.getLogger("eventkit")

T = TypeVar("T")


class SqlStore(Store):
    """Handles each message once, in your own database: its work and the mark are one transaction. And an outbox.

    ```python
    store = SqlStore(create_async_engine("postgresql+asyncpg://localhost/shop"))


    @service.handler(once=store)
    async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> ParcelBooked:
        session.add(Parcel(order_id=event.order_id))
        return ParcelBooked(...)
    ```

    `sessions` makes the sessions; None: plain ones that do not expire on commit. `retention`: how long a repeat is
    known as one. `poll`: how often the outbox is looked at; what this process puts there it sees at once. `lease`: how
    long after the death of a relay the next one takes over.

    Each handler that runs holds a connection: give the engine a pool of at least the service's `concurrency`.
    """

    session_of: ClassVar[Literal["async", "plain"] | None] = "async"

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        sessions: async_sessionmaker[AsyncSession] | None = None,
        retention: timedelta = RETENTION,
        poll: timedelta = timedelta(milliseconds=500),
        lease: timedelta = timedelta(seconds=10),
    ) -> None:
        if not isinstance(engine, AsyncEngine):
            raise DeclarationError(
                f"SqlStore({type(engine).__name__}): it takes what create_async_engine() gives; for an engine of "
                "create_engine() there is BlockingSqlStore"
            )
        super().__init__(retention, poll, lease)
        self._engine = engine
        self._sessions = sessions or async_sessionmaker(expire_on_commit=False)
        self._writer = Writer(alone=engine.dialect.name == "sqlite")
        self._current: ContextVar[_Attempt | None] = ContextVar("eventkit sql attempt", default=None)

    async def session(self) -> AsyncSession:
        """The session of the handler's transaction: `session: Annotated[AsyncSession, Depends(store.session)]`.

        A commit inside the handler is one of a savepoint: all of it is committed, with the mark, when the handler has
        returned, and rolled back if it fails.
        """
        attempt = self._current.get()
        if attempt is None:
            raise DeclarationError(
                "SqlStore.session is for handlers that are declared with once=<this store>: here is no transaction"
            )
        return attempt.session()

    async def put(self, session: AsyncSession | AsyncConnection, *messages: Message) -> None:
        """Keep these in the outbox, in this transaction: `await store.put(session, bus.encode(event))`.

        They go out after your commit, in this order; if you roll back, never. Of messages of one key, those of a
        transaction that was committed before the next one put its own go out before those.
        """
        if not messages:
            return
        await session.execute(insert(tables.outbox), statements.rows(messages))
        attempt = self._current.get()
        if attempt is not None:
            attempt.puts = True
        elif isinstance(session, AsyncSession):
            event.listen(session.sync_session, "after_commit", lambda _: self.wake(), once=True)

    async def run(self, work: Callable[[Connection], T], /) -> T:
        release = await self._writer.take()
        try:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            release()

    async def begin(self, mark: Mark, /) -> Begun:
        attempt = _Attempt(self, mark, await self._writer.take())
        try:
            found = await attempt.claim(self._engine)
        except BaseException as error:
            await attempt.abort(error)
            raise
        if found is not None:
            await attempt.abort(None)
            return found
        self._current.set(attempt)
        return attempt

    def make_session(self, connection: AsyncConnection) -> AsyncSession:
        return self._sessions(bind=connection, join_transaction_mode="create_savepoint")

    def ended(self) -> None:
        """No transaction is open in this context any more."""
        self._current.set(None)


class _Attempt:
    """A transaction that begins with the mark."""

    def __init__(self, store: SqlStore, mark: Mark, release: Callable[[], None]) -> None:
        self._store = store
        self._mark = mark
        self._release: Callable[[], None] | None = release
        self._connection: AsyncConnection | None = None
        self._session: AsyncSession | None = None
        self.puts = False
        """Has the handler put something into the outbox by itself?"""

    async def claim(self, engine: AsyncEngine) -> Begun | None:
        self._connection = await engine.connect()
        return await self._connection.run_sync(statements.claim, self._mark)

    def session(self) -> AsyncSession:
        if self._session is None:
            if self._connection is None:
                raise RuntimeError("the handler's transaction has ended")
            self._session = self._store.make_session(self._connection)
        return self._session

    async def commit(self, done: Handled, /) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._session is not None:
            await self._session.commit()
        await connection.run_sync(statements.complete, self._mark, done, HOLD)
        await connection.commit()
        await self._close()
        if self.puts:
            self._store.wake()

    async def abort(self, error: BaseException | None, /) -> None:
        if self._release is not None:
            await self._close()

    async def _close(self) -> None:
        """What is not committed is rolled back."""
        self._store.ended()
        session, self._session = self._session, None
        connection, self._connection = self._connection, None
        try:
            if session is not None:
                await session.close()
        except Exception as error:  # noqa: BLE001 the connection is broken, and ends next
            log.debug("a session could not be closed: %r", error)
        try:
            if connection is not None:
                await connection.close()
        except Exception as error:  # noqa: BLE001 the same: then the database rolls back by itself
            log.debug("a connection could not be closed: %r", error)
        finally:
            release, self._release = self._release, None
            if release is not None:
                release()
