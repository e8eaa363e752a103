"""Processes that end in the middle of a step, as with kill -9: nothing of Python runs any more."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from sqlalchemy import NullPool, create_engine, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from eventkit import Bus, Depends, Event, Service
from eventkit import headers as h
from eventkit.adapter import Connection, Message
from eventkit.contract.checks import eventually
from eventkit.memory import MemoryAdapter, Store
from eventkit.outgoing import Emitter
from eventkit.sql import BlockingSqlStore, SqlStore, relay, statements
from tests.once.databases import Database, work

CRASHED = 42
HANDLING = ("marked", "worked", "completed", "committed", "published", "sent", "told")
"""After which step the process of a handler ends: the mark, the handler's work, what goes with the mark, the commit,
the publish, the deletion of what is sent, and its commit."""
RELAYING = ("led", "read", "published", "removed", "settled")
PUTTING = ("put", "committed")

Kind = type[SqlStore] | type[BlockingSqlStore]


class OrderPlaced(Event, topic="orders"):
    order_id: str


class ParcelBooked(Event, topic="parcels", key="order_id"):
    order_id: str


def die() -> None:
    os._exit(CRASHED)


def crash(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run this in a process that must end in its middle."""
    _start.set_forkserver_preload(["tests.once.crashing"])
    process = _start.Process(target=_run, args=(work, *arguments))
    process.start()
    process.join(60)
    assert process.exitcode == CRASHED, f"{arguments}: it ended with {process.exitcode}"


_start = multiprocessing.get_context("forkserver")


def _run(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    asyncio.run(work(*arguments))


class Journal(MemoryAdapter):
    """A broker in this process that writes down, in a file, what it has confirmed."""

    file: Path

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        with self.file.open("a") as file:
            for message in messages:
                if message.type == "ParcelBooked":
                    file.write(f"{message.headers[h.ID]}\n")
        return await super().publish(messages)


@asynccontextmanager
async def bus_of(file: Path) -> AsyncIterator[Bus]:
    adapter = Journal(Connection(url=None, namespace="", client="test"), store=Store())
    adapter.file = file
    async with Bus(adapter, source="test") as bus:
        yield bus


def plain_service(url: str, point: str | None) -> tuple[Service, BlockingSqlStore]:
    store, service = BlockingSqlStore(create_engine(url, poolclass=NullPool)), Service("shipping")

    @service.handler(once=store)
    def book(event: OrderPlaced, session: Annotated[Session, Depends(store.session)]) -> ParcelBooked:
        session.execute(insert(work).values(order_id=event.order_id))
        if point == "worked":
            die()
        return ParcelBooked(order_id=event.order_id)

    return service, store


def async_service(url: str, point: str | None) -> tuple[Service, SqlStore]:
    store, service = SqlStore(create_async_engine(url, poolclass=NullPool)), Service("shipping")

    @service.handler(once=store)
    async def book(event: OrderPlaced, session: Annotated[AsyncSession, Depends(store.session)]) -> ParcelBooked:
        await session.execute(insert(work).values(order_id=event.order_id))
        if point == "worked":
            die()
        return ParcelBooked(order_id=event.order_id)

    return service, store


async def handle(database: Database, plain: bool, point: str | None, order: str, file: Path) -> None:
    """One order, whose message has the same id each time: as it comes again after a crash."""
    service, store = plain_service(database.plain_url, point) if plain else async_service(database.async_url, point)
    if point is not None:
        _die_in_handling(point, store)
    async with bus_of(file) as bus, bus.run(service) as running:
        await bus.publish(OrderPlaced(order_id=order), id=order)
        counts = running.counts["shipping"]
        await eventually(lambda: counts.handled + counts.repeated == 1, "it is handled")


def _die_in_handling(point: str, store: SqlStore | BlockingSqlStore) -> None:
    if point == "marked":
        _after(statements, "claim", _die)
    elif point == "completed":
        _after(statements, "complete", _die)
    elif point == "committed":
        Emitter.publish = _die_async  # type: ignore[method-assign]
    elif point == "published":
        statements.sent = _die  # type: ignore[assignment]
    elif point == "sent":
        _after(statements, "sent", _die)
    elif point == "told":
        sent = store.sent

        async def told(*arguments: Any) -> None:
            await sent(*arguments)
            die()

        store.sent = told  # type: ignore[method-assign]


def _after(module: Any, name: str, then: Callable[..., object]) -> None:
    original = getattr(module, name)

    def instead(*arguments: Any) -> Any:
        result = original(*arguments)
        then()
        return result

    setattr(module, name, instead)


def _die(*_: Any) -> None:
    die()


async def _die_async(*_: Any) -> None:
    die()


# the outbox


async def put(database: Database, point: str, orders: Sequence[str], file: Path) -> None:
    """Some orders, in one transaction."""
    store = SqlStore(create_async_engine(database.async_url, poolclass=NullPool))
    async with bus_of(file) as bus, AsyncSession(store._engine) as session:
        messages = [bus.encode(ParcelBooked(order_id=order), id=order) for order in orders]
        await session.execute(insert(work).values(order_id=",".join(orders)))
        await store.put(session, *messages)
        if point == "put":
            die()
        await session.commit()
        die()


async def publish(database: Database, point: str | None, file: Path) -> None:
    """What stands in the outbox, until nothing does."""
    engine = create_async_engine(database.async_url, poolclass=NullPool)
    store = SqlStore(engine, lease=timedelta(seconds=1), poll=timedelta(milliseconds=20))
    if point == "led":
        lead = relay.Relay._lead

        async def led(self: relay.Relay) -> None:
            await lead(self)
            if self.leading:
                die()

        relay.Relay._lead = led  # type: ignore[method-assign]
    elif point == "read":
        _after(relay.Relay, "_read", _die)
    elif point == "published":
        statements.remove = _die  # type: ignore[assignment]
    elif point == "removed":
        _after(statements, "remove", _die)
    elif point == "settled":
        settle = relay.Relay._settle

        async def settled(*arguments: Any) -> None:
            await settle(*arguments)
            die()

        relay.Relay._settle = settled  # type: ignore[method-assign]
    async with bus_of(file) as bus, store.relay(bus):
        await eventually(lambda: database.waiting() == 0, "all is published")
    await engine.dispose()
