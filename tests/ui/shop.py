"""A small shop, that fails as it is told, with a page beside it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import eventkit
from eventkit import Bus, Command, Event, GiveUp, Retry, Service
from eventkit.redacting import Redactor
from eventkit.ui import Doors, show


class TicketSold(Event, topic="ui.tickets", key="ticket_id"):
    ticket_id: str
    card_number: str = "4000-1234"
    note: str = ""


class SeatTaken(Event, topic="ui.seats", key="ticket_id"):
    ticket_id: str


class PrintTicket(Command, service="printing"):
    ticket_id: str


class OutOfPaper(Exception):
    """What the handler raises while it is told to."""


class Shop:
    """Two services: seating has a handler that fails for `broken` tickets and can be made to wait."""

    def __init__(self) -> None:
        self.broken = True
        self.taken: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.seating = Service("seating", retry=Retry(attempts=1), concurrency=1)
        self.printing = Service("printing", retry=Retry(attempts=2, first_delay=timedelta(hours=1)))

        @self.seating.handler
        async def take(event: TicketSold) -> SeatTaken:
            await self.go_on.wait()
            if self.broken and event.ticket_id.startswith("broken"):
                raise GiveUp(f"no seat for {event.ticket_id}, paid with {event.card_number}")
            self.taken.append(event.ticket_id)
            return SeatTaken(ticket_id=event.ticket_id)

        @self.printing.handler
        async def print_(command: PrintTicket) -> None:
            raise OutOfPaper

        @self.printing.handler
        async def forget(event: SeatTaken) -> None: ...

    @property
    def services(self) -> list[Service]:
        return [self.seating, self.printing]


@dataclass
class Served:
    """The page of a shop that runs, and a bus to it."""

    address: str
    bus: Bus
    shop: Shop


@asynccontextmanager
async def served(
    name: str, url: str | None, doors: Doors | None = None, names: str = "", port: int = 0
) -> AsyncIterator[Served]:
    """The services run, and the page is served from a bus of its own (in memory: all share one world)."""
    shop, namespace = Shop(), f"ui{uuid.uuid4().hex[:8]}"
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    redactor = Redactor(word for word in names.split(",") if word)

    async with (
        eventkit.connect(name, url, namespace=namespace, service="ui-test") as bus,
        bus.run(*shop.services),
        eventkit.connect(name, url, namespace=namespace, service="page", provision="validate") as own,
    ):
        page = asyncio.create_task(
            show(
                own,
                shop.services,
                doors or Doors(),
                port=port,
                namespace=namespace,
                redactor=redactor,
                ready=address.set_result,
            )
        )
        try:
            await asyncio.wait([page, address], return_when=asyncio.FIRST_COMPLETED)
            if page.done():
                await page
            yield Served(address.result(), bus, shop)
        finally:
            page.cancel()
            await asyncio.wait([page])
            shop.go_on.set()
