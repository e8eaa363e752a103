"""For plain functions as handlers, over an `Engine`: each call of the database runs in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, ClassVar, Literal, TypeVar

from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.orm import Session, sessionmaker

from eventkit.adapter import Message
from eventkit.errors import DeclarationError
from eventkit.once import RETENTION, Begun, Handled, Mark
from eventkit.sql import statements, tables
from eventkit.sql.store import HOLD, Store, Writer
from eventkit.threads import Threads

log = logging.getLogger("eventkit")

T = TypeVar("T")

_THREADS = 32


class BlockingSqlStore(Store):
    """As `SqlStore`, for plain functions and what `create_engine()` gives.

    ```python
    store = BlockingSqlStore(create_engine("postgresql+psycopg://localhost/shop"))


    @service.handler(once=store)
    def book(event: OrderPlaced, session: Annotated[Session, Depends(store.session)]) -> ParcelBooked: ...
    ```

    A plain function cannot be cancelled: one that runs longer than its `timeout` loses its connection, so that nothing
    that it still does is committed.
    """

    session_of: ClassVar[Literal["async", "plain"] | None] = "plain"

    def __init__(
        self,
        engine: Engine,
        *,
        sessions: sessionmaker[Session] | None = None,
        retention: timedelta = RETENTION,
        poll: timedelta = timedelta(milliseconds=500),
        lease: timedelta = timedelta(seconds=10),
    ) -> None:
        if not isinstance(engine, Engine):
            raise DeclarationError(
                f"BlockingSqlStore({type(engine).__name__}): it takes what create_engine() gives; for an engine of "
                "create_async_engine() there is SqlStore"
            )
        super().__init__(retention, poll, lease)
        self._engine = engine
        self._sessions = sessions or sessionmaker(expire_on_commit=False)
        self._writer = Writer(alone=engine.dialect.name == "sqlite")
        self._current: ContextVar[_Attempt | None] = ContextVar("eventkit sql attempt", default=None)
        self._beginning = Threads("sql begin", _THREADS)  # they may all wait for a connection,
        self._threads = Threads("sql", _THREADS)  # which these give back

    async def session(self) -> Session:
        """As `SqlStore.session`: `session: Annotated[Session, Depends(store.session)]`."""
        attempt = self._current.get()
        if attempt is None:
            raise DeclarationError(
                "BlockingSqlStore.session is for handlers that are declared with once=<this store>: here is no "
                "transaction"
            )
        return attempt.session()

    def put(self, session: Session | Connection, *messages: Message) -> None:
        """As `SqlStore.put`, for plain code."""
        if not messages:
            return
        session.execute(insert(tables.outbox), statements.rows(messages))
        attempt = self._current.get()
        if attempt is not None:
            attempt.puts = True
        elif isinstance(session, Session):
            event.listen(session, "after_commit", lambda _: self.wake(), once=True)

    async def run(self, work: Callable[[Connection], T], /) -> T:
        def transact() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        release = await self._writer.take()
        try:
            return await self.in_thread(transact)
        finally:
            release()

    async def begin(self, mark: Mark, /) -> Begun:
        attempt = _Attempt(self, mark, await self._writer.take())
        try:
            found = await self.in_thread(attempt.claim, self._engine, threads=self._beginning)
        except BaseException as error:
            await attempt.abort(error)
            raise
        if found is not None:
            await attempt.abort(None)
            return found
        self._current.set(attempt)
        return attempt

    async def in_thread(self, work: Callable[..., T], *arguments: Any, threads: Threads | None = None) -> T:
        """Goes on to its end, also where its caller is cancelled."""
        job = asyncio.ensure_future((threads or self._threads).run(work, *arguments))
        job.add_done_callback(_heard)
        result: Any = await asyncio.shield(job)
        return result  # type: ignore[no-any-return]

    def make_session(self, connection: Connection) -> Session:
        return self._sessions(bind=connection, join_transaction_mode="create_savepoint")

    def ended(self) -> None:
        """No transaction is open in this context any more."""
        self._current.set(None)


def _heard(job: asyncio.Future[Any]) -> None:
    if not job.cancelled():
        job.exception()  # also where nobody waits for it any more


class _Attempt:
    """A transaction that begins with the mark. Its steps run in threads, one at a time."""

    def __init__(self, store: BlockingSqlStore, mark: Mark, release: Callable[[], None]) -> None:
        self._store = store
        self._mark = mark
        self._release: Callable[[], None] | None = release
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._step = threading.Lock()
        self._over = False
        self.puts = False

    def claim(self, engine: Engine) -> Begun | None:
        with self._step:
            connection = engine.connect()
            if self._over:  # its caller was cancelled meanwhile
                connection.close()
                return None
            self._connection = connection
            return statements.claim(connection, self._mark)

    def session(self) -> Session:
        if self._session is None:
            if self._connection is None:
                raise RuntimeError("the handler's transaction has ended")
            self._session = self._store.make_session(self._connection)
        return self._session

    async def commit(self, done: Handled, /) -> None:
        if self._release is None:
            return
        await self._store.in_thread(self._commit, done)
        self._ended()
        if self.puts:
            self._store.wake()

    async def abort(self, error: BaseException | None, /) -> None:
        if self._release is None:
            return
        # a plain function may go on after these, and a step may hang: neither is waited for
        hurried = isinstance(error, TimeoutError | asyncio.CancelledError)
        job = asyncio.ensure_future(self._store.in_thread(self._abort, hurried))
        if hurried:
            release, self._release = self._release, None
            job.add_done_callback(lambda _: release())
            self._store.ended()
            return
        try:
            await asyncio.shield(job)
        finally:
            self._ended()

    def _ended(self) -> None:
        self._store.ended()
        release, self._release = self._release, None
        if release is not None:
            release()

    def _commit(self, done: Handled) -> None:
        with self._step:
            connection = self._connection
            if connection is None:
                raise RuntimeError("the handler's transaction has ended")
            if self._session is not None:
                self._session.commit()
            statements.complete(connection, self._mark, done, HOLD)
            connection.commit()
            self._close(connection)

    def _abort(self, hurried: bool) -> None:
        self._over = True
        with self._step:
            if self._connection is not None:
                if hurried:
                    self._connection.invalidate()
                self._close(self._connection)

    def _close(self, connection: Connection) -> None:
        """What is not committed is rolled back."""
        session, self._session, self._connection = self._session, None, None
        try:
            if session is not None:
                session.close()
        except Exception as error:  # noqa: BLE001 the connection is broken, and ends next
            log.debug("a session could not be closed: %r", error)
        try:
            connection.close()
        except Exception as error:  # noqa: BLE001 the same: then the database rolls back by itself
            log.debug("a connection could not be closed: %r", error)
