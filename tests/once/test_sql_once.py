"""A handler with once= a SQL store: its work and the mark are one transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import pytest
from sqlalchemy import NullPool, create_engine, insert, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import eventkit.testing
from eventkit import (
    Batch,
    Bus,
    Command,
    CommandRejected,
    Context,
    DeclarationError,
    Depends,
    Event,
    GiveUp,
    NotProvisioned,
    Reject,
    Retry,
    Service,
)
from eventkit import headers as h
from eventkit.adapter import Connection, Message
from eventkit.contract.checks import eventually
from eventkit.memory import MemoryAdapter
from eventkit.memory import Store as Kept
from eventkit.once import Busy, Handled, Mark
from eventkit.sql import BlockingSqlStore, SqlStore, relay, tables
from eventkit.testing.brokers import BrokerUnavailable, provide
from tests.once.copies import Twice, copies_of
from tests.once.databases import Database, theirs, work
from tests.once.loops import in_loop
from tests.postgres import Postgres

NOW = Retry(attempts=3, first_delay=timedelta(0))


class OrderPlaced(Event, topic="orders"):
    order_id: str


class OrderPaid(Event, topic="orders"):
    order_id: str


class ParcelBooked(Event, topic="parcels"):
    order_id: str


class Ship(Command[str], service="shipping"):
    order_id: str


@asynccontextmanager
async def store_on(database: Database, **options: Any) -> AsyncIterator[SqlStore]:
    engine = create_async_engine(database.async_url)
    try:
        yield SqlStore(engine, **options)
    finally:
        await engine.dispose()


async def add(session: AsyncSession, order_id: str) -> None:
    await session.execute(insert(work).values(order_id=order_id))


@in_loop
async def test_a_repeat_is_dropped(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> ParcelBooked:
            await add(session, event.order_id)
            return ParcelBooked(order_id=event.order_id)

        async with eventkit.testing.run(service) as t:
            twice = Twice(t)
            await twice.publish(OrderPlaced(order_id="1"))
            await t.publish(OrderPlaced(order_id="2"))
            await t.idle()
            assert (twice.counts("shipping").handled, twice.counts("shipping").repeated) == (2, 1)
            assert sorted(event.order_id for event in t.published(ParcelBooked)) == ["1", "2"]
            assert "dropped: handled before" in t.story()
    assert (database.work(), database.handled(), database.waiting()) == (2, 2, 0)


@in_loop
async def test_each_group_and_each_source_has_marks_of_its_own(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> None:
            await add(session, "here")

        @service.handler(once=store, group="audit")
        async def note(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> None:
            await add(session, "audit")

        async with eventkit.testing.run(service) as t:
            message = t._bus.encode(OrderPlaced(order_id="1"), id="same")
            other = message._replace(headers={**message.headers, h.SOURCE: "other", h.MESSAGE_ID: "other"})
            await t._bus.deliver([*copies_of(message), other])
            await t.idle()
    assert database.work() == 4


@in_loop
async def test_each_type_has_marks_of_its_own(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(
            event: OrderPlaced | OrderPaid, session: Annotated[AsyncSession, Depends(store.session)]
        ) -> ParcelBooked:
            await add(session, type(event).__name__)
            return ParcelBooked(order_id=event.order_id)

        async with eventkit.testing.run(service) as t:
            twice = Twice(t)
            for event in (OrderPlaced(order_id="7"), OrderPaid(order_id="7")):
                await twice.publish(event, id="order-7")
            await t.idle()
            assert (twice.counts("shipping").handled, twice.counts("shipping").repeated) == (2, 2)
    assert (database.work(), database.handled(), database.waiting()) == (2, 2, 0)


@in_loop
async def test_a_mark_that_says_no_type_is_of_any(database: Database) -> None:
    async with store_on(database) as store, memory_bus() as bus:
        outgoing = bus.encode(ParcelBooked(order_id="1"))
        attempt = await store.begin(Mark("shipping", "shop", "1"))
        assert not isinstance(attempt, Busy | Handled)
        await attempt.commit(Handled((outgoing,)))
        now = Mark("shipping", "shop", "1", "OrderPlaced")
        assert await store.begin(now) == Handled((outgoing,))
        await store.sent(now)
        assert await store.begin(now) == Handled()
    assert (database.handled(), database.waiting()) == (1, 0)


@in_loop
async def test_what_fails_leaves_neither_work_nor_mark(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping", retry=NOW)

        @service.handler(once=store)
        async def book(
            event: OrderPlaced, context: Context, session: Annotated[AsyncSession, Depends(store.session)]
        ) -> ParcelBooked:
            await add(session, event.order_id)
            await session.commit()  # of a savepoint: the transaction is the store's
            if event.order_id == "never" or context.attempt == 1:
                raise RuntimeError("once more")
            return ParcelBooked(order_id=event.order_id)

        async with eventkit.testing.run(service) as t:
            await t.publish(OrderPlaced(order_id="later"))
            await t.publish(OrderPlaced(order_id="never"))
            await t.idle()
            assert t.published(ParcelBooked) == [ParcelBooked(order_id="later")]
            assert [letter.reason for letter in t.dead_letters()] == ["exhausted"]
    assert (database.work(), database.handled()) == (1, 1)


@in_loop
async def test_a_rollback_in_the_handler_takes_no_mark_along(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> None:
            await add(session, "undone")
            await session.rollback()
            await add(session, "kept")

        async with eventkit.testing.run(service) as t:
            await Twice(t).publish(OrderPlaced(order_id="1"))
            await t.idle()
            assert not t.dead_letters()
    assert (database.work(), database.count(work, work.c.order_id == "kept"), database.handled()) == (1, 1, 1)


@in_loop
async def test_what_can_never_be_sent_is_not_committed(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> Any:
            await add(session, event.order_id)
            return "no event"

        async with eventkit.testing.run(service) as t:
            await t.publish(OrderPlaced(order_id="1"))
            await t.idle()
            assert [letter.reason for letter in t.dead_letters()] == ["unsendable"]
    assert (database.work(), database.handled()) == (0, 0)


@in_loop
async def test_what_the_broker_refuses_is_sent_by_a_redrive(database: Database) -> None:
    """Its handler is not run again: what it sends stands in the store."""
    async with store_on(database) as store:
        billing, shipping = Service("shipping"), Service("billing")
        calls: list[str] = []

        @shipping.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> Ship:
            calls.append(event.order_id)
            await add(session, event.order_id)
            return Ship(order_id=event.order_id)

        got: list[str] = []

        @billing.handler
        async def ship(command: Ship) -> str:
            got.append(command.order_id)
            return ""

        async with memory_bus() as bus, bus.run(shipping) as running:
            await bus.publish(OrderPlaced(order_id="1"))
            await eventually(lambda: running.counts["billing"].dead == 1, "there is nobody to send it to")
            assert (database.work(), database.waiting()) == (1, 1)
            async with bus.run(billing):
                letters = bus.dead_letters("billing")
                (letter,) = [letter async for letter in letters.list()]
                await letters.retry(letter.id)
                await eventually(lambda: got == ["1"], "now there is")
            await eventually(lambda: database.waiting() == 0, "and the store knows")
    assert calls == ["1"]


@asynccontextmanager
async def memory_bus(kept: Kept | None = None) -> AsyncIterator[Bus]:
    adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=kept or Kept())
    async with Bus(adapter, source="test") as bus:
        yield bus


class Replies:
    """The replies that a bus has published."""

    def __init__(self, bus: Bus) -> None:
        self.seen: list[Message] = []
        publish = bus.adapter.publish

        async def spy(messages: Any) -> Any:
            self.seen += [message for message in messages if message.address.kind == "reply"]
            return await publish(messages)

        bus.adapter.publish = spy  # type: ignore[method-assign]

    def by_address(self) -> dict[str, bytes | None]:
        return {message.address.name: message.body for message in self.seen}


@pytest.mark.parametrize("refused", [False, True])
def test_a_repeat_of_a_request_gets_the_same_reply(database: Database, refused: bool) -> None:
    @in_loop
    async def main() -> None:
        async with store_on(database) as store, memory_bus() as bus:
            service = Service("shipping")
            asked: list[Message] = []

            @service.handler(once=store)
            async def ship(
                command: Ship, context: Context, session: Annotated[AsyncSession, Depends(store.session)]
            ) -> str:
                asked.append(context.delivery.message)
                await add(session, command.order_id)
                if refused:
                    raise Reject("we do not ship there", ParcelBooked(order_id="none"))
                return f"parcel {len(asked)}"

            async with bus.run(service) as running:
                replies = Replies(bus)
                try:
                    said = await bus.request(Ship(order_id="1"))
                except CommandRejected as rejection:
                    said = rejection.reason
                assert said == ("we do not ship there" if refused else "parcel 1")
                again = {**asked[0].headers, h.REPLY_TO: "elsewhere", h.MESSAGE_ID: "copy"}
                await bus.deliver([asked[0]._replace(headers=again)])
                await eventually(lambda: len(replies.seen) == 2, "the repeat is answered")
                counts = running.counts["shipping"]
                await eventually(lambda: counts.repeated, "it is counted, after it was answered")
                assert (counts.handled, counts.rejected, counts.repeated) == (int(not refused), int(refused), 1)
            first, second = replies.by_address().values()
            assert first == second
            assert "elsewhere" in replies.by_address()
            assert len(asked) == 1
        assert (database.work(), database.handled(), database.waiting()) == (0 if refused else 1, 1, 0)

    main()


@in_loop
async def test_of_two_at_once_one_is_tried(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping")
        go, calls = asyncio.Event(), []

        @service.handler(once=store)
        async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> None:
            calls.append(event.order_id)
            await add(session, event.order_id)
            await go.wait()
            if len(calls) == 1:
                raise GiveUp("the first one fails, the other is then tried")

        async with memory_bus() as bus, bus.run(service) as running:
            await bus.deliver(copies_of(bus.encode(OrderPlaced(order_id="1")), 3))
            await eventually(lambda: calls, "one is tried")
            go.set()
            await eventually(lambda: running.counts["shipping"].repeated == 1, "one of the others is a repeat")
            assert running.counts["shipping"].dead == 1
    assert len(calls) == 2
    assert database.work() == 1


@in_loop
async def test_another_process_is_busy(database: Database) -> None:
    """As two processes see it: two stores on two engines."""
    impatient = {"timeout": 0.1} if database.kind == "sqlite" else {}
    mark = Mark("shipping", "shop", "1")
    engines = [
        create_async_engine(database.async_url, connect_args=impatient, isolation_level="SERIALIZABLE")
        for _ in range(2)
    ]
    first, second = (SqlStore(engine) for engine in engines)
    attempt = await first.begin(mark)
    assert not isinstance(attempt, Busy | Handled)
    assert await second.begin(mark) == Busy()
    await attempt.abort(RuntimeError())
    attempt = await second.begin(mark)
    assert not isinstance(attempt, Busy | Handled)
    assert await first.begin(mark) == Busy()
    await attempt.commit(Handled())
    assert await first.begin(mark) == Handled()
    await attempt.abort(RuntimeError())  # too late, and harmless
    assert await second.begin(mark) == Handled()
    for engine in engines:
        await engine.dispose()


@in_loop
async def test_a_plain_function_takes_part_as_well(database: Database) -> None:
    engine = create_engine(database.plain_url)
    store = BlockingSqlStore(engine)
    service = Service("shipping", retry=NOW)

    @service.handler(once=store)
    def book(event: OrderPlaced, context: Context, session: Annotated[Session, Depends(store.session)]) -> ParcelBooked:
        session.execute(insert(work).values(order_id=event.order_id))
        session.commit()
        if context.attempt == 1:
            raise RuntimeError("once more")
        return ParcelBooked(order_id=event.order_id)

    async with eventkit.testing.run(service) as t:
        twice = Twice(t)
        for order in range(5):
            await twice.publish(OrderPlaced(order_id=str(order)))
        await t.idle()
        assert (twice.counts("shipping").handled, twice.counts("shipping").repeated) == (5, 5)
        assert len(t.published(ParcelBooked)) == 5
    engine.dispose()
    assert (database.work(), database.handled(), database.waiting()) == (5, 5, 0)


@in_loop
async def test_a_plain_function_that_is_late_commits_nothing(database: Database) -> None:
    engine = create_engine(database.plain_url)
    store = BlockingSqlStore(engine)
    service = Service("shipping", retry=NOW, timeout=timedelta(seconds=0.3))
    late, ended = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @service.handler(once=store)
    def book(event: OrderPlaced, context: Context, session: Annotated[Session, Depends(store.session)]) -> None:
        session.execute(insert(work).values(order_id=f"attempt {context.attempt}"))
        if context.attempt == 1:
            late.wait(20)
            try:
                session.execute(insert(work).values(order_id="too late"))
                session.commit()
            except Exception as error:  # noqa: BLE001 whatever the driver raises
                errors.append(error)
            ended.set()

    async with memory_bus() as bus, bus.run(service) as running:
        await bus.publish(OrderPlaced(order_id="1"))
        await eventually(lambda: running.counts["shipping"].handled == 1, "the second attempt succeeds")
        late.set()
        await asyncio.to_thread(ended.wait, 20)
    engine.dispose()
    assert errors
    assert (database.work(), database.count(work, work.c.order_id == "attempt 2")) == (1, 1)


@in_loop
async def test_what_is_past_its_retention_is_forgotten(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_AT_ONCE", 20)
    monkeypatch.setattr(relay, "_TIDY", 0.05)
    monkeypatch.setattr(relay, "_FIRST_WAIT", 0.01)
    async with store_on(database, retention=timedelta(hours=1)) as store, memory_bus() as bus:
        for number in range(70):
            attempt = await store.begin(Mark("shipping", "shop", str(number)))
            assert not isinstance(attempt, Busy | Handled)
            await attempt.commit(Handled())
        old = relay.statements.now() - timedelta(hours=2)
        young = Mark("shipping", "shop", "0").key
        await store.run(
            lambda c: c.execute(update(tables.handled).where(tables.handled.c.mark != young).values(handled_at=old))
        )
        async with store.relay(bus):
            await eventually(lambda: database.handled() == 1, "all but the young one")
        assert await store.begin(Mark("shipping", "shop", "0")) == Handled()


@in_loop
async def test_missing_tables_stop_the_start(database: Database) -> None:
    async with store_on(database) as store, memory_bus() as bus:
        await store.run(tables.outbox.drop)
        service = Service("shipping")

        @service.handler(once=store)
        async def book(event: OrderPlaced) -> None: ...

        with pytest.raises(NotProvisioned, match=r"eventkit_outbox.*create_tables"):
            async with bus.run(service):
                raise AssertionError("it started")
        await asyncio.gather(*(store.create_tables() for _ in range(4)))
        async with bus.run(service):
            await bus.publish(OrderPlaced(order_id="1"))
            await eventually(lambda: database.handled() == 1, "it runs")


@in_loop
async def test_while_the_database_is_away_messages_wait_untried(tmp_path: Any) -> None:
    try:
        server = provide(Postgres(), settings={"max_wal_senders": "0"})
    except BrokerUnavailable as error:
        pytest.skip(str(error))
    with server:
        url = server.url.replace("postgresql:", "postgresql+psycopg:")
        setup = create_engine(url, poolclass=NullPool)
        for metadata in (tables.metadata, theirs):
            metadata.create_all(setup)
        engine = create_async_engine(server.url.replace("postgresql:", "postgresql+asyncpg:"))
        store = SqlStore(engine)
        service = Service("shipping", retry=Retry(attempts=1))
        attempts: list[int] = []

        @service.handler(once=store)
        async def book(
            event: OrderPlaced, context: Context, session: Annotated[AsyncSession, Depends(store.session)]
        ) -> None:
            attempts.append(context.attempt)
            await add(session, event.order_id)

        async with memory_bus() as bus, bus.run(service) as running:
            await bus.publish(OrderPlaced(order_id="0"))
            await eventually(lambda: running.counts["shipping"].handled == 1, "with the server")
            assert running.health().ok
            await asyncio.to_thread(server.kill)
            for order in range(5):
                await bus.publish(OrderPlaced(order_id=str(order)))
            await eventually(lambda: not running.health().ok, "health says so")
            assert "shipping" in running.health().errors
            assert attempts == [1]
            await asyncio.to_thread(server.start)
            await eventually(lambda: running.counts["shipping"].handled == 6, "with the server again")
            assert running.health().ok
            assert (attempts, running.counts["shipping"].dead) == ([1] * 6, 0)
        await engine.dispose()


@in_loop
async def test_two_that_race_at_a_strict_isolation_level(database: Database) -> None:
    """Each wins, loses or is Busy; none is told that the store is away."""
    engine = create_async_engine(database.async_url, isolation_level="SERIALIZABLE")
    store, won = SqlStore(engine), 0

    async def handle(mark: Mark) -> None:
        nonlocal won
        while not isinstance(begun := await store.begin(mark), Handled):
            if not isinstance(begun, Busy):
                await begun.commit(Handled())
                won += 1

    for number in range(20):
        await asyncio.gather(*(handle(Mark("shipping", "shop", str(number))) for _ in range(4)))
    await engine.dispose()
    assert (won, database.handled()) == (20, 20)


@in_loop
async def test_a_handler_that_a_stop_cuts_off_leaves_nothing(database: Database) -> None:
    async with store_on(database) as store:
        service = Service("shipping", stop_timeout=timedelta(seconds=0.1))
        attempts: list[int] = []

        @service.handler(once=store)
        async def book(
            event: OrderPlaced, context: Context, session: Annotated[AsyncSession, Depends(store.session)]
        ) -> None:
            attempts.append(context.attempt)
            await add(session, event.order_id)
            if len(attempts) == 1:
                await asyncio.Event().wait()

        async with memory_bus() as bus:
            async with bus.run(service):
                await bus.publish(OrderPlaced(order_id="1"))
                await eventually(lambda: attempts, "it runs")
            assert (database.work(), database.handled()) == (0, 0)
            async with bus.run(service) as running:
                await eventually(lambda: running.counts["shipping"].handled == 1, "the next one finishes it")
    assert (attempts, database.work()) == ([1, 1], 1)


def declared(how: Callable[[Service, SqlStore, BlockingSqlStore], None]) -> str:
    service = Service("shipping")
    waiting = SqlStore(create_async_engine("sqlite+aiosqlite:///none.db"))
    blocking = BlockingSqlStore(create_engine("sqlite:///none.db"))
    with pytest.raises(DeclarationError) as refused:
        how(service, waiting, blocking)
    return str(refused.value)


def test_what_cannot_work_is_refused_at_declaration() -> None:
    def batches(service: Service, store: SqlStore, _: BlockingSqlStore) -> None:
        @service.handler(once=store, batch=Batch())  # type: ignore[call-overload, untyped-decorator]
        async def book(events: list[OrderPlaced]) -> None: ...

    def plain(service: Service, store: SqlStore, _: BlockingSqlStore) -> None:
        @service.handler(once=store)
        def book(event: OrderPlaced) -> None: ...

    def waiting(service: Service, _: SqlStore, store: BlockingSqlStore) -> None:
        @service.handler(once=store)
        async def book(event: OrderPlaced) -> None: ...

    assert "single messages" in declared(batches)
    assert "this is a plain one" in declared(plain)
    assert "this is an async one" in declared(waiting)
    assert "create_engine() there is BlockingSqlStore" in declared(lambda *_: SqlStore(create_engine("sqlite://")))  # type: ignore[func-returns-value, arg-type]
    assert "retention" in declared(lambda *stores: SqlStore(stores[1]._engine, retention=timedelta(0)))  # type: ignore[func-returns-value]


@in_loop
async def test_a_session_outside_of_a_transaction_is_refused(database: Database) -> None:
    async with store_on(database) as store:
        with pytest.raises(DeclarationError, match="once="):
            await store.session()
